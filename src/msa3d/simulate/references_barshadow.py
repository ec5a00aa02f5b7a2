"""Reference file of the bar shadow: how the bars between shutters dim light that fills a slitlet.

The file has the form that ``jwst.barshadow`` needs: two images of 1001 positions along the slit, from one
pitch below the middle of a shutter to one above it, by 101 wavelengths, for a shutter with closed neighbours
and for one with open neighbours.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr
from stdatamodels.jwst import datamodels

from msa3d.simulate.geometry import PITCH_IN_OPENINGS, WAVE_RANGE_UM
from msa3d.simulate.optics import COLUMNS, QUADRANTS, ROWS, InstrumentModel
from msa3d.simulate.psf import SPECTROGRAPH_SIGMA_PX

WAVES_UM = np.linspace(0.90, 2.00, 101)
POSITIONS = 1001
"""Number of positions; ``jwst.barshadow`` is written for this number and for 101 wavelengths."""


def pixel_in_openings(wave_um) -> np.ndarray:
    """Height of a detector pixel in units of a shutter's open height, mean over the field.

    The spectrograph's camera makes it depend on wavelength, by 1.5 per cent over the band; over the field it
    differs by up to 1 per cent from this mean.

    Parameters
    ----------
    wave_um : array_like, shape (n,)
        Wavelengths in um; beyond the filter's range those at its ends are taken.

    Returns
    -------
    numpy.ndarray, shape (n,)
    """
    optics = InstrumentModel.load()
    wave = np.clip(np.asarray(wave_um, dtype=float), *WAVE_RANGE_UM)[:, None, None] * 1e-6
    i, j = np.meshgrid(np.linspace(1, COLUMNS, 5), np.linspace(1, ROWS, 5))
    to_focal_plane, pitch = optics.msa_to_focal_plane(), optics.figures["detectors"]["NRS1"]["pitch_m"]
    sizes = []
    for quadrant in QUADRANTS:
        shutters = optics.shutters(quadrant)
        x, y = shutters.centre(i, j)
        half = shutters.open_m[1] / 2
        planes = np.broadcast_arrays(x, y, wave)
        ends = [to_focal_plane(planes[0], planes[1] + side * half, planes[2])[1] for side in (-1, 1)]
        sizes.append(pitch / np.abs(ends[1] - ends[0]))
    return np.mean(sizes, axis=(0, 2, 3))


def shadow(y_slit, pixel, shutters) -> np.ndarray:
    """Fraction of uniform light that a pixel gets through a row of shutters.

    The open areas, blurred by the spectrograph and averaged over the pixel: what `msa3d.simulate.footprint`
    does numerically.

    Parameters
    ----------
    y_slit : array_like
        Middle of the pixel, in openings from the middle of shutter 0.
    pixel : array_like
        Its height, in openings; shapes of both broadcast.
    shutters : sequence of int
        Those that are open.

    Returns
    -------
    numpy.ndarray
        0 to 1.
    """
    y_slit, pixel = np.broadcast_arrays(np.asarray(y_slit, dtype=float), np.asarray(pixel, dtype=float))
    total = np.zeros(y_slit.shape)
    for shutter in shutters:
        from_middle = y_slit - shutter * PITCH_IN_OPENINGS
        total += _blurred_edge(from_middle + 0.5, pixel) - _blurred_edge(from_middle - 0.5, pixel)
    return total


def _blurred_edge(distance, pixel):
    """Mean over a pixel of a Gaussian-blurred step at a distance from it."""
    sigma = SPECTROGRAPH_SIGMA_PX * pixel

    def integral(x):
        return x * ndtr(x / sigma) + sigma * np.exp(-0.5 * (x / sigma) ** 2) / np.sqrt(2 * np.pi)

    return (integral(distance + pixel / 2) - integral(distance - pixel / 2)) / pixel


def barshadow_model() -> datamodels.BarshadowModel:
    """Make the reference: `shadow` for one and for three open shutters."""
    y_slit = np.linspace(-1.0, 1.0, POSITIONS)[:, None] * PITCH_IN_OPENINGS
    pixel = pixel_in_openings(WAVES_UM)[None, :]
    model = datamodels.BarshadowModel()
    for name, shutters in (("1x1", (0,)), ("1x3", (-1, 0, 1))):
        setattr(model, f"data{name}", shadow(y_slit, pixel, shutters).astype(np.float32))
        setattr(model, f"var{name}", np.zeros((POSITIONS, WAVES_UM.size), dtype=np.float32))
    # As in the files of the instrument team: wavelength in metre, position in pitches.
    model.crval1, model.cdelt1 = float(WAVES_UM[0]) * 1e-6, float(WAVES_UM[1] - WAVES_UM[0]) * 1e-6
    model.crval2, model.cdelt2 = -1.0, 2.0 / (POSITIONS - 1)
    return model
