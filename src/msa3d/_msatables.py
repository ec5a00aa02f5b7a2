"""The tables and headers of an MSA metafile, in the archive's format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from msa3d.errors import MetafileError
from msa3d.provenance import mark_simulated

if TYPE_CHECKING:
    from msa3d.dataset import Dataset

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

#: ``shutter_state`` of a shutter that is closed and only pretends to be open, so that jwst, which reads no states,
#: cuts out what lies beside its slitlet (`msa3d.msaedit.lengthen_slitlets`).
ADDED = "ADDED"

#: Shutters of a quadrant along dispersion (rows) and along the slit (columns).
N_ROWS, N_COLUMNS = 365, 171

# Where each quadrant lies in SHUTTER_IMAGE, (y, x), counted from 0; measured on the real file.
_QUADRANT_CORNER = {1: (0, N_COLUMNS), 2: (N_ROWS, N_COLUMNS), 3: (N_ROWS, 0), 4: (0, 0)}


def read_table(path: Path, hdu: Any, expected: Mapping[str, str], formats: dict[str, str]) -> np.ndarray:
    """Read a table extension into a structured array, and note its FITS formats in `formats`."""
    names = [name.lower() for name in hdu.columns.names]
    if names != list(expected):
        missing = [name for name in expected if name not in names]
        what = f"lacks {', '.join(missing)}" if missing else f"has the columns {', '.join(names)}"
        raise MetafileError(
            f"{path} is not an MSA metafile that jwst can read: {hdu.name} {what}; expected, in this order, are "
            f"{', '.join(expected)}."
        )
    formats.update({f"{hdu.name}.{c.name.lower()}": c.format for c in hdu.columns})
    columns = {name: np.array(hdu.data.field(index)) for index, name in enumerate(names)}
    return _from_columns(columns, expected)


def _from_columns(columns: Mapping[str, np.ndarray], formats: Mapping[str, str]) -> np.ndarray:
    kinds = {"I": np.int16, "J": np.int32, "E": np.float32, "D": np.float64}
    dtype = [
        (name, kinds.get(form[-1]) or f"U{max(1, np.asarray(columns[name], str).dtype.itemsize // 4)}")
        for name, form in formats.items()
    ]
    table = np.empty(len(next(iter(columns.values()))), dtype)
    for name in formats:
        table[name] = columns[name]
    return table


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
