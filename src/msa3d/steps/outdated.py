"""Do what is not done yet: the part that all steps share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msa3d.workers import run_tasks

log = logging.getLogger(__name__)


def run_outdated(
    step: str,
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    recorded: Callable[[Any], Any],
    *,
    workers: int | str | None,
    memory_gb_each: float,
    environment: Mapping[str, str] | None = None,
) -> tuple[list[Any], int]:
    """Call a step's function on the tasks whose products are not current.

    Parameters
    ----------
    step : str
        Name of the step, for the log and the progress bar.
    function : callable
        Of one task; picklable.
    tasks : sequence
        Each with its ``record`` (`msa3d.provenance.Record`).
    recorded : callable
        Gives, of a task whose products are current, what `function` gave when it made them.
    workers, memory_gb_each, environment
        See `msa3d.workers.run_tasks`.

    Returns
    -------
    results : list
        In the order of the tasks.
    done : int
        How many were not current.
    """
    waiting = [task for task in tasks if not task.record.is_current()]
    log.info("%s: %d of %d to do", step, len(waiting), len(tasks))
    made = run_tasks(
        function, waiting, workers=workers, memory_gb_each=memory_gb_each, label=step, environment=environment
    )
    results = {id(task): result for task, result in zip(waiting, made, strict=True)}
    return [results[id(task)] if id(task) in results else recorded(task) for task in tasks], len(waiting)
