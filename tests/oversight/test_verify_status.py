"""How far a run is, and whether what it made holds: on products made by the real records."""

from __future__ import annotations

import json
import os

import pytest
from astropy.io import fits

from msa3d.dataset import Dataset
from msa3d.errors import ProductError
from msa3d.layout import Layout
from msa3d.oversight.status import read_status
from msa3d.oversight.verify import verify
from msa3d.provenance import Record, atomic_path, stamp


@pytest.fixture
def dataset():
    return Dataset.load("tiny")


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "root")


def make(layout, dataset, step, name, inputs, product, *, value=1, stamped=True, seconds=2.0):
    """Make a product and its record."""
    record = Record(layout, step, name, inputs=inputs, parameters={}, modules=("msa3d.steps.process",))
    primary = fits.PrimaryHDU([[value]])
    if stamped:
        stamp(primary.header, dataset=dataset, inputs=inputs)
    with atomic_path(product) as partial:
        primary.writeto(partial)
    record.write([product], seconds={"total": seconds})
    return product


@pytest.fixture
def chain(layout, dataset):
    """A rate, a spectrum of it, a cube of that."""
    layout.root.mkdir()
    rate = layout.root / "jw02136001001_03101_00001_nrs1_rate.fits"
    fits.PrimaryHDU([[0]]).writeto(rate)
    spectrum = make(layout, dataset, "process", "03101", [rate], layout.process_dir("03101") / "a_s2d.fits")
    cube = make(layout, dataset, "cubebuild", "s08512", [spectrum], layout.cube_dir(8512) / "cube.fits")
    return rate, spectrum, cube


def states(layout, dataset=None):
    return {(one.step): (one.state, "; ".join(one.reasons)) for one in verify(layout, dataset).verdicts}


def test_what_was_just_made_holds(layout, dataset, chain):
    found = verify(layout, dataset)
    assert found.holds
    assert found.strangers == []
    assert [one.state for one in found.verdicts] == ["holds", "holds"]
    assert found.table().colnames == ["step", "name", "products", "state", "why"]


def test_a_simulated_metafile_holds_though_it_has_no_stamp(layout, dataset, chain):
    make(layout, dataset, "simulate", "metafile", [], layout.metafile(dataset.metafile), stamped=False)
    assert verify(layout, dataset).holds


def test_a_bit_that_flipped_is_found(layout, chain):
    _, spectrum, _ = chain
    content = bytearray(spectrum.read_bytes())
    content[2880] ^= 1
    spectrum.write_bytes(content)
    found = states(layout)
    assert found["process"] == (
        "damaged",
        "reduction/process/exp_03101_nobar/a_s2d.fits is not what was written (SHA-256)",
    )
    assert found["cubebuild"][0] == "stale"
    assert "a_s2d.fits has changed" in found["cubebuild"][1]


def test_missing_and_short_products(layout, chain):
    _, spectrum, cube = chain
    cube.unlink()
    assert states(layout)["cubebuild"] == ("damaged", "reduction/cubes/cube_8512/cube.fits is missing")
    spectrum.write_bytes(spectrum.read_bytes()[:-2880])
    assert "bytes instead of 5760" in states(layout)["process"][1]


def test_an_input_that_changed_makes_all_that_follows_stale(layout, chain):
    rate, _, _ = chain
    fits.PrimaryHDU([[5]]).writeto(rate, overwrite=True)
    found = states(layout)
    assert found["process"] == ("stale", f"input {rate.name} has changed")
    assert found["cubebuild"][1].endswith("a_s2d.fits does not hold itself")
    rate.unlink()
    assert states(layout)["process"][1] == f"input {rate.name} is missing"


def test_a_touched_input_holds(layout, chain):
    os.utime(chain[0])
    assert verify(layout).holds


def test_other_code_and_another_dataset(layout, dataset, chain):
    path = layout.records / "process_03101.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"code": "0" * 16, "revision": "abc"}))
    assert states(layout)["process"] == ("stale", "the code has changed since revision abc")
    path.write_text(json.dumps(record))
    other = dataset.replaced(title="another")
    assert states(layout, other)["process"] == ("stale", "dataset tiny has changed since")
    assert verify(layout).holds


def test_what_cannot_be_told_is_doubtful(layout, dataset, chain):
    path = layout.records / "process_03101.json"
    record = json.loads(path.read_text())
    del record["hashes"]
    path.write_text(json.dumps(record))
    assert states(layout)["process"] == ("doubtful", "recorded without checksums, by an older version")
    assert states(layout)["cubebuild"][0] == "holds"
    path.write_text("{")
    assert states(layout)["process"] == ("doubtful", "its record cannot be read")
    make(layout, dataset, "process", "03102", [], layout.process_dir("03102") / "b.fits", stamped=False)
    assert (
        "does not say what made it (MSA3DVER"
        in next(v for v in verify(layout).verdicts if v.name == "03102").reasons[0]
    )


def test_strangers_are_told(layout, chain):
    fits.PrimaryHDU().writeto(layout.cube_dir(8512) / "mine.fits")
    assert verify(layout).strangers == ["reduction/cubes/cube_8512/mine.fits"]


def test_nothing_made_yet(layout):
    with pytest.raises(ProductError, match="has no records"):
        verify(layout)


# --- how far it is


def row(layout, dataset, step):
    return next(one for one in read_status(dataset, layout).steps if one.step == step)


def test_nothing_begun(layout, dataset):
    one = row(layout, dataset, "process")
    assert (one.done, one.running, one.failed, one.left, one.total) == ([], [], [], 9, 9)


def test_done_running_failed_left(layout, dataset, chain):
    make(layout, dataset, "process", "03102", [], layout.process_dir("03102") / "a_s2d.fits", seconds=4.0)
    (layout.process / "failed_03103.log").write_text("oh")
    (layout.process / f".exp_03104_nobar.{os.getpid()}.partial").mkdir()
    (layout.process / ".exp_03105_nobar.99999999.partial").mkdir()  # of a process that is no more
    one = row(layout, dataset, "process")
    assert (one.done, one.running, one.failed) == (["03101", "03102"], ["03104"], ["03103"])
    assert (one.left, one.seconds_each) == (5, 3.0)
    cubes = row(layout, dataset, "cubebuild")
    assert (cubes.done, cubes.total) == (["s08512"], len(dataset.cubebuild.builders))
    assert "names_failed" in read_status(dataset, layout).table().colnames


def test_a_product_that_went_missing_is_not_done(layout, dataset, chain):
    chain[1].unlink()
    assert row(layout, dataset, "process").done == []


def test_a_failure_that_was_mended_is_done(layout, dataset, chain):
    (layout.process / "failed_03101.log").write_text("oh")
    one = row(layout, dataset, "process")
    assert (one.done, one.failed) == (["03101"], [])


def test_stage_one_counts_its_ramps(layout, dataset, chain):
    (layout.root / "jw02136001001_03101_00001_nrs1_uncal.fits").touch()
    start = dataset.replaced(process={"run_stage1": True})
    assert row(layout, start, "preprocess").total == 1
    assert read_status(dataset, layout).steps[0].step == "process"


def test_exposures_of_one_activity_are_counted_and_named_each(layout, dataset):
    layout.root.mkdir()
    for activity in ("03101", "03103", "03105"):
        for number in (1, 2, 3, 4):
            header = fits.Header({"EXP_TYPE": "NRS_MSASPEC"})
            fits.PrimaryHDU(header=header).writeto(layout.root / dataset.rate_name(activity, "NRS1", number))
    make(layout, dataset, "process", "03101-00002", [], layout.process_dir("03101-00002") / "a_s2d.fits")
    (layout.process / "failed_03101-00003.log").write_text("oh")
    (layout.process / f".exp_03103-00001_nobar.{os.getpid()}.partial").mkdir()
    one = row(layout, dataset, "process")
    assert (one.done, one.running, one.failed) == (["03101-00002"], ["03103-00001"], ["03101-00003"])
    assert (one.total, one.left) == (12, 9)


def test_target_acquisition_and_other_visits_are_not_left_to_do(layout, dataset):
    """With them a run would never be done."""
    layout.root.mkdir()
    small = dataset.replaced(pattern={"rows": 1, "columns": 2}, process={"run_stage1": True})
    names = {"02101": "NRS_MSATA", "02103": "NRS_TACONFIRM", "03101": "NRS_MSASPEC", "03102": "NRS_MSASPEC"}
    for activity, kind in names.items():
        for name in (small.rate_name(activity, "NRS1"), small.rate_name(activity, "NRS1").replace("_rate", "_uncal")):
            fits.PrimaryHDU(header=fits.Header({"EXP_TYPE": kind})).writeto(layout.root / name)
    other = small.rate_name("03103", "NRS1").replace("2136001001_", "2136002001_")
    fits.PrimaryHDU(header=fits.Header({"EXP_TYPE": "NRS_MSASPEC"})).writeto(layout.root / other)
    assert (row(layout, small, "process").total, row(layout, small, "preprocess").total) == (2, 2)
