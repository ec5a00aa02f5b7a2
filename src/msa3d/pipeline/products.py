"""Products: written whole or not at all, by one run at a time in a root, and stamped with what made them."""

from __future__ import annotations

import errno
import functools
import getpass
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits

import msa3d
from msa3d.errors import BusyError, ProductError
from msa3d.pipeline.codeversion import git_revision

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


logger = logging.getLogger(__name__)

#: Name of something half made, or moved out of the way for its successor, with the id of the process.
TEMPORARY = re.compile(r"^\.(?P<what>.+)\.(?P<pid>\d+)\.(?P<kind>partial|old)(?P<suffix>\..*)?$")

#: The file that a run in a root holds a lock on; who holds it is written in it.
LOCK = ".msa3d.lock"

#: What the system says where nothing can be written.
CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

#: Environment variable by which a process tells those that it starts, a notebook's kernel for one, that it holds locks.
HOLDER = "MSA3D_LOCK_HOLDER"


@contextmanager
def atomic_path(final: Path | str) -> Iterator[Path]:
    """Give a temporary name beside `final`, and rename it when the block has ended well.

    Parameters
    ----------
    final : path
        The product, a file or a directory. Its parent is made. A product of that name is replaced.

    Yields
    ------
    Path
        A hidden sibling with the same ending, e.g. ``.cube.1234.partial.fits``, which does not exist yet.

    Raises
    ------
    ProductError
        Where the block ended without having written the temporary file.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.parent / f".{final.stem}.{os.getpid()}.partial{final.suffix}"
    remove(partial)
    try:
        yield partial
        if not partial.exists():
            raise ProductError(f"{final} was not written: the step that makes it left no file.")
        if partial.is_dir() and final.is_dir():
            old = final.parent / f".{final.name}.{os.getpid()}.old"
            final.rename(old)
            partial.rename(final)
            _discard(old)
        else:
            partial.replace(final)
    finally:
        _discard(partial)


def remove(path: Path) -> None:
    """Remove a file or a directory tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(path: Path) -> bool:
    """Remove something that nobody needs; where that cannot be, a later run will (`remove_partials`)."""
    try:
        remove(path)
    except OSError as error:
        # On NFS a file that some process has open lives on as .nfs*, and so does its directory.
        logger.warning("%s cannot be removed yet (%s); a later run will do it", path, error.strerror or error)
        return False
    return True


def is_alive(temporary: Path) -> bool:
    """Whether the process that a temporary name names is still there, on this machine.

    Parameters
    ----------
    temporary : Path
        As `atomic_path` makes it.

    Returns
    -------
    bool
        False also where the id has since been given to a younger process.
    """
    import psutil

    if not (match := TEMPORARY.match(temporary.name)):
        return False
    try:
        # Dates of files are those of the file system, to a second or two.
        return psutil.Process(int(match["pid"])).create_time() < temporary.stat().st_mtime + 2
    except (psutil.Error, OSError, OverflowError):
        return False


def remove_partials(directory: Path) -> list[Path]:
    """Remove what a killed run left under temporary names in a directory (not below it).

    Parameters
    ----------
    directory : Path
        May be absent.

    Returns
    -------
    list of Path
        What was removed. What living processes are writing is left alone. A product that had been moved out of the
        way for a successor which never came gets its name back.
    """
    removed = []
    for path in sorted(directory.glob(".*")) if directory.is_dir() else []:
        match = TEMPORARY.match(path.name)
        if not match or is_alive(path):
            continue
        final = directory / match["what"]
        if match["kind"] == "old" and not final.exists():
            logger.info("%s was being replaced when its run was killed: it is put back", final)
            path.rename(final)
            continue
        logger.info("removing %s, left by an interrupted run", path)
        removed += [path] if _discard(path) else []
    return removed


# --- one run at a time


@contextmanager
def alone(directory: Path, doing: str) -> Iterator[None]:
    """Keep other processes out of a directory; the lock ends with the process that holds it, however that ends.

    Within a process, and in those that it starts, it may be taken again.

    Parameters
    ----------
    directory : Path
        Where nobody else is to write. Where it is absent, or cannot be written, there is nothing to keep.
    doing : str
        What others are told.

    Raises
    ------
    BusyError
        Where another process holds it: which one, whose, since when.
    """
    from filelock import FileLock, Timeout

    # A file system without locks must not be taken for one where somebody else holds it.
    lock = FileLock(directory / LOCK, timeout=0.2, is_singleton=True, fallback_to_soft=False)
    held, first = False, not lock.is_locked
    try:
        if directory.is_dir():
            lock.acquire()
            held = True
            if first:
                os.environ[HOLDER] = str(os.getpid())
                _sign(directory / LOCK, doing)
    except Timeout as error:
        holder = _holder(directory / LOCK)
        if str(holder.get("pid")) != os.environ.get(HOLDER):
            by = "process {pid} of {user} on {host} since {since} ({doing})" if holder else "another process"
            raise BusyError(
                f"{directory} is being worked on by {by.format(**holder)}: wait until it has ended, or choose another "
                "root; `msa3d status` says how far it is."
            ) from error
    except OSError as error:
        if os.access(directory, os.W_OK):
            logger.warning(
                "%s cannot be locked (%s): see to it that no second run writes to this directory",
                directory / LOCK,
                error.strerror or error,
            )
    try:
        yield
    finally:
        if held:
            if first:
                # Whoever has opened it meanwhile finds that it is gone, and tries again.
                _discard(directory / LOCK)
            lock.release()


def _sign(path: Path, doing: str) -> None:
    """Write into the lock who holds it."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user by number only, as in some containers
        user = str(os.getuid())
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    holder = {"pid": os.getpid(), "user": user, "host": socket.gethostname(), "since": since, "doing": doing}
    with suppress(OSError):
        path.write_text(json.dumps(holder) + "\n", encoding="utf-8")


def _holder(path: Path) -> dict[str, Any]:
    """Read who holds a lock; empty where that cannot be told."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return {key: holder[key] for key in ("pid", "user", "host", "since", "doing")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


@contextmanager
def working(layout: Layout, doing: str) -> Iterator[None]:
    """Keep other runs out of a root (`alone`), and clear away what killed ones left there.

    Parameters
    ----------
    layout : Layout
        The root.
    doing : str
        The step, for those who are kept out.
    """
    with alone(layout.root, doing):
        made = (layout.process.glob("exp_*"), (layout.reduction / "cubes").glob("cube_*"))
        # The exposures themselves before what is in them: one may have to get its name back first.
        remove_partials(layout.process)
        for directory in (layout.root, layout.truth / "records", layout.records, layout.reduction / "msa"):
            remove_partials(directory)
        for directories in made:
            for directory in sorted(directories):
                remove_partials(directory)
        with said_what_cannot_be_written(layout.root):
            yield


@contextmanager
def said_what_cannot_be_written(root: Path) -> Iterator[None]:
    """Turn a full disk, a read-only file system or a lack of rights in the block into one sentence."""
    try:
        yield
    except OSError as error:
        full = error.errno is None and "space on disk" in str(error)  # astropy puts it into words of its own
        if error.errno not in CANNOT_WRITE and not full:
            raise
        why = os.strerror(errno.ENOSPC) if full else error.strerror
        raise ProductError(
            f"{error.filename or root} cannot be written ({why}): make room there or get the right to "
            "write, or choose another root. What is finished stays."
        ) from error


#: Logical keyword of the primary header, true in every simulated file and all that is made from one.
SIMULATED_KEYWORD = "MSA3DSIM"

#: The sentence that goes with it.
SIMULATED_HISTORY = (
    "Simulated by msa3d: not an observation. Recovering the injected numbers is a closure test of the "
    "method, not a confirmation of any published result."
)

#: Headers list at most this many inputs by name.
_MAX_LISTED = 12


# --- simulated or not


def is_simulated(header: Mapping[str, Any]) -> bool:
    """Whether a primary header says that its file is simulated or made from simulated files."""
    return bool(header.get(SIMULATED_KEYWORD, False))


def mark_simulated(header: fits.Header) -> None:
    """Mark a primary header as simulated: keyword and HISTORY sentence, once."""
    header[SIMULATED_KEYWORD] = (True, "simulated by msa3d: not an observation")
    if SIMULATED_HISTORY not in _history(header):
        header.add_history(SIMULATED_HISTORY)


def _history(header: fits.Header) -> str:
    # Long lines are cut into cards of 72 characters: joined, they can be searched.
    return "".join(str(line).ljust(72) for line in header.get("HISTORY", []))


# --- the stamp


def stamp(
    header: fits.Header,
    *,
    dataset: Dataset | None = None,
    inputs: Iterable[Path | str] = (),
    references: Mapping[str, str] | Iterable[str] = (),
    simulated: bool | None = None,
    step: str = "",
    history: Iterable[str] = (),
) -> None:
    """Say in a primary header what made the file.

    Writes ``MSA3DVER``, ``MSA3DGIT``, ``MSA3DSET``, ``MSA3DCFG``, ``CAL_VER`` and ``CRDS_CTX`` where absent,
    ``MSA3DSIM`` for simulated data, and HISTORY lines with step, inputs and references.

    Parameters
    ----------
    header : `astropy.io.fits.Header`
        Primary header, changed in place.
    dataset : Dataset, optional
        The description of the observation; its name and digest are written.
    inputs : iterable of path
        What the product was made from: names are listed, beyond a dozen only the first and the last.
    references : mapping or iterable of str
        Reference files used: ``{type: name}`` or names.
    simulated : bool, optional
        Mark as simulated. By default where the dataset or the header itself says so; a mark is never
        taken away.
    step : str
        Name of the step, for the HISTORY.
    history : iterable of str
        More sentences.
    """
    header["MSA3DVER"] = (msa3d.__version__, "msa3d version")
    header["MSA3DGIT"] = (git_revision(), "msa3d git revision")
    if dataset is not None:
        header["MSA3DSET"] = (dataset.name, "msa3d dataset")
        header["MSA3DCFG"] = (dataset.digest[:32], "SHA-256 of the dataset")
    if not header.get("CAL_VER"):
        header["CAL_VER"] = (jwst_version(), "jwst version")
    context = os.environ.get("CRDS_CONTEXT")
    if context and not header.get("CRDS_CTX"):
        header["CRDS_CTX"] = (context, "CRDS context")
    if simulated is None:
        simulated = is_simulated(header) or (dataset is not None and dataset.simulated)
    if simulated or is_simulated(header):
        mark_simulated(header)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"msa3d {msa3d.__version__} {step or 'product'} {now}"]
    names = [Path(item).name for item in inputs]
    if len(names) > _MAX_LISTED:
        lines.append(f"msa3d inputs: {len(names)} files, {names[0]} to {names[-1]}")
    else:
        lines += [f"msa3d input: {name}" for name in names]
    if isinstance(references, Mapping):
        references = [f"{kind} {Path(str(name)).name}" for kind, name in references.items()]
    lines += [f"msa3d reference: {name}" for name in references]
    for line in [*lines, *history]:
        header.add_history(line)


@functools.cache
def jwst_version() -> str:
    """Version of jwst that is installed, without importing it; ``unknown`` where there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("jwst")
    except PackageNotFoundError:
        return "unknown"


def stamp_file(path: Path, extension: Any = None, after: str | int = 0, **keywords: Any) -> None:
    """Stamp the primary header of a FITS file that another program, such as jwst, wrote, and add checksums.

    Pixels, tables and the ASDF extension are copied as they are; every header gets CHECKSUM and DATASUM. Call it
    before the file gets its final name (inside `atomic_path`).

    Parameters
    ----------
    path : Path
        The file.
    extension : astropy.io.fits HDU, optional
        An extension of our own to put into it.
    after : str or int
        Behind which extension.
    **keywords
        As for `stamp`.
    """
    with fits.open(
        path, mode="update", memmap=True, do_not_scale_image_data=True, disable_image_compression=True
    ) as hdus:
        stamp(hdus[0].header, **keywords)
        if extension is not None:
            hdus.insert(hdus.index_of(after) + 1, extension)
        for hdu in hdus:
            hdu.add_checksum()
