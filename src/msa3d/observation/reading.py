"""Count-rate files and what of their headers the reduction needs; FITS files that end too early, as one sentence.

Headers are read without touching the data: 126 full-frame count-rate files are 10 GB, their headers a few MB.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits
from astropy.io.fits import VerifyError
from astropy.utils.exceptions import AstropyUserWarning

from msa3d.errors import ObservationError, ProductError
from msa3d.pipeline.layout import exposure_names, parse_rate_name
from msa3d.pipeline.products import SIMULATED_KEYWORD

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout

logger = logging.getLogger(__name__)

_BLOCK, _CARD = 2880, 80


def read_headers(path: Path) -> list[fits.Header]:
    """Check that a FITS file is as long as its headers demand, and return them.

    Works on any FITS file, tile-compressed images included: they are tables with a heap.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of `astropy.io.fits.Header`
        One for each HDU.

    Raises
    ------
    ObservationError
        Where the file is missing, not FITS, or shorter than its headers demand.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream, warnings.catch_warnings():
            # Of cards that are none: whoever needs what stood there finds that it is missing.
            warnings.simplefilter("ignore", AstropyUserWarning)
            headers, position, number = [], 0, 0
            while position < size:
                text = _header_text(stream, path, number)
                header = fits.Header.fromstring(text)
                headers.append(header)
                try:
                    length = _data_bytes(header)
                    name = header.get("EXTNAME", "primary")
                except (fits.VerifyError, LookupError, TypeError, ValueError) as error:
                    raise ObservationError(
                        f"{path} is damaged: header {number} does not say what follows it; get the file again."
                    ) from error
                # Files are whole blocks: one that ends within its last padding has lost something too.
                end = stream.tell() + -(-length // _BLOCK) * _BLOCK
                if end > size:
                    raise ObservationError(
                        f"{path} is truncated: it has {size} bytes, but its {name} extension ends at byte {end}; "
                        "get the file again."
                    )
                number, position = number + 1, end
                stream.seek(position)
    except OSError as error:
        raise ObservationError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not headers:
        raise ObservationError(f"{path} is empty; get the file again.")
    return headers


def _header_text(stream, path: Path, number: int) -> str:
    """Read the blocks of one header, up to and with the one that holds END."""
    blocks = []
    while True:
        block = stream.read(_BLOCK)
        if not blocks and number == 0 and not block.startswith(b"SIMPLE  ="):
            raise ObservationError(f"{path} is not a FITS file.")
        if len(block) < _BLOCK:
            raise ObservationError(f"{path} is truncated in header {number}; get the file again.")
        blocks.append(block)
        if any(block[i : i + _CARD].rstrip() == b"END" for i in range(0, _BLOCK, _CARD)):
            break
    try:
        return b"".join(blocks).decode("ascii")
    except UnicodeDecodeError as error:
        raise ObservationError(f"{path} is damaged: header {number} is not text; get the file again.") from error


def _data_bytes(header: fits.Header) -> int:
    """Length of the data of a header, without padding (FITS standard 4.0, equation 2)."""
    axes = [header[f"NAXIS{i}"] for i in range(1, header["NAXIS"] + 1)]
    if not axes:
        return 0
    if axes[0] == 0 and header.get("GROUPS"):
        axes = axes[1:]
    elements = 1
    for length in axes:
        elements *= length
    return abs(header["BITPIX"]) // 8 * header.get("GCOUNT", 1) * (header.get("PCOUNT", 0) + elements)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong in the block, while a 2-D spectrum is read, into the sentence of a ProductError."""
    if not path.is_file():
        raise ProductError(f"{path}: the 2-D spectrum is missing; run the step before this one")
    try:
        with warnings.catch_warnings():
            # astropy only warns of a file that ends too early, and then reads what there is.
            warnings.filterwarnings("error", "File may have been truncated", AstropyUserWarning)
            yield
    except (OSError, KeyError, TypeError, ValueError, AttributeError, AstropyUserWarning) as error:
        raise ProductError(
            f"{path}: the 2-D spectrum cannot be read ({error}); delete it and run the step before this one"
        ) from error


#: Keywords that the path reads: type and, for numbers, least and greatest value. Those marked by False may be absent;
#: without the others jwst stops, or takes the wrong shutters.
PRIMARY_KEYWORDS = {
    **dict.fromkeys(("INSTRUME", "DETECTOR", "FILTER", "GRATING", "EXP_TYPE", "MSAMETFL"), (str, None, None, True)),
    "MSAMETID": (int, 0, 2**31, True),
    "PATT_NUM": (int, 1, 10_000, True),
    "EXPSTART": (float, 50_000, 100_000, True),  # MJD: 1995 to 2132
    "EFFEXPTM": (float, 0, 1e6, False),
    "GWA_XTIL": (float, -90, 90, False),
    "GWA_YTIL": (float, -90, 90, False),
    **dict.fromkeys(("FILENAME", "ENGQLPTG"), (str, None, None, False)),
    SIMULATED_KEYWORD: (bool, None, None, False),
}
SCI_KEYWORDS = {
    "RA_REF": (float, 0, 360, True),
    "DEC_REF": (float, -90, 90, True),
    "ROLL_REF": (float, -360, 360, True),
    "V2_REF": (float, -3600, 3600, True),
    "V3_REF": (float, -3600, 3600, True),
    "VPARITY": (int, -1, 1, False),
    "V3I_YANG": (float, -360, 360, False),
}

#: Extensions that a rate must have.
_RATE_EXTENSIONS = ("SCI", "ERR", "DQ")


#: EXP_TYPE of spectra through the micro-shutters.
SPECTRA = "NRS_MSASPEC"


def kind_of(path: Path) -> str:
    """EXP_TYPE of a file; that of a spectrum where it cannot be read, as the file is then refused as one."""
    try:
        return str(read_headers(path)[0].get("EXP_TYPE", SPECTRA)).strip()
    except (ObservationError, VerifyError):
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
    """Count rates of the visit that are spectra, in observing order, and the exposure that each belongs to."""
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
        missing = [name for name in _RATE_EXTENSIONS if name not in names]
        if missing:
            raise ObservationError(
                f"{path} is not a whole count-rate file: it has no extension {', '.join(missing)}; get it again."
            )
        sci = headers[names.index("SCI")]
        _check_keywords(path, headers[0], PRIMARY_KEYWORDS, "primary")
        _check_keywords(path, sci, SCI_KEYWORDS, "SCI")
        return cls(path, parts["activity"], parts["detector"].upper(), headers[0], sci)


def _check_keywords(path: Path, header: fits.Header, known: Mapping[str, tuple], where: str) -> None:
    """See that what is read of a header is there (all that is missing is named), of its type and in its range."""
    values = {}
    for keyword in known:
        try:
            values[keyword] = header.get(keyword)
        except (VerifyError, ValueError) as error:
            raise ObservationError(
                f"{path}: {keyword} in its {where} header cannot be read; the file is damaged, get it again."
            ) from error
    missing = [keyword for keyword, (*_, needed) in known.items() if needed and values[keyword] is None]
    if missing:
        raise ObservationError(f"{path} lacks {', '.join(missing)} in its {where} header.")
    for keyword, (kind, low, high, _) in known.items():
        value = values[keyword]
        if value is None:
            continue
        right = isinstance(value, int | float if kind is float else kind) and (kind is bool) == isinstance(value, bool)
        if not right or (low is not None and not low <= value <= high):
            what = {str: "a text", int: "an integer", float: "a number", bool: "T or F"}[kind]
            bounds = f" from {low} to {high}" if low is not None else ""
            raise ObservationError(
                f"{path}: {keyword} is {value!r} in its {where} header, but must be {what}{bounds}; get the file "
                "again, or correct a copy."
            )
