"""Straight lines through radial quantities, with intrinsic scatter, and what a gradient is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize


@dataclass(frozen=True)
class Gradient:
    """A quantity that changes linearly with the radius in the plane of a disc.

    Attributes
    ----------
    slope, slope_error : float
        Change for each kpc, and 1 sigma.
    centre, centre_error : float
        Value at radius 0.
    covariance : ndarray, shape (2, 2)
        Of centre and slope.
    scatter : float
        Intrinsic scatter about the line; 0 where it was not fitted.
    unit : str
        Unit of the quantity.
    method : str
        How it was measured, with calibration or law.
    """

    slope: float
    slope_error: float
    centre: float
    centre_error: float
    covariance: np.ndarray
    scatter: float = 0.0
    unit: str = ""
    method: str = ""

    @classmethod
    def of(cls, values, covariance, *, unit: str = "", method: str = "", scatter: float = 0.0) -> Gradient:
        """Make one of (centre, slope) and their covariance."""
        error = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        return cls(
            float(values[1]), float(error[1]), float(values[0]), float(error[0]), covariance, scatter, unit, method
        )

    def at(self, radius_kpc) -> tuple[np.ndarray, np.ndarray]:
        """Value and its error at radii in kpc."""
        r = np.asarray(radius_kpc, dtype=float)
        slope = np.stack([np.ones_like(r), r], axis=-1)
        variance = np.einsum("...i,ij,...j", slope, self.covariance, slope)
        return self.centre + self.slope * r, np.sqrt(np.maximum(variance, 0.0))


def fit_line(radius_kpc, value, error, *, unit: str = "", method: str = "") -> Gradient:
    """Fit a line with intrinsic scatter by maximum likelihood.

    Parameters
    ----------
    radius_kpc, value, error : array-like, shape (n,)
        Points and their 1 sigma errors; those with NaN are left out.
    unit, method : str
        Kept in the result.

    Returns
    -------
    Gradient
        With `scatter`, which errors include.

    Raises
    ------
    ValueError
        If fewer than three points are left.
    """
    x, y, e = (np.asarray(a, dtype=float) for a in (radius_kpc, value, error))
    good = np.isfinite(x) & np.isfinite(y) & np.isfinite(e) & (e > 0)
    if good.sum() < 3:
        raise ValueError(f"a gradient needs three points, there are {int(good.sum())}")
    x, y, e = x[good], y[good], e[good]
    design = np.column_stack([np.ones_like(x), x])

    def solve(scatter: float) -> tuple[float, np.ndarray, np.ndarray]:
        variance = e**2 + scatter**2
        inverse = np.linalg.inv(design.T @ (design / variance[:, None]))
        values = inverse @ (design.T @ (y / variance))
        # Restricted likelihood: the last term makes good for the two parameters that were fitted.
        cost = np.sum((y - design @ values) ** 2 / variance + np.log(variance)) - np.linalg.slogdet(inverse)[1]
        return float(cost), values, inverse

    start = max(float(np.std(y)), float(np.min(e)) * 0.1)
    found = minimize(
        lambda p: solve(abs(p[0]))[0], [0.3 * start], method="Nelder-Mead", options={"xatol": 1e-4 * start}
    )
    scatter = abs(float(found.x[0]))
    if solve(0.0)[0] <= found.fun:
        scatter = 0.0
    _, values, covariance = solve(scatter)
    return Gradient.of(values, covariance, unit=unit, method=method, scatter=scatter)


def fit_ratio(
    radius_kpc, above, above_error, below, below_error, *, scatter: bool = False
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit ``log10(above / below) = a + b r`` to fluxes, however faint.

    The logarithm of a noisy ratio is biased and has no Gaussian errors; ``above - ratio * below`` has them
    (Fieller 1954). Its likelihood is maximised.

    Parameters
    ----------
    radius_kpc, above, above_error, below, below_error : array-like, shape (n,)
        Radii, fluxes, and their errors; negative fluxes take part.
    scatter : bool
        Fit an intrinsic scatter (dex) as well.

    Returns
    -------
    tuple of ndarray, ndarray, float
        a and b, their covariance (of curvature), and the scatter in dex.

    Raises
    ------
    ValueError
        If fewer than three points are left.
    """
    r, n, en, d, ed = (np.asarray(a, dtype=float) for a in (radius_kpc, above, above_error, below, below_error))
    good = np.isfinite(r + n + en + d + ed) & (en > 0) & (ed > 0)
    if good.sum() < 3:
        raise ValueError(f"a gradient of a ratio needs three rings, there are {int(good.sum())}")
    r, n, en, d, ed = (a[good] for a in (r, n, en, d, ed))

    def cost(p: np.ndarray) -> float:
        ratio = 10.0 ** np.clip(p[0] + p[1] * r, -6.0, 6.0)
        spread = np.log(10.0) * p[2] * ratio * d if scatter else 0.0
        base = en**2 + (ratio * ed) ** 2
        variance = base + spread**2
        # The true denominators are solved for: the normalisation that is left is that of the scatter alone.
        return float(0.5 * np.sum((n - ratio * d) ** 2 / variance + np.log(variance / base)))

    mean = np.log10(max(n.sum(), 1e-3 * abs(d.sum())) / max(d.sum(), 1e-3 * abs(n.sum())))
    start = np.array([mean, 0.0, 0.05][: 3 if scatter else 2])
    steps = np.array([0.1, 0.02, 0.05][: start.size])
    simplex = np.vstack([start, start + np.diag(steps)])
    found = minimize(
        cost, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-6, "fatol": 1e-9}
    )
    p = found.x
    covariance = np.linalg.pinv(_curvature(lambda q: cost(np.concatenate([q, p[2:]])), p[:2]), hermitian=True)
    return p[:2], covariance, abs(float(p[2])) if scatter else 0.0


def _curvature(cost, at: np.ndarray) -> np.ndarray:
    """Second derivatives by differences."""
    step = np.array([1e-3, 2e-4])
    result = np.empty((2, 2))
    for i in range(2):
        for j in range(2):
            a, b = np.eye(2)[i] * step, np.eye(2)[j] * step
            total = cost(at + a + b) - cost(at + a - b) - cost(at - a + b) + cost(at - a - b)
            result[i, j] = total / (4.0 * step[i] * step[j])
    return result
