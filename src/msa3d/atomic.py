"""Products are written under a temporary name and renamed when whole, by one process at a time in a root."""

from __future__ import annotations

import functools
import getpass
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa3d.errors import BusyError, ProductError

if TYPE_CHECKING:
    from msa3d.layout import Layout

logger = logging.getLogger(__name__)

#: Name of something half made, or moved out of the way for its successor, with the id of the process.
TEMPORARY = re.compile(r"^\.(?P<what>.+)\.(?P<pid>\d+)\.(?P<kind>partial|old)(?P<suffix>\..*)?$")

#: The file that a run in a root holds a lock on; who holds it is written in it.
LOCK = ".msa3d.lock"

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

    match = TEMPORARY.match(temporary.name)
    try:
        # Dates of files are those of the file system, to a second or two.
        return bool(match) and psutil.Process(int(match["pid"])).create_time() < temporary.stat().st_mtime + 2
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
        yield


def one_run_a_root(step: Callable[..., Any]) -> Callable[..., Any]:
    """Make a step, ``run(dataset, layout, ...)``, keep other runs out of the root of its layout (`working`).

    Parameters
    ----------
    step : callable
        The function.

    Returns
    -------
    callable
    """

    @functools.wraps(step)
    def run(dataset: Any, layout: Layout, *arguments: Any, **keywords: Any) -> Any:
        with working(layout, step.__module__.rpartition(".")[2]):
            return step(dataset, layout, *arguments, **keywords)

    return run
