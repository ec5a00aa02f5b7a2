"""Rate files on disk: compressed as their noise allows, marked, and written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.io.fits.hdu.compressed import NO_DITHER, SUBTRACTIVE_DITHER_1

from msa3d.provenance import atomic_path
from msa3d.simulate.noise import RatePlanes

STEPS_PER_SIGMA = 20
"""Quantisation of SCI: a step of sigma/20 adds 0.015 sigma rms."""
RELATIVE_STEP = 1e-3
"""Quantisation of the noiseless planes (ERR, VAR_*), of their median."""
TILE = (128, 2048)
"""Few large tiles: a tile a row, the default, takes five times as long to write and to read."""
EXTRAS = {"ERR": "err", "VAR_POISSON": "var_poisson", "VAR_RNOISE": "var_rnoise"}


def write_rate(path: Path, planes: RatePlanes, primary: fits.Header, science: fits.Header, *, exact: bool) -> None:
    """Write a rate image.

    Parameters
    ----------
    path : `pathlib.Path`
        Final name; appears only when the file is whole.
    planes : RatePlanes
        What to write.
    primary, science : `astropy.io.fits.Header`
        Of the primary and the SCI extension.
    exact : bool
        Lossless instead of quantised: for noiseless images, whose structure is finer than any noise.
    """
    sigma = float(np.median(planes.err))
    hdus = [fits.PrimaryHDU(header=primary)]
    hdus.append(_compressed(planes.sci, science, None if exact else sigma / STEPS_PER_SIGMA, dither=True))
    for name, attribute in EXTRAS.items():
        plane = getattr(planes, attribute)
        step = None if exact else float(np.median(plane)) * RELATIVE_STEP
        hdus.append(_compressed(plane, fits.Header({"EXTNAME": name}), step))
    dq = fits.CompImageHDU(planes.dq, header=fits.Header({"EXTNAME": "DQ"}), compression_type="RICE_1", tile_shape=TILE)
    hdus.insert(3, dq)
    with atomic_path(path) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True)


def _compressed(
    plane: np.ndarray, header: fits.Header, step: float | None, *, dither: bool = False
) -> fits.CompImageHDU:
    """A tile-compressed plane; a fixed dither seed keeps the file the same from run to run."""
    if step is None:
        return fits.CompImageHDU(plane, header=header, compression_type="GZIP_2", quantize_level=0.0, tile_shape=TILE)
    # A negative level is the step itself, not a fraction of what the library takes for the noise. Only a noisy
    # plane is dithered: a constant one would no longer compress.
    return fits.CompImageHDU(
        plane,
        header=header,
        compression_type="RICE_1",
        quantize_level=-step,
        quantize_method=SUBTRACTIVE_DITHER_1 if dither else NO_DITHER,
        dither_seed=1,
        tile_shape=TILE,
    )
