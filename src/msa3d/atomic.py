"""Products are written under a temporary name and renamed when whole: there are no half-written ones."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msa3d.errors import ProductError

logger = logging.getLogger(__name__)


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
            shutil.rmtree(old)
        else:
            partial.replace(final)
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Remove a file or a directory tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_partials(directory: Path) -> list[Path]:
    """Remove what a killed run left under temporary names in a directory (not below it).

    Parameters
    ----------
    directory : Path
        May be absent.

    Returns
    -------
    list of Path
        What was removed. Call it only where no other process is writing.
    """
    left = sorted(directory.glob(".*.partial*")) if directory.is_dir() else []
    for path in left:
        logger.info("removing %s, left by an interrupted run", path)
        remove(path)
    return left
