"""Outlier tests by name; one of them, leave-one-out, compares each pixel with what all other exposures predict for it.

The prediction for a pixel of exposure ``e`` is the cube made without ``e``, averaged with the pixel's own
overlaps. Its error has three parts: the pixel's own, that of the cube without ``e``, and a share of the contrast
that the cube has around there, since what other exposures see at a steep place they do not see at quite the
same place. The last one protects emission lines, which a filter within one exposure takes for hits.

A hit spoils the predictions of others as well. Hence rounds: in each all pixels are judged anew, against
cubes without the pixels that the round before rejected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.stats import median_abs_deviation

from msa3d._model import nearest
from msa3d.cubes.operator import CubeOperator
from msa3d.cubes.overlap import compiled

if TYPE_CHECKING:
    from msa3d.cubes.settings import OutlierSettings


log = logging.getLogger(__name__)

_LEAST_TESTED, _MIN_EXPOSURES = 0.5, 2
"""Part of a pixel's overlap that others must reach for a judgement, and how many other exposures."""
_GRADIENT = 1.0
"""Part of the local contrast of the cube that counts as error of the prediction: it protects lines and edges."""
_ROUNDS = 4
"""Rounds of predicting and judging, at most."""


@dataclass(frozen=True, eq=False)
class Rejection:
    """What was rejected.

    Attributes
    ----------
    masks : sequence of numpy.ndarray of bool
        A mask a block: pixels that are not to be used.
    table : astropy.table.Table
        A row a slit image: file, pixels, flagged before, judged, rejected, and the robust scatter of the
        residuals in units of their errors (1 where the errors are right).
    """

    masks: Sequence[np.ndarray]
    table: Table


@dataclass(frozen=True, eq=False)
class Judgement:
    """What an outlier test gives: masks of rejected and of judged pixels, and the scatter, one a block."""

    rejected: Sequence[np.ndarray]
    judged: Sequence[np.ndarray]
    scatter: Sequence[float]


@compiled
def _predict(indptr, indices, overlap, total, own, counts, others, least, contrast, out):  # pragma: no cover - compiled
    """Average the cube without one exposure, its error and its contrast, over the pixels' overlaps."""
    for p in range(indptr.size - 1):
        all_of_it = reached = 0.0
        s0 = s1 = s2 = 0.0
        for k in range(indptr[p], indptr[p + 1]):
            a = np.float64(overlap[k])
            v = indices[k]
            all_of_it += a
            weight = total[1, v] - own[1, v]
            left = counts[v] - (1 if own[1, v] > 0.0 else 0)
            if left < others or weight <= least:
                continue
            reached += a
            s0 += a * (total[0, v] - own[0, v]) / weight
            s1 += a * np.sqrt(max(total[2, v] - own[2, v], 0.0)) / weight
            s2 += a * contrast[v]
        if reached > 0.0:
            out[0, p], out[1, p], out[2, p] = s0 / reached, s1 / reached, s2 / reached
        out[3, p] = reached / all_of_it if all_of_it > 0.0 else 0.0


@compiled
def _clear(indices, sums):  # pragma: no cover - compiled
    """Set the sums of a block's voxels back to zero."""
    for v in indices:
        for row in range(sums.shape[0]):
            sums[row, v] = 0.0


_Test = Callable[[CubeOperator, float], "Judgement"]
TESTS: dict[str, _Test] = {}
"""Outlier tests by the name that ``cubebuild.drizzle.outliers.method`` of a dataset gives."""


def outlier_test(name: str) -> Callable[[_Test], _Test]:
    """Register a function of the operator and of the threshold (S/N) as an outlier test."""
    return lambda function: TESTS.setdefault(name, function)


def find_test(name: str) -> _Test:
    """Find an outlier test by its name; a ValueError names those that exist."""
    if name not in TESTS:
        raise ValueError(f"there is no outlier test {name!r}{nearest(name, TESTS)}; choose one of {', '.join(TESTS)}")
    return TESTS[name]


def find_outliers(operator: CubeOperator, settings: OutlierSettings) -> Rejection:
    """Judge every pixel by the test that the settings name, at their threshold."""
    found = find_test(settings.method)(operator, settings.snr)
    return Rejection(found.rejected, _table(operator, found))


@outlier_test("none")
def _no_test(operator: CubeOperator, snr: float) -> Judgement:
    """Reject nothing."""
    none = [np.zeros(len(block.slit.flat), dtype=bool) for block in operator.blocks]
    return Judgement(none, none, [np.nan] * len(none))


@outlier_test("leave-one-out")
def _leave_one_out(operator: CubeOperator, snr: float) -> Judgement:
    """Judge every pixel by what the other exposures predict, in rounds."""
    found = _no_test(operator, snr)
    for number in range(_ROUNDS):
        before, found = found, _round(operator, snr, found.rejected)
        changed = sum(int((a != b).sum()) for a, b in zip(found.rejected, before.rejected, strict=True))
        log.debug("round %d of outliers: %d pixels changed", number + 1, changed)
        if not changed:
            break
    return found


def _round(operator: CubeOperator, snr: float, masks: Sequence[np.ndarray]) -> Judgement:
    """Judge all pixels against cubes without the masked ones."""
    weights = operator.good(masks)
    blocks = range(len(operator.blocks))
    total, counts = operator.sums(blocks, weights), operator.count_exposures(weights)
    least = operator.least_weight(weights)
    contrast = _contrast(total, least, operator.grid.shape)
    found, judged, scatter = [np.zeros_like(m) for m in masks], [np.zeros_like(m) for m in masks], [np.nan] * len(masks)
    own = np.zeros_like(total)
    for exposure in operator.exposures:
        mine = [k for k in blocks if operator.blocks[k].exposure == exposure]
        operator.sums(mine, weights, into=own)
        for k in mine:
            slit, matrix = operator.blocks[k].slit, operator.blocks[k].matrix
            out = np.full((4, len(slit.flat)), np.nan)
            arrays = (matrix.indptr, matrix.indices, matrix.data)
            _predict(*arrays, total, own, counts, _MIN_EXPOSURES, least, contrast, out)
            error = np.sqrt(slit.err**2 + out[1] ** 2)
            judged[k] = slit.good & (out[3] >= _LEAST_TESTED)
            with np.errstate(invalid="ignore"):
                residual = slit.data - out[0]
                found[k] = judged[k] & (np.abs(residual) > snr * error + _GRADIENT * out[2])
            quiet = (residual / error)[judged[k] & ~found[k]]
            scatter[k] = float(median_abs_deviation(quiet, scale="normal")) if quiet.size else np.nan
        for k in mine:
            _clear(operator.blocks[k].matrix.indices, own)
    return Judgement(found, judged, scatter)


def _contrast(total: np.ndarray, least: float, shape: tuple[int, int, int]) -> np.ndarray:
    """Half the range of the cube in the neighbourhood of each voxel, less what noise makes of it."""
    empty = total[1] <= least
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(empty, np.nan, total[0] / total[1]).reshape(shape)
        noise = np.where(empty, 0.0, np.sqrt(total[2]) / total[1])
    high = maximum_filter(np.nan_to_num(value, nan=-np.inf), size=3)
    low = minimum_filter(np.nan_to_num(value, nan=np.inf), size=3)
    # Among the 27 values around a voxel, of which about 6 are independent, noise alone spans 2.5 sigma.
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(np.maximum(0.5 * (high - low).ravel() - 1.25 * noise, 0.0), posinf=0.0)


def _table(operator: CubeOperator, found: Judgement) -> Table:
    slits = [block.slit for block in operator.blocks]
    return Table(
        {
            "file": [slit.name for slit in slits],
            "exposure": [block.exposure for block in operator.blocks],
            "detector": [slit.detector for slit in slits],
            "pixels": [len(slit.flat) for slit in slits],
            "flagged": [int((~slit.good).sum()) for slit in slits],
            "judged": [int(mask.sum()) for mask in found.judged],
            "rejected": [int(mask.sum()) for mask in found.rejected],
            "scatter": [round(value, 4) for value in found.scatter],
        }
    )
