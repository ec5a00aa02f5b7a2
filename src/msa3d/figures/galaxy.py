"""Figures of a measured galaxy: kinematics, radial gradients, and star formation against the stellar continuum.

`draw_*` take arrays; `plot_*` take what `msa3d.galaxy.measure` found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.config import Dataset
from msa3d.cubes.cube import Cube
from msa3d.figures import style
from msa3d.figures.cube import VELOCITY_LABEL
from msa3d.figures.maps import draw_map, label_sky, map_bar, map_height, mark_map, target_of
from msa3d.figures.overview import Entry
from msa3d.galaxy import metals, report
from msa3d.galaxy.disc import Disc, kpc_per_arcsec
from msa3d.galaxy.dust import balmer_av
from msa3d.galaxy.measure import Galaxy
from msa3d.galaxy.profiles import Exponential, Gradient, Rings, rings


@dataclass(frozen=True)
class Points:
    """A quantity in rings, its error, and the radius in the plane of the disc (kpc); NaN is not drawn."""

    radius_kpc: np.ndarray
    value: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class Quantity:
    """How a quantity is named in running text and (with its unit) on axes, the unit of its gradient, its colour map."""

    name: str
    label: str
    slope_unit: str
    colours: str


@style.house_style()
def draw_radial(
    quantity: Quantity,
    dataset: Dataset,
    cube: Cube,
    image: np.ndarray,
    points: Points,
    gradient: Gradient | None,
    *,
    injected: tuple[float, float] | None = None,
    published: tuple[float, float] | None = None,
    limits: tuple[float, float] | None = None,
    source_id: int | None = None,
) -> Figure:
    """Draw the map of a quantity, and its rings and gradient.

    Parameters
    ----------
    quantity : Quantity
        What it is.
    dataset : Dataset
        The observation.
    cube : Cube
        Whose spaxels the map has.
    image : ndarray, shape (n_y, n_x)
        The map; NaN where it is not known.
    points : Points
        The quantity in rings.
    gradient : Gradient or None
        The fit; its error is shaded.
    injected : tuple of float, optional
        Value at the centre and change per kpc that were injected.
    published : tuple of float, optional
        Published gradient and its error, per kpc; drawn through the fit at the middle radius, as the published
        value at the centre is not available.
    limits : tuple of float, optional
        Of the colours; without it the range of the rings, half as wide again to either side.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Map to the left, gradient to the right.
    """
    target = target_of(dataset, source_id)
    centre = (target.ra, target.dec)
    height = map_height(cube, centre, 2.1, least=1.9, most=2.9)
    figure = style.new_figure(style.FULL_WIDTH, height + 1.3)
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.6])
    low, high = limits or _limits(points.value if np.isfinite(points.value).sum() > 1 else image)
    mesh = draw_map(left, cube, image, centre, **style.scale(quantity.colours, low, high))
    label_sky(left)
    mark_map(left, cube, target.redshift)
    known = image[np.isfinite(image)]
    beyond = bool((known < low).any()), bool((known > high).any())
    extend = {(True, False): "min", (False, True): "max", (True, True): "both"}.get(beyond, "neither")
    map_bar(figure, mesh, left, quantity.label, extend)
    left.set_title(f"a  {quantity.name}")
    _profile(right, quantity, points, gradient, injected, published)
    right.set_title("b  against radius")
    name = style.heading(figure, target)
    told = "" if gradient is None else f"; its gradient is {_signed(gradient.slope, gradient.slope_error, quantity)}"
    alt = f"{quantity.name.capitalize()} of {name}: a map, and the mean in rings against the radius in the disc{told}."
    return style.finish(figure, simulated=cube.simulated, alt=alt)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Range of the finite values, half as wide again to either side."""
    low, high = style.percentile_limits(values, 0.0, 100.0)
    return low - 0.5 * (high - low), high + 0.5 * (high - low)


def _signed(slope: float, error: float | None, quantity: Quantity) -> str:
    text = f"{slope:+.3f}" + ("" if error is None else f" \u00b1 {error:.3f}")
    return text.replace("-", "\u2212") + f" {quantity.slope_unit}"


def _profile(axes: Axes, quantity: Quantity, points: Points, gradient, injected, published) -> None:
    good = np.isfinite(points.value) & np.isfinite(points.error)
    radius, value, error = points.radius_kpc[good], points.value[good], points.error[good]
    end = 1.08 * float(radius.max()) if radius.size else 8.0
    grid = np.linspace(0.0, end, 100)
    shown = [value, value - error, value + error]
    if gradient is not None:
        line, band = gradient.at(grid)
        axes.fill_between(grid, line - band, line + band, color=style.SKY, alpha=0.5, linewidth=0, zorder=1)
        label = f"fit: {_signed(gradient.slope, gradient.slope_error, quantity)}"
        axes.plot(grid, line, color=style.RESULT_COLOUR, label=label)
        shown.append(line)
        if published is not None:
            pivot = 0.5 * end
            through = gradient.at(pivot)[0] + published[0] * (grid - pivot)
            label = f"published: {_signed(*published, quantity)}"
            axes.plot(grid, through, color=style.PUBLISHED_COLOUR, linestyle=":", linewidth=1.6, label=label)
            shown.append(through)
    if injected is not None:
        label = f"injected: {_signed(injected[1], None, quantity)}"
        line = injected[0] + injected[1] * grid
        axes.plot(grid, line, color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.4, label=label)
        shown.append(line)
    axes.errorbar(
        radius, value, error, fmt="o", color=style.BLACK, markersize=3, elinewidth=0.8, capsize=1.5,
        label="rings, as observed", zorder=4,
    )  # fmt: skip
    every = np.concatenate([np.atleast_1d(a) for a in shown])
    low, high = (every.min(), every.max()) if every.size else (0.0, 1.0)
    spread = max(high - low, 1e-3, float(np.median(error)) if error.size else 0.0)
    # Room above for the legend, so that it covers no point.
    axes.set_ylim(low - 0.1 * spread, high + 0.65 * spread)
    axes.set_xlim(0.0, end)
    axes.set_xlabel("radius in the disc (kpc)")
    axes.set_ylabel(quantity.label)
    axes.legend(loc="upper right")


METALLICITY = Quantity("metallicity", "12 + log(O/H) (dex)", "dex/kpc", style.METALLICITY_MAP)
ATTENUATION = Quantity("attenuation", "A$_V$ of the gas (mag)", "mag/kpc", style.ATTENUATION_MAP)


@dataclass(frozen=True)
class Profile:
    """A brightness in rings and the exponential disc fitted to it.

    Attributes
    ----------
    radius_arcsec, value, error : ndarray, shape (n,)
        Rings: radius in the plane of the disc, the quantity and 1 sigma. NaN is not drawn.
    scale_arcsec, scale_error : float
        Scale length of the disc.
    centre : float
        Value of the disc at radius 0, in the unit of `value`, before the point-spread function.
    injected_arcsec : float
        Scale length that was injected; NaN where there is none.
    """

    radius_arcsec: np.ndarray
    value: np.ndarray
    error: np.ndarray
    scale_arcsec: float
    scale_error: float
    centre: float
    injected_arcsec: float = np.nan


SFR_LABEL = "$\\Sigma_{\\mathrm{SFR}}$ (M$_\\odot$ yr$^{-1}$ kpc$^{-2}$)"


@style.house_style()
def draw_sfr_profile(
    dataset: Dataset,
    star_formation: Profile,
    continuum: Profile,
    *,
    source_id: int | None = None,
    simulated: bool = True,
) -> Figure:
    """Draw both profiles on logarithmic scales that span the same factor, so that equal slopes look equal.

    Left, star formation (Msun/yr/kpc2) and stellar continuum (MJy/sr); right, each over its value at the centre.
    """
    target = target_of(dataset, source_id)
    scale = kpc_per_arcsec(target.redshift)
    figure = style.new_figure(style.FULL_WIDTH, 3.1)
    left, right = figure.subplots(1, 2)
    figure.get_layout_engine().set(wspace=0.08)
    other = left.twinx()
    rows = (
        (left, star_formation, style.VERMILION, "o", "H\u03b1 star formation", SFR_LABEL),
        (other, continuum, style.PURPLE, "s", "stellar continuum", "surface brightness (MJy/sr)"),
    )
    end = 1.1 * scale * max(p.radius_arcsec[np.isfinite(p.value)].max() for p in (star_formation, continuum))
    grid = np.linspace(0.0, end, 100)
    for axes, profile, colour, marker, name, label in rows:
        disc = np.exp(-grid / (profile.scale_arcsec * scale))
        radius = profile.radius_arcsec * scale
        look = {"color": colour, "fmt": marker, "markersize": 3, "elinewidth": 0.8}
        axes.errorbar(radius, profile.value, profile.error, **look)
        axes.plot(grid, profile.centre * disc, color=colour, linewidth=1.0)
        # Both scales span a factor of 120 round their own disc.
        axes.set_yscale("log")
        axes.set_ylim(profile.centre * 0.025, profile.centre * 3.0)
        axes.set_ylabel(label, color=colour)
        axes.tick_params(axis="y", colors=colour, which="both")
        told = f"{name}: h = {profile.scale_arcsec * scale:.2f} \u00b1 {profile.scale_error * scale:.2f} kpc"
        right.errorbar(radius, profile.value / profile.centre, profile.error / profile.centre, **look, label=told)
        right.plot(grid, disc, color=colour, linewidth=1.0)
        if np.isfinite(profile.injected_arcsec):
            true = profile.injected_arcsec * scale
            told = f"injected: h = {true:.2f} kpc"
            right.plot(grid, np.exp(-grid / true), color=colour, linestyle="--", linewidth=0.9, label=told)
    left.tick_params(axis="y", which="both", right=False)
    other.tick_params(axis="y", which="both", left=False)
    right.set_yscale("log")
    right.set_ylim(0.025, 12.0)
    right.set_ylabel("over the centre of the disc")
    right.legend(loc="upper right", fontsize=6)
    for axes, title in ((left, "a  rings and discs"), (right, "b  the same, scaled")):
        axes.set_xlim(0.0, end)
        axes.set_xlabel("radius in the disc (kpc)")
        axes.set_title(title)
    name = style.heading(figure, target)
    alt = (
        f"Surface density of star formation and stellar continuum of {name} against radius: discs with scale "
        f"lengths of {star_formation.scale_arcsec * scale:.2f} and {continuum.scale_arcsec * scale:.2f} kpc."
    )
    return style.finish(figure, simulated=simulated, alt=alt)


@dataclass(frozen=True)
class Rotation:
    """A rotation curve times sin(inclination), km/s: median and central 68%, by radius in the plane of the disc."""

    radius_arcsec: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def from_draws(cls, names, draws: np.ndarray, disc: Disc, radius_arcsec: np.ndarray) -> Rotation:
        """Make one from samples of a posterior, shape (n_sets, n_names), for the kind of curve of a disc."""
        names = list(names)
        amplitude, turn = draws[:, names.index("v_sin_i")], draws[:, names.index("r_turn")]
        curves = [
            Disc(disc.pa_deg, disc.inclination_deg, float(v), float(r), curve=disc.curve).rotation(radius_arcsec)
            for v, r in zip(amplitude, turn, strict=True)
        ]
        low, value, high = np.percentile(curves, (15.865, 50.0, 84.135), axis=0)
        return cls(np.asarray(radius_arcsec), value, low, high)


LEAST_SNR = 3.0


@style.house_style()
def draw_kinematics(
    dataset: Dataset,
    cube: Cube,
    maps: Mapping[str, np.ndarray],
    disc: Disc,
    rotation: Rotation,
    *,
    injected: Disc | None = None,
    published: tuple[float, float, float] | None = None,
    centre: tuple[float, float] | None = None,
    source_id: int | None = None,
) -> Figure:
    """Draw the maps of velocity and dispersion beside those of a disc, and the rotation curve.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    cube : Cube
        Whose spaxels the maps have.
    maps : mapping of str to ndarray
        As in `msa3d.galaxy.discfit.DiscFit`, (n_y, n_x), km/s; what was observed is shown where ``snr``, if there,
        is at least `LEAST_SNR`.
    disc : Disc
        The fitted disc.
    rotation : Rotation
        Its curve.
    injected : Disc, optional
        What was injected.
    published : tuple of float, optional
        Radius (arcsec), V sin i and its error (km/s), as the paper has it.
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
            seen = maps["snr"] >= LEAST_SNR
        for name in ("observed_velocity", "observed_sigma"):
            shown[name] = np.where(seen, shown[name], np.nan)
    for name in ("observed_velocity", "velocity"):
        shown[name] = shown[name] - disc.systemic
    figure = style.new_figure(style.FULL_WIDTH, 5.6)
    grid = figure.subplots(2, 3)
    figure.get_layout_engine().set(wspace=0.08)
    signed = style.signed_scale(style.symmetric_limit(shown["velocity"], 99.0) * 1.1)
    low, high = style.percentile_limits(np.concatenate([shown["observed_sigma"][used], shown["sigma"][used]]), 3, 97)
    wide = style.scale(style.DISPERSION_MAP, max(0.0, low), high)
    panels = (
        (grid[0, 0], "a  velocity", shown["observed_velocity"], signed, VELOCITY_LABEL),
        (grid[0, 1], "b  disc", shown["velocity"], signed, VELOCITY_LABEL),
        (grid[0, 2], "c  velocity \u2212 disc", shown["observed_velocity"] - shown["velocity"], signed, VELOCITY_LABEL),
        (grid[1, 0], "d  dispersion", shown["observed_sigma"], wide, "dispersion (km/s)"),
        (grid[1, 1], "e  dispersion, disc", shown["sigma"], wide, "dispersion (km/s)"),
    )
    for axes, title, image, colours, label in panels:
        mesh = draw_map(axes, cube, image, place[1], **colours)
        label_sky(axes, north=axes in grid[:, 0])
        axes.set_title(title)
        _zoom(axes, place, used)
        mark_map(axes, cube, target.redshift, fontsize=5.5)
        _major_axis(axes, disc)
        map_bar(figure, mesh, axes, label if axes in (grid[0, 2], grid[1, 1]) else "")
    _curve(grid[1, 2], place, maps, used, (disc, rotation, injected, published), kpc_per_arcsec(target.redshift))
    name = style.heading(figure, target)
    alt = (
        f"Kinematics of {name}: maps of velocity and dispersion of the gas beside those of a rotating disc, and their "
        f"difference; the rotation curve times sine of the inclination reaches {rotation.value[-1]:.0f} km/s."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


def major_axis_points(
    cube: Cube, centre: tuple[float, float], maps: Mapping[str, np.ndarray], disc: Disc, step_arcsec: float = 0.15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observed velocities near the major axis, turned to the receding half and averaged by radius.

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
    east, north = disc.x0 + along * np.sin(angle), disc.y0 + along * np.cos(angle)
    axes.plot(east, north, color=style.BLACK, linewidth=0.8, linestyle="--")


def _curve(axes: Axes, place: tuple, maps: Mapping, used: np.ndarray, curves: tuple, scale: float) -> None:
    disc, rotation, injected, published = curves
    kpc = rotation.radius_arcsec * scale
    axes.fill_between(kpc, rotation.low, rotation.high, color=style.SKY, alpha=0.5, linewidth=0, label="68%")
    axes.plot(kpc, rotation.value, color=style.RESULT_COLOUR, label="fitted disc")
    if injected is not None:
        curve = injected.rotation(rotation.radius_arcsec)
        axes.plot(kpc, curve, color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.4, label="injected")
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


AV_ERROR = 1.0
"""Attenuation is mapped where its error is smaller, mag: chosen by the error, not by the value."""

AV_SHOWN = (0.0, 3.0)
"""Colours of the map, mag: noise makes negative values, which no dust does. More where rings have more."""

_DRAWS = 300


def plot_kinematics(dataset: Dataset, galaxy: Galaxy) -> Figure:
    """Draw velocity, dispersion, disc and rotation curve; what was injected and published beside the curve."""
    fit = galaxy.kinematics
    centre = np.array([galaxy.geometry.ra, galaxy.geometry.dec])
    east, north = galaxy.cube.offsets(*centre)
    seen = fit.maps["used"].astype(bool)
    end = float(np.percentile(fit.disc.radius_azimuth(east, north)[0][seen], 98.0)) if seen.any() else 1.0
    rotation = Rotation.from_draws(fit.names, fit.draws(_DRAWS), fit.disc, np.linspace(0.0, end, 60))
    known, told = report.injected(dataset, galaxy.source_id), report.published(galaxy.source_id)
    injected = None
    if {"v_sin_i", "r_turn"} <= known.keys():
        injected = Disc(fit.disc.pa_deg, fit.disc.inclination_deg, known["v_sin_i"], known["r_turn"])
    published = None
    if {"v_rot", "inclination", "re_disc_kpc"} <= told.keys():
        # Published deprojected, at the half-light radius of the disc.
        speed, radius = told["v_rot"], told["re_disc_kpc"].value / galaxy.geometry.kpc_per_arcsec
        sine = float(np.sin(np.radians(told["inclination"].value)))
        published = (radius, speed.value * sine, 0.5 * (speed.plus + speed.minus) * sine)
    return draw_kinematics(
        dataset, galaxy.cube, fit.maps, fit.disc, rotation,
        injected=injected, published=published, source_id=galaxy.source_id, centre=tuple(centre),
    )  # fmt: skip


def plot_metallicity(dataset: Dataset, galaxy: Galaxy, calibration: str | None = None) -> Figure:
    """Draw the metallicity of bins and rings, and its gradient, by a calibration or by that of the dataset."""
    calibration = calibration or galaxy.science.metallicity
    value, _ = metals.metallicity(galaxy.binned.flux, galaxy.binned.flux_error, calibration=calibration)
    means, errors = ({name: getattr(ring, key) for name, ring in galaxy.rings.items()} for key in ("mean", "error"))
    points = metals.metallicity(means, errors, calibration=calibration, snr=2.0)
    known, told = report.injected(dataset, galaxy.source_id), report.published(galaxy.source_id)
    return draw_radial(
        METALLICITY, dataset, galaxy.cube, galaxy.bins.spread(value), Points(_kpc(galaxy, galaxy.rings["Ha"]), *points),
        galaxy.metallicity.get(calibration), injected=_pair(known, "metallicity"),
        published=_told(told, "metallicity_gradient"), source_id=galaxy.source_id,
    )  # fmt: skip


def plot_attenuation(dataset: Dataset, galaxy: Galaxy) -> Figure | None:
    """Draw the attenuation of bins and rings, and its gradient; None for a galaxy whose Hb is not covered."""
    if galaxy.av is None:
        return None
    flux, error, around = galaxy.binned.flux, galaxy.binned.flux_error, galaxy.rings
    law = galaxy.science.dust_law
    value, sigma = balmer_av(flux["Ha"], flux["Hb"], error["Ha"], error["Hb"], law=law)
    with np.errstate(invalid="ignore"):
        value = np.where(sigma < AV_ERROR, value, np.nan)
    points = balmer_av(around["Ha"].mean, around["Hb"].mean, around["Ha"].error, around["Hb"].error, law=law)
    with np.errstate(invalid="ignore"):
        points = [np.where(points[1] < 3.0 * AV_ERROR, part, np.nan) for part in points]
    most = max(AV_SHOWN[1], float(np.nanmax(points[0], initial=0.0)))
    return draw_radial(
        ATTENUATION, dataset, galaxy.cube, galaxy.bins.spread(value), Points(_kpc(galaxy, galaxy.rings["Ha"]), *points),
        galaxy.av, injected=_pair(report.injected(dataset, galaxy.source_id), "av"), limits=(AV_SHOWN[0], most),
        source_id=galaxy.source_id,
    )  # fmt: skip


def plot_sfr_profile(dataset: Dataset, galaxy: Galaxy) -> Figure:
    """Draw star formation against the stellar continuum, and the scale lengths injected, attenuated by dust."""
    found, geometry = galaxy.star_formation, galaxy.geometry
    edges = np.append(galaxy.rings["Ha"].low, galaxy.rings["Ha"].high[-1])
    continuum = rings(galaxy.continuum, galaxy.cube, geometry, edges)
    injected = {row.quantity: row.injected for row in report.rows(galaxy, dataset)}
    # One decrement for the whole disc: light turns into star formation by a constant. Face on.
    factor = found.sfr / found.halpha / geometry.kpc_per_arcsec**2 * geometry.cos_inclination
    gas = _profile_of(galaxy.discs["Ha"], galaxy.rings["Ha"], factor, injected.get("scale_line", np.nan))
    stars = _profile_of(galaxy.stars, continuum, 1.0, injected.get("scale_continuum", np.nan))
    return draw_sfr_profile(dataset, gas, stars, source_id=galaxy.source_id, simulated=galaxy.cube.simulated)


def atlas_entry(dataset: Dataset, galaxy: Galaxy) -> Entry:
    """Make the row of an atlas: velocities are those of the bins."""
    with np.errstate(invalid="ignore"):
        speed = np.where(galaxy.binned.velocity_error < 60.0, galaxy.binned.velocity, np.nan)
    return Entry(dataset.target(galaxy.source_id), galaxy.cube, galaxy.bins.spread(speed))


def _profile_of(disc: Exponential, rings: Rings, factor: float, injected: float) -> Profile:
    with np.errstate(invalid="ignore"):
        # On a logarithmic scale only what is there with some certainty.
        value = (rings.mean - disc.background) * factor
        value = np.where(value > rings.error * factor, value, np.nan)
    centre = float(np.exp(disc.log_centre)) * factor
    return Profile(rings.radius, value, rings.error * factor, disc.scale_arcsec, disc.scale_error, centre, injected)


def _kpc(galaxy: Galaxy, rings: Rings) -> np.ndarray:
    return rings.radius * galaxy.geometry.kpc_per_arcsec


def _pair(known: dict[str, float], name: str) -> tuple[float, float] | None:
    """Centre and gradient of what was injected."""
    keys = {f"{name}_centre", f"{name}_gradient"}
    return (known[f"{name}_centre"], known[f"{name}_gradient"]) if keys <= known.keys() else None


def _told(told: dict, name: str) -> tuple[float, float] | None:
    """Published value and its mean error."""
    return (told[name].value, 0.5 * (told[name].plus + told[name].minus)) if name in told else None
