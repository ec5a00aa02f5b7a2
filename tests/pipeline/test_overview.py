"""What a run will need, from headers alone.

What a person sees who opens a session: the state of the run and what is next.

How far a run is, and whether what it made holds: on products made by the real records.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from msa3d import cli
from msa3d.config import Dataset
from msa3d.errors import ProductError
from msa3d.observation.metafile import MsaFile
from msa3d.pipeline import notebooks, overview
from msa3d.pipeline.engine import Record
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.overview import make_plan, next_step, read_status, score
from msa3d.pipeline.products import atomic_path, stamp
from msa3d.pipeline.verify import verify


@pytest.fixture
def dataset():
    return Dataset.load("tiny")


@pytest.fixture
def layout(tmp_path, dataset):
    """3 x 3 exposures without pixels, and a metafile of two slitlets."""
    from msa3d_sim.geometry import Pointing
    from msa3d_sim.plan import PlannedExposure, primary_header, rate_name, science_header

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
            "slitlet_id": slitlet, "msa_metadata_id": point, "shutter_quadrant": 2, "shutter_row": 100 * slitlet,
            "shutter_column": 50, "source_id": source, "background": "N" if source else "Y", "shutter_state": "OPEN",
            "estimated_source_in_shutter_x": 0.5, "estimated_source_in_shutter_y": 0.5, "dither_point_index": 1,
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
    assert set(plan.seconds) == {"simulate", "process", "calpost", "postprocess", "cubebuild", "figures"}
    assert min(plan.seconds.values()) > 0
    assert plan.disk_gb > 0
    assert not (tmp_path / "nowhere").exists()


def test_of_what_is_there(layout, dataset):
    plan = make_plan(dataset, layout, workers=1)
    # That of the target; the background slitlet is not reduced.
    assert (plan.exposures, plan.done, plan.slitlets, plan.targets, plan.workers) == (9, 0, 1, 1, 1)
    everything = dataset.replaced(process={"wanted_sources_only": False})
    assert make_plan(everything, layout, workers=1).slitlets == 2
    assert plan.problems == []
    assert str(plan.pattern).startswith("3 x 3, serpentine, steps of columns 0.200 and rows 0.075")
    words = words_of(plan)
    assert words["exposures"] == "9 of 9 here, 0 done"
    assert words["sources"] == "1 wanted, 1 slitlets reduced"
    assert "an estimate" in words["time"]


def test_a_short_exposure_is_named(layout, dataset):
    assert words_of(make_plan(dataset, layout, workers=1))["exposure time"].endswith(" s each")
    for path in layout.root.glob("*_03109_*_rate.fits"):
        fits.setval(path, "EFFEXPTM", value=290.0)
    assert ", but 03109 290 s (" in words_of(make_plan(dataset, layout, workers=1))["exposure time"]


def test_a_pointing_that_is_off_is_a_problem(layout, dataset):
    for path in layout.root.glob("*_03109_*_rate.fits"):
        fits.setval(path, "DEC_REF", value=fits.getval(path, "DEC_REF", "SCI") + 1.5 / 3600, extname="SCI")
    (problem,) = make_plan(dataset, layout, workers=1).problems
    assert "1.50 arcsec off the 3 x 3 pattern" in problem


def test_more_slitlets_and_exposures_cost_more(layout, dataset):
    small = make_plan(dataset, layout, workers=1)
    wide = make_plan(dataset.replaced(pattern={"columns": 30}), layout, workers=1)
    assert wide.disk_gb > 5 * small.disk_gb
    assert wide.seconds["cubebuild"] > 3 * small.seconds["cubebuild"]
    assert any("the pattern of dataset tiny has 3 x 30" in problem for problem in wide.problems)


def test_exposures_that_are_done_tell_the_time(layout, dataset):
    layout.records.mkdir(parents=True)
    for activity in ("03101", "03103", "03105"):
        Record(layout, "process", activity).write([], seconds=1000.0)
    plan = make_plan(dataset, layout, workers=1)
    assert (plan.done, plan.measured) == (3, True)
    assert plan.seconds["process"] == 6000.0
    assert "from the exposures done" in words_of(plan)["time"]
    assert "process 100 min" in words_of(plan)["of each step"]
    assert make_plan(dataset, layout, workers=2).seconds["process"] == 3000.0


def test_one_slow_exposure_does_not_tell_the_time(layout, dataset):
    """The first of each worker imports and compiles."""
    layout.records.mkdir(parents=True)
    for activity, seconds in (("03101", 60.0), ("03103", 15.0), ("03105", 16.0)):
        Record(layout, "process", activity).write([], seconds=seconds)
    assert make_plan(dataset, layout, workers=1).seconds["process"] == 6 * 16.0


def test_cleaning_and_slitlets_cost_what_was_measured(layout, dataset, monkeypatch):
    monkeypatch.setattr(overview, "score", lambda: overview.REFERENCE_SCORE)
    with_it, without = (
        make_plan(dataset.replaced(process={"nsclean": clean}), layout, workers=1).seconds for clean in (True, False)
    )
    assert with_it["process"] - without["process"] == pytest.approx(9 * 2 * overview.SECONDS_CLEANING)
    assert without["process"] == pytest.approx(9 * 5.7 + overview.SECONDS_FIRST)
    assert {step for step in with_it if with_it[step] != without[step]} == {"process"}
    both = dataset.replaced(process={"nsclean": False, "wanted_sources_only": False})
    assert make_plan(both, layout, workers=1).seconds["process"] == pytest.approx(9 * 7.9 + overview.SECONDS_FIRST)


def test_what_is_done_takes_no_time(layout, dataset):
    assert make_plan(dataset, layout, workers=1).seconds["simulate"] == 0.0
    layout.records.mkdir(parents=True)
    for step in ("process", "calpost"):
        for number in range(9):
            Record(layout, step, f"031{number:02d}").write([], seconds=1.0)
    for name in dataset.cubebuild.builders:
        Record(layout, "cubebuild", name).write([], seconds=1.0)
    layout.notebooks.mkdir()
    (layout.notebooks / f"{overview.LAST}.ipynb").touch()
    left = make_plan(dataset, layout, workers=1).seconds
    assert [step for step in left if left[step]] == ["postprocess"]


def test_what_is_to_be_fetched(tmp_path):
    from msa3d.archive.fetch import manifest_path
    from msa3d.archive.mast import FileEntry, Manifest

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
    from msa3d.cli import is_here

    assert is_here(dataset, layout)
    assert not is_here(dataset.replaced(pattern={"columns": 4}), layout)
    assert not is_here(dataset.replaced(process={"run_stage1": True}), layout)
    path = min(layout.rates())
    path.write_bytes(path.read_bytes()[:-10])
    assert not is_here(dataset, layout)


NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture
def layout_start(tmp_path):
    return Layout(tmp_path / "root")


def finish(layout_start, dataset, step, names):
    for name in names:
        make_verify_status(layout_start, dataset, step, name, [], layout_start.reduction / step / f"{name}.fits")


def test_each_step_in_its_turn(layout_start, dataset):
    exposures = [f"031{number:02d}" for number in range(1, 10)]
    assert next_step(dataset, layout_start) == "Next is [01_process](01_process.ipynb): 9 of 9 are left to **process**."
    finish(layout_start, dataset, "process", exposures[:4])
    assert "5 of 9" in next_step(dataset, layout_start)
    finish(layout_start, dataset, "process", exposures)
    assert "[02_postprocess]" in next_step(dataset, layout_start)
    finish(layout_start, dataset, "postprocess", exposures)
    assert "9 of 9 are left to **calpost**" in next_step(dataset, layout_start)
    finish(layout_start, dataset, "calpost", exposures)
    assert "[03_cubebuild]" in next_step(dataset, layout_start)
    finish(layout_start, dataset, "cubebuild", [f"s08512_{builder}" for builder in dataset.cubebuild.builders])
    assert next_step(dataset, layout_start) == "The cubes are there. Next is [04_figures](04_figures.ipynb)."
    layout_start.science.mkdir(parents=True)
    (layout_start.science / "report_8512_drizzle.csv").touch()
    assert next_step(dataset, layout_start).startswith("Everything is done.")


def test_somebody_at_it_and_failures(layout_start, dataset):
    layout_start.process.mkdir(parents=True)
    (layout_start.process / "failed_03105.log").write_text("oh")
    assert "**process** failed for 03105" in next_step(dataset, layout_start)
    (layout_start.process / f".exp_03107_nobar.{os.getpid()}.partial").mkdir()
    assert next_step(dataset, layout_start).startswith("Somebody is at **process** now, with 03107: 0 of 9 done.")


def test_a_real_observation_has_to_be_fetched_first(layout_start):
    assert "`msa3d fetch`" in next_step(Dataset.load("go2136"), layout_start)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_tells_it(layout_start, dataset):
    finish(layout_start, dataset, "process", ["03101"])
    parameters = {"dataset": "tiny", "root": str(layout_start.root), "workers": 1}
    done = notebooks.execute(NOTEBOOKS / f"{notebooks.START}.ipynb", layout_start, parameters)
    shown = [output.data for cell in nbformat.read(done, as_version=4).cells for output in cell.get("outputs", ())]
    texts = [text for data in shown for text in (data.get("text/plain"), data.get("text/markdown")) if text]
    (state,) = [text for text in texts if "cubebuild" in text and "postprocess" in text]
    (process,) = [row.split() for row in state.splitlines() if "process" in row.split()]
    assert process[1:6] == ["1", "0", "0", "8", "9"]
    assert any("8 of 9 are left" in text for text in texts)
    assert any("memory" in text and "workers" in text for text in texts)


@pytest.fixture
def layout_verify_status(tmp_path):
    return Layout(tmp_path / "root")


def make_verify_status(
    layout_verify_status, dataset, step, name, inputs, product, *, value=1, stamped=True, seconds=2.0
):
    """Make a product and its record."""
    record = Record(layout_verify_status, step, name, inputs=inputs, parameters={}, modules=("msa3d.reduce.calibrate",))
    primary = fits.PrimaryHDU([[value]])
    if stamped:
        stamp(primary.header, dataset=dataset, inputs=inputs)
    with atomic_path(product) as partial:
        primary.writeto(partial)
    record.write([product], seconds=seconds)
    return product


@pytest.fixture
def chain(layout_verify_status, dataset):
    """A rate, a spectrum of it, a cube of that."""
    layout_verify_status.root.mkdir()
    rate = layout_verify_status.root / "jw02136001001_03101_00001_nrs1_rate.fits"
    fits.PrimaryHDU([[0]]).writeto(rate)
    spectrum = make_verify_status(
        layout_verify_status,
        dataset,
        "process",
        "03101",
        [rate],
        layout_verify_status.process_dir("03101") / "a_s2d.fits",
    )
    cube = make_verify_status(
        layout_verify_status,
        dataset,
        "cubebuild",
        "s08512",
        [spectrum],
        layout_verify_status.cube_dir(8512) / "cube.fits",
    )
    return rate, spectrum, cube


def states(layout_verify_status, dataset=None):
    return {(one.step): (one.state, "; ".join(one.reasons)) for one in verify(layout_verify_status, dataset).verdicts}


def test_what_was_just_made_holds(layout_verify_status, dataset, chain):
    found = verify(layout_verify_status, dataset)
    assert found.holds
    assert found.strangers == []
    assert [one.state for one in found.verdicts] == ["holds", "holds"]
    assert found.table().colnames == ["step", "name", "products", "state", "why"]


def test_a_simulated_metafile_holds_though_it_has_no_stamp(layout_verify_status, dataset, chain):
    make_verify_status(
        layout_verify_status,
        dataset,
        "simulate",
        "metafile",
        [],
        layout_verify_status.metafile(dataset.metafile),
        stamped=False,
    )
    assert verify(layout_verify_status, dataset).holds


def test_a_bit_that_flipped_is_found(layout_verify_status, chain):
    _, spectrum, _ = chain
    content = bytearray(spectrum.read_bytes())
    content[2880] ^= 1
    spectrum.write_bytes(content)
    found = states(layout_verify_status)
    assert found["process"] == (
        "damaged",
        "reduction/process/exp_03101_nobar/a_s2d.fits is not what was written (SHA-256)",
    )
    assert found["cubebuild"][0] == "stale"
    assert "a_s2d.fits has changed" in found["cubebuild"][1]


def test_missing_and_short_products(layout_verify_status, chain):
    _, spectrum, cube = chain
    cube.unlink()
    assert states(layout_verify_status)["cubebuild"] == ("damaged", "reduction/cubes/cube_8512/cube.fits is missing")
    spectrum.write_bytes(spectrum.read_bytes()[:-2880])
    assert "bytes instead of 5760" in states(layout_verify_status)["process"][1]


def test_an_input_that_changed_makes_all_that_follows_stale(layout_verify_status, chain):
    rate, _, _ = chain
    fits.PrimaryHDU([[5]]).writeto(rate, overwrite=True)
    found = states(layout_verify_status)
    assert found["process"] == ("stale", f"input {rate.name} has changed")
    assert found["cubebuild"][1].endswith("a_s2d.fits does not hold itself")
    rate.unlink()
    assert states(layout_verify_status)["process"][1] == f"input {rate.name} is missing"


def test_a_touched_input_holds(layout_verify_status, chain):
    os.utime(chain[0])
    assert verify(layout_verify_status).holds


def test_other_code_and_another_dataset(layout_verify_status, dataset, chain):
    path = layout_verify_status.records / "process_03101.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"code": "0" * 16, "revision": "abc"}))
    assert states(layout_verify_status)["process"] == ("stale", "the code has changed since revision abc")
    path.write_text(json.dumps(record))
    other = dataset.replaced(title="another")
    assert states(layout_verify_status, other)["process"] == ("stale", "dataset tiny has changed since")
    assert verify(layout_verify_status).holds


def test_what_cannot_be_told_is_doubtful(layout_verify_status, dataset, chain):
    path = layout_verify_status.records / "process_03101.json"
    for text in ("{", "[]", json.dumps(json.loads(path.read_text()) | {"inputs": None})):
        path.write_text(text)
        assert states(layout_verify_status)["process"] == ("doubtful", "its record cannot be read")
        assert states(layout_verify_status)["cubebuild"][0] == "holds"
        assert row(layout_verify_status, dataset, "process").done == []
    make_verify_status(
        layout_verify_status,
        dataset,
        "process",
        "03103",
        [],
        layout_verify_status.process_dir("03103") / "b.fits",
        stamped=False,
    )
    assert (
        "does not say what made it (MSA3DVER"
        in next(v for v in verify(layout_verify_status).verdicts if v.name == "03103").reasons[0]
    )


def test_a_product_that_is_no_fits_file_is_damaged(layout_verify_status, dataset, chain):
    _, spectrum, _ = chain
    spectrum.write_bytes(bytes(spectrum.stat().st_size))
    state, why = states(layout_verify_status, dataset)["process"]
    assert (state, why) == ("damaged", "reduction/process/exp_03101_nobar/a_s2d.fits is not what was written (SHA-256)")
    # Written so, as by another program.
    Record(layout_verify_status, "process", "03101", inputs=[chain[0]]).write([spectrum])
    assert states(layout_verify_status, dataset)["process"][1].endswith("a_s2d.fits is no FITS file")


def test_a_stale_cube_is_found_whatever_the_dates_of_records_are(layout_verify_status, dataset, chain):
    rate, _, _ = chain
    fits.PrimaryHDU([[5]]).writeto(rate, overwrite=True)
    for name, date in (("process_03101", 2e9), ("cubebuild_s08512", 1e9)):
        os.utime(layout_verify_status.records / f"{name}.json", (date, date))
    assert states(layout_verify_status)["cubebuild"][0] == "stale"


def test_another_reference_under_the_same_name_is_found(layout_verify_status, dataset, chain, monkeypatch):
    rate, spectrum, _ = chain
    flat = layout_verify_status.crds_cache / "references" / "jwst" / "flat.fits"
    flat.parent.mkdir(parents=True)
    flat.write_text("flat")
    monkeypatch.setenv("CRDS_PATH", str(layout_verify_status.crds_cache))
    Record(layout_verify_status, "process", "03101", inputs=[rate]).write([spectrum], [flat])
    monkeypatch.delenv("CRDS_PATH")
    assert states(layout_verify_status)["process"][0] == "holds"
    flat.write_text("FLAT")
    assert states(layout_verify_status)["process"] == ("stale", "reference flat.fits has changed")
    assert states(layout_verify_status)["cubebuild"][0] == "stale"


def test_strangers_are_told(layout_verify_status, chain):
    fits.PrimaryHDU().writeto(layout_verify_status.cube_dir(8512) / "mine.fits")
    assert verify(layout_verify_status).strangers == ["reduction/cubes/cube_8512/mine.fits"]


def test_nothing_made_yet(layout_verify_status):
    with pytest.raises(ProductError, match="has no records"):
        verify(layout_verify_status)


# --- how far it is


def row(layout_verify_status, dataset, step):
    return next(one for one in read_status(dataset, layout_verify_status).steps if one.step == step)


def test_nothing_begun(layout_verify_status, dataset):
    one = row(layout_verify_status, dataset, "process")
    assert (one.done, one.running, one.failed, one.left, one.total) == ([], [], [], 9, 9)


def test_done_running_failed_left(layout_verify_status, dataset, chain):
    make_verify_status(
        layout_verify_status,
        dataset,
        "process",
        "03103",
        [],
        layout_verify_status.process_dir("03103") / "a_s2d.fits",
        seconds=4.0,
    )
    (layout_verify_status.process / "failed_03105.log").write_text("oh")
    (layout_verify_status.process / f".exp_03107_nobar.{os.getpid()}.partial").mkdir()
    (layout_verify_status.process / ".exp_03109_nobar.99999999.partial").mkdir()  # of a process that is no more
    one = row(layout_verify_status, dataset, "process")
    assert (one.done, one.running, one.failed) == (["03101", "03103"], ["03107"], ["03105"])
    assert (one.left, one.seconds_each) == (5, 3.0)
    cubes = row(layout_verify_status, dataset, "cubebuild")
    assert (cubes.done, cubes.total) == (["s08512"], len(dataset.cubebuild.builders))
    assert "names_failed" in read_status(dataset, layout_verify_status).table().colnames


def test_a_product_that_went_missing_is_not_done(layout_verify_status, dataset, chain):
    chain[1].unlink()
    assert row(layout_verify_status, dataset, "process").done == []


def test_a_failure_that_was_mended_is_done(layout_verify_status, dataset, chain):
    (layout_verify_status.process / "failed_03101.log").write_text("oh")
    one = row(layout_verify_status, dataset, "process")
    assert (one.done, one.failed) == (["03101"], [])


def test_stage_one_counts_its_ramps(layout_verify_status, dataset, chain):
    (layout_verify_status.root / "jw02136001001_03101_00001_nrs1_uncal.fits").touch()
    start = dataset.replaced(process={"run_stage1": True})
    assert row(layout_verify_status, start, "preprocess").total == 1
    assert read_status(dataset, layout_verify_status).steps[0].step == "process"


def test_exposures_of_one_activity_are_counted_and_named_each(layout_verify_status, dataset):
    layout_verify_status.root.mkdir()
    for activity in ("03101", "03103", "03105"):
        for number in (1, 2, 3, 4):
            header = fits.Header({"EXP_TYPE": "NRS_MSASPEC"})
            fits.PrimaryHDU(header=header).writeto(
                layout_verify_status.root / dataset.rate_name(activity, "NRS1", number)
            )
    make_verify_status(
        layout_verify_status,
        dataset,
        "process",
        "03101-00002",
        [],
        layout_verify_status.process_dir("03101-00002") / "a_s2d.fits",
    )
    (layout_verify_status.process / "failed_03101-00003.log").write_text("oh")
    (layout_verify_status.process / f".exp_03103-00001_nobar.{os.getpid()}.partial").mkdir()
    one = row(layout_verify_status, dataset, "process")
    assert (one.done, one.running, one.failed) == (["03101-00002"], ["03103-00001"], ["03101-00003"])
    assert (one.total, one.left) == (12, 9)


def test_target_acquisition_and_other_visits_are_not_left_to_do(layout_verify_status, dataset):
    """With them a run would never be done."""
    layout_verify_status.root.mkdir()
    small = dataset.replaced(pattern={"rows": 1, "columns": 2}, process={"run_stage1": True})
    names = {"02101": "NRS_MSATA", "02103": "NRS_TACONFIRM", "03101": "NRS_MSASPEC", "03102": "NRS_MSASPEC"}
    for activity, kind in names.items():
        for name in (small.rate_name(activity, "NRS1"), small.rate_name(activity, "NRS1").replace("_rate", "_uncal")):
            fits.PrimaryHDU(header=fits.Header({"EXP_TYPE": kind})).writeto(layout_verify_status.root / name)
    other = small.rate_name("03103", "NRS1").replace("2136001001_", "2136002001_")
    fits.PrimaryHDU(header=fits.Header({"EXP_TYPE": "NRS_MSASPEC"})).writeto(layout_verify_status.root / other)
    assert (
        row(layout_verify_status, small, "process").total,
        row(layout_verify_status, small, "preprocess").total,
    ) == (2, 2)
