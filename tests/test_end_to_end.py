"""The whole way on the smallest dataset: simulated rates, the real jwst, cubes, notebooks and the book.

One run serves all tests here. It is killed on purpose in the middle of its first step and continued.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.pipeline.layout import POST_SUFFIX, Layout
from msa3d.pipeline.products import is_simulated, jwst_version

from .fixtures.tables import numbers

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = ("01_process", "02_postprocess", "03_cubebuild", "04_figures")


def msa3d(*arguments: object, check: bool = True) -> subprocess.CompletedProcess:
    """Run the command as a user would, in the repository."""
    command = [sys.executable, "-m", "msa3d.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def digests(paths) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def kill_in_the_middle(layout: Layout) -> list[Path]:
    """Start the first step, kill it with all its workers after the first exposures, give what was whole."""
    process = subprocess.Popen(
        [sys.executable, "-m", "msa3d.cli", "process", str(layout.root), "--dataset", "tiny"],
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 900
    while len(list(layout.records.glob("process_*.json"))) < 2:
        assert process.poll() is None, "the first step ended before it could be killed"
        assert time.monotonic() < deadline, "the first step made nothing in a quarter of an hour"
        time.sleep(0.5)
    # Somebody else, in the same root: told who is there, and how far it is; nothing is disturbed.
    second = msa3d("run", layout.root, "--dataset", "tiny", check=False)
    assert second.returncode == 2
    assert f"is being worked on by process {process.pid} of " in second.stderr
    assert "process" in msa3d("status", layout.root, "--dataset", "tiny").stdout
    assert process.poll() is None, "the second run ended the first"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = [record.stem.removeprefix("process_") for record in layout.records.glob("process_*.json")]
    return sorted(path for activity in done for path in layout.process_dir(activity).glob("*.fits"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of tiny from nothing to the executed notebooks; what the kill left; digests of the inputs."""
    layout = Layout(tmp_path_factory.mktemp("tiny"))
    msa3d("data", layout.root, "--dataset", "tiny")
    inputs = digests(layout.root.glob("*.fits"))
    survived = {path: path.stat().st_mtime_ns for path in kill_in_the_middle(layout)}
    for name in NOTEBOOKS:
        msa3d("notebook", "run", name, layout.root, "--dataset", "tiny")
    return layout, inputs, survived


def test_inputs_are_as_they_were(whole):
    layout, inputs, _ = whole
    assert len(inputs) == 19
    assert digests(layout.root.glob("*.fits")) == inputs


def test_a_killed_run_continues(whole):
    layout, _, survived = whole
    assert survived
    assert {path: path.stat().st_mtime_ns for path in survived} == survived
    assert len(layout.activities()) == 9
    assert not list(layout.process.glob(".*partial*"))


def test_what_was_made_again_is_the_same(whole):
    """An exposure reduced once more, alone, gives the same planes as in the run that was killed and continued."""
    layout, _, _ = whole
    activity = layout.activities()[-1]
    folder = layout.process_dir(activity)
    names = [path.name for path in folder.glob("*.fits") if POST_SUFFIX not in path.name]
    before = {name: planes(folder / name) for name in names}
    assert len(before) == 3
    kept = layout.root / "kept"
    shutil.copytree(folder, kept)
    record = layout.records / f"process_{activity}.json"
    said = record.read_bytes()
    (folder / "newoutput_s08512_s2d.fits").unlink()
    msa3d("process", layout.root, "--dataset", "tiny")
    for name in names:
        again = planes(folder / name)
        assert again.keys() == before[name].keys()
        for extension, plane in before[name].items():
            np.testing.assert_array_equal(again[extension], plane, err_msg=f"{name} {extension}")
    # Back to what the later steps were made from, so that the other tests see one whole run. The record as well: a
    # file made again has other dates, and sometimes another size.
    shutil.rmtree(folder)
    kept.rename(folder)
    record.write_bytes(said)


def planes(path: Path) -> dict[tuple, np.ndarray]:
    with fits.open(path) as hdus:
        return {(h.name, h.ver): np.array(h.data) for h in hdus if isinstance(h, fits.ImageHDU) and h.name != "ASDF"}


def test_the_published_tree(whole):
    layout, _, _ = whole
    dataset = Dataset.load("tiny")
    # The planning tool does not know of the galaxy in all columns: the steps carry it out of its slitlet.
    shutters = fits.getdata(layout.metafile(dataset.metafile), "SHUTTER_INFO")
    named = {int(row["msa_metadata_id"]) - 1 for row in shutters if row["source_id"] == 8512}
    columns = {dataset.pattern.place(index)[1] for index in named}
    assert 1 in columns and columns < {0, 1, 2}
    for activity in layout.activities():
        assert layout.s2d(activity, 8512).is_file()
        assert layout.s2d(activity, 8512, POST_SUFFIX).is_file()
    assert layout.cube_medians(8512).is_file()
    columns = sorted(path.name for path in layout.cube_dir(8512).glob("median_lam*"))
    assert len(columns) == dataset.pattern.columns


def test_everything_says_that_it_is_simulated(whole):
    layout, _, _ = whole
    files = [path for path in layout.root.rglob("*.fits") if "kept" not in path.parts]
    assert len(files) > 60
    unmarked = [str(path) for path in files if not is_simulated(fits.getheader(path))]
    assert not unmarked


BUILDERS = pytest.mark.parametrize("builder", ["paper", "drizzle"])


def published(of: str) -> None:
    """Skip what is compared with numbers of rectified spectra where these are not on the published grid."""
    if jwst_version() != "1.14.0":
        pytest.skip(
            f"{of}: jwst {jwst_version()} rectifies spectra onto another grid than 1.14.0, see two_pipelines.md"
        )


def cube_file(layout, builder: str) -> Path:
    return layout.cube_medians(8512) if builder == "paper" else layout.cube(8512, Dataset.load("tiny"))


@BUILDERS
def test_header_of_the_cube(whole, data_regression, builder):
    """World coordinates, units and provenance."""
    layout, _, _ = whole
    if builder == "paper":
        published("header of the published cube")
    with fits.open(cube_file(layout, builder)) as hdus:
        header = hdus["SCI"].header
        primary = hdus[0].header
        wanted = ("NAXIS1", "NAXIS2", "NAXIS3", "CTYPE1", "CTYPE2", "CTYPE3", "CUNIT1", "CUNIT2", "CUNIT3", "BUNIT")
        said = {key: header[key] for key in wanted}
        said |= {key: round(float(header[key]), 7) for key in ("CRVAL1", "CRVAL2", "CDELT1", "CDELT2", "CDELT3")}
        said |= {key: primary[key] for key in ("MSA3DSET", "MSA3DSIM", "MSA3DBLD", "CRDS_CTX")}
        assert primary["CAL_VER"] == jwst_version()
        said["planes"] = [hdu.name for hdu in hdus[1:]]
    data_regression.check(said)


@BUILDERS
def test_the_spectrum_of_the_galaxy(whole, ndarrays_regression, builder):
    """The integrated spectrum around Ha, which the book shows."""
    from msa3d.cubes.cube import open_cube
    from msa3d.galaxy.images import integrated_spectrum

    layout, _, _ = whole
    if builder == "paper":
        published("spectrum of the published cube")
    target = Dataset.load("tiny").targets[0]
    spectrum = integrated_spectrum(open_cube(cube_file(layout, builder)), target.ra, target.dec, 0.8)
    near = np.abs(spectrum.wave_um - 0.65646 * (1 + target.redshift)) < 0.006
    ndarrays_regression.check(
        {"wave_um": spectrum.wave_um[near], "mjy_sr": spectrum.brightness[near]},
        default_tolerance={"rtol": 1e-3, "atol": 1e-4},
    )


def pixels(values: np.ndarray, every: int) -> np.ndarray:
    """Some of the pixels of a plane, in units of the rms of all, so that one tolerance holds for every plane."""
    values = np.asarray(values, float)
    return values.ravel()[::every] / np.sqrt(np.nanmean(values**2))


def numbers_of_both(layout: Layout) -> dict[str, np.ndarray]:
    """Pixels of the first exposure, and voxels of the drizzled cube, its brightness in units of its error."""
    found = {}
    for path in sorted(layout.root.glob("*_03101_*_rate.fits")):
        with fits.open(path) as hdus:
            found |= {f"{path.name[-14:-10]}_{name.lower()}": pixels(hdus[name].data, 4001) for name in ("SCI", "ERR")}
    with fits.open(cube_file(layout, "drizzle")) as hdus:
        found |= {f"cube_{name.lower()}": pixels(hdus[name].data, 211) for name in ("ERR", "WMAP")}
        found["cube_sci"] = (hdus["SCI"].data / hdus["ERR"].data).astype(float).ravel()[::211]
        found["cube_dq"] = hdus["DQ"].data.ravel()[::211].astype(float)
    return found


def test_rates_and_drizzled_cube_are_the_same_in_both_pipelines(whole, ndarrays_regression):
    """To 1e-6, against numbers stored from jwst 1.14.0 (`--force-regen` stores those of the one that runs).

    Whatever changes the simulated rates changes the numbers: they are then stored anew, with the paper's pipeline.
    """
    found = numbers_of_both(whole[0])
    assert len(found) == 8
    assert np.isfinite(found["cube_sci"]).sum() > 1000
    ndarrays_regression.check(found, default_tolerance={"rtol": 1e-6, "atol": 1e-6})


def test_what_post_processing_did_to_each_file(whole, ndarrays_regression):
    """Both tables of statistics and the drizzle builder's: pixels used, flagged and rejected, and corrections."""
    layout, _, _ = whole
    published("statistics of rectified spectra")
    tables = {
        "calpost": Table.read(layout.process / "calpost_statistics.ecsv"),
        "postprocess": Table.read(layout.process / "postprocess_statistics.ecsv"),
        "drizzle": Table.read(layout.outliers(8512), hdu="STATISTICS"),
    }
    assert all(len(table) >= 9 for table in tables.values())
    ndarrays_regression.check(numbers(**tables), default_tolerance={"rtol": 1e-3, "atol": 1e-3})


@BUILDERS
def test_the_galaxy_comes_back_where_it_was_put(whole, builder):
    """Position, Ha flux and velocity of the cube against the truth seen on the same spaxels."""
    from msa3d.closure.truth import on_spaxels
    from msa3d.cubes.cube import open_cube
    from msa3d.galaxy.bins import stacked
    from msa3d.galaxy.fit import fit_lines

    layout, _, _ = whole
    target = Dataset.load("tiny").targets[0]
    cube = open_cube(cube_file(layout, builder))
    truth = on_spaxels(open_cube(layout.truth / "truth_s08512.fits"), cube)
    circle = np.hypot(*cube.offsets(target.ra, target.dec)) <= 0.8
    got, put = (
        fit_lines(stacked(each, [circle & (np.isfinite(cube.data) & (cube.data != 0)).any(axis=0)]), target.redshift)
        for each in (cube, truth)
    )
    # Three dithers, shadows of the bars left in, medians of noisy stacks: a tenth or two is lost (see the book).
    assert 0.6 < (got.flux["Ha"] / put.flux["Ha"]).item() < 1.1
    assert abs((got.velocity - put.velocity).item()) < 25


def test_nothing_is_done_twice(whole):
    layout, _, _ = whole
    before = {path: path.stat().st_mtime_ns for path in layout.reduction.rglob("*.fits")}
    for step in ("process", "postprocess", "cubebuild"):
        msa3d(step, layout.root, "--dataset", "tiny")
    assert {path: path.stat().st_mtime_ns for path in layout.reduction.rglob("*.fits")} == before


def test_the_book_is_bound(whole, tmp_path):
    layout, _, _ = whole
    ignored = shutil.ignore_patterns("_build", "notebooks")
    source = Path(shutil.copytree(REPOSITORY / "book", tmp_path / "book", ignore=ignored))
    msa3d("book", layout.root, "--dataset", "tiny", "--source", source)
    pages = source / "_build" / "html"
    assert (pages / "index.html").is_file()
    for name in NOTEBOOKS:
        page = (pages / "notebooks" / f"{name}.html").read_text()
        assert "<img" in page, name
    assert "closure test" in (pages / "intro.html").read_text()


def test_a_missing_detector_stops_the_run_before_it_starts(whole, tmp_path):
    layout, _, _ = whole
    for path in layout.root.iterdir():
        if path.name.endswith(".fits") or path.name == "crds_cache":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "jw02136001001_03107_00001_nrs2_rate.fits").unlink()
    done = msa3d("process", tmp_path, "--dataset", "tiny", check=False)
    assert done.returncode == 2
    assert "03107" in done.stderr
    assert "NRS2" in done.stderr.upper()
    assert not (tmp_path / "reduction" / "process").exists()
