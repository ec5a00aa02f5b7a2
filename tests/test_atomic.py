"""One run at a time in a root; what killed runs leave is cleared away, what living ones write is not."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msa3d import atomic
from msa3d.atomic import LOCK, alone, atomic_path, remove_partials, working
from msa3d.errors import BusyError
from msa3d.layout import Layout

#: A run of a stand-in step: it makes half an exposure, says so, and waits to be told that it may end.
RUN = """
import sys, time
from pathlib import Path
from msa3d.atomic import atomic_path, one_run_a_root
from msa3d.layout import Layout

@one_run_a_root
def run(dataset, layout):
    with atomic_path(layout.process_dir("0311n")) as partial:
        partial.mkdir()
        print(partial, flush=True)
        sys.stdin.readline()
        (partial / "a_cal.fits").write_text("whole")

run(None, Layout(Path(sys.argv[1])))
"""


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


@pytest.fixture
def other(layout):
    """Another process in the middle of a step in the same root, and the exposure that it is at."""
    environment = {**os.environ, "PYTHONPATH": str(Path(atomic.__file__).parents[1])}
    environment.pop(atomic.HOLDER, None)
    command = [sys.executable, "-c", RUN, str(layout.root)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
    partial = Path(process.stdout.readline().strip())
    assert partial.is_dir()
    yield process, partial
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.fixture(scope="module")
def dead():
    """Id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_second_run_is_told_who_is_there_and_disturbs_nothing(layout, other):
    process, partial = other
    told = rf"{layout.root} is being worked on by process {process.pid} of .+ on .+ since 20.+ UTC \(.*\): wait until"
    with pytest.raises(BusyError, match=told), working(layout, "process"):
        pytest.fail("two runs at once")
    # Nor does it where the file system cannot lock: the half written exposure names a living process.
    assert remove_partials(partial.parent) == []
    process.communicate("go on\n", timeout=60)
    assert process.returncode == 0
    assert [path.name for path in layout.process.iterdir()] == ["exp_0311n_nobar"]
    assert (layout.process_dir("0311n") / "a_cal.fits").read_text() == "whole"


def test_the_lock_of_a_dead_process_is_taken_over(layout, other):
    process, partial = other
    process.kill()
    process.wait()
    assert partial.exists()
    with working(layout, "process"):
        assert not partial.exists()


def test_a_step_may_call_another(layout):
    with working(layout, "cubebuild"), working(layout, "register"):
        pass
    with alone(layout.root, "once more"):
        assert (layout.root / LOCK).is_file()
    assert not list(layout.root.iterdir())


def test_a_process_that_holds_the_root_may_start_others_that_work_there(layout):
    """As `msa3d notebook run` holds it, and the steps run in the kernel of the notebook."""
    command = [sys.executable, "-c", RUN, str(layout.root)]
    with working(layout, "notebook"):
        environment = {**os.environ, "PYTHONPATH": str(Path(atomic.__file__).parents[1])}
        done = subprocess.run(command, env=environment, input="\n", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (layout.root / LOCK).is_file()
        # Others are still kept out.
        environment.pop(atomic.HOLDER)
        done = subprocess.run(command, env=environment, input="\n", capture_output=True, text=True, check=False)
        assert f"is being worked on by process {os.getpid()} of" in done.stderr
    assert layout.activities() == ["0311n"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_the_run_goes_on_and_says_so(layout, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    ran = False
    with working(layout, "process"):
        ran = True
    assert ran
    assert f"{LOCK} cannot be locked ({os.strerror(code)})" in caplog.text
    assert "no second run" in caplog.text


def test_nothing_is_kept_of_a_root_that_is_not_there(tmp_path):
    with working(Layout(tmp_path / "absent"), "process"):
        pass
    assert not (tmp_path / "absent").exists()


def test_a_root_that_cannot_be_written_is_read_without_a_lock(layout, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with alone(layout.root, "cubebuild"):
        pass
    assert caplog.text == ""


# --- what is left behind


def test_names_of_living_and_dead_processes(tmp_path, dead):
    left = [tmp_path / f".a.{dead}.partial.fits", tmp_path / f".b.{dead}.partial"]
    mine = tmp_path / f".c.{os.getpid()}.partial.fits"
    # The id of a killed process has been given to a younger one, this one.
    reused = tmp_path / f".d.{os.getpid()}.partial.fits"
    for path in (left[0], mine, reused, tmp_path / ".other.partial", tmp_path / "e.fits"):
        path.touch()
    left[1].mkdir()
    os.utime(reused, (1e9, 1e9))
    assert remove_partials(tmp_path) == sorted([*left, reused])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, ".other.partial", "e.fits"])


def make(directory: Path, text: str) -> None:
    with atomic_path(directory) as partial:
        partial.mkdir()
        (partial / "a_cal.fits").write_text(text)


def test_a_directory_that_stays_behind_is_removed_later(layout, monkeypatch, dead, caplog):
    """On NFS, a directory with a file that somebody has open cannot be removed: the new product counts as made."""
    directory = layout.process_dir("0311n")
    make(directory, "old")
    remove = shutil.rmtree

    def refuse(path, *_, **__):
        if ".old" in str(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    make(directory, "new")
    assert (directory / "a_cal.fits").read_text() == "new"
    (old,) = layout.process.glob(".exp_*.old")
    assert "a later run will do it" in caplog.text
    # Of a process that has ended; as long as it cannot be removed, a step goes on without.
    old = old.rename(old.with_name(f".{directory.name}.{dead}.old"))
    with working(layout, "process"):
        assert old.exists()
    monkeypatch.undo()
    with working(layout, "process"):
        assert [path.name for path in layout.process.iterdir()] == [directory.name]
    assert (directory / "a_cal.fits").read_text() == "new"


def test_a_kill_between_the_two_renames_loses_nothing(layout, dead):
    directory = layout.process_dir("0311n")
    make(directory, "old")
    directory.rename(layout.process / f".{directory.name}.{dead}.old")
    (layout.process / f".{directory.name}.{dead}.partial").mkdir()
    assert layout.activities() == []
    with working(layout, "cubebuild"):
        assert layout.activities() == ["0311n"]
    assert [path.name for path in layout.process.iterdir()] == [directory.name]
    assert (directory / "a_cal.fits").read_text() == "old"


def test_status_is_told_while_another_process_works(layout, other):
    from msa3d.dataset import Dataset
    from msa3d.oversight.status import read_status

    steps = {step.step: step for step in read_status(Dataset.load("tiny"), layout).steps}
    assert steps["process"].running == ["0311n"]
