"""Outliers by leave-one-out: each pixel against what all other exposures predict where it looks.

The prediction for a pixel of exposure ``e`` is the cube made without ``e``, averaged with the pixel's own
overlaps. Its error has three parts: the pixel's own, that of the cube without ``e``, and a share of the contrast
that the cube has around there, since what other exposures see at a steep place they do not see at quite the
same place. The last one protects emission lines, which a filter within one exposure takes for hits.

A hit spoils the predictions of others as well. Hence rounds: in each all pixels are judged anew, against
cubes without the pixels that the round before rejected.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.stats import median_abs_deviation

from msa3d.cubes.operator import CubeOperator
from msa3d.cubes.overlap import compiled

if TYPE_CHECKING:
    from msa3d.cubes.settings import OutlierSettings


log = logging.getLogger(__name__)

_LEAST_TESTED = 0.5
"""Part of a pixel's overlap that others must reach for a judgement."""


@dataclass(frozen=True, eq=False)
class Rejection:
    """What was rejected.

    Attributes
    ----------
    masks : list of numpy.ndarray of bool
        A mask a block: pixels that are not to be used.
    table : astropy.table.Table
        A row a slit image: file, pixels, flagged before, judged, rejected, and the robust scatter of the
        residuals in units of their errors (1 where the errors are right).
    """

    masks: list[np.ndarray]
    table: Table


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


def find_outliers(operator: CubeOperator, settings: OutlierSettings) -> Rejection:
    """Judge every pixel by what the other exposures predict.

    Parameters
    ----------
    operator : CubeOperator
        The operator of the source.
    settings : OutlierSettings
        Threshold, protection of lines, rounds.

    Returns
    -------
    Rejection
    """
    masks = [np.zeros(len(block.slit.flat), dtype=bool) for block in operator.blocks]
    judged = [np.zeros_like(mask) for mask in masks]
    scatter = [np.nan] * len(masks)
    if settings.method != "none":
        for number in range(settings.rounds):
            found, judged, scatter = _round(operator, settings, masks)
            changed = sum(int((new != old).sum()) for new, old in zip(found, masks, strict=True))
            masks = found
            log.debug("round %d of outliers: %d pixels changed", number + 1, changed)
            if not changed:
                break
    return Rejection(masks, _table(operator, masks, judged, scatter))


def _round(operator: CubeOperator, settings: OutlierSettings, masks: list[np.ndarray]) -> tuple[list, list, list]:
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
            _predict(*arrays, total, own, counts, settings.min_exposures, least, contrast, out)
            error = np.sqrt(slit.err**2 + out[1] ** 2)
            judged[k] = slit.good & (out[3] >= _LEAST_TESTED)
            with np.errstate(invalid="ignore"):
                residual = slit.data - out[0]
                found[k] = judged[k] & (np.abs(residual) > settings.snr * error + settings.gradient * out[2])
            quiet = (residual / error)[judged[k] & ~found[k]]
            scatter[k] = float(median_abs_deviation(quiet, scale="normal")) if quiet.size else np.nan
        for k in mine:
            _clear(operator.blocks[k].matrix.indices, own)
    return found, judged, scatter


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


def _table(operator: CubeOperator, masks: list, judged: list, scatter: list) -> Table:
    slits = [block.slit for block in operator.blocks]
    return Table(
        {
            "file": [slit.name for slit in slits],
            "exposure": [block.exposure for block in operator.blocks],
            "detector": [slit.detector for slit in slits],
            "pixels": [len(slit.flat) for slit in slits],
            "flagged": [int((~slit.good).sum()) for slit in slits],
            "judged": [int(mask.sum()) for mask in judged],
            "rejected": [int(mask.sum()) for mask in masks],
            "scatter": [round(value, 4) for value in scatter],
        }
    )
