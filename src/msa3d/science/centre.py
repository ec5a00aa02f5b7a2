"""Where the middle of a galaxy's light is, how well it is known, and what that does to its rotation.

The rotation curve is steepest in the middle: a centre that is off by a hundredth of an arcsecond changes the systemic
velocity by some km/s. A centre that was measured on the starlight is therefore not taken as exact.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np
from scipy.optimize import least_squares

from msa3d.cube import Cube
from msa3d.science.discproblem import Problem
from msa3d.science.profiles import Exponential, Geometry, disc_columns

_STEP_ARCSEC = 0.01


def fit_centre(image: np.ndarray, cube: Cube, geometry: Geometry, wave_um: float) -> Geometry:
    """Move a disc to the centre of an image.

    Parameters
    ----------
    image : ndarray, shape (n_y, n_x)
        Brightness of an exponential disc on a constant background, of the stars best.
    cube : Cube
        For the places of its spaxels and its point-spread function.
    geometry : Geometry
        Start.
    wave_um : float
        Wavelength, for the point-spread function.

    Returns
    -------
    Geometry
        The same with another centre, at most 0.3 arcsec away.
    """
    stretch = np.cos(np.radians(geometry.dec))
    use = np.isfinite(image)
    values = image[use] / np.max(np.abs(image[use]))

    def misfit(offset: np.ndarray) -> np.ndarray:
        east, north = np.clip(offset[:2], -0.3, 0.3)
        moved = replace(geometry, ra=geometry.ra + east / 3600.0 / stretch, dec=geometry.dec + north / 3600.0)
        disc = disc_columns(cube, moved, wave_um, offset[2], use)[:, 0]
        columns = np.stack([disc, np.ones(disc.size)], axis=-1)
        linear, *_ = np.linalg.lstsq(columns, values, rcond=None)
        return values - columns @ linear

    best = least_squares(misfit, [0.0, 0.0, 2.5], diff_step=1e-3, x_scale=[0.05, 0.05, 0.5])
    east, north = np.clip(best.x[:2], -0.3, 0.3)
    return replace(geometry, ra=geometry.ra + east / 3600.0 / stretch, dec=geometry.dec + north / 3600.0)


def centre_covariance(
    disc: Exponential, cube: Cube, geometry: Geometry, wave_um: float, blanks: np.ndarray, where: np.ndarray
) -> np.ndarray:
    """Find the covariance of a centre that was fitted to an image by `fit_centre`.

    Parameters
    ----------
    disc : Exponential
        The disc in the image.
    cube : Cube
        For the places of its spaxels and its point-spread function.
    geometry : Geometry
        With the centre that was found.
    wave_um : float
        Wavelength of the image.
    blanks : ndarray, shape (n, n_y, n_x)
        Images with the noise of the image and nothing else.
    where : ndarray of bool, shape (n_y, n_x)
        Spaxels that were used.

    Returns
    -------
    ndarray, shape (2, 2)
        Of the offsets to the east and to the north, arcsec squared; NaN without a disc.
    """
    if not np.isfinite(disc.log_centre) or len(blanks) < 10:
        return np.full((2, 2), np.nan)
    bright = float(np.exp(disc.log_centre))

    def light(east: float, north: float) -> np.ndarray:
        ra = geometry.ra + east / 3600.0 / np.cos(np.radians(geometry.dec))
        moved = replace(geometry, ra=ra, dec=geometry.dec + north / 3600.0)
        return bright * disc_columns(cube, moved, wave_um, disc.rate, where)[:, 0]

    step = _STEP_ARCSEC
    slopes = [(light(*(step * e)) - light(*(-step * e))) / (2.0 * step) for e in np.eye(2)]
    base = disc_columns(cube, geometry, wave_um, disc.rate, where)
    # Brightness, background and scale length were free as well.
    design = np.stack([*slopes, *base.T, np.ones(base.shape[0])], axis=-1)
    moved = np.nan_to_num(blanks[:, where]) @ np.linalg.pinv(design).T
    return np.cov(moved[:, :2].T)


def response_to_centre(problem: Problem, vector: np.ndarray) -> np.ndarray:
    """Find by how much the parameters of a disc change when its centre is moved.

    Parameters
    ----------
    problem : Problem
        The fit, its centre not free.
    vector : ndarray
        Its best parameters.

    Returns
    -------
    ndarray, shape (n_parameters, 2)
        For each arcsec to the east and to the north; the third parameter is the logarithm of r_turn.
    """
    wide = copy(problem)
    wide.names = (*problem.names, "x0", "y0")
    jacobian = wide.jacobian(np.append(vector, [0.0, 0.0]))
    own, centre = jacobian[:, : vector.size], jacobian[:, vector.size :]
    size = np.sqrt((own**2).sum(axis=0)) + 1e-300
    return -np.linalg.lstsq(own / size, centre, rcond=None)[0] / size[:, None]
