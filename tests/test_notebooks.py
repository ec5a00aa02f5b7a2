"""The notebooks as they stand in git: thin, without outputs, with parameters that papermill knows."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from msa3d.errors import DatasetError
from msa3d.pipeline import notebooks
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


def test_only_the_data_cell_knows_the_simulator(path, cells):
    with_simulator = [cell for cell in code(cells) if "msa3d_sim" in cell.source]
    assert len(with_simulator) == (1 if path.stem == "01_process" else 0)


def test_every_figure_is_tagged_and_described(path, cells):
    assert undescribed_figures(nbformat.read(path, as_version=4)) == []
    for cell in code(cells):
        saves = any(
            isinstance(node, ast.Call) and getattr(node.func, "id", "") == "save"
            for node in ast.walk(ast.parse(cell.source))
        )
        # A figure of a galaxy too faint to be measured is not drawn.
        assert saves == bool({"figure", "figure-if-measured"} & set(cell.metadata.get("tags", ())))


def test_every_number_in_the_prose_is_glued_before(cells):
    known = set()
    for cell in cells:
        if cell.cell_type == "code":
            known |= set(standin.names_in(cell.source))
        else:
            quoted = {text.split(":")[0] for text in re.findall(r"\{glue:text\}`([^`]+)`", cell.source)}
            assert quoted <= known


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_unknown_parameters_are_refused(path):
    notebooks.check_parameters(path, {"dataset": "tiny", "root": "x", "workers": 1})
    with pytest.raises(DatasetError, match="colour"):
        notebooks.check_parameters(path, {"colour": "red"})
