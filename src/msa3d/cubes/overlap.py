"""Overlap of detector pixels, projected on the sky, with the voxels of a cube, in machine code.

The overlap of a pixel with a voxel is the product of two: the area that the pixel's quadrilateral on the
sky shares with the spaxel (exact, by clipping one convex polygon with the other, Sutherland & Hodgman 1974)
and the length that the pixel's wavelength interval shares with the bin. Separating the two costs about
0.03 per cent in fidelity (Law et al. 2023) and makes the work affordable.

Spaxels are unit squares centred on whole numbers, in the order (x, y); bins are unit intervals centred on
whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit


def compiled(function: Callable) -> Callable:
    """Compile a function of arrays and numbers with numba when it is first called.

    Its machine code is kept beside the source, in NUMBA_CACHE_DIR or in the home directory; where none of these can be
    written to, every process compiles it anew.
    """
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # numba found no place for its cache
        return njit(function)


_MAX_CORNERS = 12


@compiled
def _clip(points, count, axis, limit, keep_above, out):  # pragma: no cover - compiled
    """Clip a convex polygon by a half plane; return the number of corners left."""
    left = 0
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        da, db = points[i, axis] - limit, points[j, axis] - limit
        if not keep_above:
            da, db = -da, -db
        if da >= 0.0:
            out[left, 0], out[left, 1] = points[i, 0], points[i, 1]
            left += 1
        if (da > 0.0 and db < 0.0) or (da < 0.0 and db > 0.0):
            t = da / (da - db)
            out[left, 0] = points[i, 0] + t * (points[j, 0] - points[i, 0])
            out[left, 1] = points[i, 1] + t * (points[j, 1] - points[i, 1])
            left += 1
    return left


@compiled
def _area(points, count):  # pragma: no cover - compiled
    """Area of a polygon."""
    total = 0.0
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        total += points[i, 0] * points[j, 1] - points[j, 0] * points[i, 1]
    return abs(total) * 0.5


@compiled
def _box(quad, nx, ny):  # pragma: no cover - compiled
    """First and last column and row of spaxels that a quadrilateral may touch."""
    x0 = max(int(np.floor(quad[:, 0].min() + 0.5)), 0)
    x1 = min(int(np.ceil(quad[:, 0].max() - 0.5)), nx - 1)
    y0 = max(int(np.floor(quad[:, 1].min() + 0.5)), 0)
    y1 = min(int(np.ceil(quad[:, 1].max() - 0.5)), ny - 1)
    return x0, x1, y0, y1


@compiled
def _cells(quad, nx, ny, cell, area, scratch):  # pragma: no cover - compiled
    """Spaxels that a quadrilateral touches, and the areas; return how many. `scratch` holds three polygons."""
    x0, x1, y0, y1 = _box(quad, nx, ny)
    one, strip, rest = scratch[0], scratch[1], scratch[2]
    found = 0
    for y in range(y0, y1 + 1):
        count = _clip(quad, 4, 1, y - 0.5, True, one)
        in_strip = _clip(one, count, 1, y + 0.5, False, strip)
        if in_strip < 3:
            continue
        low, high = strip[:in_strip, 0].min(), strip[:in_strip, 0].max()
        for x in range(x0, x1 + 1):
            if high <= x - 0.5 or low >= x + 0.5:
                continue
            count = _clip(strip, in_strip, 0, x - 0.5, True, one)
            count = _clip(one, count, 0, x + 0.5, False, rest)
            if count < 3:
                continue
            a = _area(rest, count)
            if a > 1e-9:
                cell[found] = y * nx + x
                area[found] = a
                found += 1
    return found


@compiled
def _bins(low, high, nw):  # pragma: no cover - compiled
    """First and last bin that an interval of wavelengths touches."""
    return max(int(np.floor(low + 0.5)), 0), min(int(np.ceil(high - 0.5)), nw - 1)


@compiled
def _room(quads, nx, ny):  # pragma: no cover - compiled
    """Spaxels around each pixel, of which it may touch some."""
    room = np.zeros(quads.shape[0], np.int64)
    for p in range(quads.shape[0]):
        x0, x1, y0, y1 = _box(quads[p], nx, ny)
        room[p] = max(x1 - x0 + 1, 0) * max(y1 - y0 + 1, 0)
    return room


@compiled
def _areas(quads, low, high, nx, ny, nw, starts, cell, area, found):  # pragma: no cover - compiled
    """Spaxels that each pixel touches, from its start on, the areas and how many there are; return its voxels."""
    scratch = np.empty((3, _MAX_CORNERS, 2))
    counts = np.zeros(quads.shape[0], np.int64)
    for p in range(quads.shape[0]):
        first, last = _bins(low[p], high[p], nw)
        if last >= first:
            at = starts[p]
            found[p] = _cells(quads[p], nx, ny, cell[at:], area[at:], scratch)
            counts[p] = found[p] * (last - first + 1)
    return counts


@compiled
def _fill(low, high, plane, nw, starts, cell, area, found, indptr, indices, data):  # pragma: no cover - compiled
    """Write the voxels of each pixel and its overlaps with them; `plane` is the number of spaxels."""
    for p in range(low.size):
        at, start = indptr[p], starts[p]
        if indptr[p + 1] == at:
            continue
        first, last = _bins(low[p], high[p], nw)
        for w in range(first, last + 1):
            length = max(min(high[p], w + 0.5) - max(low[p], w - 0.5), 0.0)
            for k in range(start, start + found[p]):
                indices[at] = w * plane + cell[k]
                data[at] = area[k] * length
                at += 1


def _summed(counts: np.ndarray) -> np.ndarray:
    """Where each of some groups begins, and where the last one ends."""
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def overlaps(quads: np.ndarray, low: np.ndarray, high: np.ndarray, shape: tuple[int, int, int]):
    """Find the overlap of every pixel with every voxel.

    Parameters
    ----------
    quads : numpy.ndarray, shape (n, 4, 2)
        Corners (x, y) of the pixels on the sky, in spaxels, in order around the quadrilateral.
    low, high : numpy.ndarray, shape (n,)
        Ends of the pixels' wavelength intervals, in bins; ``low < high``.
    shape : tuple of int
        ``(n_wave, n_y, n_x)`` of the cube.

    Returns
    -------
    indptr : numpy.ndarray of int64, shape (n + 1,)
        Where each pixel's overlaps begin.
    indices : numpy.ndarray of int32
        Flat index of the voxel.
    data : numpy.ndarray of float32
        Overlap, in volumes of a voxel.
    """
    nw, ny, nx = shape
    quads, low, high = (np.ascontiguousarray(item, dtype=float) for item in (quads, low, high))
    starts = _summed(_room(quads, nx, ny))
    cell, area = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1])
    found = np.zeros(len(quads), dtype=np.int64)
    indptr = _summed(_areas(quads, low, high, nx, ny, nw, starts, cell, area, found))
    indices, data = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.float32)
    _fill(low, high, ny * nx, nw, starts, cell, area, found, indptr, indices, data)
    return indptr, indices, data


def polygon_areas(quad: np.ndarray, n: int) -> np.ndarray:
    """Area that a quadrilateral, corners (x, y) of shape (4, 2), shares with each pixel of an n by n image."""
    cell, area = np.empty(n * n, np.int32), np.empty(n * n)
    found = _cells(np.ascontiguousarray(quad, dtype=float), n, n, cell, area, np.empty((3, _MAX_CORNERS, 2)))
    image = np.zeros(n * n)
    image[cell[:found]] = area[:found]
    return image.reshape(n, n)
