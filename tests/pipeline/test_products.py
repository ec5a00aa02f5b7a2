"""One run at a time in a root; what killed runs leave is cleared away, what living ones write is not.

Stamps, atomic writes, and when a product has to be made again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import msa3d
from msa3d.config import Dataset
from msa3d.errors import BusyError, ProductError
from msa3d.pipeline import codeversion, products
from msa3d.pipeline.codeversion import code_version
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.products import (
    LOCK,
    SIMULATED_HISTORY,
    SIMULATED_KEYWORD,
    alone,
    atomic_path,
    remove_partials,
    working,
)

#: A run of a stand-in step: it makes half an exposure, says so, and waits to be told that it may end.
RUN = """
import sys, time
from pathlib import Path
from msa3d.pipeline.products import atomic_path
from msa3d.pipeline.products import working
from msa3d.pipeline.layout import Layout

layout = Layout(Path(sys.argv[1]))
with working(layout, "process"), atomic_path(layout.process_dir("0311n")) as partial:
    partial.mkdir()
    print(partial, flush=True)
    sys.stdin.readline()
    (partial / "a_cal.fits").write_text("whole")
"""


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


@pytest.fixture
def other(layout):
    """Another process in the middle of a step in the same root, and the exposure that it is at."""
    environment = {**os.environ, "PYTHONPATH": str(Path(products.__file__).parents[2])}
    environment.pop(products.HOLDER, None)
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
        environment = {**os.environ, "PYTHONPATH": str(Path(products.__file__).parents[2])}
        done = subprocess.run(command, env=environment, input="\n", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (layout.root / LOCK).is_file()
        # Others are still kept out.
        environment.pop(products.HOLDER)
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
    from msa3d.config import Dataset
    from msa3d.pipeline.overview import read_status

    steps = {step.step: step for step in read_status(Dataset.load("tiny"), layout).steps}
    assert steps["process"].running == ["0311n"]


def history(header):
    return "".join(str(line).ljust(72) for line in header["HISTORY"])


# --- stamps


def test_mark_is_made_once_and_read_back():
    header = fits.Header()
    assert not products.is_simulated(header)
    for _ in range(3):
        products.mark_simulated(header)
    assert products.is_simulated(header)
    assert history(header).count(SIMULATED_HISTORY) == 1
    assert "not an observation" in SIMULATED_HISTORY


def test_stamp_says_what_made_it(monkeypatch):
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_9999.pmap")
    dataset = Dataset.load("tiny")
    header = fits.Header()
    products.stamp(
        header,
        dataset=dataset,
        inputs=["/a/b_rate.fits"],
        references={"pathloss": "/c/loss.fits"},
        step="process",
    )
    assert header["MSA3DVER"] == msa3d.__version__
    assert header["MSA3DSET"] == "tiny"
    assert dataset.digest.startswith(header["MSA3DCFG"])
    assert len(header["MSA3DCFG"]) == 32
    assert header["CRDS_CTX"] == "jwst_9999.pmap"
    assert header["CAL_VER"]
    assert header["MSA3DGIT"]
    assert header[SIMULATED_KEYWORD] is True
    text = history(header)
    for part in ("process", "input: b_rate.fits", "reference: pathloss loss.fits", SIMULATED_HISTORY):
        assert part in text


def test_stamp_keeps_what_jwst_wrote_and_never_unmarks():
    header = fits.Header([("CAL_VER", "1.14.0"), ("CRDS_CTX", "jwst_1237.pmap"), (SIMULATED_KEYWORD, True)])
    products.stamp(header, dataset=Dataset.load("go2136"), simulated=False)
    assert (header["CAL_VER"], header["CRDS_CTX"]) == ("1.14.0", "jwst_1237.pmap")
    assert products.is_simulated(header)


def test_stamp_does_not_mark_real_data():
    header = fits.Header()
    products.stamp(header, dataset=Dataset.load("go2136"))
    assert SIMULATED_KEYWORD not in header


def test_many_inputs_are_told_in_one_line():
    header = fits.Header()
    products.stamp(header, inputs=[f"jw{i:03d}_rate.fits" for i in range(126)])
    assert "126 files, jw000_rate.fits to jw125_rate.fits" in history(header)
    assert len(header["HISTORY"]) < 5


def test_stamp_file_changes_the_primary_header_only_and_adds_checksums(tmp_path):
    path = tmp_path / "a.fits"
    image = np.arange(12, dtype=np.int16).reshape(3, 4)
    table = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=np.linspace(0, 1, 5))], name="ASDF")
    scaled = fits.ImageHDU(image, name="SCI")
    scaled.scale("int16", bzero=32768)
    fits.HDUList([fits.PrimaryHDU(), scaled, fits.CompImageHDU(image, name="DQ"), table]).writeto(path)
    with fits.open(path, disable_image_compression=True, do_not_scale_image_data=True) as hdus:
        before = [(repr(hdu.header), hdu.data.tobytes()) for hdu in hdus[1:]]
        assert "CHECKSUM" not in hdus[1].header
    products.stamp_file(path, dataset=Dataset.load("tiny"), inputs=[f"{i}.fits" for i in range(10)])
    with fits.open(path, disable_image_compression=True, do_not_scale_image_data=True) as hdus:
        assert all({"CHECKSUM", "DATASUM"} <= set(hdu.header) for hdu in hdus)
        for hdu in hdus:
            del hdu.header["CHECKSUM"], hdu.header["DATASUM"]
        assert [(repr(hdu.header), hdu.data.tobytes()) for hdu in hdus[1:]] == before
        assert hdus[0].header["MSA3DSET"] == "tiny"
        assert products.is_simulated(hdus[0].header)
    # As other tools find it.
    with fits.open(path, checksum=True) as hdus:
        assert len(hdus) == 4


def test_git_revision_of_an_image(monkeypatch, tmp_path):
    monkeypatch.setattr(codeversion, "_PACKAGE_DIR", tmp_path)
    codeversion.git_revision.cache_clear()
    monkeypatch.setenv("MSA3D_GIT_REVISION", "abc123")
    assert codeversion.git_revision() == "abc123"
    codeversion.git_revision.cache_clear()


# --- atomic writes


def test_atomic_path_renames_when_whole(tmp_path):
    final = tmp_path / "deep" / "cube.fits"
    with atomic_path(final) as partial:
        assert partial.suffix == ".fits"
        assert partial.parent == final.parent
        partial.write_text("new")
        assert not final.exists()
    assert final.read_text() == "new"
    assert list(final.parent.iterdir()) == [final]


def test_atomic_path_keeps_the_old_on_error(tmp_path):
    final = tmp_path / "cube.fits"
    final.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(final) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_atomic_path_of_nothing(tmp_path):
    with pytest.raises(ProductError, match="was not written"), atomic_path(tmp_path / "a.fits"):
        pass


def test_atomic_directory_replaces_a_directory(tmp_path):
    final = tmp_path / "cache"
    for text in ("old", "new"):
        with atomic_path(final) as partial:
            partial.mkdir()
            (partial / text).write_text(text)
    assert [path.name for path in final.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [final]


# --- code version


def test_code_version_follows_code_not_words(tmp_path, monkeypatch):
    package = tmp_path / "msa3d"
    (package / "pipeline").mkdir(parents=True)
    (package / "reduce").mkdir()
    for name in ("__init__", "pipeline/__init__", "reduce/__init__", "pipeline/layout"):
        (package / f"{name}.py").write_text("")
    (package / "tool.py").write_text("VALUE = 1\n")
    (package / "other.py").write_text("OTHER = 1\n")
    step = package / "reduce" / "calibrate.py"
    step.write_text('"""Doc."""\nfrom .. import tool\nfrom msa3d.pipeline.layout import Layout\n')
    monkeypatch.setattr(codeversion, "_PACKAGE_DIR", package)

    def version():
        codeversion._parsed.cache_clear()
        codeversion._face.cache_clear()
        return code_version("msa3d.reduce.calibrate")

    first = version()
    step.write_text('"""Other words."""\nfrom .. import tool  # why\nfrom msa3d.pipeline.layout import Layout\n')
    (package / "pipeline/layout.py").write_text("CHANGED = 1\n")
    (package / "other.py").write_text("OTHER = 2\n")
    assert version() == first
    (package / "tool.py").write_text("VALUE = 2\n")
    second = version()
    assert second != first
    step.write_text('"""Doc."""\nfrom .. import tool\nfrom msa3d.pipeline.layout import Layout\nX = 1\n')
    assert version() not in (first, second)
    codeversion._parsed.cache_clear()


def test_code_version_of_unknown_module():
    with pytest.raises(ValueError, match=r"no module 'msa3d.nothing'"):
        code_version("msa3d.nothing")
