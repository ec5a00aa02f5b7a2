"""Tasks in this process, in others, and on dask give the same; failures name their task."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from msa3d.errors import Msa3dError, ObservationError, TaskError
from msa3d.pipeline import parallel
from msa3d.pipeline.engine import Record, Step, Task
from msa3d.pipeline.layout import Layout

# Functions that run in other processes must be importable there: they live in a module of their own.
TASKS = textwrap.dedent(
    """
    import os, time
    from pathlib import Path
    from msa3d.errors import ObservationError
    from msa3d.pipeline.engine import Made

    def square(x):
        return x * x

    def threads(_):
        return [os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MY_OWN")]

    def pid(_):
        time.sleep(0.05)
        return os.getpid()

    def fail_on_two(x):
        if x == 2:
            raise ValueError("two is wrong")
        return x

    def user_error(x):
        raise ObservationError("a.fits is truncated.")

    def die(x):
        os.kill(os.getpid(), 9)

    def leave_mark(path):
        Path(path).write_text(str(os.getpid()))
        time.sleep(60)

    def make_or_die(product):
        # The first worker that has made two is killed in its third.
        calls, died = product.parent / "calls", product.parent / "died"
        with calls.open("a") as stream:
            stream.write(f"{os.getpid()} {product.name}\\n")
        mine = [line for line in calls.read_text().splitlines() if line.startswith(f"{os.getpid()} ")]
        if len(mine) == 3 and not died.exists():
            died.write_text(product.name)
            os.kill(os.getpid(), 9)
        product.write_text("made")
        return Made([product])
    """
)


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """The module of task functions, importable here and in workers."""
    (tmp_path / "worker_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(parallel, "available_memory_gb", lambda: 100.0)
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    sys.modules.pop("worker_tasks", None)
    import worker_tasks

    return worker_tasks


@pytest.mark.parametrize("number", [1, 2])
def test_results_in_order(tasks, number):
    assert parallel.run_tasks(tasks.square, range(7), workers=number) == [x * x for x in range(7)]
    assert parallel.run_tasks(tasks.square, [], workers=number) == []


def test_processes_are_others_and_have_one_thread(tasks, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    pids = parallel.run_tasks(tasks.pid, range(4), workers=2)
    assert os.getpid() not in pids
    found = parallel.run_tasks(tasks.threads, range(2), workers=2, environment={"MY_OWN": "here"})
    assert found == [["1", "1", "here"]] * 2
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MY_OWN" not in os.environ


def test_one_worker_stays_in_this_process(tasks):
    assert set(parallel.run_tasks(tasks.pid, range(2), workers=1)) == {os.getpid()}


@pytest.mark.parametrize("number", [1, 2])
def test_failure_names_the_task(tasks, number):
    with pytest.raises(TaskError, match=r"^process: exposure c failed with ValueError: two is wrong$"):
        parallel.run_tasks(
            tasks.fail_on_two,
            range(4),
            workers=number,
            label="process",
            names=[f"exposure {c}" for c in "abcd"],
        )


@pytest.mark.parametrize("number", [1, 2])
def test_user_errors_keep_their_class(tasks, number):
    with pytest.raises(ObservationError, match=r"^[78]: a.fits is truncated\.$"):
        parallel.run_tasks(tasks.user_error, [7, 8], workers=number)


def test_killed_worker(tasks):
    with pytest.raises(TaskError, match="a worker process was killed, most likely for lack of memory"):
        parallel.run_tasks(tasks.die, range(2), workers=2)


def test_progress_bar(tasks, capsys):
    parallel.run_tasks(tasks.square, range(3), workers=1, label="squares")
    assert "squares: 100%" in capsys.readouterr().err
    parallel.run_tasks(tasks.square, range(3), workers=1)
    assert capsys.readouterr().err == ""


class Shell:
    """What IPython gives a notebook's cells."""

    kernel = object()


def test_bar_redraws_for_those_who_watch_only(monkeypatch):
    assert parallel._bar(3, "x").mininterval == 30  # a log
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=Shell))
    assert parallel._bar(3, "x").mininterval == 0.5  # a notebook, cell by cell
    monkeypatch.setenv(parallel.UNWATCHED, "1")
    assert parallel._bar(3, "x").mininterval == 30  # a notebook under papermill


def test_number_of_workers(monkeypatch, caplog):
    monkeypatch.setattr(parallel, "available_cores", lambda: 8)
    monkeypatch.setattr(parallel, "available_memory_gb", lambda: 7.0)
    assert parallel.number_of_workers(None, 0.5) == 8
    assert parallel.number_of_workers(2, 0.5) == 2
    assert parallel.number_of_workers(None, 0.5, n_tasks=3) == 3
    assert caplog.text == ""
    assert parallel.number_of_workers(None, 2.0) == 3
    assert "3 workers instead of 8" in caplog.text
    assert parallel.number_of_workers(4, 100.0) == 1
    with pytest.raises(Msa3dError, match="1 or more, not 0"):
        parallel.number_of_workers(0)


def test_this_machine():
    assert 1 <= parallel.available_cores() <= psutil.cpu_count()
    assert 0 < parallel.available_memory_gb() <= psutil.virtual_memory().total / 1e9


def test_bad_address(tasks):
    with pytest.raises(Msa3dError, match="a number or dask://host:port, not 'many'"):
        parallel.run_tasks(tasks.square, range(2), workers="many")


def test_workers_die_with_their_parent(tasks, tmp_path):
    """A run that is killed without warning leaves no worker behind."""
    marks = [tmp_path / "mark0", tmp_path / "mark1"]
    script = tmp_path / "run.py"
    script.write_text(
        "import worker_tasks\nfrom msa3d.pipeline.parallel import run_tasks\n"
        "if __name__ == '__main__':\n"
        f"    run_tasks(worker_tasks.leave_mark, {[str(m) for m in marks]}, workers=2, memory_gb_each=0.01)\n"
    )
    source = str(Path(parallel.__file__).parents[2])
    path = os.pathsep.join([str(tmp_path), source])
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": path})
    try:
        children = []
        for _ in range(600):
            children = [int(m.read_text()) for m in marks if m.exists() and m.read_text()]
            if len(children) >= min(2, parallel.number_of_workers(2, 0.01)):
                break
            time.sleep(0.1)
        assert children
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _, alive = psutil.wait_procs([psutil.Process(c) for c in children if psutil.pid_exists(c)], timeout=30)
    assert not alive


@pytest.mark.slow
def test_dask(tasks):
    import distributed

    # In a process of its own, as anybody's worker: one that shares this process has the loggers of whatever jwst
    # module an earlier test imported (jwst.associations replaces the class of loggers made after it).
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp", host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address.replace("tcp://", "dask://")
        assert parallel.run_tasks(tasks.square, range(4), workers=address) == [0, 1, 4, 9]
        with pytest.raises(TaskError, match="2 failed with ValueError: two is wrong"):
            parallel.run_tasks(tasks.fail_on_two, range(4), workers=address)


@pytest.mark.slow
def test_a_dask_worker_of_two_threads_is_refused(tasks):
    import distributed

    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None, protocol="tcp", host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address.replace("tcp://", "dask://")
        with pytest.raises(Msa3dError, match=r"has 2 threads, .* start the workers with --nthreads 1"):
            parallel.run_tasks(tasks.square, range(4), workers=address)


@pytest.mark.slow
def test_what_a_dask_worker_finished_before_it_was_killed_is_not_made_again(tasks, tmp_path):
    """Its results are lost with it, and the scheduler gives its tasks to another one; the records know better."""
    import distributed

    layout = Layout(tmp_path / "root")
    layout.reduction.mkdir(parents=True)
    products = [layout.reduction / f"{number}.txt" for number in range(8)]
    todo = [Task(path.stem, Record(layout, "fake", path.stem), path) for path in products]
    fake = Step("fake", lambda dataset, layout: todo, tasks.make_or_die)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp", host="127.0.0.1"
    ) as cluster:
        report = fake.run(None, layout, workers=cluster.scheduler_address.replace("tcp://", "dask://"))
    assert [one.name for one in report.results] == [path.stem for path in products]
    calls = [line.split()[1] for line in (layout.reduction / "calls").read_text().splitlines()]
    killed = (layout.reduction / "died").read_text()
    assert Counter(calls) == {path.name: 1 + (path.name == killed) for path in products}
    assert all(task.record.is_current([path]) for task, path in zip(todo, products, strict=True))


def test_no_dask_scheduler(tasks, monkeypatch):
    import distributed

    def refuse(*args, **keywords):
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(Msa3dError, match="There is no dask scheduler at dask://here:1: timed out"):
        parallel.run_tasks(tasks.square, range(4), workers="dask://here:1")


@pytest.mark.parametrize("error", [OSError(38, "Function not implemented"), OSError(28, "No space left on device")])
def test_without_semaphores_one_worker_goes_on_and_says_so(tasks, monkeypatch, caplog, error):
    """As where /dev/shm is absent, or too small for a semaphore."""
    import _multiprocessing

    def refuse(*_):
        raise error

    monkeypatch.setattr(_multiprocessing, "SemLock", refuse)
    assert set(parallel.run_tasks(tasks.pid, range(3), workers=2)) == {os.getpid()}
    assert f"one worker instead of 2: processes cannot share semaphores here ({error})" in caplog.text
