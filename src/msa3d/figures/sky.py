"""Drawing a map of spaxels where they are on the sky: north up, east to the left."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

from msa3d.cube import Cube

EAST_LABEL = "east (arcsec)"
NORTH_LABEL = "north (arcsec)"


def draw_map(axes: Axes, cube: Cube, image: np.ndarray, centre: tuple[float, float], **kwargs) -> QuadMesh:
    """Draw one value a spaxel, each spaxel with its true shape.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    cube : msa3d.cube.Cube
        Whose spaxels they are.
    image : ndarray, shape (n_y, n_x)
        The values; NaN is left out.
    centre : tuple of float
        ICRS place of the origin, deg.
    **kwargs
        Passed on to `matplotlib.axes.Axes.pcolormesh`: ``cmap``, ``vmin``, ``vmax``.

    Returns
    -------
    matplotlib.collections.QuadMesh
        What a colour bar needs.
    """
    east, north = cube.offsets(*centre, corners=True)
    mesh = axes.pcolormesh(east, north, image, shading="flat", rasterized=True, **kwargs)
    axes.set_aspect("equal")
    pad = 0.1
    axes.set_xlim(np.nanmax(east) + pad, np.nanmin(east) - pad)
    axes.set_ylim(np.nanmin(north) - pad, np.nanmax(north) + pad)
    axes.set_facecolor("white")
    return mesh


def map_height(cube: Cube, centre: tuple[float, float], panel_width: float, *, least: float, most: float) -> float:
    """Return how high a panel of a given width must be for a map, within limits; inch."""
    east, north = cube.offsets(*centre, corners=True)
    return float(np.clip(panel_width * np.ptp(north) / np.ptp(east), least, most))


def map_bar(figure: Figure, mesh: ScalarMappable, axes: Axes, label: str, extend: str = "neither") -> Colorbar:
    """Draw a colour bar as high as the map beside it, whatever the map's shape.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    mesh : matplotlib.cm.ScalarMappable
        What the bar explains.
    axes : matplotlib.axes.Axes
        The map's panel.
    label : str
        Quantity with its unit in brackets.
    extend : str
        Ends at which the bar is pointed, as values lie beyond: ``neither``, ``min``, ``max`` or ``both``.

    Returns
    -------
    matplotlib.colorbar.Colorbar
        The bar.
    """
    high, wide = np.ptp(axes.get_ylim()), np.ptp(axes.get_xlim())
    bar = figure.colorbar(mesh, cax=axes.inset_axes([1.04, 0.0, 0.05 * max(1.0, high / wide), 1.0]), extend=extend)
    bar.set_label(label)
    bar.ax.tick_params(direction="in", length=2)
    return bar


def draw_spectrum(axes: Axes, wave_um: np.ndarray, image: np.ndarray, **kwargs) -> QuadMesh:
    """Draw a 2-D spectrum over its wavelengths, with the gap between the detectors left blank.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    wave_um : ndarray, shape (n_wave,)
        Wavelengths of the columns, um, increasing.
    image : ndarray, shape (n_rows, n_wave)
        The spectrum; NaN is left blank.
    **kwargs
        Passed on to `matplotlib.axes.Axes.pcolormesh`.

    Returns
    -------
    matplotlib.collections.QuadMesh
        What a colour bar needs.
    """
    steps = np.diff(wave_um)
    step = np.median(steps)
    before_gap = np.flatnonzero(steps > 3.0 * step)
    # A column of NaN from just behind the last pixel to just before the next one.
    wave = np.insert(wave_um, before_gap + 1, wave_um[before_gap] + step)
    filled = np.insert(image.astype(float), before_gap + 1, np.nan, axis=1)
    for number, index in enumerate(before_gap):
        wave = np.insert(wave, index + 2 + 2 * number, wave_um[index + 1] - step)
        filled = np.insert(filled, index + 2 + 2 * number, np.nan, axis=1)
    rows = np.arange(image.shape[0] + 1) - 0.5
    return axes.pcolormesh(pixel_edges(wave), rows, filled, rasterized=True, **kwargs)


def label_sky(axes: Axes, *, east: bool = True, north: bool = True) -> None:
    """Name the axes of a map; those of inner panels can be left bare."""
    axes.set_xlabel(EAST_LABEL if east else "")
    axes.set_ylabel(NORTH_LABEL if north else "")
    axes.tick_params(labelbottom=east, labelleft=north)


def pixel_edges(centres: np.ndarray) -> np.ndarray:
    """Return the edges of pixels, halfway between their centres, shape (n + 1,)."""
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
