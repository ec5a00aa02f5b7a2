"""tests.published.test_rectified"""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from scipy.interpolate import RegularGridInterpolator
from stdatamodels.jwst import datamodels

from msa3d.errors import ProductError
from msa3d.published.cube import StackGeometry, common_wavelengths, interpolate
from msa3d.published.rectified import read_spectrum
from msa3d.reduce.geometry import read_rectified

from ..fixtures.stepping import GAP_UM, Stepping, slit_wcs, wavelengths, write_s2d


def scipy_interpolate(data, wave, positions, grid):
    nodes = np.arange(data.shape[0], dtype=float)
    function = RegularGridInterpolator((nodes, wave), data, bounds_error=False, fill_value=np.nan)
    return function(tuple(np.meshgrid(positions, grid, indexing="ij")))


@pytest.fixture
def image():
    rng = np.random.default_rng(5)
    data = rng.normal(0.3, 0.2, size=(9, 240))
    data[3, 50:54] = np.nan
    data[:, 0] = np.nan
    data[8, 200] = np.inf
    return data


@pytest.mark.parametrize("byte_order", ["<f8", ">f8"])
def test_interpolation_equals_scipy_to_the_last_bit(image, byte_order):
    # As read from a FITS file the data are big-endian, for which scipy takes another way than for native ones;
    # the published code gave it such data.
    wave = wavelengths()
    positions = np.linspace(0, 8, 33)
    grid = common_wavelengths([wave, wave + 3e-4, wave - 1e-4])
    with np.errstate(invalid="ignore"):
        expected = scipy_interpolate(image.astype(byte_order), wave, positions, grid)
        got = interpolate(image, wave, positions, grid)
    assert np.isnan(expected).any()
    assert np.isfinite(expected).sum() > 0.8 * expected.size
    if byte_order == ">f8":
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


def test_interpolation_is_nan_outside_the_spectrum(image):
    wave = wavelengths()
    out = interpolate(image[:, 60:], wave[60:], np.array([-0.1, 0.0, 8.0, 8.1]), wave[[0, 59, 60, 100, 239]])
    assert np.isnan(out[[0, 3]]).all()
    assert np.isnan(out[:, :2]).all()
    np.testing.assert_array_equal(out[1:3, 3], image[[0, 8], 100])


def test_a_node_is_returned_as_it_is(image):
    wave = wavelengths()
    clean = np.where(np.isfinite(image), image, 0.5)
    np.testing.assert_array_equal(interpolate(clean, wave, np.arange(9.0), wave), clean)


def test_wavelength_grid_spans_all_exposures_at_the_finest_step():
    one, two = np.array([1.0, 1.3, 1.5]), np.array([0.9, 1.2, 1.85])
    grid = common_wavelengths([one, two])
    np.testing.assert_array_equal(grid, np.arange(0.9, 1.85, 1.5 - 1.3))
    assert grid.size == 5


def test_published_geometry():
    geometry = StackGeometry(native_arcsec=0.1009, n_pixels=30, n_exposures=7, row_step_arcsec=0.075)
    np.testing.assert_allclose(geometry.exact_offsets, [0, 2.973, 5.946, 8.920, 11.893, 14.866, 17.839], atol=1e-3)
    assert geometry.offsets.tolist() == [0, 2, 5, 8, 11, 14, 17]
    assert geometry.n_rows == int((30 + 4.5) * 4) == 138
    assert geometry.positions.size == 29 * 4 + 1
    assert geometry.positions[-1] == 29


def test_a_longer_pattern_gets_the_rows_it_needs():
    geometry = StackGeometry(native_arcsec=0.1, n_pixels=10, n_exposures=12, row_step_arcsec=0.1)
    assert geometry.n_rows == geometry.offsets[-1] + geometry.positions.size > int(14.5 * 4)


def test_geometry_of_a_file_comes_from_its_wcs(tmp_path):
    stepping = Stepping(pixel=0.10517)
    path = tmp_path / "newoutput_s08512_s2d.fits"
    data = np.ones((stepping.ny, stepping.wave_um.size))
    write_s2d(path, data, stepping.wcs(1, 1), 8512)
    spectrum = read_spectrum(path)
    np.testing.assert_allclose(spectrum.wave_um, stepping.wave_um, rtol=1e-12)
    assert np.diff(spectrum.wave_um).max() == pytest.approx(GAP_UM, rel=0.02)
    assert spectrum.geometry.native_pixel_arcsec == pytest.approx(0.10517, abs=2e-5)
    assert spectrum.geometry.native_pixel_arcsec == round(spectrum.geometry.native_pixel_arcsec, 5)
    middle = spectrum.geometry.ends.mean(axis=0)
    np.testing.assert_allclose(middle, [stepping.ra, stepping.dec], atol=0.001 / 3600)
    assert spectrum.data.dtype == np.float64
    with datamodels.open(path) as model:
        world = model.meta.wcs.get_transform("detector", "world")
        np.testing.assert_array_equal(spectrum.wave_um, world(np.arange(240), np.zeros(240))[2])
        np.testing.assert_array_equal(spectrum.geometry.ends[0], world(120, 0)[:2])


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(ProductError, match=r"none\.fits: the 2-D spectrum is missing"):
        read_spectrum(tmp_path / "none.fits")
    bare = tmp_path / "bare_s2d.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((30, 400)), name="SCI")]).writeto(bare)
    with pytest.raises(ProductError, match=r"bare_s2d\.fits.*cannot be read.*ASDF"):
        read_rectified(bare)
    bare.write_bytes(bare.read_bytes()[:-20000])
    with pytest.raises(ProductError, match=r"bare_s2d\.fits.*cannot be read.*truncated"):
        read_spectrum(bare)


def test_falling_wavelengths_are_refused(tmp_path):
    wave = wavelengths(40)
    wave[20:] -= 0.05
    path = tmp_path / "newoutput_s00101_s2d.fits"
    write_s2d(path, np.ones((5, 40)), slit_wcs(10.0, 0.0, 0.0, 5, wave, 0.1), 101)
    with pytest.raises(ProductError, match="do not increase"):
        read_rectified(path)
