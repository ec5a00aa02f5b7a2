"""Truth files: complete, in the right place on the sky, marked as simulated, and never half written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from msa3d.config import SimulatedSource, Simulation
from msa3d.constants import C_KMS
from msa3d.pipeline.products import is_simulated
from msa3d_sim.scene import Scene, build_galaxy_model
from msa3d_sim.spectrum import MJY_SR_PER_CGS_ARCSEC2
from msa3d_sim.truth import WAVE_STEP_UM, truth_cube, truth_path, write_truth

from ..fixtures.truths import read_truth

SOURCE = SimulatedSource(source_id=42, ra=215.05, dec=52.94, redshift=1.104, re_arcsec=0.3, pa_deg=90.0)


@pytest.fixture(scope="module")
def model():
    return build_galaxy_model(SOURCE, 2136, psf=None, wave_range_um=(1.373, 1.384))


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    return write_truth(model, tmp_path_factory.mktemp("truth") / "truth_s00042.fits", redshift=1.104)


def test_what_is_written_is_read(path, model):
    truth = read_truth(path)
    assert (truth.source_id, truth.redshift) == (42, 1.104)
    assert truth.cube.shape == (truth.wave_um.size, 52, 52)
    assert truth.cube.dtype == np.float32
    assert np.all(np.isfinite(truth.cube))
    for name, image in model.maps.items():
        np.testing.assert_allclose(truth.maps[name], image.astype(np.float32), rtol=1e-6)
    np.testing.assert_allclose(truth.maps["OBS_HA"], model.lines[1].surface_flux, rtol=1e-5)
    assert set(truth.maps) >= {"VELOCITY", "DISPERSION", "METALLICITY", "AV", "SFR", "FLUX_HB", "OBS_NII6548"}


def test_the_file_says_what_it_is_and_stays_small(path):
    with fits.open(path) as hdus:
        assert is_simulated(hdus[0].header)
        assert "MSA3D" in "".join(hdus[0].header) and hdus[0].header["CONTENT"] == "injected truth"
        header = hdus["SCI"].header
        assert (header["BUNIT"], header["CTYPE3"], header["CUNIT3"]) == ("MJy/sr", "WAVE", "um")
        assert header["PIXAR_A2"] == pytest.approx(0.01)
        assert hdus["VELOCITY"].header["BUNIT"] == "km/s"
        assert hdus["FLUX_HA"].header["BUNIT"] == "erg/(s cm2 arcsec2)"
    assert path.stat().st_size < 60e6


def test_wavelengths_are_those_of_the_wcs(path):
    truth = read_truth(path)
    with fits.open(path) as hdus:
        wcs = WCS(hdus["SCI"].header)
    _, _, wave_m = wcs.wcs_pix2world(0.0, 0.0, [0.0, 1000.0, truth.wave_um.size - 1.0], 0)
    np.testing.assert_allclose(wave_m * 1e6, truth.wave_um[[0, 1000, -1]], atol=1e-9)
    assert truth.wave_um[0] == pytest.approx(0.97)
    assert truth.wave_um[-1] >= 1.89 - 1e-9


@pytest.mark.parametrize("which", ["cube", "maps"])
def test_the_wcs_puts_the_galaxy_where_it_is(path, which, model):
    truth = read_truth(path)
    wcs = truth.wcs if which == "cube" else truth.map_wcs
    pixel_arcsec = 0.1 if which == "cube" else 0.05
    middle = (truth.cube.shape[1] - 1) / 2.0 if which == "cube" else (model.grid.n - 1) / 2.0
    centre = SkyCoord(SOURCE.ra, SOURCE.dec, unit="deg")
    assert wcs.pixel_to_world(middle, middle).separation(centre).arcsec < 1e-6
    east, north = centre.spherical_offsets_to(wcs.pixel_to_world(middle - 10.0, middle + 5.0))
    assert east.arcsec == pytest.approx(10.0 * pixel_arcsec, abs=1e-5)
    assert north.arcsec == pytest.approx(5.0 * pixel_arcsec, abs=1e-5)


def test_the_receding_side_is_in_the_east_on_the_sky(path):
    """With a position angle of 90 degrees the redshifted half is the eastern one, on the left."""
    velocity = read_truth(path).maps["VELOCITY"]
    assert velocity[:, :52].mean() > 30.0
    assert velocity[:, 52:].mean() < -30.0


def test_the_cube_holds_the_flux_of_the_line(path):
    truth = read_truth(path)
    centre = 0.656461 * 2.104
    near = np.abs(truth.wave_um - centre) < 2.2e-3
    beside = (np.abs(truth.wave_um - centre) > 2.2e-3) & (np.abs(truth.wave_um - centre) < 2.5e-3)
    cube = truth.cube - truth.cube[beside].mean(axis=0)
    i_lambda = cube[near].sum(axis=(1, 2), dtype=float) * 0.01 * C_KMS * 1e9 / truth.wave_um[near] ** 2
    flux = i_lambda.sum() * WAVE_STEP_UM / MJY_SR_PER_CGS_ARCSEC2
    assert flux == pytest.approx(truth.maps["OBS_HA"].sum(dtype=float) * 0.0025, rel=3e-3)


def test_the_cube_is_what_the_simulator_is_told(path, model):
    """Away from the lines a voxel is the mean of `intensity`, which the detector model asks for."""
    truth = read_truth(path)
    k = int(np.argmin(np.abs(truth.wave_um - 1.3745)))
    sub = (np.arange(520) - 259.5) * 0.01
    image = model.intensity(-sub[None, :], sub[:, None], truth.wave_um[k])
    means = image.reshape(52, 10, 52, 10).mean(axis=(1, 3))
    np.testing.assert_allclose(truth.cube[k], means, atol=5e-3 * means.max())


def test_binning_must_divide_the_grid(model):
    with pytest.raises(ValueError, match="104 pixels cannot be binned by 3"):
        truth_cube(model, np.array([1.38, 1.3802]), 3)


def test_a_failed_write_leaves_the_old_file(path, model, monkeypatch):
    before = path.read_bytes()

    def fail(self, name, *args, **kwargs):
        name.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(fits.HDUList, "writeto", fail)
    with pytest.raises(OSError, match="no space"):
        write_truth(model, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_scenes_parameters_are_kept(tmp_path):
    settings = Simulation(scene="point", psf=False, sources=[SOURCE])
    written = Scene.from_settings(settings).write_truth(tmp_path / "truth")
    assert written == [tmp_path / "truth" / "scene.json", truth_path(tmp_path / "truth", 42)]
    kept = json.loads(written[0].read_text())
    assert kept["simulated"] is True
    assert Simulation.model_validate(kept["simulation"]) == settings
    truth = read_truth(written[1])
    assert truth.maps == {}
    assert truth.cube.shape[1:] == (27, 27)
    assert written[1].stat().st_size < 60e6


def test_a_field_has_parameters_but_no_cube(tmp_path):
    settings = Simulation(scene="uniform", sources=[SOURCE])
    assert Scene.from_settings(settings).write_truth(tmp_path) == [tmp_path / "scene.json"]
