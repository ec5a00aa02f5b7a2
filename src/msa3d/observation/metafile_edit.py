"""Edits of MSA metafiles, each of which gives a new `MsaFile`; `changes` lists what one of them changed.

Nothing is ever changed in place and no file is written over: read, edit, `MsaFile.write` to another name. What an
edit cannot do for a slitlet (there is no shutter beyond the edge of the MSA, say) is told in the log, not passed over.
Keeping a few sources is a method of `MsaFile` itself, ``select_sources``.

Why one would: ``split_slitlets`` for path loss of slitlets of more than 3 shutters (NS-MOS03 of the list of known
issues of STScI), ``lengthen_slitlets`` for fluxes lost at the ends of slitlets (NS-MOS06, jwst issue 7877),
``set_stellarity`` and ``set_position`` for the path loss of point sources, ``set_background`` for the master
background, ``one_slitlet_per_shutter`` for long slits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from msa3d.errors import MetafileError
from msa3d.observation.metafile import MsaFile
from msa3d.observation.metafile_tables import ADDED, N_COLUMNS, place_in_image

#: Slitlet ids are 16-bit integers in the file.
_LARGEST_SLITLET_ID = 32767


def _name_of(msa: MsaFile) -> str:
    return str(msa.path or "The metafile")


def _shutter_of(row: np.void) -> tuple[int, ...]:
    names = ("msa_metadata_id", "dither_point_index", "shutter_quadrant", "shutter_row", "shutter_column")
    return tuple(int(row[name]) for name in names)


def _rows_of(msa: MsaFile, slitlet_id: int, metadata_id: int | None = None) -> np.ndarray:
    mine = msa.shutters["slitlet_id"] == slitlet_id
    if metadata_id is not None:
        mine = mine & (msa.shutters["msa_metadata_id"] == metadata_id)
    if slitlet_id < 1 or not mine.any():
        raise MetafileError(f"{_name_of(msa)} has no slitlet {slitlet_id}.")
    return mine


def _slitlets_of(msa: MsaFile, wanted: set[int]) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Rows of every slitlet of every configuration; of the wanted ones where any are named."""
    there = {int(i) for i in msa.shutters["slitlet_id"]}
    missing = sorted(wanted - there)
    if missing:
        raise MetafileError(f"{_name_of(msa)} has no slitlet {missing[0]}.")
    keys = zip(msa.shutters["msa_metadata_id"], msa.shutters["slitlet_id"], strict=True)
    for meta, slitlet in sorted({(int(m), int(s)) for m, s in keys if s > 0 and (not wanted or int(s) in wanted)}):
        yield (meta, slitlet), msa.shutters[_rows_of(msa, slitlet, meta)]


class _Names(dict):
    """New slitlet ids by what they are for, the same in all configurations."""

    def __init__(self, msa: MsaFile) -> None:
        super().__init__()
        self._greatest = int(max(msa.shutters["slitlet_id"], default=0))

    def __missing__(self, what: tuple) -> int:
        self[what] = self._greatest + len(self) + 1
        return self[what]


def _with_rows(msa: MsaFile, shutters: np.ndarray) -> MsaFile:
    """Give a metafile other rows, and SHUTTER_IMAGE what follows from them."""
    if len(shutters) and shutters["slitlet_id"].max() >= _LARGEST_SLITLET_ID:
        raise MetafileError(f"{_name_of(msa)}: there are no slitlet ids left, {_LARGEST_SLITLET_ID} is the greatest.")
    image = np.zeros_like(msa.image)
    for row in shutters[shutters["slitlet_id"] > 0]:
        image[place_in_image(row)] = row["slitlet_id"]
    return replace(msa, shutters=shutters, image=image)


def _entry_of(msa: MsaFile, source_id: int, coordinates: tuple[float, float] | None = None) -> np.ndarray:
    """Entry of a source in SOURCE_INFO, one row; or a new one at some coordinates where there is none."""
    entry = msa.sources[msa.sources["source_id"] == source_id][:1].copy()
    if len(entry) or coordinates is None:
        return entry
    entry = np.zeros(1, msa.sources.dtype)
    entry["program"] = int(msa.header.get("PROGRAM", 0) or 0)
    entry["ra"], entry["dec"], entry["preimage_id"] = *coordinates, "None"
    return entry


def _give_sources(msa: MsaFile, parents: Mapping[int, np.ndarray], first: int | None = None) -> MsaFile:
    """Give slitlets new sources, primary in their middle shutter, each made from another entry of SOURCE_INFO."""
    shutters, known = msa.shutters.copy(), {int(i) for i in msa.sources["source_id"]}
    known |= {int(i) for i in shutters["source_id"]}
    number, entries = (max(known, default=0) + 1 if first is None else first), []
    for slitlet, parent in parents.items():
        if number in known:
            raise MetafileError(f"{_name_of(msa)}: source id {number} is taken; count from another one.")
        mine = _rows_of(msa, slitlet)
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


def _without_orphans(msa: MsaFile, before: MsaFile, *, shortened: bool = False) -> MsaFile:
    """Take out of SOURCE_INFO what has lost its slitlet (after shortening, all positive ids without one)."""
    there = {int(i) for i in msa.shutters["source_id"]}
    if shortened:
        lost = {int(i) for i in msa.sources["source_id"] if i > 0} - there
    else:
        lost = {int(i) for i in before.shutters["source_id"]} - there
    return replace(msa, sources=msa.sources[~np.isin(msa.sources["source_id"], sorted(lost))])


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


logger = logging.getLogger(__name__)

# --- what is said of sources


def transform_ids(msa: MsaFile, shorten: Literal["first", "last"] | None = None) -> MsaFile:
    """Give every row of a slitlet the id of its source, as the paper does.

    Parameters
    ----------
    msa : MsaFile
        The metafile.
    shorten : {"first", "last"}, optional
        Also take three digits off ids of 100000 and more.

    Returns
    -------
    MsaFile
        As ``msa.transform_ids``; second sources of a slitlet, left without one, go from SOURCE_INFO.

    Raises
    ------
    MetafileError
        Where shortened ids would collide.
    """
    return _without_orphans(msa.transform_ids(shorten=shorten), msa, shortened=shorten is not None)


def set_stellarity(msa: MsaFile, stellarity: Mapping[int, float]) -> MsaFile:
    """Say which sources are points.

    Parameters
    ----------
    msa : MsaFile
        The metafile.
    stellarity : mapping of int to float
        By source id, from 0 (extended) to 1 (a point); jwst 1.14.0 takes more than 0.75 for a point. A negative
        number means unknown.

    Raises
    ------
    MetafileError
        For a source that is not in SOURCE_INFO, or a value that is NaN or outside -1 to 1.
    """
    sources = msa.sources.copy()
    for source_id, value in stellarity.items():
        mine = sources["source_id"] == source_id
        if not mine.any():
            raise MetafileError(f"{_name_of(msa)} has no source {source_id} in SOURCE_INFO.")
        if not -1 <= value <= 1:
            raise MetafileError(f"stellarity of source {source_id} must be from -1 (unknown) to 1, not {value}.")
        sources["stellarity"][mine] = value
    return replace(msa, sources=sources)


def set_position(msa: MsaFile, source_id: int, x: float, y: float, dither_points: Iterable[int] = ()) -> MsaFile:
    """Say where a source is in its shutter.

    Parameters
    ----------
    msa : MsaFile
        The metafile.
    source_id : int
        A source that is the primary source of a slitlet.
    x, y : float
        Place along dispersion and along the slit, fractions of the shutter's pitch from its lower left corner:
        0.5, 0.5 is the middle.
    dither_points : iterable of int, optional
        Dither points (``dither_point_index``) that it holds for; by default all.

    Raises
    ------
    MetafileError
        For a source without such rows, a dither point without one, or a place outside the shutter.
    """
    for axis, value in (("x", x), ("y", y)):
        if not 0 <= value <= 1:
            raise MetafileError(
                f"{axis} of source {source_id} must be from 0 to 1 (of the shutter's pitch), not {value}."
            )
    wanted = set(dither_points)
    shutters = msa.shutters.copy()
    mine = (shutters["source_id"] == source_id) & (shutters["primary_source"] == "Y")
    if not mine.any():
        raise MetafileError(f"{_name_of(msa)} has no shutter whose primary source is {source_id}.")
    missing = sorted(wanted - {int(point) for point in shutters["dither_point_index"][mine]})
    if missing:
        raise MetafileError(f"{_name_of(msa)} has no dither point {missing[0]} for source {source_id}.")
    if wanted:
        mine &= np.isin(shutters["dither_point_index"], sorted(wanted))
    shutters["estimated_source_in_shutter_x"][mine] = x
    shutters["estimated_source_in_shutter_y"][mine] = y
    return replace(msa, shutters=shutters)


# --- what is said of shutters


def set_background(msa: MsaFile, slitlet_id: int, columns: Iterable[int] = (), background: bool = True) -> MsaFile:
    """Say which shutters of a slitlet hold background.

    Parameters
    ----------
    msa : MsaFile
        The metafile.
    slitlet_id : int
        The slitlet.
    columns : iterable of int, optional
        Its shutters, by column of the MSA; by default all of them: then it becomes a slitlet of background alone,
        its source ids 0 and no source primary.
    background : bool
        Whether they hold background; False marks them as holding the source.

    Raises
    ------
    MetafileError
        For a slitlet or column that is not there, or where the shutter of the primary source would be background.
    """
    shutters = msa.shutters.copy()
    mine = _rows_of(msa, slitlet_id)
    wanted = set(columns)
    missing = sorted(wanted - {int(column) for column in shutters["shutter_column"][mine]})
    if missing:
        raise MetafileError(f"{_name_of(msa)}: slitlet {slitlet_id} has no shutter in column {missing[0]}.")
    if wanted:
        mine &= np.isin(shutters["shutter_column"], sorted(wanted))
        if background and (shutters["primary_source"][mine] == "Y").any():
            raise MetafileError(
                f"{_name_of(msa)}: the primary source of slitlet {slitlet_id} is in one of the columns "
                f"{', '.join(map(str, sorted(wanted)))}; leave it out, or make the whole slitlet background."
            )
    elif background:
        shutters["source_id"][mine] = 0
        shutters["primary_source"][mine] = "N"
        for axis in "xy":
            shutters[f"estimated_source_in_shutter_{axis}"][mine] = np.nan
    shutters["background"][mine] = "Y" if background else "N"
    return _without_orphans(replace(msa, shutters=shutters), msa)


# --- slitlets of other lengths


def lengthen_slitlets(msa: MsaFile, shutters: int = 1, slitlet_ids: Iterable[int] = ()) -> MsaFile:
    """Pretend that slitlets have more open shutters at each end, so that light there is cut out and kept.

    Parameters
    ----------
    msa : MsaFile
        The metafile.
    shutters : int
        How many at each end. The new ones are marked as background, with the ``shutter_state`` `ADDED`: `process`
        has jwst cut them out, and takes them out of SHUTSTA, so that the drizzle builder measures nothing there.
    slitlet_ids : iterable of int, optional
        Which slitlets; by default all.

    Returns
    -------
    MsaFile
        Ends at the edge of the MSA, or at another slitlet, stay as they are; the log says which.

    Raises
    ------
    MetafileError
        For less than one shutter, or a slitlet that is not there.

    Notes
    -----
    Source: the workaround in issue 7877 of jwst (three shutters become five), NS-MOS06 of the known issues.
    """
    if shutters < 1:
        raise MetafileError(f"slitlets can be made longer by 1 shutter or more at each end, not by {shutters}.")
    made = msa
    for _ in range(shutters):
        made = _one_longer(made, set(slitlet_ids))
    return made


def _one_longer(msa: MsaFile, slitlet_ids: set[int]) -> MsaFile:
    taken = {_shutter_of(row) for row in msa.shutters[msa.shutters["slitlet_id"] > 0]}
    new, stuck = [], []
    for (_, slitlet), rows in _slitlets_of(msa, slitlet_ids):
        columns = rows["shutter_column"]
        for end, step in ((columns.min(), -1), (columns.max(), 1)):
            at_end = rows[columns == end]
            # A row a dither point, even where the shutter has a row for each of several sources.
            added = at_end[np.unique(at_end["dither_point_index"], return_index=True)[1]].copy()
            added["shutter_column"] += step
            place = {_shutter_of(row) for row in added}
            if not 1 <= end + step <= N_COLUMNS or place & taken:
                stuck.append(f"{slitlet} beyond column {end}")
                continue
            taken |= place
            new.append(_pretended(added))
    if stuck:
        logger.warning(
            "no room for another shutter (edge of the MSA, or another slitlet) at slitlet %s",
            "; ".join(dict.fromkeys(stuck)),
        )
    return _with_rows(msa, np.concatenate([msa.shutters, *new]))


def _pretended(rows: np.ndarray) -> np.ndarray:
    """Mark rows as shutters beside a source, which keep its id and only pretend to be open."""
    wide = {"shutter_state": "U6"}  # text is as wide as its longest value
    rows = rows.astype([(name, wide.get(name, rows.dtype[name])) for name in rows.dtype.names])
    rows["background"], rows["primary_source"], rows["shutter_state"] = "Y", "N", ADDED
    for axis in "xy":
        rows[f"estimated_source_in_shutter_{axis}"] = np.nan
    return rows


def split_slitlets(msa: MsaFile, longest: int = 3, own_sources: bool = False) -> MsaFile:
    """Split slitlets that are longer than some number of shutters.

    The piece with the source stays the slitlet, as nearly centred on the source's shutter as its length allows;
    the others get new slitlet ids.

    Parameters
    ----------
    msa : MsaFile
        The metafile.
    longest : int
        Longest slitlet that stays as it is.
    own_sources : bool
        Give the other pieces of a source's slitlet sources of their own (new ids, the coordinates of the source,
        position in the middle of the shutter), so that each gets a spectrum under its own name. Otherwise they are
        background, for which jwst makes up source ids.

    Raises
    ------
    MetafileError
        For a length below 1, where a source moves over more shutters than that, or where ids run out.
    """
    if longest < 1:
        raise MetafileError(f"the longest slitlet has 1 shutter or more, not {longest}.")
    shutters, parents, owners = msa.shutters.copy(), {}, msa.owners()
    names = _Names(msa)
    for key, rows in _slitlets_of(msa, set()):
        columns = np.unique(rows["shutter_column"])
        if len(columns) <= longest:
            continue
        primary = rows["shutter_column"][rows["primary_source"] == "Y"]
        for piece in _pieces(msa, key[1], columns, np.unique(primary), longest)[1:]:
            mine = _rows_of(msa, key[1], key[0]) & np.isin(shutters["shutter_column"], piece)
            new = names[(key[1], *piece)]
            shutters["slitlet_id"][mine] = new
            shutters["source_id"][mine] = 0
            if key in owners:
                parents[new] = _entry_of(msa, owners[key])
    made = _with_rows(msa, shutters)
    return _give_sources(made, parents) if own_sources else made


def _pieces(msa: MsaFile, slitlet: int, columns: np.ndarray, primary: np.ndarray, longest: int) -> list[np.ndarray]:
    """Cut a slitlet's columns into pieces, that of the source first."""
    if not len(primary):
        return [columns[i : i + longest] for i in range(0, len(columns), longest)]
    if primary[-1] - primary[0] >= longest:
        raise MetafileError(
            f"{_name_of(msa)}: the source of slitlet {slitlet} is in columns {primary[0]} to {primary[-1]} at "
            f"different "
            f"dither points, which no slitlet of {longest} shutters holds."
        )
    low, high = np.searchsorted(columns, primary[[0, -1]])
    first = int(np.clip((low + high) // 2 - longest // 2, 0, len(columns) - longest))
    first = max(min(first, int(low)), int(high) - longest + 1)
    last = first + longest
    # Outwards from the source, so that only the pieces at the ends can be short.
    below, above = columns[:first][::-1], columns[last:]
    others = [part[i : i + longest] for part in (below, above) for i in range(0, len(part), longest)]
    return [columns[first:last], *others]


def one_slitlet_per_shutter(
    msa: MsaFile,
    slitlet_ids: Iterable[int],
    first_source_id: int | None = None,
    coordinates: tuple[float, float] | None = None,
) -> MsaFile:
    """Turn long slits, stepped across an extended source, into one slitlet a shutter with a source of its own.

    Parameters
    ----------
    msa : MsaFile
        The metafile.
    slitlet_ids : iterable of int
        Which slits.
    first_source_id : int, optional
        Source ids count up from here; by default from the greatest id plus 1.
    coordinates : tuple of float, optional
        Right ascension and declination (ICRS, degrees) for SOURCE_INFO, for slits without a source.

    Returns
    -------
    MsaFile
        SOURCE_INFO has an entry for every shutter, in the order of the columns of the MSA, with the coordinates of
        the slit's source. Where a source is left without a slitlet its entry goes.

    Raises
    ------
    MetafileError
        For a slitlet that is not there, a source id that is taken, or a slit without a source and coordinates.
    """
    wanted = set(slitlet_ids)
    if not wanted:
        raise MetafileError("name the slitlets that become one slitlet a shutter.")
    shutters, parents, owners = msa.shutters.copy(), {}, msa.owners()
    names = _Names(msa)
    for key, rows in _slitlets_of(msa, wanted):
        if key not in owners and coordinates is None:
            raise MetafileError(
                f"{_name_of(msa)}: slitlet {key[1]} has no source; give right ascension and declination."
            )
        for column in np.unique(rows["shutter_column"]):
            mine = _rows_of(msa, key[1], key[0]) & (shutters["shutter_column"] == column)
            new = names[key[1], column]
            shutters["slitlet_id"][mine] = new
            parents[new] = _entry_of(msa, owners.get(key, 0), coordinates)
    made = _give_sources(_with_rows(msa, shutters), parents, first_source_id)
    return _without_orphans(made, msa)
