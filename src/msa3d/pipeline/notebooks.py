"""Notebooks executed and bound into the book, unless they are current.

Execute a notebook of the project into the directory of a run.

Papermill puts the parameters in and runs the cells. The copy under way ends in ``.ipynb.partial`` and gets
its name when the last cell is done, so that an ``.ipynb`` there is always a whole one; a copy that failed is
kept as ``.failed.ipynb``, with the traceback in it.

An executed notebook is current as long as the notebook, its parameters, the resolved dataset, the code that it
imports and the data under it are those that made it; all of this is found from the notebook, nothing is listed.

Bind the executed notebooks of a run into the book.

The book's own pages stand in ``book/``; the executed notebooks are copied to ``book/notebooks`` and Jupyter
Book makes ``book/_build/html`` of both, with its warnings as errors. A notebook that is not
whole is not bound.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tqdm import tqdm

from msa3d._model import read_yaml
from msa3d.errors import DatasetError, ProductError
from msa3d.pipeline.codeversion import behind_run, msa3d_imports
from msa3d.pipeline.engine import Record, is_same, read_record, sha256_of
from msa3d.pipeline.parallel import UNWATCHED, set_environment
from msa3d.pipeline.products import alone, working
from msa3d.pipeline.steps import STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbformat import NotebookNode

    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


log = logging.getLogger(__name__)

#: Where a notebook given by its name is looked for.
FOLDER = Path("notebooks")

#: The notebook for those who open a session: it tells about the run, and is no part of it.
START = "00_start_here"

#: Key of the notebook's metadata that says what running it cost.
METADATA = "msa3d"


def find(name: str | Path) -> Path:
    """Find the file of a notebook.

    Parameters
    ----------
    name : str or Path
        ``01_process``, or the path of a file.

    Returns
    -------
    Path
        The notebook.

    Raises
    ------
    ProductError
        Where there is none; the sentence names those that there are.
    """
    for path in (Path(name), FOLDER / f"{name}.ipynb", FOLDER / name):
        if path.suffix == ".ipynb" and path.is_file():
            return path
    there = ", ".join(sorted(path.stem for path in FOLDER.glob("*.ipynb"))) or "none"
    raise ProductError(f"There is no notebook {name}; in {FOLDER}/ of the working directory there are: {there}.")


def all_names() -> list[str]:
    """Names of the notebooks of a run in their order, without the one that only tells about it."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb") if path.stem != START)


def read_parameters(path: Path | None) -> dict[str, Any]:
    """Read a YAML file of parameters.

    Parameters
    ----------
    path : Path or None
        The file; None for no parameters.

    Returns
    -------
    dict
        Names and values.

    Raises
    ------
    DatasetError
        Where it cannot be read, or is no table of names and values.
    """
    if path is None:
        return {}
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must be a YAML table of parameter names and values.")
    return content


def check_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """See that the notebook knows all parameters that it is to be given.

    Parameters
    ----------
    path : Path
        The notebook, with a cell tagged ``parameters``.
    parameters : mapping
        Names and values.

    Raises
    ------
    DatasetError
        Where one is unknown; papermill itself would run the notebook with a variable that nothing reads.
    """
    import papermill

    known = sorted(papermill.inspect_notebook(path))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise DatasetError(
            f"The notebook {path} has no parameter {', '.join(unknown)}; "
            f"its cell tagged 'parameters' has: {', '.join(known) or 'none'}."
        )


def run(name: str | Path, layout: Layout, dataset: Dataset, parameters: Mapping[str, Any]) -> tuple[Path, bool]:
    """Execute a notebook, unless the executed copy that is there is current.

    Parameters
    ----------
    name : str or Path
        See `find`.
    layout : Layout
        The run.
    dataset : Dataset
        What the notebook's parameter ``dataset`` names, with all that it extends.
    parameters : mapping
        See `execute`. Where the run lies and how many workers it has make no difference to what comes out.

    Returns
    -------
    path : Path
        The executed copy.
    done : bool
        Whether it was executed now.

    Raises
    ------
    ProductError, DatasetError
        See `execute`.
    BusyError
        Where another process works in this root.
    """
    source = find(name)
    final = layout.notebooks / source.name
    layout.notebooks.mkdir(parents=True, exist_ok=True)
    # Its kernel is a process of this one, in which the steps take the lock again.
    with working(layout, f"notebook {source.stem}"):
        decides = {key: value for key, value in parameters.items() if key not in ("dataset", "root", "workers")}
        known = {"notebook": sha256_of(source), "dataset": dataset.model_dump(mode="json"), "parameters": decides}
        record = _record(source, layout, known)
        if record.is_current([final]) and not _lost(record):
            return final, False
        # The code as it was when the notebook began; the data as they are when it has ended, as it makes some.
        code = record.code
        record.withdraw()
        execute(source, layout, parameters)
        record = _record(source, layout, known)
        record.code = code
        record.write([final])
    return final, True


def _record(source: Path, layout: Layout, known: Mapping[str, Any]) -> Record:
    """Make the record of an executed notebook: its code and data are found from what it imports."""
    cells = [cell for cell in json.loads(source.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    tree = ast.parse("\n".join(line for line in lines if not line.lstrip().startswith(("%", "!"))))
    used, methods = behind_run(tree)
    modules = msa3d_imports(tree) | used
    own = [step for step, (module, _) in STEPS.items() if module in modules]
    until = list(STEPS).index(own[-1]) + 1 if own else len(STEPS)
    records = [path for step in list(STEPS)[:until] for path in sorted(layout.records.glob(f"{step}_*.json"))]
    # The count rates need not be read: where only their dates changed, the steps find their products current.
    files = sorted(layout.root.glob("jw*.fits")) if set(own) & set(list(STEPS)[:2]) else []
    data = {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}
    parameters = {**known, "data": data, "steps": own, "run": methods}
    return Record(layout, "notebook", source.stem, inputs=records, parameters=parameters, modules=sorted(modules))


def _lost(record: Record) -> bool:
    """Whether products of the notebook's own steps are missing or are not what was written."""
    for path in record.inputs:
        if path.stem.startswith(tuple(f"{step}_" for step in record.parameters["steps"])):
            known = read_record(path)
            for name, was in known["products"].items() if known else [(path.name, None)]:
                if was is None or not is_same(record.layout.root / name, was):
                    log.info("%s is missing or is not what was written", name)
                    return True
    return False


def execute(name: str | Path, layout: Layout, parameters: Mapping[str, Any]) -> Path:
    """Execute a notebook with parameters.

    Parameters
    ----------
    name : str or Path
        Name in ``notebooks/`` of the working directory, or the path of a file.
    layout : Layout
        The run; the executed copy goes to its ``notebooks``.
    parameters : mapping
        Values for the cell tagged ``parameters``.

    Returns
    -------
    Path
        The executed copy. Its metadata ``msa3d`` holds ``seconds`` (wall) and ``peak_memory_gb``, the largest
        resident memory of any one process under the notebook.

    Raises
    ------
    ProductError
        Where a cell fails; the failed copy is named.
    DatasetError
        Where a parameter is unknown to the notebook.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source = find(name)
    check_parameters(source, parameters)
    final = layout.notebooks / source.name
    partial = final.with_name(f"{final.name}.partial")
    failed = final.with_name(f"{final.stem}.failed.ipynb")
    final.parent.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)

    start = time.monotonic()
    with warnings.catch_warnings(), set_environment({UNWATCHED: "1"}):
        # papermill wants the name of a notebook under way to end in .ipynb; ours must not.
        warnings.filterwarnings("ignore", message=r"The specified file \(.*\) does not end in one of")
        try:
            papermill.execute_notebook(
                source,
                partial,
                dict(parameters),
                kernel_name="python3",
                progress_bar=sys.stderr.isatty(),
                stderr_file=_Bars() if sys.stderr.isatty() else None,
                extra_arguments=["--IPKernelApp.log_level=40"],
            )
        except PapermillExecutionError as error:
            partial.replace(failed)
            raise ProductError(
                f"The notebook {source} failed in its cell {error.exec_count}: "
                f"{error.ename}: {error.evalue} (the failed copy is {failed})."
            ) from error
    note_cost(partial, time.monotonic() - start)
    partial.replace(final)
    log.info("%s done in %.0f s", source.stem, time.monotonic() - start)
    return final


class _Bars:
    """Passes on the progress of steps out of a notebook's kernel, and nothing else that it says on stderr."""

    def write(self, text: str) -> None:
        """Print the last state of the bar, above that of the notebook's cells."""
        states = [line for line in re.split(r"[\r\n]+", text) if "%|" in line]
        if states:
            tqdm.write(states[-1], file=sys.stderr)

    def flush(self) -> None:
        """Nothing is held back."""


def note_cost(path: Path, seconds: float) -> None:
    """Write into an executed notebook what it took.

    Parameters
    ----------
    path : Path
        The executed notebook, changed in place.
    seconds : float
        Wall time.
    """
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    # Kilobytes on Linux, bytes on macOS; of the largest of all processes that have ended under this one.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9
    notebook.metadata[METADATA] = {"seconds": round(seconds, 1), "peak_memory_gb": round(peak, 2)}
    nbformat.write(notebook, path)


MODULES = ("msa3d.pipeline.notebooks", "msa3d.citations")

#: Environment variables by which a service tells who publishes the book (see ``book/_ext/msa3d_book.py``).
PUBLISHER = ("GITHUB_REPOSITORY", "GITHUB_SERVER_URL", "READTHEDOCS_GIT_CLONE_URL")

#: Folder of the book's pages for files of the run that readers open or download; its name is no part of their address.
EXTRA = "_extra"

#: Environment variable that tells the book's extension whether the observation is simulated ("1") or real ("0").
SIMULATED = "MSA3D_SIMULATED"

#: First line of a page that makes no sense without a known truth: books of real data leave it out.
NEEDS_TRUTH = "---\nneeds_truth: true\n"


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
        record = _book_record(layout, source, names)
        first = source / "_build" / "html" / "index.html"
        if record.is_current([first]):
            log.info("the book is current")
        else:
            record.withdraw()
            _build(layout, source, names)
            record.write([first])
    return first


def _book_record(layout: Layout, source: Path, names: list[str]) -> Record:
    """Make the record of the book: its pages, the executed notebooks, the code behind it, and who publishes it."""
    copied = [source / name for name in ("_build", "notebooks", EXTRA, "_ext/__pycache__")]
    pages = [path for path in sorted(source.rglob("*")) if path.is_file() and not set(copied) & set(path.parents)]
    inputs = [*(layout.notebooks / name for name in names), *pages, *_extra(layout)]
    parameters = {name: os.environ.get(name) for name in PUBLISHER} | {"simulated": layout.truth.is_dir()}
    return Record(
        layout, "book", "html",
        inputs=[path for path in inputs if path.is_file()],
        parameters=parameters, modules=MODULES, folder=source / "_build",
    )  # fmt: skip


def _extra(layout: Layout) -> list[Path]:
    """Files of the run that the book offers beside its pages: figures with their data, the interactive page."""
    figures = [path for path in layout.figures.glob("*") if path.suffix in (".pdf", ".ecsv")]
    return sorted([*figures, *layout.figures.glob("interactive/*")])


def _table_of_contents(source: Path, *, simulated: bool) -> Path:
    """Write the table of contents, for real data without the pages that need a truth."""
    toc = read_yaml(source / "_toc.yml")
    for part in toc.get("parts", [toc]):
        pages = [source / f"{page['file']}.md" for page in part["chapters"]]
        part["chapters"] = [
            page
            for page, path in zip(part["chapters"], pages, strict=True)
            if simulated or not (path.is_file() and path.read_text(encoding="utf-8").startswith(NEEDS_TRUTH))
        ]
    path = source / "_build" / "_toc.yml"
    path.write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    return path


def _build(layout: Layout, source: Path, names: list[str]) -> None:
    """Bring the executed notebooks together with the pages, and let Jupyter Book build them."""
    gather(layout, names, source / "notebooks")
    shutil.rmtree(source / EXTRA, ignore_errors=True)
    (source / EXTRA).mkdir()
    for path in _extra(layout):
        copy = source / EXTRA / "figures" / path.relative_to(layout.figures)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    simulated = layout.truth.is_dir()
    toc = _table_of_contents(source, simulated=simulated)
    # All pages each time: Sphinx cannot see that a page changed because a number glued into it did.
    call = "from jupyter_book.cli.main import main; main()"
    options = ["-W", "-n", "--keep-going", "--all", "--quiet", "--toc", str(toc.absolute())]
    command = [sys.executable, "-c", call, "build", str(source), *options]
    log.info("building the book")
    environment = {**os.environ, SIMULATED: str(int(simulated))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)  # Sphinx colours its warnings
        lines = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line or "Error: " in line]
        what = "; ".join(lines[:5]) or said[-1000:] or done.stdout[-1000:]
        raise ProductError(f"The book in {source} could not be built: {what}")
