"""How a line's light lies on the sky, finer than the spaxels: an exponential disc, then corrected towards the image."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from msa3d.science.disc import Disc
from msa3d.science.discmodel import LineModel

ITERATIONS = 30
_SCALES = np.geomspace(0.08, 1.2, 12)


def exponential(model: LineModel, scale_arcsec: float, pa_deg: float, inclination_deg: float, x0=0.0, y0=0.0):
    """Exponential disc on the model's pixels.

    Parameters
    ----------
    model : LineModel
        Has the pixels.
    scale_arcsec : float
        Scale length in the plane, arcsec.
    pa_deg, inclination_deg : float
        Of the major axis, and 0 for face on.
    x0, y0 : float
        Centre, arcsec.

    Returns
    -------
    numpy.ndarray, shape (n_fine_y, n_fine_x)
        1 at the centre.
    """
    radius, _ = Disc(pa_deg, inclination_deg, 0.0, 1.0, x0=x0, y0=y0).radius_azimuth(model.east, model.north)
    return np.exp(-radius / scale_arcsec)


def deconvolve(
    model: LineModel,
    flux: np.ndarray,
    error: np.ndarray,
    *,
    pa_deg: float = 0.0,
    inclination_deg: float = 0.0,
    x0: float = 0.0,
    y0: float = 0.0,
    iterations: int = ITERATIONS,
) -> np.ndarray:
    """Find a positive distribution of light that looks like an image through the instrument.

    It begins as the exponential disc that fits best, and is corrected by multiplication (image-space
    reconstruction, Daube-Witherspoon & Muehllehner 1986) until the image is met within its errors.

    Parameters
    ----------
    model : LineModel
        The instrument.
    flux, error : numpy.ndarray, shape (n_y, n_x)
        Image of the line and its error; NaN where unknown.
    pa_deg, inclination_deg, x0, y0 : float
        Of the disc it begins with.
    iterations : int
        At most so many corrections; 0 leaves the exponential disc.

    Returns
    -------
    numpy.ndarray, shape (n_fine_y, n_fine_x)
        In the unit of `flux`.
    """
    known = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    # A floor keeps the few brightest spaxels from ruling: their errors are smaller than the model is good.
    floor = np.hypot(error, 0.02 * np.nanmax(np.where(known, flux, np.nan)))
    weight = np.where(known, 1.0 / np.where(known, floor, 1.0) ** 2, 0.0)
    data = np.where(known, flux, 0.0)

    def fitted(log_scale: float) -> tuple[float, np.ndarray]:
        light = exponential(model, np.exp(log_scale), pa_deg, inclination_deg, x0, y0)
        seen = model.flux(light)
        amplitude = (weight * seen * data).sum() / (weight * seen**2).sum()
        return (weight * (data - amplitude * seen) ** 2).sum(), max(amplitude, 1e-30) * light

    near = min(np.log(_SCALES), key=lambda value: fitted(value)[0])
    step = np.log(_SCALES[1] / _SCALES[0])
    found = minimize_scalar(
        lambda value: fitted(value)[0], bounds=(near - step, near + step), method="bounded", options={"xatol": 2e-3}
    )
    light = fitted(found.x)[1]
    above = np.maximum(data, 0.0)
    target = model.transposed(weight * above)
    for _ in range(iterations):
        seen = model.flux(light)
        if (weight * (above - seen) ** 2).sum() < known.sum():
            break
        below = model.transposed(weight * seen)
        # Where no spaxel looks there is nothing to correct: the ratio tends to 1.
        floor = 1e-3 * below.max()
        light = light * np.maximum(target + floor, 0.0) / np.maximum(below + floor, floor)
    return light
