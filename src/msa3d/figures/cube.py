"""Figures of a cube: collapsed, as a spectrum, as maps of a line, and channel by channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.config import Dataset, Target
from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube, open_cube
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.maps import ZOOMS, draw_map, label_sky, map_bar, map_height, mark_map, mark_spectrum, target_of
from msa3d.galaxy.images import MICROJANSKY_PER_MEGAJANSKY, collapsed_image, integrated_spectrum, observed
from msa3d.galaxy.lines import to_line_flux
from msa3d.observation.source import cube_path
from msa3d.pipeline.layout import Layout

if TYPE_CHECKING:
    from msa3d.closure.truth import TrueLines
    from msa3d.galaxy.measure import Galaxy

RADIUS_ARCSEC = 0.8
"""Of the aperture of spectra, around the place of the target."""


@style.house_style()
def plot_collapsed(
    layout: Layout, dataset: Dataset, source_id: int | None = None, *, truth: Cube | None = None
) -> Figure:
    """Draw the mean over all wavelengths, and beside it the truth, if given, or the mean around Ha."""
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
        mesh = draw_map(panel, cube, values, centre, **style.scale(style.FLUX_MAP, *limits))
        label_sky(panel, north=index == 0)
        map_bar(figure, mesh, panel, "surface brightness (MJy/sr)")
    name = style.heading(figure, target)
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
    truth: Cube | None = None,
    radius_arcsec: float = RADIUS_ARCSEC,
) -> Figure:
    """Draw the spectrum of a circular aperture, whole and around the lines, over that of the truth if given."""
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
    values = np.concatenate(shown)
    values = values[np.isfinite(values)]
    if values.size:
        low, high = np.percentile(values, [0.5, 100.0 if names else 99.95])
        axes.set_ylim(min(0.0, low) - 0.02 * (high - low), high + 0.12 * (high - low))
    mark_spectrum(axes, limits, redshift, names=names)


FLUX_UNIT = 1e-17
FLUX_LABEL = "H$\\alpha$ surface brightness\n(10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ arcsec$^{-2}$)"
VELOCITY_LABEL = "velocity (km/s)"


@style.house_style()
def plot_line_maps(dataset: Dataset, galaxy: Galaxy, true: TrueLines | None = None) -> Figure:
    """Draw Ha of every spaxel and the velocity of bins, each with its error; with a truth also that, and the pull."""
    cube, target = galaxy.cube, dataset.target(galaxy.source_id)
    spread, binned = galaxy.bins.spread, galaxy.binned
    columns = 2 if true is None else 4
    place = (cube, (target.ra, target.dec))
    height = map_height(*place, 1.1, least=1.2, most=2.4)
    figure = style.new_figure(style.FULL_WIDTH if columns > 2 else 4.6, 2 * height + 1.0, "compressed")
    grid = figure.subplots(2, columns, sharex=True, sharey=True, squeeze=False)
    flux = [galaxy.lines.flux["Ha"] / FLUX_UNIT, galaxy.lines.flux_error["Ha"] / FLUX_UNIT]
    speed = [spread(binned.velocity), spread(binned.velocity_error)]
    if true is not None:
        flux.append(true.spaxels.flux["Ha"] / FLUX_UNIT)
        speed.append(np.where(np.isfinite(speed[0]), spread(true.binned.velocity), np.nan))
        for images in (flux, speed):
            with np.errstate(invalid="ignore", divide="ignore"):
                images.append((images[0] - images[2]) / images[1])
    _row(
        figure,
        list(grid[0]),
        place,
        flux,
        FLUX_LABEL.replace("surface brightness\n", "").replace(" cm", "\ncm"),
        signed=False,
    )
    _row(figure, list(grid[1]), place, speed, VELOCITY_LABEL, signed=True)
    for row, panels in enumerate(grid):
        for axes in panels:
            label_sky(axes, east=row == 1, north=axes is panels[0])
    name = target.name or str(target.source_id)
    figure.suptitle(style.literal(name), fontsize=9)
    titles = ("result", "error", "truth", "(result \u2212 truth) / error")
    for letter, axes, title in zip("abcd", grid[0], titles, strict=False):
        axes.set_title(f"{letter}  {title}")
    alt = (
        f"Maps of {name}: above the surface brightness of H-alpha of all spaxels, below the line-of-sight velocity of "
        f"{galaxy.bins.n_bins} bins, {_range(speed[0])}; beside each its error"
        + (", the truth on the same spaxels, and the difference in units of the error." if true is not None else ".")
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
    """Draw result and truth on one scale, the error on its own, and the pull on a signed one."""
    cube, centre = place
    both = np.concatenate([image[np.isfinite(image)] for image in images[::2]])
    if signed:
        limit = style.symmetric_limit(both)
        value = style.signed_scale(limit)
    else:
        limits = style.percentile_limits(both, 1.0, 99.5)
        value = style.scale(style.FLUX_MAP, min(0.0, limits[0]), limits[1])
    error = style.scale(style.FLUX_MAP, 0.0, style.percentile_limits(images[1], 1.0, 97.0)[1])
    scales = (value, error, value, style.signed_scale(4.0))
    for axes, image, scale, text in zip(panels, images, scales, (label, "error (same unit)", "", "pull"), strict=False):
        map_bar(figure, draw_map(axes, cube, image, centre, **scale), axes, text)


CONTINUUM_KMS = ((-2400.0, -1100.0), (1500.0, 2600.0))
"""Free of Ha and [N II], to either side."""
CHANNELS = 12


def line_planes(cube: Cube, wave_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Planes around a line with a straight continuum subtracted.

    Parameters
    ----------
    cube : Cube
        The cube.
    wave_um : float
        Where the line lies, as observed, um.

    Returns
    -------
    velocity : ndarray, shape (n,)
        Of the planes between the windows of continuum, km/s.
    planes : ndarray, shape (n, n_y, n_x)
        MJy/sr; NaN where nothing was observed or the continuum is not known.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube does not cover both windows of continuum.
    """
    velocity = (cube.wave_um / wave_um - 1.0) * C_KMS
    sides = [np.flatnonzero((velocity >= low) & (velocity <= high)) for low, high in CONTINUUM_KMS]
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
    inside = (velocity > CONTINUUM_KMS[0][1]) & (velocity < CONTINUUM_KMS[1][0])
    share = ((velocity[inside] - at[0]) / (at[1] - at[0]))[:, None, None]
    continuum = level[0] + share * (level[1] - level[0])
    return velocity[inside], np.where(observed(cube), cube.data[inside] - continuum, np.nan)


@style.house_style()
def plot_channel_maps(dataset: Dataset, cube: Cube, *, source_id: int | None = None) -> Figure:
    """Draw the planes of a cube nearest to Ha, continuum subtracted, from approaching to receding."""
    target = target_of(dataset, source_id)
    wave = LINES["Ha"] * (1.0 + target.redshift)
    velocity, planes = line_planes(cube, wave)
    nearest = np.sort(np.argsort(np.abs(velocity))[:CHANNELS])
    velocity, planes = velocity[nearest], planes[nearest]
    centre = (target.ra, target.dec)
    columns = 4
    rows = int(np.ceil(velocity.size / columns))
    height = map_height(cube, centre, 1.5, least=1.1, most=2.6)
    figure = style.new_figure(style.FULL_WIDTH, rows * (height + 0.15) + 1.0, "compressed")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    finite = planes[np.isfinite(planes)]
    limit = float(np.percentile(finite, 99.7)) if finite.size else 1.0
    scale = style.scale(style.FLUX_MAP, -0.25 * limit, limit)
    panels = grid.ravel()
    for index, axes in enumerate(panels):
        if index >= velocity.size:
            axes.set_axis_off()
            continue
        mesh = draw_map(axes, cube, planes[index], centre, **scale)
        label_sky(axes, east=index + columns >= velocity.size, north=index % columns == 0)
        axes.set_title(f"{velocity[index]:+.0f} km/s".replace("-", "\u2212"))
    mark_map(panels[0], cube, target.redshift, fontsize=5.5, others=list(panels[1 : velocity.size]))
    style.colour_bar(figure, mesh, list(panels), "H\u03b1 less continuum (MJy/sr)", fraction=0.03, extend="both")
    name = target.name or str(target.source_id)
    step = float(np.median(np.diff(velocity)))
    figure.suptitle(f"{style.literal(name)}, channels of {step:.0f} km/s around H\u03b1", fontsize=9)
    alt = (
        f"{velocity.size} maps of {name}, one for each plane of the cube from {velocity[0]:.0f} to "
        f"{velocity[-1]:.0f} km/s around Ha, continuum taken off: the bright side of the disc moves across "
        "the galaxy from one plane to the next."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


LINE_KMS = 300.0


def halpha_image(cube: Cube, redshift: float) -> np.ndarray:
    """Sum of the planes within 300 km/s of Ha, continuum subtracted.

    Returns
    -------
    ndarray, shape (n_y, n_x)
        erg s-1 cm-2 arcsec-2; NaN where a voxel is missing.
    """
    wave = LINES["Ha"] * (1.0 + redshift)
    velocity, planes = line_planes(cube, wave)
    step = float(np.median(np.diff(velocity))) * wave / C_KMS
    return to_line_flux(planes[np.abs(velocity) <= LINE_KMS].sum(axis=0) * step, wave)


def aperture(cube: Cube, target: Target) -> tuple:
    """Spectrum of a circle: wavelength (um), flux density and its error (uJy; None without), number of spaxels."""
    spectrum = integrated_spectrum(cube, target.ra, target.dec, RADIUS_ARCSEC)
    east, north = cube.offsets(target.ra, target.dec)
    error = cube.sum_error((np.hypot(east, north) <= RADIUS_ARCSEC) & observed(cube))
    if error is not None:
        error = np.where(np.isfinite(spectrum.flux_ujy), error * cube.pixel_sr * MICROJANSKY_PER_MEGAJANSKY, np.nan)
    return spectrum.wave_um, spectrum.flux_ujy, error, spectrum.n_spaxels
