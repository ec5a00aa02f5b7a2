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
def _predict(
    indptr, indices, overlap, chosen, total, own, counts, others, least, contrast, out
):  # pragma: no cover - compiled
    """Average the cube without one exposure, its error and its contrast, over the overlaps of the chosen pixels."""
    for p in range(indptr.size - 1):
        if not chosen[p]:
            continue
        all_of_it = reached = 0.0
        s0 = s1 = s2 = 0.0
        for k in range(indptr[p], indptr[p + 1]):
            a = np.float64(overlap[k])
            v = indices[k]
            all_of_it += a
            weight = total[v, 1] - own[v, 1]
            left = counts[v] - (1 if own[v, 1] > 0.0 else 0)
            if left < others or weight <= least:
                continue
            reached += a
            s0 += a * (total[v, 0] - own[v, 0]) / weight
            s1 += a * np.sqrt(max(total[v, 2] - own[v, 2], 0.0)) / weight
            s2 += a * contrast[v]
        out[0, p] = out[1, p] = out[2, p] = np.nan
        if reached > 0.0:
            out[0, p], out[1, p], out[2, p] = s0 / reached, s1 / reached, s2 / reached
        out[3, p] = reached / all_of_it if all_of_it > 0.0 else 0.0


@compiled
def _set(indptr, indices, chosen, value, flags):  # pragma: no cover - compiled
    """Give the voxels of the chosen pixels a value."""
    for p in range(chosen.size):
        if chosen[p]:
            for k in range(indptr[p], indptr[p + 1]):
                flags[indices[k]] = value


@compiled
def _touching(indptr, indices, flags, out):  # pragma: no cover - compiled
    """Choose the pixels that touch a voxel with a flag."""
    for p in range(out.size):
        out[p] = False
        for k in range(indptr[p], indptr[p + 1]):
            if flags[indices[k]]:
                out[p] = True
                break


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
    rounds = _Rounds(operator, snr)
    for number in range(_ROUNDS):
        changed = rounds.judge()
        log.debug("round %d of outliers: %d pixels changed", number + 1, changed)
        if not changed:
            break
    return rounds.judgement


class _Rounds:
    """Rounds of judging: each computes anew only what the pixels changed by the round before it have a part in.

    Sums are made in the same order as if all were computed, so that the numbers are the same to the last bit.
    """

    def __init__(self, operator: CubeOperator, snr: float):
        self.operator, self.snr = operator, snr
        self.blocks = range(len(operator.blocks))
        self.judgement = _no_test(operator, snr)
        self.masks: Sequence[np.ndarray] = self.judgement.rejected
        self.least = np.nan
        self.predicted = [np.full((4, len(block.slit.flat)), np.nan) for block in operator.blocks]

    def judge(self) -> int:
        """Judge all pixels against cubes without the rejected ones; give the number of pixels that changed."""
        operator, masks = self.operator, self.judgement.rejected
        weights = operator.good(masks)
        least = operator.least_weight(weights)
        chosen = self._first(weights) if least != self.least else self._affected(weights, masks)
        self.least, self.masks = least, masks
        rejected, judged = list(masks), list(self.judgement.judged)
        scatter = list(self.judgement.scatter)
        for exposure in operator.exposures:
            mine = [k for k in self.blocks if operator.blocks[k].exposure == exposure]
            if any(chosen[k].any() for k in mine):
                self._predict(mine, chosen, weights)
                for k in mine:
                    rejected[k], judged[k], scatter[k] = self._judged(k)
        self.judgement = Judgement(rejected, judged, scatter)
        return sum(int((a != b).sum()) for a, b in zip(rejected, masks, strict=True))

    def _first(self, weights: list[np.ndarray]) -> list[np.ndarray]:
        """Make the cube of all exposures; every pixel is to be judged."""
        operator = self.operator
        self.total, self.counts = operator.sums(self.blocks, weights), operator.count_exposures(weights)
        self.contrast = _contrast(self.total, operator.least_weight(weights), operator.grid.shape)
        self.own, self.needed = np.zeros_like(self.total), np.zeros(len(self.total), dtype=bool)
        return [np.ones(len(block.slit.flat), dtype=bool) for block in operator.blocks]

    def _affected(self, weights: list[np.ndarray], masks: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Make those voxels anew that the changed pixels touch; choose the pixels with another prediction."""
        moved = np.zeros(len(self.total), dtype=bool)
        for block, now, before in zip(self.operator.blocks, masks, self.masks, strict=True):
            _set(block.matrix.indptr, block.matrix.indices, now != before, True, moved)
        self.total[moved], self.counts[moved] = 0.0, 0
        self.operator.sums(self.blocks, weights, into=self.total, only=moved)
        self.operator.count_exposures(weights, into=self.counts, only=moved)
        before, self.contrast = self.contrast, _contrast(self.total, self.least, self.operator.grid.shape)
        moved |= self.contrast != before
        chosen = [np.empty(len(block.slit.flat), dtype=bool) for block in self.operator.blocks]
        for block, out in zip(self.operator.blocks, chosen, strict=True):
            _touching(block.matrix.indptr, block.matrix.indices, moved, out)
        return chosen

    def _predict(self, mine: list[int], chosen: list[np.ndarray], weights: list[np.ndarray]) -> None:
        """Predict the chosen pixels of the blocks of one exposure from all others."""
        matrices = {k: self.operator.blocks[k].matrix for k in mine}
        for k, matrix in matrices.items():
            _set(matrix.indptr, matrix.indices, chosen[k], True, self.needed)
        self.own[self.needed] = 0.0
        self.operator.sums(mine, weights, into=self.own, only=self.needed)
        for k, matrix in matrices.items():
            arrays = (matrix.indptr, matrix.indices, matrix.data, chosen[k], self.total, self.own, self.counts)
            _predict(*arrays, _MIN_EXPOSURES, self.least, self.contrast, self.predicted[k])
            _set(matrix.indptr, matrix.indices, chosen[k], False, self.needed)

    def _judged(self, k: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Compare the pixels of a block with their predictions: rejected, judged, scatter."""
        slit, out = self.operator.blocks[k].slit, self.predicted[k]
        error = np.sqrt(slit.err**2 + out[1] ** 2)
        judged = slit.good & (out[3] >= _LEAST_TESTED)
        with np.errstate(invalid="ignore"):
            residual = slit.data - out[0]
            rejected = judged & (np.abs(residual) > self.snr * error + _GRADIENT * out[2])
        quiet = (residual / error)[judged & ~rejected]
        return rejected, judged, float(median_abs_deviation(quiet, scale="normal")) if quiet.size else np.nan


def _contrast(total: np.ndarray, least: float, shape: tuple[int, int, int]) -> np.ndarray:
    """Half the range of the cube in the neighbourhood of each voxel, less what noise makes of it."""
    empty = total[:, 1] <= least
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(empty, np.nan, total[:, 0] / total[:, 1]).reshape(shape)
        noise = np.where(empty, 0.0, np.sqrt(total[:, 2]) / total[:, 1])
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
