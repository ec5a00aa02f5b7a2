"""The published entry point: ``run(data_path, msa_path, ...)``, as Barisic et al. (2024) call it.

It builds a `Dataset` from the arguments and chains the steps. Each argument has its place there:

================= ==========================================================================================
``data_path``      where the run lies: the directory of the rates (``Layout.root``)
``msa_path``       ``dataset.metafile``; the original is never overwritten, unlike in the published code
``N_exposures``    must be ``rows * columns``
``rows, columns``  ``dataset.pattern``
``N_gmembers``     exposures a group, hence ``N_exposures / N_gmembers`` workers
``fname``          only ``"reduction"``: the directory tree has no other name
``transform_msa``  ``dataset.process.transform_msa``
``run_stage1``     ``dataset.process.run_stage1``: Detector1 on the uncal files beside the metafile
================= ==========================================================================================

All other parameters are those of the dataset, `go2136` unless told otherwise: the published ones.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msa3d.config import Dataset
from msa3d.errors import DatasetError, ObservationError
from msa3d.pipeline.layout import Layout

if TYPE_CHECKING:
    from msa3d.pipeline.engine import Report


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunReport:
    """What each step reported; None for a step that was not asked for.

    Attributes
    ----------
    dataset : Dataset
        The description that the arguments amount to.
    layout : Layout
        Where everything lies.
    preprocess, process, postprocess, cubebuild : report or None
        Reports of the steps, each with a ``table()``.
    """

    dataset: Dataset
    layout: Layout
    preprocess: Report | None = None
    process: Report | None = None
    postprocess: Report | None = None
    cubebuild: Report | None = None


def run(
    data_path: str | Path | Iterable[str | Path],
    msa_path: str | Path,
    run_process: bool = False,
    run_postprocess: bool = True,
    run_cubebuild: bool = True,
    N_exposures: int = 63,
    rows: int = 7,
    columns: int = 9,
    N_gmembers: int = 63,
    fname: str = "reduction",
    transform_msa: bool = True,
    run_stage1: bool = False,
    *,
    dataset: Dataset | str | Path = "go2136",
    workers: int | str | None = None,
    builder: str = "paper",
) -> RunReport:
    """Run the steps of the paper, with the arguments of the published code in their order and defaults.

    Parameters
    ----------
    data_path : path, or iterable of path
        The rate files (or, without `run_process`, the ``s2d`` files under ``reduction/process``, or with
        `run_stage1` the uncal files), or the directory of the rates. All files of the run's directory are
        used.
    msa_path : path
        The MSA metafile, in the directory of the rates.
    run_process, run_postprocess, run_cubebuild : bool
        Which steps to run. As published, `run_process` is off by default.
    N_exposures : int
        Number of exposures.
    rows, columns : int
        Dithers along the slit, and steps across it.
    N_gmembers : int
        Exposures a group; the groups run at the same time.
    fname : str
        ``"reduction"``.
    transform_msa : bool
        Give all rows of a slitlet the id of its source, in a copy of the metafile.
    run_stage1 : bool
        Begin with Detector1.
    dataset : Dataset, str or path
        Where all other parameters come from.
    workers : int or str, optional
        Instead of `N_gmembers`.
    builder : {"paper", "drizzle"}
        Which cubes to build: those of the published algorithm, as this entry point always did, or drizzled ones.

    Returns
    -------
    RunReport

    Raises
    ------
    msa3d.errors.Msa3dError
        If an argument or the observation is wrong, before anything is written.
    """
    layout = Layout(find_root(data_path))
    description = describe(
        dataset, layout, msa_path,
        n_exposures=N_exposures, rows=rows, columns=columns,
        fname=fname, transform_msa=transform_msa, run_stage1=run_stage1, builder=builder,
    )  # fmt: skip
    if workers is None:
        if N_gmembers < 1:
            raise DatasetError(f"N_gmembers must be 1 or more, not {N_gmembers}")
        workers = math.ceil(N_exposures / N_gmembers)
    from msa3d.pipeline.steps import post_steps, step

    (postprocess,) = post_steps(description)
    asked = {"preprocess": run_stage1, "process": run_process, postprocess: run_postprocess}
    names = [name for name, wanted in {**asked, "cubebuild": run_cubebuild}.items() if wanted]
    reports = {name: step(name).run(description, layout, workers=workers) for name in names}
    return RunReport(description, layout, postprocess=reports.pop(postprocess, None), **reports)


def find_root(data_path: str | Path | Iterable[str | Path]) -> Path:
    """Find the directory of a run from any of its files.

    Parameters
    ----------
    data_path : path, or iterable of path
        A directory, or files: rates or uncals in the root, or ``s2d`` files below ``reduction/process``.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ObservationError
        If there is no file, or they lie in different runs.
    """
    single = isinstance(data_path, str | Path)
    paths = [Path(item) for item in ([data_path] if single else data_path)]
    if not paths:
        raise ObservationError("data_path: no files; give the rate files of the run, or their directory")
    roots = set()
    for path in paths:
        if not path.exists():
            raise ObservationError(f"data_path: {path} does not exist")
        parents = path.absolute().parents
        if path.is_dir():
            roots.add(path.absolute())
        elif path.name.endswith(("_rate.fits", "_uncal.fits")):
            roots.add(parents[0])
        elif len(parents) > 3 and (parents[1].name, parents[2].name) == ("process", "reduction"):
            roots.add(parents[3])
        else:
            raise ObservationError(
                f"data_path: {path} is neither a rate file nor a spectrum in reduction/process/exp_*_nobar"
            )
    if len(roots) > 1:
        raise ObservationError(
            f"data_path: the files lie in different runs, {', '.join(map(str, sorted(roots)))}; "
            "put all rates of the observation into one directory"
        )
    return roots.pop()


def describe(
    dataset: Dataset | str | Path,
    layout: Layout,
    msa_path: str | Path,
    *,
    n_exposures: int,
    rows: int,
    columns: int,
    fname: str = "reduction",
    transform_msa: bool = True,
    run_stage1: bool = False,
    builder: str = "paper",
) -> Dataset:
    """Describe what the published arguments mean as a dataset.

    Parameters
    ----------
    dataset : Dataset, str or path
        Where all other parameters come from.
    layout : Layout
        The run.
    msa_path : path
        The metafile.
    n_exposures, rows, columns, fname, transform_msa, run_stage1, builder
        See `run`.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If the arguments contradict each other or the directory tree.
    """
    if n_exposures != rows * columns:
        raise DatasetError(f"N_exposures is {n_exposures}, but rows x columns is {rows} x {columns} = {rows * columns}")
    if fname != layout.reduction.name:
        raise DatasetError(
            f"fname: products always go to {layout.reduction}; {fname!r} cannot be chosen, but the directory "
            "of the rates can"
        )
    msa_path = Path(msa_path)
    if msa_path.absolute().parent != layout.root:
        raise DatasetError(f"msa_path: {msa_path} must lie beside the rates, in {layout.root}")
    base = dataset if isinstance(dataset, Dataset) else Dataset.load(dataset)
    return base.replaced(
        metafile=msa_path.name,
        pattern={"rows": rows, "columns": columns},
        process={"transform_msa": transform_msa, "run_stage1": run_stage1},
        cubebuild={"builder": builder, "also": []},
    )
