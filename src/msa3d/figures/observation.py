"""Figures of exposures and spectra, before the cube."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.stats import mad_std
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from msa3d.config import Dataset, Target
from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import open_cube
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.maps import EAST_LABEL, NORTH_LABEL, draw_spectrum, name_line, target_of
from msa3d.observation.reading import spectra
from msa3d.observation.sky import tangent_offsets
from msa3d.pipeline.layout import POST_SUFFIX, Layout, exposure_names, observing_order, parse_rate_name
from msa3d.pipeline.products import is_simulated
from msa3d.published.rectified import SlitSpectrum, read_spectrum

log = logging.getLogger(__name__)

COLUMN_KMS = 250.0
"""Averaged to either side of Ha."""


@style.house_style()
def plot_column(layout: Layout, dataset: Dataset, source_id: int | None = None) -> Figure:
    """Draw the profiles along the slit, at Ha, of the dithers of the middle column, and their median.

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
    profile = _mean(median[..., inside])
    figure = style.new_figure(style.FULL_WIDTH, 2.9)
    left, right = figure.subplots(1, 2)
    low, high = style.percentile_limits(planes, 2.0, 99.5)
    shown = left.imshow(
        planes, aspect="auto", **style.scale(style.INTENSITY_MAP, low, high),
        extent=(-0.5, planes.shape[1] - 0.5, 0.5, planes.shape[0] + 0.5),
    )  # fmt: skip
    left.set(xlabel="sub-pixel along the slit", ylabel="dither")
    left.set_yticks(range(1, planes.shape[0] + 1))
    left.set_title(f"a  Dithers of column {column} at H\u03b1")
    style.colour_bar(figure, shown, left, "surface brightness (MJy/sr)")
    right.plot(planes.T, color=style.SKY, linewidth=0.7, label=["dithers"] + ["_"] * (len(planes) - 1))
    right.plot(profile, color=style.BLACK, linewidth=1.4, label="median")
    # jwst's first and last rows of a slitlet hold little light and large errors.
    limits = style.percentile_limits(np.concatenate([planes.ravel(), profile]), 1.0, 99.5)
    margin = 0.1 * (limits[1] - limits[0])
    right.set_ylim(limits[0] - margin, limits[1] + margin)
    right.set(xlabel="sub-pixel along the slit", ylabel="surface brightness (MJy/sr)")
    right.set_title("b  Their profiles and the median")
    right.legend(loc="best")
    alt = (
        f"Left: {planes.shape[0]} dithers of column {column}, shifted along the slit by their offsets, at "
        "H-alpha. Right: their profiles along the slit, thin, and the median of them, thick."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


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


BIN = (2, 16)
"""Rows and columns of a block."""


@style.house_style()
def plot_detectors(layout: Layout, activity: str | None = None) -> Figure:
    """Draw both detectors of an exposure, the middle one unless told, binned; wavelength increases to the right."""
    names = exposure_names(path for path in spectra(layout.rates()) if parse_rate_name(path))
    if activity is None:
        activity = _middle(sorted(set(names.values()), key=observing_order)) if names else "any"
    paths = [path for path, name in names.items() if name == activity]
    if not paths:
        raise ProductError(f"{layout.root} holds no count rates of exposure {activity}")
    figure = style.new_figure(style.FULL_WIDTH, 3.7, "compressed")
    panels = figure.subplots(1, len(paths), sharey=True, squeeze=False)[0]
    images, simulated = [], False
    for path in paths:
        with fits.open(path) as hdus:
            images.append(_binned(np.asarray(hdus["SCI"].data, dtype=float)))
            simulated |= is_simulated(hdus[0].header)
    low, high = style.percentile_limits(np.concatenate([image.ravel() for image in images]), 5.0, 99.8)
    scatter = max(mad_std(np.concatenate([image.ravel() for image in images]), ignore_nan=True), 1e-9)
    norm = Normalize(vmin=min(low, -2.0 * scatter), vmax=max(high, 2.0 * scatter))
    for axes, path, image in zip(panels, paths, images, strict=True):
        size = (-0.5, image.shape[1] * BIN[1] - 0.5, -0.5, image.shape[0] * BIN[0] - 0.5)
        shown = axes.imshow(image, extent=size, norm=norm, cmap=style.colour_map(style.INTENSITY_MAP))
        axes.set_title(parse_rate_name(path)["detector"].upper())
        axes.set_xlabel("column (pixel)")
    panels[0].set_ylabel("row (pixel)")
    style.colour_bar(figure, shown, list(panels), "count rate (DN/s)", fraction=0.03)
    detectors = " and ".join(parse_rate_name(path)["detector"].upper() for path in paths)
    alt = (
        f"Count-rate images of {detectors} of exposure {activity}: each slitlet is a nearly horizontal band "
        "in which wavelength increases to the right."
    )
    return style.finish(figure, simulated=simulated, alt=alt)


def _middle(activities: list[str]) -> str:
    """Name of the middle exposure."""
    return activities[math.ceil(len(activities) / 2) - 1]


def _binned(image: np.ndarray) -> np.ndarray:
    """Median of blocks of pixels, so that single hot ones do not hide the spectra."""
    ny, nx = (size // step for size, step in zip(image.shape, BIN, strict=True))
    blocks = image[: ny * BIN[0], : nx * BIN[1]].reshape(ny, BIN[0], nx, BIN[1])
    return np.median(np.nan_to_num(blocks), axis=(1, 3))


@style.house_style()
def plot_slit_stepping(layout: Layout, dataset: Dataset, source_id: int | None = None) -> Figure:
    """Draw the slitlet of a source in every exposure, and the order of the exposures.

    The slitlet is drawn from the first to the last row of the exposure's rectified spectrum, and as wide as
    the step across the slit (the open width of a shutter).
    """
    target = target_of(dataset, source_id)
    spectra = _spectra(layout, target.source_id)
    centres, ends = _lines(spectra, target)
    figure = style.new_figure(style.FULL_WIDTH, 3.6)
    left, right = figure.subplots(1, 2)
    _draw_slitlets(left, dataset, ends)
    _draw_order(right, centres)
    left.set_title(f"a  Slitlets of {style.literal(target.name or target.source_id)}")
    right.set_title("b  Order of the exposures")
    rows, columns = dataset.pattern.rows, dataset.pattern.columns
    alt = (
        f"Two maps of the sky around {target.name or target.source_id}. Left: the outline of its slitlet in "
        f"{len(spectra)} exposures, coloured by column; {columns} columns lie side by side. Right: the "
        f"middles of the slitlets, joined in observing order, through {rows} rows."
    )
    return style.finish(figure, simulated=any(is_simulated(s.primary) for s in spectra), alt=alt)


def _spectra(layout: Layout, source_id: int) -> list[SlitSpectrum]:
    """All rectified spectra of a source in observing order."""
    paths = [layout.s2d(activity, source_id) for activity in layout.activities()]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise ProductError(f"{layout.process} holds no spectrum of source {source_id}: run `msa3d process` first")
    return [read_spectrum(path) for path in found]


def _lines(spectra: list[SlitSpectrum], target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Middles (n, 2) and ends (n, 2, 2: which end, east and north) of the slitlets, arcsec."""
    ends = []
    for spectrum in spectra:
        east, north = tangent_offsets(*spectrum.geometry.ends.T, target.ra, target.dec)
        ends.append(np.column_stack([east, north]))
    ends = np.array(ends)
    return ends.mean(axis=1), ends


def _draw_slitlets(axes: Axes, dataset: Dataset, ends: np.ndarray) -> None:
    """Outline of each slitlet, coloured by its column."""
    pattern = dataset.pattern
    colours = style.colour_map("cividis")(np.linspace(0.0, 0.85, pattern.columns))
    half = 0.5 * pattern.column_step_arcsec
    for index, (first, last) in enumerate(ends):
        along = (last - first) / np.hypot(*(last - first))
        across = half * np.array([-along[1], along[0]])
        corners = [first - across, first + across, last + across, last - across]
        row, column = pattern.place(index)
        label = f"{column + 1}" if row == 0 else None
        axes.add_patch(
            Polygon(corners, closed=True, fill=True, alpha=0.12, facecolor=colours[column], edgecolor="none")
        )
        axes.add_patch(Polygon(corners, closed=True, fill=False, linewidth=0.6, edgecolor=colours[column], label=label))
    axes.plot(0, 0, "+", color=style.VERMILION, markersize=9, markeredgewidth=1.5)
    axes.autoscale_view()
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_xaxis()
    axes.set_xlabel(EAST_LABEL)
    axes.set_ylabel(NORTH_LABEL)
    handles, labels = axes.get_legend_handles_labels()
    order = np.argsort([int(label) for label in labels])
    axes.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        title="column",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        handlelength=1.0,
        borderpad=0.2,
    )


def _draw_order(axes: Axes, centres: np.ndarray) -> None:
    """Middles of the slitlets joined in observing order, first and last numbered."""
    axes.plot(centres[:, 0], centres[:, 1], "-", color=style.GREY, linewidth=0.7)
    axes.plot(centres[:, 0], centres[:, 1], "o", color=style.BLUE, markersize=3)
    step = 1 if len(centres) <= 12 else 9
    shown = sorted({0, len(centres) - 1, *range(0, len(centres), step)})
    for index in shown:
        axes.annotate(str(index + 1), centres[index], xytext=(3, 3), textcoords="offset points", fontsize=6.5)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    axes.invert_xaxis()
    axes.set_xlabel(EAST_LABEL)
    axes.set_ylabel(NORTH_LABEL)


REJECTED = "CRMASK"


@style.house_style()
def plot_postprocess_effect(layout: Layout, dataset: Dataset, source_id: int | None = None) -> Figure:
    """Draw the spectrum of the middle exposure before and after, what was replaced, and the path loss."""
    target = target_of(dataset, source_id)
    activities = layout.activities()
    if not activities:
        raise ProductError(f"{layout.process} holds no exposure: run `msa3d process` first")
    activity = _middle(activities)
    product = dataset.process.product
    before = read_spectrum(layout.s2d(activity, target.source_id, product=product))
    path = layout.s2d(activity, target.source_id, POST_SUFFIX, product)
    if not path.is_file():
        raise ProductError(f"{path} is missing: run `msa3d postprocess` first")
    with fits.open(path) as hdus:
        after = np.asarray(hdus["SCI"].data, dtype=float)
        rejected = hdus[REJECTED].data > 0 if REJECTED in hdus else np.zeros(after.shape, dtype=bool)
    first = np.where(before.data == 0, np.nan, before.data)
    second = np.where(after == 0, np.nan, after)
    figure = style.new_figure(style.FULL_WIDTH, 5.0)
    panels = figure.subplots(4, 1, sharex=True)
    low, high = style.percentile_limits(first, 2.0, 98.0)
    for axes, image, title in (
        (panels[0], first, "a  Rectified spectrum (s2d)"),
        (panels[1], second, "b  Cosmic rays replaced, divided by the path loss"),
    ):
        shown = draw_spectrum(axes, before.wave_um, image, **style.scale(style.INTENSITY_MAP, low, high))
        axes.set_title(title)
        axes.set_ylabel("row")
        style.colour_bar(figure, shown, axes, "MJy/sr", fraction=0.03)
    y, x = np.nonzero(rejected)
    panels[2].plot(before.wave_um[x], y, ".", color=style.VERMILION, markersize=1.0, rasterized=True)
    panels[2].set_ylim(-0.5, first.shape[0] - 0.5)
    panels[2].set_ylabel("row")
    panels[2].set_title(f"c  Pixels replaced: {rejected.sum()} of {rejected.size}")
    loss = _pathloss(first, second, rejected)
    panels[3].plot(before.wave_um, loss, color=style.BLUE)
    panels[3].set_ylabel("before / after")
    panels[3].set_title("d  Path loss divided out: light of a uniform field that passes")
    panels[3].set_xlabel("vacuum wavelength (\u00b5m)")
    panels[3].set_xlim(before.wave_um[0], before.wave_um[-1])
    alt = (
        f"Exposure {activity} of source {target.source_id}, wavelength to the right: the two-dimensional "
        f"spectrum before and after post-processing, the {rejected.sum()} pixels that were replaced, and the "
        f"path loss, {np.nanmin(loss):.2f} to {np.nanmax(loss):.2f}."
    )
    return style.finish(figure, simulated=is_simulated(before.primary), alt=alt)


def _pathloss(before: np.ndarray, after: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """Median over the rows of before / after where nothing was replaced, a value a wavelength."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(rejected, np.nan, before / after)
    result = np.full(ratio.shape[1], np.nan)
    some = np.isfinite(ratio).any(axis=0)
    result[some] = np.nanmedian(ratio[:, some], axis=0)
    return result


MARKED = ("Ha", "[NII]6583")
STAGES = {
    "rate": "Count rates",
    "cal": "Calibrated pixels of the slit (cal)",
    "s2d": "Both detectors rectified (s2d)",
    "post": "After cosmic rays and path loss",
    "median": "Median of the dithers of its column",
}
"""Stages of a spectrum on the way to the published cube."""


@dataclass(frozen=True)
class Panel:
    """One image of the figure: data ``[y, wave]``, its wavelengths (um), title and unit."""

    title: str
    data: np.ndarray
    wave_um: np.ndarray
    unit: str


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
    middle = LINES["Ha"] * (1 + target.redshift) if centre_um is None else centre_um
    panels, simulated = _collect(layout, dataset, target.source_id, middle, stages, activity)
    figure = style.new_figure(style.FULL_WIDTH, 1.15 * len(panels) + 0.5)
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for letter, axes, panel in zip("abcdef", rows, panels, strict=False):
        shown = np.abs(panel.wave_um - middle) <= half_um
        if not shown.any():
            raise ProductError(f"{panel.title}: {middle:.4f} um of source {target.source_id} is not covered")
        low, high = style.percentile_limits(panel.data[:, shown], 5.0, 99.5)
        scale = style.scale(style.INTENSITY_MAP, low, high)
        image = draw_spectrum(axes, panel.wave_um[shown], panel.data[:, shown], **scale)
        axes.set_title(f"{letter}  {panel.title}")
        axes.set_ylabel("row")
        style.colour_bar(figure, image, axes, panel.unit, fraction=0.03)
    for name, rest in LINES.items():
        if abs(rest * (1 + target.redshift) - middle) < half_um and (name in MARKED or centre_um is not None):
            name_line(rows[0], name, target.redshift, rotation=0.0, fontsize=7)
    rows[-1].set_xlabel("vacuum wavelength (\u00b5m)")
    alt = (
        f"{len(panels)} two-dimensional spectra of source {target.source_id} around {middle:.3f} micrometre, one under "
        "the other: " + "; ".join(panel.title for panel in panels) + "."
    )
    return style.finish(figure, simulated=simulated, alt=alt)


def _collect(
    layout: Layout, dataset: Dataset, source_id: int, middle_um: float, stages: Sequence[str], activity: str | None
) -> tuple[list[Panel], bool]:
    """Images of the stages of an exposure, and whether they are simulated; of the detector that saw the wavelength."""
    activities = layout.activities()
    if not activities:
        raise ProductError(f"{layout.process} holds no exposure: run `msa3d process` first")
    if unknown := set(stages) - set(STAGES):
        raise ProductError(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    activity = activity or _middle(activities)
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
        panels.append(Panel(f"{STAGES['median']}, {column}", _blank(image), cube.wave_um, "MJy/sr"))
    if not panels:
        raise ProductError(f"none of {', '.join(stages)} is there yet for source {source_id} in exposure {activity}")
    return panels, is_simulated(spectrum.primary)


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
