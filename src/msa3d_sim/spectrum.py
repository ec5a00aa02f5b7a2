"""The light of a simulated galaxy as a function of wavelength: calibrations, dust, stars, lines, sky.

Every relation is a published one, named with its source, and is used in the direction "from the
injected physical quantity to the observed one". Wavelengths are vacuum wavelengths, in micrometres.
"""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.cosmology import FlatLambdaCDM

from msa3d.constants import C_KMS, LABELS
from msa3d.constants import LINES as TABLE

_COSMOLOGY = FlatLambdaCDM(H0=70.0, Om0=0.3)
"""The cosmology of the simulated scene: flat, H0 = 70 km/s/Mpc, matter density 0.3."""

MJY_SR_PER_CGS_ARCSEC2 = 1e17 * (180.0 * 3600.0 / np.pi) ** 2
"""MJy/sr in one erg/s/cm2/Hz/arcsec2."""

HA_LUMINOSITY_PER_SFR = 10.0**41.27
"""erg/s of intrinsic Halpha for 1 Msun/yr: log SFR = log L(Ha) - 41.27 (Kennicutt & Evans 2012, table 1)."""

BALMER_DECREMENT = 2.86
"""Intrinsic Ha/Hb, case B, 1e4 K, 100 cm-3 (Osterbrock & Ferland 2006, table 4.4)."""

_SII_DOUBLET_RATIO = 1.40
"""[SII] 6716/6731 at low density, about 30 cm-3 (Osterbrock & Ferland 2006, figure 5.8)."""

_OIII_DOUBLET_RATIO = 2.98
"""[OIII] 5007/4959 (Storey & Zeippen 2000)."""

_NII_DOUBLET_RATIO = 3.05
"""[NII] 6583/6548 (Storey & Zeippen 2000)."""

METALLICITY_RANGE = (8.13, 9.05)
"""12 + log(O/H) where the relations of Pettini & Pagel (2004) hold, kept to by every simulated galaxy."""

_STELLAR_TO_NEBULAR_REDDENING = 0.44
"""E(B-V) of the stars over that of the ionised gas (Calzetti et al. 2000, equation 3)."""


@dataclass(frozen=True)
class LineSpecies:
    """One emission line.

    Attributes
    ----------
    name : str
        Short name, also used for FITS extensions.
    rest_um : float
        Rest-frame vacuum wavelength, um.
    label : str
        Name for people.
    """

    name: str
    rest_um: float
    label: str


LINES = tuple(
    LineSpecies(name.upper().translate({ord("["): None, ord("]"): None}), rest_um, LABELS[name])
    for name, rest_um in TABLE.items()
)
"""The lines every simulated galaxy emits, in order of wavelength."""


def line_ratios_to_halpha(metallicity):
    """Intrinsic line fluxes over Halpha for a gas-phase metallicity.

    Three calibrations are used backwards, so that each of them recovers the same metallicity from the
    dust-free ratios: N2 = log [NII]6583/Ha with 12 + log(O/H) = 8.90 + 0.57 N2 and
    O3N2 = log ([OIII]5007/Hb) / ([NII]6583/Ha) with 12 + log(O/H) = 8.73 - 0.32 O3N2 (Pettini & Pagel
    2004, equations 1 and 3), and 12 + log(O/H) = 8.77 + log [NII]6583/[SII]6716,31 + 0.264 N2
    (Dopita et al. 2016, equation 2).

    Parameters
    ----------
    metallicity : array-like
        12 + log(O/H); values outside `METALLICITY_RANGE` are moved to its nearer end.

    Returns
    -------
    dict of str to numpy.ndarray
        For each name in `LINES`, flux over Halpha flux, of the shape of `metallicity`.
    """
    z = np.clip(np.asarray(metallicity, dtype=float), *METALLICITY_RANGE)
    n2 = (z - 8.90) / 0.57
    o3n2 = (8.73 - z) / 0.32
    nii = 10.0**n2
    oiii = 10.0 ** (o3n2 + n2) / BALMER_DECREMENT
    sii = 10.0 ** (n2 - (z - 8.77) + 0.264 * n2)
    return {
        "HB": np.full_like(z, 1.0 / BALMER_DECREMENT),
        "OIII4959": oiii / _OIII_DOUBLET_RATIO,
        "OIII5007": oiii,
        "NII6548": nii / _NII_DOUBLET_RATIO,
        "HA": np.ones_like(z),
        "NII6583": nii,
        "SII6716": sii * _SII_DOUBLET_RATIO / (1.0 + _SII_DOUBLET_RATIO),
        "SII6731": sii / (1.0 + _SII_DOUBLET_RATIO),
    }


def ccm89(wave_um, r_v: float = 3.1):
    """Extinction A(lambda)/A(V) of Cardelli, Clayton & Mathis (1989), infrared and optical parts.

    Parameters
    ----------
    wave_um : array-like
        Wavelength at rest, 0.303 to 3.33 um.
    r_v : float
        Total to selective extinction.

    Returns
    -------
    numpy.ndarray
        A(lambda)/A(V).

    Raises
    ------
    ValueError
        Outside the range of wavelengths for which the optical and infrared formulae hold.
    """
    x = 1.0 / np.asarray(wave_um, dtype=float)
    if np.any((x < 0.3) | (x > 3.3)):
        raise ValueError("The extinction law of Cardelli et al. (1989) is used from 0.303 to 3.33 um only.")
    y = x - 1.82
    # Equations 3a and 3b, coefficients from the constant upwards.
    a_optical = (1.0, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999)
    b_optical = (0.0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002)
    optical = np.polynomial.polynomial.polyval(y, a_optical)
    optical = optical + np.polynomial.polynomial.polyval(y, b_optical) / r_v
    infrared = (0.574 - 0.527 / r_v) * x**1.61
    return np.where(x < 1.1, infrared, optical)


def calzetti2000(wave_um, r_v: float = 4.05):
    """Attenuation A(lambda)/A(V) of starburst galaxies, rest-frame 0.12-2.2 um (Calzetti et al. 2000, equation 4)."""
    w = np.asarray(wave_um, dtype=float)
    blue = 2.659 * (-2.156 + 1.509 / w - 0.198 / w**2 + 0.011 / w**3) + r_v
    red = 2.659 * (-1.857 + 1.040 / w) + r_v
    return np.where(w < 0.63, blue, red) / r_v


def stellar_av(nebular_av):
    """V-band attenuation of the starlight where that of the ionised gas is `nebular_av`, both in mag."""
    # E(B-V)gas = A_V/3.1 (Cardelli et al. 1989); stars: 0.44 of it, times R_V = 4.05 (Calzetti et al. 2000).
    return np.asarray(nebular_av) / 3.1 * _STELLAR_TO_NEBULAR_REDDENING * 4.05


INTRINSIC_G_MINUS_I = 0.3
"""Dust-free rest-frame g - i (AB) of the simulated stars; a star-forming disc."""

I_BAND_UM = 0.762
"""Effective wavelength of SDSS i."""

SOLAR_I_ABSOLUTE_AB = 4.53
"""Absolute magnitude of the Sun in SDSS i, AB (Willmer 2018)."""


def mass_to_light_i() -> float:
    """Stellar mass over rest-frame i luminosity in solar units (Taylor et al. 2011, equation 7).

    log M/L_i = -0.68 + 0.70 (g - i), for a Chabrier initial mass function, at `INTRINSIC_G_MINUS_I`.
    """
    return float(10.0 ** (-0.68 + 0.70 * INTRINSIC_G_MINUS_I))


def stellar_luminosity_density(wave_rest_um, log_mass: float):
    """Dust-free stellar luminosity density, erg/s/Hz, of a galaxy at rest-frame wavelengths (um).

    A power law through rest-frame g and i with the colour `INTRINSIC_G_MINUS_I`, flattening beyond i, and a
    break of a factor 1.3 at 0.395 um. Stellar absorption lines are left out on purpose.
    """
    w = np.asarray(wave_rest_um, dtype=float)
    luminosity_i = 10.0**log_mass / mass_to_light_i()
    absolute_ab = SOLAR_I_ABSOLUTE_AB - 2.5 * np.log10(luminosity_i)
    area = 4.0 * np.pi * (10.0 * u.pc).to_value(u.cm) ** 2
    normalisation = 10.0 ** (-0.4 * (absolute_ab + 48.60)) * area
    slope = 0.4 * INTRINSIC_G_MINUS_I / np.log10(I_BAND_UM / 0.477)
    shape = np.where(w < I_BAND_UM, (w / I_BAND_UM) ** slope, (w / I_BAND_UM) ** (0.4 * slope))
    dn4000 = 1.0 + (1.0 / 1.3 - 1.0) / (1.0 + np.exp((w - 0.395) / 0.004))
    return normalisation * shape * dn4000


# Leinert et al. (1998), table 19: zodiacal light in the ecliptic at 90 degrees from the Sun, W/m2/sr/um; and
# table 17, the same elongation: brightness at ecliptic latitude 60 deg (Extended Groth Strip) over 0 deg.
_LEINERT_WAVE_UM = (0.5, 0.7, 0.9, 1.0, 1.2, 2.2, 3.5)
_LEINERT_ECLIPTIC = (2.6e-6, 2.0e-6, 1.3e-6, 1.2e-6, 8.1e-7, 1.7e-7, 5.2e-8)
_LEINERT_LATITUDE_60 = 86.0 / 259.0


def zodiacal_mjy_sr(wave_um):
    """Zodiacal light (MJy/sr) towards the Extended Groth Strip (ecliptic latitude 60 deg, 90 deg from the Sun).

    A cubic in log-log through the values of Leinert et al. (1998, tables 17 and 19), which have two digits: no
    kinks, and within 7% of them from 0.5 to 3.5 um.
    """
    w = np.asarray(wave_um, dtype=float)
    wave = np.asarray(_LEINERT_WAVE_UM)
    # W/m2/sr/um times um^2 / c: 1e6 per m, 1e-12 m2, c in 1e3 m/s, 1e26 Jy and 1e-6 MJy.
    i_nu = np.asarray(_LEINERT_ECLIPTIC) * _LEINERT_LATITUDE_60 * wave**2 * (1e11 / C_KMS)
    polynomial = np.polynomial.Polynomial.fit(np.log(wave), np.log(i_nu), 3)
    return np.exp(polynomial(np.log(w)))


def line_density_mjy_sr(surface_flux, phi_per_kms, velocity_kms, centre_um: float):
    """Specific intensity of a line (MJy/sr) from its surface flux (erg/s/cm2/arcsec2) and velocity profile (per km/s).

    With lambda = centre (1 + v/c), the wavelength density is S phi c / centre, and
    I_nu = I_lambda lambda^2 / c = S phi centre (1 + v/c)^2. The integral of I_lambda over wavelength is S.
    """
    # centre in km over km/s gives seconds, i.e. per Hz.
    per_hz = centre_um * 1e-9 * (1.0 + np.asarray(velocity_kms) / C_KMS) ** 2
    return np.asarray(surface_flux) * np.asarray(phi_per_kms) * per_hz * MJY_SR_PER_CGS_ARCSEC2


def luminosity_distance_cm(redshift: float) -> float:
    """Luminosity distance in cm in `_COSMOLOGY`."""
    return float(_COSMOLOGY.luminosity_distance(redshift).to_value(u.cm))


def kpc_per_arcsec(redshift: float) -> float:
    """Proper kpc in one arcsec at a redshift, in `_COSMOLOGY`."""
    return float(1.0 / _COSMOLOGY.arcsec_per_kpc_proper(redshift).to_value(u.arcsec / u.kpc))
