"""How far a run is: done, running, failed, left, by step; read from the disk alone, from any process."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msa3d.atomic import TEMPORARY, is_alive
from msa3d.ratefile import rates_of, spectra

if TYPE_CHECKING:
    from astropy.table import Table

    from msa3d.dataset import Dataset
    from msa3d.layout import Layout

STEPS = ("preprocess", "process", "postprocess", "calpost", "cubebuild")


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
    return Status([_step(step, totals[step], layout) for step in STEPS if totals[step]])


def _step(step: str, total: int, layout: Layout) -> StepStatus:
    done, seconds = [], []
    for path in sorted(layout.records.glob(f"{step}_*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if all(_has(layout.root / name, size) for name, size in record.get("products", {}).items()):
            done.append(record["name"])
            seconds.append(_seconds(record.get("notes", {}).get("seconds")))
    seconds = [one for one in seconds if one]
    failed = {path.name[len("failed_") : -len(".log")] for path in _failure_logs(step, layout)} - set(done)
    running = sorted(set(_running(step, layout)) - set(done))
    return StepStatus(step, total, done, running, sorted(failed - set(running)), statistics.mean(seconds or [0.0]))


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _seconds(noted: object) -> float:
    total = noted.get("total") if isinstance(noted, dict) else noted
    return float(total) if isinstance(total, int | float) else 0.0


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
