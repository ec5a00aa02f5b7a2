"""tests.published.test_spectra"""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import astroscrappy
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from stdatamodels.jwst import datamodels

from msa3d.archive import crds
from msa3d.config import Dataset
from msa3d.errors import CrdsError, DatasetError, ObservationError, ProductError
from msa3d.observation.source import place_exposures, sources_of
from msa3d.pipeline.layout import POST_SUFFIX, Layout
from msa3d.published import spectra
from msa3d.published.settings import CosmicRays, PaperPostprocess
from msa3d.reduce.geometry import SLITGEOM, RectifiedGeometry, read_rectified, rectified_geometry

from ..fixtures.stepping import Stepping, blob, write_s2d

PUBLISHED = CosmicRays()


def published_cleaning(data):
    """The published loop, literally."""
    image = data.transpose()
    clean, flagged = np.zeros(image.shape), np.zeros(image.shape)
    clean[:, :] = image
    low, high = 0, 100
    limit = image.shape[0] // 100 * 100
    while high < limit:
        mask, block = astroscrappy.detect_cosmics(image[low:high, :], sigclip=0.6, sigfrac=0.001, niter=3)
        flagged[low:high, :], clean[low:high, :] = mask, block
        low, high = low + 100, high + 100
    return clean.transpose(), flagged.transpose()


def image(nx, ny=24, seed=3):
    rng = np.random.default_rng(seed)
    data = rng.normal(0.3, 0.05, size=(ny, nx))
    data[rng.integers(0, ny, 40), rng.integers(0, nx, 40)] += 30
    return data.astype(np.float32)


@pytest.mark.parametrize("nx", [90, 199, 200, 340, 400, 451])
def test_cleaning_equals_the_published_loop(nx):
    data = image(nx)
    expected, flagged = published_cleaning(data.astype(">f4"))
    cleaned, mask, examined = spectra.reject_cosmic_rays(data, PUBLISHED)
    np.testing.assert_array_equal(cleaned, expected)
    np.testing.assert_array_equal(mask, flagged)
    blocks = max(nx // 100 - 1, 0)
    assert examined == blocks * 100 * data.shape[0]
    assert mask.any() == (blocks > 0)


def test_the_last_whole_block_stays_as_it_is():
    data = np.random.default_rng(1).normal(0.3, 0.05, size=(24, 300)).astype(np.float32)
    data[12, [50, 250]] = 30
    cleaned, mask, _ = spectra.reject_cosmic_rays(data, PUBLISHED)
    np.testing.assert_array_equal(cleaned[:, 200:], data[:, 200:])
    assert not mask[:, 200:].any()
    assert mask[12, 50]
    assert cleaned[12, 50] < 1


def test_nan_stays_nan_and_spreads_nothing():
    data = image(300)
    _, mask, _ = spectra.reject_cosmic_rays(data, PUBLISHED)
    holes = data.copy()
    holes[0] = holes[-1] = np.nan
    cleaned, flagged, _ = spectra.reject_cosmic_rays(holes, PUBLISHED)
    np.testing.assert_array_equal(np.isnan(cleaned), np.isnan(holes))
    assert not flagged[np.isnan(holes)].any()
    inside = slice(4, -4)
    np.testing.assert_array_equal(flagged[inside], mask[inside])


def test_the_published_weakness_single_faint_hits_are_never_flagged():
    data = np.random.default_rng(1).normal(0.3, 0.05, size=(24, 200)).astype(np.float32)
    faint, bright = data.copy(), data.copy()
    faint[12, 50], bright[12, 50] = 3, 20
    assert not spectra.reject_cosmic_rays(faint, PUBLISHED)[1][12, 50]
    assert spectra.reject_cosmic_rays(bright, PUBLISHED)[1][12, 50]


def test_rejection_can_be_switched_off():
    data = image(300)
    cleaned, mask, examined = spectra.reject_cosmic_rays(data, CosmicRays(method="none"))
    np.testing.assert_array_equal(cleaned, data)
    assert (mask.sum(), examined) == (0, 0)


# --- path loss


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("crds") / "jwst_nirspec_pathloss_9999.fits"
    with datamodels.PathlossModel() as model:
        for name, shutters, level in (("MOS1x1", 1, 0.5), ("MOS1x3", 3, 0.9)):
            model.apertures.append(
                {
                    "name": name,
                    "shutters": shutters,
                    "pointsource_data": np.ones((3, 3, 3), np.float32),
                    "uniform_data": np.linspace(level, level - 0.2, 50).astype(np.float32),
                    "uniform_wcs": {"crpix1": 1, "crval1": 0.6e-6, "cdelt1": 0.05e-6},
                }
            )
        model.save(str(path))
    return path


def test_reading_the_reference(reference):
    wave_um, transmission = spectra.uniform_pathloss(reference, "mos1X3")
    np.testing.assert_allclose(wave_um, 0.6 + 0.05 * np.arange(50), rtol=1e-6)
    np.testing.assert_allclose(transmission, np.linspace(0.9, 0.7, 50), rtol=1e-6)
    with pytest.raises(ProductError, match="MOS1x1, MOS1x3"):
        spectra.uniform_pathloss(reference, "MOS1x5")


@pytest.fixture
def tiny(monkeypatch, reference):
    monkeypatch.setattr(crds, "use_references", lambda layout, dataset: "jwst_9999.pmap")
    monkeypatch.setattr(crds, "reference_for", lambda path, kind: reference)
    return Dataset.load("tiny").replaced(pattern={"rows": 1, "columns": 2})


#: Where a user's CRDS cache would have the file that the public code always takes; its PEDIGREE is DUMMY.
NAME = "jwst_nirspec_pathloss_0002.fits"
REAL = crds.located(Path(os.environ.get("CRDS_PATH") or Path.home() / "crds_cache"), NAME)


@pytest.mark.skipif(not REAL.is_file(), reason=f"{NAME} is not in the CRDS cache (CRDS_PATH, or ~/crds_cache)")
def test_the_file_that_the_public_code_takes():
    """Two numbers that the public code's notebooks show of source 8512, in the real file."""
    at = np.interp([0.96695, 1.83252], *spectra.uniform_pathloss(REAL, "MOS1x3"))
    np.testing.assert_allclose(at, [1.28047469, 1.30182978], rtol=1e-6)


def test_a_reference_is_asked_for_by_name(monkeypatch, tmp_path, reference, run_of_two):
    """A file of the form of the real one, of known answers, where the context names another."""
    cache = tmp_path / "named"
    named = cache / "references" / "jwst" / "nirspec" / NAME
    named.parent.mkdir(parents=True)
    with datamodels.PathlossModel(str(reference)) as model:
        for entry in model.apertures:
            # Rises from 1.25 in steps of 0.05 um: at 0.96695 um 1.25 + 0.01 * (0.96695 - 0.6) / 0.05.
            entry.uniform_data = (1.25 + 0.01 * np.arange(50)).astype(np.float32)
        model.save(str(named))
    monkeypatch.setenv("CRDS_PATH", str(cache))
    monkeypatch.setattr(crds, "use_references", lambda layout, dataset: "jwst_9999.pmap")
    monkeypatch.setattr(crds, "reference_for", lambda path, kind: reference)
    chosen = {"pathloss": {"reference": NAME}}
    dataset = Dataset.load("tiny").replaced(pattern={"rows": 1, "columns": 2}, postprocess=chosen)
    layout, _ = run_of_two
    exposures = place_exposures(dataset, layout)
    used, vectors = spectra.pathloss_vectors(dataset, layout, exposures, sources_of(dataset, layout, exposures))
    assert used == named
    wave = read_rectified(layout.s2d(exposures[0].activity, 8512)).wave_um
    np.testing.assert_allclose(vectors[8512].at, 1.25 + 0.2 * (wave - 0.6), rtol=1e-6)
    found = np.interp([0.96695, 1.83252], *spectra.uniform_pathloss(used, "MOS1x3"))
    np.testing.assert_allclose(found, [1.32339, 1.496504], rtol=1e-6)
    named.unlink()
    with pytest.raises(CrdsError, match=f"{NAME} is not there: `msa3d fetch` gets it"):
        spectra.pathloss_vectors(dataset, layout, exposures, sources_of(dataset, layout, exposures))


@pytest.mark.parametrize("name", ["../jwst_nirspec_pathloss_0002.fits", "jwst_nirspec_flat_0002.fits", "pathloss"])
def test_only_a_path_loss_can_be_asked_for(name):
    with pytest.raises(DatasetError, match=r"postprocess\.pathloss\.reference"):
        Dataset.load("tiny").replaced(postprocess={"pathloss": {"reference": name}})


@pytest.fixture
def run_of_two(tmp_path):
    """Two exposures of source 8512 and one of source 50."""
    layout, stepping = Layout(tmp_path), Stepping(rows=1, columns=2, ny=12)
    rng = np.random.default_rng(8)
    source = blob(stepping.ra, stepping.dec)

    def sky(ra, dec, wave):
        data = source(ra, dec, wave) + rng.normal(0.2, 0.05, wave.shape)
        data[6, 40:60:7] = 40
        return data

    stepping.write(layout, sky)
    low = layout.s2d(stepping.activities()[0], 50)
    write_s2d(low, np.ones((5, 240)), stepping.wcs(0, 0), 50)
    return layout, stepping


def test_products_beside_their_inputs(tiny, run_of_two, reference):
    layout, stepping = run_of_two
    report = spectra.run(tiny, layout, workers=1)
    assert [item.status for item in report.results] == ["done", "done"]
    first, second = stepping.activities()
    # The middle exposure of two is the first: its vector serves both.
    wave_um, transmission = spectra.uniform_pathloss(reference, "MOS1x3")
    vector = np.interp(stepping.wave_um, wave_um, transmission)
    for activity in (first, second):
        source, final = layout.s2d(activity, 8512), layout.s2d(activity, 8512, POST_SUFFIX)
        with fits.open(source) as before, fits.open(final) as after:
            clean, flagged = published_cleaning(before["SCI"].data)
            np.testing.assert_array_equal(after["SCI"].data, clean / vector)
            np.testing.assert_array_equal(after["CRMASK"].data, flagged)
            assert flagged.any()
            assert after["SCI"].header["NREJECT"] == flagged.sum()
            names = [hdu.name for hdu in before]
            assert [hdu.name for hdu in after] == [*names[:2], "SLITGEOM", *names[2:], "CRMASK"]
            for name in names[2:]:
                assert before[name].data.tobytes() == after[name].data.tobytes()
            assert after[0].header["MSA3DSIM"] is True
            assert after[0].header["MSA3DCFG"] == tiny.digest[:32]
            assert "pathloss_9999" in str(after[0].header["HISTORY"])
            assert after["SCI"].header["BUNIT"] == "MJy/sr"
        with datamodels.open(final) as model:
            world = model.meta.wcs.get_transform("detector", "world")
            np.testing.assert_allclose(world(7, 3)[2], stepping.wave_um[7])
    assert not layout.s2d(first, 50, POST_SUFFIX).exists()


def test_the_geometry_in_the_product_is_that_of_the_wcs_to_the_last_bit(tiny, run_of_two):
    layout, stepping = run_of_two
    spectra.run(tiny, layout, workers=1)
    for activity in stepping.activities():
        final = layout.s2d(activity, 8512, POST_SUFFIX)
        with fits.open(final) as hdus:
            bare = fits.HDUList([hdu for hdu in hdus if hdu.name != SLITGEOM])
            from_wcs = rectified_geometry(bare, final)
            del hdus["ASDF"]
            hdus.writeto(final.with_name("no_wcs.fits"), overwrite=True)
        for path in (final, final.with_name("no_wcs.fits")):
            read = read_rectified(path)
            for name in RectifiedGeometry.__dataclass_fields__:
                assert getattr(read, name).tobytes() == getattr(from_wcs, name).tobytes()
                assert getattr(read, name).dtype == np.dtype(float)
            assert read.native_pixel_arcsec == from_wcs.native_pixel_arcsec
        assert np.isfinite(from_wcs.along).all()


# --- the switches


def test_all_blocks_are_examined_if_wanted():
    data = image(350)
    _, published, examined = spectra.reject_cosmic_rays(data, PUBLISHED)
    cleaned, mask, all_of_it = spectra.reject_cosmic_rays(data, PUBLISHED, PaperPostprocess(skip_last_blocks=False))
    assert (examined, all_of_it) == (24 * 200, 24 * 350)
    np.testing.assert_array_equal(mask[:, :200], published[:, :200])
    assert not published[:, 200:].any()
    assert (data[:, 203:347] > 10).any()
    assert mask[3:-3, 203:347][data[3:-3, 203:347] > 10].all()
    assert cleaned[3:-3, 203:347].max() < 10


def test_with_the_known_noise_faint_hits_are_found():
    rng = np.random.default_rng(1)
    data = rng.normal(0.3, 0.05, size=(24, 400)).astype(np.float32)
    data[12, 15] += 1.0
    known = np.full(data.shape, 0.05**2, np.float32)
    known[0] = 0
    switches = PaperPostprocess(default_noise=False)
    assert not spectra.reject_cosmic_rays(data, PUBLISHED)[1].any()
    cleaned, mask, _ = spectra.reject_cosmic_rays(data, PUBLISHED, switches, known)
    assert mask[12, 15]
    assert cleaned[12, 15] < 0.6
    assert mask.mean() < 0.002


def test_each_exposure_may_have_its_own_path_loss(tiny, run_of_two, reference):
    layout, stepping = run_of_two
    shifted = dataclasses.replace(stepping, wave_um=stepping.wave_um + 0.01)
    second = stepping.activities()[1]
    write_s2d(layout.s2d(second, 8512), np.ones((12, 240)), shifted.wcs(0, 1), 8512)
    wave_um, transmission = spectra.uniform_pathloss(reference, "MOS1x3")
    for own, wavelengths in ((False, stepping.wave_um), (True, shifted.wave_um)):
        spectra.run(tiny.replaced(postprocess={"paper": {"one_pathloss": not own}}), layout, workers=1)
        got = fits.getdata(layout.s2d(second, 8512, POST_SUFFIX), "SCI")
        np.testing.assert_allclose(got[3], 1 / np.interp(wavelengths, wave_um, transmission), rtol=1e-12)


def test_the_shadow_of_the_bars_is_taken_out_where_the_slitlet_is_open():
    # Dark for a tenth of the pitch around every border of shutters; the open area of three shutters.
    bars = SimpleNamespace(
        transmission=lambda state, from_middle, wave: np.where(
            np.abs(np.abs(from_middle) - 0.575) < 0.1, 0.5, np.where(np.abs(from_middle) < 1.5, 1.0, 0.05)
        )
    )
    wave = np.linspace(1, 1.5, 7)
    geometry = RectifiedGeometry(wave, np.zeros((2, 2)), np.zeros((2, 2)), np.array([2.5, -2.0]))
    got = spectra.bar_transmission(bars, geometry, 46, "1x1 ")
    along = np.linspace(2.5, -2.0, 46)
    np.testing.assert_array_equal(got, np.repeat(got[:, :1], 7, axis=1))
    assert (got[np.abs(np.abs(along) - 0.575) < 0.09] == 0.5).all()
    assert (got[np.abs(along) > 1.51] == 1).all()
    # One shutter less on one side: the middle of the slitlet is no longer the primary shutter.
    asked = []
    bars = SimpleNamespace(transmission=lambda state, at, wave: asked.append(at[:, 0]) or np.ones_like(wave))
    spectra.bar_transmission(bars, geometry, 46, "x1")
    np.testing.assert_allclose(asked[0], along - 0.575)


def test_statistics_and_table(tiny, run_of_two):
    layout, stepping = run_of_two
    report = spectra.run(tiny, layout, workers=1)
    table = Table.read(layout.process / spectra.STATISTICS)
    assert table["exposure"].tolist() == stepping.activities()
    assert table["source_id"].tolist() == [8512, 8512]
    masks = [fits.getdata(layout.s2d(a, 8512, POST_SUFFIX), "CRMASK").sum() for a in stepping.activities()]
    assert table["rejected"].tolist() == masks == report.table()["rejected"].tolist()
    assert table["pixels"].tolist() == [12 * 240] * 2
    np.testing.assert_allclose(table["fraction"], table["rejected"] / 1200)


def test_a_second_run_does_only_what_has_changed(tiny, run_of_two):
    layout, stepping = run_of_two
    first = spectra.run(tiny, layout, workers=1)
    final = layout.s2d(stepping.activities()[0], 8512, POST_SUFFIX)
    made = final.stat().st_mtime_ns
    again = spectra.run(tiny, layout, workers=1)
    assert [item.status for item in again.results] == ["current", "current"]
    assert final.stat().st_mtime_ns == made
    assert spectra.statistics(again).pformat() == spectra.statistics(first).pformat()
    layout.s2d(stepping.activities()[1], 8512, POST_SUFFIX).unlink()
    third = spectra.run(tiny, layout, workers=1)
    assert [item.status for item in third.results] == ["current", "done"]
    changed = tiny.replaced(postprocess={"pathloss": {"aperture": "MOS1x1"}})
    fourth = spectra.run(changed, layout, workers=1)
    assert [item.status for item in fourth.results] == ["done", "done"]


def test_path_loss_can_be_switched_off(tiny, run_of_two, monkeypatch):
    layout, stepping = run_of_two
    monkeypatch.setattr(crds, "reference_for", lambda *_: pytest.fail("no reference is needed"))
    dataset = tiny.replaced(postprocess={"pathloss": {"source": "none"}})
    spectra.run(dataset, layout, workers=1)
    activity = stepping.activities()[0]
    clean, _ = published_cleaning(fits.getdata(layout.s2d(activity, 8512), "SCI"))
    np.testing.assert_array_equal(fits.getdata(layout.s2d(activity, 8512, POST_SUFFIX), "SCI"), clean)


def test_references_are_those_of_a_spectrum(tiny, run_of_two, monkeypatch, reference):
    """Target acquisition, with another filter and the mirror, comes first by name."""
    layout, stepping = run_of_two
    kinds = {"02101": "NRS_MSATA"} | dict.fromkeys(stepping.activities(), "NRS_MSASPEC")
    for activity, kind in kinds.items():
        header = fits.Header({"EXP_TYPE": kind})
        fits.PrimaryHDU(header=header).writeto(layout.root / tiny.rate_name(activity, "NRS1"))
    asked = []
    monkeypatch.setattr(crds, "reference_for", lambda path, kind: asked.append(path.name) or reference)
    report = spectra.run(tiny, layout, workers=1)
    assert [item.name for item in report.results] == stepping.activities()
    assert set(asked) == {tiny.rate_name(stepping.activities()[0], "NRS1")}


def test_a_source_that_the_middle_exposure_lacks(tiny, run_of_two, caplog, reference):
    layout, stepping = run_of_two
    first, second = stepping.activities()
    layout.s2d(first, 8512).unlink()
    with caplog.at_level(logging.WARNING):
        report = spectra.run(tiny, layout, workers=1)
    assert f"no 2-D spectrum in exposure {first}" in caplog.text
    assert f"its path loss is made from {second}" in caplog.text
    assert [len(item.notes["rows"]) for item in report.results] == [0, 1]


def test_a_spectrum_of_another_width_gets_its_own_vector(tiny, run_of_two, reference, caplog):
    layout, stepping = run_of_two
    wide = Stepping(rows=1, columns=2, ny=12, wave_um=stepping.wave_um[:230])
    path = layout.s2d(stepping.activities()[1], 8512)
    write_s2d(path, np.ones((12, 230)), wide.wcs(0, 1), 8512)
    with caplog.at_level(logging.WARNING):
        spectra.run(tiny, layout, workers=1)
    assert "not as wide as the middle exposure" in caplog.text
    wave_um, transmission = spectra.uniform_pathloss(reference, "MOS1x3")
    got = fits.getdata(layout.s2d(stepping.activities()[1], 8512, POST_SUFFIX), "SCI")
    np.testing.assert_allclose(got[3], 1 / np.interp(stepping.wave_um[:230], wave_um, transmission), rtol=1e-12)


def test_what_stops_it(tiny, run_of_two, tmp_path):
    layout, stepping = run_of_two
    with pytest.raises(ObservationError, match="2 exposures, but the pattern"):
        spectra.run(Dataset.load("tiny"), layout, workers=1)
    path = layout.s2d(stepping.activities()[1], 8512)
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(ProductError, match=r"newoutput_s08512_s2d\.fits"):
        spectra.run(tiny, layout, workers=1)
    assert not layout.s2d(stepping.activities()[1], 8512, POST_SUFFIX).exists()
    for activity in stepping.activities():
        layout.s2d(activity, 8512).unlink()
    with pytest.raises(ProductError, match="run `msa3d process` first"):
        spectra.run(tiny, layout, workers=1)


def test_a_spectrum_of_a_few_columns_is_left_out_and_the_others_go_on(tiny, run_of_two, caplog):
    """In the middle exposure, whose wavelengths give the path loss, and for a source that has no other spectrum."""
    layout, stepping = run_of_two
    first, second = stepping.activities()
    few = Stepping(rows=1, columns=2, ny=12, wave_um=stepping.wave_um[:4])
    write_s2d(layout.s2d(first, 8512), np.ones((12, 4)), few.wcs(0, 0), 8512)
    write_s2d(layout.s2d(first, 9636), np.ones((12, 4)), few.wcs(0, 0), 9636)
    write_s2d(layout.s2d(first, 9637), np.ones((12, 240)), stepping.wcs(0, 0), 9637)
    with caplog.at_level(logging.WARNING):
        report = spectra.run(tiny, layout, workers=1)
    assert [[row["source_id"] for row in item.notes["rows"]] for item in report.results] == [[9637], [8512]]
    assert not layout.s2d(first, 8512, POST_SUFFIX).exists()
    assert layout.s2d(second, 8512, POST_SUFFIX).is_file()
    assert f"source 9636 is left out of exposure {first}: {layout.s2d(first, 9636)} (NRS1): it has 4 col" in caplog.text
    # Nothing is left to do, and the builder knows what there is.
    assert {item.status for item in spectra.run(tiny, layout, workers=1).results} == {"current"}
    assert list(sources_of(tiny, layout, place_exposures(tiny, layout), POST_SUFFIX)) == [8512, 9637]
