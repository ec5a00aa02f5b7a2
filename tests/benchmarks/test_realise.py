"""Noise drawn for a cube has its errors and its correlation; pulls of fits to many cubes are collected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msa3d.cubes.cube import Cube
from msa3d.errors import ProductError

from ..fixtures.cubes import DEC, RA, REDSHIFT, empty, wavelengths
from ..galaxy.test_discfit import SIGMA0, TRUE, with_disc
from .realise import noise_like, realisations, with_noise

ALONG = (np.array([0.2, 1.0, 0.2]), np.array([0.4, 1.0, 0.4]), np.array([0.3, 1.0, 0.3]))
CORRELATION = ALONG[0][:, None, None] * ALONG[1][None, :, None] * ALONG[2][None, None, :]


@pytest.fixture(scope="module")
def cube() -> Cube:
    bare = empty(31, wavelengths(1.0, 1.4))
    err = np.linspace(0.5, 2.0, 31)[None, :, None] * np.ones_like(bare.data)
    err[:, 3, 4] = np.nan
    return replace(bare, err=err, correlation=CORRELATION)


def test_noise_has_the_errors_and_the_correlation_of_the_cube(cube: Cube):
    noise = noise_like(cube, 1)
    assert np.array_equal(np.isnan(noise), np.isnan(cube.err))
    unit = np.nan_to_num(noise / cube.err)
    assert unit.std() == pytest.approx(1.0, abs=0.01)
    for axis, kernel in enumerate(ALONG):
        first, second = (np.take(unit, np.arange(a, unit.shape[axis] - 1 + a), axis=axis) for a in (0, 1))
        assert np.mean(first * second) == pytest.approx(kernel[0], abs=0.01), axis
    # Two voxels farther apart than the correlation reaches share nothing.
    assert abs(np.mean(unit[:, 2:] * unit[:, :-2])) < 0.01
    # The two ends of the cube are not neighbours.
    assert abs(np.mean(unit[:, 0] * unit[:, -1])) < 0.03


def test_sums_are_as_noisy_as_the_cube_says(cube: Cube):
    mask = np.zeros(cube.shape, dtype=bool)
    mask[10:16, 10:16] = True
    scatter = noise_like(cube, 2)[:, mask].sum(axis=1).std() / np.median(cube.sum_error(mask))
    assert scatter == pytest.approx(1.0, abs=0.06)


def test_seeds_differ_and_repeat(cube: Cube):
    np.testing.assert_array_equal(noise_like(cube, 3), noise_like(cube, 3))
    assert np.nanstd(noise_like(cube, 3) - noise_like(cube, 4)) > 1.0


def test_longer_exposures(cube: Cube):
    noisy = with_noise(cube, 5, times=0.5)
    np.testing.assert_allclose(noisy.err, 0.5 * cube.err)
    assert np.nanstd((noisy.data - cube.data) / cube.err) == pytest.approx(0.5, abs=0.01)


def test_without_errors_there_is_no_noise(cube: Cube):
    with pytest.raises(ProductError, match="no errors"):
        noise_like(replace(cube, err=None), 0)


def test_pulls_are_collected():
    truth = {"sigma0": SIGMA0, "v_sin_i": TRUE.v_sin_i, "systemic": TRUE.systemic}
    place = {"ra": RA, "dec": DEC, "inclination_deg": 35.0, "pa_deg": 40.0}
    found = realisations(lambda seed: with_disc(0.05, seed), truth, REDSHIFT, n=3, **place)
    assert found.names == tuple(truth)
    assert found.pulls.shape == (3, 3)
    assert np.abs(found.pulls).max() < 4.0
    # Another noise, another pull: the widths are not zero, and the mean is that of three.
    assert min(found.width.values()) > 0.05
    assert found.mean["sigma0"] == pytest.approx(found.pulls[:, 0].mean())
