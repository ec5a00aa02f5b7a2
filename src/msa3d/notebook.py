"""Execute a notebook of the project into the directory of a run.

Papermill puts the parameters in and runs the cells. The copy under way ends in ``.ipynb.partial`` and gets
its name when the last cell is done, so that an ``.ipynb`` there is always a whole one; a copy that failed is
kept as ``.failed.ipynb``, with the traceback in it.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa3d.errors import DatasetError, ProductError
from msa3d.workers import UNWATCHED, set_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msa3d.layout import Layout

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
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise DatasetError(f"The parameters in {path} cannot be read: {error}") from error
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
