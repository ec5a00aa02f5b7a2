"""One engine for all steps: what is current, what has to be made, how it is made, and what is remembered of it.

A step is declared once (`Step`): its tasks, the function that does one of them, and how a result is told. For each task
the engine asks the record whether its products are current. If not, it checks that the inputs are what the steps before
wrote, withdraws the old record, lets the products be made, and writes the new one: a product without a record is made
again, and no record ever describes a product but the one that it was written for.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msa3d
from msa3d.errors import Msa3dError, ProductError, TaskError
from msa3d.pipeline.codeversion import code_version, git_revision
from msa3d.pipeline.parallel import run_tasks
from msa3d.pipeline.products import atomic_path, jwst_version, said_what_cannot_be_written, working

if TYPE_CHECKING:
    from astropy.table import Table

    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout

log = logging.getLogger(__name__)

#: Command that runs a step, where it is not the step's own name.
COMMANDS = {"calpost": "postprocess", "metafile": "process"}

#: What made the products of records that do not say which jwst did: the one that there was then.
FIRST_JWST = "1.14.0"


def sha256_of(path: Path) -> str:
    """SHA-256 of the content of a file."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256(path: Path, *_: int) -> str:
    """Once a process, as long as the file stays as it is: all cubes are made from the same files."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of anything that JSON can express (paths and dates as text), keys sorted."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


# --- records


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the JSON of a record.

    Returns
    -------
    dict or None
        None where there is none, or where it is not a whole record of this version.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = [*found["inputs"].values(), *found["references"].values(), *found["products"].values()]
        whole = all(isinstance(one["size"] + one["mtime_ns"], int) and len(one["sha256"]) == 64 for one in files)
        found.setdefault("jwst", FIRST_JWST)
        texts = [found[key] for key in ("step", "name", "code", "parameters", "revision", "jwst")]
        whole = whole and all(isinstance(text, str) for text in texts + found["modules"])
        whole = whole and isinstance(found["notes"].get("seconds", 0.0), int | float)
        return found if whole and path.stem == f"{found['step']}_{found['name']}" else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def stat_of(path: Path) -> dict[str, int] | None:
    """Size and time of change of a file; None where it is not there."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def is_same(path: Path, was: Mapping[str, Any]) -> bool:
    """Whether a file is as recorded: by size and time, and by content where only the time differs (a copy)."""
    now = stat_of(path)
    if now is None or now["size"] != was["size"]:
        return False
    return now["mtime_ns"] == was["mtime_ns"] or sha256_of(path) == was["sha256"]


def place_of(name: str, layout: Layout) -> Path:
    """Path of a reference that a record names: in the run's own CRDS cache, else in today's, wherever that lies."""
    below = name.removeprefix("crds:")
    own = (layout.crds_cache if below != name else layout.root) / below
    cache = os.environ.get("CRDS_PATH")
    return Path(cache) / below if below != name and cache and not own.exists() else own


@dataclass
class Record:
    """The record of what made a group of products, kept as JSON under ``reduction/records``.

    Parameters
    ----------
    layout : Layout
        Where the run lives. Paths under its root are recorded relative to it, so that a run can be moved.
    step : str
        Name of the step.
    name : str
        What of the step: an exposure, a source id.
    inputs : sequence of path
        Files that the products are made from.
    parameters : mapping
        All parameters that reach the products; JSON-like.
    modules : sequence of str
        For `msa3d.pipeline.codeversion.code_version`.
    folder : Path, optional
        Where the JSON goes, by default ``layout.records``.
    """

    layout: Layout
    step: str
    name: str
    inputs: Sequence[Path] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    modules: Sequence[str] = ()
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Note the state of the inputs now, before the work starts."""
        self.inputs = [Path(path) for path in self.inputs]
        self.before = {self._relative(path): stat_of(path) for path in self.inputs}

    @functools.cached_property
    def code(self) -> str:
        """Version of the code, as found first: an edit while the products are made counts as one after it."""
        return code_version(*self.modules)

    @property
    def path(self) -> Path:
        """The JSON file."""
        return (self.folder or self.layout.records) / f"{self.step}_{self.name}.json"

    def _relative(self, path: Path) -> str:
        path = Path(path).absolute()
        return str(path.relative_to(self.layout.root)) if path.is_relative_to(self.layout.root) else str(path)

    def read(self) -> dict[str, Any] | None:
        """Return what was recorded, or None where there is no readable record."""
        return read_record(self.path)

    def notes(self) -> dict[str, Any]:
        """Return the notes of the recorded run; empty where there is none."""
        return (self.read() or {}).get("notes", {})

    def result(self) -> Result:
        """What was recorded, as the result of a task that is current."""
        known = self.read() or {"products": {}, "notes": {}}
        return Result(self.name, "current", [self.layout.root / name for name in known["products"]], known["notes"])

    def reason(self, products: Iterable[Path] = ()) -> str:
        """Why the products have to be made again, in words; empty where they are current.

        Parameters
        ----------
        products : iterable of path
            Products that must be among those recorded.
        """
        old = self.read()
        if old is None:
            return "never made"
        if old["jwst"] != jwst_version():
            return f"made with jwst {old['jwst']}"
        if old["code"] != self.code:
            return "the code has changed"
        if old["parameters"] != digest(self.parameters):
            return "parameters have changed"
        if set(old["inputs"]) != set(self.before):
            return "other inputs"
        root = self.layout.root
        for name, was in old["inputs"].items():
            if not is_same(root / name, was):
                return f"input {name} has changed"
        for name, was in old["references"].items():
            # One that is not there is no longer known; CRDS never gives a name twice.
            if (path := place_of(name, self.layout)).exists() and not is_same(path, was):
                return f"reference {name.removeprefix('crds:')} has changed"
        for path in products:
            if self._relative(path) not in old["products"]:
                return f"{self._relative(path)} is not among the products made"
        for name, was in old["products"].items():
            if not is_same(root / name, was):
                return f"product {name} is missing or is not what was written"
        return ""

    def is_current(self, products: Iterable[Path] = ()) -> bool:
        """Whether the products are those recorded, and inputs, parameters and code are those that made them."""
        why = self.reason(products)
        log.debug("%s %s: %s", self.step, self.name, why or "current")
        return not why

    def withdraw(self) -> None:
        """Take the record away, before its products are replaced: from now on they are not current."""
        self.path.unlink(missing_ok=True)

    def check_inputs(self, makers: Mapping[str, tuple[Path, str]]) -> None:
        """See that the inputs are what the steps before wrote.

        Parameters
        ----------
        makers : mapping of str to (Path, str)
            As `makers_of` finds them.

        Raises
        ------
        ProductError
            Where one is not. The record of its maker is withdrawn, so that the step can make it again.
        """
        for name in self.before:
            if name in makers and sha256_of(self.layout.root / name) != makers[name][1]:
                record = makers[name][0]
                record.unlink(missing_ok=True)
                step = record.name.partition("_")[0]
                raise ProductError(
                    f"{self.layout.root / name} is not what was written there (SHA-256): it is damaged, or was edited. "
                    f"Run `msa3d {COMMANDS.get(step, step)}` again, which makes it anew."
                )

    def write(self, products: Iterable[Path], references: Iterable[Path] = (), **notes: Any) -> None:
        """Record products that were just made.

        Parameters
        ----------
        products : iterable of path
            Every file made; each must exist.
        references : iterable of path
            Reference files that were used.
        **notes
            Anything worth keeping that does not decide currency: seconds, peak memory, counts.

        Raises
        ------
        ProductError
            Where a product is missing, or an input changed while the products were made.
        """
        made, inputs, used = {}, {}, {}
        for path in map(Path, products):
            if (status := stat_of(path)) is None:
                raise ProductError(f"{path} was not written, so {self.step} {self.name} is not complete.")
            made[self._relative(path)] = {**status, "sha256": sha256_of(path)}
        for name, before in self.before.items():
            full = self.layout.root / name
            if before is None or stat_of(full) != before:
                raise ProductError(f"{full} changed or vanished while {self.step} {self.name} was using it.")
            inputs[name] = {**before, "sha256": sha256_of(full)}
        cache = os.environ.get("CRDS_PATH")
        for path in map(Path, references):
            below = cache is not None and path.is_relative_to(cache)
            name = f"crds:{path.relative_to(cache)}" if cache and below else self._relative(path)
            used[name] = {**(stat_of(path) or {}), "sha256": sha256_of(path)}
        text = {
            "step": self.step,
            "name": self.name,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": msa3d.__version__,
            "revision": git_revision(),
            "jwst": jwst_version(),
            "code": self.code,
            "modules": list(self.modules),
            "parameters": digest(self.parameters),
            "inputs": inputs,
            "references": used,
            "products": made,
            "notes": notes,
        }
        with atomic_path(self.path) as partial:
            partial.write_text(json.dumps(text, indent=1, default=str) + "\n", encoding="utf-8")


def makers_of(layout: Layout) -> dict[str, tuple[Path, str]]:
    """Tell of each product of a run which record describes it, and its SHA-256 there."""
    found = {}
    for path in sorted(layout.records.glob("*.json")):
        for name, was in (read_record(path) or {"products": {}})["products"].items():
            found[name] = (path, was["sha256"])
    return found


def other_pipeline(layout: Layout) -> str:
    """Tell where a root holds products of another version of jwst than the one that is installed.

    Products of two versions differ, and older versions cannot read what younger ones wrote.

    Returns
    -------
    str
        A sentence that names both and the remedy; empty where there is none.
    """
    for path in sorted((layout.truth / "records").glob("*.json")) + sorted(layout.records.glob("*.json")):
        record = read_record(path)
        if record and record["jwst"] != jwst_version():
            return (
                f"{layout.root} holds products of jwst {record['jwst']} ({path.stem}), and this is jwst "
                f"{jwst_version()}: one root, one pipeline. Choose another root, or remove {layout.reduction} (of a "
                "simulated observation the whole root) to begin anew."
            )
    return ""


def check_pipeline(layout: Layout) -> None:
    """See that nothing in a root was made with another version of jwst; `ProductError` where it was."""
    if sentence := other_pipeline(layout):
        raise ProductError(sentence)


# --- steps


@dataclass(frozen=True)
class Made:
    """What the work of one task made.

    Attributes
    ----------
    products : list of Path
        All files, in their places.
    notes : dict
        What is worth recording; JSON-like.
    references : list of Path
        Reference files used that are not among the inputs.
    """

    products: list[Path]
    notes: dict[str, Any] = field(default_factory=dict)
    references: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """One piece of work (picklable): its name for people, its record, and what the step's function is given."""

    name: str
    record: Record = field(repr=False)
    job: Any = field(repr=False)


@dataclass(frozen=True)
class Result:
    """What became of a task.

    Attributes
    ----------
    name : str
        That of the record: an exposure, say.
    status : str
        ``done``, or ``current`` where nothing had to be done.
    products : list of Path
        Its files.
    notes : dict
        What was recorded; ``seconds`` (wall) and ``memory_gb`` (peak of the process so far) always.
    """

    name: str
    status: str
    products: list[Path]
    notes: dict[str, Any]


@dataclass(frozen=True)
class Report:
    """Results of all tasks of a step, in their order."""

    results: list[Result]
    columns: Callable[[Result], Mapping[str, Any]] = field(repr=False)

    def table(self) -> Table:
        """A row a task: name, status, what the step tells of it, wall seconds and peak memory (GB)."""
        from astropy.table import Table

        rows = [
            {
                "name": one.name,
                "status": one.status,
                **self.columns(one),
                "seconds": round(one.notes["seconds"], 1),
                "memory_gb": round(one.notes["memory_gb"], 2),
            }
            for one in self.results
        ]
        return Table(rows=rows) if rows else Table(names=("name", "status"), dtype=(str, str))


@dataclass(frozen=True)
class Step:
    """The declaration of a step.

    Attributes
    ----------
    name : str
        Name of its records.
    tasks : callable
        ``tasks(dataset, layout, **options)`` gives the tasks of a run, and checks what can be checked before.
    work : callable
        ``work(job)`` makes the products of one task and gives `Made`; of the top of a module, to be picklable.
    columns : callable
        ``columns(result)`` gives what a row of the report tells besides time and memory.
    memory_gb : float
        Peak memory of one task.
    environment : callable
        ``environment(layout, dataset)`` gives the environment variables that the work needs.
    finish : callable, optional
        ``finish(layout, report, done)`` writes the tables of a step as a whole; `done` says whether anything was made.
    """

    name: str
    tasks: Callable[..., list[Task]]
    work: Callable[[Any], Made]
    columns: Callable[[Result], Mapping[str, Any]] = lambda result: {}
    memory_gb: float = 1.0
    environment: Callable[[Layout, Dataset], Mapping[str, str]] = lambda layout, dataset: {}
    finish: Callable[[Layout, Report, bool], None] | None = None

    def run(
        self,
        dataset: Dataset,
        layout: Layout,
        *,
        workers: int | str | None = None,
        into: Layout | None = None,
        **options: Any,
    ) -> Report:
        """Make what is not current.

        Parameters
        ----------
        dataset : Dataset
            The observation and all parameters.
        layout : Layout
            Where things lie.
        workers : int or str, optional
            Processes, or address of a dask scheduler (``dask://host:port``); None for what the machine allows.
        into : Layout, optional
            Where the products go, if elsewhere.
        **options
            Of the step: which exposures, sources or builders.

        Returns
        -------
        Report

        Raises
        ------
        Msa3dError
            Where inputs are missing or damaged, the dataset does not fit them, the work fails, another process works
            in this root, or another version of jwst has; one sentence. What was finished is kept.
        """
        target = into or layout
        with working(target, self.name):
            check_pipeline(target)
            tasks = self.tasks(dataset, layout, **({"into": into} if into else {}), **options)
            waiting = [task for task in tasks if not task.record.is_current()]
            log.info("%s: %d of %d to do", self.name, len(waiting), len(tasks))
            makers = makers_of(target) if waiting else {}
            own = [{name: makers[name] for name in task.record.before if name in makers} for task in waiting]
            made = run_tasks(
                make,
                [(self.work, task, made_by) for task, made_by in zip(waiting, own, strict=True)],
                workers=workers,
                memory_gb_each=self.memory_gb,
                label=self.name,
                names=[task.name for task in waiting],
                environment=self.environment(layout, dataset),
            )
            done = {id(task): result for task, result in zip(waiting, made, strict=True)}
            report = Report(
                [done.get(id(task)) or task.record.result() for task in tasks],
                self.columns,
            )
            if self.finish:
                self.finish(target, report, bool(waiting))
        return report


def make(call: tuple[Callable[[Any], Made], Task, Mapping[str, tuple[Path, str]]]) -> Result:
    """Do one task, in whichever process: check its inputs, withdraw its record, make, record.

    Parameters
    ----------
    call : tuple
        The step's function, the task, and the makers of its inputs.

    Returns
    -------
    Result
    """
    work, task, makers = call
    record = task.record
    with said_what_cannot_be_written(record.layout.root):
        if record.is_current():
            # Done already, by a worker that died before it could tell; others give its tasks to the next one.
            return record.result()
        record.check_inputs(makers)
        record.withdraw()
        start = time.perf_counter()
        made = _worked(work, task)
        seconds = time.perf_counter() - start
        # Kilobytes on Linux, bytes on macOS.
        unit = 1e9 if sys.platform == "darwin" else 1e6
        memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        notes = {**made.notes, "seconds": seconds, "memory_gb": memory_gb}
        record.write(made.products, made.references, **notes)
    return Result(record.name, "done", made.products, notes)


def _worked(work: Callable[[Any], Made], task: Task) -> Made:
    """Do the work; what goes wrong in it and is no sentence yet becomes one, with the traceback in a file."""
    trace = task.record.path.with_suffix(".traceback")
    try:
        with said_what_cannot_be_written(task.record.layout.root):
            trace.unlink(missing_ok=True)
            return work(task.job)
    except Msa3dError:
        raise
    except Exception as error:
        # For those who mend msa3d; who uses it reads a sentence.
        trace.parent.mkdir(parents=True, exist_ok=True)
        trace.write_text(traceback.format_exc(), encoding="utf-8")
        said = " ".join(str(error).split())[:300] or "no message"
        raise TaskError(f"{type(error).__name__}: {said} (more in {trace})") from error
