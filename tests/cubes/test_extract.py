"""Spectra of apertures: flux, exact edges, errors with their covariance, and a file that others read."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from typer.testing import CliRunner

from msa3d import Ellipse, Mask, circle, extract, open_cube
from msa3d.cli import app
from msa3d.cubes.cube import Cube
from msa3d.cubes.extract import brightest
from msa3d.errors import ProductError
from msa3d.observation.sky import SR_PER_SQUARE_ARCSEC, from_tangent
from msa3d.pipeline.products import is_simulated

from ..fixtures import smallcube

RA, DEC = 215.05, 52.938


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return smallcube.write(tmp_path_factory.mktemp("cube") / "jw02136-o001_s08512_nirspec_f100lp-g140h_s3d.fits")


@pytest.fixture
def cube(path):
    return open_cube(path)


def uniform(shape=(4, 41, 31), value=2.0, matrix=None) -> Cube:
    """A cube of one brightness, its spaxels sheared and oblong if a matrix (deg) is given."""
    grid = replace(smallcube.GRID, shape=shape)
    wcs = grid.wcs().celestial
    if matrix is not None:
        wcs.wcs.pc = np.array(matrix) / 0.1
    area = abs(np.linalg.det(wcs.pixel_scale_matrix)) * 3600**2 * SR_PER_SQUARE_ARCSEC
    return Cube(np.full(shape, value), grid.wave_um, wcs, area, err=np.full(shape, 0.1))


# --- apertures


@pytest.mark.parametrize("matrix", [None, [[-0.1, 0.03], [0.02, 0.06]]])
@pytest.mark.parametrize("ratio", [1.0, 0.4])
def test_a_uniform_field_gives_brightness_times_area(matrix, ratio):
    cube = uniform(matrix=matrix)
    ellipse = Ellipse(*from_tangent(0.03, -0.04, RA, DEC), 0.6, ratio, 25.0)
    spectrum = extract(cube, ellipse)
    area = np.pi * 0.6**2 * ratio * SR_PER_SQUARE_ARCSEC
    assert spectrum.area_sr == pytest.approx(area, rel=1e-6)
    np.testing.assert_allclose(spectrum.flux_jy, 2.0 * area * 1e6, rtol=1e-6)
    np.testing.assert_allclose(spectrum.brightness, 2.0, rtol=1e-12)


@pytest.mark.parametrize("matrix", [None, [[-0.1, 0.03], [0.02, 0.06]]])
def test_weights_are_the_part_of_a_spaxel_inside(matrix):
    """Against points: an ellipse of 0.7 by 0.21 arcsec at PA 70, on a grid that is turned, or sheared."""
    cube = uniform(matrix=matrix)
    ra, dec = (float(value) for value in from_tangent(-0.05, 0.08, RA, DEC))
    weights = Ellipse(ra, dec, 0.7, 0.3, 70.0).weights(cube)
    fine = 40
    y, x = ((np.arange(n * fine) + 0.5) / fine - 0.5 for n in cube.shape)
    world = cube.wcs.pixel_to_world_values(*np.meshgrid(x, y))
    east = (world[0] - ra) * np.cos(np.radians(dec)) * 3600
    north = (world[1] - dec) * 3600
    pa = np.radians(70.0)
    major, minor = east * np.sin(pa) + north * np.cos(pa), east * np.cos(pa) - north * np.sin(pa)
    inside = (major / 0.7) ** 2 + (minor / 0.21) ** 2 <= 1
    counted = inside.reshape(cube.shape[0], fine, cube.shape[1], fine).mean(axis=(1, 3))
    np.testing.assert_allclose(weights, counted, atol=0.01)
    assert weights.sum() == pytest.approx(counted.sum(), rel=1e-4)


def test_the_outline_of_an_inclined_disc():
    assert Ellipse.inclined(RA, DEC, 0.5, 0.0, 10.0).axis_ratio == pytest.approx(1.0)
    assert Ellipse.inclined(RA, DEC, 0.5, 90.0, 10.0).axis_ratio == pytest.approx(0.2)
    assert Ellipse.inclined(RA, DEC, 0.5, 60.0, 10.0, thickness=0.0).axis_ratio == pytest.approx(0.5)


@pytest.mark.parametrize(("radius", "ratio"), [(0.0, 1.0), (-1.0, 1.0), (0.5, 0.0), (0.5, 1.2), (np.nan, 1.0)])
def test_what_is_no_ellipse_is_refused(radius, ratio):
    with pytest.raises(ProductError, match="is no ellipse"):
        Ellipse(RA, DEC, radius, ratio)


def test_a_mask_image(tmp_path):
    cube = uniform()
    image = np.zeros(cube.shape)
    image[20, 10:13] = [0.5, 1.0, 0.25]
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image)]).writeto(tmp_path / "mask.fits")
    spectrum = extract(cube, Mask.read(tmp_path / "mask.fits"))
    np.testing.assert_allclose(spectrum.flux_jy, 2.0 * 1.75 * cube.pixel_sr * 1e6)
    np.testing.assert_allclose(extract(cube, Mask(image > 0)).area_sr, 3 * cube.pixel_sr)
    with pytest.raises(ProductError, match="has the shape"):
        extract(cube, Mask(image[1:]))
    with pytest.raises(ProductError, match="a mask is 0 to 1"):
        extract(cube, Mask(image * 3))
    with pytest.raises(ProductError, match="no FITS file"):
        Mask.read(tmp_path / "none.fits")
    fits.PrimaryHDU(np.zeros(3)).writeto(tmp_path / "line.fits")
    with pytest.raises(ProductError, match="no image with two axes"):
        Mask.read(tmp_path / "line.fits")


def test_an_aperture_off_the_cube_is_told():
    with pytest.raises(ProductError, match="has no data in the aperture"):
        extract(uniform(), circle(RA + 1.0, DEC, 0.5))


# --- missing voxels


def test_missing_voxels_count_as_the_mean_and_empty_spaxels_not_at_all():
    cube = uniform()
    cube.data[1, 20, 15] = np.nan
    cube.data[2] = np.nan
    cube.data[:, 21, 15] = np.nan
    cube.err[np.isnan(cube.data)] = np.nan
    spectrum = extract(cube, Mask(np.ones(cube.shape)))
    n = cube.shape[0] * cube.shape[1] - 1
    assert spectrum.area_sr == pytest.approx(n * cube.pixel_sr)
    np.testing.assert_allclose(spectrum.flux_jy[[0, 1, 3]], 2.0 * n * cube.pixel_sr * 1e6)
    np.testing.assert_array_equal(np.isnan(spectrum.flux_jy), [False, False, True, False])
    np.testing.assert_array_equal(spectrum.dq, [0, 0, 1, 0])
    np.testing.assert_allclose(spectrum.coverage, [1.0, 1 - 1 / n, 0.0, 1.0])
    # Independent errors, as this cube knows of no correlation: one less, and scaled to all.
    np.testing.assert_allclose(spectrum.brightness_err[[0, 1]], [0.1 / np.sqrt(n), 0.1 / np.sqrt(n - 1)])


def test_half_of_the_aperture_is_needed():
    cube = uniform()
    cube.data[1, :22] = np.nan
    cube.data[2, :20] = np.nan
    spectrum = extract(cube, Mask(np.ones(cube.shape)))
    np.testing.assert_array_equal(np.isfinite(spectrum.flux_jy), [True, False, True, True])


# --- errors


def correlated_noise(rng: np.random.Generator, shape: tuple, n: int) -> np.ndarray:
    """White noise smoothed as `smallcube.correlation` says, of unit variance, without edges."""
    noise = rng.normal(size=(n, *(size + 2 for size in shape)))
    for axis, kernel in ((1, [1.0, 0.4]), (2, [0.7, 1.0, 0.7]), (3, [0.5, 1.0, 0.8])):
        kernel = np.array(kernel) / np.linalg.norm(kernel)
        noise = np.apply_along_axis(lambda row, kernel=kernel: np.convolve(row, kernel, "same"), axis, noise)
    return noise[:, 1:-1, 1:-1, 1:-1]


def test_errors_are_the_scatter_of_correlated_noise():
    """400 realisations of 12 wavelengths: the scatter is known to about 2 per cent, the coefficient to 0.02."""
    shape = (12, 17, 13)
    noise = correlated_noise(np.random.default_rng(5), shape, 400) * 0.1
    grid = replace(smallcube.GRID, shape=shape)
    err = np.full(shape, 0.1)
    quiet = Cube(np.ones(shape), grid.wave_um, grid.wcs().celestial, grid.area_sr, err=err,
                 correlation=smallcube.correlation())  # fmt: skip
    aperture = Ellipse(RA, DEC, 0.45, 0.7, 20.0)
    spectrum = extract(quiet, aperture)
    fluxes = np.array([extract(replace(quiet, data=one), aperture).flux_jy for one in noise])
    assert fluxes.std() == pytest.approx(spectrum.err_jy[0], rel=0.05)
    np.testing.assert_allclose(spectrum.err_jy, spectrum.err_jy[0])
    for lag, expected in enumerate(spectrum.correlation):
        found = np.mean(fluxes[:, : shape[0] - lag] * fluxes[:, lag:]) / np.mean(fluxes**2)
        assert found == pytest.approx(expected, abs=0.05)
    # What independent errors would have given is far off.
    naive = extract(replace(quiet, correlation=None), aperture).err_jy[0]
    assert spectrum.err_jy[0] > 1.7 * naive


def test_a_cube_without_errors_gives_a_spectrum_without():
    spectrum = extract(replace(uniform(), err=None), circle(RA, DEC, 0.5))
    assert spectrum.err_jy is None
    assert spectrum.brightness_err is None
    assert spectrum.correlation is None
    assert spectrum.to_specutils().uncertainty is None


# --- from a file, into a file


def test_the_middle_of_the_brightest(cube):
    ra, dec = brightest(cube)
    x, y = cube.wcs.world_to_pixel_values(ra, dec)
    assert x == pytest.approx(7.5, abs=0.05)
    assert y == pytest.approx(9.25, abs=0.05)
    with pytest.raises(ProductError, match="holds no data"):
        brightest(replace(cube, data=np.full_like(cube.data, np.nan)))


def test_to_specutils(cube):
    spectrum = extract(cube, circle(*brightest(cube), 0.35))
    handed = spectrum.to_specutils()
    assert handed.flux.unit == u.Jy
    np.testing.assert_array_equal(handed.flux.value, spectrum.flux_jy)
    np.testing.assert_array_equal(handed.uncertainty.array, spectrum.err_jy)
    np.testing.assert_allclose(handed.spectral_axis.to_value(u.um), smallcube.GRID.wave_um)
    assert handed.meta["simulated"] is True
    np.testing.assert_array_equal(handed.meta["correlation"], spectrum.correlation)
    # The line stands where it was put.
    line = np.nansum(handed.flux.value * handed.spectral_axis.value) / np.nansum(handed.flux.value)
    assert abs(line - smallcube.LINE_UM) < 2.4e-4


@pytest.mark.parametrize("srctype", ["POINT", "EXTENDED"])
def test_specutils_reads_the_file_with_its_loader_of_x1d(cube, tmp_path, srctype):
    import specutils

    kind = specutils.Spectrum if hasattr(specutils, "Spectrum") else specutils.Spectrum1D

    spectrum = extract(cube, circle(*brightest(cube), 0.35))
    out = spectrum.write(tmp_path / "jw_x1d.fits", srctype)
    for form in ({"format": "JWST x1d"}, {}):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=u.UnitsWarning)
            read = kind.read(out, **form)
        flux, error, unit = {
            "POINT": (spectrum.flux_jy, spectrum.err_jy, u.Jy),
            "EXTENDED": (spectrum.brightness, spectrum.brightness_err, u.MJy / u.sr),
        }[srctype]
        assert read.flux.unit == unit
        np.testing.assert_array_equal(read.flux.value, flux)
        np.testing.assert_array_equal(read.uncertainty.array, error)
        np.testing.assert_array_equal(read.spectral_axis.to_value(u.um), spectrum.wave_um)


def test_the_file_is_an_x1d_of_jwst(cube, tmp_path):
    from stdatamodels.jwst import datamodels

    spectrum = extract(cube, circle(*brightest(cube), 0.35))
    out = spectrum.write(tmp_path / "jw_x1d.fits")
    with datamodels.open(str(out)) as model:
        assert type(model) is datamodels.MultiSpecModel
        (one,) = model.spec
        columns = datamodels.SpecModel().schema["properties"]["spec_table"]["datatype"]
        assert list(one.spec_table.dtype.names) == [column["name"] for column in columns]
        np.testing.assert_array_equal(one.spec_table["FLUX_ERROR"], spectrum.err_jy)
        np.testing.assert_array_equal(one.spec_table["DQ"], spectrum.dq)
        np.testing.assert_allclose(one.spec_table["NPIXELS"], spectrum.coverage * spectrum.weights.sum())
        assert one.source_type == "POINT"
        assert one.spec_table.columns["WAVELENGTH"].unit == "um"
    with fits.open(out) as hdus:
        assert is_simulated(hdus[0].header)
        assert hdus[0].header["SOURCEID"] == smallcube.SOURCE_ID
        np.testing.assert_array_equal(hdus["CORR"].data, spectrum.correlation)
        np.testing.assert_array_equal(hdus["APERTURE"].data, spectrum.weights)
        hdus.verify("exception")


def test_the_command(path, tmp_path):
    run = CliRunner().invoke
    out = tmp_path / "a_x1d.fits"
    result = run(app, ["extract", str(path), "--radius", "0.4", "--inclination", "60", "--pa", "30", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "axis ratio" in result.output
    assert "axis ratio" in fits.getheader(out, "EXTRACT1D")["APERTURE"]
    for wrong in (
        ["extract", str(path)],
        ["extract", str(path), "--radius", "0.4", "--ra", "215"],
        ["extract", str(path), "--radius", "0.4", "--mask", "m.fits"],
        ["extract", str(path), "--radius", "0.4", "--axis-ratio", "0.5", "--inclination", "60"],
        ["extract", str(path), "--radius", "0.4", "--srctype", "STAR"],
        ["extract", str(path), "--radius", "0.4", "-o", str(out)],
        ["extract", str(path), "--radius", "0.4", "-o", str(path), "--overwrite"],
    ):
        assert run(app, wrong).exit_code == 2, wrong
    fits.PrimaryHDU(np.ones((17, 13))).writeto(tmp_path / "mask.fits")
    result = run(app, ["extract", str(path), "--mask", str(tmp_path / "mask.fits"), "-o", str(out), "--overwrite"])
    assert result.exit_code == 0, result.output
    assert fits.getheader(out, "EXTRACT1D")["APERTURE"] == "mask.fits"
    logging.getLogger("msa3d").handlers.clear()


def test_what_a_user_imports_is_there():
    import msa3d

    for name in msa3d.__all__:
        assert getattr(msa3d, name) is not None
    assert msa3d.open_cube is open_cube
    assert msa3d.Cube is Cube
