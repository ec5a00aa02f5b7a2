"""Where on the detector no light falls: the slits that are open, traced by their WCS, and those that failed open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from msa3d.steps import speed

#: Rows of the fixed slits, which are always open; as in jwst.
FIXED_SLITS = slice(922, 1116)
#: Reference pixels at the left and at the right, which see no light; as in jwst.
REFERENCE_COLUMNS = (slice(0, 5), slice(-4, None))
#: Pixels added around the light of a slit: wings of the point spread function.
MARGIN = 3
#: Pixels that far above the median of the dark ones are outliers; as in jwst.
N_SIGMA = 5.0


def dark_pixels(rate: Path, metafile: Path, margin: int = MARGIN, store: Path | None = None) -> np.ndarray:
    """Say where on the detector no light falls through the MSA or the fixed slits.

    Parameters
    ----------
    rate : Path
        A count-rate image; only its headers matter.
    metafile : Path
        The MSA metafile.
    margin : int
        Pixels added around the light of each slit.
    store : Path, optional
        Directory where the masks of failed-open shutters are kept for other exposures.

    Returns
    -------
    ndarray of bool, shape (2048, 2048)
        True where it is dark, reference pixels included.
    """
    from jwst.assign_wcs import AssignWcsStep
    from jwst.assign_wcs.util import NoDataOnDetectorError
    from jwst.msaflagopen import MSAFlagOpenStep
    from stdatamodels.jwst import datamodels

    flag = datamodels.dqflags.pixel["MSA_FAILED_OPEN"]
    fast = speed.accelerated(("slit_wcs", "failed_open_mask"), store=store)
    with datamodels.open(rate) as model, fast:
        model.meta.instrument.msa_metadata_file = str(metafile)
        model.dq = np.zeros_like(model.dq)
        try:
            model = AssignWcsStep().run(model)
            lit = _traced(model, margin)
            lit |= (MSAFlagOpenStep().run(model).dq & flag) > 0
        except NoDataOnDetectorError:
            lit = np.zeros((2048, 2048), bool)
    lit[FIXED_SLITS] = True
    for columns in REFERENCE_COLUMNS:
        lit[:, columns] = False
    return ~lit


def _traced(model: Any, margin: int) -> np.ndarray:
    """Where the light of the open slits falls, as their WCS traces it."""
    from gwcs.wcstools import grid_from_bounding_box
    from jwst.assign_wcs.nirspec import nrs_wcs_set_input
    from scipy.ndimage import binary_dilation

    lit = np.zeros(model.data.shape, bool)
    for slit in model.meta.wcs.get_transform("slit_frame", "msa_frame").slits:
        wcs = nrs_wcs_set_input(model, slit.name)
        x, y = grid_from_bounding_box(wcs.bounding_box, step=(1, 1), center=True)
        inside = (x >= 0) & (x < lit.shape[1]) & (y >= 0) & (y < lit.shape[0])
        x, y = x[inside], y[inside]
        _, along, wave = wcs.get_transform("detector", "slit_frame")(x, y)
        # Half a shutter beyond the openings at either end is light of the wings.
        mine = (along > slit.ymin) & (along < slit.ymax) & np.isfinite(wave)
        lit[y[mine].astype(int), x[mine].astype(int)] = True
    return binary_dilation(lit, np.ones((2 * margin + 1, 2 * margin + 1), bool)) if margin else lit


def usable_pixels(image: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Leave out of the dark pixels those that are not finite, and outliers.

    Parameters
    ----------
    image : ndarray, shape (2048, 2048)
        Count rates.
    dark : ndarray of bool
        From `dark_pixels`.

    Returns
    -------
    ndarray of bool
    """
    from astropy.stats import sigma_clipped_stats

    good = dark & np.isfinite(image)
    _, median, sigma = sigma_clipped_stats(image, mask=~good, sigma=5.0)
    return good & (np.abs(np.where(good, image, median) - median) <= N_SIGMA * sigma)
