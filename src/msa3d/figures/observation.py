"""Figures of the exposures: the detectors, and where the slitlets lay on the sky."""

from __future__ import annotations

import math

import numpy as np
from astropy.io import fits
from astropy.stats import mad_std
from astropy.wcs import WCS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from msa3d.config import Dataset, Target
from msa3d.constants import LINES
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.maps import EAST_LABEL, HALO, NORTH_LABEL, target_of
from msa3d.observation.reading import spectra
from msa3d.observation.sky import tangent_offsets
from msa3d.pipeline.layout import Layout, exposure_names, observing_order, parse_rate_name
from msa3d.pipeline.products import is_simulated
from msa3d.published.rectified import SlitSpectrum, read_spectrum

BIN = (4, 16)
"""Rows and columns of a block."""
ZOOM = (24, 160)
"""Rows and columns to either side of the line in the enlarged part."""


@style.house_style()
def plot_detectors(layout: Layout, dataset: Dataset, activity: str | None = None) -> Figure:
    """Draw both detectors of an exposure, the middle one unless told, the slitlets outlined, and a line enlarged."""
    names = exposure_names(path for path in spectra(layout.rates()) if parse_rate_name(path))
    if activity is None:
        activity = middle(sorted(set(names.values()), key=observing_order)) if names else "any"
    paths = [path for path, name in names.items() if name == activity]
    if not paths:
        raise ProductError(f"{layout.root} holds no count rates of exposure {activity}")
    images, simulated = {}, False
    for path in paths:
        with fits.open(path) as hdus:
            image = np.asarray(hdus["SCI"].data, dtype=float)
            simulated |= is_simulated(hdus[0].header)
        # What the read-out adds to whole columns hides the spectra.
        images[path] = image - np.nanmedian(image, axis=0)
    slits = {path: _slits(layout, activity, path) for path in paths}
    place = _line_place(dataset, slits)
    figure = style.new_figure(style.FULL_WIDTH, 5.6 if place else 4.0)
    rows = [[path.name for path in paths], ["zoom"] * len(paths)] if place else [[path.name for path in paths]]
    grid = figure.subplot_mosaic(rows, height_ratios=[3.4, 1.2] if place else [1.0])
    flat = np.concatenate([_binned(image).ravel() for image in images.values()])
    low, high = style.percentile_limits(flat, 1.0, 99.5)
    high = max(high, low + 4.0 * max(float(mad_std(flat, ignore_nan=True)), 1e-9))
    columns: dict[str, list] = {
        "detector": [],
        "source": [],
        "x from [pixel]": [],
        "x to [pixel]": [],
        "y from [pixel]": [],
        "y to [pixel]": [],
    }
    for letter, path in zip("ab", paths, strict=False):
        axes, image = grid[path.name], _binned(images[path])
        size = (-0.5, image.shape[1] * BIN[1] - 0.5, -0.5, image.shape[0] * BIN[0] - 0.5)
        shown = axes.imshow(image, extent=size, **style.scale(style.INTENSITY_MAP, low, high))
        detector = parse_rate_name(path)["detector"].upper()
        axes.set_title(f"{letter}  {detector}")
        axes.set_xlabel("column (pixel)")
        for source_id, x, edges, _ in slits[path]:
            _outline(axes, source_id, x, edges, dataset)
            values = (detector, source_id, x[0], x[-1], np.nanmin(edges), np.nanmax(edges))
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    grid[paths[0].name].set_ylabel("row (pixel)")
    style.colour_bar(
        figure, shown, [grid[path.name] for path in paths], "count rate (DN s$^{-1}$)", fraction=0.03, extend="both"
    )
    if place:
        _zoomed(grid["zoom"], images, place, dataset, figure)
    detectors = " and ".join(parse_rate_name(path)["detector"].upper() for path in paths)
    found = len(columns["source"])
    return style.finish(
        figure,
        simulated=simulated,
        alt=f"Count-rate images of {detectors} of exposure {activity}: the spectra of the slitlets are thin, "
        f"slightly curved horizontal bands, "
        + (f"{found} of them outlined and numbered" if found else "bright against the background")
        + (
            "; below, the emission line H-alpha of the case study enlarged, a short tilted bar on a band."
            if place
            else "."
        ),
        caption=f"Count rates of exposure {activity} on {detectors}. The median of each detector column is "
        f"subtracted; pixels are binned "
        f"{BIN[0]} \u00d7 {BIN[1]}. Wavelength increases to the right."
        + (" Outlines: slitlets of the target galaxies, as calibrated." if found else "")
        + (" (c) The neighbourhood of H\u03b1 in the slitlet of the case study, unbinned." if place else ""),
        data={"a, b": columns},
    )


def middle(activities: list[str]) -> str:
    """Name of the middle exposure."""
    return activities[math.ceil(len(activities) / 2) - 1]


def _binned(image: np.ndarray) -> np.ndarray:
    """Median of blocks of pixels, so that single hot ones do not hide the spectra."""
    ny, nx = (size // step for size, step in zip(image.shape, BIN, strict=True))
    blocks = image[: ny * BIN[0], : nx * BIN[1]].reshape(ny, BIN[0], nx, BIN[1])
    return np.median(np.nan_to_num(blocks), axis=(1, 3))


def _slits(layout: Layout, activity: str, rate) -> list[tuple]:
    """Slits of a count-rate image, once they are calibrated: source, columns, lower and upper edge, wavelengths."""
    cal = layout.process_dir(activity) / rate.name.replace("_rate.fits", "_cal.fits")
    if not cal.is_file():
        return []
    found = []
    with fits.open(cal) as hdus:
        for hdu in hdus:
            if hdu.name != "SCI" or int(hdu.header.get("SOURCEID", 0)) <= 0:
                continue
            wave = np.asarray(hdus["WAVELENGTH", hdu.ver].data, dtype=float)
            lit = np.isfinite(wave) & (wave > 0)
            columns = np.flatnonzero(lit.any(axis=0))
            if columns.size < 10:
                continue
            rows = np.arange(lit.shape[0])[:, None]
            low = np.where(lit, rows, lit.shape[0]).min(axis=0)[columns] + hdu.header["SLTSTRT2"] - 1.5
            high = np.where(lit, rows, -1).max(axis=0)[columns] + hdu.header["SLTSTRT2"] - 0.5
            along = np.nanmedian(np.where(lit, wave, np.nan)[:, columns], axis=0)
            x = columns + hdu.header["SLTSTRT1"] - 1
            found.append((int(hdu.header["SOURCEID"]), x, np.array([low, high]), along))
    return found


def _outline(axes: Axes, source_id: int, x: np.ndarray, edges: np.ndarray, dataset: Dataset) -> None:
    """Draw the outline of a slitlet; name it if it is that of a target."""
    known = source_id in dataset.source_ids
    colour = style.ORANGE if known else style.SKY
    axes.plot(np.concatenate([x, x[::-1], x[:1]]), np.concatenate([edges[0], edges[1][::-1], edges[0][:1]]),
              color=colour, linewidth=0.8)  # fmt: skip
    if known:
        at = int(np.clip(x[len(x) // 2], 150, 1900)), edges[1][len(x) // 2]
        axes.annotate(str(source_id), at, (0, 2), textcoords="offset points", ha="center",
                      va="bottom", path_effects=HALO)  # fmt: skip


def _line_place(dataset: Dataset, slits: dict) -> tuple | None:
    """Detector, column and row at which the case study has Ha; None where that is not known."""
    target = dataset.target(dataset.case_study)
    wanted = LINES["Ha"] * (1.0 + target.redshift)
    for path, found in slits.items():
        for source_id, x, edges, wave in found:
            if source_id == target.source_id and wave.min() < wanted < wave.max():
                index = int(np.argmin(np.abs(wave - wanted)))
                return path, int(x[index]), round(float(edges[:, index].mean())), target
    return None


def _zoomed(axes: Axes, images: dict, place: tuple, dataset: Dataset, figure: Figure) -> None:
    """Draw the neighbourhood of a line, pixel by pixel."""
    path, x, y, target = place
    image = images[path]
    rows, columns = (slice(max(at - half, 0), at + half + 1) for at, half in zip((y, x), ZOOM, strict=True))
    part = image[rows, columns]
    low, high = style.percentile_limits(part, 2.0, 99.7)
    corner, size = np.array([columns.start, rows.start]) - 0.5, part.shape[::-1]
    extent = (corner[0], corner[0] + size[0], corner[1], corner[1] + size[1])
    shown = axes.imshow(part, aspect="auto", extent=extent, **style.scale(style.INTENSITY_MAP, low, high))  # fmt: skip
    axes.annotate(
        "H\u03b1",
        (x, y + 0.45 * ZOOM[0]),
        (0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        path_effects=HALO,
    )
    axes.set(xlabel="column (pixel)", ylabel="row (pixel)")
    detector = parse_rate_name(path)["detector"].upper()
    axes.set_title(f"c  {style.literal(target.name or target.source_id)}, {detector}")
    style.colour_bar(figure, shown, axes, "DN s$^{-1}$", fraction=0.03, extend="both")


@style.house_style()
def plot_slit_stepping(layout: Layout, dataset: Dataset, source_id: int | None = None) -> Figure:
    """Draw the slitlet of a source in every exposure, on the sky where that is known, and the order of the exposures.

    The slitlet is drawn from the first to the last row of the exposure's rectified spectrum, and as wide as
    the step across the slit (the open width of a shutter).
    """
    target = target_of(dataset, source_id)
    found = _spectra(layout, target.source_id)
    centres, ends = _lines(found, target)
    figure = style.new_figure(style.FULL_WIDTH, 4.1)
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.15])
    has_image = _draw_sky(left, layout, target)
    _draw_slitlets(left, dataset, ends)
    pairs = _draw_order(right, dataset, centres, ends)
    left.set_title("a  slitlets")
    style.heading(figure, target)
    right.set_title("b  order of the exposures")
    rows, columns = dataset.pattern.rows, dataset.pattern.columns
    places = [dataset.pattern.place(index) for index in range(len(found))]
    angle = _slit_angle(ends)
    step = dataset.pattern.column_step_arcsec
    return style.finish(
        figure,
        simulated=any(is_simulated(s.primary) for s in found),
        alt=f"Two diagrams of {target.name or target.source_id}. Left: {columns} narrow slitlets side by side, at an "
        f"angle of {angle:.0f} degrees, cover "
        f"the galaxy. Right: the middles of the slitlets in {len(found)} exposures, a grid of {columns} columns and "
        f"{rows} rows, joined in a serpentine.",
        caption=f"Slit-stepping of {target.name or target.source_id}. (a) Outline of its slitlet in the first row of "
        f"{columns} steps of {step:g}\u2033 across the "
        "slit, each in its colour; the other rows are dithers along the slit, in grey. Cross: position in the "
        f"catalogue; arrow: the slit, at a position angle of {angle:.1f}\u00b0 "
        "(north through east)."
        + (" Image: the injected continuum, convolved with the PSF." if has_image else "")
        + f" (b) Middles of the slitlets of all {len(found)} exposures across and along the slit, as their headers "
        f"have them, in the same colours; the line "
        "follows the observing order, numbers are those of exposures.",
        data={
            "b": {
                "exposure": np.arange(len(found)) + 1,
                "row": [row + 1 for row, _ in places],
                "column": [column + 1 for _, column in places],
                "east [arcsec]": centres[:, 0],
                "north [arcsec]": centres[:, 1],
                "across [arcsec]": pairs[:, 0],
                "along [arcsec]": pairs[:, 1],
            }
        },
    )


def _spectra(layout: Layout, source_id: int) -> list[SlitSpectrum]:
    """All rectified spectra of a source in observing order."""
    paths = [layout.s2d(activity, source_id) for activity in layout.activities()]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise ProductError(f"{layout.process} holds no spectrum of source {source_id}: run `msa3d process` first")
    return [read_spectrum(path) for path in found]


def _lines(found: list[SlitSpectrum], target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Middles (n, 2) and ends (n, 2, 2: which end, east and north) of the slitlets, arcsec."""
    ends = []
    for spectrum in found:
        east, north = tangent_offsets(*spectrum.geometry.ends.T, target.ra, target.dec)
        ends.append(np.column_stack([east, north]))
    ends = np.array(ends)
    return ends.mean(axis=1), ends


def _slit_angle(ends: np.ndarray) -> float:
    """Position angle of the slitlets, deg, from north through east, in [0, 180)."""
    east, north = (ends[:, 1] - ends[:, 0]).mean(axis=0)
    return float(np.degrees(np.arctan2(east, north)) % 180.0)


def _draw_sky(axes: Axes, layout: Layout, target: Target) -> bool:
    """Draw the injected continuum of a simulated galaxy; whether there is one."""
    path = layout.truth / f"truth_s{target.source_id:05d}.fits"
    if not path.is_file():
        return False
    with fits.open(path) as hdus:
        image, wcs = np.mean(hdus["SCI"].data, axis=0, dtype=float), WCS(hdus["SCI"].header).celestial
    y, x = np.mgrid[0 : image.shape[0] + 1, 0 : image.shape[1] + 1] - 0.5
    east, north = tangent_offsets(*wcs.pixel_to_world_values(x, y), target.ra, target.dec)
    top = float(np.percentile(image, 99.8))
    axes.pcolormesh(
        east,
        north,
        np.sqrt(np.clip(image / top, 0.0, None)),
        cmap="Greys",
        vmin=0.0,
        vmax=1.3,
        rasterized=True,
        zorder=0,
    )
    return True


def _colours(dataset: Dataset) -> np.ndarray:
    return style.colour_map("viridis")(np.linspace(0.0, 0.92, dataset.pattern.columns))


def _draw_slitlets(axes: Axes, dataset: Dataset, ends: np.ndarray) -> None:
    """Outline of each slitlet: those of the first row coloured by column."""
    pattern, colours = dataset.pattern, _colours(dataset)
    half = 0.5 * pattern.column_step_arcsec
    for index, (first, last) in enumerate(ends):
        along = (last - first) / np.hypot(*(last - first))
        across = half * np.array([-along[1], along[0]])
        corners = [first - across, first + across, last + across, last - across]
        row, column = pattern.place(index)
        look = {"edgecolor": colours[column], "linewidth": 1.4, "zorder": 3} if row == 0 else {
            "edgecolor": style.GREY, "linewidth": 0.3, "alpha": 0.5, "zorder": 2}  # fmt: skip
        axes.add_patch(Polygon(corners, closed=True, fill=False, **look))
    axes.plot(0, 0, "+", color=style.VERMILION, markersize=11, markeredgewidth=1.8, zorder=4)
    corners = ends.reshape(-1, 2)
    low, high = corners.min(axis=0) - 0.35, corners.max(axis=0) + 0.35
    axes.set(xlim=(high[0], low[0]), ylim=(low[1], high[1]))
    axes.set_aspect("equal")
    middle_of, along = corners.mean(axis=0), ends[0, 1] - ends[0, 0]
    along *= np.sign(along[1]) or 1.0
    axes.annotate("", middle_of + 0.62 * along, middle_of + 0.42 * along, zorder=5,
                  arrowprops={"arrowstyle": "-|>", "color": style.VERMILION, "linewidth": 1.5})  # fmt: skip
    axes.set_xlabel(EAST_LABEL)
    axes.set_ylabel(NORTH_LABEL)


def _draw_order(axes: Axes, dataset: Dataset, centres: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Middles of the slitlets across and along the slit, (n, 2), joined in observing order."""
    colours, angle = _colours(dataset), np.radians(_slit_angle(ends))
    offset = centres - centres.mean(axis=0)
    along = offset @ np.array([np.sin(angle), np.cos(angle)])
    across = offset @ np.array([-np.cos(angle), np.sin(angle)])
    axes.plot(across, along, "-", color=style.GREY, linewidth=0.8, zorder=1)
    places = [dataset.pattern.place(index) for index in range(len(centres))]
    axes.scatter(across, along, c=[colours[column] for _, column in places], s=28, zorder=2)
    for index in sorted({0, len(centres) - 1, *(k for k in range(1, len(places)) if places[k][0] != places[k - 1][0])}):
        left = across[index] < np.median(across)
        axes.annotate(str(index + 1), (across[index], along[index]), (-6 if left else 6, 0), textcoords="offset points",
                      ha="right" if left else "left", va="center")  # fmt: skip
    for index in range(len(places) - 1):
        if places[index][0] == places[index + 1][0] and abs(2 * places[index][1] + 1 - dataset.pattern.columns) <= 2:
            axes.annotate("", (across[index + 1], along[index + 1]), (across[index], along[index]), zorder=1,
                          arrowprops={"arrowstyle": "-|>", "color": style.GREY, "linewidth": 0.8})  # fmt: skip
            continue
    axes.margins(0.16, 0.12)
    axes.set(xlabel="across the slit (\u2033)", ylabel="along the slit (\u2033)")
    return np.column_stack([across, along])
