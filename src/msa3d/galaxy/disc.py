"""A disc on the sky, and the scale of its distance.

Distances, by astropy; the one cosmology that is used unless another is given.

An inclined, thin, rotating disc: where a place on the sky lies in its plane, and how fast it recedes.
"""

from __future__ import annotations

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.cosmology import FLRW, FlatLambdaCDM
from scipy.special import i0e, i1e, k0e, k1e

COSMOLOGY = FlatLambdaCDM(H0=70.0, Om0=0.3)
"""Flat, H0 = 70 km/s/Mpc, Om0 = 0.3: our default."""


def kpc_per_arcsec(redshift: float, cosmology: FLRW | None = None) -> float:
    """Proper transverse length that an arcsecond spans.

    Parameters
    ----------
    redshift : float
        Above 0.
    cosmology : astropy.cosmology.FLRW, optional
        Without it `COSMOLOGY`.

    Returns
    -------
    float
        kpc per arcsec.
    """
    return float((cosmology or COSMOLOGY).kpc_proper_per_arcmin(redshift).to_value(u.kpc / u.arcsec))


def luminosity_distance_cm(redshift: float, cosmology: FLRW | None = None) -> float:
    """Luminosity distance.

    Parameters
    ----------
    redshift : float
        Above 0.
    cosmology : astropy.cosmology.FLRW, optional
        Without it `COSMOLOGY`.

    Returns
    -------
    float
        The distance, cm.
    """
    return float((cosmology or COSMOLOGY).luminosity_distance(redshift).to_value(u.cm))


RE_OVER_SCALE_LENGTH = 1.67834699
"""Half-light radius of an exponential disc over its scale length."""

CURVES = ("arctan", "freeman")

_FREEMAN_PEAK = 0.43991215201
"""Greatest value of x sqrt(I0 K0 - I1 K1) at x = R / (2 scale length), reached at R = 2.15 scale lengths."""


@dataclass(frozen=True)
class Disc:
    """A rotating disc in the sky.

    Attributes
    ----------
    pa_deg : float
        Position angle of the receding half of the major axis, deg, from north through east.
    inclination_deg : float
        0 is face on.
    v_sin_i : float
        Amplitude of the rotation curve times sin(inclination), km/s: what is measured without knowing the
        inclination. The asymptote of ``arctan``, the peak of ``freeman``.
    r_turn : float
        Turn-over radius of ``arctan``, or scale length of the mass of ``freeman``, arcsec in the plane.
    systemic : float
        Velocity of the centre, km/s.
    x0, y0 : float
        The centre, arcsec to the east and to the north of the origin.
    curve : str
        ``arctan``: V(r) = V 2/pi arctan(r / r_turn) (Courteau 1997). ``freeman``: thin exponential disc
        (Freeman 1970, equation 12).
    """

    pa_deg: float
    inclination_deg: float
    v_sin_i: float
    r_turn: float
    systemic: float = 0.0
    x0: float = 0.0
    y0: float = 0.0
    curve: str = "arctan"

    def __post_init__(self) -> None:
        """Refuse what is no disc."""
        if self.curve not in CURVES:
            raise ValueError(f"no rotation curve {self.curve!r}: choose {' or '.join(CURVES)}")
        if not 0.0 <= self.inclination_deg < 90.0:
            raise ValueError(f"an inclination of {self.inclination_deg} deg is not in [0, 90): a thin disc has no edge")

    def radius_azimuth(self, east, north) -> tuple[np.ndarray, np.ndarray]:
        """Deproject places on the sky.

        Parameters
        ----------
        east, north : array-like
            Offsets from the origin, arcsec.

        Returns
        -------
        radius, azimuth : numpy.ndarray
            Radius in the plane, arcsec, and azimuth in it, rad, from the receding half of the major axis.
        """
        pa = np.radians(self.pa_deg)
        east, north = np.asarray(east) - self.x0, np.asarray(north) - self.y0
        major = east * np.sin(pa) + north * np.cos(pa)
        minor = (east * np.cos(pa) - north * np.sin(pa)) / np.cos(np.radians(self.inclination_deg))
        return np.hypot(major, minor), np.arctan2(minor, major)

    def rotation(self, radius) -> np.ndarray:
        """Rotation curve times sin(inclination).

        Parameters
        ----------
        radius : array-like
            Radius in the plane, arcsec.

        Returns
        -------
        numpy.ndarray
            km/s.
        """
        radius = np.asarray(radius, dtype=float)
        if self.curve == "arctan":
            return self.v_sin_i * (2.0 / np.pi) * np.arctan(radius / self.r_turn)
        x = radius / (2.0 * self.r_turn)
        safe = np.maximum(x, 1e-9)
        # The exponentials of i0e and k0e cancel in the products.
        shape = safe * np.sqrt(np.maximum(i0e(safe) * k0e(safe) - i1e(safe) * k1e(safe), 0.0))
        return self.v_sin_i * np.where(x > 0.0, shape, 0.0) / _FREEMAN_PEAK

    def velocity(self, east, north) -> np.ndarray:
        """Line-of-sight velocity, positive when receding.

        Parameters
        ----------
        east, north : array-like
            Offsets from the origin, arcsec.

        Returns
        -------
        numpy.ndarray
            km/s.
        """
        radius, azimuth = self.radius_azimuth(east, north)
        return self.systemic + self.rotation(radius) * np.cos(azimuth)
