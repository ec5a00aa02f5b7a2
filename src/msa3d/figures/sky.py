"""Drawing a map of spaxels where they are on the sky: north up, east to the left."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from msa3d.science.cubefile import Cube

EAST_LABEL = "east of centre (arcsec)"
NORTH_LABEL = "north of centre (arcsec)"


def draw_map(axes: Axes, cube: Cube, image: np.ndarray, centre: tuple[float, float], **kwargs) -> QuadMesh:
    """Draw one value a spaxel, each spaxel with its true shape.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    cube : msa3d.science.cubefile.Cube
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


def label_sky(axes: Axes, *, east: bool = True, north: bool = True) -> None:
    """Name the axes of a map; those of inner panels can be left bare."""
    axes.set_xlabel(EAST_LABEL if east else "")
    axes.set_ylabel(NORTH_LABEL if north else "")
    axes.tick_params(labelbottom=east, labelleft=north)


def pixel_edges(centres: np.ndarray) -> np.ndarray:
    """Return the edges of pixels, halfway between their centres, shape (n + 1,)."""
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
