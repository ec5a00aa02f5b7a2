"""Calibrations, metallicity, attenuation and star formation from lines whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from msa3d.galaxy import dust as galaxy_dust
from msa3d.galaxy import metals
from msa3d.galaxy.disc import luminosity_distance_cm
from msa3d.galaxy.metals import metallicity_calibration, names, star_formation_calibration
from msa3d.galaxy.profiles import Exponential
from msa3d_sim import spectrum

from ..fixtures.cubes import REDSHIFT, disc

LN10 = np.log(10.0)


def exponential(log_centre, rate, centre_error=0.05, rate_error=0.05):
    covariance = np.array([[centre_error**2, 0.5 * centre_error * rate_error]] * 2)
    covariance[1] = covariance[0, 1], rate_error**2
    return Exponential(log_centre, rate, covariance, 0.0, 100, covariance, cos_inclination=np.cos(np.radians(30)))


def galaxy(slope=-0.02, centre=8.6, av=1.0, av_slope=-0.05, scale=0.4, sfr=5.0):
    """Discs of an exponential galaxy as the simulation makes them (attenuation by dust_extinction's curves)."""
    kpc = disc().kpc_per_arcsec
    radius = np.array([0.0, 1.0])
    ratio = spectrum.line_ratios_to_halpha(centre + slope * kpc * radius)
    surface = sfr / (2 * np.pi * scale**2) * 10.0**41.27 / (4 * np.pi * luminosity_distance_cm(REDSHIFT) ** 2)
    discs = {}
    for name, key in (("Hb", "HB"), ("[OIII]5007", "OIII5007"), ("Ha", "HA"), ("[NII]6583", "NII6583")):
        dust = 10 ** (-0.4 * galaxy_dust.curve(name) * (av + av_slope * kpc * radius))
        value = np.log(surface / np.cos(np.radians(30)) * np.exp(-radius / scale) * ratio[key] * dust)
        discs[name] = exponential(value[0], value[0] - value[1])
    return discs


@pytest.mark.parametrize("name", names())
def test_calibrations_hold_on_their_range(name):
    relation = metallicity_calibration(name)
    ratio = np.linspace(*relation.valid, 5) if relation.direct else np.array([-0.6, -0.5])
    value = relation.metallicity(ratio)
    assert ((value[np.isfinite(value)] > 7.0) & (value[np.isfinite(value)] < 9.3)).all()
    assert np.isfinite(value).any()
    assert np.isnan(relation.metallicity(9.0))
    assert relation.reference
    assert len(relation.bibcode) == 19


@pytest.mark.parametrize("name", ["C17_N2", "C17_R3", "C20_S2"])
def test_inverse_relations_invert(name):
    relation = metallicity_calibration(name)
    at = relation.valid[1] - 0.1
    ratio = np.polynomial.polynomial.polyval(at - relation.offset, relation.coefficients)
    assert relation.metallicity(ratio) == pytest.approx(at, abs=1e-3)


def test_unknown_names():
    with pytest.raises(ValueError, match="PP04_N2"):
        metallicity_calibration("mine")
    with pytest.raises(ValueError, match="CCM89"):
        galaxy_dust.curve("Ha", "mine")
    assert star_formation_calibration().log_luminosity == 41.27


@pytest.mark.parametrize("name", ["PP04_N2", "PP04_O3N2"])
def test_the_simulated_gradient_comes_back(name):
    """Dust acts on N2 hardly and on O3N2 little: the pairs lie side by side."""
    found = metals.gradient(galaxy(), disc(), calibration=name)
    assert found.slope == pytest.approx(-0.02, abs=3e-4)
    assert found.centre == pytest.approx(8.6, abs=0.02)
    value, error = found.at(0.0)
    assert value == found.centre
    assert error == found.centre_error


def test_gradient_errors_are_those_of_draws():
    discs, rng = galaxy(), np.random.default_rng(4)
    found = metals.gradient(discs, disc())
    slopes = []
    for _ in range(400):
        moved = {}
        for name in ("Ha", "[NII]6583"):
            one = discs[name]
            moved[name] = exponential(*rng.multivariate_normal([one.log_centre, one.rate], one.covariance))
        slopes.append(metals.gradient(moved, disc()).slope)
    assert found.slope_error == pytest.approx(np.std(slopes), rel=0.12)


def test_missing_lines_are_named():
    with pytest.raises(ValueError, match="Hb"):
        metals.gradient({"Ha": exponential(0, 1), "[NII]6583": exponential(0, 1)}, disc(), calibration="PP04_O3N2")
    with pytest.raises(ValueError, match="SII"):
        metals.log_ratio({"Ha": np.ones(1)}, {"Ha": np.ones(1)}, "S2")


def test_maps_of_metallicity():
    flux = {"Ha": np.array([10.0, 10.0, 10.0]), "[NII]6583": np.array([3.0, 0.1, -1.0])}
    error = {"Ha": np.full(3, 0.1), "[NII]6583": np.full(3, 0.1)}
    value, sigma = metals.metallicity(flux, error)
    assert value[0] == pytest.approx(8.90 + 0.57 * np.log10(0.3))
    assert sigma[0] == pytest.approx(0.57 / LN10 * np.hypot(0.1 / 3, 0.01))
    assert np.isnan(value[1:]).all()
    assert np.isnan(sigma[1:]).all()


def test_attenuation_and_star_formation_come_back():
    discs = galaxy()
    found = galaxy_dust.gradient(discs["Ha"], discs["Hb"], disc())
    assert found.slope == pytest.approx(-0.05, abs=1e-6)
    assert found.centre == pytest.approx(1.0, abs=1e-6)
    stars = galaxy_dust.star_formation(discs["Ha"], discs["Hb"], REDSHIFT)
    assert stars.sfr == pytest.approx(5.0, rel=1e-6)
    assert stars.scale_arcsec == pytest.approx(0.4, rel=1e-6)
    assert stars.observed_scale_arcsec > 0.4
    bare = galaxy_dust.star_formation(discs["Ha"], None, REDSHIFT)
    assert bare.sfr < stars.sfr
    assert bare.sfr_error / bare.sfr < stars.sfr_error / stars.sfr


def test_balmer_decrement():
    value, error = galaxy_dust.balmer_av([2.86, 4.0, 2.0, -1.0], 1.0, 0.1, 0.1)
    assert value[0] == pytest.approx(0.0)
    assert value[1] > 0 > value[2]
    assert np.isnan(value[3])
    assert np.isnan(error[3])
    high, low = (galaxy_dust.balmer_av(4.0, hb)[0] for hb in (0.999, 1.001))
    assert error[1] == pytest.approx(np.hypot(0.1, 0.1 / 4) * (high - low) / 0.002, rel=1e-3)


@pytest.mark.parametrize("law", list(galaxy_dust.LAWS))
def test_laws(law):
    assert galaxy_dust.curve("Hb", law) > galaxy_dust.curve("Ha", law) > 0.5
