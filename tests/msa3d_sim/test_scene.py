"""What the scene says at any place and wavelength, against direct evaluation and conservation of flux."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import trapezoid

from msa3d.config import SimulatedSource, Simulation
from msa3d.constants import C_KMS
from msa3d_sim import scene
from msa3d_sim.psf import psf_image
from msa3d_sim.scene import FieldModel, Scene, build_galaxy_model, build_point_model
from msa3d_sim.spectrum import MJY_SR_PER_CGS_ARCSEC2, zodiacal_mjy_sr

HA_WINDOW = (1.373, 1.384)
"""Halpha and [NII] 6548 of z = 1.104, and nothing else: small models, quick tests."""


def gaussian_psf(wave_um, scale_arcsec, size):
    """A round stand-in as wide as the telescope's, cheap to make."""
    sigma = 0.45 * wave_um * 1e-6 / 6.5 * 206265.0
    profile = np.exp(-0.5 * ((np.arange(size) - size // 2) * scale_arcsec / sigma) ** 2)
    image = np.outer(profile, profile)
    return image / image.sum()


def source(**changes) -> SimulatedSource:
    settings = {
        "source_id": 8512,
        "ra": 215.0,
        "dec": 52.9,
        "redshift": 1.104,
        "re_arcsec": 0.3,
        "inclination_deg": 30.0,
        "pa_deg": 40.0,
        "sigma0_kms": 36.0,
        # At the half-light radius; the asymptote is 150 km/s.
        "v_rot_kms": 150.0 * 2.0 / np.pi * np.arctan(0.3 / 0.15),
        "av_centre": 1.0,
        "morphology": "spiral",
    }
    return SimulatedSource(**(settings | changes))


def galaxy(psf=gaussian_psf, **changes):
    return build_galaxy_model(source(**changes), 2136, psf=psf, wave_range_um=HA_WINDOW)


def halpha(model):
    return next(line for line in model.lines if line.name == "HA")


@pytest.fixture(scope="module")
def spiral():
    return galaxy()


@pytest.fixture(scope="module")
def still():
    """A galaxy that does not rotate."""
    return galaxy(v_rot_kms=0.0, morphology="smooth")


# --- galaxies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("psf", [None, gaussian_psf], ids=["perfect", "blurred"])
def test_the_telescope_conserves_line_flux(psf):
    model = galaxy(psf)
    for line in model.lines:
        intrinsic = model.maps[f"FLUX_{line.name}"].sum()
        assert line.surface_flux.sum() == pytest.approx(intrinsic, rel=1e-3)


def test_without_a_telescope_the_maps_are_the_intrinsic_ones():
    model = galaxy(None, morphology="smooth")
    np.testing.assert_allclose(
        halpha(model).surface_flux, model.maps["FLUX_HA"], atol=0.02 * model.maps["FLUX_HA"].max()
    )


def test_the_telescope_blurs():
    sharp, blurred = galaxy(None), galaxy(gaussian_psf)
    assert blurred.continuum[0].max() < 0.97 * sharp.continuum[0].max()
    assert blurred.continuum[0].sum() == pytest.approx(sharp.continuum[0].sum(), rel=2e-3)


def test_only_lines_in_range_are_made(spiral):
    assert [line.name for line in spiral.lines] == ["NII6548", "HA"]
    assert halpha(spiral).centre_um == pytest.approx(0.656461 * 2.104)
    assert halpha(spiral).flux.dtype == np.float32


def test_velocity_planes_reach_into_the_dark(spiral):
    flux = halpha(spiral).flux
    assert flux[[0, -1]].max() < 1e-5 * flux.max()
    assert halpha(spiral).step_kms <= 15.0


def test_intensity_agrees_with_a_model_four_times_as_fine(spiral, monkeypatch):
    monkeypatch.setattr(scene, "PIXEL_ARCSEC", 0.0125)
    monkeypatch.setattr(scene, "GRID_PIXELS", 192)
    monkeypatch.setattr(scene, "PSF_PIXELS", 257)
    # Halpha alone: the dense model is large.
    dense = build_galaxy_model(source(), 2136, psf=gaussian_psf, wave_range_um=(1.3795, 1.383))
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-1.1, 1.1, (2, 60000))
    wave = halpha(spiral).centre_um + rng.uniform(-1e-3, 1e-3, x.size)
    for name in ("continuum_intensity", "line_intensity"):
        ours, theirs = (getattr(model, name)(x, y, wave) for model in (spiral, dense))
        peak = theirs.max()
        assert ours.sum() == pytest.approx(theirs.sum(), rel=1e-3)
        # The cusp of the disc is not resolved by pixels of 0.05 arcsec; elsewhere the two agree.
        assert np.std(ours - theirs) < 5e-3 * peak
        bright = theirs > 0.02 * peak
        assert np.median(np.abs(ours - theirs)[bright] / theirs[bright]) < 1e-2
        assert ours.min() > -5e-3 * peak


def test_interpolated_intensity_holds_the_flux_of_the_line(spiral):
    line = halpha(spiral)
    rng = np.random.default_rng(3)
    # Points that know nothing of pixels and planes: a shifted, finer grid over the whole model.
    step = 0.041
    axis = np.arange(-2.6 + rng.uniform(0, 0.04), 2.6, step)
    wave = np.arange(line.centre_um - 1.2e-3, line.centre_um + 1.2e-3, 2.3e-5)
    x, y, w = axis[None, :, None], axis[:, None, None], wave[None, None, :]
    i_nu = spiral.line_intensity(x, y, w)
    i_lambda = i_nu.sum(axis=(0, 1), dtype=float) * C_KMS * 1e9 / wave**2
    total = trapezoid(i_lambda, wave) * step**2 / MJY_SR_PER_CGS_ARCSEC2
    expected = line.surface_flux.sum() * spiral.grid.pixel_arcsec**2
    assert total == pytest.approx(expected, rel=1e-3)


def test_pixel_means_of_the_continuum_are_the_cube(spiral):
    k, grid = 20, spiral.grid
    sub = (np.arange(grid.n * k) - (grid.n * k - 1) / 2.0) * grid.pixel_arcsec / k
    rows = slice(45 * k, 60 * k)
    image = spiral.continuum_intensity(-sub[None, rows], sub[rows, None], spiral.continuum_wave_um[3])
    means = image.reshape(15, k, 15, k).mean(axis=(1, 3))
    expected = spiral.continuum[3, 45:60, 45:60]
    # Linear interpolation in the finer table flattens the tops of clumps a little.
    np.testing.assert_allclose(means, expected, atol=5e-3 * expected.max())
    assert means.sum() == pytest.approx(expected.sum(), rel=1e-3)


def test_continuum_is_linear_between_its_planes(spiral):
    w = spiral.continuum_wave_um
    first, second, between = (spiral.continuum_intensity(0.3, 0.1, x) for x in (w[4], w[5], 0.75 * w[4] + 0.25 * w[5]))
    assert between == pytest.approx(0.75 * first + 0.25 * second, rel=1e-5)


def test_intensity_is_continuum_plus_lines_and_broadcasts(spiral):
    x, y = np.linspace(-1, 1, 5)[:, None], 0.2
    wave = np.linspace(*HA_WINDOW, 7)
    total = spiral.intensity(x, y, wave)
    assert total.shape == (5, 7)
    assert total.dtype == np.float32
    np.testing.assert_allclose(
        total, spiral.continuum_intensity(x, y, wave) + spiral.line_intensity(x, y, wave), rtol=1e-6
    )


def test_there_is_nothing_outside_the_grid(spiral):
    wave = halpha(spiral).centre_um
    assert np.all(spiral.intensity([2.7, -9.0, 0.0], [0.0, 0.0, 3.0], wave) == 0.0)
    edge = spiral.intensity([2.599, -2.599, 0.0], [0.0, 2.599, -2.599], wave)
    assert np.all(np.isfinite(edge))
    assert np.abs(edge).max() < 1e-4 * halpha(spiral).flux.max()


def moments(model, x, y, *, half_width_um=2.5e-3):
    """Mean velocity and dispersion of Halpha, without its neighbour, at one place."""
    model = replace(model, lines=[halpha(model)])
    centre = halpha(model).centre_um
    wave = np.linspace(centre - half_width_um, centre + half_width_um, 4001)
    profile = model.line_intensity(x, y, wave).astype(float)
    velocity = C_KMS * (wave / centre - 1.0)
    mean = (profile * velocity).sum() / profile.sum()
    return mean, np.sqrt((profile * (velocity - mean) ** 2).sum() / profile.sum())


def test_lines_have_the_intrinsic_dispersion(still):
    mean, sigma = moments(still, 0.13, -0.21)
    assert mean == pytest.approx(0.0, abs=0.2)
    assert sigma == pytest.approx(36.0, rel=3e-3)


@pytest.mark.parametrize("lsf", [15.0, 20.0, 47.0, 90.0])
def test_broadening_adds_in_quadrature_and_keeps_the_flux(still, lsf):
    broad = still.broadened(lambda wave_um: lsf)
    mean, sigma = moments(broad, 0.13, -0.21)
    assert mean == pytest.approx(0.0, abs=0.2)
    assert sigma == pytest.approx(np.hypot(36.0, lsf), rel=3e-3)
    assert halpha(broad).surface_flux.sum() == pytest.approx(halpha(still).surface_flux.sum(), rel=1e-4)
    once = still.intensity(0.1, 0.0, halpha(still).centre_um, lsf_sigma_kms=lsf)
    assert once == pytest.approx(broad.intensity(0.1, 0.0, halpha(still).centre_um))


def test_no_broadening_is_the_same_and_too_little_is_refused(still):
    assert halpha(still.broadened(lambda _: 0.0)) is halpha(still)
    with pytest.raises(ValueError, match="too narrow for NII6548"):
        still.broadened(lambda _: 1.0)


def test_the_line_spread_function_is_asked_at_each_lines_wavelength(still):
    asked = []
    still.broadened(lambda wave_um: asked.append(wave_um) or 30.0)
    assert asked == [line.centre_um for line in still.lines]


def test_lines_move_with_the_disc(spiral):
    pa = np.radians(40.0)
    receding, _ = moments(spiral, 0.6 * np.sin(pa), 0.6 * np.cos(pa))
    approaching, _ = moments(spiral, -0.6 * np.sin(pa), -0.6 * np.cos(pa))
    expected = 150.0 * 2.0 / np.pi * np.arctan(0.6 / 0.15) * np.sin(np.radians(30.0))
    # The telescope mixes velocities a little.
    assert receding == pytest.approx(expected, rel=0.05)
    assert approaching == pytest.approx(-expected, rel=0.05)


# --- test scenes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("psf", [None, psf_image], ids=["gaussian", "telescope"])
def test_a_point_has_its_flux_at_its_place(psf):
    model = build_point_model(source(), flux_ujy=20.0, psf=psf, wave_range_um=(1.0, 1.8))
    # A fifth of the model's pixel, so that the sum is the integral of the interpolated image.
    step = model.grid.pixel_arcsec / 5.0
    axis = np.arange(-599, 600) * step
    x, y = np.meshgrid(axis, axis)
    image = model.intensity(x, y, 1.4).astype(float)
    flux_ujy = image.sum() * step**2 / (180.0 * 3600.0 / np.pi) ** 2 * 1e12
    assert flux_ujy == pytest.approx(20.0, rel=2e-3)
    assert (image * x).sum() / image.sum() == pytest.approx(0.0, abs=1e-3)
    assert (image * y).sum() / image.sum() == pytest.approx(0.0, abs=1e-3)
    assert model.lines == []
    assert model.broadened(lambda _: 20.0).lines == []


def test_the_telescope_is_sharper_in_the_blue():
    model = build_point_model(source(), flux_ujy=1.0, psf=psf_image, wave_range_um=(1.0, 1.8))
    assert model.intensity(0.0, 0.0, 1.0) > 2.0 * model.intensity(0.0, 0.0, 1.8)


def test_a_uniform_field_is_uniform():
    field = FieldModel(1, 215.0, 52.9, 0.7)
    values = field.intensity(np.array([-50.0, 0.0, 3.0]), 0.0, np.array([1.0, 1.4, 1.8]))
    np.testing.assert_array_equal(values, np.float32(0.7))
    assert field.broadened(lambda _: 50.0) is field


@pytest.mark.parametrize("lsf", [0.0, 20.0, 47.0])
def test_the_lines_flux_is_that_of_the_settings(lsf):
    field = FieldModel(1, 215.0, 52.9, 0.5, line_um=1.38, line_flux=1e-15).broadened(lambda _: lsf)
    wave = np.linspace(1.378, 1.382, 400001)
    i_lambda = field.line_intensity(0.0, 0.0, wave).astype(float) * C_KMS * 1e9 / wave**2
    assert trapezoid(i_lambda, wave) / MJY_SR_PER_CGS_ARCSEC2 == pytest.approx(1e-15, rel=1e-4)
    assert field.intensity(0.0, 0.0, 1.2) == pytest.approx(0.5)
    assert field.line_sigma_kms == pytest.approx(np.hypot(1.0, lsf))


# --- the scene -----------------------------------------------------------------------------------


def settings(**changes) -> Simulation:
    return Simulation(sources=[source(), source(source_id=12, ra=215.1)], **changes)


def test_the_scene_follows_its_settings():
    kinds = {}
    for name in ("uniform", "point", "line"):
        model = Scene.from_settings(settings(scene=name, psf=False, line_um=1.5)).source(12)
        assert (model.source_id, model.ra, model.dec) == (12, 215.1, 52.9)
        kinds[name] = model
    assert kinds["uniform"].line_um is None
    assert kinds["line"].line_um == 1.5
    assert kinds["point"].grid.pixel_arcsec == scene.POINT_PIXEL_ARCSEC


def test_sources_are_built_once_and_in_order():
    scene = Scene.from_settings(settings(scene="point", psf=False))
    assert scene.source_ids == [8512, 12]
    assert [model.source_id for model in scene.sources] == [8512, 12]
    assert scene.source(12) is scene.sources[1]


def test_an_unknown_source_is_named():
    with pytest.raises(KeyError, match="no source 99"):
        Scene.from_settings(settings(scene="uniform")).source(99)


def test_the_background_can_be_switched_off():
    wave = np.array([1.0, 1.5])
    lit, dark = (Scene.from_settings(settings(scene="uniform", background=on)) for on in (True, False))
    np.testing.assert_array_equal(lit.background(wave), zodiacal_mjy_sr(wave))
    np.testing.assert_array_equal(dark.background(wave), 0.0)


def test_the_telescope_is_turned_with_the_observatory():
    upright, turned = (scene.telescope_psf(angle)(1.4, 0.02, 101) for angle in (0.0, 30.0))
    np.testing.assert_array_equal(upright, psf_image(1.4, 0.02, 101))
    assert np.abs(upright - turned).max() > 0.01 * upright.max()
