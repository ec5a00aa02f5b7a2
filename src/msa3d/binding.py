"""Bind the executed notebooks of a run into the book.

The book's own pages stand in ``book/``; the executed notebooks are copied to ``book/notebooks`` and Jupyter
Book makes ``book/_build/html`` of both, with its warnings as errors. A notebook that is not
whole is not bound.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msa3d.atomic import alone
from msa3d.errors import ProductError
from msa3d.notebook import START
from msa3d.records import Record

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from msa3d.layout import Layout

log = logging.getLogger(__name__)

MODULES = ("msa3d.binding", "msa3d.book", "msa3d.credits")

#: Environment variables by which a service tells who publishes the book (see `msa3d.book.repository`).
PUBLISHER = ("GITHUB_REPOSITORY", "GITHUB_SERVER_URL", "READTHEDOCS_GIT_CLONE_URL")


def faults(notebook: NotebookNode) -> list[str]:
    """List what keeps an executed notebook out of the book.

    Parameters
    ----------
    notebook : NotebookNode
        As nbformat reads it.

    Returns
    -------
    list of str
        Cells that failed, were never run, or show nothing where a figure was drawn; empty for a whole one.
    """
    found = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            found.append(f"cell {number} was not run")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {number} failed with {output.ename}: {output.evalue}")
            elif output.output_type in ("display_data", "execute_result") and not any(output.data.values()):
                found.append(f"cell {number} has an empty output")
        if "figure" in cell.metadata.get("tags", ()) and not any(
            kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {})
        ):
            found.append(f"cell {number} should show a figure and shows none")
    return found


def gather(layout: Layout, names: list[str], destination: Path) -> None:
    """Copy the executed notebooks to where the book expects them.

    Parameters
    ----------
    layout : Layout
        The run.
    names : list of str
        File names of the notebooks.
    destination : Path
        Directory of the copies; what it held before is removed.

    Raises
    ------
    ProductError
        Where one is missing, or is not whole.
    """
    import nbformat

    problems = []
    for name in names:
        path = layout.notebooks / name
        if not path.is_file():
            problems.append(f"{path} is missing")
            continue
        problems += [f"{path}: {fault}" for fault in faults(nbformat.read(path, as_version=4))]
    if problems:
        raise ProductError(f"The book is not bound: {'; '.join(problems)}; make the notebooks again.")
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True)
    for name in names:
        shutil.copyfile(layout.notebooks / name, destination / name)


def bind(layout: Layout, source: Path, notebooks: Path = Path("notebooks")) -> Path:
    """Build the book, unless the one that is there is current.

    Parameters
    ----------
    layout : Layout
        The run whose executed notebooks are bound.
    source : Path
        The book's own pages, with ``_config.yml`` and ``_toc.yml``.
    notebooks : Path, optional
        The notebooks in their order, as they are before they are executed.

    Returns
    -------
    Path
        The first page of the book.

    Raises
    ------
    ProductError
        Where a notebook is missing or not whole, or Jupyter Book warns of anything.
    """
    if not (source / "_toc.yml").is_file():
        raise ProductError(f"There is no book in {source}: it has no _toc.yml.")
    names = sorted(path.name for path in notebooks.glob("*.ipynb") if path.stem != START)
    (source / "_build").mkdir(exist_ok=True)
    with alone(source / "_build", "book"):
        record = _record(layout, source, names)
        first = source / "_build" / "html" / "index.html"
        if record.is_current([first]):
            log.info("the book is current")
        else:
            _build(layout, source, names)
            record.write([first])
    return first


def _record(layout: Layout, source: Path, names: list[str]) -> Record:
    """Make the record of the book: its pages, the executed notebooks, the code behind it, and who publishes it."""
    copied = [source / "_build", source / "notebooks", source / "_static" / "interactive"]
    pages = [path for path in sorted(source.rglob("*")) if path.is_file() and not set(copied) & set(path.parents)]
    inputs = [*(layout.notebooks / name for name in names), *pages, layout.figures / "interactive" / "index.html"]
    parameters = {name: os.environ.get(name) for name in PUBLISHER}
    return Record(
        layout, "book", "html",
        inputs=[path for path in inputs if path.is_file()],
        parameters=parameters, modules=MODULES, folder=source / "_build",
    )  # fmt: skip


def _build(layout: Layout, source: Path, names: list[str]) -> None:
    """Bring the executed notebooks together with the pages, and let Jupyter Book build them."""
    gather(layout, names, source / "notebooks")
    page = layout.figures / "interactive"
    shutil.rmtree(source / "_static" / "interactive", ignore_errors=True)
    if page.is_dir():
        shutil.copytree(page, source / "_static" / "interactive")
    # All pages each time: Sphinx cannot see that a page changed because a number glued into it did.
    call = "from jupyter_book.cli.main import main; main()"
    options = ["-W", "-n", "--keep-going", "--all", "--quiet"]
    command = [sys.executable, "-c", call, "build", str(source), *options]
    log.info("building the book")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)  # Sphinx colours its warnings
        lines = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line]
        what = "; ".join(lines[:5]) or said[-1000:] or done.stdout[-1000:]
        raise ProductError(f"The book in {source} could not be built: {what}")
