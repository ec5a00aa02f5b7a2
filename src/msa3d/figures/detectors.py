"""Figure: the count-rate images of one exposure."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.layout import Layout, exposure_names, parse_rate_name
from msa3d.provenance import is_simulated
from msa3d.ratefile import spectra
from msa3d.science.validation import robust_scatter

BIN = (2, 16)
"""Rows and columns of a block."""


@style.house_style()
def plot(layout: Layout, activity: str) -> Figure:
    """Draw both detectors of an exposure, binned.

    Parameters
    ----------
    layout : Layout
        Where the rates are.
    activity : str
        The exposure.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a detector; wavelength increases to the right.

    Raises
    ------
    ProductError
        If there are no rates of this exposure.
    """
    names = exposure_names(path for path in spectra(layout.rates()) if parse_rate_name(path))
    paths = [path for path, name in names.items() if name == activity]
    if not paths:
        raise ProductError(f"{layout.root} holds no count rates of exposure {activity}")
    figure = style.new_figure(style.FULL_WIDTH, 3.7, "compressed")
    panels = figure.subplots(1, len(paths), sharey=True, squeeze=False)[0]
    images, simulated = [], False
    for path in paths:
        with fits.open(path) as hdus:
            images.append(_binned(np.asarray(hdus["SCI"].data, dtype=float)))
            simulated |= is_simulated(hdus[0].header)
    low, high = style.percentile_limits(np.concatenate([image.ravel() for image in images]), 5.0, 99.8)
    scatter = max(robust_scatter(np.concatenate([image.ravel() for image in images])), 1e-9)
    norm = Normalize(vmin=min(low, -2.0 * scatter), vmax=max(high, 2.0 * scatter))
    for axes, path, image in zip(panels, paths, images, strict=True):
        size = (-0.5, image.shape[1] * BIN[1] - 0.5, -0.5, image.shape[0] * BIN[0] - 0.5)
        shown = axes.imshow(image, extent=size, norm=norm, cmap=style.colour_map(style.INTENSITY_MAP))
        axes.set_title(parse_rate_name(path)["detector"].upper())
        axes.set_xlabel("column (pixel)")
    panels[0].set_ylabel("row (pixel)")
    style.colour_bar(figure, shown, list(panels), "count rate (DN/s)", fraction=0.03)
    detectors = " and ".join(parse_rate_name(path)["detector"].upper() for path in paths)
    alt = (
        f"Count-rate images of {detectors} of exposure {activity}: each slitlet is a nearly horizontal band "
        "in which wavelength increases to the right."
    )
    return style.finish(figure, simulated=simulated, alt=alt)


def _binned(image: np.ndarray) -> np.ndarray:
    """Median of blocks of pixels, so that single hot ones do not hide the spectra."""
    ny, nx = (size // step for size, step in zip(image.shape, BIN, strict=True))
    blocks = image[: ny * BIN[0], : nx * BIN[1]].reshape(ny, BIN[0], nx, BIN[1])
    return np.median(np.nan_to_num(blocks), axis=(1, 3))
