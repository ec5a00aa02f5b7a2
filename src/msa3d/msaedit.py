"""Edits of an MSA metafile, each of which gives a new `MsaFile`; `changes` lists what one of them changed.

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
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from msa3d._msachanges import changes
from msa3d._msarows import (
    Names,
    entry_of,
    give_sources,
    name_of,
    rows_of,
    shutter_of,
    slitlets_of,
    with_rows,
    without_orphans,
)
from msa3d._msatables import ADDED, N_COLUMNS
from msa3d.errors import MetafileError
from msa3d.msafile import MsaFile

__all__ = [
    "changes",
    "lengthen_slitlets",
    "one_slitlet_per_shutter",
    "set_background",
    "set_position",
    "set_stellarity",
    "split_slitlets",
    "transform_ids",
]

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
    return without_orphans(msa.transform_ids(shorten=shorten), msa, shortened=shorten is not None)


def set_stellarity(msa: MsaFile, stellarity: Mapping[int, float]) -> MsaFile:
    """Say which sources are points.

    Parameters
    ----------
    msa : MsaFile
        The metafile.
    stellarity : mapping of int to float
        By source id, from 0 (extended) to 1 (a point); jwst 1.14.0 takes more than 0.75 for a point. A negative
        number means unknown.

    Returns
    -------
    MsaFile

    Raises
    ------
    MetafileError
        For a source that is not in SOURCE_INFO, or a value that is NaN or outside -1 to 1.
    """
    sources = msa.sources.copy()
    for source_id, value in stellarity.items():
        mine = sources["source_id"] == source_id
        if not mine.any():
            raise MetafileError(f"{name_of(msa)} has no source {source_id} in SOURCE_INFO.")
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

    Returns
    -------
    MsaFile

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
        raise MetafileError(f"{name_of(msa)} has no shutter whose primary source is {source_id}.")
    missing = sorted(wanted - {int(point) for point in shutters["dither_point_index"][mine]})
    if missing:
        raise MetafileError(f"{name_of(msa)} has no dither point {missing[0]} for source {source_id}.")
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

    Returns
    -------
    MsaFile

    Raises
    ------
    MetafileError
        For a slitlet or column that is not there, or where the shutter of the primary source would be background.
    """
    shutters = msa.shutters.copy()
    mine = rows_of(msa, slitlet_id)
    wanted = set(columns)
    missing = sorted(wanted - {int(column) for column in shutters["shutter_column"][mine]})
    if missing:
        raise MetafileError(f"{name_of(msa)}: slitlet {slitlet_id} has no shutter in column {missing[0]}.")
    if wanted:
        mine &= np.isin(shutters["shutter_column"], sorted(wanted))
        if background and (shutters["primary_source"][mine] == "Y").any():
            raise MetafileError(
                f"{name_of(msa)}: the primary source of slitlet {slitlet_id} is in one of the columns "
                f"{', '.join(map(str, sorted(wanted)))}; leave it out, or make the whole slitlet background."
            )
    elif background:
        shutters["source_id"][mine] = 0
        shutters["primary_source"][mine] = "N"
        for axis in "xy":
            shutters[f"estimated_source_in_shutter_{axis}"][mine] = np.nan
    shutters["background"][mine] = "Y" if background else "N"
    return without_orphans(replace(msa, shutters=shutters), msa)


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
    taken = {shutter_of(row) for row in msa.shutters[msa.shutters["slitlet_id"] > 0]}
    new, stuck = [], []
    for (_, slitlet), rows in slitlets_of(msa, slitlet_ids):
        columns = rows["shutter_column"]
        for end, step in ((columns.min(), -1), (columns.max(), 1)):
            at_end = rows[columns == end]
            # A row a dither point, even where the shutter has a row for each of several sources.
            added = at_end[np.unique(at_end["dither_point_index"], return_index=True)[1]].copy()
            added["shutter_column"] += step
            place = {shutter_of(row) for row in added}
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
    return with_rows(msa, np.concatenate([msa.shutters, *new]))


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

    Returns
    -------
    MsaFile

    Raises
    ------
    MetafileError
        For a length below 1, where a source moves over more shutters than that, or where ids run out.
    """
    if longest < 1:
        raise MetafileError(f"the longest slitlet has 1 shutter or more, not {longest}.")
    shutters, parents, owners = msa.shutters.copy(), {}, msa.owners()
    names = Names(msa)
    for key, rows in slitlets_of(msa, set()):
        columns = np.unique(rows["shutter_column"])
        if len(columns) <= longest:
            continue
        primary = rows["shutter_column"][rows["primary_source"] == "Y"]
        for piece in _pieces(msa, key[1], columns, np.unique(primary), longest)[1:]:
            mine = rows_of(msa, key[1], key[0]) & np.isin(shutters["shutter_column"], piece)
            new = names[(key[1], *piece)]
            shutters["slitlet_id"][mine] = new
            shutters["source_id"][mine] = 0
            if key in owners:
                parents[new] = entry_of(msa, owners[key])
    made = with_rows(msa, shutters)
    return give_sources(made, parents) if own_sources else made


def _pieces(msa: MsaFile, slitlet: int, columns: np.ndarray, primary: np.ndarray, longest: int) -> list[np.ndarray]:
    """Cut a slitlet's columns into pieces, that of the source first."""
    if not len(primary):
        return [columns[i : i + longest] for i in range(0, len(columns), longest)]
    if primary[-1] - primary[0] >= longest:
        raise MetafileError(
            f"{name_of(msa)}: the source of slitlet {slitlet} is in columns {primary[0]} to {primary[-1]} at different "
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
    names = Names(msa)
    for key, rows in slitlets_of(msa, wanted):
        if key not in owners and coordinates is None:
            raise MetafileError(
                f"{name_of(msa)}: slitlet {key[1]} has no source; give right ascension and declination."
            )
        for column in np.unique(rows["shutter_column"]):
            mine = rows_of(msa, key[1], key[0]) & (shutters["shutter_column"] == column)
            new = names[key[1], column]
            shutters["slitlet_id"][mine] = new
            parents[new] = entry_of(msa, owners.get(key, 0), coordinates)
    made = give_sources(with_rows(msa, shutters), parents, first_source_id)
    return without_orphans(made, msa)
