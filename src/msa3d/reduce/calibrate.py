"""Spec2 and Spec3 of the JWST pipeline, exposure by exposure, with the published parameters.

Each exposure is reduced on its own: Spec2 on the count-rate images of NRS1 and NRS2, then Spec3 on the two
calibrated images, so that every source of every exposure becomes one rectified spectrum
``newoutput_s<id>_s2d.fits``. The parameters are data of the dataset; those that really ran are exported
beside the products. The inputs are opened, never written: the pipeline reads the metafile from a copy.

What runs inside one exposure is in `msa3d.reduce.exposure`.
"""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from msa3d.archive import crds
from msa3d.errors import ObservationError
from msa3d.observation import metafile_edit
from msa3d.observation.exposures import Observation
from msa3d.observation.metafile import MsaFile
from msa3d.pipeline import products
from msa3d.pipeline.engine import Record, Result, Step, Task
from msa3d.reduce import jwst_speed
from msa3d.reduce.exposure import ExposureTask, process_exposure

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from msa3d.config import Dataset
    from msa3d.observation.exposures import Exposure
    from msa3d.pipeline.layout import Layout
    from msa3d.reduce.settings import ProcessSettings

log = logging.getLogger(__name__)

#: Modules whose code decides what the products are; the metafile, which this module edits, counts as a file.
MODULES = ("msa3d.reduce.exposure",)


def modules(settings: ProcessSettings) -> tuple[str, ...]:
    """Modules whose code counts: without that of the correlated noise where it stays."""
    return MODULES if settings.nsclean else (*MODULES, "-msa3d.reduce.nsclean")


def tasks(dataset: Dataset, layout: Layout, only: Collection[str] = ()) -> list[Task]:
    """Make the tasks of this step: one an exposure, and the copy of the metafile that all read.

    Parameters
    ----------
    dataset : Dataset
        The observation and its parameters.
    layout : Layout
        Where things lie.
    only : collection of str, optional
        Names of the exposures to reduce, to try a few first; by default all.

    Returns
    -------
    list of Task

    Raises
    ------
    ObservationError
        When the observation is not what the dataset describes, or has no such exposure; nothing has been written then.
    """
    accelerations = jwst_speed.chosen(dataset.process.accelerations)
    context = crds.use_references(layout, dataset)
    observation = Observation.read(layout, dataset)
    observation.check()
    unknown = sorted(set(only) - {exposure.activity for exposure in observation.exposures})
    if unknown:
        raise ObservationError(
            f"{layout.root} has no exposure {unknown[0]}; {observation.exposures[0].activity} is one."
        )
    metafile = write_metafile_copy(dataset, layout, observation)
    return [
        _task(exposure, dataset, layout, metafile, accelerations, context, observation.simulated)
        for exposure in observation.exposures
        if not only or exposure.activity in only
    ]


def write_metafile_copy(dataset: Dataset, layout: Layout, observation: Observation) -> Path:
    """Write the copy of the MSA metafile that the pipeline reads.

    Parameters
    ----------
    dataset : Dataset
        Says whether source ids are transformed (``process.transform_msa``) and whether only the slitlets of the
        targets are kept (``process.wanted_sources_only``).
    layout : Layout
        Where things lie.
    observation : Observation
        Names the original, which is left as it is.

    Returns
    -------
    Path
        The copy. One that says the same already is left alone, time of change included.
    """
    original = observation.metafile
    copy = layout.metafile_copy(original.name)
    wanted = [target.source_id for target in dataset.targets] if dataset.process.wanted_sources_only else None
    split, lengthen = dataset.process.split_slitlets, dataset.process.lengthen_slitlets
    settings = {
        "transform_msa": dataset.process.transform_msa, "wanted": wanted, "split": split, "lengthen": lengthen,
    }  # fmt: skip
    record = Record(
        layout,
        "metafile",
        original.stem,
        inputs=[original],
        parameters=settings,
        modules=("msa3d.observation.metafile_edit",),
    )
    if record.is_current([copy]):
        return copy
    metafile = MsaFile.read(original)
    for text in metafile.left_out:
        log.warning("%s: %s", original.name, text)
    metafile = metafile.repaired()
    if dataset.process.transform_msa:
        metafile = metafile.transform_ids()
    if wanted is not None:
        metafile = metafile.select_sources(wanted)
    if split is not None:
        metafile = metafile_edit.split_slitlets(metafile, split)
    if lengthen:
        metafile = metafile_edit.lengthen_slitlets(metafile, lengthen)
    record.withdraw()
    with products.atomic_path(copy) as partial:
        metafile.write(partial)
        products.stamp_file(
            partial, dataset=dataset, inputs=[original], simulated=observation.simulated, step="metafile copy"
        )
        alike = {"ignore_keywords": ["HISTORY", "MSA3D*", "CHECKSUM"], "ignore_comments": ["*"]}
        if copy.is_file() and fits.FITSDiff(copy, partial, **alike).identical:
            # Other code, the same tables: the exposures that were reduced with the old copy stay current.
            shutil.copy2(copy, partial)
    record.write([copy])
    return copy


def _task(
    exposure: Exposure,
    dataset: Dataset,
    layout: Layout,
    metafile: Path,
    accelerations: tuple[str, ...],
    context: str,
    simulated: bool,
) -> Task:
    settings = dataset.process
    rates = {detector.lower(): path for detector, path in sorted(exposure.rates.items())}
    # Accelerations leave the values alone, so that switching them does not make products out of date.
    spec2 = settings.spec2
    cleans = {"nsclean", "clean_flicker_noise"} & {*spec2, *settings.detector1}
    if settings.nsclean or (settings.run_stage1 and not cleans):
        # What starts from ramps is cleaned of correlated noise, which the published way does on the rates.
        spec2 = {**spec2, "nsclean": {"skip": False}}
    parameters = {
        "spec2": spec2,
        "spec3": settings.spec3,
        "product": settings.product,
        "crds_context": context,
        "nsclean": settings.nsclean,
    }
    record = Record(
        layout,
        "process",
        exposure.activity,
        inputs=[*rates.values(), metafile],
        parameters=parameters,
        modules=modules(settings),
    )
    job = ExposureTask(
        activity=exposure.activity,
        rates=rates,
        metafile=metafile,
        directory=layout.process_dir(exposure.activity),
        product=settings.product,
        spec2=spec2,
        spec3=settings.spec3,
        accelerations=accelerations,
        masks=layout.records / "failed_open",
        dataset=dataset,
        simulated=simulated,
    )
    return Task(f"exposure {exposure.activity}", record, job)


def columns(result: Result) -> dict[str, Any]:
    """Wall seconds of the parts, and of cleaned images how much of the differences between columns is left."""
    found = {name: round(seconds, 1) for name, seconds in result.notes["stages"].items()}
    for detector, notes in result.notes.get("nsclean", {}).items():
        before, after = (
            np.sqrt(max(notes[f"banding_{when}"] ** 2 - notes["noise_alone"] ** 2, 0.0)) for when in ("before", "after")
        )
        found[f"banding left {detector}"] = round(after / before, 2) if before > 0 else float("nan")
    return found


#: Memory is that of an exposure with about 40 slitlets on two detectors.
STEP = Step("process", tasks, process_exposure, columns, memory_gb=2.0, environment=crds.environment)
run = STEP.run
