"""What a line measures where there is none: the noise of its image, from the cube itself.

A cube's errors know read-out, photons and what resampling shares between neighbours. What the read-out leaves along
whole columns of the detector they do not know, and it adds up over spaxels. The estimator that measured a line
(velocity and dispersion given, so that flux is linear in the data) is therefore put to wavelengths without lines.
"""

from __future__ import annotations

import numpy as np

from msa3d.constants import C_KMS, LINES
from msa3d.cube import Cube
from msa3d.science.linefit import REACH_KMS, LineFit, fit_lines
from msa3d.science.resolution import LineSpread

_FARTHEST_KMS = 500.0
"""How far from its centre a galaxy's line may shine."""


def blank_images(
    cube: Cube,
    redshift: float,
    fit: LineFit,
    name: str,
    *,
    spread: LineSpread | None = None,
    number: int = 120,
) -> np.ndarray:
    """Images of a line where there is none, with the noise of that line's image.

    The cube is fitted with the velocities and dispersions of `fit` at a false redshift, many times; each image is
    scaled by the formal errors of the line's own spaxels over those at the false place. What formal errors know
    nothing of (banding, what is left of outliers and of the background) is in them.

    Parameters
    ----------
    cube : Cube
        The cube.
    redshift : float
        Of the galaxy, whose lines are kept away from.
    fit : LineFit
        A fit with given velocity and dispersion.
    name : str
        The line.
    spread : LineSpread, optional
        As in `linefit.fit_lines`.
    number : int
        How many places to try, evenly over the cube; those too near to a line or a gap drop out.

    Returns
    -------
    ndarray, shape (n, n_y, n_x)
        erg s-1 cm-2 arcsec-2; NaN as in the line's image or where the cube has no data at the place.
    """
    lines = np.array([rest * (1.0 + redshift) for rest in LINES.values()])
    margin = 1.0 + (REACH_KMS + 300.0) / C_KMS
    whole = np.isfinite(fit.flux[name]).mean()
    found = []
    for at in np.linspace(cube.wave_um[0] * margin, cube.wave_um[-1] / margin, number):
        if np.abs(C_KMS * (lines / at - 1.0)).min() < REACH_KMS + _FARTHEST_KMS:
            continue
        part = cube.between(at / margin, at * margin)
        if np.isfinite(part.data).mean() < 0.8 * whole:
            continue
        blank = fit_lines(
            part, at / LINES["Ha"] - 1.0, names=("Ha",), spread=spread, velocity=fit.velocity, sigma=fit.sigma
        )
        found.append(blank.snr("Ha") * fit.flux_error[name])
    return np.array(found).reshape(-1, *cube.shape)


def continuum_image(
    cube: Cube, first_um: float, last_um: float, number: int = 20
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean image of a range of wavelengths, with its error and images of its noise.

    Parameters
    ----------
    cube : Cube
        With errors.
    first_um, last_um : float
        A range without lines, um.
    number : int
        Parts into which the range is cut: what they differ by is the noise of the mean. A spectrum that changes over
        the range is taken for noise, a background that does not change is not seen.

    Returns
    -------
    image, error : ndarray, shape (n_y, n_x)
        Mean of the finite voxels and its formal error, MJy/sr; NaN where fewer than half of the voxels are finite.
    blanks : ndarray, shape (number, n_y, n_x)
        Deviations of the parts, scaled to the noise of the mean; NaN as the image.
    """
    part = cube.between(first_um, last_um)
    known = np.isfinite(part.data)
    good = known.mean(axis=0) >= 0.5

    def mean(values: np.ndarray, used: np.ndarray) -> np.ndarray:
        return np.where(used, values, 0.0).sum(axis=0) / np.maximum(used.sum(axis=0), 1)

    image = mean(part.data, known)
    pieces = np.array_split(np.arange(part.wave_um.size), number)
    blanks = np.array([mean(part.data[i], known[i]) - image for i in pieces]) / np.sqrt(number - 1)
    correlation = part.spectral_correlation
    shared = 1.0 + 2.0 * np.sum(correlation[1:]) if correlation is not None else 1.0
    variance = 0.0 if part.err is None else np.where(known, np.nan_to_num(part.err) ** 2, 0.0).sum(axis=0)
    error = np.sqrt(variance * shared) / np.maximum(known.sum(axis=0), 1)
    return np.where(good, image, np.nan), np.where(good, error, np.nan), np.where(good, blanks, np.nan)
