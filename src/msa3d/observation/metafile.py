"""The MSA metafile: which shutters are open, in which slitlet, for which source, at every dither point.

Conventions, read from jwst 1.14.0 (``assign_wcs.nirspec.get_open_msa_slits``) and a real file: ``shutter_row``
(1 to 365) counts along dispersion, ``shutter_column`` (1 to 171) along the slit; both from the corner of their
quadrant. A source id of 0 is background, a negative one a virtual or background source planned as such.
A `MsaFile` is never changed in place: every transform gives a new one, and no file is written over.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from msa3d.errors import MetafileError, ObservationError
from msa3d.observation.metafile_tables import (
    N_COLUMNS,
    N_ROWS,
    SHUTTER_FORMATS,
    SOURCE_FORMATS,
    header_of,
    open_rows,
    place_in_image,
    read_table,
    structured,
    table_hdu,
)
from msa3d.observation.reading import read_headers
from msa3d.pipeline.products import atomic_path

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.observation.metafile_check import MetafileProblem

#: Ids from this one on are those that the original code shortens.
_SHORTENED_FROM = 100_000


@dataclass(frozen=True)
class MetafileSlitlet:
    """One slitlet.

    Parameters
    ----------
    slitlet_id, source_id : int
        Its id and that of its source; 0 where all of it is background.
    quadrant, row : int
        MSA quadrant and row (dispersion); of the first shutter, should they differ.
    columns : tuple of int
        Its open shutters along the slit, ascending.
    """

    slitlet_id: int
    source_id: int
    quadrant: int
    row: int
    columns: tuple[int, ...]


@dataclass(frozen=True)
class MsaFile:
    """An MSA metafile in memory.

    Parameters
    ----------
    header : `astropy.io.fits.Header`
        Primary header.
    image : `numpy.ndarray`
        SHUTTER_IMAGE, integer, (730, 342): id of the slitlet that a shutter belongs to at any dither point, else 0.
    shutters, sources : `numpy.ndarray`
        SHUTTER_INFO (open shutters) and SOURCE_INFO, structured arrays with the columns of `SHUTTER_FORMATS` and
        `SOURCE_FORMATS`, and further ones that the file has after these. Positions in the shutter are fractions
        of its pitch, NaN where there is no source; ra and dec are ICRS, degrees.
    path : Path, optional
        The file that it was read from.
    formats : dict, optional
        FITS formats of the file it was read from, by column, where they differ from the usual ones.
    left_out : tuple of str
        Which rows of SHUTTER_INFO are no open shutters of the MSA and were left out, in words.
    """

    header: fits.Header
    image: np.ndarray
    shutters: np.ndarray
    sources: np.ndarray
    path: Path | None = None
    formats: Mapping[str, str] | None = None
    left_out: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path | str) -> MsaFile:
        """Read a metafile and make sure that its tables are what jwst expects.

        Raises
        ------
        MetafileError
            Where the file is missing, is not (whole) FITS, or lacks an extension or a column.
        """
        path = Path(path)
        if not path.is_file():
            raise MetafileError(f"There is no MSA metafile {path}.")
        try:
            read_headers(path)
            with warnings.catch_warnings(), fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
                # Of cards that are none: what they should have said is missed below.
                warnings.simplefilter("ignore", AstropyUserWarning)
                hdus.verify("exception")
                names = [hdu.name for hdu in hdus]
                for name in ("SHUTTER_IMAGE", "SHUTTER_INFO", "SOURCE_INFO"):
                    if name not in names:
                        raise MetafileError(f"{path} is not an MSA metafile: it has no extension {name}.")
                formats = {}
                tables = [
                    read_table(path, hdus[name], expected, formats)
                    for name, expected in (("SHUTTER_INFO", SHUTTER_FORMATS), ("SOURCE_INFO", SOURCE_FORMATS))
                ]
                tables[0], left_out = open_rows(tables[0])
                image = np.array(hdus["SHUTTER_IMAGE"].data)
                image = image.astype(image.dtype.newbyteorder("="))
                header = hdus[0].header.copy()
                return cls(header, image, *tables, path=path.absolute(), formats=formats, left_out=left_out)
        except ObservationError as error:
            raise MetafileError(str(error)) from error
        except (OSError, ValueError, TypeError, LookupError, AttributeError, fits.VerifyError) as error:
            raise MetafileError(f"{path} cannot be read as an MSA metafile: {error}.") from error

    @classmethod
    def from_tables(
        cls,
        shutters: np.ndarray | Sequence[Mapping[str, Any]],
        sources: np.ndarray | Sequence[Mapping[str, Any]],
        header: fits.Header | Dataset,
    ) -> MsaFile:
        """Build a metafile from its rows.

        Parameters
        ----------
        shutters, sources : structured array, Table or sequence of mappings
            All columns of `SHUTTER_FORMATS` and `SOURCE_FORMATS`, by name.
        header : `astropy.io.fits.Header` or Dataset
            The primary header, or the dataset to write one for (marked as simulated where that is).

        Raises
        ------
        MetafileError
            Where a row lacks a column, or has one that the format has not.
        """
        if not isinstance(header, fits.Header):
            header = header_of(header)
        table = structured(shutters, SHUTTER_FORMATS, "SHUTTER_INFO")
        table, left_out = open_rows(table)
        image = np.zeros((2 * N_ROWS, 2 * N_COLUMNS), table["slitlet_id"].dtype)
        made = cls(header, image, table, np.empty(0), left_out=left_out)
        made = replace(made, sources=structured(sources, SOURCE_FORMATS, "SOURCE_INFO"))
        for row in table[table["slitlet_id"] > 0]:
            made.image[place_in_image(row)] = row["slitlet_id"]
        return made

    # --- what it says

    @property
    def dither_points(self) -> list[tuple[int, int]]:
        """Pairs of ``msa_metadata_id`` and ``dither_point_index`` that it describes, sorted."""
        pairs = zip(self.shutters["msa_metadata_id"], self.shutters["dither_point_index"], strict=True)
        return sorted({(int(meta), int(dither)) for meta, dither in pairs})

    @property
    def source_ids(self) -> list[int]:
        """Positive ids of the sources that have a slitlet, sorted."""
        ids = self.shutters["source_id"]
        return sorted({int(i) for i in ids[(ids > 0) & (self.shutters["slitlet_id"] > 0)]})

    def owners(self) -> dict[tuple[int, int], int]:
        """Return the source that each slitlet was made for.

        Returns
        -------
        dict
            ``{(msa_metadata_id, slitlet_id): source_id}`` for every slitlet with a positive source id. Where there
            is more than one, it is the one that is the primary source at most dither points, then that of most
            rows, then the smallest. A slitlet that its galaxy has left in one configuration (its ids are 0 or
            negative there) keeps the source that the same slitlet has first in another: the published rule.
        """
        votes: dict[tuple[int, int], dict[int, list[int]]] = {}
        for row in self.shutters[(self.shutters["source_id"] > 0) & (self.shutters["slitlet_id"] > 0)]:
            slitlet = votes.setdefault((int(row["msa_metadata_id"]), int(row["slitlet_id"])), {})
            count = slitlet.setdefault(int(row["source_id"]), [0, 0])
            count[0] += row["primary_source"] == "Y"
            count[1] += 1
        owners = {key: max(found, key=lambda i: (*found[i], -i)) for key, found in votes.items()}
        shutters: dict[tuple[int, int], set[tuple[int, ...]]] = {}
        for row in self.shutters[self.shutters["slitlet_id"] > 0]:
            place = tuple(int(row[name]) for name in ("shutter_quadrant", "shutter_row", "shutter_column"))
            shutters.setdefault((int(row["msa_metadata_id"]), int(row["slitlet_id"])), set()).add(place)
        elsewhere: dict[int, list[tuple[int, int]]] = {}
        for key in votes:
            elsewhere.setdefault(key[1], []).append(key)
        for key in shutters.keys() - owners.keys():
            # Another configuration may have given the number to other shutters.
            same = [other for other in elsewhere.get(key[1], ()) if shutters[other] & shutters[key]]
            if same:
                owners[key] = owners[same[0]]
        return owners

    def slitlets(self) -> list[MetafileSlitlet]:
        """List the slitlets of the first MSA configuration, in the order of their ids."""
        meta = self.shutters["msa_metadata_id"]
        metadata_id = int(meta.min()) if len(meta) else None
        rows = self.shutters[(meta == metadata_id) & (self.shutters["slitlet_id"] > 0)]
        owners, found = self.owners(), []
        for slitlet_id in np.unique(rows["slitlet_id"]):
            mine = rows[rows["slitlet_id"] == slitlet_id]
            found.append(
                MetafileSlitlet(
                    int(slitlet_id),
                    owners.get((metadata_id, int(slitlet_id)), 0),
                    int(mine["shutter_quadrant"][0]),
                    int(mine["shutter_row"][0]),
                    tuple(int(column) for column in np.unique(mine["shutter_column"])),
                )
            )
        return found

    def check(self) -> list[MetafileProblem]:
        """Look for contradictions.

        Returns
        -------
        list of MetafileProblem
            Errors first, each one sentence that names slitlet, source and dither point. What errors are and what
            warnings is told in `msa3d.observation.metafile_check`. Empty for a metafile without fault.
        """
        from msa3d.observation.metafile_check import find_problems

        return find_problems(self)

    # --- edited copies

    def repaired(self) -> MsaFile:
        """Give every slitlet a primary source with a position at every dither point.

        Where a slitlet has none (its galaxy has left it, or it is background: all rows 0), jwst 1.14.0 invents the
        id that follows the largest one, jwst 3.0.0 that of the slitlet: either may be that of another source, and the
        source would lack this exposure. Its first shutter that is not background, or the middle one, becomes that of
        its source; of a slitlet that has no source in any configuration, that of the negative id which it has at
        another dither point, or of a new one: so the archive counts background that was planned as such. An id
        without an entry in the catalogue gets one that says ``background_<slitlet>``, by which all versions of jwst
        know that the slitlet may serve for a master background. Positions that are not known become the middle of the
        shutter (0.5, 0.5), as later versions of jwst take them. Rows of slitlet -1 are left out: jwst 1.14.0 ignores
        them, 3.0.0 does not.

        Returns
        -------
        MsaFile
            A new one.
        """
        shutters = self.shutters[self.shutters["slitlet_id"] > 0]
        keys = np.stack([shutters[k] for k in ("msa_metadata_id", "slitlet_id", "dither_point_index")], axis=1)
        owners, taken = self.owners(), {int(i) for i in shutters["source_id"]}
        background: dict[int, int] = {}
        for meta, slitlet_id in np.unique(keys[:, :2], axis=0).tolist():
            slitlet = (keys[:, :2] == (meta, slitlet_id)).all(axis=1)
            source_id = owners.get((meta, slitlet_id))
            if source_id is None:
                planned = shutters["source_id"][slitlet & (shutters["source_id"] < 0)]
                unused = -slitlet_id if -slitlet_id not in taken else min(taken) - 1
                source_id = int(planned[0]) if len(planned) else unused
                taken.add(source_id)
                background[source_id] = slitlet_id
            for dither in np.unique(keys[slitlet, 2]):
                rows = np.flatnonzero(slitlet & (keys[:, 2] == dither))
                rows = rows[np.argsort(shutters["shutter_column"][rows], kind="stable")]
                if not (shutters["primary_source"][rows] == "Y").any():
                    lit = rows[shutters["background"][rows] == "N"]
                    primary = lit[0] if len(lit) else rows[(len(rows) - 1) // 2]
                    shutters["primary_source"][primary], shutters["background"][primary] = "Y", "N"
                    shutters["source_id"][primary] = source_id
                lit = rows[shutters["background"][rows] == "N"]
                for name in ("estimated_source_in_shutter_x", "estimated_source_in_shutter_y"):
                    shutters[name][lit] = np.where(np.isfinite(shutters[name][lit]), shutters[name][lit], 0.5)
        return replace(self, shutters=shutters, sources=self._with_background(background))

    def _with_background(self, slitlets: Mapping[int, int]) -> np.ndarray:
        """Add slitlets without a source (by the ids they were given) to the catalogue, where they are not in it."""
        new = {i: slitlet for i, slitlet in slitlets.items() if i not in self.sources["source_id"]}
        # Wide enough for the names, whatever the width of those that are there.
        columns = [(name, self.sources.dtype[name]) for name in self.sources.dtype.names]
        entries = np.zeros(len(new), [(n, f"{t.kind}20" if t.kind in "SU" else t) for n, t in columns])
        for entry, (source_id, slitlet_id) in zip(entries, new.items(), strict=True):
            entry["program"] = self.sources["program"][0] if len(self.sources) else 0
            entry["source_id"], entry["preimage_id"] = source_id, "None"
            entry["source_name"], entry["alias"] = f"background_{slitlet_id}", f"bkg_{slitlet_id}"
        return np.concatenate([self.sources, entries]) if new else self.sources

    def transform_ids(self, *, shorten: Literal["first", "last"] | None = None) -> MsaFile:
        """Give every row of a slitlet the id of its source (the published transform).

        Parameters
        ----------
        shorten : {"first", "last"}, optional
            The original code shortens ids of 100000 and more by three digits; here only on request, by the
            first or the last three. By default ids stay as they are, jwst takes them.

        Returns
        -------
        MsaFile
            A new one. Slitlets without a positive source id, and slitlet id -1, stay as they are.

        Raises
        ------
        MetafileError
            Where shortened ids would collide; the sentence lists them.
        """
        shutters, sources = self.shutters.copy(), self.sources.copy()
        for (meta, slitlet_id), source_id in self.owners().items():
            mine = (shutters["msa_metadata_id"] == meta) & (shutters["slitlet_id"] == slitlet_id)
            shutters["source_id"][mine] = source_id
        if shorten is not None:
            new = self.shortened_ids(shorten)
            for table in (shutters, sources):
                table["source_id"] = [new.get(int(i), int(i)) for i in table["source_id"]]
        return replace(self, shutters=shutters, sources=sources)

    def shortened_ids(self, shorten: Literal["first", "last"]) -> dict[int, int]:
        """List which ids would become which, as `transform_ids` shortens them: ``{old: new}``.

        Raises
        ------
        MetafileError
            Where two ids would become one.
        """
        every = {int(i) for table in (self.shutters, self.sources) for i in table["source_id"]}
        cut = slice(3, None) if shorten == "first" else slice(None, -3)
        new = {i: int(str(i)[cut]) for i in sorted(every) if i >= _SHORTENED_FROM}
        taken: dict[int, list[int]] = {}
        for old in sorted(every):
            taken.setdefault(new.get(old, old), []).append(old)
        collisions = {short: olds for short, olds in taken.items() if len(olds) > 1 or short == 0 != olds[0]}
        if collisions:
            listed = "; ".join(f"{', '.join(map(str, olds))} to {short}" for short, olds in collisions.items())
            raise MetafileError(
                f"{self.path or 'The metafile'}: source ids cannot be shortened by their {shorten} three digits, "
                f"they would collide ({listed}); leave them as they are."
            )
        return new

    def select_sources(self, source_ids: Iterable[int]) -> MsaFile:
        """Keep only the slitlets of some sources, which makes every later step faster.

        Parameters
        ----------
        source_ids : iterable of int
            Sources wanted.

        Raises
        ------
        MetafileError
            Where one of them has no slitlet.
        """
        wanted = {int(i) for i in source_ids}
        missing = sorted(wanted - set(self.owners().values()))
        if missing:
            raise MetafileError(f"{self.path or 'The metafile'} has no slitlet for source ids {missing}.")
        kept = [key for key, source_id in self.owners().items() if source_id in wanted]
        keys = zip(self.shutters["msa_metadata_id"], self.shutters["slitlet_id"], strict=True)
        mine = np.array([(int(meta), int(slitlet)) in set(kept) for meta, slitlet in keys], dtype=bool)
        image = np.where(np.isin(self.image, self.shutters["slitlet_id"][mine]), self.image, 0)
        sources = self.sources[np.isin(self.sources["source_id"], self.shutters["source_id"][mine])]
        return replace(self, shutters=self.shutters[mine], sources=sources, image=image)

    # --- written

    def write(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write a metafile in the format of the archive's.

        Parameters
        ----------
        path : Path
            Where to; never the file that this one was read from.
        overwrite : bool
            Replace another file of that name.

        Raises
        ------
        MetafileError
            Where the file is the input, or exists.
        """
        path = Path(path)
        if self.path is not None and path.exists() and path.samefile(self.path):
            raise MetafileError(f"{path} is the original MSA metafile and is not written over; name a copy.")
        if path.exists() and not overwrite:
            raise MetafileError(f"{path} exists and is not written over.")
        image = fits.ImageHDU(self.image, name="SHUTTER_IMAGE")
        tables = [
            table_hdu("SHUTTER_INFO", self.shutters, SHUTTER_FORMATS, self.formats or {}),
            table_hdu("SOURCE_INFO", self.sources, SOURCE_FORMATS, self.formats or {}),
        ]
        with atomic_path(path) as partial:
            fits.HDUList([fits.PrimaryHDU(header=self.header.copy()), image, *tables]).writeto(partial, checksum=True)
