"""Optional stage 1: Detector1 of the JWST pipeline on uncalibrated ramps.

The count-rate images are written at the top of the root, where `msa3d.reduce.calibrate` looks for them.
Correlated noise is removed afterwards, by the ``nsclean`` step of Spec2, which `process` switches on for
datasets that start here (``process.run_stage1``): jwst's NSClean needs the WCS of the slitlets, which no
count-rate image has.

Simulated observations start at the count-rate images; this step needs the uncal files of a real one and the
references of Detector1 from CRDS.
"""

from __future__ import annotations

import gc
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits

from msa3d.archive import crds
from msa3d.errors import DatasetError, ObservationError, ProductError
from msa3d.observation.reading import leave_out_others
from msa3d.pipeline import products
from msa3d.pipeline.engine import Made, Record, Step, Task
from msa3d.reduce.exposure import configured, first_line
from msa3d.reduce.jwst_log import pipeline_log

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout

MODULES = ("msa3d.reduce.detector1", "-msa3d.reduce.nsclean")


@dataclass(frozen=True)
class RampTask:
    """One ramp to reduce (picklable): its file, the product, the log, the parameters and what is stamped."""

    ramp: Path
    rate: Path
    log: Path
    parameters: Mapping[str, Mapping[str, Any]]
    dataset: Dataset


def tasks(dataset: Dataset, layout: Layout) -> list[Task]:
    """Make the tasks of this step: one each ``jw*_uncal.fits`` at the top of the root that is a spectrum.

    Parameters
    ----------
    dataset : Dataset
        ``process.detector1`` holds the parameters, those published where it extends ``base``.
    layout : Layout
        Where things lie.

    Returns
    -------
    list of Task

    Raises
    ------
    ObservationError
        Where there are no uncal files, or where a count-rate image that this step did not make is in the way.
    """
    ramps = leave_out_others(sorted(layout.root.glob("jw*_uncal.fits")))
    if not ramps:
        raise ObservationError(
            f"{layout.root} holds no jw*_uncal.fits of a spectrum: stage 1 starts from uncalibrated ramps; "
            "put them there, or start from count-rate images with process.run_stage1: false."
        )
    parameters = dataset.process.detector1
    context = crds.use_references(layout, dataset)
    return [_task(ramp, dataset, layout, parameters, context) for ramp in ramps]


def _task(ramp: Path, dataset: Dataset, layout: Layout, parameters: dict, context: str) -> Task:
    rate = ramp.with_name(ramp.name.replace("_uncal.fits", "_rate.fits"))
    record = Record(
        layout,
        "preprocess",
        rate.stem,
        inputs=[ramp],
        parameters={"detector1": parameters, "crds_context": context},
        modules=MODULES,
    )
    if rate.exists() and "MSA3DSET" not in fits.getheader(rate):
        raise ObservationError(
            f"{rate} exists already and was not made here: move it away, or start from it with "
            "process.run_stage1: false."
        )
    return Task(ramp.name, record, RampTask(ramp, rate, record.path.with_suffix(".log"), parameters, dataset))


def preprocess_ramp(task: RampTask) -> Made:
    """Run Detector1 on one ramp.

    Parameters
    ----------
    task : RampTask
        What to do.

    Returns
    -------
    Made
        The count-rate image.

    Raises
    ------
    ProductError
        When the pipeline fails; the sentence names its log.
    """
    from jwst.pipeline import Detector1Pipeline
    from stdatamodels.jwst import datamodels

    task.log.parent.mkdir(parents=True, exist_ok=True)
    with products.atomic_path(task.rate) as partial:
        try:
            # As counts, which `open` would give, jwst 1.14.0 could not subtract the bias from them.
            with pipeline_log(task.log), datamodels.RampModel(str(task.ramp)) as ramp:
                pipeline = configured(Detector1Pipeline, task.parameters)
                with pipeline.run(ramp) as rate:
                    _save_as(rate, task.rate.name, partial)
            _collect()
        except DatasetError:
            raise
        except Exception as error:
            raise ProductError(
                f"jwst failed with {type(error).__name__}: {first_line(error)}; its log is {task.log}."
            ) from error
        products.stamp_file(partial, dataset=task.dataset, inputs=[task.ramp], step="preprocess")
    return Made([task.rate])


def _collect() -> None:
    """Collect what jwst 1.14.0 left behind: a handle of the ramp's file, of which Python would complain later."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _save_as(model: Any, name: str, path: Path) -> None:
    """Save a model under a temporary path, with its final name (which `save` takes from the path) in it."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".preprocess") as scratch:
        model.save(str(Path(scratch) / name))
        (Path(scratch) / name).rename(path)


#: Memory is that of a full-frame NRSIRS2 ramp of some twenty groups.
STEP = Step("preprocess", tasks, preprocess_ramp, memory_gb=8.0, environment=crds.environment)
run = STEP.run
