"""Step 1: what is checked, what is written, what is left alone; with jwst (slow) and with a stand-in for it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from msa3d.archive import crds
from msa3d.cubes.slit import read_slit
from msa3d.errors import CrdsError, DatasetError, ObservationError, ProductError
from msa3d.observation import exposures
from msa3d.observation.source import Placed, sources_calibrated, sources_of
from msa3d.pipeline import codeversion, engine, products
from msa3d.pipeline.layout import Layout
from msa3d.published import spectra as published_spectra
from msa3d.reduce import calibrate, exposure, jwst_log, jwst_speed
from msa3d.reduce import slits as reduce_slits

from ..conftest import METAFILE, write_metafile


def digests(paths) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def with_settings(dataset, **settings):
    return dataset.model_copy(update={"process": dataset.process.model_copy(update=settings)})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch):
    """Replace the pipeline by one that writes a small file; returns the activities it was called for."""
    called: list[str] = []

    def reduce(task, directory: Path) -> dict[str, dict]:
        called.append(task.activity)
        data = np.full((3, 4), int(task.activity.replace("-", ""), 36), "f4")
        path = directory / "newoutput_s08512_s2d.fits"
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI")]).writeto(path)
        banding = {"banding_before": 5.0, "banding_after": 2.5, "noise_alone": 1.5}
        return {"stages": {"spec2_nrs1": 1.0}, "nsclean": {"nrs1": banding}}

    monkeypatch.setattr(exposure, "_reduce", reduce)
    return called


def test_second_run_does_nothing(root: Path, dataset, stand_in) -> None:
    layout = Layout(root)
    first = calibrate.run(dataset, layout, workers=1)
    second = calibrate.run(dataset, layout, workers=1)
    assert stand_in == ["03101", "03102"]
    assert [e.status for e in first.results] == ["done", "done"]
    assert [e.status for e in second.results] == ["current", "current"]
    assert [len(item.products) for item in second.results] == [1, 1]
    assert second.results[0].notes == first.results[0].notes
    # Of a scatter of 5 columns, of which the noise of pixels makes 1.5, 2.5 are left.
    assert first.results[0].notes["nsclean"]["nrs1"]["banding_before"] == 5.0
    assert calibrate.columns(first.results[0])["banding left nrs1"] == pytest.approx(2.0 / np.sqrt(22.75), abs=0.005)


def test_other_code_that_makes_the_same_metafile_leaves_the_exposures_alone(
    root: Path, dataset, stand_in, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(root)
    calibrate.run(dataset, layout, workers=1)
    known = codeversion.code_version

    def edited(*modules: str) -> str:
        return "edited" if modules == ("msa3d.observation.metafile_edit",) else known(*modules)

    monkeypatch.setattr(engine, "code_version", edited)
    report = calibrate.run(dataset, layout, workers=1)
    assert [e.status for e in report.results] == ["current", "current"]
    (record,) = layout.records.glob("metafile_*.json")
    assert json.loads(record.read_text())["code"] == "edited"


def test_run_continues_where_it_was_interrupted(root: Path, dataset, stand_in, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(root)
    whole = exposure._reduce

    def killed(task, directory: Path):
        if task.activity == "03102":
            (directory / "half.fits").write_bytes(b"SIMPLE")
            raise KeyboardInterrupt
        return whole(task, directory)

    monkeypatch.setattr(exposure, "_reduce", killed)
    with pytest.raises(KeyboardInterrupt):
        calibrate.run(dataset, layout, workers=1)
    assert layout.process_dir("03101").is_dir()
    assert not layout.process_dir("03102").exists()
    # What a killed process leaves under a temporary name is cleared away.
    left = layout.process / ".exp_03102_nobar.99999999.partial"
    left.mkdir()
    before = layout.s2d("03101", 8512).stat().st_mtime_ns

    monkeypatch.setattr(exposure, "_reduce", whole)
    report = calibrate.run(dataset, layout, workers=1)
    assert [e.status for e in report.results] == ["current", "done"]
    assert layout.s2d("03101", 8512).stat().st_mtime_ns == before
    assert not left.exists()
    assert fits.getdata(layout.s2d("03102", 8512))[0, 0] == int("03102", 36)


def test_changed_parameters_make_an_exposure_anew_and_drop_what_was_made_of_it(root: Path, dataset, stand_in) -> None:
    layout = Layout(root)
    calibrate.run(dataset, layout, workers=1)
    post = layout.s2d("03101", 8512, "_pathcorr_astrocorr")
    post.write_bytes(b"made of an older s2d")
    changed = with_settings(dataset, spec2={**dataset.process.spec2, "flat_field": {"skip": True}})
    calibrate.run(changed, layout, workers=1)
    assert len(stand_in) == 4
    assert not post.exists()


def test_accelerations_do_not_make_products_out_of_date(root: Path, dataset, stand_in) -> None:
    calibrate.run(dataset, Layout(root), workers=1)
    calibrate.run(with_settings(dataset, accelerations="none"), Layout(root), workers=1)
    assert len(stand_in) == 2


def test_metafile_is_read_from_a_copy_and_inputs_stay_as_they_are(root: Path, dataset, stand_in) -> None:
    layout = Layout(root)
    inputs = sorted(root.glob("*.fits"))
    before = digests(inputs)
    calibrate.run(dataset, layout, workers=1)
    assert digests(inputs) == before
    copy = layout.metafile_copy("jw02136001001_01_msa.fits")
    shutters = fits.getdata(copy, "SHUTTER_INFO")
    assert set(shutters["source_id"]) == {8512}
    assert fits.getheader(copy)["MSA3DSIM"] is True
    state = copy.stat().st_mtime_ns
    calibrate.run(dataset, layout, workers=1)
    assert copy.stat().st_mtime_ns == state


def test_missing_detector_is_one_sentence_and_nothing_is_written(root: Path, dataset, stand_in) -> None:
    next(root.glob("*03102*nrs2_rate.fits")).unlink()
    with pytest.raises(ObservationError, match=r"03102.*NRS2|NRS2.*03102"):
        calibrate.run(dataset, Layout(root), workers=1)
    assert not stand_in
    assert not (root / "reduction").exists()


def test_failure_of_the_pipeline_names_its_log(root: Path, dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(task, directory: Path):
        logging.getLogger("stpipe.Spec2Pipeline").error("the flat is flat")
        raise RuntimeError("Traceback (most recent call last):\n  File\nValueError: no flat")

    monkeypatch.setattr(exposure, "_reduce", fail)
    with pytest.raises(ProductError, match=r"03101.*ValueError: no flat") as caught:
        calibrate.run(dataset, Layout(root), workers=1)
    kept = Layout(root).process / "failed_03101.log"
    assert str(kept) in str(caught.value)
    assert "the flat is flat" in kept.read_text()
    assert not Layout(root).process_dir("03101").exists()


def test_pipeline_log_keeps_the_terminal_quiet(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    before = logging.getLogger("stpipe").handlers[:]
    with jwst_log.pipeline_log(tmp_path / "jwst.log"):
        logging.getLogger("stpipe.Step").info("to the file")
        logging.getLogger("jwst.flatfield").warning("also there")
        warnings.warn("and this", RuntimeWarning, stacklevel=1)
    text = (tmp_path / "jwst.log").read_text()
    assert all(part in text for part in ("to the file", "also there", "RuntimeWarning: and this"))
    assert capfd.readouterr() == ("", "")
    if before:
        assert logging.getLogger("stpipe").handlers == before


@pytest.mark.usefixtures("jwst_loaded")
@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"flat_feild": {"skip": True}}, "no such step: 'flat_feild'"),
        ({"flat_field": {"skipp": True}}, "cannot set 'skipp'.*did you mean 'skip'"),
        ({"flat_field": {"skip": "perhaps"}}, "refuses"),
        ({"assign_wcs": {"pre_hooks": ["touch hooked"]}}, "cannot set 'pre_hooks'"),
        ({"assign_wcs": {"output_dir": "/tmp"}}, "cannot set 'output_dir'"),
        ({"nsclean": {"user_mask": "/etc/passwd"}}, "cannot set 'user_mask'"),
        ({"resample_spec": {"kernel": "../x"}}, "names of files and commands are not taken from a dataset"),
    ],
)
def test_unknown_step_parameters_are_refused(parameters: dict, said: str) -> None:
    from jwst.pipeline import Spec2Pipeline

    with pytest.raises(DatasetError, match=said):
        exposure.configured(Spec2Pipeline, parameters)


@pytest.mark.usefixtures("jwst_loaded")
def test_published_parameters_are_those_that_are_set(dataset) -> None:
    from jwst.pipeline import Spec2Pipeline, Spec3Pipeline

    spec2 = exposure.configured(Spec2Pipeline, dataset.process.spec2)
    skipped = {name for name in Spec2Pipeline.step_defs if getattr(spec2, name).skip}
    # Some are off by jwst's default, those that only one version has among them.
    assert skipped == ({
        "bkg_subtract", "master_background_mos", "pathloss", "barshadow", "wavecorr", "srctype", "straylight",
        "fringe", "residual_fringe", "cube_build", "extract_1d", "nsclean", "pixel_replace", "wfss_contam",
        "clean_flicker_noise", "badpix_selfcal", "targ_centroid", "adaptive_trace_model",
    } & set(Spec2Pipeline.step_defs))  # fmt: skip
    # spectral_leak is for MIRI, and Spec3 asks for it there only.
    spec3 = exposure.configured(Spec3Pipeline, dataset.process.spec3)
    skipped = {name for name in Spec3Pipeline.step_defs if getattr(spec3, name).skip}
    assert skipped == ({
        "assign_mtwcs", "master_background", "mrs_imatch", "outlier_detection", "cube_build", "extract_1d",
        "combine_1d", "photom", "adaptive_trace_model", "pixel_replace",
    } & set(Spec3Pipeline.step_defs))  # fmt: skip


def first_task(dataset, layout: Layout):
    observation = exposures.Observation.read(layout, dataset)
    context = crds.use_references(layout, dataset)
    metafile = calibrate.write_metafile_copy(dataset, layout, observation)
    names = jwst_speed.chosen("all")
    return calibrate._task(observation.exposures[0], dataset, layout, metafile, names, context, True)


@pytest.mark.slow
def test_source_on_one_detector_only(root_of_nrs2: Path, dataset) -> None:
    layout = Layout(root_of_nrs2)
    result = exposure.process_exposure(first_task(dataset, layout).job)
    names = [path.name for path in result.products if path.suffix == ".fits"]
    assert names == ["jw02136001001_03101_00001_nrs2_cal.fits", "newoutput_s08512_s2d.fits"]
    log = (layout.process_dir("03101") / "jwst.log").read_text()
    assert "No open slits fall on detector NRS1" in log


def test_exposures_of_one_activity_have_a_directory_each(root: Path, dataset, stand_in) -> None:
    for path in root.glob("*_03102_00001_*"):
        path.rename(path.with_name(path.name.replace("_03102_00001_", "_03101_00002_")))
    layout = Layout(root)
    report = calibrate.run(dataset, layout, workers=1, only=["03101-00002"])
    assert [item.name for item in report.results] == ["03101-00002"]
    report = calibrate.run(dataset, layout, workers=1)
    assert [(item.name, item.status) for item in report.results] == [
        ("03101-00001", "done"), ("03101-00002", "current"),
    ]  # fmt: skip
    assert layout.activities() == ["03101-00001", "03101-00002"]
    assert layout.s2d("03101-00002", 8512).parent.name == "exp_03101-00002_nobar"


@pytest.mark.slow
def test_a_slit_at_the_edge_of_a_detector_stops_nobody(root: Path, dataset, caplog) -> None:
    """Row 143 lights 5 columns of NRS1, through jwst, both post-processings and on; the other slitlet goes on.

    The exposures are two of one activity.
    """
    for path in (root / METAFILE, *root.glob("*nrs2_rate.fits")):
        path.unlink()
    for path in root.glob("*_03102_00001_*"):
        path.rename(path.with_name(path.name.replace("_03102_00001_", "_03101_00002_")))
    write_metafile(root / METAFILE, [(8512, 1, 150, 90, 3), (8143, 1, 143, 80, 3)], 2)
    chosen = with_settings(dataset, wanted_sources_only=False).model_copy(update={"detectors": ["NRS1"]})
    layout = Layout(root)
    calibrate.run(chosen, layout, workers=1)
    with fits.open(layout.cal("03101-00002", "nrs1", "jw02136001001_03101_00002")) as hdus:
        assert [(hdu.header["SOURCEID"], hdu.shape[1] < 9) for hdu in hdus if hdu.name == "SCI"] == [
            (8512, False),
            (8143, True),
        ]
    with caplog.at_level("WARNING"):
        slits = reduce_slits.statistics(reduce_slits.run(chosen, layout, workers=1))
        spectra = published_spectra.statistics(published_spectra.run(chosen, layout, workers=1))
    assert set(slits["source_id"]) == set(spectra["source_id"]) == {8512}
    assert "03101_00001_nrs1_cal.fits, slit 2 (source 8143, NRS1): it lights 5 columns of the detector" in caplog.text
    assert "source 8143 is left out of exposure 03101-00002" in caplog.text
    assert list(sources_calibrated(chosen, layout, (Placed("03101-00002", 0, 1),))) == [8512]


@pytest.mark.slow
def test_ids_of_the_metafile_come_back_through_the_pipeline(root: Path, dataset) -> None:
    """Spec3 renames ids that are not of five digits, and jwst invents some for background: neither is seen outside."""
    (root / METAFILE).unlink()
    write_metafile(root / METAFILE, [(113852, 1, 150, 90, 3), (7, 1, 150, 30, 3)], 2)
    with fits.open(root / METAFILE, mode="update") as hdus:
        rows = hdus["SHUTTER_INFO"].data
        mine = rows["slitlet_id"] == 2
        rows["source_id"][mine], rows["background"][mine], rows["primary_source"][mine] = 0, "Y", "N"
        rows["estimated_source_in_shutter_x"][mine] = rows["estimated_source_in_shutter_y"][mine] = np.nan
        hdus["SOURCE_INFO"].data = hdus["SOURCE_INFO"].data[:1]
    layout, chosen = Layout(root), with_settings(dataset, wanted_sources_only=False)
    exposure.process_exposure(first_task(chosen, layout).job)
    directory = layout.process_dir("03101")
    assert sorted(path.name for path in directory.glob("*_s2d.fits")) == [
        "newoutput_b00002_s2d.fits", "newoutput_s113852_s2d.fits",
    ]  # fmt: skip
    with fits.open(layout.s2d("03101", 113852)) as hdus:
        assert hdus[0].header["FILENAME"] == "newoutput_s113852_s2d.fits"
        assert (hdus["SCI"].header["SOURCEID"], hdus["SCI"].header["SRCNAME"]) == (113852, "2136_113852")
    found = set()
    for cal in reduce_slits.cal_files(layout, "03101"):
        with fits.open(cal) as hdus:
            found |= {(hdu.header["SOURCEID"], hdu.header["SRCNAME"]) for hdu in hdus if hdu.name == "SCI"}
    assert found == {(113852, "2136_113852"), (-2, "background_2")}
    reduce_slits.run(chosen, layout, workers=1)
    exposures = (Placed("03101", 0, 0),)
    assert (
        list(sources_of(chosen, layout, exposures)) == list(sources_calibrated(chosen, layout, exposures)) == [113852]
    )
    for cal in reduce_slits.cal_files(layout, "03101"):
        assert read_slit(reduce_slits.product_of(cal), -2) is None


@pytest.mark.slow
def test_an_exposure_through_the_pipeline(root: Path, dataset) -> None:
    layout = Layout(root)
    before = digests(root.glob("*.fits"))
    task = first_task(dataset, layout)
    result = engine.make((exposure.process_exposure, task, {}))

    directory = layout.process_dir("03101")
    assert {path.name for path in directory.iterdir()} == {
        "jw02136001001_03101_00001_nrs1_cal.fits", "jw02136001001_03101_00001_nrs2_cal.fits",
        "newoutput_s08512_s2d.fits", "newoutput_spec3_asn.json", "parameters.json", "jwst.log",
    }  # fmt: skip
    assert result.notes["memory_gb"] > 0
    assert digests(root.glob("*.fits")) == before
    for path in directory.glob("*.fits"):
        header = fits.getheader(path)
        assert products.is_simulated(header), path.name
        assert header["MSA3DCFG"] == dataset.digest[:32]
        assert header["MSAMETFL"] == "jw02136001001_01_msa.fits"
        assert header["CRDS_CTX"] == os.environ["CRDS_CONTEXT"]
    with fits.open(layout.s2d("03101", 8512)) as hdus:
        assert hdus["SCI"].header["BUNIT"] == "MJy/sr"
        # Empty pixels are zeros in 1.14.0, NaN in 3.0.0 (which finds 13 % of them).
        assert np.isfinite(hdus["SCI"].data).mean() > 0.8
        assert hdus["SCI"].header["SRCNAME"].endswith("8512")
    parameters = json.loads((directory / "parameters.json").read_text())
    assert parameters["spec2_nrs1"]["steps"]["pathloss"]["skip"] is True
    assert parameters["spec2_nrs1"]["steps"]["flat_field"]["skip"] is False
    assert parameters["accelerations"] == list(jwst_speed.chosen("all"))
    assert "flat_field" in (directory / "jwst.log").read_text()
    assert task.record.is_current()
    # What the record knows of the references: all that Spec2 names in the headers.
    references = {Path(name).name for name in task.record.read()["references"]}
    assert references >= {Path(header["R_FFLAT"]).name, Path(header["R_PHOTOM"]).name}


@pytest.mark.slow
def test_a_root_with_signs_that_mean_something_in_an_address(root: Path, dataset) -> None:
    own = root.rename(root.with_name("a #1 what? 100%20"))
    layout = Layout(own)
    assert "%20" in str(layout.crds_cache)
    report = calibrate.run(dataset, layout, workers=1, only=["03101"])
    assert [path.name for path in report.results[0].products if path.suffix == ".fits"] == [
        "jw02136001001_03101_00001_nrs1_cal.fits", "jw02136001001_03101_00001_nrs2_cal.fits",
        "newoutput_s08512_s2d.fits",
    ]  # fmt: skip
    # Everything is below it, nothing beside it.
    assert sorted(path.name for path in own.parent.iterdir()) == ["a #1 what? 100%20", "pair.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(("reftype", "suffix"), [("fflat", "fits"), ("msa", "asdf"), ("msaoper", "json")])
def test_a_reference_that_was_cut_short_is_named(root: Path, dataset, reftype: str, suffix: str) -> None:
    layout = Layout(root)
    cache = layout.crds_cache
    if cache.is_symlink():
        target = cache.resolve()
        cache.unlink()
        shutil.copytree(target, cache)
    (path,) = (cache / "references" / "jwst" / "nirspec").glob(f"jwst_nirspec_{reftype}_*.{suffix}")
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CrdsError, match=rf"the reference {re.escape(str(path))} is damaged .*: delete it"):
        calibrate.run(dataset, layout, workers=1)
    assert not layout.activities()
