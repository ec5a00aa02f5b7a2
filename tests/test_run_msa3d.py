"""tests.test_run_msa3d"""

from __future__ import annotations

import inspect

import pytest

from msa3d import run_msa3d
from msa3d.archive import crds
from msa3d.config import Dataset
from msa3d.errors import DatasetError, ObservationError
from msa3d.pipeline.engine import Step
from msa3d.pipeline.layout import Layout

from .fixtures.stepping import Stepping, blob

METAFILE = "jw02136001001_01_msa.fits"


@pytest.fixture
def rates(tmp_path):
    """Empty files named like the rates of nine exposures, and a metafile."""
    (tmp_path / METAFILE).touch()
    paths = []
    for activity in Stepping().activities():
        for detector in ("nrs1", "nrs2"):
            paths.append(tmp_path / f"jw02136001001_{activity}_00001_{detector}_rate.fits")
            paths[-1].touch()
    return paths


@pytest.fixture
def calls(monkeypatch):
    """What the steps are called with, in order, without running them."""
    made = []

    def run(step, dataset, layout, *, workers):
        made.append((step.name, dataset, layout, workers))
        return step.name

    monkeypatch.setattr(Step, "run", run)
    return made


def test_the_published_signature():
    published = (
        "data_path msa_path run_process run_postprocess run_cubebuild N_exposures rows columns N_gmembers fname "
        "transform_msa run_stage1"
    )
    parameters = inspect.signature(run_msa3d.run).parameters
    positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == published.split()
    defaults = [parameters[name].default for name in positional[2:]]
    assert defaults == [False, True, True, 63, 7, 9, 63, "reduction", True, False]


def test_arguments_become_a_dataset(rates, calls):
    report = run_msa3d.run(
        rates, rates[0].parent / METAFILE, run_process=True, N_exposures=9, rows=3, columns=3, N_gmembers=4,
        transform_msa=False,
    )  # fmt: skip
    assert [call[0] for call in calls] == ["process", "postprocess", "cubebuild"]
    for _, dataset, layout, workers in calls:
        assert layout == Layout(rates[0].parent)
        assert (dataset.pattern.rows, dataset.pattern.columns) == (3, 3)
        assert dataset.metafile == METAFILE
        assert dataset.process.transform_msa is False
        assert dataset.process.spec2 == Dataset.load("go2136").process.spec2
        assert workers == 3
    assert report.preprocess is None
    assert (report.process, report.postprocess, report.cubebuild) == ("process", "postprocess", "cubebuild")


def test_each_step_can_be_chosen(rates, calls):
    metafile = rates[0].parent / METAFILE
    nine = {"N_exposures": 9, "rows": 3, "columns": 3}
    run_msa3d.run(rates[0].parent, metafile, True, False, False, 9, 3, 3, run_stage1=True, workers=1)
    assert [call[0] for call in calls] == ["preprocess", "process"]
    assert calls[0][1].process.run_stage1
    assert calls[0][3] == 1
    calls.clear()
    run_msa3d.run([str(path) for path in rates], str(metafile), run_postprocess=False, **nine)
    assert [call[0] for call in calls] == ["cubebuild"]


def test_wrong_arguments_are_said_before_anything_runs(rates, calls, tmp_path):
    metafile = rates[0].parent / METAFILE
    with pytest.raises(DatasetError, match="N_exposures is 62, but rows x columns is 7 x 9 = 63"):
        run_msa3d.run(rates, metafile, N_exposures=62)
    with pytest.raises(DatasetError, match="fname"):
        run_msa3d.run(rates, metafile, fname="reduction2")
    with pytest.raises(DatasetError, match="must lie beside the rates"):
        run_msa3d.run(rates, metafile.parent / "other" / METAFILE)
    with pytest.raises(DatasetError, match="N_gmembers"):
        run_msa3d.run(rates, metafile, N_gmembers=0)
    with pytest.raises(ObservationError, match="no files"):
        run_msa3d.run([], metafile)
    with pytest.raises(ObservationError, match="does not exist"):
        run_msa3d.run([tmp_path / "jw_rate.fits"], metafile)
    with pytest.raises(ObservationError, match="neither a rate file"):
        run_msa3d.run([metafile], metafile)
    other = tmp_path / "other"
    other.mkdir()
    (other / rates[0].name).touch()
    with pytest.raises(ObservationError, match="different runs"):
        run_msa3d.run([rates[0], other / rates[0].name], metafile)
    assert calls == []


def test_from_two_dimensional_spectra_to_the_cube(tmp_path, monkeypatch):
    # The published way to start after jwst: data_path holds the s2d files.
    monkeypatch.setattr(crds, "use_references", lambda *_: pytest.fail("no reference is needed"))
    layout, stepping = Layout(tmp_path), Stepping(rows=1, columns=2, ny=8)
    (tmp_path / METAFILE).touch()
    paths = stepping.write(layout, blob(stepping.ra, stepping.dec))
    dataset = Dataset.load("tiny").replaced(postprocess={"pathloss": {"source": "none"}})
    report = run_msa3d.run(
        sorted(paths.values()), tmp_path / METAFILE, N_exposures=2, rows=1, columns=2, N_gmembers=2, dataset=dataset
    )
    assert report.process is None
    assert report.cubebuild.table()["shape"].tolist() == ["329x50x2"]
    assert layout.cube_medians(8512).is_file()
    assert (layout.reduction / "cubes" / "cube_8512" / "spec_lam2_s8512_all.fits").is_file()
