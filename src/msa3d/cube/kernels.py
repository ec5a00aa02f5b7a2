"""Kernels that go with a cube: the noise of sums of correlated voxels, and the effective point spread."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import correlate

from msa3d.cube.overlap import polygon_areas
from msa3d.cube.sky import ARCSEC_PER_RADIAN
from msa3d.errors import ProductError

TELESCOPE_M = 6.5
"""Diameter of the telescope (JWST), for the width of its image."""
FWHM_IN_DIFFRACTION = 1.03
"""FWHM of the image over wavelength / diameter, of a filled circular pupil."""
BLUR_PIXELS = 0.4
"""Sigma of the spectrograph's own blur along the slit, in detector pixels: assumed, as it is not published."""
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


def quadratic_form(weighted: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Variance of a sum of correlated numbers, plane by plane.

    Parameters
    ----------
    weighted : numpy.ndarray, shape (n, n_y, n_x)
        Standard deviation times weight of each term; zero for those that take no part.
    correlation : numpy.ndarray, shape (2 Ly + 1, 2 Lx + 1)
        Correlation coefficient of two terms by their lag.

    Returns
    -------
    numpy.ndarray, shape (n,)
        ``sum_ij s_i s_j rho(j - i)`` of each plane.
    """
    used = np.flatnonzero(weighted.any(axis=(0, 2))), np.flatnonzero(weighted.any(axis=(0, 1)))
    if not used[0].size:
        return np.zeros(weighted.shape[0])
    part = weighted[:, used[0][0] : used[0][-1] + 1, used[1][0] : used[1][-1] + 1]
    neighbours = correlate(part, correlation[None], mode="constant")
    return np.maximum(np.sum(part * neighbours, axis=(1, 2)), 0.0)


def effective_psf(header: fits.Header, wcs: WCS, wave_um: float, name: str = "cube") -> np.ndarray:
    """Fold telescope, slit, detector pixel, drizzle footprint and spaxel.

    Light is first spread by the telescope (a Gaussian of the diffraction's width), then averaged over the
    slit's width, blurred along the slit by the spectrograph, averaged over a detector pixel along it (what the
    instrument measures), then laid down over the footprint, and at last averaged over the spaxel.

    Parameters
    ----------
    header : astropy.io.fits.Header
        SCI header of a drizzled cube: SLITWID and SLITLEN (arcsec across and along, of slit and pixel),
        SLITFRAC and PIXFRAC (of them, what the footprint covers), SLITPA (deg, east of north, of +y along
        the slit).
    wcs : astropy.wcs.WCS
        Celestial axes of the cube.
    wave_um : float
        Wavelength, um.
    name : str
        For the error.

    Returns
    -------
    numpy.ndarray, odd shape (n, n)
        Sum 1.

    Raises
    ------
    msa3d.errors.ProductError
        If a keyword is missing.
    """
    missing = [key for key in ("SLITWID", "SLITLEN", "SLITPA", "SLITFRAC", "PIXFRAC") if key not in header]
    if missing:
        raise ProductError(f"{name}: no keyword {', '.join(missing)} in SCI: only drizzled cubes say their PSF")
    matrix = wcs.pixel_scale_matrix * 3600.0
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    angle = np.radians(header["SLITPA"])
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]])
    sizes = (header["SLITWID"], header["SLITLEN"])
    fractions = (header["SLITFRAC"], header["PIXFRAC"])
    half = int(np.ceil((sum(sizes) * 1.2 + 0.2) / scale))
    fine = 5
    n = 2 * half * fine + fine  # The whole kernel, in fine pixels: odd, with the centre on a fine pixel.
    inverse = np.linalg.inv(matrix) * fine
    kernel = _gaussian(n, FWHM_IN_DIFFRACTION * wave_um * 1e-6 / TELESCOPE_M * ARCSEC_PER_RADIAN, scale / fine)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    spectrum = np.fft.rfft2(np.fft.ifftshift(kernel))
    boxes = [
        corners[:, :1] * across * w + corners[:, 1:] * along * h for w, h in (sizes, np.multiply(sizes, fractions))
    ]
    shapes = [box @ inverse.T for box in boxes] + [corners * fine]
    spectrum *= _blur(n, inverse @ along * header["SLITLEN"] * BLUR_PIXELS)
    for shape in shapes:
        box = polygon_areas(shape + (n - 1) / 2, n)
        spectrum *= np.fft.rfft2(np.fft.ifftshift(box / box.sum()))
    folded = np.fft.fftshift(np.fft.irfft2(spectrum, s=(n, n)))
    # The spaxel was folded in: the kernel is what is met at the middle of each.
    kernel = folded[fine // 2 :: fine, fine // 2 :: fine]
    return kernel / kernel.sum()


def _blur(n: int, sigma: np.ndarray) -> np.ndarray:
    """Fourier transform of a Gaussian in one direction; `sigma` is the vector (x, y), pixels."""
    x, y = np.fft.rfftfreq(n)[None, :], np.fft.fftfreq(n)[:, None]
    return np.exp(-2.0 * (np.pi * (x * sigma[0] + y * sigma[1])) ** 2)


def _gaussian(n: int, fwhm_arcsec: float, scale_arcsec: float) -> np.ndarray:
    """Gaussian in the middle of an odd square."""
    offset = (np.arange(n) - n // 2) * scale_arcsec
    profile = np.exp(-0.5 * (offset * FWHM_PER_SIGMA / fwhm_arcsec) ** 2)
    return np.outer(profile, profile)
