"""The tables and headers of an MSA metafile, in the archive's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from msa3d.errors import MetafileError
from msa3d.pipeline.products import mark_simulated

if TYPE_CHECKING:
    from msa3d.config import Dataset


#: Columns of SHUTTER_INFO and their FITS formats, in the order that jwst relies on.
SHUTTER_FORMATS = {
    "slitlet_id": "I",
    "msa_metadata_id": "I",
    "shutter_quadrant": "I",
    "shutter_row": "I",
    "shutter_column": "I",
    "source_id": "J",
    "background": "1A",
    "shutter_state": "6A",
    "estimated_source_in_shutter_x": "E",
    "estimated_source_in_shutter_y": "E",
    "dither_point_index": "I",
    "primary_source": "1A",
}

#: Columns of SOURCE_INFO and their FITS formats.
SOURCE_FORMATS = {
    "program": "J",
    "source_id": "J",
    "source_name": "20A",
    "alias": "31A",
    "ra": "D",
    "dec": "D",
    "preimage_id": "30A",
    "stellarity": "D",
}

_INTEGERS = {"I": np.int16, "J": np.int32, "K": np.int64}

#: ``shutter_state`` of a shutter that is closed and only pretends to be open, so that jwst, which reads no states,
#: cuts out what lies beside its slitlet (`msa3d.observation.metafile_edit.lengthen_slitlets`).
ADDED = "ADDED"

#: Shutters of a quadrant along dispersion (rows) and along the slit (columns).
N_ROWS, N_COLUMNS = 365, 171

# Where each quadrant lies in SHUTTER_IMAGE, (y, x), counted from 0; measured on the real file.
_QUADRANT_CORNER = {1: (0, N_COLUMNS), 2: (N_ROWS, N_COLUMNS), 3: (N_ROWS, 0), 4: (0, 0)}


def read_table(path: Path, hdu: Any, expected: Mapping[str, str], formats: dict[str, str]) -> np.ndarray:
    """Read a table extension into a structured array, and note its FITS formats in `formats`."""
    names = [name.lower() for name in hdu.columns.names]
    # jwst takes some columns by their place; further columns after these do not concern it.
    if names[: len(expected)] != list(expected):
        missing = [name for name in expected if name not in names]
        what = f"lacks {', '.join(missing)}" if missing else f"has the columns {', '.join(names)}"
        raise MetafileError(
            f"{path} is not an MSA metafile that jwst can read: {hdu.name} {what}; expected, in this order, are "
            f"{', '.join(expected)}."
        )
    formats.update({f"{hdu.name}.{c.name.lower()}": c.format for c in hdu.columns})
    columns = {name: np.array(hdu.data.field(index)) for index, name in enumerate(names)}
    return _from_columns(columns, dict.fromkeys(names, "") | dict(expected))


def _from_columns(columns: Mapping[str, np.ndarray], formats: Mapping[str, str]) -> np.ndarray:
    dtype = [(name, _type_of(np.asarray(columns[name]), form)) for name, form in formats.items()]
    table = np.empty(len(next(iter(columns.values()))), dtype)
    for name in formats:
        table[name] = columns[name]
    return table


def _type_of(values: np.ndarray, form: str) -> np.dtype:
    """Type of a column: that of its usual FITS format, or a wider one where its values need that."""
    usual = {"I": np.int16, "J": np.int32, "E": np.float32, "D": np.float64}.get(form[-1:])
    if form.endswith("A") or values.dtype.kind in "SU":
        return np.dtype(f"U{max(1, np.asarray(values, str).dtype.itemsize // 4)}")
    if usual is None:
        return values.dtype.newbyteorder("=")
    if values.dtype.kind in "iu" and np.dtype(usual).kind == "i":
        low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
        fits_in = (k for k in _INTEGERS.values() if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
        return np.promote_types(usual, next(fits_in))
    return np.dtype(usual)


def table_hdu(name: str, table: np.ndarray, usual: Mapping[str, str], formats: Mapping[str, str]) -> fits.BinTableHDU:
    """Write a structured array as a table; FITS formats are those of the file that it was read from, else the usual."""
    columns = []
    for column in table.dtype.names:
        values = table[column]
        form = formats.get(f"{name}.{column}", usual.get(column, ""))
        if values.dtype.kind == "U":
            # Longer names than the archive's have happened to fit get a wider column.
            width = int(np.char.str_len(values).max()) if values.size else 1
            form = f"{max(int(form[:-1] or 1) if form.endswith('A') else 1, width)}A"
        elif values.dtype.kind in "iu" and form in ("I", "J", "K"):
            # Neither an id that has become wider nor an unsigned column wraps.
            form = max(form, next(f for f, kind in _INTEGERS.items() if np.can_cast(values.dtype, kind)))
        columns.append(fits.Column(column, form, array=values))
    return fits.BinTableHDU.from_columns(columns, name=name)


def open_rows(table: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """The rows of SHUTTER_INFO that are open shutters of the MSA, and what was left out.

    That is fixed slits, which STScI's processing has listed in a column ``fixed_slit`` since 2024, and shutters that
    are CLOSED, which jwst takes for open ones.
    """
    said, kept = [], np.ones(len(table), bool)
    if "fixed_slit" in table.dtype.names:
        names = np.char.upper(np.char.strip(table["fixed_slit"]))
        fixed = ~np.isin(names, ("", "NONE", "N/A"))
        if fixed.any():
            said.append(f"{fixed.sum()} rows of fixed slits ({', '.join(np.unique(names[fixed]))}) are left out")
        kept &= ~fixed
    closed = kept & (np.char.strip(table["shutter_state"]) == "CLOSED")
    if closed.any():
        slitlets = ", ".join(str(i) for i in np.unique(table["slitlet_id"][closed])[:5])
        said.append(f"{closed.sum()} rows of shutters that are CLOSED (slitlets {slitlets}) do not count as open")
    return table[kept & ~closed], tuple(said)


def structured(rows: Any, formats: Mapping[str, str], what: str) -> np.ndarray:
    """Make a structured array of rows given as mappings, Table or array; they must have all columns."""
    names = getattr(rows, "colnames", None) or getattr(getattr(rows, "dtype", None), "names", None)
    if names is None:
        rows = list(rows)
        names = list(rows[0]) if rows else list(formats)
    if set(names) != set(formats):
        wrong = sorted(set(names) ^ set(formats))
        raise MetafileError(f"Rows for {what} must have the columns {', '.join(formats)}; see {', '.join(wrong)}.")
    if isinstance(rows, list):
        columns = {name: np.array([row[name] for row in rows]) for name in formats}
    else:
        columns = {name: np.array(rows[name]) for name in formats}
    return _from_columns(columns, formats)


def place_in_image(row: np.void) -> tuple[int, int]:
    """Return the index (y, x) of a shutter in SHUTTER_IMAGE."""
    try:
        y, x = _QUADRANT_CORNER[int(row["shutter_quadrant"])]
    except KeyError:
        raise MetafileError(f"The MSA has no quadrant {row['shutter_quadrant']}.") from None
    r, c = int(row["shutter_row"]), int(row["shutter_column"])
    if not (1 <= r <= N_ROWS and 1 <= c <= N_COLUMNS):
        raise MetafileError(f"The MSA has no shutter at row {r}, column {c}: rows are 1 to 365, columns 1 to 171.")
    return y + r - 1, x + c - 1


def header_of(dataset: Dataset) -> fits.Header:
    """Write the primary header of a metafile of a dataset, with the keywords of the archive's."""
    visit = f"{dataset.programme}{dataset.observation}{dataset.visit}"
    header = fits.Header()
    header["ORIGIN"] = ("STSCI", "institution responsible for creating FITS file")
    header["TELESCOP"] = ("JWST", "telescope used to acquire data")
    header["INSTRUME"] = ("NIRSPEC", "identifier for instrument used to acquire data")
    header["DATE"] = dataset.simulation.date if dataset.simulation else "1970-01-01T00:00:00"
    header["FILENAME"] = (dataset.metafile, "name of file")
    header["PPSDBVER"] = ("NONE", "version of PPS database used")
    header["PROGRAM"] = (dataset.programme, "program number")
    header["VISIT"] = (dataset.visit, "visit number")
    header["OBSERVTN"] = (dataset.observation, "observation number")
    header["VISIT_ID"] = (visit, "visit identifier")
    header["MSACFG10"] = (1, "base 10 nirspec_msa_at_exposure_spec.msa_config")
    header["MSACFG36"] = ("01", "base 36 version of MSACFG10")
    if dataset.simulated:
        mark_simulated(header)
    return header
