"""Lines: the fit recovers what was put in, with errors that are right."""

import numpy as np
import pytest

from msa3d import constants
from msa3d.constants import LINES
from msa3d.galaxy import lines
from msa3d.galaxy.lines import fit_halpha, line_window, to_line_flux

REDSHIFT = 1.104
WAVE = np.arange(1.33, 1.44, 2.35e-4)


def cube_of(velocity, sigma, amplitude, nii=0.3, level=0.2, shape=(12, 12)):
    profile = lines._Profile(WAVE, REDSHIFT)
    v, s, a = (np.broadcast_to(x, shape).ravel().astype(float) for x in (velocity, sigma, amplitude))
    halpha, nitrogen = profile.lines(v, s)
    return (a[:, None] * (halpha + nii * nitrogen) + level).T.reshape(WAVE.size, *shape)


def test_noiseless_lines_come_back():
    velocity = np.linspace(-150, 150, 144).reshape(12, 12)
    sigma = np.linspace(45, 120, 144).reshape(12, 12).T
    maps = fit_halpha(WAVE, cube_of(velocity, sigma, 1e-3), REDSHIFT)
    expected = to_line_flux(np.array(1e-3), LINES["Ha"] * (1 + REDSHIFT))
    np.testing.assert_allclose(maps.velocity, velocity, atol=0.05)
    np.testing.assert_allclose(maps.sigma, sigma, atol=0.05)
    np.testing.assert_allclose(maps.halpha, expected, rtol=1e-4)
    ratio = maps.nii / maps.halpha * (LINES["[NII]6583"] / LINES["Ha"]) ** 2
    np.testing.assert_allclose(ratio, 0.3, rtol=1e-3)
    np.testing.assert_allclose(maps.continuum, 0.2, rtol=1e-4)


def test_line_flux_is_the_integral_over_frequency():
    # 1 MJy/sr over 1 GHz is 1e-17 W-ish by definition: 1e-17 erg/s/cm2/Hz/sr x 1e9 Hz.
    wave = 1.3812
    width_um = 1e9 * wave**2 / (constants.C_KMS * 1e9)
    flux = to_line_flux(np.array(width_um), wave)
    assert flux == pytest.approx(1e-17 * 1e9 / lines.SQUARE_ARCSEC_PER_SR, rel=1e-12)


@pytest.mark.parametrize("with_errors", [False, True])
def test_errors_match_the_scatter(with_errors):
    rng = np.random.default_rng(3)
    shape, noise = (30, 20), 0.04
    cube = cube_of(40.0, 70.0, 8e-4, shape=shape)
    cube = cube + rng.normal(0, noise, cube.shape)
    error = np.full(cube.shape, noise) if with_errors else None
    maps = fit_halpha(WAVE, cube, REDSHIFT, error=error)
    assert maps.reliable().mean() > 0.95
    pull = (maps.velocity - 40.0) / maps.velocity_error
    assert abs(np.mean(pull)) < 0.2
    assert np.std(pull) == pytest.approx(1.0, abs=0.12)
    true = to_line_flux(np.array(8e-4), LINES["Ha"] * (1 + REDSHIFT))
    assert np.std((maps.halpha - true) / maps.halpha_error) == pytest.approx(1.0, abs=0.12)
    np.testing.assert_allclose(np.median(maps.noise), noise, rtol=0.03)


def test_empty_spaxels_are_nan_and_nan_voxels_are_left_out():
    cube = cube_of(-30.0, 60.0, 1e-3, shape=(4, 4))
    cube[:, 0, 0] = 0.0
    cube[:, 0, 1] = np.nan
    cube[10:14, 1, 1] = np.nan
    cube[::2, 2, 2] = np.nan
    maps = fit_halpha(WAVE, cube, REDSHIFT)
    for empty in ((0, 0), (0, 1), (2, 2)):
        assert np.isnan(maps.halpha[empty])
        assert np.isnan(maps.velocity[empty])
        assert not maps.reliable()[empty]
    assert maps.velocity[1, 1] == pytest.approx(-30.0, abs=0.05)


def test_pure_noise_is_not_reliable():
    rng = np.random.default_rng(5)
    maps = fit_halpha(WAVE, rng.normal(0, 1, (WAVE.size, 20, 20)), REDSHIFT)
    assert maps.reliable().mean() < 0.05


def test_a_line_outside_the_wavelengths_is_an_error():
    with pytest.raises(ValueError, match=r"Ha at z = 2 lies at 1\.9694 um"):
        line_window(WAVE, 2.0)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="does not go with"):
        fit_halpha(WAVE[:-1], np.zeros((WAVE.size, 2, 2)), REDSHIFT)
