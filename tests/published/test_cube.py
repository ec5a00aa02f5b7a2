"""tests.published.test_cube"""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from msa3d.errors import ProductError
from msa3d.published import cube as cube_module

from ..fixtures.oracle import Exposure, published_cube
from ..fixtures.stepping import Stepping, blob


def noisy(stepping, seed=0):
    """A source in noise, with NaN and negative values."""
    rng = np.random.default_rng(seed)
    source = blob(stepping.ra, stepping.dec)

    def sky(ra, dec, wave):
        data = source(ra, dec, wave) + rng.normal(0, 0.1, size=wave.shape)
        data[rng.random(wave.shape) < 0.002] = np.nan
        return data

    return sky


def oracle_of(stepping, spectra):
    """The published cube of the same data, big-endian as FITS has them, with the same WCS."""
    exposures = [Exposure.of(spectrum.data.astype(">f8"), stepping.wcs(*place)) for place, spectrum in spectra.items()]
    return published_cube(exposures, stepping.rows, stepping.columns)


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 4), (7, 9)])
def test_equal_to_the_published_algorithm_to_the_last_bit(rows, columns):
    stepping = Stepping(rows=rows, columns=columns, ny=12, jitter=0.005)
    spectra = stepping.spectra(noisy(stepping))
    stacks, medians, cube, grid = oracle_of(stepping, spectra)
    kept = {}
    got = cube_module.build_median(
        spectra,
        n_rows=rows,
        n_columns=columns,
        on_column=lambda column, stack, values: kept.update({column: (stack.copy(), values)}),
    )
    np.testing.assert_array_equal(got.wave_um, grid)
    for column in range(columns):
        np.testing.assert_array_equal(kept[column][0], stacks[column])
        np.testing.assert_array_equal(kept[column][1], medians[column])
    np.testing.assert_array_equal(got.data, cube)
    assert np.isfinite(cube).mean() > 0.8
    assert np.nanmax(cube) > 0.5


def test_exposures_of_unequal_wavelengths_and_heights():
    # The published code needs columns to begin with exposures as high as the first one; others may differ.
    stepping = Stepping(rows=3, columns=2, ny=10)
    sky = noisy(stepping)
    spectra, exposures = {}, []
    for number, place in enumerate(stepping.places()):
        ny = 10 if place[0] == 0 else 10 + (-1) ** number
        one = dataclasses.replace(stepping, ny=ny, wave_um=stepping.wave_um[number : 200 + number])
        spectra[place] = one.spectra(sky)[place]
        exposures.append(Exposure.of(spectra[place].data.astype(">f8"), one.wcs(*place)))
    *_, cube, grid = published_cube(exposures, 3, 2)
    got = cube_module.build_median(spectra, n_rows=3, n_columns=2)
    np.testing.assert_array_equal(got.wave_um, grid)
    np.testing.assert_array_equal(got.data, cube)
    assert {spectrum.shape[0] for spectrum in spectra.values()} == {9, 10, 11}


@pytest.mark.parametrize("number", [1, 2, 3, 6, 7])
def test_plane_median_is_that_of_numpy(number):
    stack = np.random.default_rng(number).normal(size=(number, 40, 50))
    stack[:, :3] = 0
    stack[0, 5, 5] = np.nan
    stack[:, 6, 6] = np.inf
    np.testing.assert_array_equal(cube_module.plane_median(stack), np.median(stack, axis=0))


@pytest.mark.parametrize(("rows", "columns", "place"), [(7, 9, (3, 4)), (3, 3, (1, 1)), (2, 4, (0, 1)), (1, 1, (0, 0))])
def test_middle_exposure(rows, columns, place):
    assert cube_module.middle_place(rows, columns) == place


def test_a_missing_exposure_takes_no_part():
    stepping = Stepping(rows=3, columns=3, ny=8)
    spectra = stepping.spectra(blob(stepping.ra, stepping.dec))
    whole = cube_module.build_median(spectra, n_rows=3, n_columns=3)
    stacks = {}
    without = {place: value for place, value in spectra.items() if place != (1, 0)}
    got = cube_module.build_median(
        without,
        n_rows=3,
        n_columns=3,
        on_column=lambda column, stack, _: stacks.update({column: stack.copy()}),
    )
    np.testing.assert_array_equal(got.data[:, :, 1:], whole.data[:, :, 1:])
    assert np.isnan(stacks[0][1]).all()
    np.testing.assert_array_equal(got.data[:, :, 0].T, np.median(stacks[0][[0, 2]], axis=0))
    assert got.planes.tolist() == [2, 3, 3]
    assert got.nexp[:, 0].max() == 2
    assert got.nexp[:, 1].max() == 3


def test_a_column_without_exposures_is_nan():
    stepping = Stepping(rows=1, columns=3, ny=6)
    spectra = stepping.spectra(noisy(stepping))
    del spectra[0, 2]
    got = cube_module.build_median(spectra, n_rows=1, n_columns=3)
    assert np.isnan(got.data[:, :, 2]).all()
    assert np.isfinite(got.data[:, :, :2]).any()
    assert got.planes.tolist() == [1, 1, 0]


def test_the_native_pixel_falls_back_to_the_nearest_exposure(caplog):
    stepping = Stepping(rows=1, columns=3, ny=6)
    spectra = stepping.spectra(noisy(stepping))
    del spectra[0, 1]
    with caplog.at_level(logging.WARNING):
        got = cube_module.build_median(spectra, n_rows=1, n_columns=3)
    assert "middle exposure missing" in caplog.text
    assert got.geometry.native_arcsec == pytest.approx(stepping.pixel, abs=2e-5)


def test_no_exposure_at_all():
    with pytest.raises(ProductError, match="no 2-D spectrum"):
        cube_module.build_median({}, n_rows=1, n_columns=1)


def test_rows_that_only_zeros_reach_are_counted():
    stepping = Stepping(rows=7, columns=1, ny=6)
    spectra = stepping.spectra(lambda ra, dec, wave: np.ones_like(wave))
    got = cube_module.build_median(spectra, n_rows=7, n_columns=1)
    # The published median counts the zeros around: rows with fewer than 4 of 7 exposures are 0.
    expected = np.where(got.nexp[:, 0] >= 4, 1.0, 0.0)
    np.testing.assert_allclose(got.data[5, :, 0], expected)
    assert got.nexp[0, 0] == 1
    assert got.nexp[:, 0].max() == 7
