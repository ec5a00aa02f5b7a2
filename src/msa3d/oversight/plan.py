"""What a run will need, before it starts: exposures, pattern, sources, disk, memory, time on this machine."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msa3d.errors import MetafileError, ObservationError
from msa3d.msafile import MsaFile
from msa3d.observation import GB_EACH, Observation
from msa3d.oversight.dithers import FoundPattern, find_pattern
from msa3d.ratefile import rates_of
from msa3d.workers import available_cores, available_memory_gb

if TYPE_CHECKING:
    from astropy.table import Table

    from msa3d.dataset import Dataset
    from msa3d.layout import Layout
    from msa3d.observation import Exposure

#: Seconds of a processor in step 1 for an exposure on both detectors: a constant, and a share of each slitlet.
#: Measured on the machine that `REFERENCE_SCORE` is of: 11.7 s with 3 slitlets, 157 s with 43, all accelerations on.
SECONDS_EACH = (1.0, 3.6)
#: Wall seconds of the further steps, an exposure and cube.
SECONDS_AFTER = 0.6
#: Seconds that `score` takes on that machine.
REFERENCE_SCORE = 0.33
#: Peak memory of step 1, GB: a constant, and a slitlet's share.
MEMORY_EACH = (0.8, 0.01)


@dataclass(frozen=True)
class Plan:
    """What a run will need.

    Attributes
    ----------
    name : str
        The dataset.
    root : Path
        Where the run lies.
    exposures, exposures_expected : int
        Found, and what the dataset's pattern asks for.
    times : str
        Exposure times (EFFEXPTM), and the exposures that differ from the others.
    pattern : FoundPattern or None
        As the headers show it.
    expected_pattern : str
        As the dataset has it.
    targets, slitlets : int
        Sources whose cubes are wanted, and slitlets that step 1 reduces; 0 where there is no metafile yet.
    input_gb, missing_gb : float
        What is there; what is still to be fetched, NaN where the archive has not been asked.
    disk_gb, free_gb : float
        What the steps will write beyond what is there, and what is free.
    memory_gb, memory_free_gb : float
        Peak of one worker, and what is free.
    workers : int
        That fit.
    done : int
        Exposures that step 1 has done.
    seconds : float
        Wall time of what is left.
    measured : bool
        Whether the time rests on exposures of this run, not on the model.
    problems : list of str
        What speaks against starting.
    """

    name: str
    root: Path
    exposures: int
    exposures_expected: int
    times: str
    pattern: FoundPattern | None
    expected_pattern: str
    targets: int
    slitlets: int
    input_gb: float
    missing_gb: float
    disk_gb: float
    free_gb: float
    memory_gb: float
    memory_free_gb: float
    workers: int
    done: int
    seconds: float
    measured: bool
    problems: list[str] = field(default_factory=list)

    def table(self) -> Table:
        """Two columns, ``what`` and ``value``, in words."""
        from astropy.table import Table

        exposures = f"{self.exposures} of {self.exposures_expected} here, {self.done} done"
        found = "none yet" if not self.exposures else str(self.pattern or "no regular grid")
        missing = "size not known yet" if math.isnan(self.missing_gb) else f"{self.missing_gb:.1f} GB to fetch"
        basis = "from the exposures done" if self.measured else "an estimate"
        rows = [
            ("dataset", self.name),
            ("root", str(self.root)),
            ("exposures", exposures),
            ("exposure time", self.times),
            ("pattern found", found),
            ("pattern wanted", self.expected_pattern),
            ("sources", f"{self.targets} wanted, {self.slitlets or 'an unknown number of'} slitlets reduced"),
            ("input", f"{self.input_gb:.1f} GB here, {missing}"),
            ("disk", f"{self.disk_gb:.1f} GB to be written, {self.free_gb:.1f} GB free"),
            ("memory", f"{self.memory_gb:.1f} GB a worker, {self.memory_free_gb:.1f} GB free"),
            ("workers", str(self.workers)),
            ("time", f"{_duration(self.seconds)} ({basis})"),
            ("problems", str(len(self.problems))),
        ]
        return Table(rows=rows, names=("what", "value"))


def make_plan(dataset: Dataset, layout: Layout, *, workers: int | None = None) -> Plan:
    """Say what a run will need; nothing is written.

    Parameters
    ----------
    dataset : Dataset
        The observation and its parameters.
    layout : Layout
        Its root; rates need not be there yet.
    workers : int, optional
        Processes, as the user wants them.

    Returns
    -------
    Plan
    """
    observation, problems = _look(dataset, layout)
    exposures = observation.exposures if observation else []
    slitlets = _slitlets(dataset, observation)
    number = max(dataset.pattern.n_exposures, len(exposures))
    memory = MEMORY_EACH[0] + MEMORY_EACH[1] * (slitlets or len(dataset.targets))
    fit = max(1, min(workers or available_cores(), int(available_memory_gb() / memory) or 1, number))
    seconds, done, measured = _time(dataset, layout, number, slitlets or len(dataset.targets), fit)
    have = sum(path.stat().st_size for path in layout.reduction.rglob("*") if path.is_file()) / 1e9
    need = GB_EACH * (slitlets or len(dataset.targets)) * number
    found = [(e.ra, e.dec) for e in exposures]
    pattern = dataset.pattern
    return Plan(
        name=dataset.name,
        root=layout.root,
        exposures=len(exposures),
        exposures_expected=pattern.n_exposures,
        times=_times(exposures),
        pattern=find_pattern(*zip(*found, strict=True)) if found else None,
        expected_pattern=f"{pattern.rows} x {pattern.columns}, {pattern.order}, nominal steps of columns "
        f"{pattern.column_step_arcsec:.3f} and rows {pattern.row_step_arcsec:.3f} arcsec",
        targets=len(dataset.targets),
        slitlets=slitlets,
        input_gb=sum(path.stat().st_size for path in layout.root.glob("jw*.fits")) / 1e9,
        missing_gb=_missing_gb(dataset, layout),
        disk_gb=max(need - have, 0.0),
        free_gb=shutil.disk_usage(_existing(layout.root)).free / 1e9,
        memory_gb=memory,
        memory_free_gb=available_memory_gb(),
        workers=fit,
        done=done,
        seconds=seconds,
        measured=measured,
        problems=problems,
    )


def score() -> float:
    """Measure this machine: seconds of a fixed piece of work like that of the pipeline, best of three.

    Returns
    -------
    float
    """
    rng = np.random.default_rng(1)
    plane = rng.normal(size=(512, 512))

    def once() -> float:
        started = time.perf_counter()
        for _ in range(4):
            np.fft.irfft2(np.fft.rfft2(plane))
            np.sort(plane, axis=None)
            np.polynomial.polynomial.polyval2d(plane, plane, np.ones((4, 4)))
        sum(i * i for i in range(500_000))
        return time.perf_counter() - started

    return min(once() for _ in range(3))


def _times(exposures: list[Exposure]) -> str:
    """Say how long the exposures are, in words: those that differ by more than a twentieth have names."""
    known = [exposure.seconds for exposure in exposures if math.isfinite(exposure.seconds)]
    if not known:
        return "not known yet"
    usual = statistics.median(known)
    other = [e for e in exposures if not abs(e.seconds - usual) <= 0.05 * usual]
    told = ", ".join(f"{e.activity} {e.seconds:.0f} s" for e in other[:5]) + (", ..." if len(other) > 5 else "")
    return f"{usual:.0f} s each" + (
        f", but {told} (cubebuild.drizzle.weighting; the published median has no weights)" if other else ""
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _look(dataset: Dataset, layout: Layout) -> tuple[Observation | None, list[str]]:
    """Read what is there, and what is wrong with it."""
    try:
        observation = Observation.read(layout, dataset)
    except ObservationError as error:
        return None, [str(error)]
    return observation, observation.problems()


def _slitlets(dataset: Dataset, observation: Observation | None) -> int:
    if observation is None or not observation.metafile.is_file():
        return 0
    if dataset.process.wanted_sources_only:
        return len(dataset.targets)
    try:
        return len(MsaFile.read(observation.metafile).slitlets())
    except MetafileError:
        return 0


def _missing_gb(dataset: Dataset, layout: Layout) -> float:
    """What is still to be fetched; NaN where not even its size is known."""
    if dataset.simulated:
        return 0.0
    from msa3d.fetch.manifest import Manifest, packaged
    from msa3d.fetch.run import manifest_path

    known, own = packaged(dataset), manifest_path(layout)
    if own.is_file():
        known = known.merged(Manifest.load(own))
    start = "uncal" if dataset.process.run_stage1 else "rate"
    if not known.knows([start]):
        here = len(rates_of(dataset, layout))
        return 0.0 if here >= dataset.pattern.n_exposures * len(dataset.detectors) else math.nan
    missing = [entry for entry in known.of([start, "metafile"]) if not entry.is_whole(layout.root)]
    return math.nan if any(entry.size is None for entry in missing) else sum(e.size for e in missing) / 1e9


def _time(dataset: Dataset, layout: Layout, exposures: int, slitlets: int, workers: int) -> tuple[float, int, bool]:
    """Wall seconds of what is left, exposures done, and whether they tell the time."""
    measured = []
    for path in layout.records.glob("process_*.json"):
        try:
            measured.append(float(json.loads(path.read_text(encoding="utf-8"))["notes"]["seconds"]["total"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    left = max(exposures - len(measured), 0)
    factor = score() / REFERENCE_SCORE
    each = statistics.mean(measured) if measured else factor * (SECONDS_EACH[0] + SECONDS_EACH[1] * slitlets)
    cubes = len(dataset.targets) * len(dataset.cubebuild.builders)
    cubes_left = max(cubes - len(list(layout.records.glob("cubebuild_*.json"))), 0)
    after = factor * SECONDS_AFTER * exposures * cubes_left
    return (left * each + after) / workers, len(measured), bool(measured)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
