"""Errors from the cube itself: 1 for independent voxels, larger where they share noise."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from msa3d.galaxy.lines import fit_halpha
from msa3d.galaxy.noise import ERROR_FIELDS, error_factor, with_errors_scaled

REDSHIFT = 1.104
WAVE = np.arange(1.30, 1.47, 2.35e-4)


def noise(seed=4, shape=(12, 12)):
    return np.random.default_rng(seed).normal(0, 1, (WAVE.size, *shape))


def test_independent_voxels_need_no_factor():
    assert error_factor(WAVE, noise() + 5.0, REDSHIFT) == pytest.approx(1.0, abs=0.06)


def test_noise_shared_along_the_wavelengths_is_found():
    smooth = gaussian_filter1d(noise(), 3.0, axis=0)
    factor = error_factor(WAVE, smooth, REDSHIFT)
    assert factor > 2.0
    # A fit of a line where there is none must then scatter by one of its errors.
    maps = fit_halpha(WAVE, smooth, 1.04)
    formal = (maps.halpha > 5 * maps.halpha_error).mean()
    scaled = with_errors_scaled(maps, factor)
    assert (scaled.halpha > 5 * scaled.halpha_error).mean() < formal


def test_the_galaxys_own_lines_do_not_count():
    cube = noise()
    near = np.abs(WAVE / (0.6564614 * (1 + REDSHIFT)) - 1) < 3e-4
    cube[near] += 500.0
    assert error_factor(WAVE, cube, REDSHIFT) == pytest.approx(1.0, abs=0.06)


def test_empty_spaxels_do_not_count_and_nothing_gives_nan():
    cube = noise()
    cube[:, :6] = 0.0
    cube[:, 6:8] = np.nan
    assert error_factor(WAVE, cube, REDSHIFT) == pytest.approx(1.0, abs=0.08)
    assert np.isnan(error_factor(WAVE, np.full_like(cube, np.nan), REDSHIFT))


def test_only_errors_are_scaled():
    maps = fit_halpha(WAVE, noise(shape=(3, 3)), REDSHIFT)
    scaled = with_errors_scaled(maps, 2.5)
    for name in ERROR_FIELDS:
        np.testing.assert_allclose(getattr(scaled, name), 2.5 * getattr(maps, name))
    np.testing.assert_array_equal(scaled.halpha, maps.halpha)
    np.testing.assert_array_equal(scaled.noise, maps.noise)
