"""Stage 1: what it refuses, and the parameters it would run with."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.errors import ObservationError
from msa3d.observation import exposures
from msa3d.pipeline.layout import Layout
from msa3d.reduce import calibrate, detector1, exposure

from ..fixtures.ramps import Cutout, take_ramp, write_ramp_references, write_uncal


def test_no_ramps_is_one_sentence(root: Path, dataset) -> None:
    with pytest.raises(ObservationError, match=r"no jw\*_uncal\.fits of a spectrum.*run_stage1: false"):
        detector1.run(dataset, Layout(root))
    assert not (root / "reduction").exists()


def test_rates_that_were_not_made_here_are_not_written_over(root: Path, dataset) -> None:
    rate = next(root.glob("*03101*nrs1_rate.fits"))
    fits.PrimaryHDU(np.zeros(3, "u2")).writeto(root / rate.name.replace("_rate", "_uncal"))
    before = rate.stat().st_mtime_ns
    with pytest.raises(ObservationError, match="was not made here"):
        detector1.run(dataset, Layout(root))
    assert rate.stat().st_mtime_ns == before


def test_ramps_of_target_acquisition_are_left_out(tmp_path: Path, dataset, caplog) -> None:
    name = "jw02136001001_02101_00001_nrs1_uncal.fits"
    fits.PrimaryHDU(header=fits.Header({"EXP_TYPE": "NRS_MSATA"})).writeto(tmp_path / name)
    with pytest.raises(ObservationError, match=r"no jw\*_uncal\.fits of a spectrum"):
        detector1.run(dataset, Layout(tmp_path))
    assert f"left out, as EXP_TYPE is not NRS_MSASPEC: {name} (NRS_MSATA)" in caplog.text


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
        observation = exposures.Observation.read(layout, changed)
        one = observation.exposures[0]
        return calibrate._task(one, changed, layout, observation.metafile, (), "context", True).job.spec2

    assert spec2()["nsclean"] == {"skip": False}
    assert "nsclean" not in spec2(nsclean=False)
    assert spec2(nsclean=False, run_stage1=True)["nsclean"] == {"skip": False}
    own = {**dataset.process.spec2, "nsclean": {"skip": True}}
    assert spec2(nsclean=False, run_stage1=True, spec2=own)["nsclean"] == {"skip": True}


@pytest.fixture(scope="module")
def ramps(tmp_path_factory: pytest.TempPathFactory, jwst_loaded: None):
    """A root with the ramps of a cut-out of both detectors: a spectrum with a line, a saturating spot, cosmic rays."""
    from msa3d_sim.crds_cache import build_crds_cache
    from msa3d_sim.geometry import Pointing
    from msa3d_sim.plan import PlannedExposure, primary_header, science_header

    cutout = Cutout(first_row=600, first_column=900, rows=96, columns=128)
    root, truth = tmp_path_factory.mktemp("ramps"), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_crds_cache(root / "crds_cache", more=lambda *place: write_ramp_references(*place, cutout))
    y, x = np.mgrid[: cutout.rows, : cutout.columns]
    rate = 0.05 + 0.3 * np.exp(-0.5 * ((y - 50) / 4) ** 2) * (1 + 20 * np.exp(-0.5 * ((x - 60) / 1.5) ** 2))
    rate[10:14, 10:14] = 400.0
    pointing = Pointing(215.05, 52.94, 28.0)
    exposure = PlannedExposure(0, "03101", 0, 0, pointing, pointing, (0.0, 0.0))
    for side, detector in enumerate(("NRS1", "NRS2")):
        path = root / f"jw02136001001_03101_00001_{detector.lower()}_uncal.fits"
        truth[detector] = take_ramp(rate, 8, side, cutout=cutout)
        header = primary_header(Dataset.load("tiny"), exposure, detector)
        write_uncal(path, truth[detector], header, science_header(pointing), cutout)
    return Layout(root), rate, truth


@pytest.mark.slow
def test_detector1_recovers_the_rates(ramps) -> None:
    """Slopes within their errors, cosmic rays found, saturation told; a second run has nothing to do."""
    layout, rate, truth = ramps
    start = Dataset.load("tiny").replaced(process={"run_stage1": True})
    report = detector1.run(start, layout, workers=1)
    assert list(report.table()["status"]) == ["done", "done"]
    assert list(detector1.run(start, layout, workers=1).table()["status"]) == ["current", "current"]
    for path in (path for result in report.results for path in result.products):
        with fits.open(path) as hdus:
            header, sci, err, dq = hdus[0].header, hdus["SCI"].data, hdus["ERR"].data, hdus["DQ"].data
        hit = truth[header["DETECTOR"]].hit.any(axis=0)
        spot = np.zeros_like(hit)
        spot[10:14, 10:14] = True
        jumped = (dq & 4) > 0
        assert (jumped & hit & ~spot).sum() >= 0.98 * (hit & ~spot).sum()
        clean = ~jumped & ~hit & ~spot & np.isfinite(sci)
        assert clean.sum() > 0.8 * clean.size
        pull = (sci - rate)[clean] / err[clean]
        # Read noise, photons, and the drifting columns, which ERR does not know of.
        assert abs(pull.mean()) < 0.15
        assert 0.95 < pull.std() < 1.2
        line = clean & (rate > 2.0)
        assert sci[line].sum() / rate[line].sum() == pytest.approx(1.0, abs=0.01)
        # Saturated in the second group: no slope of what came after.
        assert (~np.isfinite(sci[spot]) | ((dq[spot] & 2) > 0) | (np.abs(sci[spot] / 400 - 1) < 0.05)).all()
        assert header["S_JUMP"] == header["S_LINEAR"] == header["S_SUPERB"] == header["S_DARK"] == "COMPLETE"
        assert header["MSA3DSET"] == "tiny"
        assert "uncal" in str(header["HISTORY"])


def test_only_exposures_that_are_there_can_be_chosen(root: Path, dataset) -> None:
    with pytest.raises(ObservationError, match="has no exposure 99999; 03101 is one"):
        calibrate.run(dataset, Layout(root), workers=1, only=["03101", "99999"])
    assert not (root / "reduction").exists()
