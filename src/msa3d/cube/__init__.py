"""Cubes from slit-stepping exposures: what a cube is, and the builders that make one.

Each builder is a module with the same functions, registered in `BUILDERS`: ``sources(dataset, layout, exposures)``
finds what there is to build, ``inputs(task)`` and ``products(task)`` list files, ``parameters(task)`` says what
decides their content and ``modules(task)`` whose code, ``build(task)`` writes them, ``record_name(source_id)`` is
what the record of it is called; `task` is a `SourceTask`.
"""

from __future__ import annotations

from types import ModuleType

from msa3d.cube import drizzle, paper
from msa3d.cube.cubefile import Cube, open_cube
from msa3d.cube.source import Placed, SourceTask, cube_path
from msa3d.errors import DatasetError

__all__ = ["BUILDERS", "Cube", "Placed", "SourceTask", "builder", "cube_path", "open_cube"]

BUILDERS: dict[str, ModuleType] = {"drizzle": drizzle, "paper": paper}
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
