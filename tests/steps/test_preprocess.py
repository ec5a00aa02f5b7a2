"""Stage 1: what it refuses, and the parameters it would run with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from msa3d.errors import ObservationError
from msa3d.layout import Layout
from msa3d.steps import exposure, preprocess, process


def test_no_ramps_is_one_sentence(root: Path, dataset) -> None:
    with pytest.raises(ObservationError, match=r"no jw\*_uncal\.fits.*run_stage1: false"):
        preprocess.run(dataset, Layout(root))
    assert not (root / "reduction").exists()


def test_rates_that_were_not_made_here_are_not_written_over(root: Path, dataset) -> None:
    rate = next(root.glob("*03101*nrs1_rate.fits"))
    fits.PrimaryHDU(np.zeros(3, "u2")).writeto(root / rate.name.replace("_rate", "_uncal"))
    before = rate.stat().st_mtime_ns
    with pytest.raises(ObservationError, match="was not made here"):
        preprocess.run(dataset, Layout(root))
    assert rate.stat().st_mtime_ns == before


@pytest.mark.usefixtures("jwst_loaded")
def test_published_parameters_reach_the_pipeline(dataset) -> None:
    from jwst.pipeline import Detector1Pipeline

    pipeline = exposure.configured(Detector1Pipeline, dataset.process.detector1)
    assert pipeline.jump.expand_large_events is True
    assert pipeline.jump.sat_required_snowball is False
    assert pipeline.jump.min_jump_area == 10


def test_correlated_noise_is_cleaned_in_spec2_of_what_starts_from_ramps(root: Path, dataset) -> None:
    def spec2(**settings):
        changed = dataset.model_copy(update={"process": dataset.process.model_copy(update=settings)})
        layout = Layout(root)
        observation = process.Observation.read(layout, changed)
        one = observation.exposures[0]
        return process._task(one, changed, layout, observation.metafile, (), "context", True).spec2

    assert "nsclean" not in spec2()
    assert spec2(run_stage1=True)["nsclean"] == {"skip": False}
    own = {**dataset.process.spec2, "nsclean": {"skip": True}}
    assert spec2(run_stage1=True, spec2=own)["nsclean"] == {"skip": True}
