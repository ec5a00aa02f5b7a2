"""Figures of the motion of the gas: maps in bins, curves along the major axis, position-velocity diagram, posterior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from msa3d.config import Dataset
from msa3d.constants import C_KMS, LINES
from msa3d.figures import style
from msa3d.figures.lines import expected_image, sum_error
from msa3d.figures.maps import HALF_ARCSEC, draw_map, label_sky, map_bar, map_shape, map_table, mark_map
from msa3d.galaxy import report
from msa3d.galaxy.bins import stacked
from msa3d.galaxy.disc import Disc
from msa3d.galaxy.fit import SIGMA_LIMITS, fit_lines
from msa3d.galaxy.lines import line_spread_of
from msa3d.galaxy.measure import Galaxy
from msa3d.published import for_analysis

VELOCITY_LABEL = "velocity (km/s)"
SLIT_HALF_ARCSEC = 0.15
"""Half of the width of the pseudo-slit along the major axis."""
CELL_ARCSEC = 0.2
LEAST_SNR = 4.0
"""Ha of the smooth disc over the error of a cell that is shown."""
_DRAWS = 300


@dataclass(frozen=True)
class AxisCells:
    """Gas in cells of a pseudo-slit along the major axis, as fitted and as the disc has it.

    Attributes
    ----------
    offset_arcsec : ndarray, shape (n,)
        Along the major axis, positive where the gas recedes.
    velocity, velocity_error, sigma, sigma_error : ndarray, shape (n,)
        Of the summed spectra, km/s; velocity minus the systemic one.
    model_velocity, model_sigma : ndarray, shape (n,)
        The disc convolved with the PSF, averaged like the spectra.
    """

    offset_arcsec: np.ndarray
    velocity: np.ndarray
    velocity_error: np.ndarray
    sigma: np.ndarray
    sigma_error: np.ndarray
    model_velocity: np.ndarray
    model_sigma: np.ndarray


def axis_offsets(galaxy: Galaxy) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the spaxels along the major axis and across it on the sky, arcsec."""
    angle = np.radians(galaxy.geometry.pa_deg)
    east, north = galaxy.cube.offsets(galaxy.geometry.ra, galaxy.geometry.dec)
    return east * np.sin(angle) + north * np.cos(angle), east * np.cos(angle) - north * np.sin(angle)


def axis_cells(galaxy: Galaxy) -> AxisCells:
    """Measure the gas in cells along the major axis that the smooth disc, and not their own noise, chooses."""
    cube, along, across = galaxy.cube, *axis_offsets(galaxy)
    inside = np.abs(across) <= SLIT_HALF_ARCSEC
    expected, error = expected_image(galaxy, "Ha"), np.nan_to_num(galaxy.lines.flux_error["Ha"])
    known = np.isfinite(galaxy.lines.flux["Ha"])
    masks = []
    last = int(HALF_ARCSEC / CELL_ARCSEC)
    for middle in CELL_ARCSEC * np.arange(-last, last + 1):
        mask = inside & known & (np.abs(along - middle) <= 0.5 * CELL_ARCSEC)
        noise = sum_error(galaxy, error * mask)
        if mask.sum() >= 2 and expected[mask].sum() > LEAST_SNR * noise > 0:
            masks.append(mask)
    if galaxy.builder == "paper":
        spread = for_analysis.spread_of(cube)
    else:
        step = float(np.median(np.diff(cube.wave_um)))
        spread = line_spread_of(cube.header, curve=galaxy.science.line_spread, step_um=step)
    found = fit_lines(stacked(cube, masks), galaxy.redshift, names=("Ha", "[NII]6583"), spread=spread)
    offsets = np.array([np.average(along[mask], weights=expected[mask]) for mask in masks])
    model = np.array([_moments(galaxy, expected * mask) for mask in masks]).reshape(-1, 2).T
    systemic = galaxy.kinematics.disc.systemic
    columns = (found.velocity - systemic, found.velocity_error, found.sigma, found.sigma_error)
    return AxisCells(offsets, *(np.ravel(column) for column in columns), *model)


def _moments(galaxy: Galaxy, weight: np.ndarray) -> tuple[float, float]:
    """Velocity (systemic taken off) and dispersion of the disc, convolved with the PSF, over some spaxels."""
    maps = galaxy.kinematics.maps
    weight = np.where(np.isfinite(maps["velocity"] + maps["sigma"]), weight, 0.0)
    total = weight.sum()
    if not total > 0:
        return np.nan, np.nan
    speed, wide = np.nan_to_num(maps["velocity"]), np.nan_to_num(maps["sigma"])
    mean = (weight * speed).sum() / total
    variance = (weight * (wide**2 + (speed - mean) ** 2)).sum() / total
    return float(mean - galaxy.kinematics.disc.systemic), float(np.sqrt(variance))


def injected_disc(galaxy: Galaxy, dataset: Dataset) -> Disc | None:
    """The disc that was injected; None for a real observation."""
    known = report.injected(dataset, galaxy.source_id)
    if not {"v_sin_i", "r_turn"} <= known.keys():
        return None
    return Disc(known["pa_deg"], known["inclination"], known["v_sin_i"], known["r_turn"])


def published_rotation(galaxy: Galaxy) -> tuple[float, float, float] | None:
    """Published radius (arcsec), V sin i there and its error (km/s): at the Re of the disc."""
    told = report.published(galaxy.source_id)
    if not {"v_rot", "inclination", "re_disc_kpc"} <= told.keys():
        return None
    sine = float(np.sin(np.radians(told["inclination"].value)))
    radius = told["re_disc_kpc"].value / galaxy.geometry.kpc_per_arcsec
    return radius, told["v_rot"].value * sine, told["v_rot"].error * sine


@style.house_style()
def plot_kinematics(dataset: Dataset, galaxy: Galaxy) -> Figure:
    """Draw velocity, disc, residual and dispersion of bins with their errors, and curves along the major axis."""
    cube, target = galaxy.cube, dataset.target(galaxy.source_id)
    centre = (galaxy.geometry.ra, galaxy.geometry.dec)
    images = _binned_images(galaxy)
    wide = (style.FULL_WIDTH - 1.9) / 4
    height = wide * map_shape(cube, centre, HALF_ARCSEC)
    figure = style.new_figure(style.FULL_WIDTH, 2 * height + 3.75)
    above, below = figure.subfigures(2, 1, height_ratios=(2 * height + 1.0, 2.75))
    grid = above.subplots(2, 4, sharex=True, sharey=True)
    speed = style.signed_scale(1.15 * style.symmetric_limit(images["disc velocity"], 99.0))
    spread = style.scale(style.DISPERSION_MAP, 0.0, 1.15 * style.percentile_limits(images["dispersion"], 0.0, 95.0)[1])
    errors = style.scale(style.FLUX_MAP, 0.0, style.percentile_limits(images["velocity error"], 0.0, 95.0)[1])
    widths = style.scale(style.FLUX_MAP, 0.0, style.percentile_limits(images["dispersion error"], 0.0, 95.0)[1])
    panels = (
        ("velocity", speed), ("disc velocity", speed), ("residual", speed), ("dispersion", spread),
        ("velocity error", errors), ("disc dispersion", spread), ("residual / error", style.signed_scale(3.0)),
        ("dispersion error", widths),
    )  # fmt: skip
    for letter, axes, (name, scale) in zip("abcdefgh", grid.flat, panels, strict=True):
        mesh = draw_map(axes, cube, images[name], centre, half=HALF_ARCSEC, **scale)
        label_sky(axes, east=axes in grid[1], north=axes in grid[:, 0])
        axes.set_title(f"{letter}  {name}" + (" (km/s)" if letter in "acd" else ""))
        map_bar(above, mesh, axes, "", "max" if letter in "dfeh" else "both")
        if letter in "abc":
            _major_axis(axes, galaxy)
    mark_map(grid[0, 0], cube, target.redshift)
    cells = axis_cells(galaxy)
    curves, spreads = below.subplots(1, 2)
    drawn = _rotation(curves, galaxy, dataset, cells), _dispersion(spreads, galaxy, dataset, cells)
    name = style.heading(figure, target)
    return style.finish(figure, simulated=cube.simulated, **_texts(galaxy, dataset, name, images, cells, drawn))


def _binned_images(galaxy: Galaxy) -> dict[str, np.ndarray]:
    """Maps of the bins by name, km/s; the residual also in units of the error."""
    bins, fit = galaxy.bins, galaxy.binned
    expected = expected_image(galaxy, "Ha")
    model = np.array([_moments(galaxy, expected * mask) for mask in bins.masks]).reshape(-1, 2).T
    speed = np.ravel(fit.velocity) - galaxy.kinematics.disc.systemic
    error = np.ravel(fit.velocity_error)
    values = {
        "velocity": speed,
        "velocity error": error,
        "disc velocity": model[0],
        "residual": speed - model[0],
        "residual / error": (speed - model[0]) / error,
        "dispersion": np.ravel(fit.sigma),
        "dispersion error": np.ravel(fit.sigma_error),
        "disc dispersion": model[1],
    }
    return {name: bins.spread(value) for name, value in values.items()}


def _major_axis(axes: Axes, galaxy: Galaxy) -> None:
    """Draw the major axis and the pseudo-slit of the curves."""
    angle, reach = np.radians(galaxy.geometry.pa_deg), 0.95 * HALF_ARCSEC
    for shift in (-SLIT_HALF_ARCSEC, SLIT_HALF_ARCSEC):
        east = np.array([-reach, reach]) * np.sin(angle) + shift * np.cos(angle)
        north = np.array([-reach, reach]) * np.cos(angle) - shift * np.sin(angle)
        axes.plot(
            east, north, color=style.BLACK, linewidth=0.6, linestyle=(0, (4, 3)), zorder=3, scalex=False, scaley=False
        )


def _band(galaxy: Galaxy, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation curve, V sin i: median and central 68%."""
    fit = galaxy.kinematics
    names, draws = list(fit.names), fit.draws(_DRAWS)
    pairs = draws[:, [names.index("v_sin_i"), names.index("r_turn")]]
    curves = [Disc(0.0, 0.0, float(v), float(r), curve=fit.disc.curve).rotation(radius) for v, r in pairs]
    return tuple(np.percentile(curves, (50.0, 15.865, 84.135), axis=0))


_POINTS = {"fmt": "o", "color": style.BLACK, "markersize": 3.5, "elinewidth": 0.8, "capsize": 1.5, "zorder": 4}


def _rotation(axes: Axes, galaxy: Galaxy, dataset: Dataset, cells: AxisCells) -> dict:
    """Draw the rotation curve from one end of the major axis to the other."""
    scale = galaxy.geometry.kpc_per_arcsec
    end = max(1.25 * float(np.abs(cells.offset_arcsec).max(initial=0.5)), 0.6)
    radius = np.linspace(0.0, end, 80)
    both = np.concatenate([-radius[:0:-1], radius])
    value, low, high = _band(galaxy, radius)
    odd = lambda half: np.concatenate([-half[:0:-1], half])  # noqa: E731
    axes.fill_between(both * scale, odd(low), odd(high), color=style.SKY, alpha=0.45, linewidth=0)
    axes.plot(both * scale, odd(value), color=style.RESULT_COLOUR, label="disc, intrinsic (68%)")
    axes.plot(cells.offset_arcsec * scale, cells.model_velocity, color=style.RESULT_COLOUR, linestyle=":",
              linewidth=1.6, label="disc, convolved")  # fmt: skip
    disc, told = injected_disc(galaxy, dataset), published_rotation(galaxy)
    if disc is not None:
        put = odd(disc.rotation(radius))
        axes.plot(both * scale, put, color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.5, label="injected")
    if told is not None:
        axes.errorbar(told[0] * scale, told[1], told[2], fmt="D", color=style.PUBLISHED_COLOUR, markersize=4.5,
                      label="published, at Re")  # fmt: skip
    axes.errorbar(cells.offset_arcsec * scale, cells.velocity, cells.velocity_error, label="observed", **_POINTS)
    axes.axhline(0.0, color=style.GREY, linewidth=0.5)
    axes.axvline(0.0, color=style.GREY, linewidth=0.5)
    most = max(float(high[-1]), float(np.nanmax(np.abs(cells.velocity) + 0.5 * cells.velocity_error, initial=1.0)))
    axes.set(xlim=(-end * scale, end * scale), ylim=(-1.15 * most, 1.9 * most))
    axes.set(xlabel="offset along the major axis (kpc)", ylabel="V sin i (km/s)")
    axes.set_title("i  rotation curve")
    axes.legend(loc="upper left", ncols=2, columnspacing=1.0)
    curve = {"offset [kpc]": both * scale, "disc velocity [km/s]": odd(value), "low [km/s]": odd(low)}
    return {"i curve": curve | {"high [km/s]": odd(high)}}


def _dispersion(axes: Axes, galaxy: Galaxy, dataset: Dataset, cells: AxisCells) -> dict:
    """Draw the dispersion along the major axis."""
    scale, fit = galaxy.geometry.kpc_per_arcsec, galaxy.kinematics
    end = max(1.25 * float(np.abs(cells.offset_arcsec).max(initial=0.5)), 0.6) * scale
    value, error = fit.best["sigma0"], fit.error["sigma0"]
    axes.axhspan(value - error, value + error, color=style.SKY, alpha=0.45, linewidth=0)
    axes.axhline(value, color=style.RESULT_COLOUR, label=f"\u03c3\u2080 = {style.number(value, error, '.1f')} km/s")
    axes.plot(cells.offset_arcsec * scale, cells.model_sigma, color=style.RESULT_COLOUR, linestyle=":",
              linewidth=1.6, label="disc, convolved")  # fmt: skip
    known, told = report.injected(dataset, galaxy.source_id), report.published(galaxy.source_id)
    if "sigma0" in known:
        label = f"injected {known['sigma0']:.1f} km/s"
        axes.axhline(known["sigma0"], color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.5, label=label)
    if "sigma0" in told:
        paper = told["sigma0"]
        axes.errorbar(0.93 * end, paper.value, [[paper.minus], [paper.plus]], fmt="D", color=style.PUBLISHED_COLOUR,
                      markersize=4.5, label="published \u03c3\u2080")  # fmt: skip
    at_limit = cells.sigma <= 1.5 * SIGMA_LIMITS[0]
    free = ~at_limit & np.isfinite(cells.sigma)
    axes.errorbar(
        cells.offset_arcsec[free] * scale, cells.sigma[free], cells.sigma_error[free], label="observed", **_POINTS
    )
    if at_limit.any():
        axes.plot(cells.offset_arcsec[at_limit] * scale, np.full(at_limit.sum(), 4.0), "v", color=style.BLACK,
                  markersize=4.5, label="not resolved")  # fmt: skip
    top = max(2.0 * value, float(np.nanmax(np.where(free, cells.sigma, np.nan), initial=0.0)), known.get("sigma0", 0.0))
    axes.set(xlim=(-end, end), ylim=(0.0, 1.65 * top))
    axes.set(xlabel="offset along the major axis (kpc)", ylabel="dispersion \u03c3 (km/s)")
    axes.set_title("j  dispersion")
    axes.legend(loc="upper left", ncols=2, columnspacing=1.0)
    columns = {
        "offset [kpc]": cells.offset_arcsec * scale,
        "velocity [km/s]": cells.velocity,
        "velocity error [km/s]": cells.velocity_error,
        "disc velocity [km/s]": cells.model_velocity,
        "dispersion [km/s]": cells.sigma,
        "dispersion error [km/s]": cells.sigma_error,
        "disc dispersion [km/s]": cells.model_sigma,
    }
    return {"i, j points": columns}


def _texts(galaxy: Galaxy, dataset: Dataset, name: str, images: dict, cells: AxisCells, drawn: tuple) -> dict:
    """Alternative text, caption and data."""
    fit = galaxy.kinematics
    pulls = np.ravel(images["residual / error"])
    chi = np.sqrt(np.nanmean([np.nanmean(images["residual / error"][mask]) ** 2 for mask in galaxy.bins.masks]))
    speed = float(_band(galaxy, np.array([np.abs(cells.offset_arcsec).max(initial=0.5)]))[0][0])
    put = " orange dashed: injected;" if injected_disc(galaxy, dataset) is not None else ""
    told = " green: published;" if published_rotation(galaxy) is not None else ""
    return {
        "alt": f"Maps of {name} in {galaxy.bins.n_bins} bins: velocity rises from approaching (blue) to receding (red) "
        f"along the major axis, the disc looks alike, the residuals are without pattern ({np.isfinite(pulls).sum()} "
        f"spaxels); below, the rotation curve reaches {speed:.0f} km/s and the dispersion is near "
        f"{fit.best['sigma0']:.0f} km/s at all radii.",
        "caption": f"Kinematics of the ionised gas of {name}. (a, e) H\u03b1 velocity and its error in bins of "
        f"expected S/N {galaxy.science.bin_snr:g}, (b) the rotating disc fitted to the cube, convolved with the PSF "
        f"and "
        f"averaged in the same bins, (c, g) residual and residual over error (rms of the bins {chi:.2f}), (d, h) "
        f"velocity "
        "dispersion corrected for the line-spread function and its error, (f) that of the disc. Positive velocities "
        "recede; "
        f"the position angle {style.number(fit.best['pa_deg'] % 360, fit.error['pa_deg'], '.0f')}\u00b0 (north through "
        "east) is that of the receding half of the major axis; dashed lines: pseudo-slit of "
        f"{2 * SLIT_HALF_ARCSEC:g}\u2033. (i) Rotation along the pseudo-slit, not deprojected, and (j) dispersion: "
        f"points: "
        "observed, beam smearing included; dotted: disc as it should be observed; line and band: intrinsic curve, "
        "median "
        f"and 68%;{put}{told} grey ellipse: FWHM of the PSF.",
        "data": {
            "a-h maps": map_table(
                galaxy.cube,
                (galaxy.geometry.ra, galaxy.geometry.dec),
                {n if "/" in n else f"{n} [km/s]": image for n, image in images.items()},
            ),
            **drawn[0],
            **drawn[1],
        },
    }


_LEVELS = (0.15, 0.35, 0.6, 0.85)


@style.house_style()
def plot_position_velocity(dataset: Dataset, galaxy: Galaxy) -> Figure:
    """Draw the position-velocity diagram along the major axis: data, disc, and residual."""
    fit, scale = galaxy.kinematics, galaxy.geometry.kpc_per_arcsec
    target = dataset.target(galaxy.source_id)
    along, across = axis_offsets(galaxy)
    inside = fit.maps["used"].astype(bool) & (np.abs(across) <= SLIT_HALF_ARCSEC)
    edges = np.arange(-HALF_ARCSEC, HALF_ARCSEC + 0.05, 0.1)
    wave_um = LINES["Ha"] * (1.0 + galaxy.redshift)
    velocity = (fit.wave_um / wave_um - 1.0) * C_KMS - fit.disc.systemic
    planes = {name: _cut(getattr(fit, name), along, inside, edges) for name in ("data", "model")}
    seen = np.isfinite(planes["data"]).any(axis=0)
    reach = float(np.abs(edges[:-1][seen]).max(initial=0.5)) + 0.15
    planes["residual"] = planes["data"] - planes["model"]
    figure = style.new_figure(style.FULL_WIDTH, 3.2)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    top = style.percentile_limits(planes["data"], 1.0, 99.5)[1]
    steps = np.append(velocity, 2 * velocity[-1] - velocity[-2]) - 0.5 * np.median(np.diff(velocity))
    middles = 0.5 * (edges[1:] + edges[:-1])
    for axes, (name, title) in zip(
        panels, (("data", "a  observed"), ("model", "b  disc"), ("residual", "c  observed \u2212 disc")), strict=True
    ):
        look = style.signed_scale(top) if name == "residual" else style.scale(style.FLUX_MAP, 0.0, top)
        mesh = axes.pcolormesh(edges * scale, steps, planes[name], rasterized=True, **look)
        axes.contour(middles * scale, velocity, np.nan_to_num(planes["model"]), levels=top * np.array(_LEVELS),
                     colors=style.BLACK if name == "residual" else "white", linewidths=0.7)  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel("offset along the major axis (kpc)")
        axes.set_facecolor(style.HATCH_COLOURS[0])
        if name != "data":
            style.colour_bar(figure, mesh, axes, "surface brightness (MJy/sr)" if name == "residual" else "")
    radius = np.linspace(0.0, reach, 60)
    curve = fit.disc.rotation(radius)
    for axes in panels[:2]:
        for side in (-1, 1):
            axes.plot(side * radius * scale, side * curve, color=style.SKY, linestyle="--", linewidth=1.3)
    panels[0].set(xlim=(-reach * scale, reach * scale), ylim=(-350.0, 350.0), ylabel=VELOCITY_LABEL)
    name = style.heading(figure, target)
    grid_v, grid_x = np.meshgrid(velocity, middles * scale, indexing="ij")
    return style.finish(
        figure,
        simulated=galaxy.cube.simulated,
        alt=f"Position-velocity diagrams of {name}: the H-alpha emission follows the S-shaped rotation curve of the "
        f"disc; the residual is at most {np.nanmax(np.abs(planes['residual'])) / top:.0%} of the top of the scale, rms "
        f"{np.sqrt(np.nanmean(planes['residual'] ** 2)) / top:.0%}.",
        caption=f"Position-velocity diagram of {name}. H\u03b1 along the major axis, in a pseudo-slit of "
        f"{2 * SLIT_HALF_ARCSEC:g}\u2033, continuum subtracted: (a) observed, (b) the disc fitted to the cube, "
        f"convolved with "
        "PSF and line-spread function, (c) the difference. Contours: the disc at 15, 35, 60 and 85% of the top of "
        "the scale; "
        "dashed: its intrinsic rotation curve, V sin i. Velocities are relative to the systemic one.",
        data={
            "a-c": {"offset [kpc]": grid_x, "velocity [km/s]": grid_v} | {f"{n} [MJy/sr]": p for n, p in planes.items()}
        },
    )


def _cut(cube: np.ndarray, along: np.ndarray, inside: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean spectra of a pseudo-slit in steps along it, (n_wave, n); NaN where there is no spaxel."""
    result = np.full((cube.shape[0], edges.size - 1), np.nan)
    for index in range(edges.size - 1):
        mask = inside & (along >= edges[index]) & (along < edges[index + 1])
        if mask.any():
            known = np.isfinite(cube[:, mask])
            total = np.where(known, cube[:, mask], 0.0).sum(axis=1)
            result[:, index] = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
    return result


_PARAMETERS = {
    "pa_deg": "PA (\u00b0)",
    "v_sin_i": "V sin i (km/s)",
    "r_turn": "turn-over (\u2033)",
    "sigma0": "\u03c3\u2080 (km/s)",
    "systemic": "systemic (km/s)",
}


@style.house_style()
def plot_disc_posterior(dataset: Dataset, galaxy: Galaxy) -> Figure:
    """Draw the posterior of the disc's parameters: each alone, and in pairs."""
    fit, target = galaxy.kinematics, dataset.target(galaxy.source_id)
    names = [name for name in fit.names if name in _PARAMETERS]
    draws = fit.samples if fit.samples is not None else fit.draws(4000)
    draws = draws[:, [fit.names.index(name) for name in names]]
    if "pa_deg" in names:
        draws = draws.copy()
        draws[:, names.index("pa_deg")] -= 360.0 * np.floor(np.median(draws[:, names.index("pa_deg")]) / 360.0)
    known = report.injected(dataset, galaxy.source_id)
    truth = [_nearest(known.get(name, np.nan), np.median(draws[:, k])) if name == "pa_deg" else known.get(name, np.nan)
             for k, name in enumerate(names)]  # fmt: skip
    n = len(names)
    figure = style.new_figure(style.FULL_WIDTH, style.FULL_WIDTH)
    grid = figure.subplots(n, n, sharex="col")
    limits = [_range(draws[:, k], truth[k]) for k in range(n)]
    for row in range(n):
        for column in range(n):
            axes = grid[row, column]
            if column > row:
                axes.set_axis_off()
                continue
            if column == row:
                _single(axes, draws[:, row], limits[row], truth[row])
            else:
                _pair(axes, draws[:, column], draws[:, row], (limits[column], limits[row]), (truth[column], truth[row]))
            axes.set_xlabel(_PARAMETERS[names[column]] if row == n - 1 else "")
            axes.set_ylabel(_PARAMETERS[names[row]] if column == 0 and row > 0 else "")
            axes.tick_params(labelleft=column == 0 and row > 0, labelbottom=row == n - 1, axis="both")
            axes.tick_params(axis="x", rotation=45)
            axes.locator_params(nbins=4)
    name = style.heading(figure, target)
    sampled = "emcee" if fit.samples is not None else "the covariance at the best fit"
    low, middle, high = np.percentile(draws, (15.865, 50.0, 84.135), axis=0)
    told = "; ".join(
        f"{_PARAMETERS[n]}: {m:.2f} +{h - m:.2f} \u2212{m - lo:.2f}"
        for n, m, lo, h in zip(names, middle, low, high, strict=True)
    )
    related = np.corrcoef(draws, rowvar=False) - np.eye(n)
    one, other = np.unravel_index(np.argmax(np.abs(related)), related.shape)
    put = " Orange: injected." if np.isfinite(truth).any() else ""
    chain = "" if fit.convergence is None else f" The chain has {fit.convergence.told}."
    return style.finish(
        figure,
        simulated=galaxy.cube.simulated,
        alt=f"Corner plot of the {n} parameters of the disc of {name}: the strongest correlation, "
        f"{style.signed(related[one, other], '.2f')}, is that of {names[one]} and {names[other]}. {told}.",
        caption=f"Posterior of the rotating disc of {name}. Marginal distributions of its parameters alone and in "
        f"pairs (contours: "
        f"39 and 86% of the samples, 1 and 2\u03c3 in two dimensions; from {sampled}, chi square divided by "
        f"{fit.scale:.2f} for noise "
        f"that spaxels share). Medians and 68% ranges: {told}.{chain}{put}",
        data={"samples": {f"{name}": draws[:, k] for k, name in enumerate(names)}},
    )


def _nearest(angle: float, to: float) -> float:
    """The same angle, in the turn nearest to another one, deg."""
    return to + (angle - to + 180.0) % 360.0 - 180.0


def _range(values: np.ndarray, truth: float) -> tuple[float, float]:
    """What a parameter's axis spans: nearly all samples, and the truth."""
    low, high = np.percentile(values, (0.3, 99.7))
    if np.isfinite(truth):
        low, high = min(low, truth), max(high, truth)
    pad = 0.06 * (high - low) or 1.0
    return low - pad, high + pad


def _single(axes: Axes, values: np.ndarray, limits: tuple[float, float], truth: float) -> None:
    axes.hist(values, bins=np.linspace(*limits, 31), histtype="stepfilled", color=style.SKY, alpha=0.6)
    for value, line in zip(np.percentile(values, (15.865, 50.0, 84.135)), (":", "-", ":"), strict=True):
        axes.axvline(value, color=style.RESULT_COLOUR, linestyle=line)
    if np.isfinite(truth):
        axes.axvline(truth, color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.5)
    axes.set_xlim(*limits)
    axes.set_yticks([])


def _pair(axes: Axes, x: np.ndarray, y: np.ndarray, limits: tuple, truth: tuple[float, float]) -> None:
    """Draw samples of a pair of parameters, with the levels that hold 39 and 86 % of them."""
    counts, across, up = np.histogram2d(x, y, bins=24, range=limits)
    smooth = gaussian_filter(counts, 1.0)
    order = np.sort(smooth.ravel())[::-1]
    share = np.cumsum(order) / order.sum()
    levels = sorted({float(order[np.searchsorted(share, part)]) for part in (0.393, 0.865)})
    middle = [0.5 * (edge[1:] + edge[:-1]) for edge in (across, up)]
    axes.plot(x[::4], y[::4], ",", color=style.GREY, alpha=0.5, rasterized=True)
    axes.contourf(
        *middle, smooth.T, levels=[*levels, smooth.max() * 1.01], colors=[style.SKY, style.RESULT_COLOUR], alpha=0.5
    )
    axes.contour(*middle, smooth.T, levels=levels, colors=style.RESULT_COLOUR, linewidths=0.8)
    if np.isfinite(truth).all():
        axes.axvline(truth[0], color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.2)
        axes.axhline(truth[1], color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.2)
    axes.set(xlim=limits[0], ylim=limits[1])
