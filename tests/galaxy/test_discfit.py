"""A disc put into a cube comes back, and light beside the slit's middle is not taken for rotation."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.signal import lfilter

from msa3d.config import Dataset
from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube
from msa3d.errors import ProductError
from msa3d.galaxy import report
from msa3d.galaxy.disc import Disc
from msa3d.galaxy.discfit import Convergence, fit_disc
from msa3d.galaxy.discmodel import SLIT_SIGN, LineModel, deconvolve, exponential, find_lattice
from msa3d.galaxy.lines import CURVES, line_spread_of
from msa3d.galaxy.profiles import Geometry

from ..fixtures.cubes import DEC, RA, REDSHIFT, header, sky

HA_UM = LINES["Ha"] * (1.0 + REDSHIFT)
TRUE = Disc(pa_deg=40.0, inclination_deg=35.0, v_sin_i=90.0, r_turn=0.15, systemic=6.0)
SIGMA0 = 40.0


PIXEL_UM = 2.36e-4


def blank(n: int = 17, bin_pixels: float = 1.0) -> Cube:
    half = round(130 / bin_pixels)
    wave = HA_UM + np.arange(-half, half + 1) * bin_pixels * PIXEL_UM
    shape = (wave.size, n, n)
    head = header()
    head["SPECPIX"] = PIXEL_UM
    return Cube(np.zeros(shape), wave, sky(n), 2.35e-13, True, "disc", err=np.ones(shape), header=head)


def with_disc(noise: float, seed: int = 0, scale: float = 0.35, bin_pixels: float = 1.0) -> Cube:
    cube = blank(bin_pixels=bin_pixels)
    middle = np.abs(cube.wave_um - HA_UM) < 10.5 * PIXEL_UM
    model = LineModel(cube, cube.wave_um[middle], HA_UM, RA, DEC, columns=False)
    light = exponential(model, scale, TRUE.pa_deg, TRUE.inclination_deg)
    line = model.predict(light, TRUE.velocity(model.east, model.north), SIGMA0)
    data = np.random.default_rng(seed).normal(0.0, noise, cube.data.shape) + 0.3
    data[middle] += line / line.max()
    return replace(cube, data=data, err=np.full_like(data, noise))


@pytest.fixture(scope="module")
def cube():
    return with_disc(0.01)


@pytest.fixture(scope="module")
def fit(cube):
    """No first guess of the position angle is given."""
    return fit_disc(cube, REDSHIFT, ra=RA, dec=DEC, inclination_deg=35.0, sample=False)


def test_a_disc_comes_back(fit):
    for name, value in (("pa_deg", 40.0), ("v_sin_i", 90.0), ("r_turn", 0.15), ("sigma0", SIGMA0), ("systemic", 6.0)):
        assert abs(fit.best[name] - value) < 3.5 * fit.error[name], name
    assert fit.error["sigma0"] < 2.0
    assert fit.error["pa_deg"] < 2.0
    assert fit.chi2 == pytest.approx(fit.freedom, rel=0.1)
    median, low, high = fit.rotation([0.5])
    assert low[0] < median[0] < high[0]
    assert np.nanmax(np.abs(fit.data - fit.model)) < 0.08


@pytest.mark.parametrize("bin_pixels", [0.5, 2.0])
def test_the_dispersion_does_not_depend_on_the_bins(bin_pixels):
    """The width of the instrument is that of the detector's pixels, whatever bins the cube has."""
    cube = with_disc(0.01 / np.sqrt(bin_pixels), bin_pixels=bin_pixels)
    fit = fit_disc(cube, REDSHIFT, ra=RA, dec=DEC, inclination_deg=35.0, pa_deg=40.0, sample=False)
    assert abs(fit.best["sigma0"] - SIGMA0) < 3.0 * fit.error["sigma0"]
    assert abs(fit.best["v_sin_i"] - 90.0) < 3.0 * fit.error["v_sin_i"]
    assert fit.error["sigma0"] < 2.5


def test_bins_of_a_line_add_up():
    """A line in bins of two pixels, of one and of half a pixel: sums of the same brightness."""
    lines = {}
    for bin_pixels in (0.5, 1.0, 2.0):
        # Bins that begin at the same place.
        wave = HA_UM + ((np.arange(round(24 / bin_pixels)) + 0.5) * bin_pixels - 12.0) * PIXEL_UM
        model = LineModel(blank(9), wave, HA_UM, RA, DEC, columns=False)
        light = exponential(model, 0.3, TRUE.pa_deg, TRUE.inclination_deg)
        found = model.predict(light, TRUE.velocity(model.east, model.north), SIGMA0)
        lines[bin_pixels] = found.reshape(12, -1, *found.shape[1:]).sum(axis=1)
    for bin_pixels in (0.5, 1.0):
        # What lies beyond the highest frequency that bins of a pixel hold is neglected.
        assert np.abs(lines[bin_pixels] - lines[2.0]).max() < 3e-3 * lines[2.0].max()


def test_without_the_shift_of_light_beside_the_middle_the_position_angle_is_wrong(cube, fit):
    wrong = fit_disc(cube, REDSHIFT, ra=RA, dec=DEC, inclination_deg=35.0, pa_deg=40.0, sample=False, slit_shift=0)
    assert abs(wrong.best["pa_deg"] - 40.0) > 3.0 * abs(fit.best["pa_deg"] - 40.0)
    assert wrong.chi2 > fit.chi2 + 25.0


def test_the_dispersion_depends_on_the_line_spread_function_as_its_width_says(cube, fit):
    """The same cube three times: what a wider function takes away in quadrature is missing from the gas."""
    galaxy = SimpleNamespace(
        source_id=8512, cube=cube, redshift=REDSHIFT, kinematics=fit, spread=line_spread_of(cube.header),
        geometry=Geometry(RA, DEC, 35.0, 40.0, 8.2), offset_covariance=np.full((2, 2), np.nan),
    )  # fmt: skip
    table = report.line_spreads(galaxy, Dataset.load("go2136"))
    rows = {row["line spread"]: row for row in table}
    assert list(rows) == list(CURVES)
    assert [name for name, row in rows.items() if row["used"] == "yes"] == ["slit"]
    slit = rows["slit"]
    assert slit["sigma0"] == fit.best["sigma0"]
    for name in ("pre-flight", "in-flight"):
        expected = np.sqrt(SIGMA0**2 + slit["sigma_lsf"] ** 2 - rows[name]["sigma_lsf"] ** 2)
        assert abs(rows[name]["sigma0"] - expected) < 3.5 * rows[name]["error"], name
        # The error of the width itself is the same.
        error = slit["error"] * slit["sigma0"] / rows[name]["sigma0"]
        assert rows[name]["error"] == pytest.approx(error, rel=0.1)
    assert rows["pre-flight"]["sigma0"] < 34 < 41 < rows["in-flight"]["sigma0"]
    # Of a real galaxy nothing is known.
    assert np.isnan(table["injected"]).all() and np.isnan(table["pull"]).all()


def test_light_beside_the_middle_is_shifted_whatever_the_width(cube, fit):
    """A line-spread function of given width is that of the slit's image and more: the disc is the same."""
    spread = line_spread_of(cube.header, curve="pre-flight")
    other = fit_disc(cube, REDSHIFT, ra=RA, dec=DEC, inclination_deg=35.0, pa_deg=40.0, sample=False, spread=spread)
    for name in ("pa_deg", "v_sin_i", "systemic"):
        assert abs(other.best[name] - fit.best[name]) < 0.5 * fit.error[name], name
    assert other.chi2 == pytest.approx(fit.chi2, rel=0.005)


def test_sampling_gives_the_errors_of_the_covariance(cube, fit):
    options = {"walkers": 12, "steps": 30, "pa_deg": 40.0}
    sampled = fit_disc(cube, REDSHIFT, ra=RA, dec=DEC, inclination_deg=35.0, **options)
    assert sampled.samples.shape == (12 * 20, 5)
    for name in ("pa_deg", "sigma0", "systemic"):
        assert sampled.error[name] == pytest.approx(fit.error[name], rel=0.6)
    chain = sampled.convergence
    assert fit.convergence is None and (chain.steps, chain.walkers) == (20, 12)
    assert chain.effective == pytest.approx(len(sampled.samples) / chain.time)
    # Twenty steps are no chain, and the report says so.
    noted = {row.quantity: row for row in report.disc_rows(sampled)}["effective_samples"]
    assert noted.recovered == chain.effective and "at most" in noted.note
    assert "effective_samples" not in {row.quantity for row in report.disc_rows(fit)}


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_the_autocorrelation_time_of_a_known_process(memory):
    """First-order autoregression: (1 + a) / (1 - a) steps."""
    noise = np.random.default_rng(1).standard_normal((20_000, 8, 2))
    chain = lfilter([1.0], [1.0, -memory], noise, axis=0)
    found = Convergence.of(chain)
    expected = (1.0 + memory) / (1.0 - memory)
    assert found.time == pytest.approx(expected, rel=0.15)
    assert found.effective == pytest.approx(20_000 * 8 / expected, rel=0.15)
    assert "at most" not in found.told


def test_noise_that_neighbours_share_makes_errors_larger(cube, fit):
    shared = np.zeros((3, 3, 3))
    shared[1] = [[0.1, 0.5, 0.1], [0.5, 1.0, 0.5], [0.1, 0.5, 0.1]]
    cube = replace(cube, correlation=shared)
    wider = fit_disc(cube, REDSHIFT, ra=RA, dec=DEC, inclination_deg=35.0, pa_deg=40.0, sample=False)
    assert wider.scale > 1.5 * fit.scale
    assert wider.error["sigma0"] > 1.2 * fit.error["sigma0"]


def test_the_slit_shifts_light_beside_its_middle():
    cube = replace(blank(), header=header(slit_pa=0.0))
    model = LineModel(cube, cube.wave_um[120:141], HA_UM, RA, DEC, columns=False)
    # Light that grows to the east enters the slit's east side more: shifted to the red for SLIT_SIGN -1.
    light = np.exp(-0.5 * (np.hypot(model.east - 0.3, model.north) / 0.2) ** 2)
    line = model.predict(light, np.zeros_like(light), 30.0)
    away = (cube.wave_um[120:141] / HA_UM - 1.0) * C_KMS
    mean = (line * away[:, None, None]).sum(axis=0) / line.sum(axis=0)
    expected = model.slit_velocity(light) / model.flux(light)
    middle = 8, slice(5, 9)
    assert mean[middle] == pytest.approx(expected[middle], abs=0.5)
    assert np.all(np.sign(mean[8, 7:9]) == -SLIT_SIGN)


def test_surface_brightness_is_kept_and_transposed_is_the_adjoint():
    cube = blank()
    model = LineModel(cube, cube.wave_um[120:141], HA_UM, RA, DEC, columns=False)
    assert model.flux(np.ones(model.east.shape)) == pytest.approx(np.ones(cube.shape), rel=1e-9)
    light = np.exp(-0.5 * (np.hypot(model.east, model.north) / 0.15) ** 2)
    line = model.predict(light, np.zeros_like(light), 30.0)
    assert line.sum(axis=0) == pytest.approx(model.flux(light), abs=2e-3 * model.flux(light).max())
    image = np.random.default_rng(1).normal(size=cube.shape)
    assert (model.flux(light) * image).sum() == pytest.approx((model.transposed(image) * light).sum(), rel=1e-9)


def test_light_is_found_behind_the_instrument():
    cube = blank()
    model = LineModel(cube, cube.wave_um[120:141], HA_UM, RA, DEC, columns=False)
    light = exponential(model, 0.3, 0.0, 0.0)
    clump = 2.0 * np.exp(-0.5 * (np.hypot(model.east - 0.4, model.north + 0.2) / 0.08) ** 2)
    seen = model.flux(light + clump)
    found = deconvolve(model, seen, np.full(cube.shape, 0.002))
    smooth = deconvolve(model, seen, np.full(cube.shape, 0.002), iterations=0)
    assert np.abs(model.flux(found) - seen).max() < 0.5 * np.abs(model.flux(smooth) - seen).max()
    assert found.min() >= 0.0


def test_columns_are_read_off_the_number_of_exposures():
    across = np.broadcast_to((np.arange(25) - 12) * 0.1 * np.cos(0.2), (25, 25)) + np.arange(25)[:, None] * 0.0199
    distance = np.abs((across - 0.07 + 0.1) % 0.2)
    border = np.minimum(distance, 0.2 - distance) < 0.059
    found = find_lattice(np.where(border, 14.0, 7.0), across, 0.2, 0.059)
    assert found.period == pytest.approx(0.2, abs=0.003)
    assert (found.first - 0.07 + 0.1) % 0.2 - 0.1 == pytest.approx(0.0, abs=0.02)
    assert find_lattice(np.full((25, 25), 7.0), across, 0.2, 0.059) is None


def test_cubes_that_tell_too_little_are_refused(cube):
    where = {"ra": RA, "dec": DEC, "inclination_deg": 35.0}
    with pytest.raises(ProductError, match="no errors"):
        fit_disc(replace(cube, err=None), REDSHIFT, **where)
    with pytest.raises(ProductError, match="SLITWID"):
        fit_disc(replace(cube, header=type(cube.header)()), REDSHIFT, **where)
    with pytest.raises(ProductError, match="spaxels show Ha"):
        fit_disc(with_disc(5.0), REDSHIFT, **where)
