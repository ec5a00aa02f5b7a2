"""One count-rate file: what of its headers the reduction needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msa3d._fitswalk import read_headers
from msa3d.errors import ObservationError
from msa3d.layout import parse_rate_name

#: Keywords that a rate must have: without them jwst stops, or takes the wrong shutters.
PRIMARY_KEYWORDS = (
    "INSTRUME", "DETECTOR", "FILTER", "GRATING", "EXP_TYPE", "MSAMETFL", "MSAMETID", "PATT_NUM", "EXPSTART",
)  # fmt: skip
SCI_KEYWORDS = ("RA_REF", "DEC_REF", "ROLL_REF", "V2_REF", "V3_REF")

#: Extensions that a rate must have.
RATE_EXTENSIONS = ("SCI", "ERR", "DQ")


#: EXP_TYPE of spectra through the micro-shutters.
SPECTRA = "NRS_MSASPEC"


def kind_of(path: Path) -> str:
    """EXP_TYPE of a file; that of a spectrum where there is none, as it is then read, and refused, as one."""
    return str(read_headers(path)[0].get("EXP_TYPE", SPECTRA)).strip()


@dataclass(frozen=True)
class Rate:
    """One count-rate file: what of its headers matters.

    Parameters
    ----------
    path : Path
        The file.
    activity : str
        From its name, base 36.
    detector : str
        From its name, upper case.
    primary, sci : mapping
        Values of the primary header and of the SCI header.
    """

    path: Path
    activity: str
    detector: str
    primary: Mapping[str, Any] = field(repr=False)
    sci: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Rate:
        """Read the headers; ObservationError where the file is truncated or lacks a keyword."""
        parts = parse_rate_name(path)
        headers = read_headers(path)
        names = [str(header.get("EXTNAME", "")).strip() for header in headers]
        missing = [name for name in RATE_EXTENSIONS if name not in names]
        if missing:
            raise ObservationError(
                f"{path} is not a whole count-rate file: it has no extension {', '.join(missing)}; get it again."
            )
        sci = headers[names.index("SCI")]
        for header, keywords, where in (
            (headers[0], PRIMARY_KEYWORDS, "primary"),
            (sci, SCI_KEYWORDS, "SCI"),
        ):
            missing = [keyword for keyword in keywords if header.get(keyword) is None]
            if missing:
                raise ObservationError(f"{path} lacks {', '.join(missing)} in its {where} header.")
        return cls(path, parts["activity"], parts["detector"].upper(), headers[0], sci)
