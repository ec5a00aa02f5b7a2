"""Background of calibrated slits: a smooth spectrum from pixels without a source, and its variance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline

from msa3d.errors import ProductError
from msa3d.reduce.settings import CalBackground
from msa3d.reduce.slit import CalSlit

DEGREE = 3
CLIPPINGS = 3
MIN_PIXELS_A_KNOT = 20


@dataclass(frozen=True, eq=False)
class Background:
    """A cubic spline in wavelength with the covariance of its coefficients.

    Attributes
    ----------
    knots : numpy.ndarray
        Knots, um; the first and last are the ends of what was seen.
    coefficients : numpy.ndarray, shape (n,)
        MJy/sr.
    covariance : numpy.ndarray, shape (n, n)
        Of the coefficients.
    pixels : int
        Pixels fitted.
    """

    knots: np.ndarray
    coefficients: np.ndarray
    covariance: np.ndarray
    pixels: int

    def __call__(self, wave_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Surface brightness (MJy/sr) and variance at wavelengths (um); NaN beyond what was seen.

        Parameters
        ----------
        wave_um : numpy.ndarray
            Of any shape.

        Returns
        -------
        value, variance : numpy.ndarray
        """
        wave = np.ravel(wave_um)
        known = (wave >= self.knots[0]) & (wave <= self.knots[-1])
        value, variance = np.full(wave.size, np.nan), np.full(wave.size, np.nan)
        design = BSpline.design_matrix(wave[known], self.knots, DEGREE)
        value[known] = design @ self.coefficients
        variance[known] = np.asarray(design.multiply(design @ self.covariance).sum(axis=1)).ravel()
        return value.reshape(np.shape(wave_um)), variance.reshape(np.shape(wave_um))


def fit_background(wave_um: np.ndarray, data: np.ndarray, err: np.ndarray, settings: CalBackground) -> Background:
    """Fit the spline by weighted least squares, leaving out what is far off.

    Errors are taken as those of neighbouring wavelengths together: weights by single errors, which contain the
    photons of the pixel itself, would prefer pixels that happen to be low.

    Parameters
    ----------
    wave_um, data, err : numpy.ndarray, shape (n,)
        Pixels without a source; finite.
    settings : CalBackground
        ``knot_um`` and ``sigclip``.

    Returns
    -------
    Background

    Raises
    ------
    ProductError
        If there are too few pixels.
    """
    order = np.argsort(wave_um)
    wave_um, data, err = wave_um[order], data[order], err[order]
    if wave_um.size < (DEGREE + 1) * MIN_PIXELS_A_KNOT:
        raise ProductError(f"only {wave_um.size} pixels without a source: too few for a background")
    intervals = max(1, int(np.ptp(wave_um) / settings.knot_um))
    # Knots where there are pixels: a gap between the detectors has none.
    edges = np.linspace(wave_um[0], wave_um[-1], intervals + 1)
    counts = np.histogram(wave_um, edges)[0]
    inner = [edge for edge, count in zip(edges[1:-1], counts, strict=False) if count >= MIN_PIXELS_A_KNOT]
    ends = np.repeat([wave_um[0], wave_um[-1]], DEGREE + 1)
    knots = np.sort(np.r_[ends, inner])
    design = BSpline.design_matrix(wave_um, knots, DEGREE)
    sigma = _typical(wave_um, err, edges)
    keep = np.ones(wave_um.size, dtype=bool)
    for _ in range(CLIPPINGS + 1):
        weighted = design[keep].multiply(1.0 / sigma[keep, None]).tocsr()
        covariance = np.linalg.pinv((weighted.T @ weighted).toarray())
        coefficients = covariance @ (weighted.T @ (data[keep] / sigma[keep]))
        pulls = np.abs(data - design @ coefficients) / sigma
        keep = pulls <= settings.sigclip * max(1.0, 1.4826 * float(np.median(pulls)))
    return Background(knots, coefficients, covariance, int(keep.sum()))


def _typical(wave_um: np.ndarray, err: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Median error of each stretch of wavelengths, at every pixel."""
    place = np.clip(np.searchsorted(edges, wave_um, side="right") - 1, 0, edges.size - 2)
    medians = np.full(edges.size - 1, np.median(err))
    for stretch in np.unique(place):
        medians[stretch] = np.median(err[place == stretch])
    return medians[place]


def background_of(slits: Iterable[CalSlit], settings: CalBackground, arcsec_per_opening: float) -> Background:
    """Measure the background in slits whose corrections are done.

    Parameters
    ----------
    slits : iterable of CalSlit
        For ``empty`` those of a detector, of which the empty ones are taken; for ``ends`` one slit.
    settings : CalBackground
        What to take.
    arcsec_per_opening : float
        Open height of a shutter on the sky.

    Returns
    -------
    Background

    Raises
    ------
    ProductError
        If no slit is empty, or too few pixels are without a source.
    """
    parts = []
    for slit in slits:
        if settings.method == "empty":
            where = slit.inside() if slit.is_empty else np.zeros(slit.data.shape, dtype=bool)
        else:
            where = slit.inside() & ~slit.inside(settings.ends_arcsec / arcsec_per_opening)
        where &= slit.usable & np.isfinite(slit.err) & (slit.err > 0) & np.isfinite(slit.wave_um)
        parts.append(np.stack([slit.wave_um[where], slit.data[where], slit.err[where]]))
    pixels = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0))
    if not pixels.size:
        raise ProductError(
            "no pixel without a source; keep the background slitlets (process.wanted_sources_only: false) or "
            "choose another calpost.background.method"
        )
    return fit_background(*pixels, settings)


def subtract(slit: CalSlit, background: Background) -> dict[str, object]:
    """Subtract a background from a slit; pixels beyond its wavelengths are flagged DO_NOT_USE.

    Parameters
    ----------
    slit : CalSlit
        Changed in place.
    background : Background
        What to subtract.

    Returns
    -------
    dict
        ``background``: the median subtracted, MJy/sr.
    """
    value, variance = background(slit.wave_um)
    slit.flag(slit.usable & ~np.isfinite(value))
    where = slit.usable
    slit.subtract(value, variance, where)
    return {"background": float(np.median(value[where])) if where.any() else float("nan")}
