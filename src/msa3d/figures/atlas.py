"""Figure: all galaxies of a run on a page: continuum, Ha, velocity and spectrum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.constants import LINES
from msa3d.cube import Cube
from msa3d.dataset import Dataset, Target
from msa3d.figures import style
from msa3d.figures.cube_overview import aperture, halpha_image
from msa3d.figures.line_maps import FLUX_LABEL, FLUX_UNIT, VELOCITY_LABEL
from msa3d.figures.sky import draw_map
from msa3d.figures.skymarks import mark_map
from msa3d.science.cosmology import kpc_per_arcsec
from msa3d.science.spectra import collapsed_image

ROWS = 6
HALF_ARCSEC = 1.85
"""Half of the width of a map."""


@dataclass(frozen=True)
class Entry:
    """A galaxy of the atlas.

    Attributes
    ----------
    target : Target
        Which galaxy.
    cube : Cube
        Its cube.
    velocity : ndarray or None
        Line-of-sight velocity where it is known, km/s, shape (n_y, n_x); NaN elsewhere.
    """

    target: Target
    cube: Cube
    velocity: np.ndarray | None = None


@style.house_style()
def plot(dataset: Dataset, entries: Sequence[Entry], *, radius_arcsec: float = 0.8, title: str = "") -> Figure:
    """Draw a page of the atlas.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    entries : sequence of Entry
        The galaxies, a row each; `pages` splits long lists.
    radius_arcsec : float
        Radius of the aperture of the spectra.
    title : str
        Heading; the dataset's without it.

    Returns
    -------
    matplotlib.figure.Figure
        A row a galaxy; the maps of a column have scales of their own, given in their headings.

    Raises
    ------
    ValueError
        If there is no galaxy.
    msa3d.errors.ProductError
        If a cube does not cover Ha.
    """
    if not entries:
        raise ValueError("an atlas needs a galaxy at least")
    moving = any(entry.velocity is not None for entry in entries)
    maps = 3 if moving else 2
    figure = style.new_figure(style.FULL_WIDTH, 1.75 * len(entries) + 0.9)
    grid = figure.subplots(len(entries), maps + 1, squeeze=False, width_ratios=[1.0] * maps + [1.9])
    bottom = len(entries) - 1
    for row, entry in enumerate(entries):
        _images(figure, grid[row, :maps], entry)
        _spectrum(grid[row, maps], entry, radius_arcsec, last=row == bottom)
    names = ("continuum\n(MJy/sr)", FLUX_LABEL.replace("surface brightness\n", "\n"), VELOCITY_LABEL)
    for axes, text in zip(grid[0, :maps], names, strict=False):
        axes.annotate(
            text, (0.5, 1.0), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points",
            ha="center", va="bottom", fontsize=6.5,
        )  # fmt: skip
    figure.suptitle(style.literal(title or dataset.title), fontsize=9)
    listed = ", ".join(entry.target.name or str(entry.target.source_id) for entry in entries)
    alt = (
        f"Atlas of {listed}: in each row a map of the continuum, of H-alpha without it"
        + (", of the velocity" if moving else "")
        + f", and the spectrum within {radius_arcsec:g} arcsec around H-alpha."
    )
    return style.finish(figure, simulated=any(entry.cube.simulated for entry in entries), alt=alt)


def pages(dataset: Dataset, entries: Sequence[Entry], **kwargs) -> Iterator[Figure]:
    """Draw an atlas of any length, `ROWS` galaxies a page.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    entries : sequence of Entry
        The galaxies.
    **kwargs
        Passed on to `plot`.

    Yields
    ------
    matplotlib.figure.Figure
        A page.
    """
    for start in range(0, len(entries), ROWS):
        yield plot(dataset, entries[start : start + ROWS], **kwargs)


def _images(figure: Figure, panels: Sequence[Axes], entry: Entry) -> None:
    target, cube = entry.target, entry.cube
    centre = (target.ra, target.dec)
    images = [collapsed_image(cube), halpha_image(cube, target.redshift) / FLUX_UNIT]
    for axes, image in zip(panels, images, strict=False):
        low, high = style.percentile_limits(image, 2.0, 99.7)
        mesh = draw_map(axes, cube, image, centre, cmap=style.colour_map(style.FLUX_MAP), vmin=low, vmax=high)
        _bar(figure, mesh, axes)
    if len(panels) > 2:
        velocity = np.full(cube.shape, np.nan) if entry.velocity is None else entry.velocity
        limit = style.symmetric_limit(velocity, 95.0)
        scale = {"cmap": style.colour_map(style.SIGNED_MAP), "vmin": -limit, "vmax": limit}
        _bar(figure, draw_map(panels[2], cube, velocity, centre, **scale), panels[2])
    for axes in panels:
        axes.set_xlim(HALF_ARCSEC, -HALF_ARCSEC)
        axes.set_ylim(-HALF_ARCSEC, HALF_ARCSEC)
        axes.set_xticks([])
        axes.set_yticks([])
    scale, wave = kpc_per_arcsec(target.redshift), LINES["Ha"] * (1 + target.redshift)
    mark_map(panels[0], cube, kpc_per_arcsec=scale, wave_um=wave, fontsize=5.0, others=panels[1:])
    panels[0].set_ylabel(f"{style.literal(target.name or target.source_id)}\nz = {target.redshift:g}", fontsize=7)


def _bar(figure: Figure, mesh, axes: Axes) -> None:
    """Draw a slim bar of numbers to the right of a small map; the heading of the column has the unit."""
    bar = figure.colorbar(mesh, cax=axes.inset_axes([1.02, 0.0, 0.05, 1.0]))
    bar.ax.tick_params(direction="in", length=1.5, labelsize=5.5)
    bar.ax.locator_params(nbins=4)


def _spectrum(axes: Axes, entry: Entry, radius_arcsec: float, *, last: bool) -> None:
    """Draw the neighbourhood of Ha in the frame of the galaxy."""
    wave, flux, error, _ = aperture(entry.cube, entry.target, radius_arcsec)
    rest = wave / (1 + entry.target.redshift)
    inside = (rest >= 0.645) & (rest <= 0.676)
    rest, flux = rest[inside], flux[inside]
    axes.step(rest, flux, where="mid", color=style.BLUE, linewidth=0.7)
    if error is not None:
        band = error[inside]
        axes.fill_between(rest, flux - band, flux + band, step="mid", color=style.SKY, alpha=0.6, linewidth=0)
    for name in ("[NII]6548", "Ha", "[NII]6583", "[SII]6716", "[SII]6731"):
        axes.axvline(LINES[name], color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
    axes.set_xlim(0.645, 0.676)
    axes.tick_params(labelsize=6, labelbottom=last)
    axes.yaxis.tick_right()
    axes.yaxis.set_ticks_position("both")
    axes.tick_params(labelleft=False, labelright=True)
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("flux density (\u00b5Jy)", fontsize=6.5)
    if last:
        axes.set_xlabel("wavelength in the frame of the galaxy (\u00b5m)", fontsize=6.5)
