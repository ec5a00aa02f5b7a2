"""Records, and the engine that makes what is not current."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from msa3d.errors import Msa3dError, ProductError, TaskError
from msa3d.pipeline import engine
from msa3d.pipeline.engine import Made, Record, Step, Task
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.products import atomic_path


@pytest.fixture
def made(tmp_path):
    """A record of one product made from two inputs."""
    layout = Layout(tmp_path)
    inputs = [tmp_path / "a_rate.fits", tmp_path / "b_rate.fits"]
    for path in inputs:
        path.write_text(path.name)
    product = tmp_path / "reduction" / "out.fits"

    def record(**changes):
        values = {
            "inputs": inputs,
            "parameters": {"x": 1, "y": [1.5, None]},
            "modules": ("msa3d.observation.metafile",),
        }
        return Record(layout, "process", "0311n", **(values | changes))

    first = record()
    assert first.reason() == "never made"
    product.parent.mkdir()
    product.write_text("result")
    first.write([product], seconds=3.5)
    return record, inputs, product


def test_current(made):
    record, _, product = made
    assert record().is_current()
    assert record().is_current([product])
    assert record().notes() == {"seconds": 3.5}
    assert record(parameters={"y": [1.5, None], "x": 1}).is_current()


def test_product_gone_or_cut(made):
    record, _, product = made
    product.write_text("resul")
    assert "out.fits is missing or is not what was written" in record().reason()
    product.unlink()
    assert not record().is_current()


def test_product_that_was_not_recorded(made, tmp_path):
    record, _, _ = made
    assert "not among the products" in record().reason([tmp_path / "reduction" / "other.fits"])


def test_parameters_changed(made):
    record, _, _ = made
    assert record(parameters={"x": 2, "y": [1.5, None]}).reason() == "parameters have changed"


def test_code_changed(made):
    record, _, _ = made
    assert record(modules=("msa3d.pipeline.parallel",)).reason() == "the code has changed"


def test_another_version_of_jwst(made, monkeypatch):
    record, _, _ = made
    assert engine.other_pipeline(record().layout) == ""
    here = engine.jwst_version()
    monkeypatch.setattr(engine, "jwst_version", lambda: "9.9.0")
    assert record().reason() == f"made with jwst {here}"
    with pytest.raises(ProductError, match=rf"holds products of jwst {here} .*this is jwst 9.9.0: one root"):
        engine.check_pipeline(record().layout)


def test_records_from_before_there_were_two_pipelines_are_those_of_the_first(made):
    record, _, _ = made
    text = json.loads(record().path.read_text())
    assert text.pop("jwst") == engine.jwst_version() != "unknown"
    record().path.write_text(json.dumps(text))
    assert record().read()["jwst"] == "1.14.0"


def test_inputs_changed(made, tmp_path):
    record, inputs, _ = made
    assert record(inputs=inputs[:1]).reason() == "other inputs"
    inputs[0].write_text("A_rate.fits")  # same size
    assert record().reason() == "input a_rate.fits has changed"
    inputs[0].unlink()
    assert not record().is_current()


def test_touched_input_is_the_same_input(made):
    record, inputs, _ = made
    os.utime(inputs[0], ns=(1, 1))
    assert record().is_current()


def test_run_can_be_moved(made, tmp_path):
    _, inputs, _ = made
    new = tmp_path.with_name(tmp_path.name + "_moved")
    tmp_path.rename(new)
    moved = Record(
        Layout(new),
        "process",
        "0311n",
        inputs=[new / path.name for path in inputs],
        parameters={"x": 1, "y": [1.5, None]},
        modules=("msa3d.observation.metafile",),
    )
    assert moved.reason() == ""
    new.rename(tmp_path)


def test_input_that_changes_meanwhile(made):
    record, inputs, product = made
    now = record()
    inputs[1].write_text("something else")
    with pytest.raises(ProductError, match=r"b_rate.fits changed or vanished while process 0311n"):
        now.write([product])


def test_product_never_written(made, tmp_path):
    record, _, _ = made
    with pytest.raises(ProductError, match="was not written"):
        record().write([tmp_path / "absent.fits"])


@pytest.mark.parametrize("text", ['{"step": ', "[]", "null", "{}", '{"inputs": null, "products": {}}', "\x00" * 9])
def test_broken_record_is_no_record(made, text):
    record, _, _ = made
    record().path.write_text(text)
    assert record().reason() == "never made"
    assert record().notes() == {}


@pytest.mark.parametrize("key", ["inputs", "products", "references"])
@pytest.mark.parametrize("value", [None, [], {"a.fits": 3}, {"a.fits": {"size": "3", "mtime_ns": 0, "sha256": ""}}])
def test_record_whose_files_are_not_described_is_no_record(made, key, value):
    record, _, _ = made
    path = record().path
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert record().reason() == ("never made" if value != [] else record().reason())
    assert not record().is_current()


def test_record_is_plain_json(made):
    record, _, _ = made
    text = json.loads(record().path.read_text())
    assert text["products"]["reduction/out.fits"]["size"] == 6
    assert set(text["inputs"]) == {"a_rate.fits", "b_rate.fits"}


def test_a_product_that_was_replaced_is_not_that_of_its_record(made):
    """As long as the others it is, and of any date."""
    record, _, product = made
    status = product.stat()
    product.write_text("RESULT")
    assert record().reason() == "product reduction/out.fits is missing or is not what was written"
    product.write_text("result")
    assert record().is_current()
    os.utime(product, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert record().is_current()


def test_references_are_followed_by_name_and_content(made, tmp_path, monkeypatch):
    record, _, product = made
    cache = tmp_path / "crds_cache"
    flat = cache / "references" / "flat.fits"
    flat.parent.mkdir(parents=True)
    flat.write_text("flat")
    monkeypatch.setenv("CRDS_PATH", str(cache))
    record().write([product], [flat])
    assert set(record().read()["references"]) == {"crds:references/flat.fits"}
    assert record().is_current()
    # The cache of another machine, or of another user.
    other = tmp_path.with_name(tmp_path.name + "_cache")
    cache.rename(other)
    assert record().is_current()
    monkeypatch.setenv("CRDS_PATH", str(other))
    assert record().is_current()
    (other / "references" / "flat.fits").write_text("FLAT")
    assert record().reason() == "reference references/flat.fits has changed"


# --- steps: `first` writes its parameter, `second` copies it


def work(job):
    path, text, fault = job
    with atomic_path(path) as partial:
        partial.write_text(text() if callable(text) else text)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault is not None:
        raise fault
    return Made([path], {"length": path.stat().st_size})


def first(layout, text, fault=None):
    path = layout.reduction / "first.txt"

    def tasks(dataset, layout):
        return [Task("first", Record(layout, "process", "x", parameters={"text": text}), (path, text, fault))]

    return Step("process", tasks, work, lambda result: {"length": result.notes["length"]})


def second(layout):
    path = layout.reduction / "first.txt"
    final = layout.reduction / "second.txt"

    def tasks(dataset, layout):
        return [Task("second", Record(layout, "cubebuild", "x", inputs=[path]), (final, path.read_text, None))]

    return Step("cubebuild", tasks, work)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def run(step, layout):
    return step.run(None, layout, workers=1).results[0].status


def test_only_what_is_not_current_is_made(layout):
    assert [run(first(layout, "one"), layout) for _ in range(2)] == ["done", "current"]
    report = first(layout, "one").run(None, layout, workers=1)
    (row,) = report.table()
    assert (row["name"], row["status"], row["length"]) == ("x", "current", 3)
    assert report.results[0].products == [layout.reduction / "first.txt"]
    assert run(second(layout), layout) == "done"
    assert run(first(layout, "two"), layout) == "done"
    assert [run(second(layout), layout) for _ in range(2)] == ["done", "current"]
    assert (layout.reduction / "second.txt").read_text() == "two"


def test_one_root_one_pipeline(layout, monkeypatch):
    """A step of one version of jwst neither touches what another has made nor adds to it."""
    run(first(layout, "one"), layout)
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    monkeypatch.setattr(engine, "jwst_version", lambda: "9.9.0")
    for step in (first(layout, "one"), second(layout)):
        with pytest.raises(ProductError, match="one root, one pipeline"):
            run(step, layout)
    assert {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()} == before


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), FULL, SystemExit(1)], ids=["Ctrl-C", "full disk", "exit"])
def test_a_run_that_ends_before_the_record_leaves_nothing_current(layout, fault):
    """With other parameters, of the same length: its product must not be taken for that of the run before."""
    run(first(layout, "one"), layout)
    with pytest.raises((KeyboardInterrupt, SystemExit, Msa3dError)):
        run(first(layout, "two", fault), layout)
    assert (layout.reduction / "first.txt").read_text() == "two"
    assert run(first(layout, "one"), layout) == "done"
    assert (layout.reduction / "first.txt").read_text() == "one"


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
import {module} as tests
from msa3d.pipeline.layout import Layout
layout = Layout(Path(sys.argv[2]))
tests.run(tests.first(layout, "two", "kill"), layout)
"""


def test_a_run_that_is_killed_before_the_record_leaves_nothing_current(layout):
    run(first(layout, "one"), layout)
    script = KILLED.format(module=Path(__file__).stem)
    environment = {**os.environ, "PYTHONPATH": str(Path(engine.__file__).parents[2])}
    command = [sys.executable, "-c", script, __file__, str(layout.root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (layout.reduction / "first.txt").read_text() == "two"
    assert run(first(layout, "one"), layout) == "done"
    assert (layout.reduction / "first.txt").read_text() == "one"


@pytest.mark.parametrize("dated", [True, False], ids=["same date", "new date"])
def test_a_bit_that_flipped_between_two_steps_is_named(layout, dated):
    run(first(layout, "one"), layout)
    path = layout.reduction / "first.txt"
    status = path.stat()
    path.write_text("onf")
    if dated:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ProductError, match=r"first\.txt is not what was written .* Run `msa3d process` again"):
        run(second(layout), layout)
    assert not (layout.reduction / "second.txt").exists()
    # What the sentence says helps.
    assert run(first(layout, "one"), layout) == "done"
    assert run(second(layout), layout) == "done"
    assert (layout.reduction / "second.txt").read_text() == "one"


def test_a_bit_that_flipped_after_both_steps_is_not_built_from(layout):
    run(first(layout, "one"), layout)
    run(second(layout), layout)
    (layout.reduction / "first.txt").write_text("onf")
    with pytest.raises(ProductError, match="is damaged, or was edited"):
        run(second(layout), layout)
    assert (layout.reduction / "second.txt").read_text() == "one"


def test_what_goes_wrong_is_a_sentence_and_the_traceback_goes_to_a_file(layout, caplog):
    with pytest.raises(TaskError, match=r"^process: first: ValueError: two lines \(more in .*process_x\.traceback\)$"):
        run(first(layout, "one", ValueError("two\nlines")), layout)
    assert "Traceback" not in caplog.text
    assert "in work" in (layout.records / "process_x.traceback").read_text()
    assert run(first(layout, "one"), layout) == "done"
    assert not list(layout.records.glob("*.traceback"))


def test_a_full_disk_in_the_words_of_astropy(layout):
    """It has no errno."""
    fault = OSError("Not enough space on disk: requested 14597895, available 0. 662904 requested and 205344 written")
    with pytest.raises(
        ProductError, match=rf"^process: first: {layout.root} cannot be written \(No space left on device\)"
    ):
        run(first(layout, "one", fault), layout)


def test_a_root_that_became_read_only(layout, monkeypatch):
    run(first(layout, "one"), layout)

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    assert run(first(layout, "one"), layout) == "current"
    with pytest.raises(ProductError, match=r"process_x\.json cannot be written \(Read-only file system\)"):
        run(first(layout, "two"), layout)
    assert (layout.reduction / "first.txt").read_text() == "one"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_root_that_cannot_be_written_is_named(layout, code, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(code, os.strerror(code), str(path))

    step = first(layout, "one")
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ProductError, match=rf"{layout.root}.* cannot be written \({os.strerror(code)}\): make room"):
        run(step, layout)


def test_a_task_that_a_lost_worker_had_finished_is_not_done_again(layout):
    step = first(layout, "one")
    (task,) = step.tasks(None, layout)
    assert engine.make((work, task, {})).status == "done"
    (task,) = step.tasks(None, layout)
    assert engine.make((work, task, {})).status == "current"
