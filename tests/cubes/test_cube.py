"""Cubes are read with their place and wavelengths, and images and spectra are taken from them."""

import numpy as np
import pytest
from astropy.io import fits

from msa3d.cubes.cube import open_cube
from msa3d.errors import ProductError
from msa3d.galaxy.images import collapsed_image, integrated_spectrum, observed
from msa3d.pipeline.products import mark_simulated


@pytest.fixture
def path(tmp_path):
    """Ten wavelengths of 4 x 3 spaxels of 0.1" x 0.2"; one spaxel empty, one voxel flagged."""
    data = np.full((10, 4, 3), 2.0, dtype=np.float32)
    data[:, 0, 0] = 0.0
    data[3, 2, 1] = 99.0
    data[5, 1, 1] = 500.0
    header = fits.Header()
    for axis, (kind, unit, value, pixel, step) in enumerate(
        (
            ("RA---TAN", "deg", 215.0, 2.0, -0.2 / 3600),
            ("DEC--TAN", "deg", 52.9, 2.5, 0.1 / 3600),
            ("WAVE", "um", 1.0, 1.0, 0.001),
        ),
        start=1,
    ):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = kind, unit
        header[f"CRVAL{axis}"], header[f"CRPIX{axis}"], header[f"CDELT{axis}"] = value, pixel, step
    dq = np.zeros(data.shape, dtype=np.int32)
    dq[3, 2, 1] = 1
    primary = fits.PrimaryHDU()
    mark_simulated(primary.header)
    path = tmp_path / "cube.fits"
    hdus = [primary, fits.ImageHDU(data, header, name="SCI"), fits.ImageHDU(dq, name="DQ")]
    fits.HDUList(hdus).writeto(path)
    return path


def test_reading(path):
    cube = open_cube(path)
    assert cube.simulated
    assert cube.shape == (4, 3)
    np.testing.assert_allclose(cube.wave_um, 1.0 + 0.001 * np.arange(10), rtol=1e-12)
    assert cube.pixel_sr == pytest.approx(0.02 / 206264.806**2, rel=1e-6)
    assert np.isnan(cube.data[3, 2, 1])
    east, north = cube.offsets(215.0, 52.9)
    np.testing.assert_allclose(east[0], [0.2, 0.0, -0.2], atol=1e-6)
    np.testing.assert_allclose(north[:, 1], [-0.15, -0.05, 0.05, 0.15], atol=1e-6)
    assert cube.offsets(215.0, 52.9, corners=True)[0].shape == (5, 4)


def test_collapsed_image_leaves_outliers_and_empty_spaxels_out(path):
    cube = open_cube(path)
    image = collapsed_image(cube)
    assert np.isnan(image[0, 0])
    assert not observed(cube)[0, 0]
    np.testing.assert_allclose(np.delete(image.ravel(), 0), 2.0)
    with pytest.raises(ValueError, match="no wavelength within"):
        collapsed_image(cube, (3.0, 4.0))


def test_integrated_spectrum_is_brightness_times_solid_angle(path):
    cube = open_cube(path)
    spectrum = integrated_spectrum(cube, 215.0, 52.9, 1.0)
    assert spectrum.n_spaxels == 11
    assert spectrum.flux_ujy[0] == pytest.approx(2.0 * 11 * cube.pixel_sr * 1e12)
    # The flagged voxel is left out of the mean, not counted as zero.
    assert spectrum.flux_ujy[3] == pytest.approx(spectrum.flux_ujy[0])
    with pytest.raises(ValueError, match="no data within"):
        integrated_spectrum(cube, 216.0, 52.9, 1.0)


def test_missing_and_foreign_files_are_told(tmp_path):
    with pytest.raises(ProductError, match="is missing"):
        open_cube(tmp_path / "none.fits")
    flat = tmp_path / "flat.fits"
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(flat)
    with pytest.raises(ProductError, match="no image with three axes"):
        open_cube(flat)
    bare = tmp_path / "bare.fits"
    fits.PrimaryHDU(np.zeros((3, 3, 3))).writeto(bare)
    with pytest.raises(ProductError, match="no sky and wavelength axes"):
        open_cube(bare)
