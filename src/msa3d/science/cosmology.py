"""Distances, by astropy; the one cosmology that is used unless another is given."""

from __future__ import annotations

import astropy.units as u
from astropy.cosmology import FLRW, FlatLambdaCDM

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
