"""The effective point-spread function of a cube, and the noise of sums of correlated voxels.

A cube's own kernel (`Cube.psf`) holds what the slit, the detector and the drizzle do, and the core of the telescope's
image. A segmented mirror has wings as well: a tenth of the light of a point source lies beyond 0.15 arcsec, which
makes discs longer. They come in through the modulation transfer function of the pupil: the autocorrelation
of 18 hexagons, times the loss by wavefront errors of given rms that are correlated over a segment.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy import fft

from msa3d.cubes.overlap import polygon_areas
from msa3d.errors import ProductError
from msa3d.observation.sky import ARCSEC_PER_RADIAN, BLUR_PIXELS

if TYPE_CHECKING:
    from msa3d.cubes.cube import Cube


_TELESCOPE_M = 6.5
"""Diameter of the telescope (JWST), for the width of its image."""
_FWHM_IN_DIFFRACTION = 1.03
"""FWHM of the image over wavelength / diameter, of a filled circular pupil."""
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
_PLANES_AT_ONCE = 256


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
    size = [fft.next_fast_len(2 * n - 1, real=True) for n in part.shape[1:]]
    kernel = np.zeros(size)
    reach = [min(n - 1, m // 2) for n, m in zip(part.shape[1:], correlation.shape, strict=True)]
    lags = np.ix_(*(np.arange(-r, r + 1) for r in reach))
    kernel[lags] = correlation[tuple(lag + m // 2 for lag, m in zip(lags, correlation.shape, strict=True))]
    total = np.zeros(len(part))
    for first in range(0, len(part), _PLANES_AT_ONCE):
        some = slice(first, first + _PLANES_AT_ONCE)
        pairs = fft.irfft2(np.abs(fft.rfft2(part[some], s=size)) ** 2, s=size)
        total[some] = np.tensordot(pairs, kernel, axes=2)
    return np.maximum(total, 0.0)


def gaussian_psf(header: fits.Header, wcs: WCS, wave_um: float, name: str = "cube") -> np.ndarray:
    """Fold telescope, slit, detector pixel, drizzle footprint and spaxel.

    Light is first spread by the telescope (a Gaussian of the diffraction's width), then averaged over the
    slit's width, blurred along the slit by the spectrograph, averaged over a detector pixel along it (what the
    instrument measures), then drizzled over the footprint, and at last averaged over the spaxel.

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
    kernel = _gaussian(n, _FWHM_IN_DIFFRACTION * wave_um * 1e-6 / _TELESCOPE_M * ARCSEC_PER_RADIAN, scale / fine)
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


_SEGMENT_M, _PITCH_M, _SECONDARY_M, _STRUT_M = 1.32, 1.327, 0.74, 0.11
"""Flat-to-flat size and pitch of the segments, diameter of the secondary, width of its struts (JWST)."""

_WAVEFRONT_UM = 0.065
"""Wavefront error, rms: as in flight of the telescope with NIRCam (60-80 nm: JDox; Rigby et al. 2023, PASP 135,
048001). NIRSpec's own share, which comes on top, is left out, since no value of it was available."""

_SAMPLES, _STEP_M = 256, 0.06
_REACH_ARCSEC = 1.2
"""Half the size of the kernel with wings."""


@lru_cache(maxsize=1)
def _pupil_mtf() -> tuple[np.ndarray, np.ndarray]:
    """Azimuthal mean of the autocorrelation of the pupil by separation (m), 1 at 0."""
    axis = (np.arange(_SAMPLES) - _SAMPLES // 2) * _STEP_M
    x, y = np.meshgrid(axis, axis)
    clear = np.zeros(x.shape)
    steps = range(-2, 3)
    for q in steps:
        for r in steps:
            if (q, r) == (0, 0) or abs(q + r) > 2:
                continue
            dx, dy = np.abs(x - q * _PITCH_M * np.sqrt(0.75)), np.abs(y - (0.5 * q + r) * _PITCH_M)
            clear[np.maximum(dy, dx * np.sqrt(0.75) + dy / 2) <= _SEGMENT_M / 2] = 1.0
    clear[np.hypot(x, y) < _SECONDARY_M / 2] = 0.0
    for angle in np.radians([90.0, 240.0, 300.0]):
        on_strut = (x * np.cos(angle) + y * np.sin(angle) > 0) & (
            np.abs(y * np.cos(angle) - x * np.sin(angle)) < _STRUT_M / 2
        )
        clear[on_strut] = 0.0
    auto = np.fft.ifft2(np.abs(np.fft.fft2(clear, s=(2 * _SAMPLES, 2 * _SAMPLES))) ** 2).real
    u = np.fft.fftfreq(2 * _SAMPLES, 1.0 / (2 * _SAMPLES)) * _STEP_M
    separation = np.hypot(*np.meshgrid(u, u))
    index = np.rint(separation / _STEP_M).astype(int).ravel()
    mean = np.bincount(index, auto.ravel()) / np.maximum(np.bincount(index), 1)
    return np.arange(mean.size) * _STEP_M, mean / mean[0]


def telescope_mtf(frequency, wave_um: float) -> np.ndarray:
    """Modulation transfer function of the telescope at frequencies in cycles per arcsec; 1 at frequency 0."""
    separation = np.asarray(frequency) * ARCSEC_PER_RADIAN * wave_um * 1e-6
    at, value = _pupil_mtf()
    # Mean over realisations of the wavefront: exp(-phase variance (1 - correlation)) (Roddier 1981).
    correlation = np.clip(1.0 - separation / _SEGMENT_M, 0.0, None)
    return np.interp(separation, at, value) * np.exp(-((2 * np.pi * _WAVEFRONT_UM / wave_um) ** 2) * (1 - correlation))


def effective_psf(cube: Cube, wave_um: float, *, spaxel: bool = True) -> np.ndarray:
    """Point-spread function on a cube's spaxels, wings of the telescope included.

    Parameters
    ----------
    cube : Cube
        A cube of the drizzle builder, whose header knows slit and pixel.
    wave_um : float
        Wavelength, um.
    spaxel : bool
        Average over a spaxel; without it the kernel is for images that are means over spaxels already.

    Returns
    -------
    ndarray, odd shape (n, n)
        Kernel with sum 1.

    Raises
    ------
    msa3d.errors.ProductError
        As `Cube.psf`.
    """
    inner = cube.psf(wave_um)
    scale = float(np.sqrt(abs(np.linalg.det(cube.wcs.pixel_scale_matrix)))) * 3600.0
    half = max(int(np.ceil(_REACH_ARCSEC / scale)), inner.shape[0] // 2)
    # Twice the kernel in the transform: wings do not wrap around.
    n = 4 * half + 1
    padded = np.zeros((n, n))
    start = n // 2 - inner.shape[0] // 2
    padded[start : start + inner.shape[0], start : start + inner.shape[1]] = inner
    u = np.fft.fftfreq(n, scale)
    frequency = np.hypot(u[:, None], u[None, :])
    core = _FWHM_IN_DIFFRACTION * wave_um * 1e-6 / _TELESCOPE_M * ARCSEC_PER_RADIAN / FWHM_PER_SIGMA
    # The Gaussian core that the cube's kernel has is taken out: frequencies stop well before it is small.
    change = telescope_mtf(frequency, wave_um) / np.exp(-2.0 * (np.pi * core * frequency) ** 2)
    if not spaxel:
        change = change / np.sinc(u[:, None] * scale) / np.sinc(u[None, :] * scale)
    folded = np.fft.fftshift(np.fft.ifft2(np.fft.fft2(np.fft.ifftshift(padded)) * change).real)
    kernel = folded[half : 3 * half + 1, half : 3 * half + 1]
    return kernel / kernel.sum()
