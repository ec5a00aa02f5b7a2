"""Figure: what a cube holds: continuum, line and depth as images, and the spectrum of an aperture with its error."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from msa3d.constants import C_KMS, LINES
from msa3d.cube import Cube
from msa3d.dataset import Dataset, Target
from msa3d.figures import style
from msa3d.figures.channel_maps import line_planes
from msa3d.figures.line_maps import FLUX_LABEL, FLUX_UNIT
from msa3d.figures.linemarks import ZOOMS, mark_spectrum
from msa3d.figures.sky import draw_map, label_sky, map_bar, map_height
from msa3d.figures.skymarks import mark_map
from msa3d.figures.slit_stepping import target_of
from msa3d.science.cosmology import kpc_per_arcsec
from msa3d.science.lines import to_line_flux
from msa3d.science.spectra import MICROJANSKY_PER_MEGAJANSKY, collapsed_image, integrated_spectrum, observed

LINE_KMS = 300.0


@style.house_style()
def plot(
    dataset: Dataset, cube: Cube, *, radius_arcsec: float = 0.8, truth: Cube | None = None, source_id: int | None = None
) -> Figure:
    """Draw images and the integrated spectrum of a cube.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    cube : Cube
        The cube.
    radius_arcsec : float
        Radius of the aperture round the target's place.
    truth : Cube, optional
        A noiseless cube on the same spaxels, drawn behind the spectrum.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Three maps; the whole spectrum, one sigma shaded; two enlarged parts.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube does not cover Ha.
    """
    target = target_of(dataset, source_id)
    place = (cube, (target.ra, target.dec))
    height = map_height(*place, 1.9, least=1.4, most=2.4)
    figure = style.new_figure(style.FULL_WIDTH, height + 4.3)
    above, below = figure.subfigures(2, 1, height_ratios=[height + 0.7, 3.6])
    _maps(above, place, target, radius_arcsec)
    grid = below.subplot_mosaic([["whole", "whole"], ["blue", "red"]])
    spectrum = aperture(cube, target, radius_arcsec)
    true = None if truth is None else aperture(truth, target, radius_arcsec)
    if true is not None:
        true = (true[0], true[1] * spectrum[3] / true[3], None, spectrum[3])
    _spectrum(grid["whole"], spectrum, true, (cube.wave_um[0], cube.wave_um[-1]), target.redshift, names=False)
    grid["whole"].set_title(f'd  spectrum within {radius_arcsec:g}" ({spectrum[3]} spaxels)')
    handles = grid["whole"].get_legend_handles_labels()
    grid["whole"].legend(*handles, loc="upper left", ncols=3)
    for letter, key, (first, last) in zip("ef", ("blue", "red"), ZOOMS, strict=True):
        low, high = (LINES[n] * (1 + target.redshift) for n in (first, last))
        margin = 0.3 * (high - low) + 0.003
        _spectrum(grid[key], spectrum, true, (low - margin, high + margin), target.redshift, names=True)
        grid[key].set_title(letter)
    name = target.name or str(target.source_id)
    figure.suptitle(f"{style.literal(name)}, z = {target.redshift:g}", fontsize=9)
    alt = (
        f"Cube of {name}: maps of continuum, of H-alpha without it and of the exposure time; below the spectrum within "
        f"{radius_arcsec:g} arcsec with its one-sigma error, whole and around H-beta and H-alpha."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


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
