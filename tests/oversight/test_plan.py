"""What a run will need, from headers alone."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from msa3d import cli
from msa3d.dataset import Dataset
from msa3d.layout import Layout
from msa3d.msafile import MsaFile
from msa3d.oversight.plan import make_plan, score


@pytest.fixture
def dataset():
    return Dataset.load("tiny")


@pytest.fixture
def layout(tmp_path, dataset):
    """3 x 3 exposures without pixels, and a metafile of two slitlets."""
    from msa3d.simulate.header import PlannedExposure, Pointing, primary_header, rate_name, science_header

    layout = Layout(tmp_path / "root")
    layout.root.mkdir()
    for index in range(9):
        row, column = dataset.pattern.place(index)
        place = Pointing(
            215.0 + column * 0.2 / 3600 / np.cos(np.deg2rad(52.9)),
            52.9 + row * dataset.pattern.row_step_arcsec / 3600,
            0.0,
        )
        exposure = PlannedExposure(index, dataset.simulation.activity(index), row, column, place, place, (0.0, 0.0))
        for detector in ("NRS1", "NRS2"):
            planes = [fits.ImageHDU(header=science_header(place)), fits.ImageHDU(name="ERR"), fits.ImageHDU(name="DQ")]
            primary = fits.PrimaryHDU(header=primary_header(dataset, exposure, detector))
            fits.HDUList([primary, *planes]).writeto(layout.root / rate_name(dataset, exposure.activity, detector))
    rows = [
        {
            "slitlet_id": slitlet, "msa_metadata_id": 1, "shutter_quadrant": 2, "shutter_row": 100 * slitlet,
            "shutter_column": 50, "source_id": source, "background": "N" if source else "Y", "shutter_state": "OPEN",
            "estimated_source_in_shutter_x": 0.5, "estimated_source_in_shutter_y": 0.5, "dither_point_index": point,
            "primary_source": "Y" if source else "N",
        }
        for slitlet, source in ((1, 8512), (2, 0))
        for point in range(1, 10)
    ]  # fmt: skip
    source = {
        "program": 2136, "source_id": 8512, "source_name": "2136_8512", "alias": "a", "ra": 215.0, "dec": 52.9,
        "preimage_id": "None", "stellarity": 0.0,
    }  # fmt: skip
    MsaFile.from_tables(rows, [source], dataset).write(layout.metafile(dataset.metafile))
    return layout


def words_of(plan):
    return {row["what"]: row["value"] for row in plan.table()}


def test_before_anything_is_there(tmp_path, dataset):
    plan = make_plan(dataset, Layout(tmp_path / "nowhere" / "root"))
    assert (plan.exposures, plan.exposures_expected, plan.pattern, plan.slitlets) == (0, 9, None, 0)
    assert any("There are no count-rate files" in problem for problem in plan.problems)
    assert plan.seconds > 0
    assert plan.disk_gb > 0
    assert not (tmp_path / "nowhere").exists()


def test_of_what_is_there(layout, dataset):
    plan = make_plan(dataset, layout, workers=1)
    assert (plan.exposures, plan.done, plan.slitlets, plan.targets, plan.workers) == (9, 0, 2, 1, 1)
    assert plan.problems == []
    assert str(plan.pattern).startswith("3 x 3, serpentine, steps of columns 0.200 and rows 0.075")
    words = words_of(plan)
    assert words["exposures"] == "9 of 9 here, 0 done"
    assert words["sources"] == "1 wanted, 2 slitlets reduced"
    assert "an estimate" in words["time"]


def test_a_short_exposure_is_named(layout, dataset):
    assert words_of(make_plan(dataset, layout, workers=1))["exposure time"].endswith(" s each")
    for path in layout.root.glob("*_03105_*_rate.fits"):
        fits.setval(path, "EFFEXPTM", value=290.0)
    assert ", but 03105 290 s (" in words_of(make_plan(dataset, layout, workers=1))["exposure time"]


def test_a_pointing_that_is_off_is_a_problem(layout, dataset):
    for path in layout.root.glob("*_03105_*_rate.fits"):
        fits.setval(path, "DEC_REF", value=fits.getval(path, "DEC_REF", "SCI") + 1.5 / 3600, extname="SCI")
    (problem,) = make_plan(dataset, layout, workers=1).problems
    assert "1.50 arcsec off the 3 x 3 pattern" in problem


def test_more_slitlets_and_exposures_cost_more(layout, dataset):
    small = make_plan(dataset, layout, workers=1)
    wide = make_plan(dataset.replaced(pattern={"columns": 30}), layout, workers=1)
    assert wide.disk_gb > 5 * small.disk_gb
    assert wide.seconds > 3 * small.seconds
    assert any("the pattern of dataset tiny has 3 x 30" in problem for problem in wide.problems)


def test_exposures_that_are_done_tell_the_time(layout, dataset):
    layout.records.mkdir(parents=True)
    for activity in ("03101", "03102", "03103"):
        record = {"name": activity, "notes": {"seconds": {"total": 1000.0}}}
        (layout.records / f"process_{activity}.json").write_text(json.dumps(record))
    plan = make_plan(dataset, layout, workers=1)
    assert (plan.done, plan.measured) == (3, True)
    assert plan.seconds == pytest.approx(6000.0, rel=0.05)
    assert "from the exposures done" in words_of(plan)["time"]


def test_what_is_to_be_fetched(tmp_path):
    from msa3d.fetch.manifest import FileEntry, Manifest
    from msa3d.fetch.run import manifest_path

    real, layout = Dataset.load("go2136"), Layout(tmp_path / "root")
    assert np.isnan(make_plan(real, layout).missing_gb)
    assert "size not known yet" in words_of(make_plan(real, layout))["input"]
    name = "jw02136001001_03101_00001_nrs1_rate.fits"
    metafile = FileEntry(name="jw02136001001_01_msa.fits", product="metafile", size=10**8)
    files = [FileEntry(name=name, product="rate", size=2 * 10**9), metafile]
    Manifest(complete=["rate", "metafile"], files=files).write(manifest_path(layout))
    assert make_plan(real, layout).missing_gb == pytest.approx(2.1)


def test_the_command_says_it_and_its_problems(layout):
    before = logging.getLogger("msa3d").handlers[:]
    result = CliRunner().invoke(cli.app, ["plan", str(layout.root), "-d", "tiny"])
    assert result.exit_code == 0
    assert "pattern found   3 x 3, serpentine" in result.stdout
    min(layout.root.glob("*nrs2*")).unlink()
    assert (
        "problem: Exposure 03101 has no NRS2"
        in CliRunner().invoke(cli.app, ["plan", str(layout.root), "-d", "tiny"]).stdout
    )
    logging.getLogger("msa3d").handlers = before


def test_this_machine_can_be_measured():
    assert 0.01 < score() < 60


def test_what_is_here_needs_no_archive(layout, dataset):
    from msa3d.commands.real import is_here

    assert is_here(dataset, layout)
    assert not is_here(dataset.replaced(pattern={"columns": 4}), layout)
    assert not is_here(dataset.replaced(process={"run_stage1": True}), layout)
    path = min(layout.rates())
    path.write_bytes(path.read_bytes()[:-10])
    assert not is_here(dataset, layout)
