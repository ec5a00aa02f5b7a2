"""Relations by which the simulated galaxies shine, against the published numbers they stand for."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from scipy.integrate import trapezoid

from msa3d import constants
from msa3d_sim import spectrum


def test_ccm89_reproduces_its_published_table():
    # Cardelli et al. (1989), table 3, R_V = 3.1: U V R I J H K, three digits.
    wave = 1.0 / np.array([2.78, 1.82, 1.43, 1.11, 0.80, 0.63, 0.46])
    expected = [1.569, 1.000, 0.751, 0.479, 0.282, 0.190, 0.114]
    np.testing.assert_allclose(spectrum.ccm89(wave), expected, atol=2.5e-3)


@pytest.mark.parametrize("r_v", [2.5, 3.1, 5.0])
def test_ccm89_keeps_the_definition_of_r_v(r_v):
    # R_V = A(V) / (A(B) - A(V)), so that A(B)/A(V) = 1 + 1/R_V.
    assert spectrum.ccm89(1.0 / 2.27, r_v) == pytest.approx(1.0 + 1.0 / r_v, abs=1e-3)


def test_ccm89_refuses_the_ultraviolet():
    with pytest.raises(ValueError, match=r"0\.303"):
        spectrum.ccm89([0.25, 0.5])


def test_calzetti_is_one_in_v_and_continuous():
    assert spectrum.calzetti2000(0.55) == pytest.approx(1.0, abs=2e-3)
    assert spectrum.calzetti2000(0.62999) == pytest.approx(spectrum.calzetti2000(0.63001), abs=0.01)


@pytest.mark.parametrize("metallicity", [8.2, 8.45, 8.7, 8.9])
def test_three_calibrations_give_back_one_metallicity(metallicity):
    f = spectrum.line_ratios_to_halpha(metallicity)
    n2 = np.log10(f["NII6583"] / f["HA"])
    o3n2 = np.log10(f["OIII5007"] / f["HB"]) - n2
    n2s2 = np.log10(f["NII6583"] / (f["SII6716"] + f["SII6731"])) + 0.264 * n2
    assert 8.90 + 0.57 * n2 == pytest.approx(metallicity)
    assert 8.73 - 0.32 * o3n2 == pytest.approx(metallicity)
    assert 8.77 + n2s2 == pytest.approx(metallicity)


def test_doublets_and_balmer_decrement():
    f = spectrum.line_ratios_to_halpha(np.array([8.3, 8.6]))
    np.testing.assert_allclose(f["HA"] / f["HB"], 2.86)
    np.testing.assert_allclose(f["OIII5007"] / f["OIII4959"], 2.98)
    np.testing.assert_allclose(f["NII6583"] / f["NII6548"], 3.05)
    np.testing.assert_allclose(f["SII6716"] / f["SII6731"], 1.40)
    assert set(f) == {line.name for line in spectrum.LINES}


def test_metallicities_out_of_range_are_moved_to_its_ends():
    low, high = spectrum.METALLICITY_RANGE
    f = spectrum.line_ratios_to_halpha([low - 1.0, low, high, high + 1.0])
    assert f["NII6583"][0] == f["NII6583"][1] < f["NII6583"][2] == f["NII6583"][3]


def test_wavelengths_are_those_in_vacuum():
    air = {"HB": 4861.33, "OIII4959": 4958.91, "OIII5007": 5006.84, "NII6548": 6548.05, "HA": 6562.80}
    air |= {"NII6583": 6583.45, "SII6716": 6716.44, "SII6731": 6730.82}
    for line in spectrum.LINES:
        # Refraction of air, Morton (2000), in the optical.
        s2 = line.rest_um**-2
        n = 1.0 + 8.34254e-5 + 2.406147e-2 / (130.0 - s2) + 1.5998e-4 / (38.9 - s2)
        assert line.rest_um * 1e4 / n == pytest.approx(air[line.name], abs=0.06)


def test_luminosity_distance_by_a_direct_integral():
    z = np.linspace(0.0, 1.104, 20001)
    comoving = trapezoid(1.0 / np.sqrt(0.3 * (1.0 + z) ** 3 + 0.7), z) * constants.C_KMS / 70.0
    expected = (comoving * 2.104 * u.Mpc).to_value(u.cm)
    assert spectrum.luminosity_distance_cm(1.104) == pytest.approx(expected, rel=1e-6)
    angular = comoving / 2.104 * 1e3 * np.pi / 180.0 / 3600.0
    assert spectrum.kpc_per_arcsec(1.104) == pytest.approx(angular, rel=1e-6)


def test_stars_have_the_luminosity_of_their_mass():
    l_nu = spectrum.stellar_luminosity_density(spectrum.I_BAND_UM, 10.0)
    area = 4.0 * np.pi * (10.0 * u.pc).to_value(u.cm) ** 2
    magnitude = -2.5 * np.log10(l_nu / area) - 48.60
    solar = 10.0 ** (-0.4 * (magnitude - spectrum.SOLAR_I_ABSOLUTE_AB))
    assert 1e10 / solar == pytest.approx(spectrum.mass_to_light_i(), rel=1e-6)
    colour = -2.5 * np.log10(spectrum.stellar_luminosity_density(0.477, 10.0) / l_nu)
    assert colour == pytest.approx(spectrum.INTRINSIC_G_MINUS_I, abs=1e-6)


def test_zodiacal_light_follows_leinert():
    wave = np.array([0.5, 0.7, 0.9, 1.0, 1.2, 2.2, 3.5])
    i_lambda = np.array([2.6e-6, 2.0e-6, 1.3e-6, 1.2e-6, 8.1e-7, 1.7e-7, 5.2e-8]) * 86 / 259
    i_nu = (i_lambda * u.W / u.m**2 / u.sr / u.um * (wave * u.um) ** 2 / (constants.C_KMS * u.km / u.s)).to_value(
        u.MJy / u.sr
    )
    np.testing.assert_allclose(spectrum.zodiacal_mjy_sr(wave), i_nu, rtol=0.07)
    assert np.all(spectrum.zodiacal_mjy_sr(np.linspace(0.97, 1.89, 50)) > 0.1)


def test_a_lines_density_integrates_to_its_flux():
    centre, flux = 1.3812, 3e-17
    wave = np.linspace(1.376, 1.386, 20001)
    velocity = constants.C_KMS * (wave / centre - 1.0)
    phi = np.exp(-0.5 * (velocity / 60.0) ** 2) / (60.0 * np.sqrt(2.0 * np.pi))
    i_nu = spectrum.line_density_mjy_sr(flux, phi, velocity, centre) * u.MJy / u.sr
    i_lambda = (i_nu * constants.C_KMS * u.km / u.s / (wave * u.um) ** 2).to_value(
        u.erg / u.s / u.cm**2 / u.arcsec**2 / u.um
    )
    assert trapezoid(i_lambda, wave) == pytest.approx(flux, rel=1e-5)
