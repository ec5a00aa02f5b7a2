"""Line images of known light: what is measured is what was put in."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from msa3d.closure import images
from msa3d.closure.images import Meter
from msa3d.constants import LINES
from msa3d.cubes.cube import Cube
from msa3d.galaxy import images as galaxy_images
from msa3d.galaxy import noise
from msa3d.galaxy.lines import to_line_flux
from msa3d.observation.sky import SR_PER_SQUARE_ARCSEC

CENTRE = (215.05, 52.938)
REDSHIFT = 1.104
LINE_UM = LINES["Ha"] * (1 + REDSHIFT)
WAVE = LINE_UM + 2.35e-4 * np.arange(-330, 331)


def sky_wcs(shape, step_x, step_y, angle_deg=0.0) -> WCS:
    """North up, east to the left, turned by an angle."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = CENTRE
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    a = np.radians(angle_deg)
    x, y = step_x / 3600, step_y / 3600
    wcs.wcs.cd = [[-x * np.cos(a), y * np.sin(a)], [x * np.sin(a), y * np.cos(a)]]
    return wcs


def cube_of(image, wcs, area, level=0.0, slope=0.0, noise=0.0, seed=1) -> Cube:
    """A line of 90 km/s with the brightness of an image (MJy/sr um) on a sloping continuum."""
    sigma = LINE_UM * 90.0 / 299792.458
    profile = np.exp(-0.5 * ((WAVE - LINE_UM) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    data = image * profile[:, None, None] + level + slope * (WAVE - LINE_UM)[:, None, None]
    data = data + noise * np.random.default_rng(seed).normal(size=data.shape)
    return Cube(data, WAVE, wcs, area * SR_PER_SQUARE_ARCSEC)


def gauss(cube, east0, north0, along, across, pa_deg):
    east, north = cube.offsets(*CENTRE)
    a = np.radians(pa_deg)
    u = (east - east0) * np.sin(a) + (north - north0) * np.cos(a)
    v = (east - east0) * np.cos(a) - (north - north0) * np.sin(a)
    return np.exp(-0.5 * (u**2 / along**2 + v**2 / across**2))


@pytest.fixture
def empty():
    return cube_of(np.zeros((40, 50)), sky_wcs((40, 50), 0.1, 0.05, 30.0), 0.005)


def test_the_flux_of_a_line_on_a_slope(empty):
    image = np.linspace(0, 1, 2000).reshape(40, 50)
    cube = cube_of(image, empty.wcs, 0.005, level=3.0, slope=20.0)
    np.testing.assert_allclose(
        galaxy_images.line_image(cube, LINE_UM), to_line_flux(image, LINE_UM), rtol=2e-4, atol=1e-22
    )
    cube.data[:, 3, 4] = np.nan
    cube.data[330, 5, 6] = np.nan
    cube.data[320:340, 7, 8] = np.nan
    got = galaxy_images.line_image(cube, LINE_UM)
    assert np.isnan(got[[3, 7], [4, 8]]).all()
    assert np.isfinite(got[5, 6])
    with pytest.raises(ValueError, match="does not reach"):
        galaxy_images.line_image(cube, 1.2)


def test_no_blank_line_touches_a_real_one():
    blank = galaxy_images.blank_lines(REDSHIFT)
    assert blank.size >= 10
    lines = np.array(list(LINES.values())) * (1 + REDSHIFT)
    distance = 299792.458 * np.abs(lines[:, None] / blank - 1)
    assert distance.min() > 2150 - 400


def test_apertures_have_their_area(empty):
    for at in ((0.0, 0.0), (0.31, -0.17)):
        weights = galaxy_images.aperture_weights(empty, CENTRE, 0.4, at)
        assert weights.sum() * 0.005 == pytest.approx(np.pi * 0.16, rel=2e-3)
        east, north = empty.offsets(*CENTRE)
        assert (weights * east).sum() / weights.sum() == pytest.approx(at[0], abs=2e-3)
        assert (weights * north).sum() / weights.sum() == pytest.approx(at[1], abs=2e-3)


def test_shift_and_blur_are_found_again(empty):
    shape = (160, 160)
    wcs = sky_wcs(shape, 0.05, 0.05)
    flat = Cube(np.zeros((1, *shape)), WAVE[:1], wcs, 1.0)
    truth = images.TruthImage(3e-17 * gauss(flat, 0.1, 0.0, 0.2, 0.15, 80.0), wcs, 0.05)
    moved = images.TruthImage(3e-17 * gauss(flat, 0.13, -0.02, 0.2, 0.15, 80.0), wcs, 0.05)
    image = 0.8 * moved.blurred(0.3, 0.15, 20.0).at(*empty.spaxel_sky())
    got = images.match(image, empty, truth, 20.0)
    assert got.flux == pytest.approx(0.8, rel=1e-3)
    assert (got.east, got.north) == (pytest.approx(0.03, abs=1e-4), pytest.approx(-0.02, abs=1e-4))
    assert got.shift == pytest.approx(np.hypot(0.03, 0.02), abs=1e-4)
    assert (got.along, got.across) == (pytest.approx(0.3, abs=2e-3), pytest.approx(0.15, abs=2e-3))
    assert got.fwhm == pytest.approx(np.sqrt((0.3**2 + 0.15**2) / 2), abs=2e-3)
    # Spaxels of much noise hardly count.
    spoilt, sigma = image.copy(), np.ones(image.shape)
    spoilt[:5], sigma[:5] = 1e-16, 1e4
    assert images.match(spoilt, empty, truth, 20.0, sigma).along == pytest.approx(got.along, abs=2e-3)
    assert np.isnan(images.match(np.full(image.shape, np.nan), empty, truth, 0.0).fwhm)


def test_laying_on_other_spaxels_keeps_the_light(empty):
    image = gauss(empty, 0.0, 0.0, 0.3, 0.3, 0.0)
    onto = cube_of(np.zeros((40, 40)), sky_wcs((40, 40), 0.1, 0.1), 0.01)
    got = images.laid_on(image, empty, onto)
    assert np.nansum(got) * 0.01 == pytest.approx(image.sum() * 0.005, rel=5e-3)
    constant = images.laid_on(np.ones(image.shape), empty, onto)
    assert np.isnan(constant).any()
    np.testing.assert_allclose(constant[np.isfinite(constant)], 1.0)


def test_the_slit_widens_an_image_by_its_own_moments():
    shape = (160, 160)
    wcs = sky_wcs(shape, 0.05, 0.05)
    flat = Cube(np.zeros((1, *shape)), WAVE[:1], wcs, 1.0)
    truth = images.TruthImage(gauss(flat, 0.1, -0.05, 0.2, 0.15, 35.0), wcs, 0.05)
    seen = truth.through_slit(0.4, 0.2, 35.0)
    assert seen.flux.sum() == pytest.approx(truth.flux.sum(), rel=1e-9)
    east, north = flat.offsets(*CENTRE)
    a, weight = np.radians(35.0), seen.flux / seen.flux.sum()
    u, v = (east - 0.1) * np.sin(a) + (north + 0.05) * np.cos(a), (east - 0.1) * np.cos(a) - (north + 0.05) * np.sin(a)
    assert (weight * u).sum() == pytest.approx(0, abs=1e-6)
    assert (weight * u**2).sum() == pytest.approx(0.2**2 + 0.2**2 / 12, rel=1e-3)
    assert (weight * v**2).sum() == pytest.approx(0.15**2 + 0.4**2 / 12, rel=1e-3)
    assert (weight * u * v).sum() == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(seen.at(*flat.spaxel_sky()), seen.flux, atol=1e-6)


def test_the_noise_of_apertures_in_white_noise(empty):
    cube = cube_of(np.zeros(empty.shape), empty.wcs, 0.005, noise=0.1, level=2.0)
    radii = (0.2, 0.4)
    # A window of n voxels against continua of many: nearly the square root of n; then that of the spaxels.
    velocity = 299792.458 * (WAVE / LINE_UM - 1)
    n = (np.abs(velocity) <= galaxy_images.HALF_KMS).sum()
    sides = [((velocity >= a) & (velocity <= b)).sum() for a, b in galaxy_images.SIDES_KMS]
    one = to_line_flux(0.1 * 2.35e-4 * np.sqrt(n + n**2 / sum(sides)), LINE_UM) * 0.005
    wanted = [one * np.sqrt((galaxy_images.aperture_weights(empty, CENTRE, r) ** 2).sum()) for r in radii]
    found = noise.measure({"one": cube}, CENTRE, REDSHIFT, radii)
    np.testing.assert_allclose(found.scatter("one"), wanted, rtol=0.25)


def test_noise_is_compared_at_equal_light(empty):
    """Twice the light in three times the noise; of hits, and of what one cube does not know, nothing is seen."""
    quiet = cube_of(np.zeros(empty.shape), empty.wcs, 0.005, noise=0.1, level=2.0)
    loud = cube_of(np.zeros(empty.shape), empty.wcs, 0.005, noise=0.3, level=4.0, seed=2)
    loud.data[300, 20, 25] = 1e3
    loud.data[:100, :, :] = np.nan
    found = noise.measure({"quiet": quiet, "loud": loud}, CENTRE, REDSHIFT, (0.3, 0.1))
    assert found.light["loud"] == pytest.approx(2.0, rel=1e-2)
    error = found.over_light_error("loud")
    assert ((error > 0.03) & (error < 0.2)).all()
    assert (np.abs(found.over_light("loud") - 1.5) < 3.0 * error).all()
    for one, other in zip(*found.fluxes.values(), strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
    with pytest.raises(ValueError, match="no wavelengths without lines in common"):
        noise.measure(
            {"quiet": quiet, "loud": loud.between(LINE_UM - 0.002, LINE_UM + 0.002)}, CENTRE, REDSHIFT, (0.3,)
        )


def test_without_the_sky_noise_is_compared_at_equal_flux(empty):
    image = gauss(empty, 0.0, 0.0, 0.3, 0.3, 0.0)
    with_sky = cube_of(image, empty.wcs, 0.005, noise=1e-3, level=2.0)
    without = Cube(0.8 * (with_sky.data - 2.0), WAVE, with_sky.wcs, with_sky.pixel_sr)
    cubes = {"sky": ("sky", with_sky), "none": ("none", without)}
    table = Meter(CENTRE, REDSHIFT, 30.0, sky=False).table(cubes, 0.5)
    np.testing.assert_allclose(table["noise_ratio"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(table["noise_ratio_beam"], 1.0, rtol=1e-6)


def test_the_table_of_a_perfect_cube(empty):
    cube = cube_of(gauss(empty, 0.0, 0.0, 0.3, 0.3, 0.0), empty.wcs, 0.005, noise=1e-6)
    shape = (120, 120)
    wcs = sky_wcs(shape, 0.05, 0.05)
    flat = Cube(np.zeros((1, *shape)), WAVE[:1], wcs, 1.0)
    truth = images.TruthImage(to_line_flux(gauss(flat, 0.0, 0.0, 0.3, 0.3, 0.0), LINE_UM), wcs, 0.05)
    fainter = Cube(cube.data * 0.9, WAVE, cube.wcs, cube.pixel_sr)
    table = Meter(CENTRE, REDSHIFT, 30.0, truth, (1e-3, 1e-3)).table(
        {"dim": ("dim", fainter), "whole": ("whole", cube)}, 0.5
    )
    np.testing.assert_allclose(table["flux_ratio"], [0.9, 1.0], rtol=2e-3)
    assert (table["centroid_mas"] < 0.1).all()
    # What is sampled needs no blur; laid on the same spaxels, it is averaged over them by the sampling of 0.01".
    for name in ("along", "across"):
        assert (table[name] < 0.03).all()
    # Noise and flux are both less: at equal flux the same.
    np.testing.assert_allclose(table["noise_ratio"], 1.0, rtol=1e-9)
    blind = Meter(CENTRE, REDSHIFT, 30.0).table({"whole": ("whole", cube)}, 0.5)
    assert np.isnan(blind["flux_ratio"][0])
    assert np.isfinite(blind["noise"][0])
