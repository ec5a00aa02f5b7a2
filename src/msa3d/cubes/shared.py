"""Noise that the pixels of a detector column share, measured in the data.

Read-out (1/f) noise shifts whole columns of a detector. The slit lies along a column, and so all voxels of a wavelength
that the same step of the slit saw go up and down together, however far apart along the slit. The overlaps of
pixels and voxels, from which the correlation of a drizzled cube follows (`msa3d.cubes.operator.mean_correlation`), know
nothing of it. What is shared is small, but all of it adds up in an aperture.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from astropy.wcs import WCS
from scipy import fft
from scipy.ndimage import binary_dilation, uniform_filter1d

SPECTRAL_LAGS = 4
"""Largest lag along wavelength at which shared noise is measured."""
_SMOOTH = 51
"""Bins over which the continuum is followed."""
_LEAST_KNOWN = 0.8
_LINE, _DEVIANT, _AROUND = 5, 4.0, 5
_STEP_ARCSEC = 0.05
_APART_ARCSEC = 0.35
"""Voxels nearer to each other along the slit share pixels as well."""
_LEAST_PAIRS = 2000
_LEAST_PLANES = 50


def blank_noise(data: np.ndarray, err: np.ndarray) -> np.ndarray:
    """Noise of a cube where it shows no line, in units of its errors.

    Lines are where the sum of all spaxels stands out: which lines there are need not be known.

    Parameters
    ----------
    data, err : ndarray, shape (n_wave, n_y, n_x)
        Values and errors, NaN where not known.

    Returns
    -------
    ndarray, shape (n_wave, n_y, n_x)
        Deviation from the running mean over 51 bins, over the error; NaN where not known, at wavelengths that are left
        out, and everywhere in a cube too short for such a mean.
    """
    if len(data) < 4 * _SMOOTH:
        return np.full(data.shape, np.nan)
    known = np.isfinite(data) & np.isfinite(err) & (np.nan_to_num(err) > 0)
    share = uniform_filter1d(known.astype(float), _SMOOTH, axis=0, mode="nearest")
    mean = uniform_filter1d(np.where(known, data, 0.0), _SMOOTH, axis=0, mode="nearest") / np.maximum(share, 1e-9)
    # At the ends of what a spaxel covers the mean is one-sided, and a continuum that is not level would be noise.
    good = known & (share >= _LEAST_KNOWN)
    unit = np.where(good, (data - mean) / np.where(known, err, 1.0), np.nan)
    number = np.isfinite(unit).sum(axis=(1, 2))
    total = np.nansum(unit, axis=(1, 2)) / np.sqrt(np.maximum(number, 1))
    lit = number > 0
    total = uniform_filter1d(np.where(lit, total, 0.0), _LINE, mode="constant")
    if lit.any():
        scatter = 1.4826 * np.median(np.abs(total[lit] - np.median(total[lit])))
        unit[binary_dilation(lit & (np.abs(total) > _DEVIANT * scatter), iterations=_AROUND)] = np.nan
    return unit


def _by_lag(unit: np.ndarray, lags: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the products of two voxels, and number of pairs, by lag (wave, y, x); zero lag in the middle."""
    known = np.isfinite(unit)
    size = [fft.next_fast_len(2 * n - 1, real=True) for n in unit.shape[1:]]
    products: list[np.ndarray] = []
    pairs: list[np.ndarray] = []
    values, there = (fft.rfft2(a, s=size) for a in (np.where(known, unit, 0.0), known.astype(float)))
    middle = [slice(s // 2 - n + 1, s // 2 + n) for s, n in zip(size, unit.shape[1:], strict=True)]
    for lag in lags:
        for plane, found in ((values, products), (there, pairs)):
            cross = np.einsum("nyx,nyx->yx", plane[: len(plane) - lag].conj(), plane[lag:])
            image = fft.fftshift(fft.irfft2(cross, s=size))[tuple(middle)]
            # Which of the two voxels has the longer wavelength does not matter.
            found.append(0.5 * (image + image[::-1, ::-1]))
    return np.array(products), np.array(pairs)


def add_shared(
    correlation: np.ndarray, unit: np.ndarray, wcs: WCS, slit_pa_deg: float, spectral_lags: int = SPECTRAL_LAGS
) -> np.ndarray:
    """Add to a correlation what voxels share along the slit beyond it.

    Between voxels that are farther apart along the slit than pixels reach, the mean product of their noise is measured,
    by their distance across the slit. Nearer to each other they share as much, on top of their common pixels.

    Parameters
    ----------
    correlation : ndarray, shape (2 Lw + 1, 2 Ly + 1, 2 Lx + 1)
        Correlation coefficient by lag that is known already.
    unit : ndarray, shape (n, n_y, n_x)
        Noise in units of its errors, as of `blank_noise`; NaN where not known.
    wcs : astropy.wcs.WCS
        Celestial axes of the spaxels.
    slit_pa_deg : float
        Position angle of the slit, deg east of north.
    spectral_lags : int
        Largest lag along the first axis at which it is measured; 0 for images that have no common axis.

    Returns
    -------
    ndarray, shape (2 Kw + 1, 2 n_y - 1, 2 n_x - 1)
        The correlation up to the largest lags there are, 1 at the centre; as given, if there is too little noise to
        measure in.
    """
    if np.isfinite(unit).any(axis=(1, 2)).sum() < _LEAST_PLANES:
        return correlation
    reach = max(spectral_lags, correlation.shape[0] // 2)
    products, pairs = _by_lag(unit, range(spectral_lags + 1))
    middle = unit.shape[1] - 1, unit.shape[2] - 1
    variance = products[(0, *middle)] / max(pairs[(0, *middle)], 1.0)
    y, x = np.meshgrid(*(np.arange(1 - n, n) for n in unit.shape[1:]), indexing="ij")
    east, north = np.tensordot(wcs.pixel_scale_matrix * 3600.0, np.stack([x, y]), axes=1)
    angle = np.radians(slit_pa_deg)
    along = np.abs(east * np.sin(angle) + north * np.cos(angle))
    across = np.abs(east * np.cos(angle) - north * np.sin(angle))
    full = _enlarged(correlation, (reach, *middle))
    far = (along > _APART_ARCSEC) & (pairs[0] > 0.5)
    nearest = np.rint(across / _STEP_ARCSEC).astype(int)
    most = int(nearest.max()) + 1
    count = np.bincount(nearest[far], pairs[0][far], most)
    if not (count[0] >= _LEAST_PAIRS and variance > 0):
        return correlation
    shared = np.zeros((spectral_lags + 1, most))
    for lag in range(spectral_lags + 1):
        measured = np.bincount(nearest[far], products[lag][far], most) / np.maximum(count, 1.0) / variance
        given = np.bincount(nearest[far], (pairs[lag] * full[reach + lag])[far], most) / np.maximum(count, 1.0)
        if lag == 0:
            part = float(np.clip((measured[0] - given[0]) / (1.0 - given[0]), 0.0, 0.9))
        shared[lag] = _outwards(measured - (1.0 - part) * given, count)
    if part == 0.0:
        return correlation
    full = (1.0 - part) * full
    for lag in range(-spectral_lags, spectral_lags + 1):
        full[reach + lag] += shared[abs(lag)][nearest]
    full /= full[(reach, *middle)]
    return full


def _outwards(shared: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Up to the distance at which nothing is shared any more: farther away there is the noise of the measurement."""
    with np.errstate(invalid="ignore"):
        none = np.flatnonzero((np.abs(shared) <= 0.1 * np.abs(shared[0])) | (count < _LEAST_PAIRS))
    kept = shared.copy()
    kept[none[0] if none.size else shared.size :] = 0.0
    return kept


def _enlarged(correlation: np.ndarray, reach: tuple[int, int, int]) -> np.ndarray:
    """The same with room for lags up to `reach`."""
    full = np.zeros(tuple(2 * r + 1 for r in reach))
    own = [min(size // 2, r) for size, r in zip(correlation.shape, reach, strict=True)]
    into = tuple(slice(r - o, r + o + 1) for r, o in zip(reach, own, strict=True))
    of = tuple(slice(size // 2 - o, size // 2 + o + 1) for size, o in zip(correlation.shape, own, strict=True))
    full[into] = correlation[of]
    return full
