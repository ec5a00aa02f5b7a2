"""Covariance of a cube's voxels, from the operator that made it.

Two voxels share noise where the same pixels go into both: ``C = B B^T`` with ``B = diag(1 / A w) A w sigma``.
Kept with a cube is the mean correlation coefficient by lag, which is all that apertures and line fits need;
the correlation matrix of any few voxels is exact, and made on request.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_erosion

from msa3d.cube.compiled import compiled
from msa3d.cube.operator import CubeOperator, Planes

REACH = (2, 4, 4)
"""Largest lags (wave, y, x) that are kept; along wavelength more where pixels are longer than so many bins."""

RIM = 2.0
"""Spaxels whose error is more than this many times the median are at the cube's rim,"""
RIM_SPAXELS = 2
"""as are so many next to them, or to the outside,"""
LEAST_INNER = 25
"""if so many are left."""


@compiled
def _pairs(indptr, indices, overlap, weight, variance, scale, ny, nx, total):  # pragma: no cover - compiled
    """Sum the covariance of all pairs of voxels that share a pixel, by their lag, in units of their errors."""
    reach = np.array(total.shape) // 2
    most = np.max(indptr[1:] - indptr[:-1])
    place, part = np.empty((most, 3), np.int64), np.empty(most)
    for p in range(weight.size):
        if weight[p] <= 0.0:
            continue
        n = 0
        for i in range(indptr[p], indptr[p + 1]):
            v = indices[i]
            if scale[v] > 0.0:
                place[n, 0], place[n, 1], place[n, 2] = v // (ny * nx), (v // nx) % ny, v % nx
                part[n] = np.float64(overlap[i]) * scale[v]
                n += 1
        factor = weight[p] * weight[p] * variance[p]
        for i in range(n):
            for j in range(i, n):
                dw, dy, dx = place[j, 0] - place[i, 0], place[j, 1] - place[i, 1], place[j, 2] - place[i, 2]
                if abs(dw) <= reach[0] and abs(dy) <= reach[1] and abs(dx) <= reach[2]:
                    shared = part[i] * part[j] * factor
                    total[reach[0] + dw, reach[1] + dy, reach[2] + dx] += shared
                    if j > i:
                        total[reach[0] - dw, reach[1] - dy, reach[2] - dx] += shared


def mean_correlation(
    operator: CubeOperator, planes: Planes, rejected: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """Mean correlation coefficient of the noise of two voxels, by their lag.

    The mean is that of the covariance over that of the product of the errors, so that the noise of a sum over
    many voxels comes out right where voxels of small error are those that share more pixels. Errors are
    taken relative to their median at each wavelength. Spaxels at the rim take no part: fewer dithers and no
    second column reach them, and they are more alike than those where sources lie.

    Parameters
    ----------
    operator : CubeOperator
        The operator.
    planes : Planes
        What it was combined to.
    rejected : sequence of numpy.ndarray of bool, optional
        Pixels that were left out.

    Returns
    -------
    numpy.ndarray, shape (5 or more, 9, 9)
        1 at the centre, zero where no pair shares a pixel.
    """
    _, ny, nx = operator.grid.shape
    err = planes.err.reshape(len(planes.err), -1)
    lit = np.isfinite(err).any(axis=1)
    typical = np.full(len(err), np.nan)
    typical[lit] = np.nanmedian(err[lit], axis=1)
    with np.errstate(invalid="ignore"):
        relative = np.nan_to_num(err / typical[:, None]).reshape(planes.err.shape)
        relative *= _inner(relative, lit)
        scale = np.where(relative > 0, relative / (planes.weight * planes.err), 0.0).ravel()
    longest = max(np.diff(block.slit.wave_um).max() for block in operator.blocks) / operator.grid.step_um
    total = np.zeros(tuple(2 * reach + 1 for reach in (max(REACH[0], int(np.ceil(longest))), *REACH[1:])))
    for block, weight in zip(operator.blocks, operator.good(rejected), strict=True):
        matrix, variance = block.matrix, np.nan_to_num(block.slit.err) ** 2
        _pairs(matrix.indptr, matrix.indices, matrix.data, weight, variance, scale, ny, nx, total)
    products = _pair_products(relative, total.shape)
    return np.divide(total, products, out=np.zeros_like(total), where=products > 0)


def _inner(relative: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """Spaxels of ordinary error, away from the rim where the cube is large enough; bool, shape (y, x)."""
    typical = np.median(relative[lit], axis=0) if lit.any() else np.zeros(relative.shape[1:])
    ordinary = (typical > 0) & (typical <= RIM)
    for depth in (RIM_SPAXELS, 1):
        inner = binary_erosion(ordinary, np.ones((3, 3)), iterations=depth)
        if inner.sum() >= LEAST_INNER:
            return inner
    return ordinary


def _pair_products(relative: np.ndarray, lags: tuple[int, ...]) -> np.ndarray:
    """Sum of the products of two voxels' errors over all pairs at every lag."""
    products = np.zeros(lags)
    for lag in np.ndindex(lags):
        shift = [k - size // 2 for k, size in zip(lag, lags, strict=True)]
        here = tuple(slice(max(-s, 0), size - max(s, 0)) for s, size in zip(shift, relative.shape, strict=True))
        there = tuple(slice(max(s, 0), size - max(-s, 0)) for s, size in zip(shift, relative.shape, strict=True))
        products[lag] = np.sum(relative[here] * relative[there])
    return products


def correlation_matrix(
    operator: CubeOperator, planes: Planes, voxels: np.ndarray, rejected: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """Exact correlation matrix of the noise of some voxels.

    Parameters
    ----------
    operator : CubeOperator
        The operator.
    planes : Planes
        What it was combined to.
    voxels : numpy.ndarray of int, shape (n, 3)
        Their indices (wave, y, x).
    rejected : sequence of numpy.ndarray of bool, optional
        Pixels that were left out.

    Returns
    -------
    numpy.ndarray, shape (n, n)
        NaN in rows and columns of voxels without data.
    """
    flat = np.ravel_multi_index(np.asarray(voxels).T, operator.grid.shape)
    covariance = np.zeros((flat.size, flat.size))
    for block, weight in zip(operator.blocks, operator.good(rejected), strict=True):
        rows = block.matrix[flat].multiply(weight * np.nan_to_num(block.slit.err)).tocsr()
        covariance += (rows @ rows.T).toarray()
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = planes.weight.ravel()[flat] * planes.err.ravel()[flat]
        return covariance / np.outer(sigma, sigma)
