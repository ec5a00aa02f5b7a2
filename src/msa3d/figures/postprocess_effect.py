"""Figure: what post-processing changes in one spectrum."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from matplotlib.figure import Figure

from msa3d.cube.grid import read_spectrum
from msa3d.dataset import Dataset
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.sky import draw_spectrum
from msa3d.figures.slit_stepping import target_of
from msa3d.layout import POST_SUFFIX, Layout
from msa3d.provenance import is_simulated

REJECTED = "CRMASK"


@style.house_style()
def plot(layout: Layout, dataset: Dataset, source_id: int | None = None) -> Figure:
    """Draw the spectrum of the middle exposure before and after, what was replaced, and the path loss.

    Parameters
    ----------
    layout : Layout
        Where the products are.
    dataset : Dataset
        The observation.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels over wavelength, one under the other.

    Raises
    ------
    ProductError
        If one of the two spectra is missing.
    """
    target = target_of(dataset, source_id)
    activities = layout.activities()
    if not activities:
        raise ProductError(f"{layout.process} holds no exposure: run `msa3d process` first")
    activity = activities[len(activities) // 2]
    product = dataset.process.product
    before = read_spectrum(layout.s2d(activity, target.source_id, product=product))
    path = layout.s2d(activity, target.source_id, POST_SUFFIX, product)
    if not path.is_file():
        raise ProductError(f"{path} is missing: run `msa3d postprocess` first")
    with fits.open(path) as hdus:
        after = np.asarray(hdus["SCI"].data, dtype=float)
        rejected = hdus[REJECTED].data > 0 if REJECTED in hdus else np.zeros(after.shape, dtype=bool)
    first = np.where(before.data == 0, np.nan, before.data)
    second = np.where(after == 0, np.nan, after)
    figure = style.new_figure(style.FULL_WIDTH, 5.0)
    panels = figure.subplots(4, 1, sharex=True, height_ratios=[1, 1, 1, 1])
    low, high = style.percentile_limits(first, 2.0, 98.0)
    for axes, image, title in (
        (panels[0], first, "a  Rectified spectrum (s2d)"),
        (panels[1], second, "b  Cosmic rays replaced, divided by the path loss"),
    ):
        scale = {"cmap": style.colour_map(style.INTENSITY_MAP), "vmin": low, "vmax": high}
        shown = draw_spectrum(axes, before.wave_um, image, **scale)
        axes.set_title(title)
        axes.set_ylabel("row")
        style.colour_bar(figure, shown, axes, "MJy/sr", fraction=0.03)
    y, x = np.nonzero(rejected)
    panels[2].plot(before.wave_um[x], y, ".", color=style.VERMILION, markersize=1.0, rasterized=True)
    panels[2].set_ylim(-0.5, first.shape[0] - 0.5)
    panels[2].set_ylabel("row")
    panels[2].set_title(f"c  Pixels replaced: {rejected.sum()} of {rejected.size}")
    loss = _pathloss(first, second, rejected)
    panels[3].plot(before.wave_um, loss, color=style.BLUE)
    panels[3].set_ylabel("before / after")
    panels[3].set_title("d  Path loss divided out: light of a uniform field that passes")
    panels[3].set_xlabel("vacuum wavelength (\u00b5m)")
    panels[3].set_xlim(before.wave_um[0], before.wave_um[-1])
    alt = (
        f"Exposure {activity} of source {target.source_id}, wavelength to the right: the two-dimensional "
        f"spectrum before and after post-processing, the {rejected.sum()} pixels that were replaced, and the "
        f"path loss, {np.nanmin(loss):.2f} to {np.nanmax(loss):.2f}."
    )
    return style.finish(figure, simulated=is_simulated(before.primary), alt=alt)


def _pathloss(before: np.ndarray, after: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """Median over the rows of before / after where nothing was replaced, a value a wavelength."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(rejected, np.nan, before / after)
    result = np.full(ratio.shape[1], np.nan)
    some = np.isfinite(ratio).any(axis=0)
    result[some] = np.nanmedian(ratio[:, some], axis=0)
    return result
