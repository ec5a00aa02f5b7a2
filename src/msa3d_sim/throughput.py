"""The radiometry of the simulated NIRSpec: what fraction of the light arrives, and as how many counts.

One set of functions feeds the simulator and the reference files, split as the real files are: fflat holds the relative
throughput and its variation over the shutters, photom the absolute level, area the solid angle of a pixel. A plausible
NIRSpec, not a measured one: the level follows Jakobsen et al. (2022, A&A 661, A80, figure 22), the shapes are analytic.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from astropy import constants, units

from msa3d_sim.instrument import COLUMNS, ROWS, InstrumentModel
from msa3d_sim.psf import aperture_transmission

_COLLECTING_AREA_M2 = 25.4
"""Unobscured area of the telescope's pupil."""
GAIN_E_PER_DN = 1.0
"""Electrons a count, of either detector (the real ones have about 1.0 and 1.1)."""
PEAK_THROUGHPUT = 0.42
"""Detected electrons per photon that enters the telescope, at `REFERENCE_WAVE_UM`."""
REFERENCE_WAVE_UM = 1.30
DISPERSION_UM = 2.36e-4
"""Wavelength step of a pixel, taken as constant (G140H: 2.33e-4 to 2.38e-4)."""
_BLAZE_WAVE_UM = 1.30
_CUT_ON_UM = 0.975
_CUT_ON_WIDTH_UM = 0.003
_TABLE_RANGE_UM = (0.90, 2.00)
_TABLE_STEP_UM = 2.5e-4
PLANE_WAVES_UM = (0.90, 2.00)
"""Wavelengths of the two planes in which the flat varies over the shutters."""
PATHLOSS_WAVES_UM = np.linspace(0.90, 2.00, 23)
"""Wavelengths of the pathloss reference."""
_QUADRANT_LEVEL = {1: (0.012, -0.006), 2: (-0.008, 0.005), 3: (0.005, 0.011), 4: (-0.010, -0.009)}
"""Relative offset of a quadrant, at the two plane wavelengths."""
ARCSEC2_SR = (1 * units.arcsec**2).to_value(units.sr)
_MJY_SR = 1e-20
"""1 MJy/sr in W m-2 Hz-1 sr-1."""


def relative_throughput(wave_um):
    """Throughput with wavelength (um), relative to that at `REFERENCE_WAVE_UM`.

    The product of the cut-on of F100LP (a logistic edge), mirrors and detector (a slow rise) and the
    blaze of the grating (the squared sinc of scalar theory).
    """
    reference = _shape(np.asarray(REFERENCE_WAVE_UM))
    return _shape(np.asarray(wave_um, dtype=float)) / reference


def _shape(wave):
    filter_edge = 1 / (1 + np.exp(-(wave - _CUT_ON_UM) / _CUT_ON_WIDTH_UM))
    mirrors_and_detector = 1 - 0.16 * np.exp(-(wave - 0.9) / 0.35)
    blaze = np.sinc(_BLAZE_WAVE_UM / wave - 1) ** 2
    return filter_edge * mirrors_and_detector * blaze


def field_variation(quadrant: int, i, j) -> np.ndarray:
    """Throughput of shutter (i, j) relative to the mean, at the two `PLANE_WAVES_UM`, shape (2, ...).

    Percent-level and smooth over a quadrant: an offset of each quadrant, a gradient and a bowl.
    """
    u = (np.asarray(i, dtype=float) - 1) / (COLUMNS - 1) - 0.5
    v = (np.asarray(j, dtype=float) - 1) / (ROWS - 1) - 0.5
    blue, red = _QUADRANT_LEVEL[quadrant]
    turn = 1 if quadrant in (1, 4) else -1
    return np.stack(
        [
            1 + blue + 0.015 * turn * u - 0.010 * v - 0.012 * (u**2 + v**2 - 1 / 6),
            1 + red + 0.008 * turn * u + 0.012 * v - 0.008 * (u**2 - v**2),
        ]
    )


@cache
def flat_table() -> tuple[np.ndarray, np.ndarray]:
    """Wavelength (um) and relative throughput as tabulated in the fflat reference, float32."""
    n = round((_TABLE_RANGE_UM[1] - _TABLE_RANGE_UM[0]) / _TABLE_STEP_UM) + 1
    wave = np.linspace(*_TABLE_RANGE_UM, n).astype(np.float32)
    return wave, relative_throughput(wave).astype(np.float32)


def _flat(wave_um, quadrant: int, i: int, j: int):
    """Value by which flat_field divides, for a slitlet whose main shutter is (i, j); NaN outside 0.90-2.00 um."""
    wave, fast = flat_table()
    slow = np.interp(wave, PLANE_WAVES_UM, field_variation(quadrant, i, j))
    return np.interp(wave_um, wave, fast * slow, left=np.nan, right=np.nan)


def _photon_response(wave_um):
    """DN/s in a pixel per MJy/sr arcsec^2, at the throughput `PEAK_THROUGHPUT`."""
    bandwidth = DISPERSION_UM / np.asarray(wave_um, dtype=float)
    photons = _MJY_SR * _COLLECTING_AREA_M2 * ARCSEC2_SR * bandwidth / constants.h.si.value
    return photons * PEAK_THROUGHPUT / GAIN_E_PER_DN


def photom_scalar() -> float:
    """The photom reference's PHOTMJ: MJy per (DN/s) at `REFERENCE_WAVE_UM`."""
    return float(np.float32(ARCSEC2_SR / _photon_response(REFERENCE_WAVE_UM)))


@cache
def photom_table() -> tuple[np.ndarray, np.ndarray]:
    """Wavelength (um) and relative response of the photom reference, float32."""
    wave = flat_table()[0][::10].copy()
    return wave, (_photon_response(REFERENCE_WAVE_UM) / _photon_response(wave)).astype(np.float32)


def pixel_area_arcsec2(quadrant: int, i, j):
    """Solid angle of a detector pixel (arcsec^2, float32, about 0.0205) behind shutter (i, j).

    The open width of the shutter times a pixel along the slit, in the middle of the band and of the shutter.
    """
    knots_i, knots_j, values = _area_knots(quadrant)
    i, j = np.broadcast_arrays(np.asarray(i, dtype=float), np.asarray(j, dtype=float))
    along = np.stack([np.interp(i, knots_i, row) for row in values])
    k = np.clip(np.searchsorted(knots_j, j, side="right") - 1, 0, knots_j.size - 2)
    part = (j - knots_j[k]) / (knots_j[k + 1] - knots_j[k])
    low = np.take_along_axis(along, k[None], 0)[0]
    high = np.take_along_axis(along, k[None] + 1, 0)[0]
    return (low * (1 - part) + high * part).astype(np.float32)


@cache
def _area_knots(quadrant: int):
    optics = InstrumentModel.load()
    knots_i, knots_j = np.linspace(1, COLUMNS, 9), np.linspace(1, ROWS, 7)
    i, j = np.meshgrid(knots_i, knots_j)
    values = optics.slit_width_arcsec(quadrant, i, j) * optics.pixel_scale_arcsec(quadrant, i, j)
    return knots_i, knots_j, values


def surface_brightness_factor(wave_um, quadrant: int, i: int, j: int):
    """MJy/sr per DN/s of an extended source after flat_field and photom, main shutter (i, j); NaN outside 0.9-2 um."""
    wave, response = photom_table()
    scalar = photom_scalar() / (float(pixel_area_arcsec2(quadrant, i, j)) * ARCSEC2_SR)
    return scalar * np.interp(wave_um, wave, response) / _flat(wave_um, quadrant, i, j)


def uniform_pathloss(wave_um, shutters: int = 3):
    """Transmission of a uniformly filled slitlet of 1 or 3 shutters: its edges diffract light past the grating."""
    values = [aperture_transmission(wave, shutters) for wave in PATHLOSS_WAVES_UM]
    return np.interp(wave_um, PATHLOSS_WAVES_UM, values)
