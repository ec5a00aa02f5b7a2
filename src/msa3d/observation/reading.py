"""FITS files that end too early, and spectra that cannot be read, as one sentence.

Walk over the headers of a FITS file without touching its data, to see whether it is whole and what it says.

126 full-frame count-rate files are 10 GB; their headers are a few MB.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from msa3d.errors import ObservationError, ProductError

BLOCK, CARD = 2880, 80


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
                end = stream.tell() + -(-length // BLOCK) * BLOCK
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
        block = stream.read(BLOCK)
        if not blocks and number == 0 and not block.startswith(b"SIMPLE  ="):
            raise ObservationError(f"{path} is not a FITS file.")
        if len(block) < BLOCK:
            raise ObservationError(f"{path} is truncated in header {number}; get the file again.")
        blocks.append(block)
        if any(block[i : i + CARD].rstrip() == b"END" for i in range(0, BLOCK, CARD)):
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
    """Turn what goes wrong in the block, while a 2-D spectrum is read, into a sentence.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, truncated or not what it should be.
    """
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
