"""Gas-phase metallicity from strong lines: of spaxels, of rings, and its gradient.

The gradient is taken from exponential discs fitted to the images of the lines behind the point-spread function:
their ratio is an exponential as well, so that its logarithm, and with a linear calibration the
metallicity, changes linearly with the radius, free of beam smearing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msa3d.science.calibration import DEFAULT_METALLICITY, INDICES, metallicity_calibration
from msa3d.science.gradient import Gradient, fit_ratio
from msa3d.science.profiles import Exponential, Geometry, Rings

_LN10 = np.log(10.0)


def log_ratio(
    flux: Mapping[str, np.ndarray], error: Mapping[str, np.ndarray], index: str, *, snr: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of a line ratio, with its error.

    Parameters
    ----------
    flux, error : mapping of str to ndarray
        Fluxes by species and their errors, as in `linefit.LineFit`.
    index : str
        Of `calibration.INDICES`.
    snr : float
        Least signal to noise of every line: below it the logarithm is biased, and NaN is given.

    Returns
    -------
    tuple of ndarray
        log10 of the ratio and its 1 sigma error, dex.

    Raises
    ------
    ValueError
        If a line of the ratio is not there.
    """
    total, variance, good = 0.0, 0.0, True
    for name, power in INDICES[index]:
        parts = ("[SII]6716", "[SII]6731") if name == "[SII]6716+6731" else (name,)
        if any(part not in flux for part in parts):
            raise ValueError(f"{index} needs {name}, which was not fitted (not covered?)")
        value = sum(flux[part] for part in parts)
        sigma = np.sqrt(sum(np.square(error[part]) for part in parts))
        with np.errstate(invalid="ignore", divide="ignore"):
            fine = value >= snr * sigma
            total = total + power * np.log10(np.where(fine, value, np.nan))
            variance = variance + (power * sigma / np.where(fine, value, np.nan) / _LN10) ** 2
        good = good & fine
    return np.where(good, total, np.nan), np.where(good, np.sqrt(variance), np.nan)


def metallicity(
    flux: Mapping[str, np.ndarray],
    error: Mapping[str, np.ndarray],
    *,
    calibration: str = DEFAULT_METALLICITY,
    snr: float = 3.0,
) -> tuple[np.ndarray, np.ndarray]:
    """12 + log(O/H) of spaxels, bins or rings.

    Parameters
    ----------
    flux, error : mapping of str to ndarray
        As in `log_ratio`.
    calibration : str
        Name in the table of calibrations.
    snr : float
        As in `log_ratio`.

    Returns
    -------
    tuple of ndarray
        12 + log(O/H) and the 1 sigma error of measurement, dex (the calibration's own scatter is not in it); NaN
        where a line is too faint or the ratio is outside the calibration's range.
    """
    relation = metallicity_calibration(calibration)
    ratio, sigma = log_ratio(flux, error, relation.index, snr=snr)
    value = relation.metallicity(ratio)
    return value, np.where(np.isfinite(value), np.abs(relation.slope(ratio)) * sigma, np.nan)


def gradient(
    discs: Mapping[str, Exponential],
    geometry: Geometry,
    *,
    calibration: str = DEFAULT_METALLICITY,
    radius_kpc: float | None = None,
) -> Gradient:
    """Metallicity gradient from exponential discs.

    Parameters
    ----------
    discs : mapping of str to Exponential
        Fitted discs by species (`profiles.fit_exponential`), of independent noise.
    geometry : Geometry
        With `kpc_per_arcsec`.
    calibration : str
        Name in the table of calibrations.
    radius_kpc : float, optional
        Where a calibration that is not linear is linearised; one scale length of Ha by default.

    Returns
    -------
    Gradient
        dex/kpc.

    Raises
    ------
    ValueError
        If a line of the ratio is not there.
    """
    relation = metallicity_calibration(calibration)
    terms = INDICES[relation.index]
    missing = [name for name, _ in terms if name not in discs]
    if missing:
        raise ValueError(f"{calibration} needs {', '.join(missing)}: no disc was fitted to it")
    scale = geometry.kpc_per_arcsec
    # log10 ratio = constant + slope * r; covariances of independent lines add.
    constant = sum(power * discs[name].log_centre for name, power in terms) / _LN10
    slope = -sum(power * discs[name].rate for name, power in terms) / _LN10 / scale
    turn = np.diag([1.0, -1.0 / scale]) / _LN10
    covariance = sum(power**2 * turn @ discs[name].covariance @ turn.T for name, power in terms)
    at = abs(discs[terms[-1][0]].scale_arcsec) * scale if radius_kpc is None else radius_kpc
    steep = float(relation.slope(constant + slope * at))
    middle = float(relation.metallicity(constant + slope * at, extrapolate=True))
    values = np.array([middle - steep * slope * at, steep * slope])
    return Gradient.of(values, covariance * steep**2, unit="dex", method=f"exponential discs, {calibration}")


def ring_gradient(
    rings: Mapping[str, Rings],
    geometry: Geometry,
    *,
    calibration: str = DEFAULT_METALLICITY,
    scatter: bool = True,
) -> Gradient:
    """Metallicity gradient from rings as observed, with intrinsic scatter; for ratios of two lines.

    Parameters
    ----------
    rings : mapping of str to Rings
        Means of rings by species, all of the same rings.
    geometry : Geometry
        With `kpc_per_arcsec`.
    calibration : str
        Name of a calibration of N2, R3 (ratios of two lines).
    scatter : bool
        Fit an intrinsic scatter.

    Returns
    -------
    Gradient
        dex/kpc; beam smearing is in it.

    Raises
    ------
    ValueError
        If the ratio is not of two fitted lines, or there are fewer than three rings.
    """
    relation = metallicity_calibration(calibration)
    terms = dict((power, name) for name, power in INDICES[relation.index])
    if len(INDICES[relation.index]) != 2 or any(name not in rings for name in terms.values()):
        raise ValueError(f"{calibration} is not a ratio of two lines that were fitted: use gradient()")
    above, below = rings[terms[1.0]], rings[terms[-1.0]]
    radius = below.radius * geometry.kpc_per_arcsec
    (a, b), covariance, dex = fit_ratio(radius, above.mean, above.error, below.mean, below.error, scatter=scatter)
    at = float(np.nanmedian(radius))
    steep = float(relation.slope(a + b * at))
    middle = float(relation.metallicity(a + b * at, extrapolate=True))
    values = np.array([middle - steep * b * at, steep * b])
    method = f"rings as observed, {calibration}"
    return Gradient.of(values, covariance * steep**2, unit="dex", method=method, scatter=abs(steep) * dex)
