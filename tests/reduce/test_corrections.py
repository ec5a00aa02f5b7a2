"""tests.reduce.test_corrections"""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from jwst.barshadow import bar_shadow
from scipy.interpolate import RegularGridInterpolator
from stdatamodels.jwst import datamodels

from msa3d.errors import ProductError
from msa3d.reduce.background import background_of, fit_background, subtract
from msa3d.reduce.corrections import Aperture, BarShadows, Pathloss, is_point
from msa3d.reduce.cosmics import flag_cosmic_rays
from msa3d.reduce.settings import CalBackground, CalCosmicRays
from msa3d.reduce.slit import CalSlit
from msa3d_sim.references import barshadow_model, pixel_in_openings, shadow

from ..fixtures.calfiles import NX, NY, positions, slit_geometry


def make_slit(data=None, state="1x1", version=1, **header) -> CalSlit:
    y_slit, wave_um = positions(slit_geometry())
    data = np.ones((NY, NX)) if data is None else np.array(data, dtype=float)
    known = {"SOURCEID": 8512, "SRCNAME": "2136_8512", "STLARITY": 0.0, "SRCXPOS": 0.1, "SRCYPOS": -0.1}
    variances = {"VAR_POISSON": np.full(data.shape, 0.0009), "VAR_RNOISE": np.full(data.shape, 0.0016)}
    dq = np.zeros(data.shape, np.uint32)
    err = np.full(data.shape, 0.05)
    return CalSlit(version, fits.Header(known | header), data, err, dq, variances, wave_um, y_slit, state)


def aperture(name, level):
    """Transmission of one tenth less at the last of four wavelengths; of a point, by its place along the slit."""
    point = level * np.linspace(0.2, 1.0, 5)[None, :, None] * np.linspace(1.0, 0.9, 4)[:, None, None] * np.ones(3)
    keys = {"crpix1": 1, "crval1": -0.5, "cdelt1": 0.5, "crpix2": 1, "crval2": -0.5, "cdelt2": 0.25}
    wcs = SimpleNamespace(**keys, crpix3=1, crval3=1.0e-6, cdelt3=0.2e-6)
    wave_um = np.array([1.0, 1.2, 1.4, 1.6])
    return Aperture(name, wave_um, level * np.linspace(1.0, 0.9, 4), point, wcs)


@pytest.fixture
def pathloss() -> Pathloss:
    return Pathloss("jwst_nirspec_pathloss_9999.fits", aperture("MOS1x1", 0.8), aperture("MOS1x3", 0.9))


@pytest.fixture(scope="module")
def bars_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("crds") / "barshadow.fits"
    with barshadow_model() as model:
        model.save(str(path))
    return path


@pytest.fixture(scope="module")
def bars(bars_file) -> BarShadows:
    return BarShadows.read(bars_file)


# --- path loss


@pytest.mark.parametrize(
    ("state", "level", "name"),
    [("x", 0.8, "MOS1x1"), ("1x", 0.85, "MOS1x1+MOS1x3"), ("1x1", 0.9, "MOS1x3"), ("11x0111", 0.9, "MOS1x3")],
)
def test_the_aperture_follows_the_number_of_open_shutters(pathloss, state, level, name):
    slit = make_slit(state=state)
    statistics = pathloss.correct(slit, "uniform")
    at = level * np.interp(slit.wave_um, [1.0, 1.2, 1.4, 1.6], np.linspace(1.0, 0.9, 4))
    np.testing.assert_allclose(slit.data, 1 / at, rtol=1e-12)
    np.testing.assert_allclose(slit.err, 0.05 / at, rtol=1e-12)
    np.testing.assert_allclose(slit.variances["VAR_RNOISE"], 0.0016 / at**2, rtol=1e-12)
    np.testing.assert_allclose(slit.variances["VAR_POISSON"], 0.0009 / at**2, rtol=1e-12)
    assert (statistics["pathloss"], statistics["aperture"]) == ("uniform", name)


def test_flagged_pixels_and_nan_stay_as_they_are(pathloss):
    slit = make_slit()
    slit.data[3, 4], slit.dq[5, 6], slit.dq[7, 8] = np.nan, 1, 4
    pathloss.correct(slit, "uniform")
    assert np.isnan(slit.data[3, 4])
    assert (slit.data[5, 6], slit.err[5, 6]) == (1.0, 0.05)
    # A jump that the pipeline has mended is a good pixel.
    assert slit.data[7, 8] > 1.05


def test_wavelengths_beyond_the_reference_are_flagged_and_not_changed(pathloss):
    slit = make_slit()
    slit.wave_um[:, 100:] = 1.7
    pathloss.correct(slit, "uniform")
    assert np.all(slit.dq[:, 100:] == 1)
    assert np.all(slit.data[:, 100:] == 1.0)
    assert not slit.dq[:, :100].any()


def test_a_point_is_corrected_by_its_place(pathloss):
    slit = make_slit(state="0x0", SRCXPOS=0.0, SRCYPOS=0.25)
    statistics = pathloss.correct(slit, "point")
    at = 0.8 * 0.8 * np.interp(slit.wave_um, [1.0, 1.2, 1.4, 1.6], np.linspace(1.0, 0.9, 4))
    np.testing.assert_allclose(slit.data, 1 / at, rtol=1e-6)
    assert (statistics["pathloss"], statistics["aperture"]) == ("point", "MOS1x1")


def test_a_point_outside_its_shutter_is_treated_as_uniform(pathloss):
    slit = make_slit(SRCXPOS=2.7, SRCYPOS=0.0)
    assert pathloss.correct(slit, "point")["pathloss"] == "uniform"


@pytest.mark.parametrize(
    ("header", "point"),
    [
        ({"STLARITY": 0.0}, False),
        ({"STLARITY": 0.75}, False),
        ({"STLARITY": 0.9}, True),
        ({"STLARITY": -1.0}, True),
        ({"STLARITY": 0.9, "SRCTYPE": "EXTENDED"}, False),
        ({"STLARITY": 0.0, "SRCTYPE": "POINT"}, True),
    ],
)
def test_auto_follows_the_source_type(pathloss, header, point):
    slit = make_slit(**header)
    assert is_point(slit) is point
    assert pathloss.correct(slit, "auto")["pathloss"] == ("point" if point else "uniform")


def test_a_reference_without_the_apertures_is_refused(tmp_path):
    path = tmp_path / "pathloss.fits"
    with datamodels.PathlossModel() as model:
        model.apertures.append(
            {"name": "S200A1", "uniform_data": np.ones(5, np.float32), "pointsource_data": np.ones((5, 3, 3), "f4")}
        )
        model.save(str(path))
    with pytest.raises(ProductError, match=r"no aperture MOS1X1, MOS1X3, only S200A1"):
        Pathloss.read(path)


# --- bar shadow


def test_shadow_is_what_jwst_makes_of_the_reference(bars_file, bars):
    """jwst.barshadow itself, but for the last half shutter, which it begins one row (1/500 of a pitch) late."""
    y_slit, wave_um = (plane[::3, ::7] for plane in positions(slit_geometry()))
    with datamodels.BarshadowModel(str(bars_file)) as model:
        whole = bar_shadow.create_shadow(bar_shadow.create_shutter_elements(model), "11x11")
        row = whole.shape[0] - 500 * 3 + y_slit / bar_shadow.SLITRATIO * 500
        column = (wave_um * 1e-6 - model.crval1) / model.cdelt1
    # Linear, and the value of the edge beyond it, as all versions of jwst interpolate.
    grid = RegularGridInterpolator(tuple(np.arange(n) for n in whole.shape), whole)
    expected = grid(tuple(np.clip(at, 0, n - 1) for at, n in zip((row, column), whole.shape, strict=True)))
    found = bars.transmission("11x11", y_slit, wave_um)
    last = row > 2500
    np.testing.assert_allclose(found[~last], expected[~last], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[last], expected[last], rtol=0, atol=0.008)


@pytest.mark.parametrize("state", ["x", "1x1", "11x11", "x11", "1x"])
def test_shadow_is_that_of_the_open_shutters(bars, state):
    """Against the analytic shadow at the very places, wherever the primary shutter is."""
    slit = make_slit(state=state)
    primary = state.index("x")
    pixel = pixel_in_openings(slit.wave_um[0])
    expected = shadow(slit.y_slit, pixel, [k - primary for k in range(len(state))])
    near = np.abs(slit.from_middle) < 1.15 * (len(state) + 0.9) / 2
    found = bars.transmission(slit.state, slit.from_middle, slit.wave_um)
    np.testing.assert_allclose(found[near], expected[near], rtol=0, atol=2e-4)


def test_a_uniform_field_through_bars_comes_back_flat(bars):
    slit = make_slit(state="11x11")
    slit.data *= shadow(slit.y_slit, pixel_in_openings(slit.wave_um[0]), range(-2, 3))
    put_in = slit.data.copy()
    plane, statistics = bars.correct(slit, 0.4)
    where = slit.usable
    assert where.sum() > 0.5 * where.size
    assert put_in[where].min() < 0.52
    np.testing.assert_allclose(slit.data[where], 1.0, atol=5e-4)
    np.testing.assert_array_equal(np.isfinite(plane), where)
    assert statistics["shadow_min"] == pytest.approx(put_in[where].min(), abs=1e-3)
    # Outside the open area and below the least transmission: flagged, and as it was.
    assert statistics["shadowed"] == np.count_nonzero(~where)
    np.testing.assert_array_equal(where, slit.inside())
    np.testing.assert_array_equal(slit.data[~where], put_in[~where])


def test_pixels_too_dark_are_flagged_and_not_amplified(bars):
    slit = make_slit(state="11x11")
    bars.correct(slit, 0.8)
    assert slit.data.max() < 1 / 0.8
    at = bars.transmission(slit.state, slit.from_middle, slit.wave_um)
    assert np.all((slit.dq[at < 0.8] & 1) == 1)
    assert np.all(slit.data[at < 0.8] == 1.0)


def test_a_reference_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "barshadow.fits"
    with datamodels.BarshadowModel() as model:
        for name in ("data1x1", "data1x3", "var1x1", "var1x3"):
            setattr(model, name, np.ones((11, 101), np.float32))
        model.save(str(path))
    with pytest.raises(ProductError, match=r"data1x1 has the shape \(11, 101\)"):
        BarShadows.read(path)


def test_jwst_is_left_as_quiet_as_it_was(bars_file):
    logger = logging.getLogger("jwst.barshadow.bar_shadow")
    logger.setLevel(logging.ERROR)
    BarShadows.read(bars_file)
    assert logger.level == logging.ERROR


# --- background


def zodiacal(wave_um):
    return 0.2 + 0.5 * (wave_um - 1.2) + 3.0 * (wave_um - 1.21) ** 2


def test_background_of_empty_slits_is_subtracted_with_its_variance():
    rng = np.random.default_rng(5)
    empty, source = make_slit(SRCNAME="background_7"), make_slit()
    empty.data[:] = zodiacal(empty.wave_um) + rng.normal(0, 0.05, empty.data.shape)
    source.data[:] = 1.0 + zodiacal(source.wave_um)
    before = source.variances["VAR_POISSON"].copy()
    background = background_of([empty, source], CalBackground(method="empty"), 0.458)
    statistics = subtract(source, background)
    seen = np.isfinite(background(source.wave_um)[0])
    assert seen.mean() > 0.99
    error = 0.05 / np.sqrt(background.pixels / background.coefficients.size)
    # Five sigma of a fit of a few numbers; at the ends of the spline they are about twice those in the middle.
    np.testing.assert_allclose(source.data[seen], 1.0, atol=10 * error)
    added = source.variances["VAR_POISSON"] - before
    assert np.median(added[seen]) == pytest.approx(error**2, rel=0.6)
    np.testing.assert_allclose(source.err[seen] ** 2, 0.05**2 + added[seen], rtol=1e-9)
    np.testing.assert_array_equal(source.dq, np.where(seen, 0, 1))
    assert statistics["background"] == pytest.approx(np.median(zodiacal(source.wave_um)), abs=0.01)


def test_background_variance_is_that_of_its_scatter():
    rng = np.random.default_rng(8)
    wave = np.sort(rng.uniform(1.2, 1.3, 3000))
    settings = CalBackground(method="empty")
    at = np.array([1.22, 1.25, 1.28])
    fits_ = [
        fit_background(wave, rng.normal(0.3, 0.05, wave.size), np.full(wave.size, 0.05), settings) for _ in range(200)
    ]
    values = np.array([fit(at)[0] for fit in fits_])
    expected = np.sqrt(fits_[0](at)[1])
    # 200 realisations: standard deviations to 5 per cent (one sigma).
    np.testing.assert_allclose(values.std(axis=0), expected, rtol=0.2)
    assert np.all(np.abs(values.mean(axis=0) - 0.3) < 4 * expected / np.sqrt(200))


def test_background_ignores_hits_and_the_source_in_the_middle():
    rng = np.random.default_rng(6)
    slit = make_slit(state="11x11")
    slit.data[:] = 0.3 + rng.normal(0, 0.02, slit.data.shape) + 2.0 * np.exp(-0.5 * (slit.y_slit / 0.5) ** 2)
    slit.err[:] = 0.02
    slit.data[4:8, 20] += 40.0
    background = background_of([slit], CalBackground(method="ends"), 0.458)
    value, _ = background(np.array([1.205, 1.215, 1.225]))
    np.testing.assert_allclose(value, 0.3, atol=0.01)


def test_no_empty_pixel_is_said():
    with pytest.raises(ProductError, match="no pixel without a source"):
        background_of([make_slit()], CalBackground(method="empty"), 0.458)
    with pytest.raises(ProductError, match="too few"):
        fit_background(np.linspace(1, 2, 9), np.ones(9), np.ones(9), CalBackground())


# --- cosmic rays


def test_cosmic_rays_are_flagged_and_nothing_is_replaced():
    rng = np.random.default_rng(7)
    slit = make_slit()
    slit.data[:] = 0.5 + 0.3 * np.exp(-0.5 * (slit.y_slit / 0.6) ** 2) + rng.normal(0, 0.05, slit.data.shape)
    # A line 2 pixels wide along dispersion, as sharp as lines are.
    slit.data += 2.0 * np.exp(-0.5 * ((np.arange(NX) - 60) / 0.9) ** 2) * np.exp(-0.5 * (slit.y_slit / 0.6) ** 2)
    hits = rng.integers(3, NY - 3, 30), rng.choice(np.r_[5:50, 70:115], 30, replace=False)
    slit.data[hits] += 1.0
    slit.variances["VAR_POISSON"][hits] *= 4
    slit.dq[20, 30] = 1
    before = slit.data.copy()
    mask, statistics = flag_cosmic_rays(slit, CalCosmicRays(method="astroscrappy"))
    np.testing.assert_array_equal(slit.data, before)
    assert mask[hits].all()
    others = mask.copy()
    others[hits] = False
    assert others.sum() <= 15
    assert not mask[:, 57:64].any()
    assert np.all(slit.dq[mask] == 5)
    assert not mask[20, 30]
    assert statistics == {"examined": NY * NX - 1, "rejected": int(mask.sum())}


def test_a_slit_without_a_usable_pixel_has_no_hits():
    slit = make_slit()
    slit.dq[:] = 1
    mask, statistics = flag_cosmic_rays(slit, CalCosmicRays(method="astroscrappy"))
    assert not mask.any()
    assert statistics == {"examined": 0, "rejected": 0}
