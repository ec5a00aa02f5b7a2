"""The offline CRDS cache: found by crds, believed by jwst, consistent with the simulator's numbers."""

from __future__ import annotations

import json
from pathlib import Path

import asdf
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from msa3d import errors
from msa3d.pipeline.products import SIMULATED_KEYWORD
from msa3d_sim import crds_cache, references, throughput
from msa3d_sim.instrument import InstrumentModel

SHUTTER = (3, 300, 80)
"""Quadrant, i, j of the main shutter of the slitlet in these tests."""
BRIGHTNESS = 0.7


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("references") / "crds_cache"
    assert crds_cache.build_crds_cache(path) == crds_cache.CONTEXT
    return path


@pytest.fixture
def crds_settings(cache, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", str(cache))
    monkeypatch.setenv("CRDS_CONTEXT", crds_cache.CONTEXT)
    monkeypatch.setenv("CRDS_CONFIG_URI", f"{cache / 'config' / 'jwst'}/")
    monkeypatch.setenv("CRDS_SERVER_URL", "https://crds-serverless-mode.stsci.edu")
    monkeypatch.setenv("CRDS_OBSERVATORY", "jwst")
    from crds.core import heavy_client

    for cached in (heavy_client.get_config_info, heavy_client.get_processing_mode):
        cached.cache.clear()
    yield
    for cached in (heavy_client.get_config_info, heavy_client.get_processing_mode):
        cached.cache.clear()


def test_a_cache_of_another_version_of_jwst_is_made_anew(monkeypatch):
    before = crds_cache._fingerprint()
    monkeypatch.setattr(crds_cache, "jwst_version", lambda: "9.9.0")
    assert crds_cache._fingerprint() != before


def test_a_second_build_changes_nothing(cache):
    before = {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()}
    assert crds_cache.build_crds_cache(cache) == crds_cache.CONTEXT
    assert before == {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()}
    assert sum(p.stat().st_size for p in before) < 60e6


def test_a_broken_build_leaves_nothing(tmp_path, monkeypatch):
    def fail(folder, name):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(references, "write_optics", fail)
    with pytest.raises(KeyboardInterrupt):
        crds_cache.build_crds_cache(tmp_path / "crds_cache")
    assert list(tmp_path.iterdir()) == []


def test_an_outdated_cache_is_replaced_and_a_foreign_folder_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(crds_cache, "_write", lambda root, more: (root / "new").write_text("new"))
    mine, foreign = tmp_path / "mine", tmp_path / "foreign"
    mine.mkdir()
    (mine / crds_cache.STAMP).write_text("old")
    crds_cache.build_crds_cache(mine)
    assert sorted(p.name for p in mine.iterdir()) == sorted([crds_cache.STAMP, "new"])
    foreign.mkdir()
    (foreign / "precious").write_text("precious")
    with pytest.raises(errors.CrdsError, match="not a simulated CRDS cache"):
        crds_cache.build_crds_cache(foreign)
    assert (foreign / "precious").read_text() == "precious"


def test_every_reference_says_that_it_is_simulated(cache):
    files = sorted((cache / "references" / "jwst" / "nirspec").iterdir())
    assert len(files) == 14
    for path in files:
        if path.suffix == ".fits":
            with fits.open(path) as hdus:
                header = hdus[0].header
                assert header[SIMULATED_KEYWORD] is True
                assert (header["PEDIGREE"], header["INSTRUME"], header["TELESCOP"]) == ("MODEL", "NIRSPEC", "JWST")
                assert {"REFTYPE", "AUTHOR", "USEAFTER", "DESCRIP"} <= set(header)
        elif path.suffix == ".asdf":
            with asdf.open(path) as file:
                assert file.tree[SIMULATED_KEYWORD.lower()] is True
                assert file.tree["meta"]["pedigree"] == "MODEL"
        else:
            tree = json.loads(path.read_text())
            assert tree[SIMULATED_KEYWORD.lower()] is True
            assert len(tree["msaoper"]) == 22 + 50279


def test_crds_finds_them_and_no_others(cache, crds_settings):
    import crds
    from crds.core.exceptions import CrdsLookupError

    header = {
        "META.INSTRUMENT.NAME": "NIRSPEC", "META.EXPOSURE.TYPE": "NRS_MSASPEC",
        "META.INSTRUMENT.FILTER": "F100LP", "META.INSTRUMENT.GRATING": "G140H",
        "META.INSTRUMENT.DETECTOR": "NRS1", "META.OBSERVATION.DATE": "2023-03-25",
        "META.OBSERVATION.TIME": "04:00:00",
    }  # fmt: skip
    wanted = ["camera", "disperser", "fflat", "photom", "area", "pathloss", "msaoper", "sflat", "drizpars"]
    found = crds.getreferences(header, reftypes=wanted, observatory="jwst")
    folder = cache / "references" / "jwst" / "nirspec"
    for reftype in wanted[:7]:
        assert Path(found[reftype]).parent == folder
    assert "n/a" in found["sflat"].lower()
    assert "n/a" in found["drizpars"].lower()
    other = {**header, "META.INSTRUMENT.GRATING": "G235H"}
    with pytest.raises(CrdsLookupError, match="G235H"):
        crds.getreferences(other, reftypes=["disperser"], observatory="jwst")


def test_jwst_reads_the_pathloss_as_it_was_meant(cache):
    from jwst.pathloss.pathloss import calculate_pathloss_vector
    from stdatamodels.jwst.datamodels import PathlossModel

    from msa3d_sim import psf

    with PathlossModel(cache / "references/jwst/nirspec/jwst_nirspec_pathloss_9136.fits") as model:
        apertures = {aperture.name: aperture for aperture in model.apertures}
        assert {name: a.shutters for name, a in apertures.items()} == {"MOS1x1": 1, "MOS1x3": 3}
        long = apertures["MOS1x3"]
        wave, uniform, _ = calculate_pathloss_vector(long.uniform_data, long.uniform_wcs, 0.0, 0.0)
        assert throughput.uniform_pathloss(wave * 1e6) == pytest.approx(uniform, abs=1e-6)
        wave, point, inside = calculate_pathloss_vector(long.pointsource_data, long.pointsource_wcs, 0.2, 1.1)
        assert inside
        k = int(np.argmin(np.abs(wave - 1.4e-6)))
        exact = psf.point_transmission(wave[k] * 1e6, np.array([0.2]), np.array([1.1]), 3)[0, 0]
        assert point[k] == pytest.approx(exact, rel=1e-4)


def _metafile(path: Path) -> None:
    quadrant, row, column = SHUTTER
    shutters = Table(
        rows=[
            (1, 1, quadrant, row, column + k, 8512, "N" if k == 0 else "Y", "OPEN", 0.5, 0.5, 1, "Y" if k == 0 else "N")
            for k in (-1, 0, 1)
        ],
        names=(
            "slitlet_id", "msa_metadata_id", "shutter_quadrant", "shutter_row", "shutter_column", "source_id",
            "background", "shutter_state", "estimated_source_in_shutter_x", "estimated_source_in_shutter_y",
            "dither_point_index", "primary_source",
        ),
    )  # fmt: skip
    sources = Table(
        rows=[(2136, 8512, "2136_8512", "8512", 215.05, 52.94, "None", 0.0)],
        names=("program", "source_id", "source_name", "alias", "ra", "dec", "preimage_id", "stellarity"),
    )
    hdus = [
        fits.PrimaryHDU(),
        fits.BinTableHDU(shutters, name="SHUTTER_INFO"),
        fits.BinTableHDU(sources, name="SOURCE_INFO"),
    ]
    fits.HDUList(hdus).writeto(path)


def _rate(detector: str, metafile: str):
    from stdatamodels.jwst.datamodels import ImageModel

    model = ImageModel(np.ones((2048, 2048), dtype=np.float32))
    for plane in ("err", "var_poisson", "var_rnoise"):
        setattr(model, plane, np.full(model.data.shape, 1e-3, dtype=np.float32))
    optics = InstrumentModel.load()
    model.meta.instrument.instance.update(
        name="NIRSPEC", detector=detector, filter="F100LP", grating="G140H", msa_metadata_file=metafile,
        msa_metadata_id=1, gwa_xtilt=optics.tilt("gwa_xtilt")["zeroreadings"][0],
        gwa_ytilt=optics.tilt("gwa_ytilt")["zeroreadings"][0],
    )  # fmt: skip
    model.meta.exposure.instance.update(
        type="NRS_MSASPEC", effective_exposure_time=1000.0, duration=1000.0, start_time=60000.0
    )
    model.meta.dither.position_number = 1
    model.meta.subarray.instance.update(xstart=1, ystart=1, xsize=2048, ysize=2048, name="FULL")
    model.meta.wcsinfo.instance.update(
        v2_ref=378.563202, v3_ref=-428.402832, ra_ref=215.05, dec_ref=52.94, roll_ref=20.0, v3yangle=138.5, vparity=-1
    )
    model.meta.observation.instance.update(date="2023-03-25", time="04:00:00")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
def test_a_uniform_sky_comes_back_through_the_real_steps(detector, crds_settings, tmp_path, monkeypatch):
    from jwst.assign_wcs import AssignWcsStep
    from jwst.extract_2d import Extract2dStep
    from jwst.flatfield import FlatFieldStep
    from jwst.photom import PhotomStep

    monkeypatch.chdir(tmp_path)
    _metafile(tmp_path / "t_msa.fits")
    slits = Extract2dStep().run(AssignWcsStep().run(_rate(detector, "t_msa.fits")))
    slit = slits.slits[0]
    rows, columns = np.indices(slit.data.shape)
    ra, dec, wave = slit.meta.wcs(columns, rows)
    inside = np.isfinite(wave)
    _check_geometry(slit, ra, dec, wave, columns, rows, detector)
    factor = throughput.surface_brightness_factor(np.where(inside, wave, 1.3), *SHUTTER)
    slit.data = (BRIGHTNESS / factor).astype(np.float32)
    result = PhotomStep().run(FlatFieldStep().run(slits)).slits[0]
    assert result.meta.bunit_data == "MJy/sr"
    assert result.meta.photometry.pixelarea_arcsecsq == pytest.approx(throughput.pixel_area_arcsec2(*SHUTTER), rel=1e-6)
    good = inside & (wave > 0.97) & (wave < 1.89)
    ratio = result.data[good] / BRIGHTNESS
    assert good.sum() > 10000
    assert np.all(result.dq[good] & 1 == 0)
    # The steep cut-on of the filter, 3 nm wide, is averaged over a pixel by the flat: half a percent there.
    assert np.abs(ratio - 1).max() < 6e-3
    assert np.abs(ratio[wave[good] > 1.0] - 1).max() < 2e-4


def _check_geometry(slit, ra, dec, wave, columns, rows, detector):
    """Plate scale, dispersion, and the way from the detector to the sky and back."""
    inside = np.isfinite(wave)
    step = np.hypot(np.diff(ra, axis=0) * np.cos(np.deg2rad(52.94)), np.diff(dec, axis=0)) * 3600
    assert np.nanmedian(step) == pytest.approx(0.105, abs=0.003)
    assert np.nanmedian(np.diff(wave, axis=1)) == pytest.approx(2.36e-4, rel=0.02)
    x, y = slit.meta.wcs.backward_transform(ra[inside], dec[inside], wave[inside])
    assert np.abs(x - columns[inside]).max() < 0.03
    assert np.abs(y - rows[inside]).max() < 0.03
    if detector == "NRS1":
        assert 0.966 < np.nanmin(wave) < 0.971 and 1.3 < np.nanmax(wave) < 1.36
    else:
        assert 1.34 < np.nanmin(wave) < 1.40 and np.nanmax(wave) > 1.8
