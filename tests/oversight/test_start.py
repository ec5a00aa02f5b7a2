"""What a person sees who opens a session: the state of the run and what is next."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from msa3d import notebook
from msa3d.dataset import Dataset
from msa3d.layout import Layout
from msa3d.oversight.start import next_step

from .test_verify_status import make

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture
def dataset():
    return Dataset.load("tiny")


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "root")


def finish(layout, dataset, step, names):
    for name in names:
        make(layout, dataset, step, name, [], layout.reduction / step / f"{name}.fits")


def test_each_step_in_its_turn(layout, dataset):
    exposures = [f"031{number:02d}" for number in range(1, 10)]
    assert next_step(dataset, layout) == "Next is [01_process](01_process.ipynb): 9 of 9 are left to **process**."
    finish(layout, dataset, "process", exposures[:4])
    assert "5 of 9" in next_step(dataset, layout)
    finish(layout, dataset, "process", exposures)
    assert "[02_postprocess]" in next_step(dataset, layout)
    finish(layout, dataset, "postprocess", exposures)
    assert "9 of 9 are left to **calpost**" in next_step(dataset, layout)
    finish(layout, dataset, "calpost", exposures)
    assert "[03_cubebuild]" in next_step(dataset, layout)
    finish(layout, dataset, "cubebuild", [f"s08512_{builder}" for builder in dataset.cubebuild.builders])
    assert next_step(dataset, layout) == "The cubes are there. Next is [04_figures](04_figures.ipynb)."
    layout.science.mkdir(parents=True)
    (layout.science / "report_8512_drizzle.csv").touch()
    assert next_step(dataset, layout).startswith("Everything is done.")


def test_somebody_at_it_and_failures(layout, dataset):
    layout.process.mkdir(parents=True)
    (layout.process / "failed_03103.log").write_text("oh")
    assert "**process** failed for 03103" in next_step(dataset, layout)
    (layout.process / f".exp_03104_nobar.{os.getpid()}.partial").mkdir()
    assert next_step(dataset, layout).startswith("Somebody is at **process** now, with 03104: 0 of 9 done.")


def test_a_real_observation_has_to_be_fetched_first(layout):
    assert "`msa3d fetch`" in next_step(Dataset.load("go2136"), layout)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_tells_it(layout, dataset):
    finish(layout, dataset, "process", ["03101"])
    parameters = {"dataset": "tiny", "root": str(layout.root), "workers": 1}
    done = notebook.execute(NOTEBOOKS / f"{notebook.START}.ipynb", layout, parameters)
    shown = [output.data for cell in nbformat.read(done, as_version=4).cells for output in cell.get("outputs", ())]
    texts = [text for data in shown for text in (data.get("text/plain"), data.get("text/markdown")) if text]
    (state,) = [text for text in texts if "cubebuild" in text and "postprocess" in text]
    (process,) = [row.split() for row in state.splitlines() if "process" in row.split()]
    assert process[1:6] == ["1", "0", "0", "8", "9"]
    assert any("8 of 9 are left" in text for text in texts)
    assert any("memory" in text and "workers" in text for text in texts)
