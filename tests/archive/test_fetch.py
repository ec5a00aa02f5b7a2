"""A whole observation from the archive: the list, the files, what is left alone, and being killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from msa3d.archive.download import Manners
from msa3d.archive.fetch import fetch_observation, log_path, manifest_path
from msa3d.archive.mast import FileEntry, Manifest, Mast, packaged, pattern_of
from msa3d.config import Dataset
from msa3d.errors import BusyError, FetchError, ObservationError
from msa3d.pipeline.layout import Layout

from .conftest import fits_bytes

METAFILE = "jw02136001001_01_msa.fits"
QUICK = Manners(retries=3, wait_s=0.0, timeout_s=0.4)
# What the archive lists beside: other products and detectors, other visits, combined exposures.
OTHERS = (
    "jw02136001001_03101_00001_nrs1_rateints.fits", "jw02136001001_03101_00001_nrs1_cal.fits",
    "jw02136002001_03101_00001_nrs1_rate.fits", "jw02136-o001_s08512_nirspec_f100lp-g140h_s2d.fits",
    "jw02136001001_02101_00001_nrs1_rate.jpg",
)  # fmt: skip


def names(number: int) -> list[str]:
    """Rates of some exposures, named as in the archive."""
    return [f"jw02136001001_031{i:02x}_00001_nrs{side}_rate.fits" for i in range(1, number + 1) for side in (1, 2)]


@pytest.fixture
def dataset():
    return Dataset.load("go2136")


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "root")


@pytest.fixture
def full(mast):
    """Three exposures, a metafile, ramps, and what is not wanted."""
    for name in (*names(3), METAFILE, *OTHERS):
        mast.add(name)
    mast.add(names(1)[0].replace("rate", "uncal"))
    return mast


def fetch(dataset, layout, **options):
    return fetch_observation(dataset, layout, manners=QUICK, make_archive=lambda: Mast(timeout_s=2.0), **options)


def downloads(mast) -> Counter:
    return Counter(request["name"] for request in mast.requests if request["name"].endswith(".fits"))


def test_what_the_visit_has_comes_and_nothing_else(full, dataset, layout):
    report = fetch(dataset, layout)
    assert sorted(path.name for path in layout.root.glob("*.fits")) == sorted([*names(3), METAFILE])
    assert all((layout.root / name).read_bytes() == full.files[name] for name in names(3))
    assert set(downloads(full).values()) == {1}
    assert [one.status for one in report.files] == ["fetched"] * 7
    assert report.asked
    assert report.table().colnames[:2] == ["file", "status"]
    manifest = Manifest.load(manifest_path(layout))
    assert {entry.name: entry.size for entry in manifest.files} == {
        name: len(full.files[name]) for name in (*names(3), METAFILE)
    }
    assert all(entry.sha256 for entry in manifest.files)
    assert len(log_path(layout).read_text().splitlines()) == 7


def test_target_acquisition_and_lamps_are_left_out(full, dataset, layout, caplog):
    """The archive's list tells images from spectra; that a spectrum is of a lamp stands in its header."""
    acquisition = [f"jw02136001001_02101_0000{i}_nrs{side}_rate.fits" for i in (1, 2) for side in (1, 2)]
    lamp = "jw02136001001_04101_00001_nrs1_rate.fits"
    for name in acquisition:
        full.add(name)
        full.kinds[name] = "image"
    full.add(lamp, fits_bytes(lamp, EXP_TYPE="NRS_AUTOFLAT"))
    report = fetch(dataset, layout)
    assert {one.file for one in report.files} == {*names(3), METAFILE}
    assert {path.name for path in layout.root.glob("*.fits")} == {*names(3), METAFILE}
    assert not any(downloads(full)[name] for name in acquisition)
    said = {record.getMessage() for record in caplog.records if "left out" in record.getMessage()}
    assert said == {
        f"left out, as images and not spectra (target acquisition): {acquisition[0]} and 3 more",
        f"left out, as EXP_TYPE is not NRS_MSASPEC: {lamp} (NRS_AUTOFLAT)",
    }
    full.requests.clear()
    assert not fetch(dataset, layout).asked
    assert full.requests == []


def test_a_file_that_is_listed_often_is_told_once(full, dataset, layout, caplog):
    """The archive lists an exposure with every observation that it is part of, and not always as the same."""
    acquisition = "jw02136001001_02101_00001_nrs1_rate.fits"
    full.add(acquisition)
    full.kinds[acquisition] = "image"
    rows = full.list_of_products()
    doubtful = [{**row, "dataproduct_type": "image"} for row in rows if row["productFilename"] == names(1)[0]]
    full.list_of_products = lambda: [*doubtful, *rows, *rows]
    fetch(dataset, layout)
    assert {path.name for path in layout.root.glob("*.fits")} == {*names(3), METAFILE}
    assert {record.getMessage() for record in caplog.records if "left out" in record.getMessage()} == {
        f"left out, as images and not spectra (target acquisition): {acquisition}"
    }


@pytest.mark.parametrize("how", ["no such column", "all images"])
def test_where_the_list_does_not_tell_the_headers_do(full, dataset, layout, caplog, how):
    acquisition = [f"jw02136001001_02101_0000{i}_nrs1_rate.fits" for i in (1, 2)]
    for name in acquisition:
        full.add(name, fits_bytes(name, EXP_TYPE="NRS_MSATA"))
    rows = full.list_of_products()
    for row in rows:
        del row["dataproduct_type"]
        if how == "all images":
            row["dataproduct_type"] = "image"
    full.list_of_products = lambda: rows
    report = fetch(dataset, layout)
    assert {one.file for one in report.files} == {*names(3), METAFILE}
    assert {path.name for path in layout.root.glob("*.fits")} == {*names(3), METAFILE}
    assert {record.getMessage() for record in caplog.records if "left out" in record.getMessage()} == {
        f"left out, as EXP_TYPE is not NRS_MSASPEC: {acquisition[0]} and 1 more (NRS_MSATA)"
    }


def test_ramps_of_lamps_are_left_out(full, dataset, layout):
    lamp, ramp = "jw02136001001_04101_00001_nrs1_uncal.fits", names(1)[0].replace("rate", "uncal")
    full.add(lamp, fits_bytes(lamp, EXP_TYPE="NRS_LAMP"))
    assert [one.file for one in fetch(dataset, layout, products=["uncal"]).files] == [ramp]
    assert [path.name for path in layout.root.glob("*.fits")] == [ramp]


def test_what_is_whole_is_not_asked_for_again(full, dataset, layout):
    fetch(dataset, layout)
    full.requests.clear()
    report = fetch(dataset, layout)
    assert full.requests == []
    assert [one.status for one in report.files] == ["whole"] * 7
    assert not report.asked


def test_one_that_is_cut_short_comes_again_alone(full, dataset, layout):
    fetch(dataset, layout)
    full.requests.clear()
    broken = layout.root / names(3)[2]
    broken.write_bytes(broken.read_bytes()[:-1])
    (layout.root / names(3)[4]).unlink()
    report = fetch(dataset, layout)
    assert downloads(full) == {names(3)[2]: 1, names(3)[4]: 1}
    assert Counter(one.status for one in report.files) == {"fetched": 2, "whole": 5}
    assert not report.asked


def test_ramps_on_request(full, dataset, layout):
    report = fetch(dataset, layout, products=["uncal"])
    assert [one.file for one in report.files] == [names(1)[0].replace("rate", "uncal")]


def test_a_list_that_became_wrong_is_renewed_once(full, dataset, layout):
    """A file was made anew in the archive since the list was committed."""
    stale = [FileEntry(name=name, product="rate", size=2880) for name in names(3)]
    Manifest(complete=["rate", "metafile"], files=stale).write(layout.root / "list.yaml")
    fetch(dataset, layout, manifest=layout.root / "list.yaml", products=["rate"])
    assert all((layout.root / name).read_bytes() == full.files[name] for name in names(3))
    full.listed[names(1)[0]] = 2880
    (layout.root / names(1)[0]).unlink()
    with pytest.raises(FetchError, match="14400 bytes at the server, but 2880 in its list"):
        fetch(dataset, layout, refresh=True)


def test_a_committed_list_without_sizes_is_enough(full, dataset, layout):
    entries = [FileEntry(name=name, product="rate") for name in names(2)]
    Manifest(complete=["rate"], files=entries).write(layout.root / "list.yaml")
    report = fetch(dataset, layout, manifest=layout.root / "list.yaml", products=["rate"])
    assert len(report.files) == 4
    assert not report.asked
    (layout.root / "fetch" / "manifest.yaml").unlink()
    full.requests.clear()
    assert fetch(dataset, layout, manifest=layout.root / "list.yaml", products=["rate"]).files[0].status == "whole"
    assert full.requests == []


def rate_that_names(path, metafile):
    """Write a count-rate image whose header names a metafile; return its bytes."""
    from astropy.io import fits

    primary, sci = fits.PrimaryHDU(), fits.ImageHDU([[0.0]], name="SCI")
    for keyword in ("INSTRUME", "DETECTOR", "FILTER", "GRATING", "EXP_TYPE"):
        primary.header[keyword] = "NIRSPEC"
    primary.header.update(
        {"EXP_TYPE": "NRS_MSASPEC", "MSAMETFL": metafile, "MSAMETID": 1, "PATT_NUM": 1, "EXPSTART": 60000.0}
    )
    for keyword in ("RA_REF", "DEC_REF", "ROLL_REF", "V2_REF", "V3_REF"):
        sci.header[keyword] = 0.0
    others = [fits.ImageHDU([[0.0]], name=extension) for extension in ("ERR", "DQ")]
    fits.HDUList([primary, sci, *others]).writeto(path)
    return path.read_bytes()


def test_a_metafile_elsewhere_is_not_fetched(mast, dataset, layout, tmp_path):
    name = names(1)[0]
    mast.add(name, rate_that_names(tmp_path / "rate.fits", "../outside_msa.fits"))
    rows = [row for row in mast.list_of_products() if row["productFilename"] == name]
    mast.list_of_products = lambda: rows
    with pytest.raises(ObservationError, match=r"MSAMETFL of the rates.*a plain name is wanted"):
        # Another name, as the packaged list of go2136 has its metafile.
        fetch(dataset.model_copy(update={"name": "other", "metafile": None}), layout)
    assert not any("outside_msa" in path for path in map(str, mast.requests))
    assert not list(layout.root.parent.glob("*outside_msa*"))


def test_a_metafile_that_is_not_listed_is_named_by_the_headers(mast, dataset, layout, tmp_path):
    name = names(1)[0]
    mast.add(name, rate_that_names(tmp_path / "rate.fits", METAFILE))
    # A dataset that has no packaged list, which names the metafile of go2136.
    dataset = dataset.model_copy(update={"name": "another"})
    hidden = mast.add(METAFILE)
    # Put there by hand, first by name, and without the name of a metafile.
    layout.root.mkdir()
    (layout.root / "jw02136001001_02101_00001_nrs1_rate.fits").write_bytes(fits_bytes("a", EXP_TYPE="NRS_MSATA"))
    rows = [row for row in mast.list_of_products() if row["productFilename"] == name]
    mast.list_of_products = lambda: rows
    fetch(dataset, layout)
    assert (layout.root / METAFILE).read_bytes() == hidden
    mast.requests.clear()
    fetch(dataset, layout)
    assert mast.requests == []


def test_a_slow_answer_is_waited_for(full, dataset, layout):
    full.answers = ["executing", "executing"]
    assert len(fetch(dataset, layout).files) == 7


@pytest.mark.parametrize(
    "answers, match",
    [(["error"], "the database is away"), (["html"], "something else than a list|does not answer as it should")],
)
def test_a_wrong_answer_is_one_sentence(full, dataset, layout, answers, match):
    full.answers = answers
    with pytest.raises(FetchError, match=match):
        fetch(dataset, layout)
    assert not list(layout.root.glob("*.fits"))


def test_an_archive_without_the_programme(mast, dataset, layout):
    with pytest.raises(FetchError, match="has no NIRSpec observations of programme 02136"):
        fetch(dataset, layout)


def test_an_archive_without_such_files(mast, dataset, layout):
    mast.add(OTHERS[0])
    with pytest.raises(FetchError, match=r"lists no rate files of jw02136001001 .* whether the data are public"):
        fetch(dataset, layout)


def test_offline_is_one_sentence(dataset, layout, monkeypatch):
    monkeypatch.setenv("MSA3D_MAST_SERVER", "http://localhost:9")
    with pytest.raises(FetchError, match=r"localhost:9 cannot be reached .* this machine may be offline"):
        fetch(dataset, layout)


def test_a_full_disk_is_told_before_anything_comes(full, dataset, layout, monkeypatch):
    full.listed[names(1)[0]] = 10**9
    usage = shutil.disk_usage(layout.root.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    with pytest.raises(FetchError, match=r"has 1\.00 GB free, but 1\.00 GB are still to be fetched"):
        fetch(dataset, layout)
    assert not downloads(full)


def test_two_at_a_time_are_one_too_many(full, dataset, layout):
    import fcntl

    from msa3d.pipeline.products import LOCK

    (layout.root / "fetch").mkdir(parents=True)
    with (layout.root / "fetch" / LOCK).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="fetch is being worked on by another process"):
            fetch(dataset, layout)


@pytest.mark.parametrize(
    "text, match",
    [
        ("files: [{name: a.fits}]", "files.0.product: Field required"),
        ("- 1\n a", "is not a manifest"),
        ("x: 1", "x:"),
        ("files: " + "[" * 3000, "is not a manifest.*nested more than 20 deep"),
        ("files: &a [*a]", "is not a manifest.*refers to another place"),
        ("files: [{product: rate, name: " + "x" * 300 + "}]", "a plain name is wanted"),
        ("files: [{product: rate, name: ../x.fits}]", "a plain name is wanted"),
    ],
)
def test_a_wrong_list_is_one_sentence(dataset, layout, tmp_path, text, match):
    path = tmp_path / "list.yaml"
    path.write_text(text)
    with pytest.raises(FetchError, match=match):
        fetch(dataset, layout, manifest=path)


def test_the_packaged_list_invents_nothing(dataset):
    known = packaged(dataset)
    assert all(entry.size is None and entry.sha256 is None for entry in known.files)
    assert [entry.name for entry in known.files] == [METAFILE]
    assert known.complete == ["metafile"]
    assert packaged(Dataset.load("tiny")).files == []


def test_names_of_the_archive(dataset):
    assert pattern_of(dataset, "rate").fullmatch("jw02136001001_0311n_00001_nrs1_rate.fits")
    for other in OTHERS:
        assert not any(pattern_of(dataset, product).fullmatch(other) for product in ("rate", "metafile", "uncal"))


@pytest.mark.slow
def test_killed_three_times_in_the_middle_it_ends_whole(mast, tmp_path):
    """63 exposures, 126 rates; what was whole is never asked for twice, what had begun is gone on with."""
    for name in (*names(63), METAFILE):
        mast.add(name)
    root = tmp_path / "root"
    command = [sys.executable, "-m", "msa3d.cli", "fetch", str(root), "-d", "go2136", "--no-references"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    table = []
    for _ in range(3):
        before = len(list(root.glob("jw*.fits")))
        mast.held.clear()
        mast.hold_at = sum(downloads(mast).values()) + 31
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert mast.held.wait(60)
        while not any(path.stat().st_size for path in root.glob(".*.part")):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        mast.release.set()
        mast.release.clear()
        table.append((before, len(list(root.glob("jw*.fits"))), len(list(root.glob(".*.part")))))
    mast.hold_at = None
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert after.returncode == 0
    # Before and after each attempt: files that are whole; files that have begun.
    assert table == [(0, 30, 1), (30, 60, 1), (60, 90, 1)]
    assert {path.name: path.read_bytes() for path in root.glob("*.fits")} == mast.files
    asked = downloads(mast)
    assert sum(asked.values()) == 127 + 3
    assert sorted(asked.values())[-4:] == [1, 2, 2, 2]
    sent = {name: sum(request["sent"] for request in mast.asked(name)) for name in mast.files}
    assert sent == {name: len(content) for name, content in mast.files.items()}  # no byte twice
    lists = [request for request in mast.requests if request["name"].startswith("Mast.")]
    assert len(lists) == 2  # one question for observations, one for products, at the first attempt only
    log = [json.loads(line) for line in log_path(Layout(root)).read_text().splitlines()]
    assert Counter(line["file"] for line in log) == dict.fromkeys(mast.files, 1)
    assert sum(line["resumed_from"] > 0 for line in log) == 3
    assert "127" not in after.stderr
    assert after.stdout.count("whole") == 127
    assert not list(Path(root).glob(".*"))
