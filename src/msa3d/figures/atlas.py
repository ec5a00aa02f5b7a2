"""The atlas: all galaxies that were measured, as stamps of one size on one scale, some to a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.config import Dataset
from msa3d.constants import LINES
from msa3d.figures import style
from msa3d.figures.cube import RADIUS_ARCSEC, aperture
from msa3d.figures.galaxy import BIN_SNR, abundances
from msa3d.figures.lines import expected_image, line_bins
from msa3d.figures.maps import HALF_ARCSEC, SNR_LEVELS, draw_contours, draw_map, mark_map
from msa3d.galaxy import report
from msa3d.galaxy.measure import Galaxy

ROWS = 5
"""Galaxies on a page."""
OXYGEN = (8.2, 8.9)
"""Range of 12 + log(O/H) of all stamps."""
VELOCITY = 150.0
DISPERSION = 100.0
"""km/s: the same scale for all galaxies."""
REST_UM = (0.6500, 0.6760)


@style.house_style()
def plot_atlas(dataset: Dataset, galaxies: Sequence[Galaxy]) -> Figure:
    """Draw a page: a row for each galaxy, with continuum, Ha, velocity, dispersion, metallicity, and spectrum."""
    if not galaxies:
        raise ValueError("an atlas needs a galaxy at least")
    titles = ("continuum", "H\u03b1", "v (km/s)", "\u03c3 (km/s)", "12 + log(O/H)")
    figure = style.new_figure(style.FULL_WIDTH, 1.1 * len(galaxies) + 1.2)
    ratios = [1.0] * len(titles) + [1.75]
    grid = figure.subplots(len(galaxies), len(ratios), squeeze=False, width_ratios=ratios)
    figure.get_layout_engine().set(wspace=0.02, hspace=0.02, w_pad=0.03, h_pad=0.03)
    data = {}
    meshes: list = []
    for row, galaxy in enumerate(galaxies):
        target = dataset.target(galaxy.source_id)
        meshes = _stamps(grid[row, :-1], galaxy, target.redshift)
        _name(grid[row, 0], galaxy, target)
        data[str(galaxy.source_id)] = _spectrum(grid[row, -1], galaxy, target, last=row == len(galaxies) - 1)
    for axes, title in zip(grid[0], (*titles, "spectrum (\u00b5Jy)"), strict=True):
        axes.set_title(title, loc="center")
    for column, mesh in enumerate(meshes):
        bar = figure.colorbar(mesh, ax=list(grid[:, column]), location="bottom", pad=0.01, aspect=14, extend="both")
        bar.ax.locator_params(nbins=3)
    figure.suptitle(style.literal(dataset.title), fontsize=9.5)
    listed = ", ".join(dataset.target(g.source_id).name or str(g.source_id) for g in galaxies)
    return style.finish(
        figure,
        simulated=any(galaxy.cube.simulated for galaxy in galaxies),
        alt=f"Atlas of {listed}, a row each: a patch of starlight, the H-alpha emission on it, velocity from blue to "
        f"red across the disc, dispersion, metallicity, "
        "and the spectrum around H-alpha with [N II] and [S II].",
        caption=f"Atlas of {listed}. Stamps of {2 * HALF_ARCSEC:g}\u2033 on one scale: stellar continuum and H\u03b1 "
        f"(each from 0 to its own 99.5th percentile; contours: expected "
        f"S/N of {', '.join(f'{level:g}' for level in SNR_LEVELS)} per spaxel), velocity, dispersion and metallicity "
        f"({galaxies[0].science.metallicity}) in "
        "bins that the smooth discs of H\u03b1 and [N II] choose, on common colour scales; spectrum within "
        f"{RADIUS_ARCSEC:g}\u2033 (band: "
        f"1\u03c3; dotted: [N II], H\u03b1, [N II], [S II]) over the rest-frame vacuum "
        "wavelength. Hatched: observed, but too faint. Grey ellipse: FWHM of the PSF. Stellar mass (log M\u2609) and "
        "star-formation rate (M\u2609/yr) are published ones.",
        data=data,
    )


def pages(galaxies: Sequence[Galaxy]) -> Iterator[Sequence[Galaxy]]:
    """Cut an atlas of any length into pages of `ROWS` galaxies."""
    for start in range(0, len(galaxies), ROWS):
        yield galaxies[start : start + ROWS]


def _stamps(panels: Sequence[Axes], galaxy: Galaxy, redshift: float) -> list:
    """Draw the maps of a galaxy; their meshes."""
    cube, centre, binned = galaxy.cube, (galaxy.geometry.ra, galaxy.geometry.dec), galaxy.binned
    halpha = galaxy.lines.flux["Ha"]
    light = galaxy.continuum - galaxy.stars.background
    rows = (
        (light / style.percentile_limits(light, 1.0, 99.5)[1], style.scale("Greys", 0.0, 1.0)),
        (halpha / style.percentile_limits(halpha, 1.0, 99.5)[1], style.scale(style.FLUX_MAP, 0.0, 1.0)),
        (galaxy.bins.spread(np.ravel(binned.velocity) - galaxy.kinematics.disc.systemic), style.signed_scale(VELOCITY)),
        (galaxy.bins.spread(binned.sigma), style.scale(style.DISPERSION_MAP, 0.0, DISPERSION)),
        (_oxygen(galaxy), style.scale(style.METALLICITY_MAP, *OXYGEN)),
    )
    meshes = []
    for axes, (image, scale) in zip(panels, rows, strict=True):
        meshes.append(draw_map(axes, cube, image, centre, half=HALF_ARCSEC, **scale))
        axes.set(xlim=(HALF_ARCSEC, -HALF_ARCSEC), ylim=(-HALF_ARCSEC, HALF_ARCSEC))
        axes.set_xticks([])
        axes.set_yticks([])
    draw_contours(
        panels[1], cube, expected_image(galaxy, "Ha") / np.nanmedian(galaxy.lines.flux_error["Ha"]), centre, "white"
    )
    mark_map(panels[0], cube, redshift)
    return meshes


def _oxygen(galaxy: Galaxy) -> np.ndarray:
    """Map of 12 + log(O/H) in bins that the smooth disc in [N II] chooses; NaN without [N II]."""
    if "[NII]6583" not in galaxy.rings:
        return np.full(galaxy.cube.shape, np.nan)
    bins = line_bins(galaxy, "[NII]6583", BIN_SNR)
    value, _, limit = abundances(galaxy, galaxy.science.metallicity, bins.masks)
    return bins.spread(np.where(limit, np.nan, value))


def _name(axes: Axes, galaxy: Galaxy, target) -> None:
    """Write number, redshift, mass and star-formation rate beside a row."""
    told = report.published(galaxy.source_id)
    name = (target.name or str(galaxy.source_id)).removeprefix("MSA-3D ")
    text = f"{style.literal(name)}\nz = {target.redshift:.3f}"
    if {"log_mass", "sfr"} <= told.keys():
        text += f"\n{told['log_mass'].value:.1f}, {told['sfr'].value:.1f}"
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=8.0)


def _spectrum(axes: Axes, galaxy: Galaxy, target, *, last: bool) -> dict:
    """Draw the neighbourhood of Ha over the rest-frame wavelength."""
    wave, flux, error, _ = aperture(galaxy.cube, target, sky=True)
    rest = wave / (1 + target.redshift)
    inside = (rest >= REST_UM[0]) & (rest <= REST_UM[1])
    rest, flux = rest[inside], flux[inside]
    error = np.full(rest.size, np.nan) if error is None else error[inside]
    axes.fill_between(rest, flux - error, flux + error, step="mid", color=style.SKY, alpha=0.6, linewidth=0)
    axes.step(rest, flux, where="mid", color=style.BLUE, linewidth=0.8)
    for name in ("[NII]6548", "Ha", "[NII]6583", "[SII]6716", "[SII]6731"):
        axes.axvline(LINES[name], color=style.GREY, linewidth=0.6, linestyle=":", zorder=0)
    axes.set_xlim(*REST_UM)
    axes.tick_params(labelbottom=last, labelleft=False, labelright=True)
    axes.locator_params(axis="x", nbins=3)
    axes.locator_params(axis="y", nbins=4)
    if last:
        axes.set_xlabel("rest wavelength (\u00b5m)")
    return {"rest wavelength [um]": rest, "flux density [uJy]": flux, "error [uJy]": error}
