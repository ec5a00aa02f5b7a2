"""Figures of a cube.

Figure: the cube of one galaxy collapsed along the wavelengths.

Figure: the spectrum of a whole galaxy, its lines named.

Figure: Ha flux and velocity of one galaxy, beside the truth when there is one.

Figure: the channels of a cube across a line, continuum taken off, one plane of the cube a panel.

Figure: what a cube holds: continuum, line and depth as images, and the spectrum of an aperture with its error.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from msa3d.config import Dataset, Target
from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube, open_cube
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.maps import ZOOMS, draw_map, label_sky, map_bar, map_height, mark_map, mark_spectrum
from msa3d.figures.observation import target_of
from msa3d.galaxy.disc import kpc_per_arcsec
from msa3d.galaxy.images import MICROJANSKY_PER_MEGAJANSKY, collapsed_image, integrated_spectrum, observed
from msa3d.galaxy.lines import LineMaps, to_line_flux
from msa3d.observation.source import cube_path
from msa3d.pipeline.layout import Layout


@style.house_style()
def plot_collapsed(
    layout: Layout, dataset: Dataset, source_id: int | None = None, *, truth: Cube | None = None
) -> Figure:
    """Draw the mean over all wavelengths and the mean over Ha less the continuum beside it.

    Parameters
    ----------
    layout : Layout
        Where the products are.
    dataset : Dataset
        The observation.
    source_id : int, optional
        The source; the case study without it.
    truth : Cube, optional
        A noiseless cube on the same spaxels, shown beside the result.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels: result, and truth when there is one (else the neighbourhood of Ha).

    Raises
    ------
    ProductError
        If there is no cube.
    """
    target = target_of(dataset, source_id)
    cube = open_cube(cube_path(layout, dataset, target.source_id))
    image = collapsed_image(cube)
    if truth is not None:
        second, title = collapsed_image(truth), "b  truth"
    else:
        line = LINES["Ha"] * (1 + target.redshift)
        second = collapsed_image(cube, (line * 0.999, line * 1.001), clip_sigma=1e9)
        title = "b  within 300 km/s of H\u03b1"
    centre = (target.ra, target.dec)
    height = map_height(cube, centre, 2.4, least=2.2, most=3.6)
    figure = style.new_figure(style.FULL_WIDTH, height + 0.9, "compressed")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    low, high = style.percentile_limits(image, 2.0, 99.7)
    for index, (panel, values) in enumerate(zip(axes, (image, second), strict=True)):
        limits = (low, high) if index == 0 else style.percentile_limits(values, 2.0, 99.7)
        mesh = draw_map(
            panel, cube, values, centre, cmap=style.colour_map(style.FLUX_MAP),
            vmin=limits[0], vmax=limits[1],
        )  # fmt: skip
        label_sky(panel, north=index == 0)
        map_bar(figure, mesh, panel, "surface brightness (MJy/sr)")
    name = target.name or str(target.source_id)
    figure.suptitle(style.literal(name), fontsize=9)
    axes[0].set_title("a  all wavelengths")
    axes[1].set_title(title)
    alt = (
        f"Map of {name}: the cube averaged over {cube.wave_um[0]:.2f} to {cube.wave_um[-1]:.2f} micrometre, "
        f"up to {high:.2g} MJy/sr; beside it {title[3:]}."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


@style.house_style()
def plot_integrated(
    layout: Layout,
    dataset: Dataset,
    source_id: int | None = None,
    *,
    radius_arcsec: float = 0.8,
    truth: Cube | None = None,
) -> Figure:
    """Draw the spectrum of a circular aperture, whole and around the lines.

    Parameters
    ----------
    layout : Layout
        Where the products are.
    dataset : Dataset
        The observation.
    source_id : int, optional
        The source; the case study without it.
    radius_arcsec : float
        Radius of the aperture round the target's place.
    truth : Cube, optional
        A noiseless cube on the same spaxels; its spectrum is drawn over the result.

    Returns
    -------
    matplotlib.figure.Figure
        Above the whole spectrum, below the neighbourhoods of Hb and Ha.

    Raises
    ------
    ProductError
        If there is no cube.
    """
    target = target_of(dataset, source_id)
    cube = open_cube(cube_path(layout, dataset, target.source_id))
    spectrum = integrated_spectrum(cube, target.ra, target.dec, radius_arcsec)
    curves = [(spectrum.wave_um, spectrum.flux_ujy, style.BLUE, "cube")]
    if truth is not None:
        true = integrated_spectrum(truth, target.ra, target.dec, radius_arcsec)
        scale = spectrum.n_spaxels / true.n_spaxels
        curves.append((true.wave_um, true.flux_ujy * scale, style.ORANGE, "truth, no sky"))
    figure = style.new_figure(style.FULL_WIDTH, 4.4)
    grid = figure.subplot_mosaic([["whole", "whole"], ["blue", "red"]])
    whole = grid["whole"]
    _draw(whole, curves, (cube.wave_um[0], cube.wave_um[-1]), target.redshift, names=False)
    name = target.name or str(target.source_id)
    whole.set_title(f'a  {style.literal(name)}, within {radius_arcsec:g}" ({spectrum.n_spaxels} spaxels)')
    if truth is not None:
        whole.legend(loc="upper left", ncols=2)
    for letter, key, (first, last) in zip("bc", ("blue", "red"), ZOOMS, strict=True):
        low, high = (LINES[n] * (1 + target.redshift) for n in (first, last))
        margin = 0.35 * (high - low) + 0.004
        _draw(grid[key], curves, (low - margin, high + margin), target.redshift, names=True)
        grid[key].set_title(letter)
    alt = (
        f"Spectrum of {name} within {radius_arcsec:g} arcsec from {cube.wave_um[0]:.2f} to "
        f"{cube.wave_um[-1]:.2f} micrometre: continuum and emission lines. Two enlarged panels name H-beta "
        "and [O III], and H-alpha with [N II] and [S II]."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


def _draw(axes: Axes, curves: list, limits: tuple[float, float], redshift: float, *, names: bool) -> None:
    """Draw curves over a range with the lines marked, and named when asked."""
    shown = []
    for wave, flux, colour, label in curves:
        inside = (wave >= limits[0]) & (wave <= limits[1])
        below = label.startswith("truth")
        look = {"linewidth": 2.4, "alpha": 0.6, "zorder": 2} if below else {"linewidth": 0.8, "zorder": 3}
        axes.step(wave[inside], flux[inside], where="mid", color=colour, label=label, **look)
        shown.append(flux[inside])
    values = np.concatenate(shown) if shown else np.array([])
    values = values[np.isfinite(values)]
    if values.size:
        low, high = np.percentile(values, [0.5, 100.0 if names else 99.95])
        axes.set_ylim(min(0.0, low) - 0.02 * (high - low), high + 0.12 * (high - low))
    mark_spectrum(axes, limits, redshift, names=names)


FLUX_UNIT = 1e-17
FLUX_LABEL = "H$\\alpha$ surface brightness\n(10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ arcsec$^{-2}$)"
VELOCITY_LABEL = "velocity (km/s)"


@style.house_style()
def plot_line_maps(
    dataset: Dataset,
    cube: Cube,
    maps: LineMaps,
    *,
    truth: LineMaps | None = None,
    snr: float = 5.0,
    source_id: int | None = None,
) -> Figure:
    """Draw the maps of Ha flux and velocity.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    cube : Cube
        The cube that the maps were measured on.
    maps : LineMaps
        The measurement.
    truth : LineMaps, optional
        The same measured on a noiseless cube on the same spaxels.
    snr : float
        Velocities are shown where Ha is at least that significant.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Flux above, velocity below; with a truth three columns: result, truth, difference.
    """
    target = target_of(dataset, source_id)
    shown = maps.reliable(snr)
    columns = 1 if truth is None else 3
    place = (cube, (target.ra, target.dec))
    height = map_height(*place, 1.5, least=1.6, most=2.9)
    figure = style.new_figure(style.FULL_WIDTH if columns > 1 else 3.4, 2 * height + 1.1, "compressed")
    grid = figure.subplots(2, columns, sharex=True, sharey=True, squeeze=False)
    flux = [maps.halpha / FLUX_UNIT]
    velocity = [np.where(shown, maps.velocity, np.nan)]
    if truth is not None:
        flux += [truth.halpha / FLUX_UNIT, (maps.halpha - truth.halpha) / FLUX_UNIT]
        velocity += [
            np.where(shown, truth.velocity, np.nan),
            np.where(shown, maps.velocity - truth.velocity, np.nan),
        ]
    _row(figure, list(grid[0]), place, flux, FLUX_LABEL, signed=False)
    _row(figure, list(grid[1]), place, velocity, VELOCITY_LABEL, signed=True)
    for index, axes in enumerate(grid[1]):
        label_sky(axes, north=index == 0)
    for axes in grid[0]:
        label_sky(axes, east=False, north=axes is grid[0][0])
    name = target.name or str(target.source_id)
    figure.suptitle(style.literal(name), fontsize=9)
    for letter, axes, title in zip("abc", grid[0], ("result", "truth", "result \u2212 truth"), strict=False):
        axes.set_title(f"{letter}  {title}")
    alt = (
        f"Maps of {name}: above the surface brightness of H-alpha, below the line-of-sight velocity where "
        f"H-alpha exceeds {snr:g} sigma, {_range(velocity[0])}."
        + (" Beside each the truth on the same spaxels and the difference." if truth is not None else "")
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


def _range(image: np.ndarray) -> str:
    """Say between which values most of a velocity map lies."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return "nowhere in this map"
    low, high = np.percentile(finite, [5, 95])
    return f"between {low:.0f} and {high:.0f} km/s in nine of ten spaxels"


def _row(figure: Figure, panels: list[Axes], place: tuple, images: list, label: str, *, signed: bool) -> None:
    """Draw result and truth on one scale, and the difference on a signed scale of its own."""
    cube, centre = place
    both = np.concatenate([image[np.isfinite(image)] for image in images[:2]])
    if signed:
        limit = style.symmetric_limit(both)
        scale = {"cmap": style.colour_map(style.SIGNED_MAP), "vmin": -limit, "vmax": limit}
    else:
        limits = style.percentile_limits(both, 1.0, 99.5)
        scale = {"cmap": style.colour_map(style.FLUX_MAP), "vmin": min(0.0, limits[0]), "vmax": limits[1]}
    for axes, image in zip(panels[:2], images[:2], strict=False):
        mesh = draw_map(axes, cube, image, centre, **scale)
        map_bar(figure, mesh, axes, label if axes is panels[len(images[:2]) - 1] else "")
    if len(images) == 3:
        limit = style.symmetric_limit(images[2])
        difference = {"cmap": style.colour_map(style.SIGNED_MAP), "vmin": -limit, "vmax": limit}
        mesh = draw_map(panels[2], cube, images[2], centre, **difference)
        map_bar(figure, mesh, panels[2], "difference (same unit)")


CONTINUUM_KMS = ((-2400.0, -1100.0), (1500.0, 2600.0))
"""Free of Ha and [N II], to either side."""


def line_planes(cube: Cube, wave_um: float, windows_kms=CONTINUUM_KMS) -> tuple[np.ndarray, np.ndarray]:
    """Planes around a line with a straight continuum taken off.

    Parameters
    ----------
    cube : Cube
        The cube.
    wave_um : float
        Where the line lies, as observed, um.
    windows_kms : sequence of pairs
        Where there is continuum only, km/s from the line.

    Returns
    -------
    velocity : ndarray, shape (n,)
        Of the planes between the two windows, km/s.
    planes : ndarray, shape (n, n_y, n_x)
        MJy/sr; NaN where nothing was observed or the continuum is not known.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube does not cover both windows.
    """
    velocity = (cube.wave_um / wave_um - 1.0) * C_KMS
    sides = [np.flatnonzero((velocity >= low) & (velocity <= high)) for low, high in windows_kms]
    if min(side.size for side in sides) < 3:
        raise ProductError(
            f"{cube.name} does not cover the continuum on both sides of {wave_um:.4f} um; check redshift"
        )
    level = []
    for side in sides:
        part = cube.data[side]
        known = np.isfinite(part) & (part != 0)
        enough = known.mean(axis=0) > 0.5
        # Medians are not moved by a cosmic ray; spaxels without data stay NaN without a warning of numpy's.
        filled = np.where(known, part, np.nan)
        filled[:, ~enough] = 0.0
        level.append(np.where(enough, np.nanmedian(filled, axis=0), np.nan))
    at = [float(velocity[side].mean()) for side in sides]
    inside = (velocity > windows_kms[0][1]) & (velocity < windows_kms[1][0])
    share = ((velocity[inside] - at[0]) / (at[1] - at[0]))[:, None, None]
    continuum = level[0] + share * (level[1] - level[0])
    return velocity[inside], np.where(observed(cube), cube.data[inside] - continuum, np.nan)


@style.house_style()
def plot_channel_maps(
    dataset: Dataset,
    cube: Cube,
    *,
    line: str = "Ha",
    channels: int = 12,
    source_id: int | None = None,
) -> Figure:
    """Draw the planes of a cube that lie nearest to a line.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    cube : Cube
        The cube.
    line : str
        Key of `lines.LINES`.
    channels : int
        How many planes.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels a row, all on one scale, from approaching to receding.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube does not cover the line.
    """
    target = target_of(dataset, source_id)
    wave = LINES[line] * (1.0 + target.redshift)
    velocity, planes = line_planes(cube, wave)
    nearest = np.sort(np.argsort(np.abs(velocity))[:channels])
    velocity, planes = velocity[nearest], planes[nearest]
    centre = (target.ra, target.dec)
    columns, width = 4, 1.5
    rows = int(np.ceil(velocity.size / columns))
    height = map_height(cube, centre, width, least=1.1, most=2.6)
    figure = style.new_figure(style.FULL_WIDTH, rows * (height + 0.15) + 1.0, "compressed")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    finite = planes[np.isfinite(planes)]
    limit = float(np.percentile(finite, 99.7)) if finite.size else 1.0
    floor = -0.25 * limit
    panels = grid.ravel()
    for index, axes in enumerate(panels):
        if index >= velocity.size:
            axes.set_axis_off()
            continue
        scale = {"cmap": style.colour_map(style.FLUX_MAP), "vmin": floor, "vmax": limit}
        mesh = draw_map(axes, cube, planes[index], centre, **scale)
        below = index + columns >= velocity.size
        label_sky(axes, east=below, north=index % columns == 0)
        axes.set_title(f"{velocity[index]:+.0f} km/s".replace("-", "\u2212"))
    scale, others = kpc_per_arcsec(target.redshift), list(panels[1 : velocity.size])
    mark_map(panels[0], cube, kpc_per_arcsec=scale, wave_um=wave, fontsize=5.5, others=others)
    style.colour_bar(
        figure, mesh, list(panels), f"{_NAMES.get(line, line)} less continuum (MJy/sr)", fraction=0.03, extend="both"
    )
    name = target.name or str(target.source_id)
    step = float(np.median(np.diff(velocity)))
    figure.suptitle(f"{style.literal(name)}, channels of {step:.0f} km/s around {_NAMES.get(line, line)}", fontsize=9)
    alt = (
        f"{velocity.size} maps of {name}, one for each plane of the cube from {velocity[0]:.0f} to "
        f"{velocity[-1]:.0f} km/s around {line}, continuum taken off: the bright side of the disc moves across "
        "the galaxy from one plane to the next."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


_NAMES = {"Ha": "H\u03b1", "Hb": "H\u03b2", "[OIII]5007": "[O III] 5007"}


LINE_KMS = 300.0


def halpha_image(cube: Cube, redshift: float, line: str = "Ha") -> np.ndarray:
    """Sum of the planes within 300 km/s of a line, continuum taken off.

    Parameters
    ----------
    cube : Cube
        The cube.
    redshift : float
        Of the galaxy.
    line : str
        Key of `lines.LINES`.

    Returns
    -------
    ndarray, shape (n_y, n_x)
        erg s-1 cm-2 arcsec-2; NaN where a voxel is missing.
    """
    wave = LINES[line] * (1.0 + redshift)
    velocity, planes = line_planes(cube, wave)
    step = float(np.median(np.diff(velocity))) * wave / C_KMS
    return to_line_flux(planes[np.abs(velocity) <= LINE_KMS].sum(axis=0) * step, wave)


def aperture(cube: Cube, target: Target, radius_arcsec: float) -> tuple:
    """Spectrum of a circle: wavelength (um), flux density and its error (uJy; None without), number of spaxels."""
    spectrum = integrated_spectrum(cube, target.ra, target.dec, radius_arcsec)
    east, north = cube.offsets(target.ra, target.dec)
    error = cube.sum_error((np.hypot(east, north) <= radius_arcsec) & observed(cube))
    if error is not None:
        error = np.where(np.isfinite(spectrum.flux_ujy), error * cube.pixel_sr * MICROJANSKY_PER_MEGAJANSKY, np.nan)
    return spectrum.wave_um, spectrum.flux_ujy, error, spectrum.n_spaxels


def _maps(figure, place: tuple, target: Target, radius_arcsec: float) -> None:
    cube, centre = place
    wave = LINES["Ha"] * (1 + target.redshift)
    near = (np.abs(cube.wave_um / wave - 1) * C_KMS) < LINE_KMS
    panels = [
        ("a  continuum", collapsed_image(cube), "surface brightness (MJy/sr)", style.FLUX_MAP),
        ("b  H\u03b1 less continuum", halpha_image(cube, target.redshift) / FLUX_UNIT, FLUX_LABEL, style.FLUX_MAP),
    ]
    if cube.etime is not None and cube.etime.ndim == 3:
        seconds = np.where(observed(cube), cube.etime[near].mean(axis=0), np.nan)
        panels.append(("c  exposure time near H\u03b1", seconds / 3600.0, "exposure time (h)", style.INTENSITY_MAP))
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for index, (panel, (title, image, label, colours)) in enumerate(zip(axes, panels, strict=True)):
        low, high = style.percentile_limits(image, 1.0, 99.7)
        scale = {"cmap": style.colour_map(colours), "vmin": 0.0 if index == 2 else low, "vmax": high}
        mesh = draw_map(panel, cube, image, centre, **scale)
        label_sky(panel, north=index == 0)
        panel.set_title(title)
        colour = style.BLACK if index == 2 else "white"
        panel.add_patch(Circle((0.0, 0.0), radius_arcsec, fill=False, edgecolor=colour, linewidth=0.8, linestyle="--"))
        map_bar(figure, mesh, panel, label)
    scale = kpc_per_arcsec(target.redshift)
    mark_map(axes[0], cube, kpc_per_arcsec=scale, wave_um=wave, others=axes[1:])


def _spectrum(axes: Axes, spectrum: tuple, true: tuple | None, limits: tuple, redshift: float, *, names: bool) -> None:
    """Draw a spectrum with its error band, the truth behind it, lines marked, and named when asked."""
    wave, flux, error, _ = spectrum
    inside = (wave >= limits[0]) & (wave <= limits[1])
    values = flux[inside][np.isfinite(flux[inside])]
    if true is not None:
        part = (true[0] >= limits[0]) & (true[0] <= limits[1])
        axes.step(
            true[0][part],
            true[1][part],
            where="mid",
            color=style.ORANGE,
            linewidth=2.2,
            alpha=0.7,
            label="truth, no sky",
        )
    axes.step(wave[inside], flux[inside], where="mid", color=style.BLUE, linewidth=0.7, label="cube")
    if error is not None:
        low, high = (flux + error)[inside], (flux - error)[inside]
        axes.fill_between(
            wave[inside],
            low,
            high,
            step="mid",
            color=style.SKY,
            alpha=0.6,
            linewidth=0,
            label="\u00b1 1\u03c3",
            zorder=1,
        )
    if values.size:
        low, high = np.percentile(values, [0.5, 100.0 if names else 99.95])
        axes.set_ylim(min(0.0, low) - 0.04 * (high - low), high + (0.1 if names else 0.3) * (high - low))
    mark_spectrum(axes, limits, redshift, names=names)
