"""Rows of an MSA metafile, found and given other slitlets and sources: helpers of `msa3d.msaedit`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from msa3d._msatables import place_in_image
from msa3d.errors import MetafileError
from msa3d.msafile import MsaFile

#: Slitlet ids are 16-bit integers in the file.
_LARGEST_SLITLET_ID = 32767


def name_of(msa: MsaFile) -> str:
    return str(msa.path or "The metafile")


def shutter_of(row: np.void) -> tuple[int, ...]:
    names = ("msa_metadata_id", "dither_point_index", "shutter_quadrant", "shutter_row", "shutter_column")
    return tuple(int(row[name]) for name in names)


def rows_of(msa: MsaFile, slitlet_id: int, metadata_id: int | None = None) -> np.ndarray:
    mine = msa.shutters["slitlet_id"] == slitlet_id
    if metadata_id is not None:
        mine = mine & (msa.shutters["msa_metadata_id"] == metadata_id)
    if slitlet_id < 1 or not mine.any():
        raise MetafileError(f"{name_of(msa)} has no slitlet {slitlet_id}.")
    return mine


def slitlets_of(msa: MsaFile, wanted: set[int]) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Rows of every slitlet of every configuration; of the wanted ones where any are named."""
    there = {int(i) for i in msa.shutters["slitlet_id"]}
    missing = sorted(wanted - there)
    if missing:
        raise MetafileError(f"{name_of(msa)} has no slitlet {missing[0]}.")
    keys = zip(msa.shutters["msa_metadata_id"], msa.shutters["slitlet_id"], strict=True)
    for meta, slitlet in sorted({(int(m), int(s)) for m, s in keys if s > 0 and (not wanted or int(s) in wanted)}):
        yield (meta, slitlet), msa.shutters[rows_of(msa, slitlet, meta)]


class Names(dict):
    """New slitlet ids by what they are for, the same in all configurations."""

    def __init__(self, msa: MsaFile) -> None:
        super().__init__()
        self._greatest = int(max(msa.shutters["slitlet_id"], default=0))

    def __missing__(self, what: tuple) -> int:
        self[what] = self._greatest + len(self) + 1
        return self[what]


def with_rows(msa: MsaFile, shutters: np.ndarray) -> MsaFile:
    """Give a metafile other rows, and SHUTTER_IMAGE what follows from them."""
    if len(shutters) and shutters["slitlet_id"].max() >= _LARGEST_SLITLET_ID:
        raise MetafileError(f"{name_of(msa)}: there are no slitlet ids left, {_LARGEST_SLITLET_ID} is the greatest.")
    image = np.zeros_like(msa.image)
    for row in shutters[shutters["slitlet_id"] > 0]:
        image[place_in_image(row)] = row["slitlet_id"]
    return replace(msa, shutters=shutters, image=image)


def entry_of(msa: MsaFile, source_id: int, coordinates: tuple[float, float] | None = None) -> np.ndarray:
    """Entry of a source in SOURCE_INFO, one row; or a new one at some coordinates where there is none."""
    entry = msa.sources[msa.sources["source_id"] == source_id][:1].copy()
    if len(entry) or coordinates is None:
        return entry
    entry = np.zeros(1, msa.sources.dtype)
    entry["program"] = int(msa.header.get("PROGRAM", 0) or 0)
    entry["ra"], entry["dec"], entry["preimage_id"] = *coordinates, "None"
    return entry


def give_sources(msa: MsaFile, parents: Mapping[int, np.ndarray], first: int | None = None) -> MsaFile:
    """Give slitlets new sources, primary in their middle shutter, each made from another entry of SOURCE_INFO."""
    shutters, known = msa.shutters.copy(), {int(i) for i in msa.sources["source_id"]}
    known |= {int(i) for i in shutters["source_id"]}
    number, entries = (max(known, default=0) + 1 if first is None else first), []
    for slitlet, parent in parents.items():
        if number in known:
            raise MetafileError(f"{name_of(msa)}: source id {number} is taken; count from another one.")
        mine = rows_of(msa, slitlet)
        columns = np.unique(shutters["shutter_column"][mine])
        main = mine & (shutters["shutter_column"] == columns[len(columns) // 2])
        # A row a shutter and dither point: others are of further sources in the same shutter.
        main[np.setdiff1d(np.flatnonzero(main), _first_rows(shutters, main))] = False
        shutters["source_id"][mine] = number
        shutters["background"][mine], shutters["primary_source"][mine] = "Y", "N"
        shutters["background"][main], shutters["primary_source"][main] = "N", "Y"
        for axis in "xy":
            shutters[f"estimated_source_in_shutter_{axis}"][mine] = np.nan
            shutters[f"estimated_source_in_shutter_{axis}"][main] = 0.5
        entry = parent.copy()
        entry["source_id"] = number
        entries.append(entry)
        number += 1
    return replace(msa, shutters=shutters, sources=np.concatenate([msa.sources, *entries]))


def _first_rows(shutters: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """Numbers of the first row of each configuration and dither point among some rows."""
    rows = np.flatnonzero(mine)
    points = np.stack([shutters[name][rows] for name in ("msa_metadata_id", "dither_point_index")], axis=1)
    return rows[np.unique(points, axis=0, return_index=True)[1]]


def without_orphans(msa: MsaFile, before: MsaFile, *, shortened: bool = False) -> MsaFile:
    """Take out of SOURCE_INFO what has lost its slitlet (after shortening, all positive ids without one)."""
    there = {int(i) for i in msa.shutters["source_id"]}
    if shortened:
        lost = {int(i) for i in msa.sources["source_id"] if i > 0} - there
    else:
        lost = {int(i) for i in before.shutters["source_id"]} - there
    return replace(msa, sources=msa.sources[~np.isin(msa.sources["source_id"], sorted(lost))])
