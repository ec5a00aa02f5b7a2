"""Images and spectra taken from a cube."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from msa3d.cube import Cube

MICROJANSKY_PER_MEGAJANSKY = 1e12


@dataclass(frozen=True)
class IntegratedSpectrum:
    """Spectrum of a circular aperture.

    Attributes
    ----------
    wave_um : ndarray, shape (n_wave,)
        Vacuum wavelength, um.
    brightness : ndarray, shape (n_wave,)
        Mean surface brightness of the aperture, MJy/sr; NaN where half of its spaxels or more have no value.
    flux_ujy : ndarray, shape (n_wave,)
        Flux density of the aperture, uJy; NaN as above.
    n_spaxels : int
        Spaxels whose centre lies in the aperture and that hold data.
    radius_arcsec : float
        Radius of the aperture.
    """

    wave_um: np.ndarray
    brightness: np.ndarray
    flux_ujy: np.ndarray
    n_spaxels: int
    radius_arcsec: float


def observed(cube: Cube) -> np.ndarray:
    """Tell which spaxels hold data.

    Parameters
    ----------
    cube : Cube
        The cube.

    Returns
    -------
    ndarray of bool, shape (n_y, n_x)
        True where at least half of the wavelengths are finite and not exactly zero (the published
        builder fills the places that no exposure saw with zeros).
    """
    with np.errstate(invalid="ignore"):
        return (np.isfinite(cube.data) & (cube.data != 0)).mean(axis=0) >= 0.5


def well_observed(cube: Cube, fraction: float = 0.9) -> np.ndarray:
    """Tell which spaxels were seen by enough of the exposures.

    The ends of the slitlets, which few exposures reach, are where flat field, path loss and the light of neighbouring
    shutters are known least.

    Parameters
    ----------
    cube : Cube
        The cube.
    fraction : float
        Least exposure time (or weight, where there is none), over the median of the spaxels with data.

    Returns
    -------
    ndarray of bool, shape (n_y, n_x)
        True for good spaxels; the same as `observed` for a cube without exposure times and weights.
    """
    seen = observed(cube)
    plane = cube.etime if cube.etime is not None else cube.wmap
    if plane is None or plane.ndim != 3:
        return seen
    depth = np.where(np.isfinite(cube.data), np.nan_to_num(plane), 0.0).mean(axis=0)
    return seen & (depth >= fraction * np.median(depth[seen])) if seen.any() else seen


def complete_radius(good: np.ndarray, radius_arcsec: np.ndarray) -> float:
    """Radius within which every spaxel is good.

    A slitlet ends at different radii along and across; beyond the first gap rings are not whole, and what the
    slitlet's end adds to an image pulls a profile.

    Parameters
    ----------
    good : ndarray of bool, shape (n_y, n_x)
        Spaxels that are good (`well_observed`).
    radius_arcsec : ndarray, shape (n_y, n_x)
        Radius of each in the plane of the disc.

    Returns
    -------
    float
        Arcsec; the radius of the nearest spaxel that is not good, or the greatest of all where all are.
    """
    bad = radius_arcsec[~good]
    return float(bad.min() if bad.size else radius_arcsec.max())


def collapsed_image(cube: Cube, range_um: tuple[float, float] | None = None, *, clip_sigma: float = 5.0) -> np.ndarray:
    """Mean image of a range of wavelengths, outliers left out.

    Parameters
    ----------
    cube : Cube
        The cube.
    range_um : tuple of float, optional
        First and last wavelength, um; all without it.
    clip_sigma : float
        Voxels further from the median of their spaxel than this many robust standard deviations do not count.

    Returns
    -------
    ndarray, shape (n_y, n_x)
        Mean surface brightness, MJy/sr; NaN in spaxels without data (see `observed`).

    Raises
    ------
    ValueError
        If no wavelength lies in the range.
    """
    data = cube.data
    if range_um is not None:
        inside = (cube.wave_um >= range_um[0]) & (cube.wave_um <= range_um[1])
        if not inside.any():
            raise ValueError(f"{cube.name} has no wavelength within {range_um[0]:g}-{range_um[1]:g} um")
        data = data[inside]
    with warnings.catch_warnings():
        # Spaxels without any value are meant to come out as NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmedian(data, axis=0)
        scatter = 1.4826 * np.nanmedian(np.abs(data - middle), axis=0)
        kept = np.where(np.abs(data - middle) <= clip_sigma * np.maximum(scatter, 1e-30), data, np.nan)
        image = np.nanmean(kept, axis=0)
    return np.where(observed(cube), image, np.nan)


def integrated_spectrum(cube: Cube, ra: float, dec: float, radius_arcsec: float) -> IntegratedSpectrum:
    """Sum the spaxels whose centre lies within a circle.

    Parameters
    ----------
    cube : Cube
        The cube.
    ra, dec : float
        Centre of the circle, ICRS, deg.
    radius_arcsec : float
        Its radius.

    Returns
    -------
    IntegratedSpectrum
        The sum: mean surface brightness of the finite spaxels times the solid angle of all of them.

    Raises
    ------
    ValueError
        If no spaxel with data lies in the circle.
    """
    east, north = cube.offsets(ra, dec)
    inside = (np.hypot(east, north) <= radius_arcsec) & observed(cube)
    if not inside.any():
        raise ValueError(f'{cube.name} has no data within {radius_arcsec:g}" of RA {ra:.5f} Dec {dec:.5f}')
    spectra = cube.data[:, inside]
    finite = np.isfinite(spectra)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(finite, spectra, 0.0).sum(axis=1) / finite.sum(axis=1)
    mean[finite.mean(axis=1) <= 0.5] = np.nan
    count = int(inside.sum())
    flux = mean * count * cube.pixel_sr * MICROJANSKY_PER_MEGAJANSKY
    return IntegratedSpectrum(cube.wave_um, mean, flux, count, radius_arcsec)


def centroid(image: np.ndarray, east: np.ndarray, north: np.ndarray) -> tuple[float, float]:
    """Brightness-weighted centre of an image above half of its peak.

    Parameters
    ----------
    image : ndarray, shape (n_y, n_x)
        Brightness; NaN is left out.
    east, north : ndarray, shape (n_y, n_x)
        Where the pixels are, arcsec.

    Returns
    -------
    tuple of float
        Offsets to the east and to the north, arcsec.

    Raises
    ------
    ValueError
        If nothing in the image is finite.
    """
    finite = np.isfinite(image)
    if not finite.any():
        raise ValueError("an image without any finite value has no centre")
    base = np.median(image[finite])
    excess = np.where(finite, image - base, 0.0)
    weight = np.where(excess >= 0.5 * excess.max(), excess, 0.0)
    if weight.sum() <= 0:
        weight = finite.astype(float)
    return float((weight * east).sum() / weight.sum()), float((weight * north).sum() / weight.sum())
