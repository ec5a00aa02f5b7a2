"""All lines fitted together."""

from __future__ import annotations

from dataclasses import replace

import lmfit
import numpy as np
import pytest

from msa3d.constants import LINES
from msa3d.errors import ProductError
from msa3d.galaxy.fit import _root, fit_lines
from msa3d.galaxy.lines import (
    SPECIES,
    LineSpread,
    bin_edges,
    line_spread_of,
    species_profile,
    to_line_flux,
    windows,
)

from ..fixtures.cubes import REDSHIFT, SPREAD, add_lines, empty, header, wavelengths

FLUX = {"Hb": 1e-17, "[OIII]5007": 6e-18, "Ha": 4e-17, "[NII]6583": 1.5e-17, "[SII]6716": 6e-18, "[SII]6731": 4e-18}


@pytest.fixture(scope="module")
def noisy():
    cube = empty(4, wavelengths(), sigma=0.05, seed=3)
    velocity = np.linspace(-80.0, 80.0, 16).reshape(4, 4)
    add_lines(cube, FLUX, velocity, 45.0)
    return cube, velocity


def test_without_noise_everything_comes_back():
    cube = empty(3, wavelengths())
    velocity = np.linspace(-150.0, 150.0, 9).reshape(3, 3)
    add_lines(cube, FLUX, velocity, 30.0)
    fit = fit_lines(cube, REDSHIFT, spread=SPREAD)
    for name, value in FLUX.items():
        np.testing.assert_allclose(fit.flux[name], value, rtol=1e-3)
    np.testing.assert_allclose(fit.velocity, velocity, atol=0.1)
    np.testing.assert_allclose(fit.sigma, 30.0, atol=0.2)


def test_equals_lmfit_in_values_and_errors(noisy):
    cube, _ = noisy
    names = ("Ha", "[NII]6583")
    fit = fit_lines(cube, REDSHIFT, names=names, spread=SPREAD)
    ((index, _),) = windows(cube.wave_um, REDSHIFT, names, 1500.0)
    edges, slope = bin_edges(cube.wave_um[index]), np.linspace(-0.5, 0.5, index.size)
    scale = {name: 1.0 / to_line_flux(1.0, LINES[name] * (1 + REDSHIFT)) * 1e-17 for name in names}

    def residual(p, data):
        v, s = np.array([p["v"].value]), np.array([p["s"].value])
        lines = [
            species_profile(n, edges, REDSHIFT, v, s, SPREAD)[0] * scale[n] * p[k].value
            for n, k in zip(names, "ab", strict=True)
        ]
        return (data - sum(lines) - p["c"].value - p["d"].value * slope) / 0.05

    for y, x in ((0, 0), (1, 2), (3, 3)):
        start = lmfit.create_params(a=4.0, b=1.5, c=0.2, d=0.0, v=fit.velocity[y, x] + 10.0, s=55.0)
        found = lmfit.minimize(residual, start, args=(cube.data[index, y, x],), scale_covar=False)
        got = [fit.flux["Ha"][y, x] / 1e-17, fit.flux["[NII]6583"][y, x] / 1e-17, fit.velocity[y, x], fit.sigma[y, x]]
        error = [fit.flux_error["Ha"][y, x] / 1e-17, fit.flux_error["[NII]6583"][y, x] / 1e-17]
        error += [fit.velocity_error[y, x], fit.sigma_error[y, x]]
        wanted, wanted_error = zip(*((found.params[k].value, found.params[k].stderr) for k in "abvs"), strict=True)
        np.testing.assert_allclose(got, wanted, atol=5e-3 * np.array(wanted_error).max())
        np.testing.assert_allclose(error, wanted_error, rtol=0.02)
        assert fit.chi2[y, x] == pytest.approx(found.chisqr, rel=1e-4)


def test_known_velocities_give_unbiased_faint_fluxes():
    cube = empty(20, wavelengths(1.35, 1.41), sigma=0.05, seed=1)
    add_lines(cube, {"Ha": 2e-18}, 20.0, 40.0)
    fit = fit_lines(
        cube, REDSHIFT, names=("Ha",), spread=SPREAD, velocity=np.full((20, 20), 20.0), sigma=np.full((20, 20), 40.0)
    )
    pull = (fit.flux["Ha"] - 2e-18) / fit.flux_error["Ha"]
    assert fit.snr("Ha").mean() < 3
    assert abs(pull.mean()) < 3 / 20
    assert pull.std() == pytest.approx(1.0, abs=0.11)
    assert (fit.velocity_error == 0).all()


def test_correlated_noise_is_whitened():
    """Noise shared by neighbours: whitened errors fit the scatter, naive ones are too small."""
    wave = wavelengths(1.35, 1.41)
    rng = np.random.default_rng(5)
    white = rng.normal(0.0, 1.0, (wave.size + 1, 20, 20))
    data = 0.05 * (white[1:] + 0.6 * white[:-1]) / np.hypot(1.0, 0.6)
    rho = 0.6 / (1 + 0.36)
    cube = replace(empty(20, wave), data=data, err=np.full_like(data, 0.05))
    shared = replace(cube, correlation=np.array([0.0, rho, 1.0, rho, 0.0])[:, None, None])
    given = {"velocity": np.zeros((20, 20)), "sigma": np.full((20, 20), 40.0), "names": ("Ha",), "spread": SPREAD}
    whitened, naive = fit_lines(shared, REDSHIFT, **given), fit_lines(cube, REDSHIFT, **given)
    assert whitened.snr("Ha").std() == pytest.approx(1.0, abs=0.11)
    assert naive.snr("Ha").std() > 1.2


def test_a_gap_hides_one_window_only(noisy):
    cube, velocity = noisy
    data = cube.data.copy()
    data[np.abs(cube.wave_um - LINES["Hb"] * (1 + REDSHIFT)) < 0.004] = np.nan
    fit = fit_lines(replace(cube, data=data), REDSHIFT, spread=SPREAD)
    assert np.isnan(fit.flux["Hb"]).all()
    assert np.isfinite(fit.flux["Ha"]).all()
    assert np.abs((fit.velocity - velocity) / fit.velocity_error).max() < 4.5


def test_without_a_covered_line_it_says_so(noisy):
    with pytest.raises(ProductError, match="redshift"):
        fit_lines(noisy[0], 5.0)


def test_reliable_needs_signal(noisy):
    fit = fit_lines(noisy[0], REDSHIFT, spread=SPREAD)
    assert fit.reliable(5.0).all()
    assert not fit.reliable(1e4).any()
    assert set(fit.flux) == set(SPECIES)


def test_line_spread():
    slit = LineSpread("slit")
    half, each = slit.components(1.38)
    boxes = np.array([1.95, 1.0, 1.0])
    variance = (boxes**2).sum() / 12 + 0.16
    assert np.hypot(half, each) == pytest.approx(np.sqrt(variance) * 2.36e-4)
    # Fourth cumulant of two points and of the top-hats.
    assert -2 * (half / 2.36e-4) ** 4 == pytest.approx(-(boxes**4).sum() / 120)
    before, after = LineSpread("pre-flight"), LineSpread("in-flight", factor=1.3)
    assert before.sigma_kms(1.43) == pytest.approx(299792.458 / 2762 / 2.3548, rel=1e-3)
    assert after.sigma_kms(1.43) == pytest.approx(before.sigma_kms(1.43) / 1.3)
    assert line_spread_of(header()).curve == "slit"
    assert line_spread_of({}).curve == "pre-flight"
    with pytest.raises(ValueError, match="line-spread function"):
        LineSpread("guess")


@pytest.mark.parametrize(
    ("grating", "wave_um", "resolving"),
    [
        ("G140M", 1.4, 1000), ("G140H", 1.43, 2762), ("G235M", 2.4, 1000), ("G235H", 2.4, 2700),
        ("G395M", 4.0, 1000), ("G395H", 4.0, 2700), ("PRISM", 1.2, 30), ("PRISM", 5.3, 330),
    ],
)  # fmt: skip
def test_every_disperser_has_its_curve(grating, wave_um, resolving):
    """STScI calls the gratings those of R = 1000 and 2700, and the prism one of 30 to 330."""
    spread = LineSpread("pre-flight", grating=grating)
    assert 299792.458 / 2.3548 / spread.sigma_kms(wave_um) == pytest.approx(resolving, rel=0.05)
    # The model of slit and pixels is of the same width within a fifth.
    assert LineSpread("slit", grating=grating).sigma_kms(wave_um) == pytest.approx(spread.sigma_kms(wave_um), rel=0.2)
    assert line_spread_of({"GRATING": grating, "SLITWID": 0.2}).grating == grating
    with pytest.raises(ValueError, match="dispersers are G140M"):
        LineSpread(grating="MIRROR")


def test_a_correlation_that_is_none_does_not_stop_the_fit():
    """Measured at few places, correlations can ask for noise of negative power."""
    root = _root(np.array([1.0, 0.8, 0.5, 0.6]), 40)
    assert np.isfinite(root).all()
    np.testing.assert_allclose(np.diag(root @ root.T), 1.0, atol=1e-8)
    # One that is one is left as it is.
    good = _root(np.array([1.0, 0.4, 0.1]), 40)
    assert (good @ good.T)[5, 3:8] == pytest.approx([0.1, 0.4, 1.0, 0.4, 0.1], abs=1e-8)
