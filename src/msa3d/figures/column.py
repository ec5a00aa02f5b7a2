"""Figure: how the dithers of one column become one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from matplotlib.figure import Figure

from msa3d.constants import LINES
from msa3d.cube import open_cube
from msa3d.dataset import Dataset
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.slit_stepping import target_of
from msa3d.layout import Layout


@style.house_style()
def plot(layout: Layout, dataset: Dataset, source_id: int | None = None, *, half_width_kms: float = 250.0) -> Figure:
    """Draw the profiles along the slit of the dithers of the middle column at Ha, and their median.

    Parameters
    ----------
    layout : Layout
        Where the products are.
    dataset : Dataset
        The observation.
    source_id : int, optional
        The source; the case study without it.
    half_width_kms : float
        Wavelengths averaged to each side of Ha.

    Returns
    -------
    matplotlib.figure.Figure
        Left: the stack, one row a dither; right: profiles and median.

    Raises
    ------
    ProductError
        If the stack or the cube is missing.
    """
    target = target_of(dataset, source_id)
    column = (dataset.pattern.columns + 1) // 2
    cube = open_cube(layout.cube_medians(target.source_id))
    stack = _read(layout.column_stack(target.source_id, column))
    median = _read(layout.column_median(target.source_id, column))
    line = LINES["Ha"] * (1 + target.redshift)
    inside = np.abs(cube.wave_um / line - 1.0) * 299792.458 <= half_width_kms
    if not inside.any():
        raise ProductError(f"{cube.name}: H-alpha at {line:.4f} um is not covered")
    planes = _mean(np.where(stack == 0, np.nan, stack)[..., inside])
    profile = _mean(median[..., inside])
    figure = style.new_figure(style.FULL_WIDTH, 2.9)
    left, right = figure.subplots(1, 2)
    low, high = style.percentile_limits(planes, 2.0, 99.5)
    shown = left.imshow(
        planes, aspect="auto", cmap=style.colour_map(style.INTENSITY_MAP), vmin=low, vmax=high,
        extent=(-0.5, planes.shape[1] - 0.5, 0.5, planes.shape[0] + 0.5),
    )  # fmt: skip
    left.set(xlabel="sub-pixel along the slit", ylabel="dither")
    left.set_yticks(range(1, planes.shape[0] + 1))
    left.set_title(f"a  Dithers of column {column} at H\u03b1")
    style.colour_bar(figure, shown, left, "surface brightness (MJy/sr)")
    right.plot(planes.T, color=style.SKY, linewidth=0.7, label=["dithers"] + ["_"] * (len(planes) - 1))
    right.plot(profile, color=style.BLACK, linewidth=1.4, label="median")
    # jwst's first and last rows of a slitlet hold little light and large errors.
    limits = style.percentile_limits(np.concatenate([planes.ravel(), profile]), 1.0, 99.5)
    margin = 0.1 * (limits[1] - limits[0])
    right.set_ylim(limits[0] - margin, limits[1] + margin)
    right.set(xlabel="sub-pixel along the slit", ylabel="surface brightness (MJy/sr)")
    right.set_title("b  Their profiles and the median")
    right.legend(loc="best")
    alt = (
        f"Left: {planes.shape[0]} dithers of column {column}, shifted along the slit by their offsets, at "
        "H-alpha. Right: their profiles along the slit, thin, and the median of them, thick."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


def _read(path: Path) -> np.ndarray:
    """First image of a file of the published builder, as float64."""
    if not path.is_file():
        raise ProductError(f"{path} is missing: run `msa3d cubebuild` first")
    with fits.open(path) as hdus:
        return np.asarray(next(h.data for h in hdus if h.is_image and h.data is not None), dtype=float)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    total = np.where(finite, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
