"""The notebooks as they stand in git: thin, without outputs, with parameters that papermill knows."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from msa3d.errors import DatasetError
from msa3d.pipeline import notebooks
from msa3d.runs import FIGURES, Run
from msa3d_book import undescribed_figures

from .fixtures import standin

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
LONGEST_CELL = 25


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def cells(path):
    return nbformat.read(path, as_version=4).cells


def code(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


def test_the_four_are_there_and_a_start():
    names = [path.stem for path in PATHS]
    assert names == ["00_start_here", "01_process", "02_postprocess", "03_cubebuild", "04_figures"]


def test_no_outputs_no_counts_stable_ids(path, cells):
    assert all(not cell.outputs and cell.execution_count is None for cell in code(cells))
    assert len({cell.id for cell in cells}) == len(cells)
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata.kernelspec.name == "python3"
    assert set(metadata) == {"kernelspec", "language_info"}


def test_no_definitions_and_short_cells(cells):
    for cell in code(cells):
        assert len(cell.source.splitlines()) <= LONGEST_CELL
        nodes = list(ast.walk(ast.parse(cell.source)))
        defined = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]
        assert not defined


def test_one_parameters_cell_first(cells):
    first = code(cells)[0]
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    assert tagged == [first]
    names = [node.targets[0].id for node in ast.parse(first.source).body]
    assert names == ["dataset", "root", "workers"]


def test_cells_see_one_object(path, cells):
    """No library code: notebooks import `open_run` and nothing else, and only the first one makes data."""
    imported = [node for cell in code(cells) for node in ast.walk(ast.parse(cell.source))
                if isinstance(node, ast.Import | ast.ImportFrom)]  # fmt: skip
    assert [ast.unparse(node) for node in imported] == ["from msa3d import open_run"]
    assert sum("run.data()" in cell.source for cell in code(cells)) == (1 if path.stem == "01_process" else 0)


def test_there_is_a_cell_to_change(path, cells):
    titles = [line for cell in cells for line in cell.source.splitlines() if line.startswith("## Change this")]
    assert len(titles) == (0 if path.stem == notebooks.START else 1)


def test_all_that_is_called_is_there(cells):
    for cell in code(cells):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "run":
                assert node.attr in {*dir(Run), "dataset", "layout", "workers"}, node.attr
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "run.figure":
                assert node.args[0].value in FIGURES


def test_every_figure_is_tagged_and_described(path, cells):
    assert undescribed_figures(nbformat.read(path, as_version=4)) == []
    for cell in code(cells):
        draws = any(
            isinstance(node, ast.Call) and ast.unparse(node.func) in ("run.figure", "run.atlas")
            for node in ast.walk(ast.parse(cell.source))
        )
        # A figure of a galaxy too faint to be measured is not drawn.
        assert draws == bool({"figure", "figure-if-measured"} & set(cell.metadata.get("tags", ())))


def test_no_number_is_glued_into_the_prose(cells):
    """Numbers in sentences are told by a cell, which knows what to say where there is none."""
    assert not [cell for cell in cells if "{glue:" in cell.source]


def test_pages_show_what_notebooks_tell():
    asked = {
        tuple(found)
        for page in (FOLDER.parent / "book").glob("*.md")
        for found in re.findall(r"\{msa3d-told\} (\w+) (\w+)", page.read_text(encoding="utf-8"))
    }
    there = {(path.stem, name) for path in PATHS for cell in code(nbformat.read(path, as_version=4).cells)
             for name in standin.told(cell.source)}  # fmt: skip
    assert asked and asked <= there


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_unknown_parameters_are_refused(path):
    notebooks.check_parameters(path, {"dataset": "tiny", "root": "x", "workers": 1})
    with pytest.raises(DatasetError, match="colour"):
        notebooks.check_parameters(path, {"colour": "red"})
