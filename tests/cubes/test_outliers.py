"""The registry of outlier tests: another one is one function."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.cubes import drizzle, outliers
from msa3d.cubes.grid import make_grid
from msa3d.cubes.operator import CubeOperator
from msa3d.cubes.settings import OutlierSettings
from msa3d.errors import DatasetError
from msa3d.observation.source import SourceTask, place_exposures

from ..fixtures import calrun


@pytest.fixture
def chosen(tmp_path):
    """Build the cube of a uniform field with a test of a name; give what `drizzle.build` reports, and the run."""

    def build(method, snr=4.0):
        dataset = calrun.dataset(2, 2, outliers=OutlierSettings(method=method, snr=snr))
        layout = calrun.write_run(tmp_path, dataset, calrun.uniform(), noise=np.random.default_rng(5))
        task = SourceTask(layout, dataset, 8512, place_exposures(dataset, layout))
        drizzle.parameters(task)
        return drizzle.build(task), layout

    return build


def test_another_test_is_one_function(chosen, monkeypatch):
    """A dataset names it, the maps of rejected pixels are those that it gives: no other place knows of it."""
    monkeypatch.setattr(outliers, "TESTS", dict(outliers.TESTS))

    @outliers.outlier_test("brighter")
    def brighter(operator, snr):
        masks = [block.slit.data > snr for block in operator.blocks]
        return outliers.Judgement(masks, [block.slit.good for block in operator.blocks], [1.0] * len(masks))

    notes, layout = chosen("brighter", snr=1.1)
    with fits.open(layout.outliers(8512)) as hdus:
        table = hdus["STATISTICS"].data
        assert table["rejected"].sum() == notes["rejected"]
    # Noise of 0.05 about 1: 2.3 per cent lie above 1.1.
    assert notes["rejected"] / notes["pixels"] == pytest.approx(0.023, abs=0.01)


def test_no_test_rejects_nothing(chosen):
    assert chosen("none")[0]["rejected"] == 0


def test_a_test_that_does_not_exist_is_named_as_the_dataset_is_read():
    told = (
        r"cubebuild.drizzle.outliers.method: there is no outlier test 'leave-on-out' \(did you mean 'leave-one-out'\?\)"
    )
    with pytest.raises(DatasetError, match=told):
        Dataset.load("tiny").replaced(cubebuild={"drizzle": {"outliers": {"method": "leave-on-out"}}})


def test_rounds_compute_anew_only_what_changed_and_give_the_same(tmp_path):
    """Each round against one that computes all: rejected and judged pixels and predictions to the last bit."""
    chosen = calrun.dataset(2, 3)
    dice = np.random.default_rng(7)

    def spoil(activity, sci, dq):
        sci.ravel()[dice.integers(0, sci.size, 40)] += dice.exponential(1.0, 40)

    layout = calrun.write_run(tmp_path, chosen, calrun.blob(0.05, 0.0), noise=dice, spoil=spoil)
    slits = drizzle.read_slits(SourceTask(layout, chosen, 8512, place_exposures(chosen, layout)))
    grid, slits = make_grid(slits, chosen.cubebuild.drizzle)
    operator = CubeOperator(slits, grid)
    quick, whole = outliers._Rounds(operator, 4.0), outliers._Rounds(operator, 4.0)
    numbers = []
    for _ in range(4):
        whole.least = np.nan
        numbers.append((quick.judge(), whole.judge()))
        for name in ("rejected", "judged", "scatter"):
            np.testing.assert_equal(getattr(quick.judgement, name), getattr(whole.judgement, name))
        np.testing.assert_equal(quick.predicted, whole.predicted)
        np.testing.assert_array_equal(quick.total, whole.total)
    assert all(a == b for a, b in numbers)
    # The later rounds did change some pixels, and not most of them.
    assert numbers[0][0] > numbers[1][0] > 0
