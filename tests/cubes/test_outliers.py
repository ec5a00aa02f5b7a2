"""The registry of outlier tests: another one is one function."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.cubes import drizzle, outliers
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
