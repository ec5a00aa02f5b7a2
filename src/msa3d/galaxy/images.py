"""Images and spectra taken from a cube."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube
from msa3d.galaxy.lines import to_line_flux
from msa3d.observation.sky import ARCSEC_PER_RADIAN

HALF_KMS = 350.0
"""Half width of the window that a line's flux is summed over."""

SIDES_KMS = ((-1900.0, -1000.0), (1250.0, 2150.0))
"""Where the continuum below a line is taken from: between H-alpha and [N II] and beyond."""
_SUB_ARCSEC = 0.01


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


def line_image(cube: Cube, line_um: float) -> np.ndarray:
    """Flux of a line in every spaxel: the sum over a window, less a straight continuum from both sides.

    Nothing is fitted that could go astray in noise, and what it gives is linear in the data.

    Parameters
    ----------
    cube : Cube
        The cube.
    line_um : float
        Wavelength of the line as observed, um.

    Returns
    -------
    numpy.ndarray, shape (n_y, n_x)
        In erg s-1 cm-2 arcsec-2; NaN where more than a fifth of the window, or half of a side, is unknown.

    Raises
    ------
    ValueError
        If the cube's wavelengths do not reach around the line.
    """
    velocity = C_KMS * (cube.wave_um / line_um - 1.0)
    window = np.abs(velocity) <= HALF_KMS
    sides = [(velocity >= low) & (velocity <= high) for low, high in SIDES_KMS]
    if not (window.sum() > 3 and all(side.sum() > 3 for side in sides)):
        raise ValueError(f"{cube.name} does not reach around {line_um:.4f} um")
    side = sides[0] | sides[1]
    values, at = cube.data[side], velocity[side, None, None] / 1000.0
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    count, first, second = (np.sum(known * at**power, axis=0) for power in (0, 1, 2))
    total, moment = filled.sum(axis=0), (filled * at).sum(axis=0)
    enough = np.isfinite(cube.data[window]).mean(axis=0) >= 0.8
    for one in sides:
        enough &= np.isfinite(cube.data[one]).mean(axis=0) >= 0.5
    determinant = np.where(enough, count * second - first**2, 1.0)
    level = (second * total - first * moment) / determinant
    slope = (count * moment - first * total) / determinant
    line = cube.data[window] - level - slope * velocity[window, None, None] / 1000.0
    there = np.isfinite(line)
    mean = np.where(there, line, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    steps = np.gradient(cube.wave_um)[window]
    return np.where(enough, to_line_flux(mean * steps.sum(), line_um), np.nan)


def blank_lines(redshift: float, line: str = "Ha", reach_kms: float = 12000.0) -> np.ndarray:
    """Wavelengths around a line, um, at which `line_image` sees neither lines nor itself twice."""
    centre = LINES[line] * (1.0 + redshift)
    lines = np.array([rest * (1.0 + redshift) for rest in LINES.values()])
    found = []
    for velocity in np.arange(-reach_kms, reach_kms + 1.0, 2.0 * HALF_KMS):
        at = centre * (1.0 + velocity / C_KMS)
        away = C_KMS * (lines / at - 1.0)
        if not ((away > SIDES_KMS[0][0] - 400.0) & (away < SIDES_KMS[1][1] + 400.0)).any():
            found.append(at)
    return np.array(found)


def aperture_weights(
    cube: Cube, centre: tuple[float, float], radius_arcsec: float, at: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Fraction of every spaxel that lies in a circle.

    Parameters
    ----------
    cube : Cube
        Whose spaxels they are.
    centre : tuple of float
        Origin, ICRS, deg.
    radius_arcsec : float
        Radius.
    at : tuple of float
        Middle of the circle, east and north of the origin, arcsec.

    Returns
    -------
    numpy.ndarray, shape (n_y, n_x)
        Between 0 and 1.
    """
    ny, nx = cube.shape
    east, north = cube.offsets(*centre, corners=True)
    steps = [np.hypot(np.diff(east, axis=axis), np.diff(north, axis=axis)).mean() for axis in (0, 1)]
    n = [max(1, int(np.ceil(step / _SUB_ARCSEC))) for step in steps]
    y = (np.arange(ny * n[0]) + 0.5) / n[0] - 0.5
    x = (np.arange(nx * n[1]) + 0.5) / n[1] - 0.5
    # Locally the map is affine: from the corners of the array, not through the WCS point by point.
    grid_y, grid_x = np.meshgrid((y + 0.5) / ny, (x + 0.5) / nx, indexing="ij")
    places = []
    for corner in (east, north):
        origin = corner[0, 0]
        places.append(origin + grid_y * (corner[-1, 0] - origin) + grid_x * (corner[0, -1] - origin))
    inside = np.hypot(places[0] - at[0], places[1] - at[1]) <= radius_arcsec
    return inside.reshape(ny, n[0], nx, n[1]).mean(axis=(1, 3))


def slit_angle(cube: Cube) -> float:
    """Position angle of a cube's y axis, deg east of north."""
    ny, nx = cube.shape
    east, north = cube.offsets(*(float(value[ny // 2, nx // 2]) for value in cube.spaxel_sky()))
    return float(np.degrees(np.arctan2(east[-1, 0] - east[0, 0], north[-1, 0] - north[0, 0])))


def square_arcsec(cube: Cube) -> float:
    """Area of a spaxel, arcsec squared."""
    return cube.pixel_sr * ARCSEC_PER_RADIAN**2
