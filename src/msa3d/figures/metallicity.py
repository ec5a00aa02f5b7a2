"""Figure: map and radial gradient of the gas-phase metallicity."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from msa3d.cube import Cube
from msa3d.dataset import Dataset
from msa3d.figures import radial, style
from msa3d.figures.radial import Points, Quantity
from msa3d.science.gradient import Gradient

QUANTITY = Quantity("metallicity", "12 + log(O/H) (dex)", "dex/kpc", style.METALLICITY_MAP)


def plot(
    dataset: Dataset, cube: Cube, image: np.ndarray, points: Points, gradient: Gradient | None, **kwargs
) -> Figure:
    """Draw map and gradient.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    cube : Cube
        Whose spaxels the map has.
    image : ndarray, shape (n_y, n_x)
        12 + log(O/H); NaN where it is not known.
    points : Points
        The same in rings.
    gradient : Gradient or None
        The fit, dex/kpc.
    **kwargs
        Passed on to `radial.plot`: ``injected``, ``published``, ``source_id``.

    Returns
    -------
    matplotlib.figure.Figure
        Map to the left, gradient to the right.
    """
    return radial.plot(QUANTITY, dataset, cube, image, points, gradient, **kwargs)
