"""Drawing a map of spaxels where they are on the sky: north up, east to the left."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from msa3d.science.cubefile import Cube

EAST_LABEL = "east of centre (arcsec)"
NORTH_LABEL = "north of centre (arcsec)"
KPC_BAR_ARCSEC = 0.5


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


def parse_region(text: str) -> np.ndarray:
    """Read the polygon of a JWST ``S_REGION`` keyword.

    Parameters
    ----------
    text : str
        For example ``POLYGON ICRS  215.1 52.9 215.2 52.9 ...``.

    Returns
    -------
    ndarray, shape (n, 2)
        Right ascension and declination of the corners, deg.

    Raises
    ------
    ValueError
        If it is no polygon.
    """
    numbers = re.findall(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", text)
    if not text.upper().startswith("POLYGON") or len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"not a polygon on the sky: {text!r}")
    return np.array(numbers, dtype=float).reshape(-1, 2)
