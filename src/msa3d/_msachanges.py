"""What differs between two MSA metafiles, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from msa3d.msafile import MsaFile


def changes(before: MsaFile, after: MsaFile) -> list[str]:
    """List what an edit changed.

    It is found by comparing the two, so that it is true whatever the edit was.

    Parameters
    ----------
    before, after : MsaFile
        The original and the edited one.

    Returns
    -------
    list of str
        One sentence a slitlet and kind of change, slitlets first, then sources; empty where nothing changed. What
        holds for all configurations (``msa_metadata_id``) is said once.
    """
    old, new = _by_slitlet(before), _by_slitlet(after)
    metas = {meta for meta, _ in old} | {meta for meta, _ in new}
    told: dict[str, set[int]] = {}
    for meta, slitlet in sorted(set(old) | set(new), key=lambda key: (key[1], key[0])):
        for sentence in _slitlet(slitlet, old.get((meta, slitlet)), new.get((meta, slitlet))):
            told.setdefault(sentence, set()).add(meta)
    said = [
        sentence if where == metas else f"{sentence} (configuration {', '.join(map(str, sorted(where)))})"
        for sentence, where in told.items()
    ]
    return said + list(_sources(before.sources, after.sources))


def _by_slitlet(msa: MsaFile) -> dict[tuple[int, int], np.ndarray]:
    rows = msa.shutters[msa.shutters["slitlet_id"] > 0]
    order = np.lexsort(
        (rows["shutter_column"], rows["dither_point_index"], rows["slitlet_id"], rows["msa_metadata_id"])
    )
    rows = rows[order]
    keys = np.stack([rows["msa_metadata_id"], rows["slitlet_id"]], axis=1)
    if not len(keys):
        return {}
    unique, first = np.unique(keys, axis=0, return_index=True)
    return {(int(m), int(s)): part for (m, s), part in zip(unique, np.split(rows, first[1:]), strict=True)}


def _slitlet(slitlet: int, old: np.ndarray | None, new: np.ndarray | None) -> Iterator[str]:
    name = f"slitlet {slitlet}"
    if new is None:
        yield f"{name} removed ({_describe(old)})"
    elif old is None:
        yield f"{name} new ({_describe(new)})"
    else:
        if _describe(old, ids=False) != _describe(new, ids=False):
            yield f"{name}: {_describe(old, ids=False)} became {_describe(new, ids=False)}"
        if _ids(old) != _ids(new):
            yield f"{name}: source ids {_ids(old)} became {_ids(new)}"
        yield from _flags(name, old, new)


def _describe(rows: np.ndarray, *, ids: bool = True) -> str:
    columns = np.unique(rows["shutter_column"])
    span = f"{columns[0]}" if len(columns) == 1 else f"{columns[0]}-{columns[-1]}"
    if len(columns) and columns[-1] - columns[0] + 1 != len(columns):
        span = ", ".join(map(str, columns))
    place = f"quadrant {rows['shutter_quadrant'][0]}, row {rows['shutter_row'][0]}, columns {span}"
    return f"{place}, source ids {_ids(rows)}" if ids else place


def _ids(rows: np.ndarray) -> str:
    return ", ".join(str(i) for i in np.unique(rows["source_id"]))


def _flags(name: str, old: np.ndarray, new: np.ndarray) -> Iterator[str]:
    """Tell of flags and positions of the shutters that both have."""
    pairs = list(_pairs(old, new))
    for flag, what in (("background", "background"), ("primary_source", "the primary source's")):
        for value, verb in (("Y", "marked as"), ("N", "no longer")):
            columns = sorted({int(b["shutter_column"]) for a, b in pairs if a[flag] != b[flag] == value})
            if columns:
                yield f"{name}: column {', '.join(map(str, columns))} {verb} {what}"
    moved = []
    for a, b in pairs:
        was, now = (tuple(float(r[f"estimated_source_in_shutter_{axis}"]) for axis in "xy") for r in (a, b))
        if not np.array_equal(was, now, equal_nan=True):
            moved.append((was, now))
    if moved:
        (was, now), more = moved[0], f" (and {len(moved) - 1} more rows)" if len(moved) > 1 else ""
        yield (f"{name}: position in the shutter {was[0]:.3f}, {was[1]:.3f} became {now[0]:.3f}, {now[1]:.3f}{more}")


def _pairs(old: np.ndarray, new: np.ndarray) -> Iterator[tuple[np.void, np.void]]:
    """Rows of the same shutter and dither point, in their order where it has several."""
    key = ("dither_point_index", "shutter_quadrant", "shutter_row", "shutter_column")
    there: dict[tuple[int, ...], list[np.void]] = {}
    for row in old:
        there.setdefault(tuple(int(row[k]) for k in key), []).append(row)
    for row in new:
        place = there.get(tuple(int(row[k]) for k in key))
        if place:
            yield place.pop(0), row


def _sources(old: np.ndarray, new: np.ndarray) -> Iterator[str]:
    was, now = ({int(row["source_id"]): row for row in table} for table in (old, new))
    for source in sorted(set(was) - set(now)):
        yield f"source {source} removed from SOURCE_INFO"
    for source in sorted(set(now) - set(was)):
        yield f"source {source} new in SOURCE_INFO"
    for source in sorted(set(was) & set(now)):
        for column in old.dtype.names:
            a, b = was[source][column], now[source][column]
            if a != b and not (a != a and b != b):  # NaN is not equal to itself
                yield f"source {source}: {column} {a} became {b}"
