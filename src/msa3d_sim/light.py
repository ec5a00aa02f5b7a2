"""Noiseless count rates of a whole detector: every open shutter's share of the sky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msa3d.constants import C_KMS
from msa3d_sim.footprint import STRIPS, BrightnessTable, Calibration, Footprint
from msa3d_sim.geometry import DETECTOR_PIXELS, Optics, Pointing, Slitlet
from msa3d_sim.instrument import failed_closed, failed_open
from msa3d_sim.psf import SPECTROGRAPH_SIGMA_PX
from msa3d_sim.scene import FieldModel, SlitletSky
from msa3d_sim.spectrum import zodiacal_mjy_sr
from msa3d_sim.throughput import surface_brightness_factor, uniform_pathloss

_FIRST_FAILED_ID = 100_001
"""Slitlet numbers of failed-open shutters, far from those of any metafile."""
_DISPERSION_UM = 2.35e-4
"""Wavelength step of a pixel, for the blur of lines along dispersion."""


@dataclass
class _LitSlitlet:
    """One slitlet that lights a detector: its footprint and what it sees."""

    footprint: Footprint
    sky: SlitletSky


@dataclass
class DetectorLight:
    """What all exposures of one detector share.

    Attributes
    ----------
    slitlets : list of LitSlitlet
        Those of the metafile that light the detector.
    background : ndarray, shape (2048, 2048)
        DN/s of zodiacal light, through all slitlets and failed-open shutters.
    """

    slitlets: list[_LitSlitlet]
    background: np.ndarray

    @classmethod
    def trace(cls, model, slitlets, simulation) -> DetectorLight:
        """Trace the optics of a detector, given the header of any exposure with it and the slitlets commanded open."""
        calibration = _calibration_for(simulation)
        failed = _failed_slitlets() if simulation.failed_shutters else []
        optics = Optics(model, [*slitlets, *failed])
        background = np.zeros((DETECTOR_PIXELS, DETECTOR_PIXELS))
        lit = []
        for slitlet in (*slitlets, *failed):
            footprint = Footprint(optics, slitlet, calibration, strips=STRIPS if slitlet.source_id else 1)
            if not footprint.lit:
                continue
            if simulation.background:
                footprint.add_to(background, footprint.response * _zodiacal(footprint.wave_um))
            if slitlet.source_id:
                lit.append(_LitSlitlet(footprint, SlitletSky(optics, slitlet)))
        return cls(lit, background)


def _zodiacal(wave_um):
    """Zodiacal light where the filter passes (MJy/sr); the model ends not far beyond."""
    return zodiacal_mjy_sr(np.clip(wave_um, 0.9, 2.0))


def _calibration_for(simulation) -> Calibration:
    """Turn the switches of a simulation into what the footprints need."""
    return Calibration(
        factor=surface_brightness_factor,
        transmission=uniform_pathloss if simulation.pathloss else np.ones_like,
        blur_pixels=SPECTROGRAPH_SIGMA_PX,
        bars=simulation.bars,
        closed=frozenset(map(tuple, failed_closed().tolist())) if simulation.failed_shutters else frozenset(),
    )


def _failed_slitlets() -> list[Slitlet]:
    """Shutters that are stuck open, as slitlets of one shutter without a source."""
    return [
        Slitlet(_FIRST_FAILED_ID + k, 0, int(quadrant), int(row), (int(column),), int(column))
        for k, (quadrant, row, column) in enumerate(failed_open())
    ]


def blur_kms(wave_um: float) -> float:
    """Sigma of the spectrograph's blur along dispersion, as a velocity (km/s)."""
    return SPECTROGRAPH_SIGMA_PX * _DISPERSION_UM / wave_um * C_KMS


def fill_with_light(light: DetectorLight, sources: dict, pointing: Pointing) -> np.ndarray:
    """Noiseless image of one exposure.

    Parameters
    ----------
    light : DetectorLight
        Of the detector.
    sources : dict of int to `msa3d_sim.source.SourceModel`
        The sky around each source id, lines broadened by `blur_kms`.
    pointing : Pointing
        Where the telescope really looks.

    Returns
    -------
    ndarray, shape (2048, 2048)
        DN/s, axes (row, column).
    """
    image = light.background.copy()
    for lit in light.slitlets:
        source = sources[lit.footprint.slitlet.source_id]
        _add_source(image, lit, source, lit.sky.at(pointing, source.ra, source.dec))
    return image


def _add_source(image: np.ndarray, lit: _LitSlitlet, source, sky) -> None:
    """Add one source, seen through its slitlet, to a detector image (DN/s) in place; `sky` is a `SkyMap`."""
    footprint = lit.footprint

    def continuum(x_slit, y_slit, wave_um):
        return source.continuum_intensity(*sky(x_slit, y_slit, wave_um), wave_um)

    def lines(x_slit, y_slit, wave_um):
        return source.line_intensity(*sky(x_slit, y_slit, wave_um), wave_um)

    rates = footprint.expose(BrightnessTable(footprint, continuum))
    for low_um, high_um in _line_windows(source):
        columns, line_rates = footprint.expose_lines(low_um, high_um, lines)
        rates[columns] += line_rates
    footprint.add_to(image, rates)


def _line_windows(source) -> list[tuple[float, float]]:
    """Stretches of wavelength (um) in which a source's lines shine, overlapping ones merged."""
    if isinstance(source, FieldModel):
        if source.line_um is None:
            return []
        reach = source.line_um * 8.0 * source.line_sigma_kms / C_KMS
        return [(source.line_um - reach, source.line_um + reach)]
    windows = sorted(
        tuple(float(line.centre_um * (1.0 + velocity / C_KMS)) for velocity in line.velocity_kms[[0, -1]])
        for line in source.lines
    )
    merged: list[tuple[float, float]] = []
    for low, high in windows:
        if merged and low <= merged[-1][1] + 4 * _DISPERSION_UM:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged
