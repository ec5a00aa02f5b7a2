"""Image of a point behind the telescope: core and wings, mean over the azimuth.

A Gaussian of the diffraction's width has no wings, but a tenth of the light of a segmented telescope is in them, which
makes a disc look shallower than it is (the rate of an exponential by 5% for a scale length of 0.3 arcsec).
Far from the core, the light outside an angle depends on the pupil through the length of its edges over its
area alone (encircled energy ``1 - lambda L / (2 pi^2 A theta)``; Clark et al. 1984, Journal of the Optical Society of
America A 1, 261). The pupil is therefore taken as a ring with the edges of the real one, and what wavefront errors
take out of the core as the image of a single segment.
"""

from __future__ import annotations

import numpy as np
from scipy.special import j1

from msa3d.cube.sky import ARCSEC_PER_RADIAN

DIAMETER_M = 6.5
OBSCURATION = 0.52
"""Inner over outer diameter of a ring whose edges over area are those of the 18 segments: outline 22.9 m, hole of
the missing segment 4.6 m, and struts, 25.4 m2; 4 / (D - d) = 1.28 per metre."""
SEGMENT_M = 1.39
"""Diameter of a circle with the area of a segment, 1.32 m from flat to flat."""
WAVEFRONT_UM = 0.065
"""Root mean square of the wavefront error (in flight 65-75 nm: Rigby et al. 2023, PASP 135, 048001)."""
_SUBSAMPLES = 5


def telescope_image(n: int, wave_um: float, scale_arcsec: float) -> np.ndarray:
    """Image of a point, integrated over square pixels.

    Parameters
    ----------
    n : int
        Pixels a side; the point is in the middle, on a pixel where `n` is odd.
    wave_um : float
        Wavelength, um.
    scale_arcsec : float
        Size of a pixel, arcsec.

    Returns
    -------
    numpy.ndarray, shape (n, n)
        Part of the light in each pixel; the sum falls short of 1 by what lies outside.
    """
    fine = n * _SUBSAMPLES
    offset = (np.arange(fine) - (fine - 1) / 2) * scale_arcsec / _SUBSAMPLES / ARCSEC_PER_RADIAN
    angle = np.hypot(offset[:, None], offset[None, :])
    strehl = np.exp(-((2 * np.pi * WAVEFRONT_UM / wave_um) ** 2))
    density = strehl * _ring(angle, wave_um * 1e-6, DIAMETER_M, OBSCURATION)
    density += (1.0 - strehl) * _ring(angle, wave_um * 1e-6, SEGMENT_M, 0.0)
    pixel = (scale_arcsec / _SUBSAMPLES / ARCSEC_PER_RADIAN) ** 2
    return density.reshape(n, _SUBSAMPLES, n, _SUBSAMPLES).sum(axis=(1, 3)) * pixel


def _ring(angle: np.ndarray, wave_m: float, diameter_m: float, obscuration: float) -> np.ndarray:
    """Diffraction image of a ring-shaped pupil, of unit integral over the plane, per rad2."""
    u = np.maximum(np.pi * diameter_m / wave_m * angle, 1e-6)
    amplitude = 2.0 * j1(u) / u
    if obscuration:
        inner = obscuration * u
        amplitude = (amplitude - obscuration**2 * 2.0 * j1(inner) / inner) / (1.0 - obscuration**2)
    return amplitude**2 * (1.0 - obscuration**2) * np.pi / 4.0 * (diameter_m / wave_m) ** 2
