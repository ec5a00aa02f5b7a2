"""The error of a galaxy's centre is that of repeated measurements, and it reaches the systemic velocity.

Exponential discs convolved with the point-spread function, and rings.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msa3d.cubes.psf import effective_psf, telescope_mtf
from msa3d.galaxy.discfit import fit_disc
from msa3d.galaxy.discmodel import LineModel, exponential
from msa3d.galaxy.images import complete_radius, well_observed
from msa3d.galaxy.profiles import centre_covariance, fit_centre, fit_exponential, rings
from msa3d_sim.psf import psf_image

from ..fixtures.cubes import DEC, RA, REDSHIFT, disc, empty, header, seen, wavelengths
from ..fixtures.cubes import seen as behind
from .test_discfit import TRUE, with_disc

WAVE, NOISE = 1.2, 0.05


@pytest.fixture(scope="module")
def scene():
    cube = empty(21, np.array([1.1, 1.2, 1.3]), drizzled=True)
    return cube, seen(cube, disc(), 0.4, WAVE)


def test_centres_scatter_as_their_covariance_says(scene):
    cube, image = scene
    rng = np.random.default_rng(3)
    blanks = rng.normal(0.0, NOISE, (60, *image.shape))
    found = fit_exponential(image + blanks[0], cube, disc(), WAVE, blanks=blanks, error=np.full(image.shape, NOISE))
    sure = centre_covariance(found, cube, disc(), WAVE, blanks, np.isfinite(image))
    moved = []
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(0.0, NOISE, image.shape)
        centre = fit_centre(image + noise, cube, disc(), WAVE)
        moved.append(((centre.ra - RA) * np.cos(np.radians(DEC)) * 3600, (centre.dec - DEC) * 3600))
    scatter = np.std(moved, axis=0)
    assert scatter == pytest.approx(np.sqrt(np.diag(sure)), rel=0.35)
    assert np.abs(np.mean(moved, axis=0)).max() < 3.5 * scatter.max() / np.sqrt(40)


def test_nothing_is_known_of_a_centre_without_light(scene):
    cube, image = scene
    blanks = np.random.default_rng(1).normal(0.0, NOISE, (20, *image.shape))
    dark = replace(fit_exponential(image, cube, disc(), WAVE), log_centre=np.nan)
    assert np.isnan(centre_covariance(dark, cube, disc(), WAVE, blanks, np.isfinite(image))).all()


def test_an_uncertain_centre_makes_the_systemic_velocity_uncertain():
    cube = with_disc(0.02)
    place = {"ra": RA, "dec": DEC, "inclination_deg": 35.0, "pa_deg": TRUE.pa_deg, "sample": False}
    sigma = 0.02
    exact = fit_disc(cube, REDSHIFT, **place)
    unsure = fit_disc(cube, REDSHIFT, **place, centre_covariance=sigma**2 * np.eye(2))
    assert unsure.best == exact.best
    added = np.sqrt(unsure.error["systemic"] ** 2 - exact.error["systemic"] ** 2)
    # A centre that was really put elsewhere: along the major axis, where the velocity changes.
    angle = np.radians(TRUE.pa_deg)
    off = place | {"ra": RA + sigma * np.sin(angle) / 3600 / np.cos(np.radians(DEC))}
    off |= {"dec": DEC + sigma * np.cos(angle) / 3600}
    change = abs(fit_disc(cube, REDSHIFT, **off).best["systemic"] - exact.best["systemic"])
    assert added == pytest.approx(change, rel=0.3)
    assert added > 3.0 * exact.error["systemic"]
    # Across it nothing of the kind happens, and the dispersion does not mind.
    assert unsure.error["sigma0"] < 1.2 * exact.error["sigma0"]


WAVE_PROFILES = wavelengths(1.3, 1.31)


@pytest.fixture(scope="module")
def seen_profiles():
    """A disc of scale 0.35 arcsec as the model of the kinematics sees it, which is another code."""
    cube = empty(31, WAVE_PROFILES, drizzled=True)
    model = LineModel(cube, WAVE_PROFILES[:20], 1.38, RA, DEC, columns=False)
    return cube, model.flux(exponential(model, 0.35, disc().pa_deg, disc().inclination_deg))


def test_a_disc_comes_back_as_it_was_before_the_point_spread(seen_profiles):
    cube, image = seen_profiles
    fit = fit_exponential(1e-17 * image, cube, disc(), 1.38, max_radius_arcsec=1.0)
    assert fit.scale_arcsec == pytest.approx(0.35, rel=0.005)
    assert fit.total == pytest.approx(1e-17 * 2 * np.pi * 0.35**2 * np.cos(np.radians(30)), rel=0.01)
    blurred = fit_exponential(image, replace(cube, header=type(cube.header)()), disc(), 1.38, max_radius_arcsec=1.0)
    assert blurred.scale_arcsec > 1.1 * 0.35


def test_background_and_fixed_rate(seen_profiles):
    cube, image = seen_profiles
    fit = fit_exponential(image + 0.3, cube, disc(), 1.38, background=True, max_radius_arcsec=1.2)
    assert fit.background == pytest.approx(0.3, abs=0.003)
    assert fit.scale_arcsec == pytest.approx(0.35, rel=0.01)
    # Behind the same kernel: the model of the kinematics has wings farther out, too.
    near = behind(cube, disc(), 0.35, 1.38)
    fixed = fit_exponential(near, cube, disc(), 1.38, rate=1 / 0.35, max_radius_arcsec=1.0)
    assert fixed.log_centre == pytest.approx(0.0, abs=0.002)
    assert fixed.covariance[1, 1] == 0.0


def test_errors_of_a_disc_are_those_of_its_noise(seen_profiles):
    """Noise shared by whole columns: the formal error is too small, that from noise images is right."""
    cube, image = seen_profiles
    rng = np.random.default_rng(2)

    def noise(n):
        return 0.01 * (rng.normal(size=(n, 31, 31)) + rng.normal(size=(n, 1, 31)))

    error = np.full(image.shape, 0.01 * np.sqrt(2))
    scatter = [fit_exponential(image + extra, cube, disc(), 1.38, error=error).rate for extra in noise(60)]
    fit = fit_exponential(image, cube, disc(), 1.38, error=error, blanks=noise(200))
    measured, formal = np.sqrt(fit.covariance[1, 1]), np.sqrt(fit.formal[1, 1])
    assert measured == pytest.approx(np.std(scatter), rel=0.3)
    assert formal < 0.6 * measured


def test_too_few_spaxels(seen_profiles):
    with pytest.raises(ValueError, match="spaxels"):
        fit_exponential(seen_profiles[1], seen_profiles[0], disc(), 1.38, max_radius_arcsec=0.1)


def test_the_centre_is_found(seen_profiles):
    cube, image = seen_profiles
    off = replace(disc(), ra=RA + 0.06 / 3600 / np.cos(np.radians(DEC)), dec=DEC - 0.04 / 3600)
    # In the unit of line fluxes, far below one.
    found = fit_centre(np.where(disc().radius(cube) < 1.2, 1e-18 * image, np.nan), cube, off, 1.38)
    assert abs(found.ra - RA) * 3600 < 0.005
    assert abs(found.dec - DEC) * 3600 < 0.005


def test_rings():
    cube = empty(31, WAVE_PROFILES)
    radius = disc().radius(cube)
    image = 2.0 - radius
    image[0, 0] = np.nan
    found = rings(image, cube, disc(), [0.0, 0.5, 1.0, 9.0, 10.0], error=np.full(image.shape, 0.3))
    np.testing.assert_allclose(found.mean[:3], 2.0 - found.radius[:3])
    assert np.isnan(found.mean[3])
    assert found.count.sum() == np.isfinite(image).sum()
    np.testing.assert_allclose(found.error[:3], 0.3 / np.sqrt(found.count[:3]))


def test_the_telescope_is_that_of_the_simulation():
    """Both know the same mirror; they do not share code."""
    # Sampled finely enough that nothing of the transfer function is aliased: it ends at 22 cycles per arcsec.
    step, n = 0.02, 301
    image = psf_image(1.45, step, n)
    frequency = np.fft.fftfreq(n, step)
    transfer = (
        np.fft.fft2(np.fft.ifftshift(image)).real / np.sinc(step * frequency)[:, None] / np.sinc(step * frequency)
    )
    few = (np.hypot(frequency[:, None], frequency) < 4.0) & (np.hypot(frequency[:, None], frequency) > 0)
    model = telescope_mtf(np.hypot(frequency[:, None], frequency), 1.45)
    assert np.abs(transfer - model)[few].max() < 0.06
    assert np.abs(np.mean((transfer - model)[few])) < 0.03


def test_wings_are_in_the_kernel():
    cube = empty(21, WAVE_PROFILES, drizzled=True)
    kernel, inner = effective_psf(cube, 1.38), cube.psf(1.38)
    assert kernel.sum() == pytest.approx(1.0)
    assert kernel.shape[0] > inner.shape[0]
    assert kernel.max() < inner.max()
    assert header()["SLITPA"] == cube.header["SLITPA"]


def test_spaxels_seen_by_few_are_left_out():
    cube = empty(11, WAVE_PROFILES)
    cube.data[...] = 1.0
    time = np.full(cube.data.shape, 100.0)
    time[:, :, 9:] = 50.0
    good = well_observed(replace(cube, etime=time))
    assert good[:, :9].all()
    assert not good[:, 9:].any()
    assert well_observed(cube).all()
    radius = replace(disc(), inclination_deg=0.0).radius(cube)
    assert complete_radius(good, radius) == pytest.approx(0.4, abs=1e-3)
    assert complete_radius(np.ones((11, 11), bool), radius) == radius.max()
