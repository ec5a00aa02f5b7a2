"""The steps of a run, in their order: one table that commands, overview, notebooks and `run` read."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.engine import Step

#: Module that declares each step (as ``STEP``), and the notebook that runs it.
STEPS = {
    "preprocess": ("msa3d.reduce.detector1", "01_process"),
    "process": ("msa3d.reduce.calibrate", "01_process"),
    "calpost": ("msa3d.reduce.slits", "02_postprocess"),
    "postprocess": ("msa3d.published.spectra", "02_postprocess"),
    "register": ("msa3d.pointing.offsets", "03_cubebuild"),
    "cubebuild": ("msa3d.cubes.build", "03_cubebuild"),
}


def step(name: str) -> Step:
    """Give the declaration of a step; its room is imported now."""
    return import_module(STEPS[name][0]).STEP


def post_steps(dataset: Dataset) -> list[str]:
    """Name the steps that post-process what the wanted cubes are made of.

    Calibrated slits for the drizzle builder (``calpost``), rectified spectra for the published one (``postprocess``).
    """
    return [{"drizzle": "calpost", "paper": "postprocess"}[name] for name in dataset.cubebuild.builders]
