"""Figures of the spectra of a slitlet on the way to the cube: stages, post-processing, and the dithers of a column."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.archive import crds
from msa3d.config import Dataset, Target
from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import open_cube
from msa3d.errors import CrdsError, ProductError
from msa3d.figures import style
from msa3d.figures.maps import draw_spectrum, name_line, target_of
from msa3d.figures.observation import middle
from msa3d.observation.reading import spectra
from msa3d.observation.sky import tangent_offsets
from msa3d.pipeline.layout import POST_SUFFIX, Layout
from msa3d.pipeline.products import is_simulated
from msa3d.published.rectified import SlitSpectrum, read_spectrum
from msa3d.reduce.corrections import Pathloss
from msa3d.reduce.geometry import read_geometries
from msa3d.reduce.slit import PITCH_IN_OPENINGS, cal_files, product_of, slits_of

log = logging.getLogger(__name__)

COLUMN_KMS = 250.0
"""Averaged to either side of Ha."""
PIXEL_ARCSEC = 0.1
"""Size of a detector pixel along the slit, nearly."""


@style.house_style()
def plot_column(layout: Layout, dataset: Dataset, source_id: int | None = None) -> Figure:
    """Draw the profiles along the slit, at Ha, of the dithers of the middle column, and their combinations.

    Needs the products of the published builder; a ProductError says which is missing.
    """
    target = target_of(dataset, source_id)
    column = (dataset.pattern.columns + 1) // 2
    cube = open_cube(layout.cube_medians(target.source_id))
    stack = _read(layout.column_stack(target.source_id, column))
    median = _read(layout.column_median(target.source_id, column))
    line = LINES["Ha"] * (1 + target.redshift)
    inside = np.abs(cube.wave_um / line - 1.0) * C_KMS <= COLUMN_KMS
    if not inside.any():
        raise ProductError(f"{cube.name}: H-alpha at {line:.4f} um is not covered")
    planes = _mean(np.where(stack == 0, np.nan, stack)[..., inside])
    known = np.isfinite(planes)
    profiles = {"median": _mean(median[..., inside]), "mean": _mean(planes.T)}
    step = float(np.hypot(*np.diff(cube.offsets(target.ra, target.dec), axis=1)[:, 0, 0]))
    along = step * (np.arange(planes.shape[1]) - 0.5 * (planes.shape[1] - 1))
    figure = style.new_figure(style.FULL_WIDTH, 3.5)
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.25])
    low, high = style.percentile_limits(planes, 2.0, 99.5)
    left.set_facecolor(style.HATCH_COLOURS[0])
    shown = left.pcolormesh(
        along, np.arange(planes.shape[0]) + 1, planes, rasterized=True, **style.scale(style.INTENSITY_MAP, low, high)
    )
    left.set(xlabel="along the slit (\u2033)", ylabel="dither")
    left.set_yticks(range(1, planes.shape[0] + 1))
    left.set_title(f"a  dithers of column {column} at H\u03b1")
    style.colour_bar(figure, shown, left, "MJy sr$^{-1}$", extend="both")
    right.plot(along, planes.T, color=style.SKY, linewidth=0.8, label=["dithers"] + ["_"] * (len(planes) - 1))
    right.plot(along, profiles["mean"], color=style.GREEN, linewidth=1.4, label="mean")
    right.plot(along, profiles["median"], color=style.BLACK, linewidth=1.4, label="median (published)")
    drizzled = _drizzled_profile(layout, dataset, target, cube, column)
    if drizzled is not None:
        right.plot(*drizzled, color=style.VERMILION, linewidth=1.4, label="drizzled cube")
    few = known.sum(axis=0) <= planes.shape[0] / 2
    for start, stop in _runs(few):
        right.axvspan(
            along[start] - step / 2, along[stop] + step / 2, color=style.EMPTY_COLOUR, alpha=0.7, linewidth=0, zorder=0
        )
    limits = style.percentile_limits(np.concatenate([planes.ravel(), profiles["median"]]), 1.0, 99.7)
    margin = limits[1] - limits[0]
    right.set(ylim=(limits[0] - 0.1 * margin, limits[1] + 0.5 * margin), xlim=(along[0], along[-1]))
    right.set(xlabel="along the slit (\u2033)", ylabel="surface brightness (MJy sr$^{-1}$)")
    right.set_title("b  profiles")
    right.legend(loc="upper right", ncols=2, columnspacing=1.0)
    data = {"a, b": {"along [arcsec]": along} | {f"dither {k + 1} [MJy/sr]": plane for k, plane in enumerate(planes)}}
    data["a, b"] |= {f"{name} [MJy/sr]": profile for name, profile in profiles.items()}
    return style.finish(
        figure,
        simulated=cube.simulated,
        alt=f"Left: {planes.shape[0]} dithers of column {column} at H-alpha, each shifted along the slit by its "
        f"offset, so that the bright galaxy is in one "
        "place. Right: their profiles scatter about the mean and the median, which agree within the scatter.",
        caption="From dithers to a column of the published cube. (a) Mean surface brightness within "
        f"\u00b1{COLUMN_KMS:g} km/s of H\u03b1 along the slit in the "
        f"{planes.shape[0]} dithers of column {column}, shifted by their offsets. (b) The same profiles (blue), "
        f"their mean, their median as published "
        "(zeros included), and the same cut through the drizzled cube. Grey: half of the dithers or more have no "
        "data there, and the published median is "
        "pulled to zero.",
        data=data,
    )


def _drizzled_profile(layout: Layout, dataset: Dataset, target: Target, published, column: int) -> tuple | None:
    """Offsets along the slit (arcsec) and brightness at Ha of the drizzled cube along a column of the published one."""
    path = layout.cube(target.source_id, dataset)
    if not path.is_file():
        return None
    cube = open_cube(path)
    line = LINES["Ha"] * (1 + target.redshift)
    image = _mean(np.moveaxis(cube.data[np.abs(cube.wave_um / line - 1.0) * C_KMS <= COLUMN_KMS], 0, -1))
    ra, dec = (sky[:, min(column - 1, published.shape[1] - 1)] for sky in published.spaxel_sky())
    x, y = (np.rint(pixel).astype(int) for pixel in cube.wcs.world_to_pixel_values(ra, dec))
    inside = (x >= 0) & (y >= 0) & (x < image.shape[1]) & (y < image.shape[0])
    value = np.full(x.size, np.nan)
    value[inside] = image[y[inside], x[inside]]
    step = float(np.hypot(*np.diff(published.offsets(target.ra, target.dec), axis=1)[:, 0, 0]))
    return step * (np.arange(x.size) - 0.5 * (x.size - 1)), value


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]


def _read(path: Path) -> np.ndarray:
    """First image of a file of the published builder, as float64."""
    if not path.is_file():
        raise ProductError(f"{path} is missing: run `msa3d cubebuild` first")
    with fits.open(path) as hdus:
        return np.asarray(next(h.data for h in hdus if h.is_image and h.data is not None), dtype=float)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    total = np.where(finite, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


REJECTED = "CRMASK"
HIT_HALF = 14
"""Columns to either side of the cosmic ray that is shown."""
PATHLOSS_COLOURS = {"MOS1x1": style.ORANGE, "MOS1x3": style.BLUE}


@style.house_style()
def plot_postprocess_effect(layout: Layout, dataset: Dataset, source_id: int | None = None) -> Figure:
    """Draw a cosmic ray before and after, the bar shadow along the slit before and after, and the path loss."""
    target = target_of(dataset, source_id)
    activities = layout.activities()
    if not activities:
        raise ProductError(f"{layout.process} holds no exposure: run `msa3d process` first")
    activity = middle(activities)
    product = dataset.process.product
    before = read_spectrum(layout.s2d(activity, target.source_id, product=product))
    path = layout.s2d(activity, target.source_id, POST_SUFFIX, product)
    if not path.is_file():
        raise ProductError(f"{path} is missing: run `msa3d postprocess` first")
    with fits.open(path) as hdus:
        after = np.asarray(hdus["SCI"].data, dtype=float)
        rejected = hdus[REJECTED].data > 0 if REJECTED in hdus else np.zeros(after.shape, dtype=bool)
    first, second = _blank(before.data), _blank(after)
    loss = _pathloss(first, second, rejected)
    figure = style.new_figure(style.FULL_WIDTH, 5.2)
    above, below = figure.subfigures(2, 1, height_ratios=(1.0, 1.35))
    number, hit = _hit(above, first, second * loss, rejected, before)
    left, right = below.subplots(1, 2)
    shadow = _bar_shadow(left, layout, dataset, target.source_id, activities)
    curves = _pathloss_curves(right, layout, dataset, before.wave_um, loss)
    name = style.heading(figure, target)
    edge = float(rejected[:, _edge(first)].sum()) / max(number, 1)
    told = (
        f"{number} of {rejected.size} pixels were replaced in this exposure, {100 * edge:.0f}% of them within 50 "
        f"columns of the ends, where they are noise "
        "rather than hits." if number else "no pixel of this exposure was replaced."
    )  # fmt: skip
    return style.finish(
        figure,
        simulated=is_simulated(before.primary),
        alt=f"Post-processing of {name}: a two-dimensional spectrum with a bright pixel before and without it after; "
        f"the profile along the slit has dips "
        f"where bars between shutters lie, which the correction fills; path loss between {np.nanmin(loss):.2f} and "
        f"{np.nanmax(loss):.2f}.",
        caption=f"Post-processing of {name}, exposure {activity}. (a, b) The largest cosmic ray that was found in "
        f"the rectified spectrum before and after it was "
        f"replaced, path loss left out; {told} (c) Median brightness along the slitlet, of all wavelengths and "
        f"{len(shadow.get('exposures', []))} exposures, before "
        "and after the correction of the bar shadow and the path loss for the drizzled cube; grey: bars between the "
        "shutters. (d) Fraction of the flux of a uniform "
        "source that passes: reference curves for one open shutter and for three, and what the published builder "
        "divided by (black).",
        data={"a, b": hit, "c": {k: v for k, v in shadow.items() if k != "exposures"}, "d": curves},
    )


def _edge(image: np.ndarray) -> np.ndarray:
    """Columns within 50 of the first and of the last one with data."""
    columns = np.flatnonzero(np.isfinite(image).any(axis=0))
    at = np.arange(image.shape[1])
    return (at < columns[0] + 50) | (at > columns[-1] - 50) if columns.size else np.zeros(at.size, bool)


def _hit(
    figure: Figure, first: np.ndarray, second: np.ndarray, rejected: np.ndarray, spectrum: SlitSpectrum
) -> tuple[int, dict]:
    """Draw the largest change of a replaced pixel; number of replaced pixels, and columns of data."""
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    change = np.where(rejected & np.isfinite(first) & np.isfinite(second), np.abs(first - second), 0.0)
    inner = np.where(_edge(first)[None], 0.0, change)
    chosen = inner if inner.any() else change
    y, x = (
        np.unravel_index(int(np.argmax(chosen)), change.shape)
        if chosen.any()
        else (change.shape[0] // 2, change.shape[1] // 2)
    )
    columns = slice(max(x - HIT_HALF, 0), x + HIT_HALF + 1)
    parts = [image[:, columns] for image in (first, second)]
    low, high = style.percentile_limits(parts[1], 2.0, 99.0)
    high = max(high, low + 0.5 * (float(np.nanmax(parts[0])) - low)) if chosen.any() else high
    offset = PIXEL_ARCSEC * (np.arange(first.shape[0]) - 0.5 * (first.shape[0] - 1))
    wave = spectrum.wave_um[columns]
    for axes, part, title in zip(panels, parts, ("a  before", "b  after"), strict=True):
        shown = axes.pcolormesh(wave, offset, part, rasterized=True, **style.scale(style.INTENSITY_MAP, low, high))
        axes.set_facecolor(style.HATCH_COLOURS[0])
        axes.set_title(title)
        axes.set_xlabel("vacuum wavelength (\u00b5m)")
        axes.locator_params(axis="x", nbins=5)
        if chosen.any():
            axes.plot(
                spectrum.wave_um[x],
                offset[y],
                "o",
                markersize=13,
                markerfacecolor="none",
                markeredgecolor=style.VERMILION,
                markeredgewidth=1.5,
            )
    panels[0].set_ylabel("along the slit (\u2033)")
    style.colour_bar(figure, shown, list(panels), "MJy sr$^{-1}$", extend="both", fraction=0.03)
    grid_y, grid_x = np.meshgrid(offset, wave, indexing="ij")
    return int(rejected.sum()), {
        "along [arcsec]": grid_y,
        "wavelength [um]": grid_x,
        "before [MJy/sr]": parts[0],
        "after [MJy/sr]": parts[1],
    }


def _bar_shadow(axes: Axes, layout: Layout, dataset: Dataset, source_id: int, activities: list[str]) -> dict:
    """Draw the profile along the slitlet before and after its correction, of the exposures of the middle column."""
    axes.set(xlabel="along the slit (shutter openings)", ylabel="median (MJy sr$^{-1}$)")
    axes.set_title("c  bar shadow")
    wanted = dataset.pattern.columns // 2
    chosen = [name for index, name in enumerate(activities) if dataset.pattern.place(index)[1] == wanted] or activities[
        :1
    ]
    pixels: list[np.ndarray] = []
    used, state = [], ""
    for activity in chosen:
        for cal in cal_files(layout, activity):
            if product_of(cal).is_file() and (found := _slit_pixels(cal, source_id)) is not None:
                pixels.append(found[0])
                state = found[1]
                used.append(activity)
    if not pixels:
        axes.text(0.5, 0.5, "not corrected", transform=axes.transAxes, ha="center", va="center", color=style.GREY)
        return {"along": np.zeros(0)}
    place, before, after = np.concatenate(pixels, axis=1)
    edges = np.arange(np.floor(place.min() * 10) / 10, place.max() + 0.1, 0.08)
    middles = 0.5 * (edges[1:] + edges[:-1])
    index = np.digitize(place, edges) - 1
    profiles = {}
    for name, values, colour in (("before", before, style.GREY), ("after", after, style.RESULT_COLOUR)):
        groups = [values[(index == k) & np.isfinite(values)] for k in range(middles.size)]
        value = np.array([np.median(group) if group.size > 50 else np.nan for group in groups])
        error = np.array(
            [
                1.2533 * 1.4826 * np.median(np.abs(g - np.median(g))) / np.sqrt(g.size) if g.size > 50 else np.nan
                for g in groups
            ]
        )
        axes.errorbar(
            middles, value, error, color=colour, marker="o", markersize=2.5, elinewidth=0.6, linewidth=0.9, label=name
        )
        profiles |= {f"{name} [MJy/sr]": value, f"{name} error [MJy/sr]": error}
    pitch = PITCH_IN_OPENINGS
    first = -(len(state) - 1) / 2 * pitch
    for k in range(len(state) + 1):
        bar = first + (k - 0.5) * pitch
        axes.axvspan(
            bar - 0.5 * (pitch - 1.0), bar + 0.5 * (pitch - 1.0), color=style.EMPTY_COLOUR, linewidth=0, zorder=0
        )
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), high + 0.25 * (high - low))
    axes.legend(loc="upper center", ncols=2)
    return {"along [openings]": middles, **profiles, "exposures": sorted(set(used))}


def _slit_pixels(cal: Path, source_id: int) -> tuple[np.ndarray, str] | None:
    """Place along the slit, value before and after, of a source's pixels, (3, n), and its shutters, if it is there."""
    corrected = product_of(cal)
    geometries = read_geometries(corrected)
    with fits.open(corrected, memmap=False) as hdus, fits.open(cal, memmap=False) as raw:
        for slit in slits_of(hdus, geometries, str(corrected)):
            if slit.source_id == source_id:
                before = np.asarray(raw["SCI", slit.version].data, dtype=float)
                after = np.where(slit.usable, slit.data, np.nan)
                keep = np.isfinite(slit.wave_um) & np.isfinite(before)
                return np.array([slit.from_middle[keep], before[keep], after[keep]]), slit.state
    return None


def _pathloss_curves(axes: Axes, layout: Layout, dataset: Dataset, wave_um: np.ndarray, loss: np.ndarray) -> dict:
    """Draw the path loss of the reference for one and three shutters, and what the published builder divided by."""
    columns = {"wavelength [um]": wave_um, "divided by": loss}
    try:
        crds.use_references(layout, dataset)
        reference = Pathloss.read(crds.reference_for(next(iter(spectra(layout.rates()))), "pathloss"))
    except (CrdsError, ProductError) as error:
        log.warning("no reference for the path loss: %s", error)
    else:
        for aperture in (reference.one, reference.three):
            colour = PATHLOSS_COLOURS.get(aperture.name.replace("X", "x"), style.GREY)
            axes.plot(
                aperture.wave_um, aperture.uniform, color=colour, linewidth=1.8, label=f"{aperture.name}, uniform"
            )
            columns[aperture.name] = np.interp(wave_um, aperture.wave_um, aperture.uniform)
    axes.plot(wave_um, loss, color=style.BLACK, linestyle="--", linewidth=1.0, label="divided by (published)")
    values = np.concatenate([values for name, values in columns.items() if name != "wavelength [um]"])
    values = values[np.isfinite(values)]
    if values.size:
        spread = max(float(np.ptp(values)), 0.02)
        axes.set_ylim(values.min() - 0.1 * spread, values.max() + 0.6 * spread)
    axes.set(xlabel="vacuum wavelength (\u00b5m)", ylabel="before / after", xlim=(wave_um[0], wave_um[-1]))
    axes.set_title("d  path loss")
    axes.legend(loc="upper right")
    return columns


def _pathloss(before: np.ndarray, after: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """Median over the rows of before / after where nothing was replaced, a value a wavelength."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(rejected, np.nan, before / after)
    result = np.full(ratio.shape[1], np.nan)
    some = np.isfinite(ratio).any(axis=0)
    result[some] = np.nanmedian(ratio[:, some], axis=0)
    return result


STAGES = {
    "rate": "count rates",
    "cal": "calibrated pixels of the slit (cal)",
    "s2d": "both detectors rectified (s2d)",
    "post": "after cosmic rays and path loss (published)",
    "median": "median of the dithers of a column (published)",
    "drizzle": "drizzled cube, cut along the slit",
}
"""Stages of a spectrum on the way to the cubes."""
MARKED = ("Ha", "[NII]6583")


@dataclass(frozen=True)
class Panel:
    """One image of the figure: data ``[y, wave]``, its wavelengths (um), title, unit, and arcsec per row."""

    title: str
    data: np.ndarray
    wave_um: np.ndarray
    unit: str
    step_arcsec: float = PIXEL_ARCSEC


@style.house_style()
def plot_spectrum_steps(
    layout: Layout,
    dataset: Dataset,
    source_id: int | None = None,
    *,
    stages: Sequence[str] = tuple(STAGES),
    activity: str | None = None,
    centre_um: float | None = None,
    half_um: float = 0.02,
) -> Figure:
    """Draw a part of the two-dimensional spectrum of a source, one stage of the reduction under the other.

    Parameters
    ----------
    layout : Layout
        The run.
    dataset : Dataset
        The observation.
    source_id : int, optional
        The source; the case study without it.
    stages : sequence of str
        Keys of `STAGES`; those that do not exist yet are left out.
    activity : str, optional
        The exposure; the middle one without it.
    centre_um, half_um : float
        Middle of the wavelengths shown, that of Ha without it, and how far they reach to each side, vacuum, um.
    """
    target = target_of(dataset, source_id)
    middle_um = LINES["Ha"] * (1 + target.redshift) if centre_um is None else centre_um
    panels, simulated = _collect(layout, dataset, target, middle_um, stages, activity)
    shown = {panel.title: np.abs(panel.wave_um - middle_um) <= half_um for panel in panels}
    for panel in panels:
        if not shown[panel.title].any():
            raise ProductError(f"{panel.title}: {middle_um:.4f} um of source {target.source_id} is not covered")
    figure = style.new_figure(style.FULL_WIDTH, 1.12 * len(panels) + 0.7)
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    limits = {}
    for unit in {panel.unit for panel in panels}:
        same = [panel.data[:, shown[panel.title]].ravel() for panel in panels if panel.unit == unit]
        # One scale a unit: that of the last stage, whose noise is least.
        low, high = style.percentile_limits(same[-1], 3.0, 99.8)
        limits[unit] = style.scale(style.INTENSITY_MAP, low - 0.3 * (high - low), high)
    drawn: dict[str, list] = {unit: [] for unit in limits}
    data = {}
    for letter, axes, panel in zip("abcdef", rows, panels, strict=False):
        inside = shown[panel.title]
        offset = panel.step_arcsec * (np.arange(panel.data.shape[0]) - 0.5 * (panel.data.shape[0] - 1))
        image = draw_spectrum(axes, panel.wave_um[inside], panel.data[:, inside], offset, **limits[panel.unit])
        axes.set_facecolor(style.HATCH_COLOURS[0])
        drawn[panel.unit].append((axes, image))
        axes.set_title(f"{letter}  {panel.title}")
        for name, rest in LINES.items():
            if abs(rest * (1 + target.redshift) - middle_um) < half_um and (name in MARKED or centre_um is not None):
                axes.axvline(rest * (1 + target.redshift), ymin=0.86, color="white", linewidth=1.4)
                axes.axvline(rest * (1 + target.redshift), ymax=0.14, color="white", linewidth=1.4)
                if axes is rows[0]:
                    name_line(axes, name, target.redshift, rotation=0.0)
        grid_y, grid_x = np.meshgrid(offset, panel.wave_um[inside], indexing="ij")
        data[letter] = {
            "along [arcsec]": grid_y,
            "wavelength [um]": grid_x,
            f"value [{panel.unit}]": panel.data[:, inside],
        }
    for unit, found in drawn.items():
        style.colour_bar(
            figure,
            found[-1][1],
            [axes for axes, _ in found],
            _UNITS[unit],
            fraction=0.03,
            extend="both",
            aspect=12 * len(found),
        )
    figure.supylabel("along the slit (\u2033)", fontsize=8.5)
    rows[-1].set_xlabel("vacuum wavelength (\u00b5m)")
    name = target.name or str(target.source_id)
    listed = "; ".join(f"({letter}) {panel.title}" for letter, panel in zip("abcdef", panels, strict=False))
    return style.finish(
        figure,
        simulated=simulated,
        alt=f"{len(panels)} two-dimensional spectra of {name} around {middle_um:.3f} micrometre, one under the "
        f"other: a bright spot, the emission "
        "line, on the faint horizontal band of the continuum stands out more clearly from stage to stage.",
        caption=f"One spectrum of {name} through the reduction. {listed[0].upper()}{listed[1:]}. Wavelength to the "
        f"right; white ticks: "
        "emission lines; panels of one unit share one scale; grey: no data.",
        data=data,
    )


_UNITS = {"DN/s": "DN s$^{-1}$", "MJy/sr": "surface brightness (MJy sr$^{-1}$)"}


def _collect(
    layout: Layout, dataset: Dataset, target: Target, middle_um: float, stages: Sequence[str], activity: str | None
) -> tuple[list[Panel], bool]:
    """Images of the stages of an exposure, and whether they are simulated; of the detector that saw the wavelength."""
    activities, source_id = layout.activities(), target.source_id
    if not activities:
        raise ProductError(f"{layout.process} holds no exposure: run `msa3d process` first")
    if unknown := set(stages) - set(STAGES):
        raise ProductError(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    activity = activity or middle(activities)
    if activity not in activities:
        raise ProductError(f"{layout.process} holds no exposure {activity}; it has {activities[0]} to {activities[-1]}")
    panels = _slit_panels(layout, activity, source_id, middle_um, stages) if {"rate", "cal"} & set(stages) else []
    product = dataset.process.product
    spectrum = read_spectrum(layout.s2d(activity, source_id, product=product))
    if "s2d" in stages:
        panels.append(Panel(STAGES["s2d"], _blank(spectrum.data), spectrum.wave_um, "MJy/sr"))
    path = layout.s2d(activity, source_id, POST_SUFFIX, product)
    if "post" in stages and path.is_file():
        cleaned = read_spectrum(path)
        panels.append(Panel(STAGES["post"], _blank(cleaned.data), cleaned.wave_um, "MJy/sr"))
    column = dataset.pattern.place(activities.index(activity))[1] + 1
    path = layout.column_median(source_id, column)
    if "median" in stages and path.is_file():
        cube = open_cube(layout.cube_medians(source_id))
        image = _read(path)
        image = image if image.shape[1] == cube.wave_um.size else image.T
        panels.append(Panel(STAGES["median"], _blank(image), cube.wave_um, "MJy/sr", PIXEL_ARCSEC / 4.0))
    path = layout.cube(source_id, dataset)
    if "drizzle" in stages and path.is_file() and (cut := _cut(path, target, spectrum)) is not None:
        panels.append(cut)
    if not panels:
        raise ProductError(f"none of {', '.join(stages)} is there yet for source {source_id} in exposure {activity}")
    return panels, is_simulated(spectrum.primary)


def _cut(path: Path, target: Target, spectrum: SlitSpectrum) -> Panel | None:
    """Spectra of a drizzled cube along the slit through the target; None where the cube does not know its slit."""
    cube = open_cube(path)
    if "SLITPA" not in cube.header:
        return None
    angle = np.radians(cube.header["SLITPA"])
    east, north = cube.offsets(target.ra, target.dec)
    along, across = east * np.sin(angle) + north * np.cos(angle), east * np.cos(angle) - north * np.sin(angle)
    (east0, east1), (north0, north1) = tangent_offsets(*spectrum.geometry.ends.T, target.ra, target.dec)
    if (east1 - east0) * np.sin(angle) + (north1 - north0) * np.cos(angle) < 0:
        along = -along  # Rows as in the rectified spectra.
    inside = (np.abs(across) <= PIXEL_ARCSEC) & np.isfinite(cube.data).any(axis=0)
    edges = np.arange(along[inside].min() - 0.5 * PIXEL_ARCSEC, along[inside].max() + PIXEL_ARCSEC, PIXEL_ARCSEC)
    masks = [inside & (along >= low) & (along < low + PIXEL_ARCSEC) for low in edges]
    image = np.array([_mean(cube.data[:, mask]) for mask in masks if mask.any()])
    return Panel(STAGES["drizzle"], image, cube.wave_um, "MJy/sr")


def _slit_panels(layout: Layout, activity: str, source_id: int, middle_um: float, stages: Sequence[str]) -> list[Panel]:
    """Count rates and calibrated pixels of the slit, on the detector that saw the wavelength."""
    for cal in sorted(layout.process_dir(activity).glob("*_nrs[12]_cal.fits")):
        with fits.open(cal) as hdus:
            slits = (hdu for hdu in hdus if hdu.name == "SCI" and hdu.header.get("SOURCEID") == source_id)
            number = next((hdu.ver for hdu in slits), None)
            if number is None:
                continue
            sci, wave = hdus["SCI", number], hdus["WAVELENGTH", number].data
            wave = np.nanmedian(np.where(wave > 0, wave, np.nan), axis=0)
            if not np.nanmin(wave) <= middle_um <= np.nanmax(wave):
                continue
            keep = np.isfinite(wave)
            x, y, (height, width) = sci.header["SLTSTRT1"], sci.header["SLTSTRT2"], sci.data.shape
            calibrated = _blank(np.asarray(sci.data, dtype=float)[:, keep])
        with fits.open(layout.root / cal.name.replace("_cal.fits", "_rate.fits")) as hdus:
            cutout = np.asarray(hdus["SCI"].data[y - 1 : y - 1 + height, x - 1 : x - 1 + width], dtype=float)
        detector = cal.name.split("_")[-2].upper()
        panels = {
            "rate": Panel(f"{STAGES['rate']}, {detector}", cutout[:, keep], wave[keep], "DN/s"),
            "cal": Panel(STAGES["cal"], calibrated, wave[keep], "MJy/sr"),
        }
        return [panels[stage] for stage in panels if stage in stages]
    log.warning("no detector of exposure %s saw source %s at %.4f um", activity, source_id, middle_um)
    return []


def _blank(image: np.ndarray) -> np.ndarray:
    """Exact zeros, which jwst writes where it has no data, as NaN."""
    return np.where(image == 0, np.nan, image)
