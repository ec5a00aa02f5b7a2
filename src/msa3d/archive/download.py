"""One file from a server: resumed where it broke off, checked, and under its name only when complete."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3

from msa3d.archive.mast import is_whole_fits, offline
from msa3d.errors import FetchError, SizeChangedError

logger = logging.getLogger(__name__)

_BLOCK = 1 << 16
_FITS = b"SIMPLE  ="
#: Answers that may be other ones after a while.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Manners:
    """How often and how long a server is asked.

    Attributes
    ----------
    retries : int
        Attempts in a row that bring nothing, after which a file is given up.
    wait_s : float
        Seconds before the second attempt, doubled each time up to `longest_wait_s`; a server's Retry-After counts.
    longest_wait_s : float
        See `wait_s`.
    timeout_s : float
        Seconds of silence after which a connection counts as broken.
    """

    retries: int = 5
    wait_s: float = 2.0
    longest_wait_s: float = 120.0
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Download:
    """What fetching one file took.

    Attributes
    ----------
    size : int
        Bytes of the file.
    received : int
        Bytes that came now.
    resumed_from : int
        Bytes that were there already.
    requests : int
        Requests sent.
    sha256 : str
        Checksum of the file.
    troubles : tuple of str
        What went wrong on the way.
    """

    size: int
    received: int
    resumed_from: int
    requests: int
    sha256: str
    troubles: tuple[str, ...] = ()


class _Trouble(Exception):
    """Something that may go away when asked again."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


def partial_path(final: Path) -> Path:
    """Name under which a file grows: a hidden sibling, the same in every run, so that a later one can go on."""
    return final.with_name(f".{final.name}.part")


def download(
    session: requests.Session,
    url: str,
    final: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    manners: Manners | None = None,
    progress: Callable[[int], object] = lambda n: None,
) -> Download:
    """Fetch one FITS file.

    Parameters
    ----------
    session : requests.Session
        Carries cookies and tokens.
    url : str
        Its address.
    final : Path
        Its name on disk, where it appears when it is complete and verified.
    size : int, optional
        Bytes that it must have.
    sha256 : str, optional
        Checksum that it must have.
    manners : Manners, optional
        Attempts and waits.
    progress : callable, optional
        Called with the number of bytes that came, or minus those that had to be discarded.

    Raises
    ------
    SizeChangedError
        Where the server announces another size than `size`.
    FetchError
        Where the file is not to be had; the sentence names it and the last reason. What came of it stays for a
        later attempt.
    """
    manners, part = manners or Manners(), partial_path(final)
    start = part.stat().st_size if part.exists() else 0
    troubles: list[str] = []
    received = sent = fruitless = 0

    def came(count: int) -> None:
        nonlocal received
        received += max(count, 0)
        progress(count)

    while True:
        before = part.stat().st_size if part.exists() else 0
        sent += size is None or before != size
        try:
            _receive(session, url, part, size, manners, came)
            break
        except _Trouble as trouble:
            troubles.append(str(trouble))
            grown = (part.stat().st_size if part.exists() else 0) > before
            fruitless = 0 if grown else fruitless + 1
            if fruitless >= manners.retries:
                raise FetchError(f"{final.name} cannot be fetched: {trouble} ({sent} requests to {url}).") from trouble
            wait = max(trouble.wait_s, manners.wait_s * 2 ** max(fruitless - 1, 0))
            logger.info("%s: %s; trying again", final.name, trouble)
            time.sleep(min(wait, manners.longest_wait_s))
    total = part.stat().st_size
    digest = _checked(part, final.name, sha256)
    part.replace(final)
    _tag_path(part).unlink(missing_ok=True)
    return Download(total, received, start, sent, digest, tuple(troubles))


def _receive(
    session: requests.Session,
    url: str,
    part: Path,
    size: int | None,
    manners: Manners,
    progress: Callable[[int], object],
) -> None:
    """Send one request and append what comes; returns when the file is complete."""
    have = part.stat().st_size if part.exists() else 0
    if size is not None and have > size:
        _throw_away(part, progress)
        have = 0
    if size is not None and have == size:
        return
    # Bytes as they are: a compressed transfer has another length, and no ranges.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _tag_path(part).exists():
            headers["If-Range"] = _tag_path(part).read_text(encoding="utf-8")
    try:
        with session.get(url, headers=headers, stream=True, timeout=manners.timeout_s) as response:
            total = _understand(response, part, have, size, progress)
            # A connection that breaks off is told by the length, which is compared below.
            response.raw.enforce_content_length = False
            _append(response, part, progress)
    except requests.exceptions.ConnectionError as error:
        if "Read timed out" in str(error):
            raise _Trouble(f"the server fell silent for {manners.timeout_s:g} s") from error
        if part.exists() and part.stat().st_size > have:
            raise _Trouble("the connection broke off") from error
        raise _Trouble(str(offline(url.split("?")[0], error)).rstrip(".")) from error
    except (requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError) as error:
        raise _Trouble(f"the server fell silent for {manners.timeout_s:g} s") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _Trouble(f"the connection broke off ({type(error).__name__})") from error
    came = part.stat().st_size
    if total is not None and came < total:
        raise _Trouble(f"the connection broke off at byte {came} of {total}")
    if total is not None and came > total:
        _throw_away(part, progress)
        raise _Trouble(f"{came} bytes came instead of {total}")


def _understand(
    response: requests.Response, part: Path, have: int, size: int | None, progress: Callable[[int], object]
) -> int | None:
    """Decide from the headers of an answer what it is; return the size of the complete file where it says so."""
    status = response.status_code
    if status in (401, 403):
        raise FetchError(
            f"{_name(part)} is not public ({status} from {response.url.split('?')[0]}): a token in the environment "
            "variable MAST_API_TOKEN lets those fetch it who may."
        )
    if status in (404, 410):
        raise FetchError(f"{_name(part)} is not in the archive ({status} from {response.url}).")
    if status == 416:
        _throw_away(part, progress)
        raise _Trouble(f"the server has no byte {have} of it")
    if status in _PASSING:
        after = response.headers.get("Retry-After", "")
        raise _Trouble(f"the server says {status} {response.reason}", float(after) if after.isdecimal() else 0.0)
    if status not in (200, 206):
        raise FetchError(f"{_name(part)} cannot be fetched: {status} {response.reason} from {response.url}.")
    if "html" in response.headers.get("Content-Type", ""):
        raise _Trouble("the server sent a web page instead of the file")
    total = _announced(response, have)
    if status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        _throw_away(part, progress)
        raise _Trouble("the server sent another part than asked for")
    if status == 200 and have:
        # Ranges refused, or another file by now: from the start.
        _throw_away(part, progress)
    if total is not None and size is not None and total != size:
        _throw_away(part, progress)
        raise SizeChangedError(f"{_name(part)} has {total} bytes at the server, but {size} in its list.")
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
    if tag and not tag.startswith("W/"):
        _tag_path(part).write_text(tag, encoding="utf-8")
    return total if total is not None else size


def _announced(response: requests.Response, have: int) -> int | None:
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdecimal() else None


def _append(response: requests.Response, part: Path, progress: Callable[[int], object]) -> None:
    """Write what comes as it comes, so that nothing is lost when no more does."""
    with part.open("ab") as stream:
        at_start = stream.tell() == 0
        while block := response.raw.read1(_BLOCK):
            if at_start and not block.startswith(_FITS):
                raise _Trouble("what the server sent is not a FITS file")
            at_start = False
            stream.write(block)
            progress(len(block))


def _checked(part: Path, name: str, sha256: str | None) -> str:
    """Check a file that has all its bytes; return its checksum."""
    with part.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 is not None and digest != sha256:
        _throw_away(part)
        raise FetchError(f"{name} came with SHA-256 {digest}, but its list says {sha256}; it was rejected.")
    if not is_whole_fits(part):
        _throw_away(part)
        raise FetchError(f"{name} arrived, but is not a complete FITS file; it was rejected.")
    return digest


def _name(part: Path) -> str:
    return part.name[1 : -len(".part")]


def _tag_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _throw_away(part: Path, progress: Callable[[int], object] = lambda n: None) -> None:
    if part.exists():
        progress(-part.stat().st_size)
        part.unlink()
    _tag_path(part).unlink(missing_ok=True)
