"""A cube file opens without help in the programs that people look at cubes with: all of them the real ones."""

from __future__ import annotations

import os
import subprocess

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty
from astropy.wcs import WCS

from msa3d import circle, extract, open_cube
from msa3d.cubes.extract import brightest
from msa3d.observation.sky import DO_NOT_USE

from ..fixtures import smallcube
from ..fixtures.extraenv import EXTRA, python_of

LOCK = EXTRA / "requirements-viewers.lock"
FLOAT32 = {"rtol": 1e-6}
#: Pixels (x, y) whose place on the sky is compared: corners, the middle, and one within.
PIXELS = np.array([0, 12, 5.5, 3]), np.array([0, 16, 8, 11])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return smallcube.write(tmp_path_factory.mktemp("cube") / "jw02136-o001_s08512_nirspec_f100lp-g140h_s3d.fits")


@pytest.fixture(scope="module")
def known():
    return smallcube.planes()


@pytest.fixture(scope="module")
def sky():
    """Where the pixels are, from the grid itself."""
    east, north = np.linalg.inv(smallcube.GRID.rotation) @ (np.array(PIXELS) - [[6], [8]]) * 0.1
    # Less than an arcsecond from the middle, a sphere is a plane to 1e-9 deg.
    dec = smallcube.GRID.dec + north / 3600
    return np.array([smallcube.GRID.ra + east / 3600 / np.cos(np.radians(dec)), dec])


def test_specutils(path, known, sky):
    import specutils

    kind = specutils.Spectrum if hasattr(specutils, "Spectrum") else specutils.Spectrum1D

    def planes(values):
        # Version 1 has the wavelengths last, (x, y, wave), version 2 leaves them where they are.
        return np.asarray(values) if np.shape(values) == known.sci.shape else np.asarray(values).T

    for form in ({"format": "JWST s3d"}, {}):
        read = kind.read(path, **form)
        assert read.flux.unit == u.MJy / u.sr
        np.testing.assert_array_equal(planes(read.flux.value), known.sci.astype(np.float32))
        assert isinstance(read.uncertainty, StdDevUncertainty)
        assert read.uncertainty.unit == u.MJy / u.sr
        np.testing.assert_array_equal(planes(read.uncertainty.array), known.err.astype(np.float32))
        np.testing.assert_array_equal((planes(read.mask) & DO_NOT_USE) > 0, np.isnan(known.sci))
        np.testing.assert_array_equal(planes(read.mask) > 0, np.isnan(known.sci))
        np.testing.assert_allclose(read.spectral_axis.to_value(u.um), smallcube.GRID.wave_um, rtol=1e-9)
        # Its loader keeps the celestial axes in the header only.
        np.testing.assert_allclose(WCS(read.meta["header"]).celestial.pixel_to_world_values(*PIXELS), sky, atol=1e-8)
        assert read.meta["header"]["PIXAR_SR"] == pytest.approx(smallcube.GRID.area_sr)


def test_spectral_cube(path, known, sky):
    import spectral_cube

    cube = spectral_cube.SpectralCube.read(path, hdu="SCI")
    assert cube.unit == u.MJy / u.sr
    np.testing.assert_array_equal(cube.filled_data[:].value, known.sci.astype(np.float32))
    np.testing.assert_array_equal(cube.mask.include(), np.isfinite(known.sci))
    np.testing.assert_allclose(cube.spectral_axis.to_value(u.um), smallcube.GRID.wave_um, rtol=1e-12)
    np.testing.assert_allclose(cube.wcs.celestial.pixel_to_world_values(*PIXELS), sky, atol=1e-8)
    error = spectral_cube.SpectralCube.read(path, hdu="ERR")
    np.testing.assert_array_equal(error.filled_data[:].value, known.err.astype(np.float32))
    np.testing.assert_allclose(error.wcs.celestial.pixel_to_world_values(*PIXELS), sky, atol=1e-8)
    # In its own units a moment is a wavelength of the line.
    slab = cube.with_spectral_unit(u.um).spectral_slab(1.3026 * u.um, 1.3046 * u.um)
    with np.errstate(invalid="ignore"):  # A spaxel without data has no moment.
        centre = slab.moment(order=1)[9, 7]
    assert centre.to_value(u.um) == pytest.approx(smallcube.LINE_UM, abs=2e-5)


def test_mpdaf_reads_the_cube_itself_without_its_errors(path, known):
    """Without `msa3d export` mpdaf takes SCI and DQ, but finds no STAT."""
    from mpdaf import obj as mpdaf

    cube = mpdaf.Cube(str(path))
    np.testing.assert_array_equal(cube.mask, np.isnan(known.sci))
    np.testing.assert_allclose(cube.data.compressed(), known.sci[np.isfinite(known.sci)], **FLOAT32)
    np.testing.assert_allclose(cube.wave.coord(unit=u.um), smallcube.GRID.wave_um, rtol=1e-12)
    assert cube.var is None


def test_datamodels_of_jwst(path, known, sky):
    from stdatamodels.jwst import datamodels

    with datamodels.open(str(path)) as model:
        assert type(model) is datamodels.IFUCubeModel
        np.testing.assert_array_equal(model.data, known.sci.astype(np.float32))
        np.testing.assert_array_equal(model.err, known.err.astype(np.float32))
        np.testing.assert_array_equal((model.dq & DO_NOT_USE) > 0, np.isnan(known.sci))
        np.testing.assert_array_equal(model.weightmap, known.weight.astype(np.float32))
        ra, dec, wave = model.meta.wcs(*PIXELS, np.array([0, 29, 7, 15]))
        np.testing.assert_allclose([ra, dec], sky, atol=1e-8)
        np.testing.assert_allclose(wave, smallcube.GRID.wave_um[[0, 29, 7, 15]], rtol=1e-12)
        assert model.meta.bunit_data == "MJy/sr"
        assert model.meta.photometry.pixelarea_steradians == pytest.approx(smallcube.GRID.area_sr)


# --- what clashes with the pins of jwst, in an environment of its own


@pytest.fixture(scope="module")
def viewers():
    """Python of the environment of requirements-viewers.lock, which is made once and kept."""
    return python_of("viewers", LOCK)


@pytest.fixture(scope="module")
def cubeviz(viewers, path, tmp_path_factory):
    """What Cubeviz made of the cube, and of a spectrum that was extracted from it."""
    home = tmp_path_factory.mktemp("home")
    cube = open_cube(path)
    spectrum = extract(cube, circle(*brightest(cube), 0.35)).write(home / "a_x1d.fits")
    out = home / "found.npz"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_"))}
    environment |= {"HOME": str(home), "MPLBACKEND": "agg", "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(viewers), str(EXTRA / "look_cubeviz.py"), str(path), str(spectrum), str(out)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(out) as found:
        return dict(found), spectrum


@pytest.mark.slow
def test_cubeviz_of_jdaviz(cubeviz, known, sky):
    found, _ = cubeviz
    empty = np.isnan(known.sci)
    for kind, plane in (("FLUX", known.sci), ("UNC", known.err)):
        np.testing.assert_array_equal(found[f"{kind}.flux"], plane.astype(np.float32))
        assert u.Unit(str(found[f"{kind}.flux.unit"])) == u.MJy / u.sr
    np.testing.assert_array_equal(found["FLUX.uncertainty"], known.err.astype(np.float32))
    # The mask: NaN in the flux, the flags as a cube of their own.
    np.testing.assert_array_equal(found["DQ.flux"][empty].astype(int) & DO_NOT_USE, DO_NOT_USE)
    np.testing.assert_array_equal(np.isfinite(found["DQ.flux"]), empty)
    assert str(found["wave.unit"]) == "um"
    np.testing.assert_allclose(found["wave"], smallcube.GRID.wave_um, rtol=1e-9)
    assert found["axis"] == 0
    np.testing.assert_allclose(found["sky"], sky, atol=1e-8)


@pytest.mark.slow
def test_cubeviz_shows_the_right_numbers(cubeviz, known):
    """Below the mouse, and in the spectrum of the whole cube that it makes by itself."""
    found, _ = cubeviz
    assert found["slice"] == pytest.approx(smallcube.GRID.wave_um[15], rel=1e-9)
    pixel, _, degrees = (str(line) for line in found["mouse"])
    assert pixel.startswith("Pixel x=007.0 y=009.0")
    assert float(pixel.split("Value")[1].split()[0]) == pytest.approx(known.sci[15, 9, 7], rel=1e-5)
    place = [float(word) for word in degrees.split()[:2]]
    np.testing.assert_allclose(place, smallcube.GRID.wcs().celestial.pixel_to_world_values(7, 9), atol=1e-9)
    assert u.Unit(str(found["SUM.flux.unit"])) == u.MJy
    summed = np.nansum(known.sci, axis=(1, 2)) * smallcube.GRID.area_sr
    np.testing.assert_allclose(found["SUM.flux"], summed, rtol=1e-5)


@pytest.mark.slow
def test_a_younger_specutils_reads_an_extracted_spectrum(cubeviz):
    found, path = cubeviz
    from astropy.io import fits

    table = fits.getdata(path, "EXTRACT1D")
    np.testing.assert_array_equal(found["x1d.wave"], table["WAVELENGTH"])
    np.testing.assert_array_equal(found["x1d.flux"], table["FLUX"])
    np.testing.assert_array_equal(found["x1d.error"], table["FLUX_ERROR"])


def test_the_lock_of_the_viewers_is_exact_with_hashes_and_names_no_index():
    lines = [line for line in LOCK.read_text().splitlines() if not line.lstrip().startswith("#")]
    entries = [line for line in lines if not line.startswith(" ")]
    assert len(entries) > 100
    assert any(line.startswith("jdaviz==") for line in entries)
    assert all("==" in line.split(";")[0] and line.endswith("\\") for line in entries)
    assert all("--hash=sha256:" in line for line in lines if line.startswith(" "))
    assert not [line for line in lines if "://" in line or "-index-url" in line]
