"""Cubes of all sources of a run, by the builders that the dataset names.

A builder is a module in `BUILDERS` with ``sources``, ``inputs``, ``products``, ``parameters``, ``modules``,
``build`` and ``record_name``; its `task` is a `SourceTask`.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from msa3d.cubes import drizzle
from msa3d.errors import DatasetError, ProductError
from msa3d.observation.source import Placed, SourceTask, place_exposures
from msa3d.pipeline.engine import Made, Record, Result, Step, Task
from msa3d.pointing import offsets
from msa3d.published import cube

if TYPE_CHECKING:
    from collections.abc import Iterable

    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


BUILDERS: dict[str, ModuleType] = {"drizzle": drizzle, "paper": cube}
"""Builders by the name that ``cubebuild.builder`` of a dataset gives."""


def builder(name: str) -> ModuleType:
    """Find a cube builder by its ``cubebuild.builder`` name; a DatasetError if this release has none of that name."""
    try:
        return BUILDERS[name]
    except KeyError:
        raise DatasetError(
            f"cubebuild.builder: this release has no builder {name!r}; choose one of {', '.join(BUILDERS)}"
        ) from None


def columns(result: Result) -> dict[str, Any]:
    """Source, builder, shape, exposures used and missing, and the largest offset of a place of a cube."""
    notes = result.notes
    return {
        "source": notes["source_id"],
        "builder": notes["builder"],
        "shape": "x".join(map(str, notes["shape"])),
        "exposures": notes["exposures"],
        "missing": notes["missing"],
        "worst_place_arcsec": round(notes.get("worst_place_arcsec", float("nan")), 4),
    }


def tasks(
    dataset: Dataset, layout: Layout, sources: Iterable[int] | None = None, builders: Iterable[str] | None = None
) -> list[Task]:
    """One task a source that has post-processed spectra or slits, and builder.

    Parameters
    ----------
    dataset : Dataset
        The observation and its parameters.
    layout : Layout
        Where things lie.
    sources : iterable of int, optional
        Only these ids; by default all with an id greater than ``postprocess.min_source_id``, as published.
    builders : iterable of str, optional
        Names of the builders, by default those of the dataset (``cubebuild.builder`` and ``also``).

    Raises
    ------
    ProductError
        If there is no post-processed spectrum of a source asked for.
    """
    exposures = place_exposures(dataset, layout)
    names = dataset.cubebuild.builders if builders is None else tuple(builders)
    if "drizzle" in names and dataset.cubebuild.drizzle.registration.method != "none":
        offsets.run(dataset, layout)
    return [task for name in names for task in _tasks(name, dataset, layout, exposures, sources)]


def _tasks(
    name: str, dataset: Dataset, layout: Layout, exposures: tuple[Placed, ...], sources: Iterable[int] | None
) -> list[Task]:
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
    made = []
    for source_id in wanted:
        task = SourceTask(layout, dataset, source_id, exposures)
        record = Record(
            layout,
            "cubebuild",
            chosen.record_name(source_id),
            inputs=chosen.inputs(task),
            parameters=chosen.parameters(task),
            modules=chosen.modules(task),
        )
        made.append(Task(f"{task.name} ({name})", record, (name, task)))
    return made


def _build_cube(job: tuple[str, SourceTask]) -> Made:
    """Build the cube of one source by the builder of a name."""
    name, source = job
    notes = builder(name).build(source)
    return Made(builder(name).products(source), {"source_id": source.source_id, "builder": name, **notes})


STEP = Step("cubebuild", tasks, _build_cube, columns, memory_gb=2.0)
run = STEP.run
