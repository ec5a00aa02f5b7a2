"""What can be wrong with an MSA metafile.

Errors would make jwst stop, or give a spectrum to the wrong source without a word: they stop msa3d before any
reduction. Warnings are things that real metafiles of the archive contain, such as a second source in a slitlet,
or slitlets that hold no source at some dither points.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from msa3d.errors import MetafileError
from msa3d.observation.metafile_tables import ADDED, place_in_image

if TYPE_CHECKING:
    from msa3d.observation.metafile import MsaFile


#: Rows of one slitlet at one dither point: (msa_metadata_id, dither_point_index, slitlet_id).
_Groups = dict[tuple[int, int, int], np.ndarray]


@dataclass(frozen=True)
class MetafileProblem:
    """One thing that is wrong.

    Parameters
    ----------
    level : {"error", "warning"}
        See the module.
    kind : str
        Short name of the kind, for programs: ``duplicate slitlets``, ``source without slitlet``, ...
    message : str
        One sentence.
    source_id : int, optional
        Source concerned.
    """

    level: Literal["error", "warning"]
    kind: str
    message: str
    source_id: int | None = None

    def __str__(self) -> str:
        """Level and sentence."""
        return f"{self.level}: {self.message}"


def find_problems(msa: MsaFile) -> list[MetafileProblem]:
    """Look for all kinds of contradictions in a metafile; errors come first."""
    groups = _groups(msa)
    found = [
        *(MetafileProblem("warning", "rows left out", text) for text in msa.left_out),
        *_invalid_rows(msa),
        *_duplicate_slitlets(groups),
        *_slitlets(groups),
        *_lost_shutters(msa, groups),
        *_sources_in_two_slitlets(groups),
        *_sources(msa),
    ]
    return sorted(found, key=lambda problem: problem.level != "error")


def _groups(msa: MsaFile) -> _Groups:
    table = msa.shutters[msa.shutters["slitlet_id"] > 0]  # jwst ignores slitlet -1
    keys = np.stack([table[name] for name in ("msa_metadata_id", "dither_point_index", "slitlet_id")], axis=1)
    if not len(keys):
        return {}
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse))[:-1])
    return {tuple(int(k) for k in key): table[part] for key, part in zip(unique, parts, strict=True)}


def _more(items: list) -> str:
    return f" (and {len(items) - 1} more)" if len(items) > 1 else ""


def _at(points: list[tuple[int, int]]) -> str:
    """Where something happens: dither points of a problem that comes more than once."""
    return f"at dither point {points[0][1]} of configuration {points[0][0]}{_more(points)}"


def _collect(pairs: Iterator[tuple]) -> dict:
    """Gather ``(what, where)`` into ``{what: [where, ...]}`` so that each thing is told once."""
    gathered: dict = {}
    for what, where in pairs:
        gathered.setdefault(what, []).append(where)
    return gathered


def _invalid_rows(msa: MsaFile) -> Iterator[MetafileProblem]:
    table = msa.shutters
    limits = {"shutter_quadrant": (1, 4), "shutter_row": (1, 365), "shutter_column": (1, 171)}
    for name, (low, high) in limits.items():
        for number in np.flatnonzero((table[name] < low) | (table[name] > high)):
            yield MetafileProblem(
                "error",
                "invalid row",
                f"row {number + 1} of SHUTTER_INFO (slitlet {table['slitlet_id'][number]}) has {name} "
                f"{table[name][number]}, which must be {low} to {high}",
            )
    for name, allowed in (
        ("shutter_state", ("OPEN", "CLOSED", ADDED)),
        ("background", ("Y", "N")),
        ("primary_source", ("Y", "N")),
    ):
        values = np.char.strip(table[name])
        for number in np.flatnonzero(~np.isin(values, allowed)):
            yield MetafileProblem(
                "error",
                "invalid row",
                f"row {number + 1} of SHUTTER_INFO (slitlet {table['slitlet_id'][number]}) has {name} "
                f"{str(values[number])!r}, which must be {' or '.join(allowed)}",
            )
    for number in np.flatnonzero(table["dither_point_index"] < 1):
        yield MetafileProblem(
            "error",
            "invalid row",
            f"row {number + 1} of SHUTTER_INFO has dither_point_index {table['dither_point_index'][number]}, "
            "which must be 1 or more",
        )


def _duplicate_slitlets(groups: _Groups) -> Iterator[MetafileProblem]:
    """Find pairs of slitlets that share a shutter."""

    def pairs() -> Iterator[tuple]:
        holder: dict[tuple[int, ...], int] = {}
        for (meta, dither, slitlet), rows in groups.items():
            for row in rows:
                shutter = tuple(int(row[f"shutter_{name}"]) for name in ("quadrant", "row", "column"))
                other = holder.setdefault((meta, dither, *shutter), slitlet)
                if other != slitlet:
                    yield (other, slitlet), (meta, dither, shutter)

    for (first, second), where in _collect(pairs()).items():
        shutters = sorted({place[2] for place in where})
        points = sorted({place[:2] for place in where})
        yield MetafileProblem(
            "error",
            "duplicate slitlets",
            f"slitlets {first} and {second} are duplicates: both hold shutter quadrant {shutters[0][0]}, row "
            f"{shutters[0][1]}, column {shutters[0][2]}{_more(shutters)} {_at(points)}",
        )


def _slitlets(groups: _Groups) -> Iterator[MetafileProblem]:
    """Find what is wrong within single slitlets."""
    for (level, kind, text), points in _collect(_within_slitlets(groups)).items():
        yield MetafileProblem(level, kind, f"{text} {_at(points)}")


def _within_slitlets(groups: _Groups) -> Iterator[tuple]:
    for (meta, dither, slitlet), rows in groups.items():
        where = (meta, dither)
        primary = rows[rows["primary_source"] == "Y"]
        sources = sorted({int(i) for i in rows["source_id"] if i > 0})
        if len(primary) > 1:
            text = (
                f"slitlet {slitlet} is given twice: it has {len(primary)} primary sources "
                f"({', '.join(str(i) for i in primary['source_id'])}), jwst allows one,"
            )
            yield ("error", "several primary sources", text), where
        elif len(primary) == 1:
            light = rows[rows["background"] == "N"]
            if not len(light):
                text = f"slitlet {slitlet} has a primary source in a shutter that is marked as background,"
                yield ("error", "primary source in background", text), where
            elif light["shutter_column"][0] != primary["shutter_column"][0]:
                text = (
                    f"slitlet {slitlet}: jwst 1.14.0 takes the first shutter that is not background for that of "
                    f"the primary source {primary['source_id'][0]}, which is another"
                )
                yield ("warning", "shutter of another source", text), where
        elif sources:
            text = f"slitlet {slitlet} of source {sources[0]} has no primary source, jwst calls it background"
            yield ("warning", "no primary source", text), where
        place = rows[(rows["background"] == "N") & (rows["source_id"] > 0)]
        if not all(np.isfinite(place[f"estimated_source_in_shutter_{axis}"]).all() for axis in "xy"):
            text = f"slitlet {slitlet} does not say where its source {place['source_id'][0]} is, the middle is taken"
            yield ("warning", "no source position", text), where
        if len(sources) > 1:
            text = f"slitlet {slitlet} holds sources {', '.join(map(str, sources))}"
            yield ("warning", "several sources", text), where
        places = {(int(row["shutter_quadrant"]), int(row["shutter_row"])) for row in rows}
        if len(places) > 1:
            text = f"slitlet {slitlet} has shutters in more than one row of the MSA ({len(places)} rows)"
            yield ("error", "slitlet in several rows", text), where
        columns = np.unique(rows["shutter_column"])
        if columns[-1] - columns[0] + 1 != len(columns):
            text = f"slitlet {slitlet} has a gap: columns {', '.join(map(str, columns))}"
            yield ("warning", "gap in slitlet", text), where


def _lost_shutters(msa: MsaFile, groups: _Groups) -> Iterator[MetafileProblem]:
    """Find shutters that a slitlet has at most dither points, but not at all, or in SHUTTER_IMAGE only.

    While the telescope steps, the shutters stay as they are: where one is missing, a row is lost. A configuration of
    its own may have other slitlets; one that has most of a slitlet's shutters is the same.
    """
    slitlets: dict[int, dict[tuple[int, int], set]] = {}
    for (meta, dither, slitlet), rows in groups.items():
        here = {tuple(int(row[f"shutter_{name}"]) for name in ("quadrant", "row", "column")) for row in rows}
        slitlets.setdefault(slitlet, {})[meta, dither] = here
    points = {(meta, dither) for meta, dither, _ in groups}

    def pairs() -> Iterator[tuple]:
        for slitlet, places in slitlets.items():
            for shutter in set().union(*places.values()):
                has = {point for point, shutters in places.items() if shutter in shutters}
                alike = set().union(*(places[point] for point in has))
                same = {meta for meta, _ in has}
                lacks = {p for p in points - has if p[0] in same or places.get(p, set()) & alike}
                if len(lacks) < len(has) or {meta for meta, _ in lacks} & same:
                    for point in lacks:
                        yield (slitlet, shutter), point

    for (slitlet, (quadrant, row, column)), where in sorted(_collect(pairs()).items()):
        yield MetafileProblem(
            "error",
            "shutter missing",
            f"slitlet {slitlet} lacks shutter quadrant {quadrant}, row {row}, column {column} {_at(sorted(where))}, "
            "which it has at others",
        )
    known = set()
    for row in msa.shutters:
        with suppress(MetafileError):  # told of as an invalid row
            known.add(place_in_image(row))
    lost = [place for place in zip(*np.nonzero(msa.image > 0), strict=True) if place not in known]
    if lost:
        # Rows that were left out are known already.
        yield MetafileProblem(
            "warning" if msa.left_out else "error",
            "shutter missing",
            f"SHUTTER_IMAGE has slitlet {msa.image[lost[0]]} at [{lost[0][0]}, {lost[0][1]}]{_more(lost)}, for which "
            "SHUTTER_INFO has no row",
        )


def _sources_in_two_slitlets(groups: _Groups) -> Iterator[MetafileProblem]:
    def pairs() -> Iterator[tuple]:
        holder: dict[tuple[int, int, int], int] = {}
        for (meta, dither, slitlet), rows in groups.items():
            for source in {int(i) for i in rows["source_id"][rows["primary_source"] == "Y"] if i > 0}:
                other = holder.setdefault((meta, dither, source), slitlet)
                if other != slitlet:
                    yield (source, other, slitlet), (meta, dither)

    for (source, first, second), points in _collect(pairs()).items():
        yield MetafileProblem(
            "error",
            "source in two slitlets",
            f"source {source} is the primary source of slitlets {first} and {second} {_at(points)}: their spectra "
            "would get the same file name",
            source,
        )


def _sources(msa: MsaFile) -> Iterator[MetafileProblem]:
    ids = [int(i) for i in msa.sources["source_id"]]
    named = {int(i) for i in msa.shutters["source_id"][msa.shutters["slitlet_id"] > 0]}
    for source in sorted(i for i in named - set(ids) if i != 0):
        yield MetafileProblem(
            # Of what was planned as background jwst needs none.
            "error" if source > 0 else "warning",
            "source without entry",
            f"source {source} has a slitlet but no entry in SOURCE_INFO",
            source,
        )
    for source in sorted(set(ids) - named):
        yield MetafileProblem(
            # One of the dataset's targets is an error all the same: of the dataset (`msa3d.observation.exposures`).
            "warning",
            "source without slitlet",
            f"source {source} of SOURCE_INFO has no slitlet in SHUTTER_INFO",
            source,
        )
    for source in sorted({i for i in ids if ids.count(i) > 1}):
        yield MetafileProblem(
            "error", "duplicate source", f"source {source} has several entries in SOURCE_INFO", source
        )
    ra, dec = msa.sources["ra"], msa.sources["dec"]
    good = np.isfinite(ra) & np.isfinite(dec) & (ra >= 0) & (ra < 360) & (np.abs(dec) <= 90)
    good &= ~((ra == 0) & (dec == 0))
    for number in np.flatnonzero(~good):
        yield MetafileProblem(
            "error" if ids[number] > 0 else "warning",
            "source without coordinates",
            f"source {ids[number]} has no valid coordinates in SOURCE_INFO (ra {ra[number]}, dec {dec[number]})",
            ids[number],
        )
