"""The embedded observation: rate files, metafile, references and truth, made on the spot.

The order of things: the CRDS cache, the plan (pointings, slitlets, metafile), the scene with its truth, the
optics of each detector (they do not move during the observation), then exposure by exposure the rates.
"""

from __future__ import annotations

import functools
import logging
import pickle
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.io.fits.hdu.compressed import NO_DITHER, SUBTRACTIVE_DITHER_1

from msa3d.archive.crds import use_references
from msa3d.errors import DatasetError
from msa3d.pipeline.engine import Record, check_pipeline
from msa3d.pipeline.parallel import run_tasks
from msa3d.pipeline.products import atomic_path, working
from msa3d_sim.crds_cache import build_crds_cache
from msa3d_sim.noise import RatePlanes

if TYPE_CHECKING:
    from msa3d_sim.plan import ObservationPlan, PlannedExposure


_STEPS_PER_SIGMA = 20
"""Quantisation of SCI: a step of sigma/20 adds 0.015 sigma rms."""
_RELATIVE_STEP = 5e-3
"""Quantisation of the noiseless planes (ERR, VAR_*), of their median: three times finer doubles the file."""
_TILE = (128, 2048)
"""Few large tiles: a tile a row, the default, takes five times as long to write and to read."""
_EXTRAS = {"ERR": "err", "VAR_POISSON": "var_poisson", "VAR_RNOISE": "var_rnoise"}


def write_rate(path: Path, planes: RatePlanes, primary: fits.Header, science: fits.Header, *, exact: bool) -> None:
    """Write a rate image, whole or not at all, compressed as its noise allows; as it is where `exact`."""
    sigma = float(np.median(planes.err))
    hdus = [fits.PrimaryHDU(header=primary)]
    hdus.append(_compressed(planes.sci, science, None if exact else sigma / _STEPS_PER_SIGMA, dither=True))
    for name, attribute in _EXTRAS.items():
        plane = getattr(planes, attribute)
        step = None if exact else float(np.median(plane)) * _RELATIVE_STEP
        hdus.append(_compressed(plane, fits.Header({"EXTNAME": name}), step))
    dq = fits.CompImageHDU(
        planes.dq, header=fits.Header({"EXTNAME": "DQ"}), compression_type="RICE_1", tile_shape=_TILE
    )
    hdus.insert(3, dq)
    with atomic_path(path) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True)


def _compressed(
    plane: np.ndarray, header: fits.Header, step: float | None, *, dither: bool = False
) -> fits.ImageHDU | fits.CompImageHDU:
    """A plane, tile-compressed where its noise allows; a fixed dither seed keeps the file the same from run to run."""
    if step is None:
        # Without loss a plane shrinks little, and astropy compresses it at the highest level: two seconds a plane.
        return fits.ImageHDU(plane, header=header)
    # A negative level is the step itself, not a fraction of what the library takes for the noise. Only a noisy
    # plane is dithered: a constant one would no longer compress.
    return fits.CompImageHDU(
        plane,
        header=header,
        compression_type="RICE_1",
        quantize_level=-step,
        quantize_method=SUBTRACTIVE_DITHER_1 if dither else NO_DITHER,
        dither_seed=1,
        tile_shape=_TILE,
    )


logger = logging.getLogger(__name__)

_MEMORY_GB = 1.3
_MEMORY_GB_PER_SOURCE = 0.2
"""Of a worker process; light cubes and their spline coefficients."""


@dataclass(frozen=True)
class SimulationReport:
    """How many rate files `simulate` made and how many it found current, and its wall time in seconds."""

    made: int
    current: int
    seconds: float


@dataclass(frozen=True)
class _Task:
    """One detector of one exposure, for a worker process."""

    dataset: object
    layout: object
    work: Path
    exposure: PlannedExposure
    detector: str

    def __str__(self) -> str:
        return f"{self.exposure.activity} {self.detector}"


def simulate(dataset, layout, *, workers=None) -> SimulationReport:
    """Make a simulated observation under a root.

    Parameters
    ----------
    dataset : `msa3d.config.Dataset`
        With a ``simulation`` block.
    layout : `msa3d.pipeline.layout.Layout`
        The root; rates and metafile go to its top, the truth to ``truth/``.
    workers : int or str, optional
        See `msa3d.pipeline.parallel.run_tasks`.

    Raises
    ------
    DatasetError
        The dataset is not a simulated one, or its slitlets do not fit.
    """
    if dataset.simulation is None:
        raise DatasetError(
            f"dataset {dataset.name} describes a real observation: there is nothing to simulate; "
            "put its rate files and metafile into the root instead"
        )
    layout.root.mkdir(parents=True, exist_ok=True)
    with working(layout, "simulate"):
        return _make(dataset, layout, workers)


def _make(dataset, layout, workers) -> SimulationReport:
    """Make what is not current. Here, modules of the simulator are imported where they are needed: it takes seconds."""
    started = time.monotonic()
    check_pipeline(layout)
    build_crds_cache(layout.crds_cache)
    use_references(layout, dataset)
    places = [(index, detector) for index in range(dataset.pattern.n_exposures) for detector in dataset.detectors]
    wanted = [place for place in places if not _record(dataset, layout, *place).is_current()]
    metafile = _record(dataset, layout)
    if wanted or not metafile.is_current():
        from msa3d_sim.plan import plan_observation, write_metafile

        plan = plan_observation(dataset)
        metafile.withdraw()
        write_metafile(dataset, plan, layout.metafile(dataset.metafile))
        metafile.write([layout.metafile(dataset.metafile)])
    if wanted:
        work = layout.truth / "work"
        work.mkdir(parents=True, exist_ok=True)
        _set_the_scene(dataset, layout, plan, work)
        shared = [_Task(dataset, layout, work, plan.exposures[0], detector) for detector in dataset.detectors]
        memory_gb = _MEMORY_GB + _MEMORY_GB_PER_SOURCE * len(dataset.simulation.sources)
        run_tasks(_prepare_detector, shared, workers=workers, memory_gb_each=memory_gb, label="optics")
        tasks = [_Task(dataset, layout, work, plan.exposures[index], detector) for index, detector in wanted]
        run_tasks(_expose, tasks, workers=workers, memory_gb_each=memory_gb, label="simulate")
        shutil.rmtree(work)
    return SimulationReport(len(wanted), len(places) - len(wanted), time.monotonic() - started)


def _record(dataset, layout, index: int | None = None, detector: str = "") -> Record:
    """What a rate file, or the metafile, depends on: the simulation, the pattern and this package's code."""
    metafile = index is None
    return Record(
        layout,
        "simulate",
        "metafile" if metafile else f"{dataset.simulation.activity(index)}_{detector.lower()}",
        parameters={
            "simulation": dataset.simulation.model_dump(mode="json"),
            "pattern": dataset.pattern.model_dump(mode="json"),
            "names": [dataset.programme, dataset.observation, dataset.visit, dataset.metafile],
            "optics": [dataset.filter, dataset.grating],
        },
        # No count rate depends on how the metafile is written.
        modules=("msa3d_sim.plan",) if metafile else ("msa3d_sim.observe", "-msa3d.observation.metafile"),
        folder=layout.truth / "records",
    )


def _set_the_scene(dataset, layout, plan: ObservationPlan, work: Path) -> None:
    """Build the scene once, keep its truth, and leave it where the workers find it."""
    from msa3d_sim.light import blur_kms
    from msa3d_sim.scene import Scene

    scene = Scene.from_settings(dataset.simulation)
    scene.write_truth(layout.truth)
    _write_pointings(plan, layout.truth / "pointings.ecsv")
    sources = {source.source_id: source.broadened(blur_kms) for source in scene.sources}
    for name, content in (("sources", sources), ("plan", plan)):
        with atomic_path(work / f"{name}.pickle") as temporary:
            temporary.write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))


def _write_pointings(plan: ObservationPlan, path: Path) -> None:
    """Table of where the headers say that the telescope looked, and where it did."""
    from astropy.table import Table

    rows = [
        (e.activity, e.row, e.column, e.nominal.ra, e.nominal.dec, e.true.ra, e.true.dec, e.true.roll)
        for e in plan.exposures
    ]
    names = ("activity", "row", "column", "ra_nominal", "dec_nominal", "ra_true", "dec_true", "roll_true")
    with atomic_path(path) as temporary:
        Table(rows=rows, names=names).write(temporary, format="ascii.ecsv", overwrite=True)


def _load(work: Path, name: str):
    """Something that the parent process pickled for the workers of this very run."""
    return pickle.loads((work / f"{name}.pickle").read_bytes())


def _prepare_detector(task: _Task) -> None:
    """Trace the optics of one detector and sum up the light that no pointing changes."""
    from msa3d_sim.light import DetectorLight
    from msa3d_sim.plan import header_model

    use_references(task.layout, task.dataset)
    model = header_model(task.dataset, task.exposure, task.detector, task.exposure.nominal)
    light = DetectorLight.trace(model, _load(task.work, "plan").slitlets, task.dataset.simulation)
    with atomic_path(task.work / f"{task.detector}.pickle") as temporary:
        temporary.write_bytes(pickle.dumps(light, protocol=pickle.HIGHEST_PROTOCOL))


@functools.lru_cache(maxsize=4)
def _shared(work: Path, name: str):
    """Load once a process."""
    return _load(work, name)


def _expose(task: _Task) -> None:
    """Take one exposure with one detector and write its rate file."""
    from msa3d_sim.light import fill_with_light
    from msa3d_sim.noise import spoil
    from msa3d_sim.plan import primary_header, rate_name, science_header

    dataset, exposure, detector = task.dataset, task.exposure, task.detector
    record = _record(dataset, task.layout, exposure.index, detector)
    light = _shared(task.work, detector)
    ideal = fill_with_light(light, _shared(task.work, "sources"), exposure.true)
    planes = spoil(ideal, detector, exposure.index, dataset.simulation)
    path = task.layout.root / rate_name(dataset, exposure.activity, detector)
    primary = primary_header(dataset, exposure, detector)
    record.withdraw()
    write_rate(path, planes, primary, science_header(exposure.nominal), exact=not dataset.simulation.noise)
    record.write([path])
