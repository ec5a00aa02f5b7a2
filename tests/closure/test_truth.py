"""Comparison with a truth: resampling keeps brightness and place, and the figures are what they say."""

import numpy as np
import pytest
from astropy.wcs import WCS

from msa3d.closure.truth import compare, on_spaxels
from msa3d.cubes.cube import Cube
from msa3d.galaxy.images import centroid


def plane(ny, nx, scale, angle=0.0, ra=10.0, dec=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = np.array([[-scale[0] * cos, scale[1] * sin], [scale[0] * sin, scale[1] * cos]]) / 3600
    return wcs


def cube_like(data, wcs):
    return Cube(data, np.arange(data.shape[0], dtype=float), wcs, 1.0, True)


def test_a_flat_truth_stays_flat_and_is_nan_outside():
    truth = cube_like(np.full((2, 61, 61), 3.0), plane(61, 61, (0.05, 0.05)))
    cube = cube_like(np.zeros((1, 100, 5)), plane(100, 5, (0.2, 0.05), angle=30.0))
    seen = on_spaxels(truth, cube)
    assert seen.data.shape == (2, 100, 5)
    assert np.isnan(seen.data[:, 0]).all()
    inner = seen.data[:, 35:65]
    np.testing.assert_allclose(inner, 3.0)


def test_a_source_is_seen_where_it_is():
    fine = plane(81, 81, (0.05, 0.05))
    truth = cube_like(np.zeros((1, 81, 81)), fine)
    east, north = truth.offsets(10.0, 0.0)
    truth.data[0] = np.exp(-0.5 * ((east - 0.3) ** 2 + (north + 0.2) ** 2) / 0.2**2)
    cube = cube_like(np.zeros((1, 60, 15)), plane(60, 15, (0.1, 0.05), angle=30.0))
    seen = on_spaxels(truth, cube).data[0]
    found = centroid(np.nan_to_num(seen), *cube.offsets(10.0, 0.0))
    np.testing.assert_allclose(found, (0.3, -0.2), atol=0.01)


def test_compare_measures_offset_scatter_and_pull():
    rng = np.random.default_rng(1)
    truth = rng.uniform(50.0, 150.0, (60, 60))
    result = truth + 5.0 + rng.normal(0, 2.0, truth.shape)
    result[0] = np.nan
    got = compare(result, truth, quantity="v", unit="km/s", error=np.full(truth.shape, 2.0))
    assert got.n == 59 * 60
    assert got.median == pytest.approx(5.0, abs=0.15)
    assert got.scatter == pytest.approx(2.0, rel=0.06)
    assert got.pull == pytest.approx(1.0, rel=0.06)
    assert got.ratio == pytest.approx(1.05, abs=0.01)
    assert got.correlation > 0.99


def test_a_ratio_of_signed_quantities_means_nothing():
    truth = np.array([[-50.0, 0.0, 60.0]])
    assert np.isnan(compare(truth + 1.0, truth, quantity="velocity", unit="km/s").ratio)


def test_compare_needs_spaxels():
    with pytest.raises(ValueError, match="only 0 spaxels"):
        compare(np.full((3, 3), np.nan), np.ones((3, 3)), quantity="v", unit="km/s")
