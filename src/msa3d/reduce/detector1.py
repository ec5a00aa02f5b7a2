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
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa3d.archive import crds
from msa3d.errors import DatasetError, ObservationError, ProductError
from msa3d.observation.exposures import leave_out_others
from msa3d.pipeline import products
from msa3d.pipeline.parallel import run_tasks
from msa3d.reduce.exposure import configured, first_line, pipeline_log

if TYPE_CHECKING:
    from astropy.table import Table

    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout

__all__ = ["PreprocessReport", "preprocess_ramp", "run"]


#: Peak memory of Detector1 on a full-frame NRSIRS2 ramp of some twenty groups.
MEMORY_GB_EACH = 8.0
MODULES = ("msa3d.reduce.detector1",)


@dataclass(frozen=True)
class RampTask:
    """One ramp to reduce (picklable): its file, the product, the parameters and what is stamped."""

    ramp: Path
    rate: Path
    parameters: Mapping[str, Mapping[str, Any]]
    dataset: Dataset
    record: products.Record

    def __str__(self) -> str:
        return self.ramp.name


@dataclass(frozen=True)
class PreprocessReport:
    """Results of stage 1.

    Attributes
    ----------
    rates : list of Path
        The count-rate images, sorted by name.
    seconds : dict of str to float
        Wall seconds by name of the image; those that were current are absent.
    """

    rates: list[Path]
    seconds: dict[str, float] = field(default_factory=dict)

    def table(self) -> Table:
        """Name of the image, status (``done`` or ``current``) and wall seconds, a row an image."""
        from astropy.table import Table

        names = [path.name for path in self.rates]
        return Table(
            {
                "rate": names,
                "status": ["done" if name in self.seconds else "current" for name in names],
                "seconds": [round(self.seconds.get(name, 0.0), 1) for name in names],
            }
        )


@products.one_run_a_root
def run(dataset: Dataset, layout: Layout, *, workers: int | str | None = None) -> PreprocessReport:
    """Run Detector1 on every ``jw*_uncal.fits`` at the top of the root that is a spectrum.

    Parameters
    ----------
    dataset : Dataset
        ``process.detector1`` holds the parameters, those published where it extends ``base``.
    layout : Layout
        Where things lie.
    workers : int or str, optional
        As for `msa3d.pipeline.parallel.run_tasks`.

    Returns
    -------
    PreprocessReport

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
    tasks = [_task(ramp, dataset, layout, parameters, context) for ramp in ramps]
    waiting = [task for task in tasks if not task.record.is_current([task.rate])]
    for task in waiting:
        if task.rate.exists() and task.record.read() is None:
            raise ObservationError(
                f"{task.rate} exists already and was not made here: move it away, or start from it with "
                "process.run_stage1: false."
            )
    seconds = run_tasks(
        preprocess_ramp,
        waiting,
        workers=workers,
        memory_gb_each=MEMORY_GB_EACH,
        label="preprocess",
        environment=crds.environment(layout, dataset),
    )
    names = [task.rate.name for task in waiting]
    return PreprocessReport([task.rate for task in tasks], dict(zip(names, seconds, strict=True)))


def _task(ramp: Path, dataset: Dataset, layout: Layout, parameters: dict, context: str) -> RampTask:
    rate = ramp.with_name(ramp.name.replace("_uncal.fits", "_rate.fits"))
    record = products.Record(
        layout,
        "preprocess",
        rate.stem,
        inputs=[ramp],
        parameters={"detector1": parameters, "crds_context": context},
        modules=MODULES,
    )
    return RampTask(ramp, rate, parameters, dataset, record)


def preprocess_ramp(task: RampTask) -> float:
    """Run Detector1 on one ramp.

    Parameters
    ----------
    task : RampTask
        What to do.

    Returns
    -------
    float
        Wall seconds.

    Raises
    ------
    ProductError
        When the pipeline fails; the sentence names its log.
    """
    from jwst.pipeline import Detector1Pipeline
    from stdatamodels.jwst import datamodels

    started = time.perf_counter()
    log_path = task.record.path.with_suffix(".log")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with products.atomic_path(task.rate) as partial:
        try:
            # As counts, which `open` would give, jwst 1.14.0 could not subtract the bias from them.
            with pipeline_log(log_path), datamodels.RampModel(str(task.ramp)) as ramp:
                pipeline = configured(Detector1Pipeline, task.parameters)
                with pipeline.run(ramp) as rate:
                    _save_as(rate, task.rate.name, partial)
            _collect()
        except DatasetError:
            raise
        except Exception as error:
            raise ProductError(
                f"jwst failed with {type(error).__name__}: {first_line(error)}; its log is {log_path}."
            ) from error
        products.stamp_file(partial, dataset=task.dataset, inputs=[task.ramp], step="preprocess")
    seconds = time.perf_counter() - started
    task.record.write([task.rate], seconds=seconds)
    return seconds


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
