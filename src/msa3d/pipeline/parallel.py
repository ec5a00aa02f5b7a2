"""Map a function over exposures or sources: one after the other, in processes, or on a dask cluster.

Worker processes are spawned, not forked, with one thread for each of OpenMP, OpenBLAS, MKL and numexpr: on N
cores, N processes of one thread are faster than N processes of N threads. A script that starts workers must do
so under ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait as wait_for_sentinel
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from msa3d.errors import Msa3dError, TaskError

logger = logging.getLogger(__name__)

#: Set to 1 in the workers.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)


UNWATCHED = "MSA3D_UNWATCHED"
"""Environment variable that says, where it is not empty, that nobody looks at the notebook which is running."""


def available_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def available_memory_gb() -> float:
    """Memory that can be had without swapping, GB (1e9 bytes), within the limit of the container."""
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        free = min(free, limit - used)
    return max(0.0, free / 1e9)


def number_of_workers(workers: int | None = None, memory_gb_each: float = 2.0, n_tasks: int | None = None) -> int:
    """How many processes to run.

    Parameters
    ----------
    workers : int, optional
        What the user asks for; by default one a core. Memory limits it in either case.
    memory_gb_each : float
        Peak memory of one task, GB.
    n_tasks : int, optional
        No more workers than tasks.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    Msa3dError
        Where `workers` is less than 1.
    """
    if workers is not None and workers < 1:
        raise Msa3dError(f"workers must be 1 or more, not {workers}.")
    wanted = workers or available_cores()
    if n_tasks is not None:
        wanted = min(wanted, n_tasks)
    memory = available_memory_gb()
    fit = max(1, int(memory / memory_gb_each)) if memory_gb_each > 0 else wanted
    if fit < wanted:
        logger.warning(
            "%d workers instead of %d: %.1f GB of memory are free, each needs %.1f",
            fit,
            wanted,
            memory,
            memory_gb_each,
        )
    return max(1, min(wanted, fit))


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    *,
    workers: int | str | None = None,
    memory_gb_each: float = 2.0,
    label: str = "",
    names: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Any]:
    """Call a function on every task.

    Parameters
    ----------
    function : callable
        Of one task; picklable (defined at the top of a module).
    tasks : sequence
        Picklable.
    workers : int or str, optional
        Number of processes, by default one a core; ``1`` runs in this process; ``"dask://host:port"`` runs on
        that dask.distributed scheduler.
    memory_gb_each : float
        Peak memory of a task, GB: limits the number of processes.
    label : str
        Title of the progress bar and of errors.
    names : sequence of str, optional
        What to call each task in errors; by default its attribute ``name``, or its text.
    environment : mapping, optional
        Environment variables that the function needs, as from `msa3d.archive.crds.environment`.

    Returns
    -------
    list
        Results in the order of the tasks.

    Raises
    ------
    TaskError
        Names the first task that failed. Tasks already running are allowed to end, those waiting are dropped.
        Where the failure is an `Msa3dError`, its class is kept.
    """
    tasks = list(tasks)
    names = [str(name) for name in names] if names is not None else [_name(task) for task in tasks]
    if not tasks:
        return []
    if isinstance(workers, str) and not workers.isdigit():
        return _run_dask(function, tasks, names, workers, label, dict(environment or {}))
    number = number_of_workers(int(workers) if workers is not None else None, memory_gb_each, len(tasks))
    with set_environment({**(environment or {})}):
        pool = _pool(number) if number > 1 else None
        if pool is None:
            return _run_serial(function, tasks, names, label)
        with set_environment(dict.fromkeys(THREAD_VARIABLES, "1")):
            return _run_processes(function, tasks, names, label, pool)


def _name(task: Any) -> str:
    text = str(getattr(task, "name", task))
    return text if len(text) <= 80 else text[:77] + "..."


@contextmanager
def set_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the length of a block, for this process and those that it starts."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _is_watched() -> bool:
    """Whether somebody looks on: in a terminal, or in a notebook that a person runs, cell by cell."""
    if sys.stderr.isatty():
        return True
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel") and not os.environ.get(UNWATCHED)


def _bar(n_tasks: int, label: str) -> tqdm:
    # A text that redraws itself for those who watch; into a log, a line every half minute is enough.
    interval = 0.5 if _is_watched() else 30
    return tqdm(total=n_tasks, desc=label or None, mininterval=interval, file=sys.stderr, disable=not label)


def _failed(error: BaseException, name: str, label: str) -> Msa3dError:
    what = f"{label}: {name}" if label else name
    if isinstance(error, BrokenProcessPool):
        return TaskError(
            f"{what}: a worker process was killed, most likely for lack of memory; start again with fewer "
            "workers, what is finished will not be done again."
        )
    logger.debug("%s failed", what, exc_info=error)
    if isinstance(error, Msa3dError):
        return type(error)(f"{what}: {error}")
    return TaskError(f"{what} failed with {type(error).__name__}: {error}")


def _run_serial(function: Callable, tasks: list, names: list[str], label: str) -> list:
    results = []
    with _bar(len(tasks), label) as bar:
        for task, name in zip(tasks, names, strict=True):
            try:
                results.append(function(task))
            except Exception as error:
                raise _failed(error, name, label) from error
            bar.update()
    return results


def _die_with_parent() -> None:
    """End this worker when its parent is gone: a killed run must leave no process behind."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait_for_sentinel([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="die-with-parent").start()


def _pool(number: int) -> ProcessPoolExecutor | None:
    """Make a pool of processes, which start with their first tasks; None where this machine has no semaphores."""
    context = multiprocessing.get_context("spawn")
    try:
        return ProcessPoolExecutor(number, mp_context=context, initializer=_die_with_parent)
    except (ImportError, NotImplementedError, OSError) as error:
        logger.warning(
            "one worker instead of %d: processes cannot share semaphores here (%s); is /dev/shm absent or full?",
            number,
            error,
        )
        return None


def _run_processes(function: Callable, tasks: list, names: list[str], label: str, pool: ProcessPoolExecutor) -> list:
    try:
        futures = [pool.submit(function, task) for task in tasks]
        failed = _watch(futures, label)
    except BaseException:  # Ctrl-C: do not wait for minutes of work that nobody will look at
        children = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.terminate()
        raise
    pool.shutdown(wait=True, cancel_futures=True)
    if failed is not None and (error := failed.exception()):
        raise _failed(error, names[futures.index(failed)], label) from error
    return [future.result() for future in futures]


def _watch(futures: list[Future], label: str) -> Future | None:
    """Wait for all futures; after a failure drop those that have not started, and return the failed one."""
    waiting, failed = set(futures), None
    with _bar(len(futures), label) as bar:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in (future for future in futures if future in done):
                if future.cancelled():
                    continue
                if future.exception() is None:
                    bar.update()
                elif failed is None:
                    failed = future
                    for other in waiting:
                        other.cancel()
    return failed


def _refuse_threads(threads: Mapping[str, int]) -> None:
    """Refuse dask workers that run several tasks in one process, which accelerations and log files of jwst share."""
    for address, number in threads.items():
        if number > 1:
            raise Msa3dError(
                f"the dask worker {address} has {number} threads, and jwst needs one process per task: start the "
                "workers with --nthreads 1 (LocalCluster: threads_per_worker=1; dask-jobqueue: processes = cores)."
            )


def _call(function: Callable, task: Any, environment: dict[str, str]) -> Any:
    """Call a function on a dask worker, with the environment it needs."""
    from distributed import get_worker

    # One that joined later: those that were there have been looked at.
    _refuse_threads({get_worker().address: get_worker().state.nthreads})
    os.environ.update({**dict.fromkeys(THREAD_VARIABLES, "1"), **environment})
    return function(task)


def _run_dask(
    function: Callable, tasks: list, names: list[str], address: str, label: str, environment: dict[str, str]
) -> list:
    if not address.startswith("dask://"):
        raise Msa3dError(f"workers must be a number or dask://host:port, not {address!r}.")
    from distributed import Client, as_completed

    try:
        client = Client(address.replace("dask://", "tcp://", 1), timeout="20s", set_as_default=False)
    except OSError as error:
        raise Msa3dError(f"There is no dask scheduler at {address}: {error}.") from error
    with client:
        _refuse_threads(client.nthreads())
        futures = [client.submit(_call, function, task, environment, pure=False, retries=0) for task in tasks]
        with _bar(len(tasks), label) as bar:
            for future in as_completed(futures, loop=client.loop):
                if future.status == "error":
                    client.cancel([other for other in futures if other.status == "pending"])
                    why = future.exception()
                    raise _failed(why, names[futures.index(future)], label) from why
                bar.update()
        return client.gather(futures)
