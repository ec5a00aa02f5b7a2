"""How noisy the parameters of a disc are, measured where the cube shows no line."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate

from msa3d.constants import C_KMS, LINES
from msa3d.cube import Cube

CLEAR_KMS = 700.0
LEAST_WINDOWS = 12


def noise_scale(cube: Cube, problem, vector: np.ndarray, redshift: float) -> tuple[float, np.ndarray]:
    """Covariance of a disc's parameters, and by how much larger it is than independent spaxels would have it.

    Near the best fit an error of a parameter is a sum of voxels' noise with weights that follow from the
    Jacobian. The same weights are applied to windows of the cube without lines, in units of the voxels' errors
    there, and to the correlation of the noise that the builder predicts. The larger of both rules.

    Parameters
    ----------
    cube : Cube
        The whole cube.
    problem : msa3d.science.kinematics.Problem
        The fit.
    vector : numpy.ndarray
        Its best parameters.
    redshift : float
        Of the galaxy, whose lines are kept clear of.

    Returns
    -------
    scale : float
        Geometric mean, over the parameters, of variance over formal variance; not below 1.
    covariance : numpy.ndarray
        Formal covariance times the scale.
    """
    jacobian = problem.jacobian(vector)
    normal = jacobian.T @ jacobian
    size = np.sqrt(np.diag(normal)) + 1e-300
    formal = np.linalg.pinv(normal / np.outer(size, size), hermitian=True) / np.outer(size, size)
    n, n_wave = problem.target.shape
    response = -(formal @ jacobian.T).reshape(-1, n, n_wave)
    # Weights of the voxels in units of their errors: (n_parameters, n_wave, n_y, n_x).
    weights = np.zeros((len(vector), n_wave, *cube.shape))
    voxel = np.einsum("psi,sij->psj", response, problem.operator)
    with np.errstate(divide="ignore"):
        sigma = np.where(problem.weight > 0, 1.0 / problem.weight, 0.0)
    weights[:, :, problem.used] = (voxel * sigma).transpose(0, 2, 1)
    ratios = [np.ones(len(vector))]
    if cube.correlation is not None:
        spread = [float((w * correlate(w, cube.correlation, mode="constant")).sum()) for w in weights]
        ratios.append(np.array(spread) / np.diag(formal))
    found = _windows(cube, problem, weights, redshift)
    if len(found) >= LEAST_WINDOWS:
        ratios.append(np.var(found, axis=0) / np.diag(formal))
    scale = max(float(np.exp(np.mean(np.log(np.maximum(r, 1e-3))))) for r in ratios)
    return scale, formal * scale


def _windows(cube: Cube, problem, weights: np.ndarray, redshift: float) -> np.ndarray:
    """Apply the weights to every window without lines, (n_windows, n_parameters)."""
    n_wave = problem.index.size
    rest = np.array(list(LINES.values())) * (1.0 + redshift)
    found = []
    used = np.broadcast_to(problem.used, (n_wave, *cube.shape))
    ramp = np.stack([np.ones(n_wave), np.linspace(-0.5, 0.5, n_wave)], axis=1)
    flat = ramp @ np.linalg.pinv(ramp)
    for first in range(0, cube.wave_um.size - n_wave, n_wave):
        part = slice(first, first + n_wave)
        wave = cube.wave_um[part]
        if np.any((wave[:, None] / rest - 1.0 < CLEAR_KMS / C_KMS) & (wave[:, None] / rest - 1.0 > -CLEAR_KMS / C_KMS)):
            continue
        data, error = cube.data[part], cube.err[part]
        known = np.isfinite(data) & np.isfinite(error) & (error > 0)
        if known[used].mean() < 0.97:
            continue
        noise = np.where(known, data, 0.0)
        noise = noise - np.einsum("ij,jyx->iyx", flat, noise)
        noise = np.where(known, noise / np.where(known, error, 1.0), 0.0)
        found.append([(w * noise).sum() for w in weights])
    return np.array(found)
