"""Noise that whole detector columns share is found in a cube, and apertures of any size have the right errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msa3d.cubes.cube import Cube
from msa3d.cubes.psf import quadratic_form
from msa3d.cubes.shared import add_shared, blank_noise

from ..fixtures.cubes import RA, REDSHIFT, empty, wavelengths
from ..fixtures.galaxies import noisy

PA_DEG = -13.0
WIDTH = 0.2


def shared_noise(cube: Cube, rng: np.random.Generator, memory: float = 0.5) -> np.ndarray:
    """Noise of unit variance, the same in all spaxels of a step of the slit, remembered along wavelength."""
    east, north = cube.offsets(RA, 52.9)
    angle = np.radians(PA_DEG)
    across = east * np.cos(angle) - north * np.sin(angle)
    step = np.floor(across / WIDTH).astype(int)
    step -= step.min()
    series = rng.normal(size=(cube.wave_um.size, step.max() + 1))
    for i in range(1, len(series)):
        series[i] = memory * series[i - 1] + np.sqrt(1 - memory**2) * series[i]
    return series[:, step]


@pytest.fixture(scope="module")
def spoilt() -> Cube:
    """A part of 0.15 of the variance is shared by steps of the slit, the rest by neighbours."""
    cube = noisy(empty(25, wavelengths(1.0, 1.4)), 1.0, 3)
    data = np.sqrt(0.85) * cube.data + np.sqrt(0.15) * shared_noise(cube, np.random.default_rng(4))
    return replace(cube, data=data)


def with_shared(cube: Cube) -> Cube:
    noise = blank_noise(cube.data, cube.err)
    return replace(cube, correlation=add_shared(cube.correlation, noise, cube.wcs, PA_DEG))


@pytest.mark.parametrize("radius, few", [(0.1, 0.97), (0.2, 1.02), (0.5, 1.10)])
def test_errors_of_apertures_are_their_scatter(spoilt, radius, few):
    """Five apertures of 1700 wavelengths: the scatter is known to a per cent or two."""
    found = with_shared(spoilt)
    east, north = spoilt.offsets(RA, 52.9)
    pulls, before = [], []
    for x, y in ((0, 0), (0.5, 0.5), (-0.5, 0.5), (0.5, -0.5), (-0.5, -0.5)):
        mask = np.hypot(east - x, north - y) <= radius
        total = (spoilt.data * mask).sum(axis=(1, 2))
        pulls.append(np.std(total / found.sum_error(mask)))
        before.append(np.std(total / spoilt.sum_error(mask)))
    assert np.mean(pulls) == pytest.approx(1.0, abs=0.03)
    assert np.mean(before) > few


def test_the_spectra_of_apertures_know_their_correlation_along_wavelength(spoilt):
    found = with_shared(spoilt)
    mask = np.hypot(*spoilt.offsets(RA, 52.9)) <= 0.5
    weighted = np.ones((1, *spoilt.shape)) * mask
    middle = found.correlation.shape[0] // 2
    told = [quadratic_form(weighted, found.correlation[middle + lag])[0] for lag in range(4)]
    total = (spoilt.data * mask).sum(axis=(1, 2))
    real = [np.mean(total[: total.size - lag] * total[lag:]) for lag in range(4)]
    np.testing.assert_allclose(np.array(told) / told[0], np.array(real) / real[0], atol=0.06)


def test_nothing_is_found_where_nothing_is_shared():
    cube = noisy(empty(25, wavelengths(1.0, 1.4)), 1.0, 5)
    found = with_shared(cube)
    mask = np.hypot(*cube.offsets(RA, 52.9)) <= 0.5
    assert np.median(found.sum_error(mask) / cube.sum_error(mask)) == pytest.approx(1.0, abs=0.02)


def test_galaxies_are_not_noise(spoilt):
    """Continuum and lines, known and unknown, are in no way shared noise."""
    base = with_shared(spoilt)
    east, north = spoilt.offsets(RA, 52.9)
    light = np.exp(-np.hypot(east, north) / 0.4)
    bright = spoilt.data + 5.0 * light + 2.0 * light * np.linspace(-1.0, 1.0, spoilt.wave_um.size)[:, None, None]
    for line_um in (0.65646 * (1 + REDSHIFT), 1.2345):
        bright += 20.0 * light * np.exp(-0.5 * ((spoilt.wave_um - line_um) / 4e-4) ** 2)[:, None, None]
    found = with_shared(replace(spoilt, data=bright))
    mask = np.hypot(east, north) <= 0.5
    assert np.median(found.sum_error(mask) / base.sum_error(mask)) == pytest.approx(1.0, abs=0.02)


def test_a_short_cube_is_left_as_it_is():
    cube = noisy(empty(25, wavelengths(1.30, 1.33)), 1.0, 5)
    assert with_shared(cube).correlation is cube.correlation
