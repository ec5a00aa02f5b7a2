"""Figure: velocity and dispersion of a galaxy, the disc fitted to it, what is left, and the rotation curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.config import Dataset
from msa3d.constants import LINES
from msa3d.cubes.cube import Cube
from msa3d.figures import style
from msa3d.figures.cube import VELOCITY_LABEL
from msa3d.figures.maps import draw_map, label_sky, map_bar, mark_map
from msa3d.figures.observation import target_of
from msa3d.galaxy.disc import Disc, kpc_per_arcsec


@dataclass(frozen=True)
class Rotation:
    """A rotation curve times sin(inclination), with a band.

    Attributes
    ----------
    radius_arcsec : ndarray, shape (n,)
        Radii in the plane of the disc.
    value, low, high : ndarray, shape (n,)
        km/s; the central 68%.
    """

    radius_arcsec: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def from_draws(cls, names, draws: np.ndarray, disc: Disc, radius_arcsec: np.ndarray) -> Rotation:
        """Make one from sets of parameters of a disc.

        Parameters
        ----------
        names : sequence of str
            What the columns of `draws` are; ``v_sin_i`` and ``r_turn`` among them.
        draws : ndarray, shape (n_sets, n_names)
            Samples of a posterior.
        disc : Disc
            For the kind of the curve.
        radius_arcsec : ndarray
            Where it is wanted.

        Returns
        -------
        Rotation
            Median and central 68%.
        """
        names = list(names)
        amplitude, turn = draws[:, names.index("v_sin_i")], draws[:, names.index("r_turn")]
        curves = [
            Disc(disc.pa_deg, disc.inclination_deg, float(v), float(r), curve=disc.curve).rotation(radius_arcsec)
            for v, r in zip(amplitude, turn, strict=True)
        ]
        low, value, high = np.percentile(curves, (15.865, 50.0, 84.135), axis=0)
        return cls(np.asarray(radius_arcsec), value, low, high)


@style.house_style()
def plot_kinematics(
    dataset: Dataset,
    cube: Cube,
    maps: Mapping[str, np.ndarray],
    disc: Disc,
    rotation: Rotation,
    *,
    injected: Disc | None = None,
    published: tuple[float, float, float] | None = None,
    snr: float = 3.0,
    centre: tuple[float, float] | None = None,
    source_id: int | None = None,
) -> Figure:
    """Draw the maps and the rotation curve.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    cube : Cube
        Whose spaxels the maps have.
    maps : mapping of str to ndarray
        As in `msa3d.galaxy.discfit.DiscFit`: ``observed_velocity``, ``observed_velocity_error``,
        ``observed_sigma``, ``velocity``, ``sigma`` (km/s) and ``used`` (bool), each (n_y, n_x).
    disc : Disc
        The fitted disc.
    rotation : Rotation
        Its curve.
    injected : Disc, optional
        What was put in.
    published : tuple of float, optional
        Radius (arcsec), V sin i and its error (km/s), as the paper has it.
    snr : float
        What was observed is shown in spaxels of at least that signal to noise (``maps["snr"]``, if there).
    centre : tuple of float, optional
        ICRS place (deg) that offsets, and the disc's x0 and y0, refer to; the target's without it.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Six panels.
    """
    target = target_of(dataset, source_id)
    place = (cube, centre or (target.ra, target.dec))
    used = maps["used"].astype(bool)
    shown = {name: np.where(used, maps[name], np.nan) for name in
             ("observed_velocity", "velocity", "observed_sigma", "sigma")}  # fmt: skip
    if "snr" in maps:
        with np.errstate(invalid="ignore"):
            seen = maps["snr"] >= snr
        for name in ("observed_velocity", "observed_sigma"):
            shown[name] = np.where(seen, shown[name], np.nan)
    for name in ("observed_velocity", "velocity"):
        shown[name] = shown[name] - disc.systemic
        figure = style.new_figure(style.FULL_WIDTH, 5.6)
    grid = figure.subplots(2, 3)
    figure.get_layout_engine().set(wspace=0.08)
    limit = style.symmetric_limit(shown["velocity"], 99.0) * 1.1
    signed = {"cmap": style.colour_map(style.SIGNED_MAP), "vmin": -limit, "vmax": limit}
    low, high = style.percentile_limits(np.concatenate([shown["observed_sigma"][used], shown["sigma"][used]]), 3, 97)
    wide = {"cmap": style.colour_map(style.DISPERSION_MAP), "vmin": max(0.0, low), "vmax": high}
    panels = (
        (grid[0, 0], "a  velocity", shown["observed_velocity"], signed, VELOCITY_LABEL),
        (grid[0, 1], "b  disc", shown["velocity"], signed, VELOCITY_LABEL),
        (grid[0, 2], "c  velocity \u2212 disc", shown["observed_velocity"] - shown["velocity"], signed, VELOCITY_LABEL),
        (grid[1, 0], "d  dispersion", shown["observed_sigma"], wide, "dispersion (km/s)"),
        (grid[1, 1], "e  dispersion, disc", shown["sigma"], wide, "dispersion (km/s)"),
    )
    wave, scale = LINES["Ha"] * (1 + target.redshift), kpc_per_arcsec(target.redshift)
    for axes, title, image, colours, label in panels:
        mesh = draw_map(axes, cube, image, place[1], **colours)
        label_sky(axes, north=axes in grid[:, 0])
        axes.set_title(title)
        _zoom(axes, place, used)
        mark_map(axes, cube, kpc_per_arcsec=scale, wave_um=wave, fontsize=5.5)
        _major_axis(axes, disc)
        map_bar(figure, mesh, axes, label if axes in (grid[0, 2], grid[1, 1]) else "")
    _curve(grid[1, 2], place, maps, used, (disc, rotation, injected, published), scale)
    name = target.name or str(target.source_id)
    figure.suptitle(style.literal(name), fontsize=9)
    alt = (
        f"Kinematics of {name}: maps of velocity and dispersion of the gas beside those of a rotating disc, and their "
        f"difference; the rotation curve times sine of the inclination reaches {rotation.value[-1]:.0f} km/s."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


def major_axis_points(
    cube: Cube, centre: tuple[float, float], maps: Mapping[str, np.ndarray], disc: Disc, step_arcsec: float = 0.15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed velocities near the major axis, turned to the receding half and averaged by radius.

    Parameters
    ----------
    cube : Cube
        Whose spaxels the maps have.
    centre : tuple of float
        ICRS place of the origin of the disc's x0, y0, deg.
    maps : mapping of str to ndarray
        As in `plot`.
    disc : Disc
        The fitted disc.
    step_arcsec : float
        Width of a bin.

    Returns
    -------
    radius, value, error : ndarray
        arcsec, km/s; beam smearing is in them.
    """
    radius, azimuth = disc.radius_azimuth(*cube.offsets(*centre))
    along = np.cos(azimuth)
    speed, error = maps["observed_velocity"] - disc.systemic, maps["observed_velocity_error"]
    with np.errstate(invalid="ignore"):
        good = maps["used"].astype(bool) & (np.abs(along) > 0.6) & np.isfinite(speed) & (error > 0)
        # Fits that ran away have no weight in a mean, nor a place in it.
        good &= (error < 40.0) & (np.abs(speed) < 350.0)
    radius, speed, error = radius[good], speed[good] / along[good], error[good] / np.abs(along[good])
    points = []
    for low in np.arange(0.0, radius.max(initial=0.0), step_arcsec):
        here = (radius >= low) & (radius < low + step_arcsec)
        if here.sum() >= 3:
            weight = 1.0 / error[here] ** 2
            mean = np.average(speed[here], weights=weight)
            scatter = np.sqrt(np.average((speed[here] - mean) ** 2, weights=weight) / here.sum())
            points.append((np.average(radius[here], weights=weight), mean, max(scatter, weight.sum() ** -0.5)))
    return tuple(np.array(points).reshape(-1, 3).T)


def _zoom(axes: Axes, place: tuple, used: np.ndarray, pad: float = 0.35) -> None:
    """Show the spaxels that were used and their surroundings, in a square."""
    if used.any():
        offsets = [a[used] for a in place[0].offsets(*place[1])]
        half = 0.5 * max(np.ptp(a) for a in offsets) + pad
        east, north = (0.5 * (a.min() + a.max()) for a in offsets)
        axes.set_xlim(east + half, east - half)
        axes.set_ylim(north - half, north + half)


def _major_axis(axes: Axes, disc: Disc) -> None:
    """Dash the major axis of the disc, half an arcsecond to either side."""
    angle = np.radians(disc.pa_deg)
    along = np.array([-0.7, 0.7])
    axes.plot(
        disc.x0 + along * np.sin(angle),
        disc.y0 + along * np.cos(angle),
        color=style.BLACK,
        linewidth=0.8,
        linestyle="--",
    )


def _curve(axes: Axes, place: tuple, maps: Mapping, used: np.ndarray, curves: tuple, scale: float) -> None:
    disc, rotation, injected, published = curves
    kpc = rotation.radius_arcsec * scale
    axes.fill_between(kpc, rotation.low, rotation.high, color=style.SKY, alpha=0.5, linewidth=0, label="68%")
    axes.plot(kpc, rotation.value, color=style.RESULT_COLOUR, label="fitted disc")
    if injected is not None:
        curve = injected.rotation(rotation.radius_arcsec)
        axes.plot(kpc, curve, color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.4, label="put in")
    radius, value, error = major_axis_points(*place, maps, disc)
    # A mean that is less certain than the curve is high says nothing, and would set the scale.
    told = error < 0.5 * max(float(np.max(np.abs(rotation.high))), 1.0)
    radius, value, error = radius[told], value[told], error[told]
    axes.errorbar(
        radius * scale,
        value,
        error,
        fmt="o",
        color=style.BLACK,
        markersize=2.5,
        elinewidth=0.7,
        label="observed near major axis",
    )
    if published is not None:
        axes.errorbar(
            published[0] * scale, published[1], published[2], fmt="D", color=style.PUBLISHED_COLOUR, markersize=4,
            elinewidth=1.0, label="published",
        )  # fmt: skip
    tops = [np.max(rotation.high), *(value + error)] + ([published[1] + published[2]] if published else [])
    tops += [] if injected is None else [np.max(injected.rotation(rotation.radius_arcsec))]
    axes.set_ylim(min(0.0, *(value - error), 0.0), 1.75 * max(tops))
    axes.set_xlim(0.0, kpc[-1])
    axes.set_xlabel("radius in the disc (kpc)")
    axes.set_ylabel("V sin i (km/s)")
    axes.set_title("f  rotation")
    axes.legend(loc="upper left", fontsize=6, ncols=1)
