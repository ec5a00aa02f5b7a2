"""Cosmic rays in one calibrated slit: L.A.Cosmic with the pipeline's variances; flags, and no new values."""

from __future__ import annotations

import numpy as np

from msa3d.observation.sky import DO_NOT_USE
from msa3d.reduce.settings import CalCosmicRays
from msa3d.reduce.slit import JUMP_DET, CalSlit


def find_cosmic_rays(slit: CalSlit, settings: CalCosmicRays) -> np.ndarray:
    """Find hits in the image of a slit.

    The image is in MJy/sr, and so are the variances of photons and read noise, which astroscrappy takes as they
    are (``invar``: an input variance, smoothed by itself over 5 x 5 pixels so that a hit does not hide in its
    own photons). Gain 1 and read noise 0 are then the right ones: both are in the variance already. astroscrappy
    does not look at the three outermost rows and columns, which in the image of a slit hold no light.

    Parameters
    ----------
    slit : CalSlit
        Not changed.
    settings : CalCosmicRays
        Thresholds.

    Returns
    -------
    numpy.ndarray of bool, shape (ny, nx)
        True where hit; never where a pixel was not usable before.
    """
    import astroscrappy

    variance = slit.variances["VAR_POISSON"] + slit.variances["VAR_RNOISE"]
    good = slit.usable & np.isfinite(variance) & (variance > 0)
    if not good.any():
        return good
    hits, _ = astroscrappy.detect_cosmics(
        np.where(good, slit.data, 0.0).astype(np.float32),
        inmask=~good,
        invar=np.where(good, variance, np.median(variance[good])).astype(np.float32),
        sigclip=settings.sigclip,
        sigfrac=settings.sigfrac,
        objlim=settings.objlim,
        niter=settings.niter,
        gain=1.0,
        readnoise=0.0,
        satlevel=np.inf,
    )
    return hits & good


def flag_cosmic_rays(slit: CalSlit, settings: CalCosmicRays) -> tuple[np.ndarray, dict[str, object]]:
    """Flag hits JUMP_DET and DO_NOT_USE; values stay as they are.

    Parameters
    ----------
    slit : CalSlit
        Its flags are changed in place.
    settings : CalCosmicRays
        Thresholds.

    Returns
    -------
    hits : numpy.ndarray of bool, shape (ny, nx)
        The mask.
    statistics : dict
        ``examined`` and ``rejected`` pixels.
    """
    examined = int(np.count_nonzero(slit.usable))
    hits = find_cosmic_rays(slit, settings)
    slit.flag(hits, JUMP_DET | DO_NOT_USE)
    return hits, {"examined": examined, "rejected": int(np.count_nonzero(hits))}
