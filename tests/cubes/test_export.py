"""Copies of a cube for mpdaf and for plain readers hold the same numbers, place and wavelengths."""

from __future__ import annotations

import hashlib
import logging

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from typer.testing import CliRunner

from msa3d.cli import app
from msa3d.cubes.export import WAVELENGTH_UNITS, export
from msa3d.cubes.grid import SkyGrid
from msa3d.errors import ProductError
from msa3d.pipeline.products import is_simulated

from ..fixtures import smallcube

FLOAT32 = {"rtol": 1e-6}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return smallcube.write(tmp_path_factory.mktemp("cube") / "jw02136-o001_s08512_nirspec_f100lp-g140h_s3d.fits")


def sky(wcs: WCS) -> np.ndarray:
    """World coordinates of some spaxels."""
    return np.array(wcs.celestial.pixel_to_world_values([0, 12, 5.5, 3], [0, 16, 8, 11]))


@pytest.mark.parametrize("to", ["mpdaf", "plain"])
@pytest.mark.parametrize("unit", WAVELENGTH_UNITS)
def test_place_and_wavelengths_are_those_of_the_cube(path, tmp_path, to, unit):
    out = export(path, to, tmp_path / "copy.fits", unit=unit)
    with fits.open(out) as hdus:
        header = hdus["DATA" if to == "mpdaf" else 0].header
        assert u.Unit(header["CUNIT3"]) == u.Unit(unit)
        assert header["CTYPE3"] == "WAVE"
        assert not [key for key in header if key.startswith("PC") and key != "PCOUNT"]
        steps = header["CRVAL3"] + header["CD3_3"] * (np.arange(30) + 1 - header["CRPIX3"])
        wcs = WCS(header)
    np.testing.assert_allclose((steps * u.Unit(unit)).to_value(u.um), smallcube.GRID.wave_um, rtol=1e-12)
    metres = wcs.spectral.pixel_to_world_values(np.arange(30))
    np.testing.assert_allclose(metres, smallcube.GRID.wave_um * 1e-6, rtol=1e-12)
    np.testing.assert_allclose(sky(wcs), sky(smallcube.GRID.wcs()), atol=1e-11)


def test_mpdaf_reads_flux_variance_mask_and_wcs(path, tmp_path):
    from mpdaf import obj as mpdaf

    known = smallcube.planes()
    out = export(path, "mpdaf", tmp_path / "copy.fits")
    cube = mpdaf.Cube(str(out))
    empty = np.isnan(known.sci)
    assert cube.shape == known.sci.shape
    assert cube.unit == u.MJy / u.sr
    np.testing.assert_array_equal(cube.mask, empty)
    np.testing.assert_allclose(cube.data.compressed(), known.sci[~empty], **FLOAT32)
    np.testing.assert_allclose(cube.var.compressed(), known.err[~empty] ** 2, **FLOAT32)
    assert cube.wave.unit == u.Angstrom
    np.testing.assert_allclose(cube.wave.coord(), smallcube.GRID.wave_um * 1e4, rtol=1e-12)
    # mpdaf counts (y, x) and gives (dec, ra).
    place = cube.wcs.pix2sky(np.array([[0, 0], [16, 12], [8, 5.5], [11, 3]])).T[::-1]
    np.testing.assert_allclose(place, sky(smallcube.GRID.wcs()), atol=1e-11)
    np.testing.assert_allclose(cube.wcs.get_step(unit=u.arcsec), 0.1, rtol=1e-6)
    assert cube.wcs.wcs.wcs.radesys == "ICRS"
    # And works with it: wavelengths are chosen in its own unit, sums leave out what is masked.
    first, last = smallcube.GRID.wave_um[[8, 21]] * 1e4
    line = cube.select_lambda(first, last).sum(axis=0)
    np.testing.assert_allclose(line.data.filled(0), np.nansum(known.sci[8:22], axis=0), **FLOAT32)
    cube.write(str(tmp_path / "again.fits"))
    np.testing.assert_array_equal(mpdaf.Cube(str(tmp_path / "again.fits")).mask, empty)


def test_a_plain_copy_needs_nothing_but_fits(path, tmp_path):
    known = smallcube.planes()
    empty = np.isnan(known.sci)
    with fits.open(export(path, "plain", tmp_path / "copy.fits")) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "ERROR", "MASK"]
        image, error, mask = (hdu.data for hdu in hdus)
        for hdu in hdus:
            assert hdu.header["CDELT3"] == hdu.header["CD3_3"]
        assert hdus[0].header["BUNIT"] == hdus["ERROR"].header["BUNIT"] == "MJy/sr"
        assert "BUNIT" not in hdus["MASK"].header
        assert "DATAMODL" not in hdus[0].header
    assert np.isfinite(image).all()
    assert np.isfinite(error).all()
    np.testing.assert_array_equal(mask, empty)
    np.testing.assert_allclose(image[~empty], known.sci[~empty], **FLOAT32)
    assert not image[empty].any()
    np.testing.assert_allclose(error[~empty], known.err[~empty], **FLOAT32)
    # Whoever weighs by errors gives these no weight.
    assert error[empty].min() > 1e9 * error[~empty].max()


def test_nan_can_be_kept(path, tmp_path):
    with fits.open(export(path, "plain", tmp_path / "copy.fits", keep_nan=True)) as hdus:
        np.testing.assert_array_equal(np.isnan(hdus[0].data), np.isnan(smallcube.planes().sci))
        np.testing.assert_array_equal(np.isnan(hdus["ERROR"].data), np.isnan(smallcube.planes().sci))


@pytest.mark.parametrize("to", ["mpdaf", "plain"])
def test_copies_are_stamped_and_the_cube_is_untouched(path, tmp_path, to):
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with fits.open(export(path, to, tmp_path / "copy.fits")) as hdus:
        primary = hdus[0].header
        assert is_simulated(primary)
        assert primary["FILENAME"] == "copy.fits"
        assert primary["SOURCEID"] == smallcube.SOURCE_ID
        history = "".join(str(line).ljust(72) for line in primary["HISTORY"])
        assert f"export {to}" in history
        assert f"msa3d input: {path.name}" in history
        hdus.verify("exception")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["copy.fits"]


def test_no_file_is_replaced_unasked_and_the_cube_never(tmp_path):
    cube = smallcube.write(tmp_path / "x_s3d.fits")
    out = export(cube, "plain")
    assert out == tmp_path / "x_s3d_plain.fits"
    with pytest.raises(ProductError, match=r"x_s3d_plain.fits exists"):
        export(cube, "plain")
    export(cube, "plain", overwrite=True)
    link = tmp_path / "link.fits"
    link.symlink_to(cube)
    for same in (cube, link):
        with pytest.raises(ProductError, match="is the cube itself"):
            export(cube, "mpdaf", same, overwrite=True)
    assert "SCI" in [hdu[1] for hdu in fits.info(cube, output=False)]


def test_what_cannot_be_exported_is_told(path, tmp_path):
    with pytest.raises(ProductError, match="choose one of mpdaf, plain"):
        export(path, "casa")
    with pytest.raises(ProductError, match="choose one of Angstrom"):
        export(path, "plain", unit="furlong")
    uneven = tmp_path / "uneven.fits"
    wave = np.array([1.0, 1.1, 1.3])
    header = SkyGrid(10.0, 0.0, 0.0, 0.1, 1.0, 0.1, (3, 2, 2)).wcs().to_header()
    table = fits.BinTableHDU.from_columns([fits.Column("wavelength", "D", array=wave)], name="WAVE")
    image = fits.ImageHDU(np.ones((3, 2, 2)), header, name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image, table]).writeto(uneven)
    with pytest.raises(ProductError, match="not evenly spaced"):
        export(uneven)


def test_a_cube_without_errors_has_none_in_its_copy(tmp_path):
    header = SkyGrid(10.0, 0.0, 0.0, 0.1, 1.0, 0.1, (3, 2, 2)).wcs().to_header()
    path = tmp_path / "bare.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((3, 2, 2)), header, name="SCI")]).writeto(path)
    assert [row[1] for row in fits.info(export(path, "mpdaf"), output=False)] == ["PRIMARY", "DATA", "DQ"]
    assert [row[1] for row in fits.info(export(path, "plain"), output=False)] == ["PRIMARY", "MASK"]


def test_the_command(path, tmp_path):
    out = tmp_path / "copy.fits"
    result = CliRunner().invoke(app, ["export", str(path), "--to", "mpdaf", "-o", str(out), "--unit", "um"])
    assert result.exit_code == 0, result.output
    assert fits.getheader(out, "DATA")["CUNIT3"] == "um"
    result = CliRunner().invoke(app, ["export", str(path), "--to", "mpdaf", "-o", str(out)])
    assert result.exit_code == 2
    logging.getLogger("msa3d").handlers.clear()
