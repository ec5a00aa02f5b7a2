"""A rectified 2-D spectrum (a jwst ``s2d`` file): its values, its wavelengths, where on the sky it lies.

Pixel coordinates are those of jwst: ``x`` runs along the dispersion, ``y`` along the slit, both from 0 at
the centre of the first pixel; arrays are ``[y, x]``. Sky positions are ICRS degrees. Wavelengths are
vacuum micrometres and always come from the WCS in the file's ASDF extension: the wavelength axis of an
``s2d`` jumps over the gap between the detectors, which the linear keywords of its header do not know.

What is taken from it is described in `msa3d.reduce.geometry`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from msa3d.observation.reading import readable
from msa3d.reduce.geometry import RectifiedGeometry, rectified_geometry


@dataclass(frozen=True, eq=False)
class SlitSpectrum:
    """One exposure's rectified 2-D spectrum of one source (a jwst ``s2d`` file).

    Attributes
    ----------
    path : pathlib.Path
        The file it was read from.
    data : numpy.ndarray, shape (ny, nx)
        SCI plane in float64, MJy/sr; zero or NaN where jwst had no data (1.14.0 writes zeros).
    geometry : RectifiedGeometry
        Its wavelengths and where on the sky it lies.
    primary, sci : astropy.io.fits.Header
        Headers of the primary and the SCI unit.
    weight : numpy.ndarray or None, shape (ny, nx)
        Inverse variance of the read noise, (MJy/sr)^-2; 0 where there are no data. None where it was not asked for.
    """

    path: Path
    data: np.ndarray
    geometry: RectifiedGeometry
    primary: fits.Header
    sci: fits.Header
    weight: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows along the slit, columns along the dispersion."""
        return self.data.shape

    @property
    def wave_um(self) -> np.ndarray:
        """Wavelength of each column, um."""
        return self.geometry.wave_um


def read_spectrum(path: str | Path, *, weights: bool = False) -> SlitSpectrum:
    """Read an ``s2d`` file (as jwst or :mod:`msa3d.published.spectra` wrote it).

    Parameters
    ----------
    path : str or pathlib.Path
        File with a 2-D SCI plane and a gwcs in its ASDF extension.
    weights : bool
        Whether to read the variance of the read noise as well.

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, truncated, without a WCS, or its wavelengths do not increase.
    """
    path = Path(path)
    with readable(path), fits.open(path, memmap=False) as hdus:
        data = np.array(hdus["SCI"].data, dtype=np.float64)
        primary, sci = hdus[0].header.copy(), hdus["SCI"].header.copy()
        geometry = rectified_geometry(hdus, path)
        weight = inverse(hdus["VAR_RNOISE"].data) if weights else None
    return SlitSpectrum(path, data, geometry, primary, sci, weight)


def inverse(variance: np.ndarray) -> np.ndarray:
    """Inverse of a variance; 0 where it is not positive or not finite."""
    variance = np.array(variance, dtype=np.float64)
    known = np.isfinite(variance) & (variance > 0)
    return np.divide(1.0, variance, out=np.zeros_like(variance), where=known)
