"""The pattern of an observation as its pointings show it, whatever the dataset says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Distance of a move from the common step, as a fraction of that step, from which it is another kind of move.
_OTHER = 0.3


@dataclass(frozen=True)
class FoundPattern:
    """A grid of pointings.

    Attributes
    ----------
    rows, columns : int
        As `msa3d.config.Pattern` counts them: columns are the steps that follow each other in time.
    order : {"serpentine", "raster"}
        Whether the direction of the steps turns round from row to row.
    column_step_arcsec, row_step_arcsec : float
        Mean steps; NaN where there is one row or column only.
    worst_arcsec : float
        Largest distance of a pointing from the regular grid.
    """

    rows: int
    columns: int
    order: str
    column_step_arcsec: float
    row_step_arcsec: float
    worst_arcsec: float

    def __str__(self) -> str:
        """One line."""
        steps = [f"columns {self.column_step_arcsec:.3f}"] if self.columns > 1 else []
        steps += [f"rows {self.row_step_arcsec:.3f}"] if self.rows > 1 else []
        told = f", steps of {' and '.join(steps)} arcsec, off the grid by up to {self.worst_arcsec * 1e3:.0f} mas"
        return f"{self.rows} x {self.columns}, {self.order}{told if steps else ''}"


def find_pattern(ra: Sequence[float], dec: Sequence[float]) -> FoundPattern | None:
    """Find the grid that pointings make.

    Parameters
    ----------
    ra, dec : sequence of float
        Pointings in observing order, degrees.

    Returns
    -------
    FoundPattern or None
        None where they do not make a regular grid of complete rows.
    """
    if len(ra) == 1:
        return FoundPattern(1, 1, "serpentine", np.nan, np.nan, 0.0)
    places = _offsets(ra, dec)
    moves = np.diff(places, axis=0)
    step = _common_step(moves)
    if step is None:
        return None
    turns = np.flatnonzero(np.minimum(_length(moves - step), _length(moves + step)) > _OTHER * _length(step))
    lengths = np.diff([0, *(turns + 1), len(ra)])
    if len(set(lengths)) != 1:
        return None
    rows, columns = len(lengths), int(lengths[0])
    directions = [1 if moves[i * columns] @ step > 0 else -1 for i in range(rows)] if columns > 1 else [1] * rows
    serpentine = all(d == directions[0] * (-1) ** i for i, d in enumerate(directions))
    if not serpentine and len(set(directions)) > 1:
        return None
    order = "serpentine" if serpentine else "raster"
    index = np.arange(len(ra))
    row, column = index // columns, index % columns
    if serpentine:
        column = np.where(row % 2, columns - 1 - column, column)
    return FoundPattern(rows, columns, order, *_fit(places, row, column))


def off_grid(ra: Sequence[float], dec: Sequence[float], row: Sequence[int], column: Sequence[int]) -> np.ndarray:
    """Measure how far pointings lie from the regular grid that most of them make.

    Parameters
    ----------
    ra, dec : sequence of float
        Pointings, degrees.
    row, column : sequence of int
        The place of each in the pattern.

    Returns
    -------
    numpy.ndarray
        Distances, arcsec. Their sum is least, so that a few pointings that are wrong do not bend the grid.
    """
    places, weight = _offsets(ra, dec), np.ones(len(ra))
    design = np.stack([np.ones(len(ra)), np.asarray(column, float), np.asarray(row, float)], axis=1)
    for _ in range(60):
        solution, *_ = np.linalg.lstsq(design * weight[:, None], places * weight[:, None], rcond=None)
        distance = _length(places - design @ solution)
        weight = 1.0 / np.sqrt(np.maximum(distance, 1e-4))
    return distance


def _offsets(ra: Sequence[float], dec: Sequence[float]) -> np.ndarray:
    """Offsets from the first pointing to the east and to the north, arcsec, shape (n, 2)."""
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    east = (ra - ra[0] + 180) % 360 - 180
    return np.stack([east * np.cos(np.deg2rad(dec.mean())), dec - dec[0]], axis=1) * 3600


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.hypot(vectors[..., 0], vectors[..., 1])


def _common_step(moves: np.ndarray) -> np.ndarray | None:
    """Find the move, either way, that most moves are like; None where all exposures are at one place."""
    counts = [np.sum(np.minimum(_length(moves - one), _length(moves + one)) < _OTHER * _length(one)) for one in moves]
    best = moves[int(np.argmax(counts))]
    if _length(best) < 1e-3:  # a thousandth of an arcsecond: no step
        return None
    alike = np.minimum(_length(moves - best), _length(moves + best)) < _OTHER * _length(best)
    signs = np.sign(moves[alike] @ best)
    return np.median(moves[alike] * signs[:, None], axis=0)


def _fit(places: np.ndarray, row: np.ndarray, column: np.ndarray) -> tuple[float, float, float]:
    """Fit a regular grid; return its two steps and the largest distance from it."""
    design = np.stack([np.ones(len(places)), column, row], axis=1)
    solution, *_ = np.linalg.lstsq(design, places, rcond=None)
    worst = float(_length(places - design @ solution).max())
    steps = _length(solution[1:])
    return (
        float(steps[0]) if column.max() else np.nan,
        float(steps[1]) if row.max() else np.nan,
        worst,
    )
