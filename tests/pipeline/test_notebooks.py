"""Notebooks are executed whole, or kept as failed; and bound only when whole."""

from __future__ import annotations

import fcntl
import io
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from msa3d.config import Dataset
from msa3d.errors import BusyError, DatasetError, ProductError
from msa3d.pipeline import engine, notebooks
from msa3d.pipeline.engine import Record
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.products import LOCK


def write(path: Path, *sources: str) -> Path:
    """A notebook whose first cell is its parameters."""
    cells = [new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "run")


def executed(cell_source="1 + 1", outputs=(), tags=(), count=1):
    cell = new_code_cell(cell_source, execution_count=count, outputs=list(outputs), metadata={"tags": list(tags)})
    metadata = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    return new_notebook(cells=[new_markdown_cell("# Title"), cell], metadata=metadata)


def test_a_notebook_is_found_by_name_and_by_path(here):
    path = write(here / "notebooks" / "01_first.ipynb", "a = 1")
    assert notebooks.find("01_first").resolve() == path
    assert notebooks.find("01_first.ipynb").resolve() == path
    assert notebooks.find(path) == path
    with pytest.raises(ProductError, match=r"no notebook 02_second.*01_first"):
        notebooks.find("02_second")


def test_an_unknown_parameter_is_an_error(here, layout):
    write(here / "notebooks" / "01_first.ipynb", "dataset = 'demo'\nroot = None")
    with pytest.raises(DatasetError, match=r"no parameter workers.*dataset, root"):
        notebooks.execute("01_first", layout, {"dataset": "tiny", "workers": 2})
    assert not layout.notebooks.exists()


@pytest.mark.slow
def test_a_notebook_is_executed_with_its_parameters(here, layout):
    source = write(here / "notebooks" / "01_first.ipynb", "dataset = 'demo'", "print(dataset * 2)")
    before = source.read_bytes()
    path = notebooks.execute("01_first", layout, {"dataset": "tiny"})
    assert path == layout.notebooks / "01_first.ipynb"
    assert source.read_bytes() == before
    assert sorted(layout.notebooks.iterdir()) == [path]
    result = nbformat.read(path, as_version=4)
    assert result.cells[-1].outputs[0].text == "tinytiny\n"
    assert result.metadata[notebooks.METADATA]["seconds"] > 0
    assert 0.01 < result.metadata[notebooks.METADATA]["peak_memory_gb"] < 100
    assert notebooks.faults(result) == []


@pytest.mark.slow
def test_in_a_terminal_the_progress_of_steps_is_seen_and_nothing_else_of_the_kernel(here, layout, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    bar = "from msa3d.pipeline.parallel import run_tasks\nlist(run_tasks(abs, [1, 2], workers=1, label='exposures'))"
    write(
        *(here / "notebooks" / "01_first.ipynb", "dataset = 'demo'", bar),
        "import sys, warnings\nwarnings.warn('of another package')\nprint('a line of a log', file=sys.stderr)",
    )
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    notebooks.execute("01_first", layout, {"dataset": "tiny"})
    seen = terminal.getvalue()
    assert "exposures: 100%|" in seen
    assert "2/2 [" in seen
    assert "another package" not in seen
    assert "a line of a log" not in seen


@pytest.mark.slow
def test_a_failed_notebook_is_kept_and_named(here, layout):
    write(here / "notebooks" / "01_first.ipynb", "a = 1", "raise ValueError('no light')", "a")
    with pytest.raises(ProductError, match=r"ValueError: no light.*01_first\.failed\.ipynb"):
        notebooks.execute("01_first", layout, {"a": 2})
    kept = layout.notebooks / "01_first.failed.ipynb"
    assert sorted(layout.notebooks.iterdir()) == [kept]
    assert any("ValueError" in fault for fault in notebooks.faults(nbformat.read(kept, as_version=4)))


@pytest.fixture
def current(here, layout, monkeypatch):
    """A notebook that imports a step and a figure, executed by a stand-in; what runs it; and how often it ran."""
    runs = []

    def execute(name, layout, parameters):
        runs.append(name)
        final = layout.notebooks / notebooks.find(name).name
        final.write_text(f"executed {len(runs)}")
        return final

    monkeypatch.setattr(notebooks, "execute", execute)
    write(here / "notebooks" / "02_second.ipynb", "dataset = 'demo'", "from msa3d.reduce import slits")
    product = layout.process_dir("0311n") / "a_cal.fits"
    product.parent.mkdir(parents=True)
    for step, path in (("process", product), ("calpost", product.with_name("b_cal.fits"))):
        path.write_text(step)
        Record(layout, step, "0311n").write([path])

    def run(dataset="tiny", **parameters):
        described = Dataset.load(dataset) if isinstance(dataset, str) else dataset
        return notebooks.run("02_second", layout, described, {"dataset": "x", "root": "y", "workers": 2, **parameters})

    path, done = run()
    assert done and path == layout.notebooks / "02_second.ipynb"
    assert run() == (path, False)
    return run, runs


def test_a_current_notebook_is_not_executed_again(current, layout):
    run, runs = current
    assert len(runs) == 1
    assert (layout.records / "notebook_02_second.json").is_file()
    # Where it lies and how it is run make no difference.
    assert not run(root="elsewhere", workers=7)[1]


@pytest.mark.parametrize(
    "what",
    ["notebook", "dataset", "parameter", "data under it", "its own data", "a product lost", "the copy lost", "code"],
)
def test_what_makes_a_notebook_stale(current, here, layout, monkeypatch, what):
    run, runs = current
    arguments = {}
    if what == "notebook":
        write(here / "notebooks" / "02_second.ipynb", "dataset = 'demo'", "from msa3d.reduce import slits  # why")
    elif what == "dataset":
        # As by an edit of what it extends.
        arguments["dataset"] = Dataset.load("tiny").replaced(postprocess={"min_source_id": 1})
    elif what == "parameter":
        arguments["colour"] = "red"
    elif what in ("data under it", "its own data"):
        step = "process" if what == "data under it" else "calpost"
        Record(layout, step, "0311n", parameters={"new": 1}).write([layout.process_dir("0311n") / "a_cal.fits"])
    elif what == "a product lost":
        (layout.process_dir("0311n") / "b_cal.fits").unlink()
    elif what == "the copy lost":
        (layout.notebooks / "02_second.ipynb").unlink()
    else:
        monkeypatch.setattr(engine, "code_version", lambda *modules: "0" * 16)
    if what == "a product lost":
        assert run(**arguments)[1]
        (layout.process_dir("0311n") / "b_cal.fits").write_text("calpost")
    else:
        assert run(**arguments)[1]
    assert not run(**arguments)[1]
    assert len(runs) == 2


def test_what_comes_after_a_notebook_does_not_matter_to_it(current, layout):
    run, _ = current
    path = layout.cube_dir(8512) / "cube.fits"
    path.parent.mkdir(parents=True)
    path.write_text("cube")
    Record(layout, "cubebuild", "8512").write([path])
    assert not run()[1]


def test_two_executions_at_once_are_one_too_many(current, layout):
    run, _ = current
    with (layout.root / LOCK).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="run is being worked on by another process"):
            run(colour="red")


def test_a_notebook_that_failed_is_not_current(here, layout, monkeypatch):
    def fail(*_):
        raise ProductError("no light")

    monkeypatch.setattr(notebooks, "execute", fail)
    write(here / "notebooks" / "01_first.ipynb", "a = 1")
    for _ in range(2):
        with pytest.raises(ProductError, match="no light"):
            notebooks.run("01_first", layout, Dataset.load("tiny"), {})


def test_parameters_are_read_from_yaml(tmp_path):
    (tmp_path / "good.yaml").write_text("a: 1\nb: [x, y]\n")
    assert notebooks.read_parameters(tmp_path / "good.yaml") == {"a": 1, "b": ["x", "y"]}
    assert notebooks.read_parameters(None) == {}
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    for name in ("list.yaml", "bad.yaml", "absent.yaml"):
        with pytest.raises(DatasetError, match=name):
            notebooks.read_parameters(tmp_path / name)


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (executed(count=None), "was not run"),
        (
            executed(outputs=[new_output("error", ename="E", evalue="why", traceback=[])]),
            "failed with E: why",
        ),
        (executed(outputs=[new_output("display_data", {"text/plain": ""})]), "empty output"),
        (executed(outputs=[new_output("display_data", {"text/plain": "x"})], tags=["figure"]), "shows none"),
    ],
)
def test_what_keeps_a_notebook_out_of_the_book(result, what):
    (fault,) = notebooks.faults(result)
    assert what in fault


def test_a_whole_notebook_has_no_faults():
    picture = new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})
    assert notebooks.faults(executed(outputs=[picture], tags=["figure"])) == []
    assert notebooks.faults(executed(cell_source=" ", count=None)) == []


def test_only_whole_notebooks_are_gathered(layout, tmp_path):
    layout.notebooks.mkdir(parents=True)
    nbformat.write(executed(), layout.notebooks / "01.ipynb")
    notebooks.gather(layout, ["01.ipynb"], tmp_path / "copies")
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["01.ipynb"]
    nbformat.write(executed(count=None), layout.notebooks / "01.ipynb")
    with pytest.raises(ProductError, match=r"01\.ipynb: cell 1 was not run; .*02\.ipynb is missing"):
        notebooks.gather(layout, ["01.ipynb", "02.ipynb"], tmp_path / "copies")


def make_book(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "_config.yml").write_text("title: A book\nauthor: one\nexecute:\n  execute_notebooks: 'off'\n")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: intro\nchapters:\n- file: notebooks/01\n")
    (folder / "intro.md").write_text(text)


@pytest.mark.slow
def test_a_book_is_bound_of_pages_and_notebooks(here, layout):
    write(here / "notebooks" / "01.ipynb", "a = 1")
    layout.notebooks.mkdir(parents=True)
    nbformat.write(executed(), layout.notebooks / "01.ipynb")
    make_book(here / "book", "# A book\n\nSee [the first](notebooks/01.ipynb).\n")
    index = notebooks.bind(layout, Path("book"))
    assert index.is_file()
    page = here / "book/_build/html/notebooks/01.html"
    made = page.stat().st_mtime_ns
    # It is built once; and again after an edit of a page, and of a notebook.
    assert notebooks.bind(layout, Path("book")) == index
    assert page.stat().st_mtime_ns == made
    (here / "book" / "intro.md").write_text("# A book\n\nOther words on [the first](notebooks/01.ipynb).\n")
    notebooks.bind(layout, Path("book"))
    assert "Other words" in index.with_name("intro.html").read_text()
    nbformat.write(executed("2 + 2"), layout.notebooks / "01.ipynb")
    notebooks.bind(layout, Path("book"))
    assert "2 + 2" in re.sub("<[^>]+>", "", page.read_text())


@pytest.mark.slow
def test_a_book_with_a_warning_is_not_bound(here, layout):
    write(here / "notebooks" / "01.ipynb", "a = 1")
    layout.notebooks.mkdir(parents=True)
    nbformat.write(executed(), layout.notebooks / "01.ipynb")
    make_book(here / "book", "# A book\n\n![a figure](nowhere.png)\n")
    with pytest.raises(ProductError, match=r"nowhere\.png"):
        notebooks.bind(layout, Path("book"))


def test_no_book_is_an_error(here, layout):
    with pytest.raises(ProductError, match=r"_toc\.yml"):
        notebooks.bind(layout, Path("book"))
