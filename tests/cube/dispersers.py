"""The seven dispersers of NIRSpec's multi-object mode, and slits as they make them: wavelengths, tilt and curvature.

Gratings have steps of a pixel as in STScI's dispersion curves, a few per cent uneven. The prism is that of its glass:
the refractive index of CaF2 (Malitson 1963) is linear in the pixel, and read from a table of 5 nm as jwst reads it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..steps.calfiles import OPENING_ARCSEC, PIXEL


@dataclass(frozen=True)
class Disperser:
    """One of them: its filter, the wavelengths of a whole slit (um), the step of a pixel (um; None for the prism)."""

    grating: str
    filter: str
    low: float
    high: float
    step: float | None

    def columns(self) -> int:
        """How many columns of the detectors its spectrum takes."""
        return 400 if self.step is None else round((self.high - self.low) / self.step)

    def wave_um(self, x: np.ndarray) -> np.ndarray:
        """Wavelength at a column, counted from 0 at `low`; it may lie beyond the ends."""
        if self.step is None:
            return prism_um(x, self.low, self.high, self.columns())
        u = x / self.columns()
        return self.low + (self.high - self.low) * u * (0.99 + 0.01 * u)


ALL = {
    item.grating: item
    for item in (
        Disperser("G140M", "F100LP", 0.97, 1.89, 6.4e-4),
        Disperser("G140H", "F100LP", 0.97, 1.89, 2.35e-4),
        Disperser("G235M", "F170LP", 1.66, 3.17, 1.07e-3),
        Disperser("G235H", "F170LP", 1.66, 3.17, 3.96e-4),
        Disperser("G395M", "F290LP", 2.87, 5.27, 1.79e-3),
        Disperser("G395H", "F290LP", 2.87, 5.27, 6.66e-4),
        Disperser("PRISM", "CLEAR", 0.60, 5.30, None),
    )
}


def _index(wave_um):
    """Refractive index of CaF2 (Malitson 1963, Applied Optics 2, 1103)."""
    terms = ((0.5675888, 0.050263605), (0.4710914, 0.1003909), (3.8484723, 34.649040))
    return np.sqrt(1.0 + sum(a * wave_um**2 / (wave_um**2 - b**2) for a, b in terms))


def prism_um(x: np.ndarray, low: float, high: float, columns: int) -> np.ndarray:
    """Wavelengths (um) behind a prism whose index is linear in the column, from a table of 5 nm."""
    table = np.arange(0.5, 6.005, 0.005)
    index = _index(low) + (_index(high) - _index(low)) * np.asarray(x) / columns
    return np.interp(index, _index(table)[::-1], table[::-1])


class SlitWcs:
    """What `fit_geometry` asks of a gwcs: a tilted and curved slit behind a dispersion curve.

    `lit` are the first and last column that light reaches; the others are NaN, as in jwst's.
    """

    def __init__(self, curve, shape, lit=None, slope=0.09, bend=2e-4):
        self.curve, self.shape = curve, shape
        self.lit = lit or (0, shape[1] - 1)
        self.slope, self.bend = slope, bend

    def get_transform(self, start: str, end: str):
        return {"detector": self._to_slit, "slit_frame": self._to_sky}[start]

    def _to_slit(self, x, y):
        ny, nx = self.shape
        off = y - (ny - 1) / 2
        y_slit = PIXEL * off + 0.25 * (x - nx / 2) / nx + 0.02 * ((x - nx / 2) / nx) ** 2
        wave = self.curve(x + self.slope * off + self.bend * off**2)
        wave = np.where((x >= self.lit[0]) & (x <= self.lit[1]), wave, np.nan)
        return np.zeros_like(x), y_slit, wave * 1e-6

    def _to_sky(self, x_slit, y_slit, wave_m):
        # A pointing near the poles would hide errors in right ascension.
        return 215.0 + 0.2 * x_slit / 3600 / 0.6, 52.9 + OPENING_ARCSEC * (y_slit + 2e3 * wave_m) / 3600, wave_m
