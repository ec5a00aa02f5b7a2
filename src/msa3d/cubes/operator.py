"""The drizzle as a sparse operator from the pixels of all exposures to voxels, and the covariance that it makes.

Column ``p`` holds the overlap of pixel ``p`` with every voxel: with weights ``w`` ``SCI = A (w d) / A w``, its
covariance ``B B^T`` with ``B = diag(1 / A w) A w sigma``. It is kept in blocks, one a slit image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.sparse import csc_matrix, hstack

from msa3d.cubes.grid import SkyGrid
from msa3d.cubes.overlap import compiled, overlaps
from msa3d.cubes.slit import SlitPixels

_LEAST_WEIGHT = 1e-6
"""Voxels with less overlap than this part of a voxel are empty: what touches a corner is rounding."""


_EVERYWHERE = np.zeros(0, dtype=bool)
"""In place of a mask of voxels: all of them."""


@dataclass(frozen=True, eq=False)
class _Block:
    """The operator's columns of one slit image."""

    slit: SlitPixels
    exposure: str  # both detectors of one share it
    matrix: csc_matrix  # (n_voxels, n_pixels), overlaps in volumes of a voxel


@dataclass(frozen=True, eq=False)
class Planes:
    """What comes out of a combination; all arrays have the grid's shape.

    Attributes
    ----------
    sci, err : numpy.ndarray
        Value and one sigma, MJy/sr; NaN where no good pixel reaches.
    weight : numpy.ndarray
        Sum of overlap times weight.
    etime : numpy.ndarray
        Effective exposure time, s: overlap times exposure time, over the fraction over which a pixel is drizzled.
    nexp : numpy.ndarray of int16
        Exposures of which a good pixel reaches the voxel.
    """

    sci: np.ndarray
    err: np.ndarray
    weight: np.ndarray
    etime: np.ndarray
    nexp: np.ndarray


@compiled
def _scatter(indptr, indices, overlap, weight, data, variance, only, sums):  # pragma: no cover - compiled
    """Add a block to the sums of w d, w and w^2 v; weight 0 leaves a pixel out, `only` (if any) chooses voxels."""
    everywhere = only.size == 0
    for p in range(weight.size):
        w = weight[p]
        if w <= 0.0:
            continue
        for k in range(indptr[p], indptr[p + 1]):
            v = indices[k]
            if everywhere or only[v]:
                a = np.float64(overlap[k])
                sums[v, 0] += a * w * data[p]
                sums[v, 1] += a * w
                sums[v, 2] += a * a * w * w * variance[p]


@compiled
def _mark(indptr, indices, weight, number, only, last, nexp):  # pragma: no cover - compiled
    """Count an exposure once in every voxel that it reaches; `only` (if any) chooses voxels."""
    everywhere = only.size == 0
    for p in range(weight.size):
        if weight[p] <= 0.0:
            continue
        for k in range(indptr[p], indptr[p + 1]):
            v = indices[k]
            if (everywhere or only[v]) and last[v] != number:
                last[v] = number
                nexp[v] += 1


def _block_of(slit: SlitPixels, grid: SkyGrid) -> _Block:
    """The operator's columns of one slit image, its corners in the plane tangent at the middle of the grid."""
    quads = np.stack(grid.spaxels(slit.east, slit.north), axis=-1)
    low, high = grid.bins(slit.wave_um).T
    indptr, indices, data = overlaps(quads, low, high, grid.shape)
    matrix = csc_matrix((data, indices, indptr), shape=(int(np.prod(grid.shape)), len(quads)), copy=False)
    return _Block(slit, slit.path.parent.name, matrix)


class CubeOperator:
    """From the pixels of all exposures of a source to its voxels.

    Parameters
    ----------
    slits : iterable of SlitPixels
        Slit images, their corners around the middle of the grid.
    grid : SkyGrid
        The voxels.
    weighting : {"volume", "exptime", "ivm"}
        Weight of a pixel beside its overlap.
    laid_down : float
        Fraction of what a pixel sees over which it is drizzled (slit_frac times pixfrac).
    """

    def __init__(self, slits: Iterable[SlitPixels], grid: SkyGrid, weighting: str = "exptime", laid_down: float = 1.0):
        self.grid = grid
        self.laid_down = laid_down
        self.blocks = [_block_of(slit, grid) for slit in slits]
        self.weights = pixel_weights([block.slit for block in self.blocks], weighting)

    @property
    def matrix(self) -> csc_matrix:
        """The whole operator, shape (n_voxels, n_pixels), overlaps without weights; a copy of all blocks."""
        return hstack([block.matrix for block in self.blocks], format="csc")

    @property
    def exposures(self) -> list[str]:
        """Names of the exposures, each once, in the order of the blocks."""
        return list(dict.fromkeys(block.exposure for block in self.blocks))

    def good(self, rejected: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """Weights of the pixels of each block, zero where they are flagged or, a mask a block, rejected."""
        used = [np.where(block.slit.good, w, 0.0) for block, w in zip(self.blocks, self.weights, strict=True)]
        return used if rejected is None else [np.where(no, 0.0, w) for no, w in zip(rejected, used, strict=True)]

    def sums(
        self,
        blocks: Iterable[int],
        weights: Sequence[np.ndarray],
        data: Sequence[np.ndarray] | None = None,
        into: np.ndarray | None = None,
        only: np.ndarray = _EVERYWHERE,
    ) -> np.ndarray:
        """Sum over the pixels of some blocks, in every voxel.

        Parameters
        ----------
        blocks : iterable of int
            Which.
        weights : sequence of numpy.ndarray
            Weights of the pixels of all blocks.
        data : sequence of numpy.ndarray, optional
            Values of the pixels of all blocks in place of those measured.
        into : numpy.ndarray, shape (n_voxels, 3), optional
            Array to add to.
        only : numpy.ndarray of bool, shape (n_voxels,), optional
            Voxels to sum in; the others stay as they are.

        Returns
        -------
        numpy.ndarray, shape (n_voxels, 3)
            Sums of overlap times weight times value, of overlap times weight, and of the squares of both times
            the variance.
        """
        total = np.zeros((int(np.prod(self.grid.shape)), 3)) if into is None else into
        for k in blocks:
            block = self.blocks[k]
            values = np.nan_to_num(block.slit.data if data is None else data[k])
            variance = np.nan_to_num(block.slit.err) ** 2
            matrix = block.matrix
            _scatter(matrix.indptr, matrix.indices, matrix.data, weights[k], values, variance, only, total)
        return total

    def count_exposures(
        self, weights: Sequence[np.ndarray], into: np.ndarray | None = None, only: np.ndarray = _EVERYWHERE
    ) -> np.ndarray:
        """Count the exposures of which a pixel with a weight reaches a voxel: int16, shape (n_voxels,).

        `into` and `only` are those of `sums`.
        """
        nexp = np.zeros(int(np.prod(self.grid.shape)), dtype=np.int16) if into is None else into
        last = np.full(nexp.size, -1, dtype=np.int32)
        numbers = {name: number for number, name in enumerate(self.exposures)}
        for block, w in zip(self.blocks, weights, strict=True):
            _mark(block.matrix.indptr, block.matrix.indices, w, numbers[block.exposure], only, last, nexp)
        return nexp

    def least_weight(self, weights: Sequence[np.ndarray]) -> float:
        """Weight up to which a voxel is empty: a weight that is a time or a variance has a scale of its own."""
        return _LEAST_WEIGHT * max((w.max(initial=0.0) for w in weights), default=0.0)

    def combine(self, rejected: Sequence[np.ndarray] | None = None, data: Sequence[np.ndarray] | None = None) -> Planes:
        """Combine all pixels to a cube.

        Parameters
        ----------
        rejected : sequence of numpy.ndarray of bool, optional
            Pixels to leave out, a mask a block.
        data : sequence of numpy.ndarray, optional
            Values in place of those measured, for tests with known truth.
        """
        weights = self.good(rejected)
        value, weight, variance = self.sums(range(len(self.blocks)), weights, data).T
        nexp, etime = self.count_exposures(weights), np.zeros(weight.size)
        for block, w in zip(self.blocks, weights, strict=True):
            etime += block.matrix @ ((w > 0).astype(np.float32) * np.float32(block.slit.exposure_s / self.laid_down))
        empty = weight <= self.least_weight(weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            sci, err = np.where(empty, np.nan, value / weight), np.where(empty, np.nan, np.sqrt(variance) / weight)
        planes = (sci, err, np.where(empty, 0.0, weight), np.where(empty, 0.0, etime), np.where(empty, 0, nexp))
        return Planes(*(plane.reshape(self.grid.shape) for plane in planes))


def pixel_weights(slits: Sequence[SlitPixels], weighting: str) -> list[np.ndarray]:
    """Weight of every pixel of each slit in the voxels, beside their overlap.

    1 for "volume"; the exposure time (s); or for "ivm" the inverse variance of the read noise, in which a pixel
    without one has no weight (as in jwst's resampling).
    """
    if weighting == "ivm":
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = [1.0 / slit.var_rnoise for slit in slits]
        return [np.where(np.isfinite(w) & (w > 0), w, 0.0) for w in inverse]
    return [np.full(len(slit.flat), slit.exposure_s if weighting == "exptime" else 1.0) for slit in slits]


_REACH = (2, 4, 4)
"""Largest lags (wave, y, x) that are kept; along wavelength more where pixels are longer than so many bins."""

_RIM = 2.0
"""Spaxels whose error is more than this many times the median are at the cube's rim,"""
_RIM_SPAXELS = 2
"""as are so many next to them, or to the outside,"""
_LEAST_INNER = 25
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
    total = np.zeros(tuple(2 * reach + 1 for reach in (max(_REACH[0], int(np.ceil(longest))), *_REACH[1:])))
    for block, weight in zip(operator.blocks, operator.good(rejected), strict=True):
        matrix, variance = block.matrix, np.nan_to_num(block.slit.err) ** 2
        _pairs(matrix.indptr, matrix.indices, matrix.data, weight, variance, scale, ny, nx, total)
    products = _pair_products(relative, total.shape)
    return np.divide(total, products, out=np.zeros_like(total), where=products > 0)


def _inner(relative: np.ndarray, lit: np.ndarray) -> np.ndarray:
    """Spaxels of ordinary error, away from the rim where the cube is large enough; bool, shape (y, x)."""
    typical = np.median(relative[lit], axis=0) if lit.any() else np.zeros(relative.shape[1:])
    ordinary = (typical > 0) & (typical <= _RIM)
    for depth in (_RIM_SPAXELS, 1):
        inner = binary_erosion(ordinary, np.ones((3, 3)), iterations=depth)
        if inner.sum() >= _LEAST_INNER:
            return inner
    return ordinary


def _pair_products(relative: np.ndarray, lags: tuple[int, ...]) -> np.ndarray:
    """Sum of the products of two voxels' errors over all pairs at every lag."""
    products = np.zeros(lags)
    for lag in np.ndindex(lags):
        opposite = tuple(size - 1 - k for k, size in zip(lag, lags, strict=True))
        if opposite < lag:  # The same pairs.
            products[lag] = products[opposite]
            continue
        shift = [k - size // 2 for k, size in zip(lag, lags, strict=True)]
        here = tuple(slice(max(-s, 0), size - max(s, 0)) for s, size in zip(shift, relative.shape, strict=True))
        there = tuple(slice(max(s, 0), size - max(-s, 0)) for s, size in zip(shift, relative.shape, strict=True))
        products[lag] = np.sum(relative[here] * relative[there])
    return products
