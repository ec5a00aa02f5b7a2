"""One count-rate file: what of its headers the reduction needs to know."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa3d._fitswalk import read_headers
from msa3d.errors import ObservationError
from msa3d.layout import exposure_names, parse_rate_name

if TYPE_CHECKING:
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout

logger = logging.getLogger(__name__)

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
    """EXP_TYPE of a file; that of a spectrum where it cannot be read, as the file is then refused as one."""
    try:
        return str(read_headers(path)[0].get("EXP_TYPE", SPECTRA)).strip()
    except ObservationError:
        return SPECTRA


def spectra(paths: Iterable[Path]) -> Iterator[Path]:
    """Those of some rates or ramps that are spectra, in their order; each is looked at when its turn comes.

    The archive delivers target acquisition, confirmation and lamp exposures of the same visit beside them.
    """
    return (path for path in paths if kind_of(path) == SPECTRA)


def leave_out_others(paths: Iterable[Path]) -> list[Path]:
    """Give those of some rates or ramps that are spectra, as `spectra`; one sentence in the log names the others."""
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kinds.setdefault(kind_of(path), []).append(path)
    found = kinds.pop(SPECTRA, [])
    if kinds:
        others = "; ".join(f"{listed(some)} ({kind})" for kind, some in sorted(kinds.items()))
        logger.warning("left out, as EXP_TYPE is not %s: %s", SPECTRA, others)
    return found


def rates_of(dataset: Dataset, layout: Layout) -> dict[Path, str]:
    """Count rates of the dataset's visit that are spectra, and the name of the exposure that each belongs to.

    Parameters
    ----------
    dataset : Dataset
        Gives the visit.
    layout : Layout
        Where the rates are.

    Returns
    -------
    dict of Path to str
        In observing order (`msa3d.layout.exposure_names`).
    """
    mine = (path for path in layout.rates() if path.name.startswith(dataset.file_root) and parse_rate_name(path))
    return exposure_names(spectra(mine))


def listed(paths: Iterable[Path | str]) -> str:
    """Name the first of some files, and the number of the others."""
    names = [Path(path).name for path in paths]
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


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
