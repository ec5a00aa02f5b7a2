"""What a run will take, what is there of it, and where to start.

What a run will need, before it starts: exposures, pattern, sources, disk, memory, time on this machine.

How far a run is: done, running, failed, left, by step; read from the disk alone, from any process.

What to do next: for a person who opens a session in the middle of a run.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from msa3d.errors import MetafileError, ObservationError
from msa3d.observation.exposures import GB_EACH, Observation
from msa3d.observation.metafile import MsaFile
from msa3d.observation.pattern import FoundPattern, find_pattern
from msa3d.observation.reading import rates_of, spectra
from msa3d.pipeline.engine import is_same, other_pipeline, read_record
from msa3d.pipeline.parallel import available_cores, available_memory_gb
from msa3d.pipeline.products import TEMPORARY, is_alive
from msa3d.pipeline.steps import STEPS, post_steps

if TYPE_CHECKING:
    from astropy.table import Table

    from msa3d.config import Dataset
    from msa3d.observation.exposures import Exposure
    from msa3d.pipeline.layout import Layout


# Seconds of a processor, measured on the machine that `REFERENCE_SCORE` is of, with all accelerations on.

#: Seconds that `score` takes there while nothing else runs.
REFERENCE_SCORE = 0.33
#: Simulating an image: `demo`, 126 images in 60 s by two processes (with an older version of the simulation).
SECONDS_SIMULATED = 0.95
#: Step 1, an exposure on both detectors, by slitlets. Single exposures: 5.7 s with 1 slitlet of `demo`, 10.1 s
#: with 3; 143 s with 43 of a survey before its noise was cleaned. Between them a line; beyond them in proportion.
SECONDS_EACH = ((1, 5.7), (3, 10.1), (43, 143.0))
#: Taking the correlated noise out of the image of a detector: 1.0 to 1.9 s.
SECONDS_CLEANING = 1.5
#: What a worker's first exposure takes beyond the others (imports, compiled functions): 36.4 s instead of 12.2.
SECONDS_FIRST = 24.0
#: Post-processing a slitlet of an exposure: records of `demo` (0.6 and 0.8 s of wall time for 3 slitlets, medians),
#: halved, as the machine was shared and step 1 took twice its processor time.
SECONDS_POST = {"calpost": 0.1, "postprocess": 0.14}
#: A cube, for each exposure: the largest of `demo`, 42.9 s and 4.1 s for 63 exposures.
SECONDS_CUBE = {"drizzle": 0.68, "paper": 0.065}
#: Measuring the cubes of a galaxy and drawing its figures: `demo`, 445 s for three, halved likewise.
SECONDS_FIGURES = 74.0
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
    seconds : dict of str to float
        Wall seconds of what is left of each step, by name: ``simulate`` (of simulated observations), ``process``,
        ``calpost`` and ``postprocess`` (those that the builders need), ``cubebuild``, ``figures``.
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
    seconds: dict[str, float]
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
            ("time", f"{_duration(sum(self.seconds.values()))} ({basis})"),
            ("of each step", ", ".join(f"{name} {_duration(each)}" for name, each in self.seconds.items())),
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
    seconds, done, measured = _seconds(dataset, layout, number, slitlets or len(dataset.targets), fit)
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
    from msa3d.archive.fetch import manifest_path
    from msa3d.archive.mast import Manifest, packaged

    known, own = packaged(dataset), manifest_path(layout)
    if own.is_file():
        known = known.merged(Manifest.load(own))
    start: Literal["uncal", "rate"] = "uncal" if dataset.process.run_stage1 else "rate"
    if not known.knows([start]):
        here = len(rates_of(dataset, layout))
        return 0.0 if here >= dataset.pattern.n_exposures * len(dataset.detectors) else math.nan
    missing = [entry for entry in known.of([start, "metafile"]) if not entry.is_whole(layout.root)]
    return sum(math.nan if entry.size is None else entry.size for entry in missing) / 1e9


def _seconds(
    dataset: Dataset, layout: Layout, exposures: int, slitlets: int, workers: int
) -> tuple[dict[str, float], int, bool]:
    """Wall seconds of what is left of each step, exposures that step 1 has done, and whether they tell its time."""
    machine, seconds = score() / REFERENCE_SCORE, {}
    if dataset.simulated:
        images = exposures * len(dataset.detectors) - len(rates_of(dataset, layout))
        seconds["simulate"] = machine * SECONDS_SIMULATED * max(images, 0) / workers
    model = {"process": _seconds_of_exposure(dataset, slitlets)}
    model |= {step: SECONDS_POST[step] * slitlets for step in post_steps(dataset)}
    for step, each in model.items():
        known = _recorded(step, layout)
        # The median: the first exposure of each worker takes longer than all others.
        wall = statistics.median(known) if known else machine * each
        seconds[step] = max(exposures - len(known), 0) * wall / workers
        if step == "process":
            done = len(known)
            seconds[step] += 0.0 if known else machine * SECONDS_FIRST
    cubes = [SECONDS_CUBE[name] * exposures for name in dataset.cubebuild.builders for _ in dataset.targets]
    left = max(1 - len(_recorded("cubebuild", layout)) / len(cubes), 0.0)
    seconds["cubebuild"] = machine * left * max(sum(cubes) / workers, max(cubes))
    drawn = (layout.notebooks / f"{LAST}.ipynb").is_file()
    seconds["figures"] = 0.0 if drawn else machine * SECONDS_FIGURES * len(dataset.targets)
    return seconds, done, done > 0


def _seconds_of_exposure(dataset: Dataset, slitlets: int) -> float:
    """Processor seconds of step 1 for an exposure, from the table."""
    numbers, seconds = zip(*SECONDS_EACH, strict=True)
    share = len(dataset.detectors) / 2
    beyond = max(slitlets / numbers[-1], 1.0)
    cleaning = SECONDS_CLEANING * len(dataset.detectors) if dataset.process.nsclean else 0.0
    return share * beyond * float(np.interp(slitlets, numbers, seconds)) + cleaning


def _recorded(step: str, layout: Layout) -> list[float]:
    """Wall seconds of what a step has done, from its records."""
    records = [read_record(path) for path in sorted(layout.records.glob(f"{step}_*.json"))]
    return [record["notes"].get("seconds", 0.0) for record in records if record]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class StepStatus:
    """How far one step is.

    Attributes
    ----------
    step : str
        Its name.
    total : int
        Exposures, images or cubes that it has to do.
    done : list of str
        Those with a record whose products are there.
    running : list of str
        Those that a living process is at.
    failed : list of str
        Those that left a log of a failure and are not done.
    seconds_each : float
        Mean wall seconds of those done; 0 where not known.
    """

    step: str
    total: int
    done: list[str]
    running: list[str]
    failed: list[str]
    seconds_each: float

    @property
    def left(self) -> int:
        """How many are neither done nor running nor failed."""
        return max(self.total - len(self.done) - len(self.running) - len(self.failed), 0)


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes
    ----------
    steps : list of StepStatus
        In their order.
    """

    steps: list[StepStatus]

    def table(self) -> Table:
        """A row a step: step, done, running, failed, left, of (how many), seconds each, which ones failed."""
        from astropy.table import Table

        return Table(
            {
                "step": [one.step for one in self.steps],
                "done": [len(one.done) for one in self.steps],
                "running": [len(one.running) for one in self.steps],
                "failed": [len(one.failed) for one in self.steps],
                "left": [one.left for one in self.steps],
                "of": [one.total for one in self.steps],
                "seconds_each": [round(one.seconds_each, 1) for one in self.steps],
                "names_failed": [", ".join(one.failed) for one in self.steps],
            }
        )


def read_status(dataset: Dataset, layout: Layout) -> Status:
    """Look how far a run is; nothing is written, nothing is disturbed.

    Parameters
    ----------
    dataset : Dataset
        What the run is to do.
    layout : Layout
        Where it lies.

    Returns
    -------
    Status
        With the steps that this dataset takes.
    """
    exposures = max(len(set(rates_of(dataset, layout).values())), dataset.pattern.n_exposures)
    builders = dataset.cubebuild.builders
    totals = {
        "preprocess": len(list(spectra(layout.root.glob("jw*_uncal.fits")))) if dataset.process.run_stage1 else 0,
        "process": exposures,
        "postprocess": exposures if "paper" in builders else 0,
        "calpost": exposures if "drizzle" in builders else 0,
        "cubebuild": len(dataset.targets) * len(builders),
    }
    return Status([_step(step, totals[step], layout) for step in STEPS if totals.get(step)])


def _step(step: str, total: int, layout: Layout) -> StepStatus:
    done, seconds = [], []
    for path in sorted(layout.records.glob(f"{step}_*.json")):
        record = read_record(path)
        if record and all(is_same(layout.root / name, was) for name, was in record["products"].items()):
            done.append(record["name"])
            seconds.append(record["notes"].get("seconds", 0.0))
    failed = {path.name[len("failed_") : -len(".log")] for path in _failure_logs(step, layout)} - set(done)
    running = sorted(set(_running(step, layout)) - set(done))
    return StepStatus(step, total, done, running, sorted(failed - set(running)), statistics.mean(seconds or [0.0]))


def _failure_logs(step: str, layout: Layout) -> list[Path]:
    return sorted(layout.process.glob("failed_*.log")) if step == "process" else []


def _running(step: str, layout: Layout) -> list[str]:
    """Names of what living processes are at, from the temporary names that they write under."""
    places = {
        "preprocess": layout.root.glob(".jw*.partial*"),
        "process": layout.process.glob(".exp_*.partial*"),
        "cubebuild": (layout.reduction / "cubes").glob("cube_*/.*.partial*"),
    }
    found = []
    for path in places.get(step, ()):
        match = TEMPORARY.match(path.name)
        if match and is_alive(path):
            name = match["what"]
            found.append(name[len("exp_") : -len("_nobar")] if step == "process" else name)
    return sorted(set(found))


LAST = "04_figures"


def next_step(dataset: Dataset, layout: Layout) -> str:
    """Say what is to be done next.

    Parameters
    ----------
    dataset : Dataset
        What the run is to do.
    layout : Layout
        Where it lies.

    Returns
    -------
    str
        A sentence or two of Markdown, with a link to the notebook whose turn it is.
    """
    if not layout.rates() and not dataset.simulated:
        return f"There are no count-rate files in `{layout.root}` yet: `msa3d fetch` brings them from the archive."
    if sentence := other_pipeline(layout):
        return sentence
    for one in read_status(dataset, layout).steps:
        name = STEPS[one.step][1]
        if one.running:
            names = ", ".join(one.running)
            return f"Somebody is at **{one.step}** now, with {names}: {len(one.done)} of {one.total} done."
        if one.failed:
            return (
                f"**{one.step}** failed for {', '.join(one.failed)}; why is in the logs beside the products. "
                f"[{name}]({name}.ipynb), run again, tries them once more."
            )
        if one.left:
            return f"Next is [{name}]({name}.ipynb): {one.left} of {one.total} are left to **{one.step}**."
    if not list(layout.science.glob("*")):
        return f"The cubes are there. Next is [{LAST}]({LAST}.ipynb)."
    return f"Everything is done. [{LAST}]({LAST}.ipynb) shows what came out; `make book` binds it."
