"""Figures of the emission lines of a galaxy: maps of all lines, and their ratios."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.config import Dataset
from msa3d.constants import LABELS, LINES
from msa3d.cubes.psf import quadratic_form
from msa3d.figures import style
from msa3d.figures.maps import (
    HALF_ARCSEC,
    draw_contours,
    draw_map,
    label_sky,
    map_shape,
    map_table,
    mark_map,
)
from msa3d.galaxy import report
from msa3d.galaxy.bins import BinMap, bins_for_line
from msa3d.galaxy.images import well_observed
from msa3d.galaxy.injected import line_discs
from msa3d.galaxy.measure import Galaxy
from msa3d.galaxy.profiles import disc_columns, rings

if TYPE_CHECKING:
    from msa3d.closure.truth import TrueLines

FLUX_UNIT = 1e-17
FLUX_LABEL = "10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ arcsec$^{-2}$"
FLUX_COLUMN = "[1e-17 erg s-1 cm-2 arcsec-2]"
SUM = "[SII]6716+6731"
SHOWN = ("Hb", "[OIII]5007", "Ha", "[NII]6583", SUM)
"""Lines of the maps, by wavelength; both lines of [S II] together."""
LINE_LABELS = {**LABELS, SUM: "[S II] 6716+31"}


def line_image(flux: dict[str, np.ndarray], error: dict[str, np.ndarray], name: str):
    """Image of a line and its error; of the sum of both lines for `SUM`."""
    parts = ("[SII]6716", "[SII]6731") if name == SUM else (name,)
    if any(part not in flux for part in parts):
        return None
    return sum(flux[part] for part in parts), np.sqrt(sum(error[part] ** 2 for part in parts))


def expected_image(galaxy: Galaxy, name: str) -> np.ndarray:
    """Flux of the smooth disc of a line, convolved with the PSF, (n_y, n_x); 0 where no disc was found.

    What is selected by it is not selected by the noise of the spaxels.
    """
    image = np.zeros(galaxy.cube.shape)
    everywhere = np.ones(galaxy.cube.shape, bool)
    for part in ("[SII]6716", "[SII]6731") if name == SUM else (name,):
        if part in galaxy.discs:
            disc, wave = galaxy.discs[part], LINES[part] * (1.0 + galaxy.redshift)
            column = disc_columns(galaxy.cube, galaxy.geometry, wave, disc.rate, everywhere)[:, 0]
            image += np.exp(disc.log_centre) * column.reshape(image.shape)
    return image


def region_flux(galaxy: Galaxy, name: str, mask: np.ndarray) -> tuple[float, float]:
    """Mean surface brightness of a line over some spaxels, and its error.

    Parameters
    ----------
    galaxy : Galaxy
        What was measured.
    name : str
        Species, or `SUM`.
    mask : ndarray of bool, shape (n_y, n_x)
        The spaxels; those without a value take no part.

    Returns
    -------
    mean, error : float
        erg s-1 cm-2 arcsec-2; NaN where there is nothing. The error has the correlation of the spaxels, and is
        scaled by what wavelengths without lines show that formal errors do not know (`noise_scale`).
    """
    found = line_image(galaxy.lines.flux, galaxy.lines.flux_error, name)
    if found is None:
        return np.nan, np.nan
    known = mask & np.isfinite(found[0] + found[1])
    if not known.any():
        return np.nan, np.nan
    error = sum_error(galaxy, np.where(known, found[1], 0.0)) / known.sum()
    return float(found[0][known].mean()), error * noise_scale(galaxy, name)


def sum_error(galaxy: Galaxy, weighted: np.ndarray) -> float:
    """Error of a sum over spaxels from their errors (n_y, n_x), with the correlation between them."""
    correlation = galaxy.cube.correlation
    if correlation is None:
        return float(np.sqrt((weighted**2).sum()))
    return float(np.sqrt(quadratic_form(weighted[None], correlation[correlation.shape[0] // 2])[0]))


def noise_scale(galaxy: Galaxy, name: str) -> float:
    """Error of the flux in all rings from wavelengths without lines, over the formal one; at least 1."""
    name = "[SII]6716" if name == SUM else name
    if name not in galaxy.rings:
        return 1.0
    ring = galaxy.rings[name]
    weight = ring.count.astype(float)
    known = np.isfinite(galaxy.lines.flux[name]) & well_observed(galaxy.cube)
    inside = known & (galaxy.geometry.radius(galaxy.cube) < ring.high[-1])
    formal = sum_error(galaxy, np.where(inside, np.nan_to_num(galaxy.lines.flux_error[name]), 0.0))
    return max(1.0, float(np.sqrt(weight @ ring.covariance @ weight)) / formal) if formal > 0 else 1.0


def line_bins(galaxy: Galaxy, name: str, snr: float) -> BinMap:
    """Bins in which the smooth disc of a line has a signal to noise, out to where its rings have one of 2."""
    image, error = expected_image(galaxy, name), line_image(galaxy.lines.flux, galaxy.lines.flux_error, name)[1]
    radius, ring = galaxy.geometry.radius(galaxy.cube), galaxy.rings["[SII]6716" if name == SUM else name]
    means = rings(image, galaxy.cube, galaxy.geometry, np.append(ring.low, ring.high[-1])).mean
    faint = ring.radius[~(means > 2.0 * ring.error)]
    end = faint.min() if faint.size else ring.high[-1]
    where = (radius < end) & well_observed(galaxy.cube)
    return bins_for_line(galaxy.cube, image, error * noise_scale(galaxy, name), snr, where)


@style.house_style()
def plot_line_maps(dataset: Dataset, galaxy: Galaxy, true: TrueLines | None = None) -> Figure:
    """Draw all lines of every spaxel with their errors; with a truth also that, and the difference over the error."""
    cube, target = galaxy.cube, dataset.target(galaxy.source_id)
    centre = (galaxy.geometry.ra, galaxy.geometry.dec)
    found = {name: line_image(galaxy.lines.flux, galaxy.lines.flux_error, name) for name in SHOWN}
    found = {name: images for name, images in found.items() if images is not None}
    rows = _rows(galaxy, found, true)
    wide = (style.FULL_WIDTH - 0.7) / len(found)
    height = len(rows) * (wide * map_shape(cube, centre, HALF_ARCSEC) + 0.0) + 1.1
    figure = style.new_figure(style.FULL_WIDTH, height, "compressed")
    grid = figure.subplots(len(rows), len(found), sharex=True, sharey=True, squeeze=False)
    for column, name in enumerate(found):
        limit = style.percentile_limits(rows["flux"][name], 1.0, 99.0)[1]
        scale = style.scale(style.FLUX_MAP, 0.0, max(limit, 1e-3))
        snr = expected_image(galaxy, name) / np.nanmedian(found[name][1])
        for row, (label, images) in enumerate(rows.items()):
            axes = grid[row, column]
            look = style.signed_scale(4.0) if label == "pull" else scale
            mesh = draw_map(axes, cube, images[name], centre, half=HALF_ARCSEC, **look)
            label_sky(axes, east=row == len(rows) - 1, north=column == 0)
            if label == "flux":
                draw_contours(axes, cube, snr, centre, "white")
                axes.set_title(LINE_LABELS[name], loc="center")
                bar = figure.colorbar(mesh, ax=axes, location="top", pad=0.02, aspect=14, extend="both")
                bar.ax.locator_params(nbins=3)
            if column == 0:
                axes.annotate(label, (0.04, 0.95), xycoords="axes fraction", va="top", **_NAME)
            if label == "pull" and column == len(found) - 1:
                figure.colorbar(mesh, ax=list(grid[row]), pad=0.02, aspect=14, extend="both", label="pull")
    figure.supxlabel(f"colours of flux, error and truth: {FLUX_LABEL}", fontsize=8.5)
    mark_map(grid[0, 0], cube, target.redshift)
    name = style.heading(figure, target)
    return style.finish(figure, simulated=cube.simulated, **_texts(name, galaxy, found, rows, centre))


_NAME = {
    "fontsize": 8.5,
    "fontweight": "bold",
    "bbox": {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5},
}


def _rows(galaxy: Galaxy, found: dict, true: TrueLines | None) -> dict[str, dict[str, np.ndarray]]:
    """Images by row and line."""
    rows = {"flux": {n: f / FLUX_UNIT for n, (f, _) in found.items()}}
    rows["error"] = {n: e / FLUX_UNIT for n, (_, e) in found.items()}
    if true is not None:
        put = true.spaxels
        made = {n: line_image(put.flux, put.flux_error, n) for n in found}
        blank = np.full(galaxy.cube.shape, np.nan)
        rows["truth"] = {n: blank if m is None else m[0] / FLUX_UNIT for n, m in made.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            rows["pull"] = {n: (rows["flux"][n] - rows["truth"][n]) / rows["error"][n] for n in found}
        rows["truth"] = {n: np.where(np.isfinite(rows["flux"][n]), image, np.nan) for n, image in rows["truth"].items()}
    return rows


def _texts(name: str, galaxy: Galaxy, found: dict, rows: dict, centre) -> dict:
    """Alternative text, caption and data of the maps."""
    peaks = ", ".join(f"{LINE_LABELS[n]} {np.nanmax(expected_image(galaxy, n) / e):.1f}" for n, (_, e) in found.items())
    last = ""
    if "pull" in rows:
        widths = ", ".join(
            f"{np.nanmean(p):.2f} and {np.nanstd(p):.2f} ({LINE_LABELS[n]})" for n, p in rows["pull"].items()
        )
        last = (
            " Third row: the injected flux, convolved with the PSF and the slit, on the same colours. Fourth row: "
            f"recovered minus injected in units of the error; its mean and standard deviation are {widths}."
        )
    return {
        "alt": f"Maps of {len(found)} emission lines of {name}, side by side. The discs fade from the centre outwards; "
        f"the expected signal to noise per spaxel at the centre is: {peaks}.",
        "caption": f"Emission lines of {name}. First row: surface brightness ({_PLAIN_UNIT}) of every spaxel from "
        "one fit of all lines, with the velocity and the dispersion of the disc, so that no spaxel is selected by its "
        "own noise; contours: 3, 5 and 10 times the median error per spaxel, expected from the exponential disc of the "
        "line. "
        "Second row: 1\u03c3 errors on the same colours." + last + " Grey ellipse: FWHM of the PSF; hatched: observed, "
        "but the line falls in the gap between the detectors or on too few good voxels.",
        "data": {
            LINE_LABELS[n]: map_table(
                galaxy.cube,
                centre,
                {label if label == "pull" else f"{label} {FLUX_COLUMN}": rows[label][n] for label in rows},
            )
            for n in found
        },
    }


_PLAIN_UNIT = "10\u207b\u00b9\u2077 erg s\u207b\u00b9 cm\u207b\u00b2 arcsec\u207b\u00b2"


LEAST_SNR = 2.0
"""A ratio in which a line is fainter than that many errors is drawn as a limit."""


@style.house_style()
def plot_line_ratios(dataset: Dataset, galaxy: Galaxy) -> Figure | None:
    """Draw [O III]/Hb against [N II]/Ha and [S II]/Ha, in rings and of the whole disc; None where Hb is not covered."""
    if not {"Hb", "[OIII]5007", "Ha", "[NII]6583"} <= galaxy.lines.flux.keys():
        return None
    cube, target = galaxy.cube, dataset.target(galaxy.source_id)
    radius = galaxy.geometry.radius(cube)
    edges = np.array([0.0, 0.25, 0.5, 0.8])
    regions = [(low, high, (radius >= low) & (radius < high)) for low, high in pairwise(edges)]
    regions.append((0.0, edges[-1], radius < edges[-1]))
    figure = style.new_figure(style.FULL_WIDTH, 3.9)
    panels = figure.subplots(1, 2, sharey=True)
    data, whole = {}, ""
    for letter, axes, below in zip("ab", panels, ("[NII]6583", SUM), strict=True):
        columns: dict[str, list] = {"from [arcsec]": [], "to [arcsec]": []}
        for low, high, mask in regions:
            x, y = (log_ratio(galaxy, *pair, mask) for pair in ((below, "Ha"), ("[OIII]5007", "Hb")))
            is_all = mask is regions[-1][2]
            _ratio_point(axes, x, y, style.VERMILION if is_all else None, (low, high, edges[-1]))
            for name, value in zip(("x", "x error", "x limit", "y", "y error", "y limit"), (*x, *y), strict=True):
                columns.setdefault(name, []).append(value)
            columns["from [arcsec]"].append(low)
            columns["to [arcsec]"].append(high)
        data[letter] = columns
        _classes(axes, below)
        axes.set_xlabel(f"log {LINE_LABELS[below]} / H\u03b1")
        axes.set_title(f"{letter}  {LINE_LABELS[below]}")
    panels[0].set_ylabel("log [O III] 5007 / H\u03b2")
    put = _injected_ratios(panels[0], galaxy, dataset)
    panels[0].legend(loc="lower left")
    name = style.heading(figure, target)
    first = data["a"]
    whole = f"log([N II]/H\u03b1) = {style.number(first['x'][-1], first['x error'][-1])}"
    return style.finish(
        figure,
        simulated=cube.simulated,
        alt=f"Line-ratio diagrams of {name}: the rings lie below the dividing lines, where gas ionised by young "
        f"stars lies, "
        f"within their errors; {whole} within {edges[-1]:g} arcsec.",
        caption=f"Line ratios of {name}. (a) [O III] 5007/H\u03b2 against [N II] 6583/H\u03b1 and (b) against [S "
        f"II]/H\u03b1: three "
        f"annuli (blue, the darker the further in; edges at {', '.join(f'{e:g}' for e in edges[1:])}\u2033) and all "
        f"within "
        f"{edges[-1]:g}\u2033 (red); 1\u03c3, arrows: 2\u03c3 limits where a line is below 2\u03c3. Not corrected "
        f"for dust. Curves: upper limit of "
        f"star formation (Kewley et al. 2001; solid) and the empirical boundary (Kauffmann et al. 2003; dotted).{put}",
        data=data,
    )


def log_ratio(galaxy: Galaxy, above: str, below: str, mask: np.ndarray) -> tuple[float, float, str]:
    """Logarithm (base 10) of a ratio in a region, its error, and the side on which it is a limit.

    Returns
    -------
    value, error : float
        dex. Where a line is below `LEAST_SNR`, twice its error takes its place, and the error is NaN.
    side : str
        ``""``, or ``upper``, ``lower`` or ``unknown`` (both lines are too faint).
    """
    (a, ea), (b, eb) = (region_flux(galaxy, name, mask) for name in (above, below))
    seen = a > LEAST_SNR * ea, b > LEAST_SNR * eb
    if not any(seen):
        return np.nan, np.nan, "unknown"
    value = np.log10((a if seen[0] else max(a, 0.0) + 2.0 * ea) / (b if seen[1] else max(b, 0.0) + 2.0 * eb))
    if not all(seen):
        return float(value), np.nan, "upper" if seen[1] else "lower"
    return float(value), float(np.hypot(ea / a, eb / b) / np.log(10.0)), ""


def _ratio_point(axes: Axes, x: tuple, y: tuple, colour: str | None, ring: tuple[float, float, float]) -> None:
    """Draw a point with errors or arrows."""
    if "unknown" in (x[2], y[2]):
        return
    low, high, end = ring
    colour = colour or style.colour_map("Blues")(1.0 - 0.6 * 0.5 * (low + high) / end)
    marker = "D" if low == 0.0 and high == end else "o"
    arrow = {
        "xuplims": x[2] == "upper",
        "xlolims": x[2] == "lower",
        "uplims": y[2] == "upper",
        "lolims": y[2] == "lower",
    }
    axes.errorbar(x[0], y[0], xerr=0.12 if x[2] else x[1], yerr=0.15 if y[2] else y[1], fmt=marker, color=colour,
                  ms=6, elinewidth=1.0, mec="white", mew=0.6, zorder=4, **arrow)  # fmt: skip


def _classes(axes: Axes, below: str) -> None:
    """Draw the boundaries of Kewley et al. (2001) and Kauffmann et al. (2003)."""
    limits = (-2.0, 0.4) if below == "[NII]6583" else (-1.6, 0.3)
    x = np.linspace(*limits, 200)
    if below == "[NII]6583":
        curves = ((0.61, 0.47, 1.19, "-", "Kewley et al. 2001"), (0.61, 0.05, 1.30, ":", "Kauffmann et al. 2003"))
    else:
        curves = ((0.72, 0.32, 1.30, "-", "Kewley et al. 2001"),)
    for factor, pole, level, line, label in curves:
        use = (x < pole - 0.05) & ((x > -1.3) | (line == "-"))
        axes.plot(
            x[use], factor / (x[use] - pole) + level, color=style.BLACK, linestyle=line, linewidth=1.0, label=label
        )
    axes.set(xlim=limits, ylim=(-1.4, 1.4))


def _injected_ratios(axes: Axes, galaxy: Galaxy, dataset: Dataset) -> str:
    """Draw the injected ratios from the centre outwards; a sentence for the caption, empty without a truth."""
    known = report.injected(dataset, galaxy.source_id)
    if not {"metallicity_centre", "av_centre", "scale_line"} <= known.keys():
        return ""
    discs = line_discs(known)
    radius = np.linspace(0.0, 0.8, 30)
    bright = {name: total / scale**2 * np.exp(-radius / scale) for name, (total, scale) in discs.items()}
    x, y = (np.log10(bright[a] / bright[b]) for a, b in (("[NII]6583", "Ha"), ("[OIII]5007", "Hb")))
    axes.plot(x, y, color=style.TRUTH_COLOUR, linewidth=2.5, zorder=3, label="injected, 0\u20130.8\u2033")
    axes.plot(x[:1], y[:1], "o", color=style.TRUTH_COLOUR, markersize=5, zorder=3)
    return " Orange: injected ratios, dust included, from the centre (dot) to 0.8\u2033."
