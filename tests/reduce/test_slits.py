"""tests.reduce.test_slits"""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from stdatamodels.jwst import datamodels

from msa3d.archive import crds
from msa3d.config import Dataset
from msa3d.cubes.slit import read_slit
from msa3d.errors import ProductError
from msa3d.observation.source import Placed, sources_calibrated
from msa3d.pipeline.layout import GEOMETRY, Layout
from msa3d.reduce import slits
from msa3d.reduce.geometry import read_geometries
from msa3d.reduce.settings import BarShadow, CalBackground, CalCosmicRays, CalpostSettings
from msa3d_sim.references import barshadow_model, pixel_in_openings, shadow

from ..fixtures.calfiles import ASDF_BYTES, NX, NY, positions, slit_geometry, write_cal

ACTIVITIES = ("03101", "03102")
LEVEL = 0.9
"""Transmission in the path loss reference."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crds")
    with barshadow_model() as model:
        model.save(str(folder / "jwst_nirspec_barshadow_9999.fits"))
    with datamodels.PathlossModel() as model:
        for name in ("MOS1x1", "MOS1x3"):
            keys = {f"{word}{axis}": 1.0 for word in ("crpix", "cdelt") for axis in (1, 2, 3)}
            model.apertures.append(
                {
                    "name": name,
                    "pointsource_data": np.ones((3, 3, 3), np.float32),
                    "pointsource_wcs": keys | {"crval1": 0.0, "crval2": 0.0, "crval3": 1e-6},
                    "uniform_data": np.full(50, LEVEL, np.float32),
                    "uniform_wcs": {"crpix1": 1, "crval1": 0.6e-6, "cdelt1": 0.05e-6},
                }
            )
        model.save(str(folder / "jwst_nirspec_pathloss_9999.fits"))
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, files):
    """A run of two exposures on one detector, each with a source and an empty slitlet."""
    monkeypatch.setattr(crds, "use_references", lambda *_: "jwst_9999.pmap")
    monkeypatch.setattr(crds, "reference_for", lambda _, kind: files / f"jwst_nirspec_{kind}_9999.fits")
    layout = Layout(tmp_path)
    y_slit, wave = positions(slit_geometry())
    light = shadow(y_slit, pixel_in_openings(wave[0]), (-1, 0, 1)) * LEVEL
    for activity in ACTIVITIES:
        source, empty = 2.0 * light, 0.5 * light
        err = np.full((NY, NX), 0.05)
        err[20, 10:20] = np.nan
        dq = np.zeros((NY, NX), np.uint32)
        dq[18, 30], dq[18, 31] = 1, 4
        source[22, 50] = np.nan
        dq[22, 50] = 1
        slits = [
            {"sci": source, "err": err, "dq": dq},
            {"sci": empty, "header": {"SOURCEID": 8513, "SRCNAME": "background_2"}},
        ]
        write_cal(layout.cal(activity, "nrs1", f"jw02136001001_{activity}_00001"), slits)
    return Dataset.load("tiny"), layout


def product(layout, activity="03101"):
    return slits.product_of(slits.cal_files(layout, activity)[0])


def changed(dataset, **settings):
    return dataset.model_copy(update={"calpost": CalpostSettings(**settings)})


def test_products_are_corrected_in_all_planes_alike(run):
    dataset, layout = run
    cal = slits.cal_files(layout, "03101")[0]
    before = cal.read_bytes()
    report = slits.run(dataset, layout, workers=1)
    assert cal.read_bytes() == before
    with fits.open(cal) as old, fits.open(product(layout)) as new:
        shade = new[slits.SHADOW, 1].data
        where = np.isfinite(shade)
        assert where.sum() > 0.3 * where.size
        factor = shade[where] * LEVEL
        np.testing.assert_allclose(new["SCI", 1].data[where], 2.0, atol=1e-3)
        for name, power in (("SCI", 1), ("ERR", 1), ("VAR_POISSON", 2), ("VAR_RNOISE", 2), ("VAR_FLAT", 2)):
            known = np.isfinite(old[name, 1].data[where])
            ratio = old[name, 1].data[where][known] / factor[known] ** power
            np.testing.assert_allclose(new[name, 1].data[where][known], ratio, rtol=2e-6)
        # The ASDF extension is what it was, wavelengths are, and the primary header says who and from what.
        assert new[-1].name == "ASDF"
        assert new["ASDF"].data.tobytes() == old["ASDF"].data.tobytes() == ASDF_BYTES
        np.testing.assert_array_equal(new["WAVELENGTH", 2].data, old["WAVELENGTH", 2].data)
        header = new[0].header
        assert (header["S_PTHLOS"], header["S_BARSHA"], header["MSA3DSIM"]) == ("COMPLETE", "COMPLETE", True)
        assert any("barshadow jwst_nirspec_barshadow_9999.fits" in str(line) for line in header["HISTORY"])
        assert new["SCI", 1].header["PLAPER"] == "MOS1x3"
        assert new["SCI", 1].header["BARCORR"] is True
        assert new["DQ", 1].data.dtype == np.uint32
    assert list(read_geometries(product(layout))) == [1, 2]
    assert [len(item.notes["rows"]) for item in report.results] == [2, 2]
    assert report.table()["slits"].tolist() == [2, 2]


def test_nan_and_flagged_pixels_stay_as_they_are(run):
    dataset, layout = run
    slits.run(dataset, layout, workers=1)
    with fits.open(slits.cal_files(layout, "03101")[0]) as old, fits.open(product(layout)) as new:
        outside = (new["DQ", 1].data & 1) == 1
        np.testing.assert_array_equal(new["SCI", 1].data[outside], old["SCI", 1].data[outside])
        assert outside[18, 30] and outside[22, 50]
        assert np.isnan(new["SCI", 1].data[22, 50])
        # A mended jump is a good pixel.
        assert not outside[18, 31]
        assert new["DQ", 1].data[18, 31] == 4
        y_slit, _ = positions(slit_geometry())
        good = np.abs(y_slit) <= 1.65
        good[18, 30] = good[22, 50] = False
        np.testing.assert_array_equal(~outside, good)


def test_errors_that_a_flat_made_nan_are_rebuilt(run):
    dataset, layout = run
    slits.run(dataset, layout, workers=1)
    with fits.open(product(layout)) as new:
        rebuilt = new["ERR", 1].data[20, 10:20]
        variance = (new["VAR_POISSON", 1].data + new["VAR_RNOISE", 1].data)[20, 10:20]
        np.testing.assert_allclose(rebuilt**2, variance, rtol=1e-5)
    slits.run(changed(dataset, recompute_errors=False), layout, workers=1)
    with fits.open(product(layout)) as new:
        assert np.isnan(new["ERR", 1].data[20, 10:20]).all()


def test_the_table_counts_what_was_done(run):
    dataset, layout = run
    report = slits.run(changed(dataset, cosmic_rays=CalCosmicRays(method="astroscrappy")), layout, workers=1)
    table = Table.read(layout.process / slits.STATISTICS)
    assert table["exposure"].tolist() == ["03101", "03101", "03102", "03102"]
    assert table["source_id"].tolist() == [8512, 8513] * 2
    first = table[0]
    assert (first["pixels"], first["usable_before"], first["errors_rebuilt"]) == (NY * NX, NY * NX - 2, 10)
    assert first["shadowed"] == first["usable_before"] - first["usable"] - first["rejected"]
    assert first["transmission"] == pytest.approx(LEVEL)
    assert 0.4 < first["shadow_min"] < 0.52
    assert len(slits.statistics(report)) == 4
    with fits.open(product(layout)) as new:
        assert new[slits.REJECTED, 1].data.sum() == first["rejected"]


def test_a_second_run_does_nothing_and_a_broken_product_is_made_again(run, monkeypatch):
    dataset, layout = run
    slits.run(dataset, layout, workers=1)
    made = product(layout).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(slits, "calpost_file", None)
        report = slits.run(dataset, layout, workers=1)
    assert [item.status for item in report.results] == ["current", "current"]
    assert len(slits.statistics(report)) == 4
    product(layout).write_bytes(made[:9000])
    report = slits.run(dataset, layout, workers=1)
    assert [item.status for item in report.results] == ["done", "current"]
    assert len(product(layout).read_bytes()) == len(made)


def test_a_killed_run_leaves_no_half_product(run, monkeypatch):
    dataset, layout = run

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fits.HDUList, "writeto", killed)
    with pytest.raises(KeyboardInterrupt):
        slits.run(dataset, layout, workers=1)
    assert not product(layout).exists()
    assert not list(layout.records.glob("calpost_*"))


def test_changed_parameters_make_it_again(run):
    dataset, layout = run
    slits.run(dataset, layout, workers=1)
    report = slits.run(changed(dataset, barshadow=BarShadow(method="none")), layout, workers=1)
    assert [item.status for item in report.results] == ["done", "done"]
    with fits.open(product(layout)) as new:
        assert slits.SHADOW not in new
        assert "S_BARSHA" not in new[0].header
        usable = (new["DQ", 1].data & 1) == 0
        assert new["SCI", 1].data[usable].min() < 1.1
        assert new["SCI", 1].data[usable].max() == pytest.approx(2.0, abs=1e-3)


def test_everything_switched_off_changes_no_pixel(run, monkeypatch):
    dataset, layout = run
    monkeypatch.setattr(crds, "reference_for", None)
    off = changed(
        dataset,
        pathloss={"source": "none"},
        barshadow={"method": "none"},
        recompute_errors=False,
        open_area_only=False,
    )
    slits.run(off, layout, workers=1)
    with fits.open(slits.cal_files(layout, "03101")[0]) as old, fits.open(product(layout)) as new:
        for hdu in old[1:]:
            if isinstance(hdu, fits.ImageHDU):
                np.testing.assert_array_equal(new[hdu.name, hdu.ver].data, hdu.data)


@pytest.mark.parametrize(("method", "left"), [("empty", 1.5), ("ends", 0.0)])
def test_background_is_subtracted(run, method, left):
    """Light of 2 in the one slit, of 0.5 in the empty one; the ends of the first have the 2 as well."""
    dataset, layout = run
    background = CalBackground(method=method)
    slits.run(changed(dataset, background=background), layout, workers=1)
    with fits.open(product(layout)) as new:
        usable = (new["DQ", 1].data & 1) == 0
        assert usable.sum() > 0.3 * usable.size
        np.testing.assert_allclose(new["SCI", 1].data[usable], left, atol=0.01)
        assert new["SCI", 1].header["BKGMETH"] == method
    row = Table.read(layout.process / slits.STATISTICS)[0]
    assert row["background"] == pytest.approx(2.0 - left, abs=0.01)


def test_a_detector_without_an_empty_slit_is_named(run):
    dataset, layout = run
    for activity in ACTIVITIES:
        path = slits.cal_files(layout, activity)[0]
        with fits.open(path, mode="update") as hdus:
            hdus["SCI", 2].header["SRCNAME"] = "2136_8513"
    with pytest.raises(ProductError, match=r"nrs1_cal\.fits: no pixel without a source"):
        slits.run(changed(dataset, background=CalBackground(method="empty")), layout, workers=1)


def test_what_is_missing_or_broken_is_named(run, tmp_path):
    dataset, layout = run
    with pytest.raises(ProductError, match=r"no calibrated file jw\*_cal\.fits"):
        slits.run(dataset, Layout(tmp_path / "elsewhere"), workers=1)
    path = slits.cal_files(layout, "03102")[0]
    with fits.open(path, mode="update") as hdus:
        hdus["SCI", 2].header["BUNIT"] = "MJy"
    with pytest.raises(ProductError, match=r"BUNIT of slit 2 is 'MJy', not MJy/sr"):
        slits.run(dataset, layout, workers=1)
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(ProductError, match=r"03102_00001_nrs1_cal\.fits"):
        slits.run(dataset, layout, workers=1)


def test_a_slit_that_lights_a_few_columns_is_left_out_and_the_others_go_on(run, monkeypatch):
    """Its pixels are flagged, it has no geometry, and the cube builder knows of no source but the others."""
    dataset, layout = run
    unlit = {"03101": {1}, "03102": {1, 2}}
    for activity in ACTIVITIES:
        # As in a file of jwst's: without the table, the WCS alone says where the light is.
        with fits.open(slits.cal_files(layout, activity)[0], mode="update") as hdus:
            del hdus[GEOMETRY]
            hdus["SCI", 2].header["SRCNAME"] = "2136_8513"

    def lit(path):
        return {v: slit_geometry() for v in (1, 2) if v not in unlit[path.parent.name.split("_")[1]]}

    monkeypatch.setattr(slits, "read_geometries", lit)
    report = slits.run(dataset, layout, workers=1)
    assert report.table()["slits"].tolist() == [1, 0]
    with fits.open(product(layout)) as hdus:
        assert (hdus["DQ", 1].data & 1).all()
        assert not (hdus["DQ", 2].data & 1).all()
    assert list(read_geometries(product(layout))) == [2]
    assert read_geometries(product(layout, "03102")) == {}
    assert read_slit(product(layout), 8512) is None
    assert read_slit(product(layout), 8513) is not None
    placed = tuple(Placed(activity, 0, column) for column, activity in enumerate(ACTIVITIES))
    assert list(sources_calibrated(dataset, layout, placed)) == [8513]
