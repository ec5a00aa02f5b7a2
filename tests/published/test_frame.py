"""tests.published.test_frame"""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from msa3d.cubes.cube import open_cube
from msa3d.observation import sky
from msa3d.published import cube as published_cube
from msa3d.published import frame as published_frame

from ..fixtures.stepping import Stepping, blob


def build(stepping, sky, **changes):
    spectra = stepping.spectra(sky)
    for place in changes.get("without", ()):
        del spectra[place]
    cube = published_cube.build_median(spectra, n_rows=stepping.rows, n_columns=stepping.columns)
    frame = published_frame.fit_frame(spectra, cube.geometry, stepping.columns, stepping.column_step)
    return cube, frame, published_frame.cube_header(frame, cube.wave_um)


def centroid(cube, header):
    """Right ascension and declination of the light, from the cube and its WCS alone."""
    image = np.nan_to_num(np.nanmean(cube.data[20:100], axis=0))
    y, x = np.indices(image.shape)
    x, y = (image * x).sum() / image.sum(), (image * y).sum() / image.sum()
    return WCS(header).celestial.pixel_to_world(x, y)


@pytest.mark.parametrize(
    ("angle", "flip", "sense"),
    [(0.0, 1, 1), (35.0, 1, 1), (35.0, 1, -1), (138.0, -1, 1), (-80.0, -1, -1), (90.0, 1, 1), (180.0, 1, -1)],
)
def test_a_source_is_where_it_is_on_the_sky(angle, flip, sense):
    stepping = Stepping(
        rows=7, columns=9, ny=20, angle_deg=angle, flip=flip, column_sense=sense, jitter=0.005, column_step=0.1
    )
    truth = SkyCoord(stepping.ra + 0.16 / 3600, stepping.dec - 0.07 / 3600, unit="deg")
    cube, _, header = build(stepping, blob(truth.ra.deg, truth.dec.deg, 0.3))
    found = centroid(cube, header)
    # A sub-pixel is 25 mas; jitter of 5 mas averages over 63 exposures.
    assert found.separation(truth).arcsec < 0.008


def test_both_handednesses_are_told_from_the_exposures():
    # Whether the steps run to the left or to the right of the slit shows in the sign of the determinant.
    signs = {}
    for sense in (1, -1):
        _, frame, header = build(Stepping(column_sense=sense), lambda ra, dec, wave: np.ones_like(wave))
        signs[sense] = np.sign(np.linalg.det(WCS(header).celestial.pixel_scale_matrix))
        assert all(header[f"CDELT{axis}"] > 0 for axis in (1, 2, 3))
        assert np.hypot(*frame.column_step) == pytest.approx(0.2, rel=1e-4)
    assert signs[1] == -signs[-1]


def test_scales_and_area():
    stepping = Stepping(angle_deg=70.0)
    cube, frame, header = build(stepping, lambda ra, dec, wave: np.ones_like(wave))
    scales = proj_plane_pixel_scales(WCS(header).celestial) * 3600
    np.testing.assert_allclose(scales, [0.2, stepping.pixel / 4], rtol=1e-4)
    assert header["PIXAR_A2"] == pytest.approx(0.2 * stepping.pixel / 4, rel=1e-4)
    area_sr = (header["PIXAR_A2"] * u.arcsec**2).to_value(u.sr)
    assert header["PIXAR_SR"] == pytest.approx(area_sr, rel=1e-9)
    assert header["BUNIT"] == "MJy/sr"
    assert frame.n_rows == cube.data.shape[1]


def test_wavelength_of_a_line_beyond_the_detector_gap():
    stepping = Stepping()
    line = 1.0621
    assert line > stepping.wave_um[120] > stepping.wave_um[119] + 0.019
    cube, _, header = build(stepping, blob(stepping.ra, stepping.dec, 0.4, line))
    spectrum = np.nan_to_num(cube.data[:, :, 1].max(axis=1))
    pixel = (spectrum * np.arange(spectrum.size)).sum() / spectrum.sum()
    world = WCS(header).pixel_to_world_values(1, 37, pixel)
    assert world[2] * 1e6 == pytest.approx(line, abs=0.05 * header["CDELT3"])
    np.testing.assert_allclose(
        header["CRVAL3"] + np.arange(cube.wave_um.size) * header["CDELT3"], cube.wave_um, rtol=1e-12
    )


def test_residuals_say_how_far_truncation_moves_an_exposure():
    stepping = Stepping(rows=7, columns=3, ny=16)
    cube, frame, _ = build(stepping, lambda ra, dec, wave: np.ones_like(wave))
    geometry = cube.geometry
    moved = (geometry.exact_offsets - geometry.offsets) * geometry.sub_arcsec
    expected = moved[np.asarray(frame.residuals["row"])]
    np.testing.assert_allclose(frame.residuals["d_y"], expected - expected.mean(), atol=2e-4)
    np.testing.assert_allclose(frame.residuals["d_column"], 0, atol=2e-4)
    assert np.ptp(frame.residuals["d_y"]) > 0.02


@pytest.mark.parametrize("without", [[(1, 0)], [(0, 0), (2, 2), (1, 1)], [(row, 2) for row in range(3)]])
def test_missing_exposures_leave_the_wcs_where_it_was(without):
    stepping = Stepping()
    flat = lambda ra, dec, wave: np.ones_like(wave)  # noqa: E731
    *_, whole = build(stepping, flat)
    *_, header = build(stepping, flat, without=without)
    corners = [WCS(h).celestial.pixel_to_world([0, 2], [0, 70]) for h in (whole, header)]
    # The truncated offsets of the exposures that are left have another mean.
    assert corners[0].separation(corners[1]).arcsec.max() < 0.025


def test_a_single_column_gets_the_nominal_step():
    stepping = Stepping(columns=1, angle_deg=0.0)
    _, frame, header = build(stepping, blob(stepping.ra, stepping.dec))
    np.testing.assert_allclose(frame.column_step, [-0.2, 0], atol=1e-4)
    assert np.linalg.det(WCS(header).celestial.pixel_scale_matrix) < 0


def test_tangent_plane_agrees_with_astropy():
    centre = SkyCoord(359.9995, -52.0, unit="deg")
    east, north = np.array([10.0, -3.0, 0.0]), np.array([-7.0, 4.0, 0.0])
    ra, dec = sky.from_tangent(east, north, centre.ra.deg, centre.dec.deg)
    points = SkyCoord(ra, dec, unit="deg")
    offsets = points.transform_to(centre.skyoffset_frame())
    np.testing.assert_allclose(offsets.lon.wrap_at("180d").arcsec, east, atol=1e-5)
    np.testing.assert_allclose(offsets.lat.arcsec, north, atol=1e-5)
    again = sky.tangent_offsets(ra, dec, centre.ra.deg, centre.dec.deg)
    np.testing.assert_allclose(again, [east, north], atol=1e-8)


def write_plain_cube(path, header, data, dq):
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(data, header, name="SCI"),
            fits.ImageHDU(dq, name="DQ"),
            fits.ImageHDU(np.ones(data.shape[1:], np.int16), name="NEXP"),
            fits.BinTableHDU(Table({"row": [1]}), name="EXPOSURES"),
        ]
    ).writeto(path)


def test_reading_back(tmp_path):
    cube, _, header = build(Stepping(), blob(215.05, 52.938))
    path = tmp_path / "cube_medians_8512.fits"
    dq = np.zeros(cube.data.shape, np.uint32)
    dq[3, 20, 1] = sky.DO_NOT_USE
    dq[3, 20, 2] = 4
    write_plain_cube(path, header, cube.data, dq)
    got = open_cube(path)
    assert np.isnan(got.data[3, 20, 1])
    assert got.data[3, 20, 2] == cube.data[3, 20, 2]
    np.testing.assert_allclose(got.wave_um, cube.wave_um, rtol=1e-12)
    assert got.err is None
    ra, dec = got.spaxel_sky()
    assert ra.shape == cube.data.shape[1:]
    east, north = got.offsets(215.05, 52.938)
    assert np.hypot(east, north).min() < 0.02
    np.testing.assert_allclose(dec[0, 0], 52.938 + north[0, 0] / 3600, atol=1e-8)
