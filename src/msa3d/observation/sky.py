"""Offsets on the plane tangent to the sky, and what a pixel and a spectrum need to count."""

from __future__ import annotations

import numpy as np

MIN_COLUMNS = 9
"""Fewest columns that a slit has to light on a detector to be used."""


BLUR_PIXELS = 0.4
"""Sigma of the spectrograph's own blur along the slit, in detector pixels: assumed, as it is not published."""

DO_NOT_USE = 1
"""jwst's flag of a value that is not to be used."""


ARCSEC_PER_RADIAN = np.degrees(1.0) * 3600.0
SR_PER_SQUARE_ARCSEC = ARCSEC_PER_RADIAN**-2


def tangent_offsets(ra, dec, ra0: float, dec0: float) -> tuple[np.ndarray, np.ndarray]:
    """Project sky positions onto the tangent plane at a point.

    Parameters
    ----------
    ra, dec : array_like
        Positions, deg.
    ra0, dec0 : float
        Tangent point, deg.

    Returns
    -------
    east, north : numpy.ndarray
        Gnomonic offsets, arcsec.
    """
    dra, dec, dec0 = np.radians(np.asarray(ra) - ra0), np.radians(dec), np.radians(dec0)
    depth = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(dra)
    east = np.cos(dec) * np.sin(dra) / depth
    north = (np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(dra)) / depth
    return east * ARCSEC_PER_RADIAN, north * ARCSEC_PER_RADIAN


def from_tangent(east, north, ra0: float, dec0: float) -> tuple[np.ndarray, np.ndarray]:
    """Sky position of gnomonic offsets: the inverse of `tangent_offsets`.

    Parameters
    ----------
    east, north : array_like
        Offsets, arcsec.
    ra0, dec0 : float
        Tangent point, deg.

    Returns
    -------
    ra, dec : numpy.ndarray
        Deg.
    """
    east, north = np.asarray(east) / ARCSEC_PER_RADIAN, np.asarray(north) / ARCSEC_PER_RADIAN
    dec0 = np.radians(dec0)
    depth = np.cos(dec0) - north * np.sin(dec0)
    ra = ra0 + np.degrees(np.arctan2(east, depth))
    dec = np.degrees(np.arctan2(np.sin(dec0) + north * np.cos(dec0), np.hypot(east, depth)))
    return ra % 360.0, dec
