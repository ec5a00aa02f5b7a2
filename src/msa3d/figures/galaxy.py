"""Figures of a galaxy against radius: metallicity, attenuation, and star formation beside the stellar continuum."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from msa3d.config import Dataset
from msa3d.constants import LINES
from msa3d.figures import style
from msa3d.figures.lines import LEAST_SNR, expected_image, line_bins, region_flux
from msa3d.figures.maps import HALF_ARCSEC, HALO, draw_map, label_sky, map_bar, map_shape, map_table, mark_map
from msa3d.galaxy import metals, report
from msa3d.galaxy.bins import BinMap
from msa3d.galaxy.dust import CASE_B, curve
from msa3d.galaxy.measure import Galaxy
from msa3d.galaxy.profiles import Exponential, Rings, disc_columns, rings

BIN_SNR = 4.0
"""Expected signal to noise of the fainter line in a bin of which a ratio is mapped."""
SURVEY_RANGE = (-0.03, 0.02)
"""Gradients of 25 galaxies of the survey, dex/kpc: Ju et al. 2025."""
OXYGEN_LABEL = "12 + log(O/H)"
_POINTS = {"fmt": "o", "color": style.BLACK, "markersize": 4, "elinewidth": 0.9, "capsize": 1.5, "zorder": 4}


@style.house_style()
def plot_metallicity(dataset: Dataset, galaxy: Galaxy, calibration: str | None = None) -> Figure | None:
    """Draw the metallicity and its error in bins, its radial profile, and its gradient beside others.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    galaxy : Galaxy
        What was measured.
    calibration : str, optional
        Name of a calibration by [N II] and Ha; that of the dataset without it.

    Returns
    -------
    matplotlib.figure.Figure or None
        None where the calibration's lines are not covered.
    """
    calibration = calibration or galaxy.science.metallicity
    gradient = galaxy.metallicity.get(calibration)
    faint = next(line for line, _ in metals.INDICES[metals.metallicity_calibration(calibration).index])
    faint = "[SII]6716" if faint.startswith("[SII]") else faint
    if faint not in galaxy.lines.flux or faint not in galaxy.rings:
        return None
    cube, target = galaxy.cube, dataset.target(galaxy.source_id)
    centre = (galaxy.geometry.ra, galaxy.geometry.dec)
    bins = line_bins(galaxy, faint, BIN_SNR)
    value, error, limit = abundances(galaxy, calibration, bins.masks)
    radii = np.array([_mean_radius(galaxy, mask) for mask in bins.masks])
    around = _ring_masks(galaxy)
    ring_radii = np.array([_mean_radius(galaxy, mask) for mask in around])
    points = abundances(galaxy, calibration, around)
    wide = (style.FULL_WIDTH - 3.1) / 2
    height = min(wide * map_shape(cube, centre, HALF_ARCSEC), 3.0)
    figure = style.new_figure(style.FULL_WIDTH, height + 3.7)
    grid = figure.subplot_mosaic([["map", "error"], ["profile", "slopes"]], height_ratios=[height + 0.5, 2.9])
    known = np.concatenate([value, points[0][np.isfinite(points[1])]])
    low, high = _range(known[np.isfinite(known)], (8.2, 8.8))
    shown = {"metallicity": bins.spread(value), "metallicity error": bins.spread(np.where(limit, np.nan, error))}
    mesh = draw_map(grid["map"], cube, shown["metallicity"], centre, half=HALF_ARCSEC,
                    **style.scale(style.METALLICITY_MAP, low, high))  # fmt: skip
    map_bar(figure, mesh, grid["map"], OXYGEN_LABEL, "both")
    top = float(np.nanmax(shown["metallicity error"], initial=0.01))
    mesh = draw_map(grid["error"], cube, shown["metallicity error"], centre, half=HALF_ARCSEC,
                    **style.scale(style.FLUX_MAP, 0.0, top))  # fmt: skip
    map_bar(figure, mesh, grid["error"], "error (dex)")
    for letter, key, title in (("a", "map", "bins"), ("b", "error", "1\u03c3 error")):
        grid[key].set_title(f"{letter}  {title}")
        label_sky(grid[key], north=key == "map")
    _mark_limits(grid["map"], galaxy, bins, limit)
    mark_map(grid["map"], cube, target.redshift)
    _abundance_profile(grid["profile"], galaxy, dataset, gradient, (radii, value, error, limit), (ring_radii, *points))
    _slopes(grid["slopes"], galaxy, dataset)
    name = style.heading(figure, target)
    slope = "not measured" if gradient is None else f"{_with_error(gradient.slope, gradient.slope_error)} dex/kpc"
    return style.finish(
        figure,
        simulated=cube.simulated,
        alt=f"Oxygen abundance of {name} in {bins.n_bins} bins, with errors of {np.nanmin(error):.2f} to "
        f"{np.nanmax(error):.2f} dex, and against radius; the fitted gradient is {slope}, and the published one is "
        f"shown beside it.",
        caption=f"Metallicity of {name}. (a) {OXYGEN_LABEL} ({calibration}) and (b) its error in bins in which the "
        f"smooth "
        f"disc has an S/N of {BIN_SNR:g} in {faint} (bins are not selected by their own flux); triangles: 2\u03c3 "
        f"upper limits; hatched: "
        "observed, expected to be fainter. (c) The same bins (grey) and annular means (black; not corrected for the "
        "PSF), and "
        "the gradient of the exponential discs of the lines, which are convolved with the PSF (blue, 68% band); "
        "green wedge: published "
        "slope and its error through the fitted value at one scale length (its zero point is not published). (d) "
        "Gradients by all "
        "calibrations whose lines are covered, beside published and injected ones; grey: range of 25 galaxies of the "
        "survey "
        f"(Ju et al. 2025). Fitted gradient: {slope}.",
        data={
            "a, b maps": map_table(cube, centre, {f"{n} [dex]": image for n, image in shown.items()}),
            "c bins": _abundance_columns(galaxy, radii, value, error, limit),
            "c annuli": _abundance_columns(galaxy, ring_radii, *points),
            "d gradients": {
                "calibration": list(galaxy.metallicity),
                "gradient [dex/kpc]": [g.slope for g in galaxy.metallicity.values()],
                "gradient error [dex/kpc]": [g.slope_error for g in galaxy.metallicity.values()],
            },
        },
    )


def abundances(galaxy: Galaxy, calibration: str, masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """12 + log(O/H) of regions, its error, and whether it is an upper limit: the fainter line is below `LEAST_SNR`."""
    relation = metals.metallicity_calibration(calibration)
    flux = {
        name: np.array([region_flux(galaxy, name, mask) for mask in masks]).reshape(-1, 2) for name in galaxy.lines.flux
    }
    mean, error = ({name: pair[:, k] for name, pair in flux.items()} for k in (0, 1))
    ratio, sigma = metals.log_ratio(mean, error, relation.index, snr=LEAST_SNR)
    # Beyond the range of the relation, too: to leave out what noise has carried there would select by noise.
    value = relation.metallicity(ratio, extrapolate=True)
    sigma = np.where(np.isfinite(value), np.abs(relation.slope(ratio)) * sigma, np.nan)
    limit = np.zeros(value.size, bool)
    if relation.index == "N2":
        # At twice the error where [N II] is not seen: the metallicity grows with it.
        faint, strong = "[NII]6583", mean["Ha"] > LEAST_SNR * error["Ha"]
        limit = strong & (mean[faint] < LEAST_SNR * error[faint])
        most = np.maximum(mean[faint], 0.0) + 2.0 * error[faint]
        with np.errstate(invalid="ignore", divide="ignore"):
            at_most = relation.metallicity(np.log10(most / mean["Ha"]), extrapolate=True)
        value, sigma = np.where(limit, at_most, value), np.where(limit, np.nan, sigma)
    return value, sigma, limit


def _abundance_columns(galaxy: Galaxy, radius, value, error, limit) -> dict:
    kpc = radius * galaxy.geometry.kpc_per_arcsec
    return {"radius [kpc]": kpc, "metallicity [dex]": value, "metallicity error [dex]": error, "upper limit": limit}


def _mean_radius(galaxy: Galaxy, mask: np.ndarray) -> float:
    """Radius of a region in the plane, arcsec, weighted by the expected Ha."""
    weight = expected_image(galaxy, "Ha") * mask
    return float((weight * galaxy.geometry.radius(galaxy.cube)).sum() / weight.sum()) if weight.sum() > 0 else np.nan


def _ring_masks(galaxy: Galaxy) -> list[np.ndarray]:
    """Spaxels of the annuli of the galaxy that hold any."""
    radius, ring = galaxy.geometry.radius(galaxy.cube), galaxy.rings["Ha"]
    masks = [(radius >= low) & (radius < high) for low, high in zip(ring.low, ring.high, strict=True)]
    return [mask for mask in masks if mask.any()]


def _range(values: np.ndarray, otherwise: tuple[float, float]) -> tuple[float, float]:
    """Limits of a scale that holds nine tenths of some values and a fifth more on either side."""
    if values.size < 2:
        return otherwise
    low, high = np.percentile(values, (5.0, 95.0))
    pad = max(0.2 * (high - low), 0.02)
    return float(low - pad), float(high + pad)


def _mark_limits(axes: Axes, galaxy: Galaxy, bins: BinMap, limit: np.ndarray) -> None:
    """Put a triangle on bins of which only a limit is known."""
    east, north = galaxy.cube.offsets(galaxy.geometry.ra, galaxy.geometry.dec)
    for mask, is_limit in zip(bins.masks, limit, strict=True):
        if is_limit:
            axes.plot(
                east[mask].mean(), north[mask].mean(), "v", color="white", markeredgecolor=style.BLACK, markersize=7
            )


def _abundance_profile(axes: Axes, galaxy: Galaxy, dataset: Dataset, gradient, bins: tuple, around: tuple) -> None:
    """Draw bins, annuli, fit, injected and published gradient against radius."""
    scale = galaxy.geometry.kpc_per_arcsec
    end = 1.08 * scale * float(np.nanmax(np.concatenate([bins[0], around[0]]), initial=0.5))
    grid = np.linspace(0.0, end, 100)
    known, told = report.injected(dataset, galaxy.source_id), report.published(galaxy.source_id)
    shown = [around[1][np.isfinite(around[2])]]
    if gradient is not None:
        line, band = gradient.at(grid)
        axes.fill_between(grid, line - band, line + band, color=style.SKY, alpha=0.45, linewidth=0)
        axes.plot(grid, line, color=style.RESULT_COLOUR, label="fit")
        shown.append(line)
        if (paper := told.get("metallicity_gradient")) is not None:
            pivot = scale * galaxy.discs["Ha"].scale_arcsec
            through = gradient.at(pivot)[0] + np.outer(paper.value + paper.error * np.array([-1, 0, 1]), grid - pivot)
            axes.fill_between(grid, through[0], through[2], color=style.PUBLISHED_COLOUR, alpha=0.4, linewidth=0)
            axes.plot(grid, through[1], color=style.PUBLISHED_COLOUR, linestyle=":", linewidth=1.6, label="published")
    if {"metallicity_centre", "metallicity_gradient"} <= known.keys():
        line = known["metallicity_centre"] + known["metallicity_gradient"] * grid
        axes.plot(grid, line, color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.5, label="injected")
        shown.append(line)
    radius, value, error, limit = bins
    axes.errorbar(radius * scale, value, np.where(limit, 0.04, error), uplims=limit, fmt="o", color=style.GREY, ms=2.5,
                  elinewidth=0.6, zorder=2)  # fmt: skip
    radius, value, error, limit = around
    axes.errorbar(radius * scale, value, np.where(limit, 0.05, error), uplims=limit, label="annuli", **_POINTS)
    every = np.concatenate(shown)
    every = every[np.isfinite(every)]
    low, high = (every.min(), every.max()) if every.size else (8.2, 8.8)
    spread = max(high - low, 0.15)
    axes.set(xlim=(0.0, end), ylim=(low - 0.35 * spread, high + 0.9 * spread))
    axes.set(xlabel="deprojected radius (kpc)", ylabel=OXYGEN_LABEL)
    axes.set_title("c  radial profile")
    axes.legend(loc="upper right", ncols=2, columnspacing=1.0)


def _with_error(value: float, error: float) -> str:
    return f"{style.signed(value)} \u00b1 {error:.3f}"


def _slopes(axes: Axes, galaxy: Galaxy, dataset: Dataset) -> None:
    """Draw the gradients by all calibrations, and those published and injected."""
    known, told = report.injected(dataset, galaxy.source_id), report.published(galaxy.source_id)
    rows = [(name, g.slope, g.slope_error, style.RESULT_COLOUR, "o") for name, g in galaxy.metallicity.items()]
    if (paper := told.get("metallicity_gradient")) is not None:
        rows.append(("published", paper.value, paper.error, style.PUBLISHED_COLOUR, "D"))
    if "metallicity_gradient" in known:
        rows.append(("injected", known["metallicity_gradient"], 0.0, style.TRUTH_COLOUR, "s"))
    axes.axvspan(*SURVEY_RANGE, color=style.EMPTY_COLOUR, alpha=0.7, linewidth=0)
    axes.axvline(0.0, color=style.GREY, linewidth=0.6)
    for place, (_, value, error, colour, marker) in enumerate(reversed(rows)):
        axes.errorbar(
            value, place, xerr=error or None, fmt=marker, color=colour, markersize=4.5, elinewidth=1.0, capsize=1.5
        )
    axes.set_yticks(range(len(rows)), [row[0].replace("_", " ") for row in reversed(rows)])
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(-0.7, len(rows) - 0.3), xlabel="gradient (dex/kpc)")
    axes.set_title("d  gradients")


RATIO_LABEL = "H\u03b2 / H\u03b1"
AV_ERROR = 0.5
"""Bins are mapped if their expected error of A_V is smaller, mag."""


@style.house_style()
def plot_attenuation(dataset: Dataset, galaxy: Galaxy) -> Figure | None:
    """Draw Hb/Ha in bins, or in two apertures where bins would show noise, and against radius; None without Hb."""
    if galaxy.av is None or "Hb" not in galaxy.discs:
        return None
    cube, target = galaxy.cube, dataset.target(galaxy.source_id)
    centre = (galaxy.geometry.ra, galaxy.geometry.dec)
    bins = line_bins(galaxy, "Hb", _magnitudes(galaxy) / np.log(10.0) / AV_ERROR)
    expected = expected_image(galaxy, "Hb")
    sure = [expected[mask].mean() > _needed(galaxy) * region_flux(galaxy, "Hb", mask)[1] for mask in bins.masks]
    mapped = bins.n_bins >= 4 and all(sure)
    if mapped:
        masks, names = bins.masks, [str(k + 1) for k in range(bins.n_bins)]
    else:
        masks, names = _two_apertures(galaxy)
    ratio, error = _ratios(galaxy, masks)
    height = min(2.5 * map_shape(cube, centre, HALF_ARCSEC), 3.2)
    figure = style.new_figure(style.FULL_WIDTH, height + 1.1)
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.45])
    image = _spread(cube.shape, masks, ratio)
    mesh = draw_map(
        left, cube, image, centre, half=HALF_ARCSEC, **style.scale(style.ATTENUATION_MAP + "_r", 0.0, 1.0 / CASE_B)
    )
    map_bar(figure, mesh, left, RATIO_LABEL, "both")
    label_sky(left)
    left.set_title("a  " + ("bins" if mapped else "two apertures"))
    if not mapped:
        _write_apertures(left, galaxy, ratio, error)
    mark_map(left, cube, target.redshift)
    columns = _attenuation_profile(right, galaxy, dataset)
    name = style.heading(figure, target)
    told = (
        "; ".join(f"{n}: {_av_text(galaxy, r, e)}" for n, r, e in zip(names, ratio, error, strict=True))
        if not mapped
        else ""
    )
    where = (
        f"bins in which the smooth disc has an error of {AV_ERROR:g} mag"
        if mapped
        else "two apertures, inside and outside of the half-light radius, as fewer than four bins "
        f"would reach an error of {AV_ERROR:g} mag ({told})"
    )
    slope = f"{style.signed(galaxy.av.slope, '.2f')} \u00b1 {galaxy.av.slope_error:.2f} mag/kpc"
    put = " Orange, dashed: injected." if "av_centre" in report.injected(dataset, galaxy.source_id) else ""
    return style.finish(
        figure,
        simulated=cube.simulated,
        alt=f"H-beta over H-alpha of {name}: a map in {len(masks)} regions, and annuli against radius, which scatter "
        f"by their errors "
        f"about the fitted curve; the gradient of the attenuation is {slope}.",
        caption=f"Dust attenuation of {name}. (a) {RATIO_LABEL} in {where}. (b) {RATIO_LABEL} in annuli (1\u03c3; "
        f"linear in the data, so "
        "that noise is symmetric and no ring is left out), and the ratio of the exponential discs of both lines "
        "(blue, 68% band); right "
        f"axis: A$_V$ of the gas by {galaxy.science.dust_law}, not linear. Shaded: above case B, 1/{CASE_B:g}, where "
        f"no attenuation leads."
        f"{put} Gradient: {slope}.",
        data={
            "a": {"region": names, "Hb/Ha": ratio, "Hb/Ha error": error},
            "b": columns,
        },
    )


def _magnitudes(galaxy: Galaxy) -> float:
    """A_V per dex of the decrement, mag."""
    law = galaxy.science.dust_law
    return 2.5 / (curve("Hb", law) - curve("Ha", law))


def _needed(galaxy: Galaxy) -> float:
    """Signal to noise of Hb with which A_V has the error `AV_ERROR`; bins may fall a little short."""
    return 0.8 * _magnitudes(galaxy) / np.log(10.0) / AV_ERROR


def _two_apertures(galaxy: Galaxy) -> tuple[list[np.ndarray], list[str]]:
    """Spaxels inside and outside of the half-light radius of the Ha disc, to the outermost ring."""
    radius = galaxy.geometry.radius(galaxy.cube)
    half, end = 1.678 * galaxy.discs["Ha"].scale_arcsec, galaxy.rings["Ha"].high[-1]
    half = min(half, 0.6 * end)
    return [radius < half, (radius >= half) & (radius < end)], [
        f"R < {half:.2f}\u2033",
        f"{half:.2f}\u2033 < R < {end:.1f}\u2033",
    ]


def _ratios(galaxy: Galaxy, masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Hb/Ha of regions and its error; Ha is so much brighter that the ratio is as Gaussian as Hb."""
    (ha, sa), (hb, sb) = (np.array([region_flux(galaxy, name, mask) for mask in masks]).T for name in ("Ha", "Hb"))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(ha > 3.0 * sa, hb / ha, np.nan)
        return ratio, np.where(ha > 3.0 * sa, np.hypot(sb, ratio * sa) / ha, np.nan)


def _spread(shape: tuple[int, int], masks: list[np.ndarray], values: np.ndarray) -> np.ndarray:
    image = np.full(shape, np.nan)
    for mask, value in zip(masks, values, strict=True):
        image[mask] = value
    return image


def _av_text(galaxy: Galaxy, ratio: float, error: float) -> str:
    """A_V of a ratio with errors to both sides, or a limit at two errors."""
    av = lambda r: -_magnitudes(galaxy) * np.log10(r * CASE_B)  # noqa: E731
    if not np.isfinite(ratio):
        return "not seen"
    if ratio < 2.0 * error:
        return f"A$_V$ > {style.number(av(max(ratio, 0.0) + 2.0 * error), form='.1f')} (2\u03c3)"
    value = av(ratio)
    if value <= 0.0:
        # Above case B no dust leads: what the data allow is a limit.
        most = av(ratio - 2.0 * error)
        return f"A$_V$ < {style.number(max(most, 0.0), form='.1f')} (2\u03c3)"
    up, down = av(ratio - error) - value, value - av(ratio + error)
    return f"A$_V$ = {style.number(value, form='.1f')} +{up:.1f} \u2212{down:.1f}"


def _write_apertures(axes: Axes, galaxy: Galaxy, ratio: np.ndarray, error: np.ndarray) -> None:
    """Write the attenuation of the inner aperture and of the outer one, and draw the ellipse between them."""
    half = float(_two_apertures(galaxy)[1][0].partition("< ")[2].rstrip("\u2033"))
    look = {"facecolor": "none", "edgecolor": style.BLACK, "linewidth": 1.0, "zorder": 3}
    axes.add_patch(
        Ellipse((0, 0), 2 * half, 2 * half * galaxy.geometry.cos_inclination, angle=90 - galaxy.geometry.pa_deg, **look)
    )
    for y, r, e in zip((0.5, 0.92), ratio, error, strict=True):
        axes.text(
            0.5,
            y,
            _av_text(galaxy, r, e),
            transform=axes.transAxes,
            ha="center",
            va="center",
            path_effects=HALO,
            zorder=6,
        )


def _attenuation_profile(axes: Axes, galaxy: Galaxy, dataset: Dataset) -> dict:
    """Draw Hb/Ha against radius, with A_V on the other axis."""
    scale, masks = galaxy.geometry.kpc_per_arcsec, _ring_masks(galaxy)
    radius = np.array([_mean_radius(galaxy, mask) for mask in masks])
    ratio, error = _ratios(galaxy, masks)
    end = 1.08 * scale * float(np.nanmax(radius, initial=0.5))
    grid = np.linspace(0.0, end, 100)
    to_ratio = lambda av: 10.0 ** (-np.asarray(av) / _magnitudes(galaxy)) / CASE_B  # noqa: E731
    value, band = galaxy.av.at(grid)
    axes.fill_between(grid, to_ratio(value + band), to_ratio(value - band), color=style.SKY, alpha=0.45, linewidth=0)
    axes.plot(grid, to_ratio(value), color=style.RESULT_COLOUR, label="ratio of the discs")
    known = report.injected(dataset, galaxy.source_id)
    if {"av_centre", "av_gradient"} <= known.keys():
        put = to_ratio(known["av_centre"] + known["av_gradient"] * grid)
        axes.plot(grid, put, color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.5, label="injected")
    axes.errorbar(radius * scale, ratio, error, label="annuli", **_POINTS)
    axes.axhline(1.0 / CASE_B, color=style.BLACK, linewidth=0.8, linestyle=":")
    top = 2.2 / CASE_B
    axes.axhspan(1.0 / CASE_B, top, color=style.EMPTY_COLOUR, alpha=0.5, linewidth=0, zorder=0)
    axes.text(0.02 * end, 1.03 / CASE_B, "case B, no dust", va="bottom", path_effects=HALO)
    axes.axhline(0.0, color=style.GREY, linewidth=0.6)
    low = min(-0.15, float(np.nanmin(ratio - error, initial=0.0)) - 0.02)
    axes.set(xlim=(0.0, end), ylim=(low, max(top, float(np.nanmax(ratio, initial=0.0)) + 0.1)))
    axes.set(xlabel="deprojected radius (kpc)", ylabel=RATIO_LABEL)
    axes.set_title("b  radial profile")
    axes.legend(loc="upper right", ncols=3, columnspacing=1.0)
    other = axes.twinx()
    other.set_ylim(axes.get_ylim())
    ticks = (0.0, 0.5, 1.0, 2.0, 4.0)
    other.set_yticks([float(to_ratio(t)) for t in ticks], [f"{t:g}" for t in ticks])
    other.set_ylabel("A$_V$ (mag)")
    axes.tick_params(right=False)
    return {"radius [kpc]": radius * scale, "Hb/Ha": ratio, "Hb/Ha error": error}


@style.house_style()
def plot_sfr_profile(dataset: Dataset, galaxy: Galaxy) -> Figure:
    """Draw star formation and stellar continuum against radius on scales of as many dex, and what the discs leave."""
    target, geometry = dataset.target(galaxy.source_id), galaxy.geometry
    scale, found = geometry.kpc_per_arcsec, galaxy.star_formation
    edges = np.append(galaxy.rings["Ha"].low, galaxy.rings["Ha"].high[-1])
    # One decrement for the whole disc: flux turns into star formation by a constant. Face on.
    factor = found.sfr / found.halpha / scale**2 * geometry.cos_inclination
    light = rings(galaxy.continuum, galaxy.cube, geometry, edges, error=_flat_error(galaxy))
    rows = (
        (
            galaxy.discs["Ha"],
            galaxy.rings["Ha"],
            factor,
            LINES["Ha"] * (1 + galaxy.redshift),
            style.VERMILION,
            "o",
            "star formation",
        ),
        (galaxy.stars, light, 1.0, galaxy.continuum_um, style.PURPLE, "s", "stellar continuum"),
    )
    figure = style.new_figure(style.FULL_WIDTH, 4.8)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.0, 1.0])
    other = above.twinx()
    injected = {row.quantity: row.injected for row in report.rows(galaxy, dataset)}
    known = report.injected(dataset, galaxy.source_id)
    end = 1.05 * scale * float(edges[-1])
    grid = np.linspace(0.0, end, 100)
    data, handles = {}, []
    for axes, (disc, ring, per, wave_um, colour, marker, name) in zip((above, other), rows, strict=True):
        value, error = (ring.mean - disc.background) * per, ring.error * per
        model = _convolved(galaxy, disc, ring, edges, wave_um) * per
        top = float(np.exp(disc.log_centre)) * per
        h, h_error = disc.scale_arcsec * scale, disc.scale_error * scale
        seen = value > error
        label = f"{name}: h = {style.number(h, h_error)} kpc"
        handles.append(axes.errorbar(ring.radius[seen] * scale, value[seen], error[seen], fmt=marker, color=colour,
                                     ms=5, elinewidth=1.0, capsize=2, label=label))  # fmt: skip
        axes.plot(grid, top * np.exp(-grid / h), color=colour, linewidth=1.2)
        axes.plot(ring.radius * scale, model, color=colour, linewidth=1.0, linestyle=":")
        axes.set_yscale("log")
        axes.set_ylim(top * 0.02, top * 4.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            below.errorbar(ring.radius * scale, value / model - 1.0, error / model, fmt=marker, color=colour, ms=4.5,
                           elinewidth=1.0, capsize=2)  # fmt: skip
        data[name] = {"radius [kpc]": ring.radius * scale, "value": value, "error": error, "disc, convolved": model}
    handles += _injected_profiles(above, other, galaxy, known, injected, grid)
    above.set_ylabel("\u03a3$_{\\mathrm{SFR}}$ (M$_{\\odot}$ yr$^{-1}$ kpc$^{-2}$)", color=style.VERMILION)
    other.set_ylabel("continuum (MJy sr$^{-1}$)", color=style.PURPLE)
    for axes, colour in ((above, style.VERMILION), (other, style.PURPLE)):
        axes.tick_params(axis="y", colors=colour, which="both")
    above.tick_params(axis="y", which="both", right=False)
    other.tick_params(axis="y", which="both", left=False)
    above.legend(handles=handles, loc="upper right")
    below.axhline(0.0, color=style.GREY, linewidth=0.8)
    below.set(xlim=(0.0, end), ylim=(-0.6, 0.6), xlabel="deprojected radius (kpc)", ylabel="observed / disc \u2212 1")
    name = style.heading(figure, target)
    ratio = galaxy.discs["Ha"].scale_arcsec / galaxy.stars.scale_arcsec
    put = (
        " Dashed: injected star formation, without dust, and injected scale length of the continuum as attenuated "
        "(its level is not "
        "compared)." if known else ""
    )  # fmt: skip
    return style.finish(
        figure,
        simulated=galaxy.cube.simulated,
        alt=f"Star-formation density and stellar continuum of {name} fall exponentially with radius, with scale "
        f"lengths whose ratio is "
        f"{ratio:.2f}; below, the rings scatter about the discs.",
        caption=f"Star formation and stellar continuum of {name}. Above: annular means of H\u03b1, as a density of "
        f"star formation corrected for "
        "one Balmer decrement of the whole disc (red, left axis), and of the continuum at "
        f"{galaxy.continuum_um / (1 + galaxy.redshift):.2f} \u00b5m (rest frame; purple, right axis); both axes span "
        f"as many dex, so "
        "that equal scale lengths have equal slopes. Solid: exponential discs; dotted: convolved with the PSF, as "
        f"they should be observed.{put} Below: annuli over the convolved disc. Ratio of the scale lengths: "
        f"{ratio:.2f}.",
        data=data,
    )


def _flat_error(galaxy: Galaxy) -> np.ndarray:
    """Error of the continuum image per spaxel: what is left outside of the disc."""
    radius = galaxy.geometry.radius(galaxy.cube)
    outside = galaxy.continuum[(radius > 2.5 * galaxy.stars.scale_arcsec) & np.isfinite(galaxy.continuum)]
    spread = 1.4826 * float(np.median(np.abs(outside - np.median(outside)))) if outside.size > 10 else np.nan
    return np.full(galaxy.cube.shape, spread)


def _convolved(galaxy: Galaxy, disc: Exponential, ring: Rings, edges: np.ndarray, wave_um: float) -> np.ndarray:
    """Means over the rings of a disc convolved with the PSF, its background left out."""
    everywhere = np.ones(galaxy.cube.shape, bool)
    column = disc_columns(galaxy.cube, galaxy.geometry, wave_um, disc.rate, everywhere)[:, 0].reshape(galaxy.cube.shape)
    found = rings(np.exp(disc.log_centre) * column, galaxy.cube, galaxy.geometry, edges).mean
    return np.where(ring.count > 0, found, np.nan)


def _injected_profiles(above: Axes, other: Axes, galaxy: Galaxy, known: dict, injected: dict, grid: np.ndarray) -> list:
    """Draw what was injected; handles for the legend."""
    scale = galaxy.geometry.kpc_per_arcsec
    handles = []
    look = {"linestyle": "--", "linewidth": 1.5}
    if {"sfr", "scale_line"} <= known.keys():
        h = known["scale_line"] * scale
        level = known["sfr"] / (2.0 * np.pi * h**2)
        label = f"injected star formation: h = {h:.2f} kpc"
        handles += above.plot(grid, level * np.exp(-grid / h), color=style.TRUTH_COLOUR, label=label, **look)
    h = injected.get("scale_continuum", np.nan) * scale
    if np.isfinite(h):
        own = galaxy.stars.scale_arcsec * scale
        level = float(np.exp(galaxy.stars.log_centre)) * np.exp(h / h - h / own)
        label = f"injected continuum: h = {h:.2f} kpc"
        handles += other.plot(grid, level * np.exp(-grid / h), color=style.PURPLE, label=label, **look)
    return handles
