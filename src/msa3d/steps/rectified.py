"""What post-processing does to the image of a rectified 2-D spectrum: cosmic rays, and the shadow of the bars.

The published algorithm is the default; each of its weaknesses has a switch (`msa3d.settings_paper`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from msa3d.cube.slitgeometry import PITCH_IN_OPENINGS, open_ranges
from msa3d.settings_paper import PaperPostprocess
from msa3d.steps.pathloss import PathlossVector, matching

if TYPE_CHECKING:
    from msa3d.cube.grid import SlitGeometry
    from msa3d.dataset import CosmicRays
    from msa3d.steps.calcorrections import BarShadows

PUBLISHED = PaperPostprocess()

LEAST_TRANSMISSION = 0.2
"""Darker pixels are left as they are: dividing by less makes noise."""


def corrected(
    hdus: fits.HDUList,
    geometry: SlitGeometry,
    cosmic_rays: CosmicRays,
    switches: PaperPostprocess = PUBLISHED,
    *,
    vector: PathlossVector | None = None,
    bars: BarShadows | None = None,
    name: Path | str = "",
) -> tuple[np.ndarray, np.ndarray, int]:
    """Correct the image of a 2-D spectrum for cosmic rays, path loss and, if wanted, the shadow of the bars.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList
        The open file, which is not changed.
    geometry : SlitGeometry
        What its WCS says.
    cosmic_rays : CosmicRays
        Parameters of the rejection.
    switches : PaperPostprocess
        Which of the published weaknesses to keep: all of them by default.
    vector : PathlossVector, optional
        Path loss to divide by; none without it.
    bars : BarShadows, optional
        Bar shadow to divide by; none without it.
    name : path
        What a warning calls the file.

    Returns
    -------
    cleaned : numpy.ndarray of float64, shape (ny, nx)
        The image.
    mask : numpy.ndarray of bool, shape (ny, nx)
        True where a cosmic ray was replaced.
    examined : int
        Pixels that were looked at for cosmic rays.
    """
    data = np.array(hdus["SCI"].data, dtype=np.float32)
    variance = None
    if not switches.default_noise:
        variance = np.array(hdus["VAR_POISSON"].data) + np.array(hdus["VAR_RNOISE"].data)
    cleaned, mask, examined = reject_cosmic_rays(data, cosmic_rays, switches, variance)
    if vector is not None:
        cleaned = cleaned / matching(vector, name, geometry.wave_um, own=not switches.one_pathloss)
    if bars is not None:
        cleaned = cleaned / bar_transmission(bars, geometry, data.shape[0], hdus["SCI"].header["SHUTSTA"])
    return cleaned, mask, examined


def reject_cosmic_rays(
    data: np.ndarray,
    settings: CosmicRays,
    switches: PaperPostprocess = PUBLISHED,
    variance: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """L.A.Cosmic (van Dokkum 2001) in blocks of wavelengths, as published.

    The image is transposed to [wave, y]. Blocks begin at wavelength 0 and follow each other while the end of
    the block is below the last whole multiple of the block's length: the last whole block, and what is left
    after it, stay as they are. Each block is replaced by astroscrappy's cleaned array.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        Image; NaN stays NaN.
    settings : CosmicRays
        Method, sigclip, sigfrac, niter, block; astroscrappy's other arguments are at their defaults.
    switches : PaperPostprocess
        Which of the published weaknesses to keep: all of them by default.
    variance : numpy.ndarray, shape (ny, nx), optional
        Of photons and read noise, (MJy/sr)^2; needed where ``default_noise`` is off.

    Returns
    -------
    cleaned : numpy.ndarray of float64, shape (ny, nx)
        The image.
    mask : numpy.ndarray of bool, shape (ny, nx)
        True where a pixel was rejected.
    examined : int
        Pixels that lie in a block.
    """
    import astroscrappy

    image = data.T
    cleaned = image.astype(np.float64)
    mask = np.zeros(image.shape, dtype=bool)
    if settings.method == "none":
        return cleaned.T, mask.T, 0
    whole = image.shape[0] // settings.block * settings.block
    ends = list(range(settings.block, whole, settings.block))
    if not switches.skip_last_blocks:
        # The rest goes with the last whole block: alone it may be too narrow to say what is normal.
        ends = [*ends, image.shape[0]] if image.shape[0] else []
    start = 0
    for end in ends:
        block = slice(start, end)
        options = {"sigclip": settings.sigclip, "sigfrac": settings.sigfrac, "niter": settings.niter}
        if not switches.default_noise:
            options = {"niter": settings.niter, **_known_noise(image[block], variance.T[block])}
        mask[block], cleaned[block] = astroscrappy.detect_cosmics(np.ascontiguousarray(image[block]), **options)
        start = end
    return cleaned.T, mask.T, start * image.shape[1]


def _known_noise(image: np.ndarray, variance: np.ndarray) -> dict[str, object]:
    """Arguments of astroscrappy for an image whose variance is known; pixels without one are masked."""
    good = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    typical = float(np.median(variance[good])) if good.any() else 1.0
    known = np.ascontiguousarray(np.where(good, variance, typical), dtype=np.float32)
    mask = np.ascontiguousarray(~good)
    return {"inmask": mask, "invar": known, "gain": 1.0, "readnoise": 0.0, "satlevel": np.inf}


def bar_transmission(bars: BarShadows, geometry: SlitGeometry, n_rows: int, state: str) -> np.ndarray:
    """Shadow of the bars on a rectified 2-D spectrum.

    Parameters
    ----------
    bars : BarShadows
        The CRDS reference.
    geometry : SlitGeometry
        Gives the places of the rows in the slitlet, and the wavelengths.
    n_rows : int
        Rows of the spectrum.
    state : str
        SHUTSTA: a letter a shutter.

    Returns
    -------
    numpy.ndarray, shape (n_rows, nx)
        Fraction of uniform light that passes; 1 outside the open slitlet, and where less than `LEAST_TRANSMISSION`
        passes.
    """
    along = np.linspace(*geometry.along, n_rows)
    first, last = open_ranges(state)[0][0], open_ranges(state)[-1][1]
    inside = (along >= first) & (along <= last)
    middle = ((len(state.strip()) - 1) / 2 - state.strip().index("x")) * PITCH_IN_OPENINGS
    where = np.broadcast_arrays((along - middle)[:, None], geometry.wave_um[None, :])
    at = bars.transmission(state.strip(), *where)
    return np.where(inside[:, None] & (at >= LEAST_TRANSMISSION), at, 1.0)
