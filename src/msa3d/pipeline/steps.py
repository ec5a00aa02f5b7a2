"""The steps of the paper, one module a step."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msa3d.config import Dataset


def post_steps(dataset: Dataset) -> list[ModuleType]:
    """Modules that post-process what the wanted cubes are made of.

    Parameters
    ----------
    dataset : Dataset
        Names the builders.

    Returns
    -------
    list of module
        Calibrated slits for the drizzle builder, rectified spectra for the published one.
    """
    from msa3d.published import spectra
    from msa3d.reduce import slits

    wanted = {"drizzle": slits, "paper": spectra}
    return [wanted[name] for name in dataset.cubebuild.builders]
