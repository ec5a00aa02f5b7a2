"""Attenuation of the ionised gas from the Balmer decrement, and star formation corrected for it.

Attenuation laws are those of the package dust_extinction, by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import astropy.units as u
import numpy as np
from dust_extinction import averages, parameter_averages

from msa3d.constants import LINES
from msa3d.galaxy.disc import luminosity_distance_cm
from msa3d.galaxy.metals import DEFAULT_STAR_FORMATION, star_formation_calibration
from msa3d.galaxy.profiles import Exponential, Geometry, Gradient

CASE_B = 2.86
"""Ha/Hb of case B, 1e4 K, 100 cm-3 (Osterbrock & Ferland 2006, table 4.4)."""

DEFAULT_LAW = "CCM89"
"""Our default, of the Milky Way with R_V = 3.1, as is the custom for HII regions."""

LAWS = {
    "CCM89": (parameter_averages.CCM89, "Cardelli, Clayton & Mathis 1989, ApJ 345, 245", "1989ApJ...345..245C"),
    "O94": (parameter_averages.O94, "O'Donnell 1994, ApJ 422, 158", "1994ApJ...422..158O"),
    "F99": (parameter_averages.F99, "Fitzpatrick 1999, PASP 111, 63", "1999PASP..111...63F"),
    "G23": (parameter_averages.G23, "Gordon et al. 2023, ApJ 950, 86", "2023ApJ...950...86G"),
    "SMC": (averages.G03_SMCBar, "Gordon et al. 2003, ApJ 594, 279", "2003ApJ...594..279G"),
}
"""Laws by name: class of dust_extinction, reference, bibcode."""

_LN10 = np.log(10.0)


@cache
def curve(name: str, law: str = DEFAULT_LAW, r_v: float = 3.1) -> float:
    """A(line)/A(V).

    Parameters
    ----------
    name : str
        Key of `lines.LINES`.
    law : str
        Key of `LAWS`.
    r_v : float
        Total to selective extinction, for the laws that have it as a parameter.

    Returns
    -------
    float
        Attenuation at the line over that in V.

    Raises
    ------
    ValueError
        If there is no such law.
    """
    if law not in LAWS:
        raise ValueError(f"no attenuation law {law!r}: choose one of {', '.join(LAWS)}")
    kind = LAWS[law][0]
    model = kind() if law == "SMC" else kind(Rv=r_v)
    return float(model(LINES[name] * u.um))


def balmer_av(
    halpha, hbeta, halpha_error=0.0, hbeta_error=0.0, *, law: str = DEFAULT_LAW, case_b: float = CASE_B
) -> tuple[np.ndarray, np.ndarray]:
    """V-band attenuation from Ha/Hb.

    Parameters
    ----------
    halpha, hbeta, halpha_error, hbeta_error : array-like
        Fluxes of equal unit and their errors.
    law : str
        Key of `LAWS`.
    case_b : float
        Intrinsic ratio.

    Returns
    -------
    tuple of ndarray
        A_V in mag and its 1 sigma error; NaN where a flux is not positive. Ratios below the intrinsic one give
        negative values: nothing is clipped, so that means stay unbiased.
    """
    ha, hb = np.asarray(halpha, dtype=float), np.asarray(hbeta, dtype=float)
    per_dex = 2.5 / (curve("Hb", law) - curve("Ha", law))
    with np.errstate(invalid="ignore", divide="ignore"):
        good = (ha > 0) & (hb > 0)
        value = per_dex * np.log10(np.where(good, ha / hb, np.nan) / case_b)
        relative = np.hypot(np.asarray(halpha_error) / ha, np.asarray(hbeta_error) / hb)
    return value, np.where(good, per_dex / _LN10 * relative, np.nan)


def gradient(
    halpha: Exponential, hbeta: Exponential, geometry: Geometry, *, law: str = DEFAULT_LAW, case_b: float = CASE_B
) -> Gradient:
    """Gradient of A_V from exponential discs in Ha and Hb.

    Parameters
    ----------
    halpha, hbeta : Exponential
        Discs convolved with the point-spread function (`profiles.fit_exponential`).
    geometry : Geometry
        With `kpc_per_arcsec`.
    law : str
        Key of `LAWS`.
    case_b : float
        Intrinsic ratio.

    Returns
    -------
    Gradient
        mag/kpc.
    """
    per_e = 2.5 / (curve("Hb", law) - curve("Ha", law)) / _LN10
    scale = geometry.kpc_per_arcsec
    values = per_e * np.array(
        [halpha.log_centre - hbeta.log_centre - np.log(case_b), (hbeta.rate - halpha.rate) / scale]
    )
    # Centre and slope are differences of independent fits; the slope has the opposite sign of the rate of Ha.
    total = halpha.covariance + hbeta.covariance
    turn = per_e * np.diag([1.0, -1.0 / scale])
    covariance = turn @ total @ turn.T
    return Gradient.of(values, covariance, unit="mag", method=f"exponential discs, Ha/Hb = {case_b:g}, {law}")


@dataclass(frozen=True)
class StarFormation:
    """Star formation from Ha, corrected for attenuation.

    Attributes
    ----------
    sfr, sfr_error : float
        Msun/yr, the exponential disc integrated to infinity.
    scale_arcsec, scale_error : float
        Scale length of the star-formation density, arcsec, corrected for the gradient of attenuation.
    observed_scale_arcsec, observed_scale_error : float
        Scale length of Ha itself.
    halpha, halpha_error : float
        Flux of Ha as attenuated, erg s-1 cm-2.
    method : str
        Calibration and law.
    """

    sfr: float
    sfr_error: float
    scale_arcsec: float
    scale_error: float
    observed_scale_arcsec: float
    observed_scale_error: float
    halpha: float
    halpha_error: float
    method: str


def star_formation(
    halpha: Exponential,
    hbeta: Exponential | None,
    redshift: float,
    *,
    law: str = DEFAULT_LAW,
    calibration: str = DEFAULT_STAR_FORMATION,
    case_b: float = CASE_B,
) -> StarFormation:
    """Star-formation rate and scale length from discs in Ha and Hb.

    Parameters
    ----------
    halpha, hbeta : Exponential
        Discs convolved with the point-spread function, erg s-1 cm-2 arcsec-2; without Hb nothing is taken off, and the
        rates are lower limits. Fitted with the rate of Ha (``rate=``), it gives one decrement for the whole disc:
        the scale length then is that of Ha.
    redshift : float
        Of the galaxy.
    law, calibration : str
        Names of an attenuation law and of a calibration.
    case_b : float
        Intrinsic Ha/Hb.

    Returns
    -------
    StarFormation
        The rates; errors by propagation of the discs' covariances.
    """
    relation = star_formation_calibration(calibration)
    per_flux = 4.0 * np.pi * luminosity_distance_cm(redshift) ** 2 / 10.0**relation.log_luminosity
    excess = 0.0 if hbeta is None else curve("Ha", law) / (curve("Hb", law) - curve("Ha", law))

    tied = hbeta is not None and hbeta.covariance[1, 1] == 0.0

    def evaluate(p: np.ndarray) -> np.ndarray:
        # ln of the dust-free brightness is ln Ha + excess (ln Ha - ln Hb - ln case_b), a line in r.
        log_centre = p[0] + excess * (p[0] - p[2] - np.log(case_b)) if hbeta is not None else p[0]
        rate = p[1] if tied else p[1] + excess * (p[1] - p[3])
        total = 2.0 * np.pi * halpha.cos_inclination * np.exp(log_centre) / rate**2
        return np.array([np.log(total * per_flux), 1.0 / rate])

    other = (0.0, 0.0) if hbeta is None else (hbeta.log_centre, hbeta.rate)
    p = np.array([halpha.log_centre, halpha.rate, *other])
    covariance = np.zeros((4, 4))
    covariance[:2, :2] = halpha.covariance
    if hbeta is not None:
        covariance[2:, 2:] = hbeta.covariance
    value = evaluate(p)
    step = 1e-4
    jacobian = np.stack([(evaluate(p + step * e) - evaluate(p - step * e)) / (2 * step) for e in np.eye(4)], axis=1)
    error = np.sqrt(np.diag(jacobian @ covariance @ jacobian.T))
    sfr = float(np.exp(value[0]))
    return StarFormation(
        sfr,
        float(sfr * error[0]),
        float(value[1]),
        float(error[1]),
        halpha.scale_arcsec,
        halpha.scale_error,
        halpha.total,
        halpha.total_error,
        f"{calibration}, {'no dust' if hbeta is None else law}",
    )
