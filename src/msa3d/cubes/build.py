"""Cubes of all sources of a run, by the builders that the dataset names.

Cubes from slit-stepping exposures: what a cube is, and the builders that make one.

Each builder is a module with the same functions, registered in `BUILDERS`: ``sources(dataset, layout, exposures)``
finds what there is to build, ``inputs(task)`` and ``products(task)`` list files, ``parameters(task)`` says what
decides their content and ``modules(task)`` whose code, ``build(task)`` writes them, ``record_name(source_id)`` is
what the record of it is called; `task` is a `SourceTask`.

From the post-processed exposures of a source to its cubes, by the builders that the dataset names.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from astropy.table import Table

from msa3d.cubes import drizzle
from msa3d.errors import DatasetError, ProductError
from msa3d.observation.source import Placed, SourceTask, place_exposures
from msa3d.pipeline import products
from msa3d.pipeline.products import run_outdated
from msa3d.pointing import offsets
from msa3d.published import cube

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


BUILDERS: dict[str, ModuleType] = {"drizzle": drizzle, "paper": cube}
"""Builders by the name that ``cubebuild.builder`` of a dataset gives."""


def builder(name: str) -> ModuleType:
    """Find a cube builder.

    Parameters
    ----------
    name : str
        ``cubebuild.builder`` of the dataset.

    Returns
    -------
    module

    Raises
    ------
    msa3d.errors.DatasetError
        If this release has no such builder.
    """
    try:
        return BUILDERS[name]
    except KeyError:
        raise DatasetError(
            f"cubebuild.builder: this release has no builder {name!r}; choose one of {', '.join(BUILDERS)}"
        ) from None


MEMORY_GB_EACH = 2.0


@dataclass(frozen=True)
class CubeTask:
    """One source and builder, and the record that says whether its cube is current."""

    name: str
    builder: str
    source: SourceTask
    record: products.Record = field(repr=False)


@dataclass(frozen=True)
class CubeResult:
    """What was built of one source."""

    source_id: int
    builder: str
    status: str
    products: list[Path]
    seconds: float
    memory_gb: float
    notes: dict[str, Any]


@dataclass(frozen=True)
class CubeReport:
    """Results of all sources, by builder and id."""

    sources: list[CubeResult]

    def table(self) -> Table:
        """Source, builder, status, shape, exposures used and missing, seconds, memory; a row a cube."""
        return Table(
            {
                "source": [item.source_id for item in self.sources],
                "builder": [item.builder for item in self.sources],
                "status": [item.status for item in self.sources],
                "shape": ["x".join(map(str, item.notes.get("shape", ()))) for item in self.sources],
                "exposures": [item.notes.get("exposures", 0) for item in self.sources],
                "missing": [item.notes.get("missing", 0) for item in self.sources],
                "worst_place_arcsec": [
                    round(item.notes.get("worst_place_arcsec", float("nan")), 4) for item in self.sources
                ],
                "seconds": [round(item.seconds, 2) for item in self.sources],
                "memory_gb": [round(item.memory_gb, 2) for item in self.sources],
            }
        )


@products.one_run_a_root
def run(
    dataset: Dataset,
    layout: Layout,
    *,
    workers: int | str | None = None,
    sources: Iterable[int] | None = None,
    builders: Iterable[str] | None = None,
) -> CubeReport:
    """Build a cube of every source that has post-processed spectra or slits.

    Sources whose cube is current are left alone.

    Parameters
    ----------
    dataset : Dataset
        The observation and its parameters.
    layout : Layout
        Where things lie.
    workers : int or str, optional
        Number of sources at a time, or address of a dask scheduler; None for what the machine allows.
    sources : iterable of int, optional
        Only these ids; by default all with an id greater than ``postprocess.min_source_id``, as published.
    builders : iterable of str, optional
        Names of the builders, by default those of the dataset (``cubebuild.builder`` and ``also``).

    Returns
    -------
    CubeReport

    Raises
    ------
    ProductError
        If there is no post-processed spectrum of a source asked for.
    """
    exposures = place_exposures(dataset, layout)
    names = dataset.cubebuild.builders if builders is None else tuple(builders)
    if "drizzle" in names and dataset.cubebuild.drizzle.registration.method != "none":
        offsets.run(dataset, layout)
    tasks = [task for name in names for task in _tasks(name, dataset, layout, exposures, sources)]
    results, _ = run_outdated("cubebuild", build_cube, tasks, _recorded, workers=workers, memory_gb_each=MEMORY_GB_EACH)
    return CubeReport(results)


def _tasks(
    name: str, dataset: Dataset, layout: Layout, exposures: tuple[Placed, ...], sources: Iterable[int] | None
) -> list[CubeTask]:
    """Tasks of one builder, with their records."""
    chosen = builder(name)
    found = chosen.sources(dataset, layout, exposures)
    wanted = sorted(set(found) if sources is None else {int(source_id) for source_id in sources})
    absent = [str(source_id) for source_id in wanted if source_id not in found]
    if absent or not wanted:
        whom = f"source {', '.join(absent)}" if absent else "any source"
        raise ProductError(
            f"{layout.process}: no post-processed spectrum of {whom} for the builder {name}; run `msa3d process` "
            "and `msa3d postprocess` first"
        )
    tasks = []
    for source_id in wanted:
        task = SourceTask(layout, dataset, source_id, exposures)
        record = products.Record(
            layout,
            "cubebuild",
            chosen.record_name(source_id),
            inputs=chosen.inputs(task),
            parameters=chosen.parameters(task),
            modules=chosen.modules(task),
        )
        tasks.append(CubeTask(f"{task.name} ({name})", name, task, record))
    return tasks


def build_cube(task: CubeTask) -> CubeResult:
    """Build the cube of one source.

    Parameters
    ----------
    task : CubeTask
        The source.

    Returns
    -------
    CubeResult
    """
    chosen = builder(task.builder)
    start = time.perf_counter()
    notes = chosen.build(task.source)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    products = chosen.products(task.source)
    task.record.write(products, seconds=seconds, memory_gb=memory, result=notes)
    return CubeResult(task.source.source_id, task.builder, "done", products, seconds, memory, notes)


def _recorded(task: CubeTask) -> CubeResult:
    notes = task.record.notes()
    products = builder(task.builder).products(task.source)
    return CubeResult(
        task.source.source_id,
        task.builder,
        "current",
        products,
        notes.get("seconds", 0.0),
        notes.get("memory_gb", 0.0),
        notes.get("result", {}),
    )
