"""tests.cubes.test_build"""

from __future__ import annotations

import logging

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.cubes import build
from msa3d.cubes.build import BUILDERS, builder
from msa3d.cubes.cube import open_cube
from msa3d.errors import DatasetError, ProductError
from msa3d.pipeline.layout import POST_SUFFIX, Layout

from ..fixtures.oracle import Exposure, published_cube
from ..fixtures.stepping import Stepping, blob


@pytest.fixture(scope="module")
def stepping():
    return Stepping(rows=3, columns=2, ny=10, jitter=0.004)


@pytest.fixture(scope="module")
def dataset():
    return Dataset.load("tiny").replaced(pattern={"rows": 3, "columns": 2}, cubebuild={"builder": "paper", "also": []})


@pytest.fixture(scope="module")
def built(tmp_path_factory, stepping, dataset):
    layout = Layout(tmp_path_factory.mktemp("run"))
    stepping.write(layout, blob(stepping.ra, stepping.dec), POST_SUFFIX)
    return layout, build.run(dataset, layout, workers=1)


def test_files_equal_the_published_ones(built, stepping, dataset):
    layout, report = built
    assert [item.status for item in report.results] == ["done"]
    exposures = [Exposure.read(layout.s2d(a, 8512, POST_SUFFIX)) for a in stepping.activities()]
    stacks, medians, cube, grid = published_cube(exposures, 3, 2)
    path = layout.cube_medians(8512)
    assert path.name == "cube_medians_8512.fits"
    np.testing.assert_allclose(fits.getdata(path), cube, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(open_cube(path).wave_um, grid, rtol=1e-12)
    for column in range(2):
        values = fits.getdata(layout.column_median(8512, column + 1))
        np.testing.assert_allclose(values, medians[column], rtol=1e-13, atol=1e-15)
        stack = fits.getdata(layout.column_stack(8512, column + 1))
        np.testing.assert_array_equal(stack, stacks[column].astype(np.float32))
    assert sorted(item.name for item in layout.cube_dir(8512).iterdir()) == [
        "cube_medians_8512.fits",
        *(f"{kind}_lam{c}_s8512_all.fits" for kind in ("median", "spec") for c in (1, 2)),
    ]


def test_headers(built, dataset):
    layout, report = built
    for path in report.results[0].products:
        header = fits.getheader(path)
        assert header["MSA3DSIM"] is True
        assert header["MSA3DCFG"] == dataset.digest[:32]
        assert header["SOURCEID"] == 8512
        assert header["MSA3DBLD"] == "paper"
        assert header["GRATING"] == "G140H"
        assert fits.getheader(path, "SCI")["BUNIT"] == "MJy/sr"
    sci = fits.getheader(layout.cube_medians(8512), "SCI")
    kinds = ["RA---TAN", "DEC--TAN", "WAVE"]
    assert [sci[f"CTYPE{axis}"] for axis in (1, 2, 3)] == kinds
    assert sci["NATPIX"] == pytest.approx(0.10091, abs=2e-5)


def test_flags_and_coverage(built):
    layout, _ = built
    cube, plain = open_cube(layout.cube_medians(8512)), fits.getdata(layout.cube_medians(8512), "SCI")
    few = cube.nexp < 2
    assert few.any()
    assert np.isnan(cube.data[:, few]).all()
    assert np.nanmax(np.abs(plain[50][few])) == 0
    table = Table.read(layout.cube_medians(8512), "EXPOSURES")
    assert len(table) == 6
    assert table["offset"].tolist() == [0, 0, 2, 2, 5, 5]
    assert set(zip(table["row"], table["column"], strict=True)) == {(r, c) for r in range(3) for c in range(2)}
    assert np.abs(table["d_y"]).max() < 0.03


def test_opens_in_spectral_cube(built):
    import spectral_cube

    layout, _ = built
    cube = spectral_cube.SpectralCube.read(layout.cube_medians(8512), hdu="SCI")
    assert cube.spectral_axis[0].to_value("um") == pytest.approx(1.0, abs=1e-6)
    assert cube.unit == "MJy / sr"


def test_a_second_run_does_nothing(built, dataset):
    layout, first = built
    again = build.run(dataset, layout, workers=1)
    assert [item.status for item in again.results] == ["current"]
    assert again.table()["shape"].tolist() == first.table()["shape"].tolist() == ["329x58x2"]
    layout.column_stack(8512, 1).unlink()
    assert build.run(dataset, layout, workers=1).results[0].status == "done"


@pytest.mark.parametrize("first", [["03101-00001", "03101-00002", "03101-00003"], ["03101", "03102", "03103"]])
def test_exposures_of_one_activity_are_placed_by_their_numbers(tmp_path, built, dataset, monkeypatch, first):
    """The same spectra give the same cube, with and without rates beside them; 10 comes after 2."""
    names = [*first, "03104-00001", "03104-00002", "03104-00010"]
    monkeypatch.setattr(Stepping, "activities", lambda self: names)
    stepping, layout = Stepping(rows=3, columns=2, ny=10, jitter=0.004), Layout(tmp_path)
    stepping.write(layout, blob(stepping.ra, stepping.dec), POST_SUFFIX)
    expected = fits.getdata(built[0].cube_medians(8512))
    build.run(dataset, layout, workers=1)
    np.testing.assert_array_equal(fits.getdata(layout.cube_medians(8512)), expected)
    for name in names:
        activity, _, number = name.partition("-")
        path = layout.root / dataset.rate_name(activity, "NRS1", int(number or 1))
        fits.PrimaryHDU(header=fits.Header({"EXP_TYPE": "NRS_MSASPEC"})).writeto(path)
    assert build.run(dataset, layout, workers=1).results[0].status == "current"


def test_a_missing_exposure_is_said_and_left_out(tmp_path, stepping, dataset, caplog):
    layout = Layout(tmp_path)
    paths = stepping.write(layout, blob(stepping.ra, stepping.dec), POST_SUFFIX, leave_out=[(1, 1)])
    assert len(paths) == 5
    with caplog.at_level(logging.WARNING):
        report = build.run(dataset, layout, workers=1)
    assert f"exp_{stepping.activities()[2]}_nobar" in caplog.text
    assert "takes no part" in caplog.text
    assert report.table()["missing"].tolist() == [1]
    cube = open_cube(layout.cube_medians(8512))
    assert cube.nexp.max(axis=0).tolist() == [3, 2]
    assert np.isfinite(cube.data[50, 20]).all()


def test_pointings_that_contradict_the_nominal_dithers_are_said(tmp_path, dataset, caplog):
    layout, other = Layout(tmp_path), Stepping(rows=3, columns=2, ny=10, row_step=-0.075)
    other.write(layout, blob(other.ra, other.dec), POST_SUFFIX)
    with caplog.at_level(logging.WARNING):
        report = build.run(dataset, layout, workers=1)
    assert "pointings differ from the nominal dithers" in caplog.text
    assert report.results[0].notes["worst_place_arcsec"] > 0.1


def test_what_stops_it(tmp_path, built, dataset):
    layout, _ = built
    with pytest.raises(ProductError, match="of source 77, 78"):
        build.run(dataset, layout, workers=1, sources=[78, 77, 8512])
    empty = Layout(tmp_path)
    for activity in ("03101", "03102", "03103", "03104", "03105", "03106"):
        empty.process_dir(activity).mkdir(parents=True)
    with pytest.raises(ProductError, match="of any source"):
        build.run(dataset, empty, workers=1)


def test_builders_are_asked_for_by_name():
    assert builder("paper") is BUILDERS["paper"]
    with pytest.raises(DatasetError, match=r"no builder 'median'; choose one of drizzle, paper"):
        builder("median")
    for module in BUILDERS.values():
        assert all(callable(getattr(module, name)) for name in ("inputs", "products", "parameters", "build"))
