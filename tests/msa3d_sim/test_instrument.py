"""The optical model: scales, closure, agreement with a real metafile; the radiometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from msa3d_sim import instrument, throughput
from msa3d_sim.instrument import COLUMNS, QUADRANTS, ROWS

SHARED = Path(__file__).parents[3] / "shared" / "data"
PITCH_M = 18e-6


@pytest.fixture(scope="module")
def optics():
    return instrument.InstrumentModel.load()


def test_the_msa_lies_where_it_lies_in_the_telescopes_field(optics):
    v2, v3 = optics.msa_to_v2v3()(0.0, 0.0, 1.4e-6)
    assert v2 == pytest.approx(378.6, abs=0.5)
    assert v3 == pytest.approx(-428.4, abs=0.5)
    v2b, v3b = optics.msa_to_v2v3()(0.0, 1e-4, 1.4e-6)
    # The siaf's V3IdlYAngle of the MSA is 138.5 deg; +y of the model points the other way.
    assert np.degrees(np.arctan2(v2b - v2, v3b - v3)) == pytest.approx(138.5 - 180, abs=0.2)


@pytest.mark.parametrize("quadrant", QUADRANTS)
def test_shutters_have_their_known_size_on_the_sky(optics, quadrant):
    geometry = instrument.InstrumentModel.load().shutters(quadrant)
    x, y = geometry.centre(np.array([183.0, 184.0, 183.0]), np.array([86.0, 86.0, 87.0]))
    v2, v3 = optics.msa_to_v2v3()(x, y, np.full(3, 1.4e-6))
    pitch = np.hypot((v2[1:] - v2[0]), (v3[1:] - v3[0]))
    assert pitch == pytest.approx([0.268, 0.53], rel=0.02)
    opening = pitch * np.divide(geometry.open_m, geometry.pitch_m)
    assert opening == pytest.approx([0.199, 0.46], rel=0.025)
    assert optics.slit_width_arcsec(quadrant, 183.0, 86.0) == pytest.approx(opening[0], rel=2e-3)
    assert optics.pixel_scale_arcsec(quadrant, 183.0, 86.0) == pytest.approx(0.105, abs=0.003)


def test_the_field_is_three_and_a_half_arcminutes_wide(optics):
    corners = [optics.shutters(q).centre(i, j) for q, i, j in ((1, 1, 1), (3, COLUMNS, 1), (2, 1, ROWS))]
    x, y = np.array(corners).T
    v2, v3 = optics.msa_to_v2v3()(x, y, np.full(3, 1.4e-6))
    sides = np.hypot(v2[1:] - v2[0], v3[1:] - v3[0]) / 60
    assert sides == pytest.approx([3.65, 3.63], abs=0.05)


def test_dispersion_runs_over_both_detectors_blue_on_the_first(optics):
    x, y = instrument.InstrumentModel.load().shutters(3).centre(300.0, 80.0)
    wave = np.arange(0.97, 1.89, 0.001)
    along, _ = optics.msa_to_focal_plane()(np.full_like(wave, x), np.full_like(wave, y), wave * 1e-6)
    assert np.all(np.diff(along) > 0)
    step = 10 / (np.diff(along) / PITCH_M)
    assert np.mean(step) == pytest.approx(2.36, abs=0.03)
    assert pytest.approx(np.mean(step), rel=0.02) == throughput.DISPERSION_UM * 1e4
    ends = {}
    for name in ("NRS1", "NRS2"):
        edges = [optics.detector(name)(p, 1000.0)[0] for p in (0.0, 2047.0)]
        ends[name] = np.interp([min(edges), max(edges)], along, wave)
    assert ends["NRS1"][1] < ends["NRS2"][0]
    assert 0.02 < ends["NRS2"][0] - ends["NRS1"][1] < 0.06
    assert 1.3 < ends["NRS1"][1] < 1.4


def test_wavelengths_end_where_they_do_in_the_real_fixed_slit(optics):
    """G140H/F100LP reaches 1.82 um in the fixed slits (JWST user documentation)."""
    x, y = optics.fore().inverse(*optics.ote().inverse(332.14, -479.22), 1.4e-6)  # S200A1
    wave = np.arange(1.7, 1.95, 0.001)
    along, _ = optics.msa_to_focal_plane()(np.full_like(wave, x), np.full_like(wave, y), wave * 1e-6)
    last = optics.detector("NRS2")(0.0, 1000.0)[0]
    assert np.interp(last, along, wave) == pytest.approx(1.82, abs=0.005)


def test_the_polynomials_close(optics):
    """Sky to detector and back: the two fits of the real model differ by some hundredths of a pixel."""
    x, y = np.meshgrid(np.linspace(-0.038, 0.038, 9), np.linspace(-0.038, 0.038, 9))
    cosines = optics.collimator().inverse(x, y)
    back = optics.collimator()(*cosines)
    # A shutter's pitch is 105 um and 2.6 pixels.
    assert np.abs(np.subtract(back, (x, y))).max() / 105e-6 * 2.6 < 0.03
    u, v = optics.camera()(x, 0.5 * y)
    again = optics.camera().inverse(u, v)
    assert np.abs(np.subtract(again, (x, 0.5 * y))).max() / PITCH_M < 0.06
    wave = np.full_like(x, 1.3e-6)
    sky = optics.msa_to_v2v3()(x, y, wave)
    msa = optics.fore().inverse(*optics.ote().inverse(*sky), wave)
    assert np.abs(np.subtract(msa, (x, y))).max() / 105e-6 * 0.268 < 1e-3  # arcsec


def _tangent(lon, lat):
    lon, lat = np.deg2rad(lon), np.deg2rad(lat)
    lon0, lat0 = lon.mean(), lat.mean()
    cos = np.sin(lat0) * np.sin(lat) + np.cos(lat0) * np.cos(lat) * np.cos(lon - lon0)
    xi = np.cos(lat) * np.sin(lon - lon0) / cos
    eta = (np.cos(lat0) * np.sin(lat) - np.sin(lat0) * np.cos(lat) * np.cos(lon - lon0)) / cos
    return np.rad2deg(xi) * 3600, np.rad2deg(eta) * 3600


def test_it_agrees_with_the_planning_of_a_real_observation(optics):
    """Positions of 74 sources in their shutters, as STScI planned them, fit one pointing to 2 mas."""
    path = SHARED / "jw02736007001_01_msa.fits"
    if not path.is_file():
        pytest.skip(f"no real metafile at {path}")
    with fits.open(path) as hdus:
        shutters, sources = hdus["SHUTTER_INFO"].data, hdus["SOURCE_INFO"].data
        sky = {row["source_id"]: (row["ra"], row["dec"]) for row in sources}
        use = [
            row
            for row in shutters
            if row["dither_point_index"] == 1
            and row["msa_metadata_id"] == 1
            and row["primary_source"] == "Y"
            and row["source_id"] in sky
        ]
        places = [
            instrument.InstrumentModel.load()
            .shutters(int(row["shutter_quadrant"]))
            .centre(
                row["shutter_row"] + row["estimated_source_in_shutter_x"] - 0.5,
                row["shutter_column"] + row["estimated_source_in_shutter_y"] - 0.5,
            )
            for row in use
        ]
        east, north = _tangent(*np.array([sky[row["source_id"]] for row in use]).T)
    x, y = np.array(places).T
    v2, v3 = optics.msa_to_v2v3()(x, y, np.full_like(x, 2e-6))
    a, b = _tangent(v2 / 3600, v3 / 3600)
    # Shift, rotation and scale: complex linear fit.
    matrix = np.stack([a + 1j * b, np.ones_like(a)], axis=1)
    target = east + 1j * north
    (turn, _), *_ = np.linalg.lstsq(matrix, target, rcond=None)
    residual = target - matrix @ np.linalg.lstsq(matrix, target, rcond=None)[0]
    assert len(use) > 50
    assert abs(turn) == pytest.approx(1, abs=1e-4)
    assert np.sqrt(np.mean(np.abs(residual) ** 2) / 2) < 0.002


def test_operability_equals_the_real_map():
    opened, closed = instrument.failed_open(), instrument.failed_closed()
    assert opened.shape == (22, 3)
    assert closed.shape == (50279, 3)
    for table in (opened, closed):
        assert np.unique(table, axis=0).shape == table.shape
        assert np.all((table >= 1) & (table <= (4, COLUMNS, ROWS)))
    path = SHARED / "nirspec_model" / "NRS_MSOP_CHK_3.0.1_20240207T0000.msl"
    if not path.is_file():
        pytest.skip(f"no real shutter map at {path}")
    with fits.open(path) as hdus:
        for quadrant in QUADRANTS:
            status = hdus[f"Q{quadrant}"].data["STATUS"]
            for table, bit in ((opened, 256), (closed, 2)):
                _, i, j = table[table[:, 0] == quadrant].T
                assert np.array_equal(np.sort(i + COLUMNS * (j - 1)), np.flatnonzero(status & bit) + 1)


def test_throughput_is_that_of_a_plausible_nirspec():
    wave = np.linspace(1.02, 1.75, 100)
    assert throughput.relative_throughput(throughput.REFERENCE_WAVE_UM) == pytest.approx(1)
    total = throughput.PEAK_THROUGHPUT * throughput.relative_throughput(wave)
    assert np.all((total > 0.3) & (total < 0.5))
    assert throughput.relative_throughput(0.965) < 0.1 * throughput.relative_throughput(1.0)


def test_counts_follow_from_the_energy_of_photons():
    """1 MJy/sr at 1.4 um through 0.2 x 0.105 arcsec, written out with numbers."""
    watts = 1e-20 * 25.4 * (0.0205 * 2.3504e-11)
    photons = watts * (2.36e-4 / 1.4) / 6.62607e-34
    expected = photons * throughput.PEAK_THROUGHPUT * throughput.relative_throughput(1.4)
    factor = throughput.surface_brightness_factor(1.4, 2, 183, 86)
    assert 1 / factor == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("quadrant", QUADRANTS)
def test_the_field_dependence_is_smooth_and_of_percents(quadrant):
    i, j = np.meshgrid(np.arange(1, COLUMNS + 1), np.arange(1, ROWS + 1))
    planes = throughput.field_variation(quadrant, i, j)
    assert planes.shape == (2, ROWS, COLUMNS)
    assert 0.003 < planes.std() < 0.02
    assert np.abs(planes - 1).max() < 0.05
    assert np.abs(np.diff(planes, axis=1)).max() < 3e-4


def test_the_factor_depends_on_the_shutter():
    wave = np.array([1.1, 1.5, 1.8])
    one = throughput.surface_brightness_factor(wave, 1, 20, 20)
    other = throughput.surface_brightness_factor(wave, 4, 340, 150)
    assert 0.003 < np.abs(one / other - 1).max() < 0.15
    assert np.isnan(throughput.surface_brightness_factor(2.5, 1, 20, 20))


def test_pixel_areas_are_those_of_the_optics(optics):
    for quadrant, i, j in ((1, 10, 160), (2, 200, 86), (3, 333, 3), (4, 50, 120)):
        exact = optics.slit_width_arcsec(quadrant, i, j) * optics.pixel_scale_arcsec(quadrant, i, j)
        assert throughput.pixel_area_arcsec2(quadrant, i, j) == pytest.approx(exact, rel=2e-5)


def test_uniform_pathloss_falls_with_wavelength_and_is_less_for_longer_slits():
    wave = np.linspace(0.97, 1.89, 20)
    short, long = throughput.uniform_pathloss(wave, 1), throughput.uniform_pathloss(wave)
    assert np.all(np.diff(short) < 0)
    assert np.all((short < long) & (long < 1) & (short > 0.8))
