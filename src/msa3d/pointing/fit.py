"""Images and pointing offsets fitted together to the profiles of all exposures.

Every band of every source has an image: a surface of cubic B-splines across and along the slit, smooth as a
Gaussian process is (Matern covariance, its length and amplitude by the evidence of the data). It is the sky as the
slit sees it, blurred by the slit and the pixel, so that an exposure's values are values of the surface at the places
where it looked, and a wrong pointing shifts the places. A Gauss-Newton iteration solves for all offsets together,
the surfaces being eliminated exactly: each exposure is compared with what all the others, and the smoothness, say.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import cho_factor, cho_solve

from msa3d.pointing.profiles import Band

log = logging.getLogger(__name__)

SPACING_ARCSEC = (0.125, 0.1)
"""Distance of the knots across and along the slit."""
LENGTHS_ARCSEC = (0.12, 0.18, 0.27, 0.4, 0.6)
AMPLITUDES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Trial values of the prior: lengths, and amplitudes in units of the scatter of the values."""
ITERATIONS, HUBER, TOLERANCE_ARCSEC = 20, 3.0, 5e-4
"""Rounds at most; sigmas beyond which residuals have less weight; step at which the fit has converged."""
PRIOR_ARCSEC = 0.01
"""Expected rms of the offsets, a coordinate: those that the data do not constrain stay near zero."""
LARGEST_STEP, MOST_TRIALS = 0.03, 6
"""Largest change of an offset in a round, arcsec, over which surfaces are about linear; trials of a step."""
LEVEL = 30.0
"""Amplitude of a constant, in the same unit: the background's level is free."""


class Axis:
    """Knots of a cubic spline at equal distances, with room for shifts.

    Parameters
    ----------
    low, high, step : float
        Range of the places, and distance of the knots.
    """

    def __init__(self, low: float, high: float, step: float):
        self.step = step
        self.first = low - 3.0 * step
        self.size = int(np.ceil((high - low) / step)) + 8

    @property
    def knots(self) -> np.ndarray:
        """Places of the knots."""
        return self.first + self.step * np.arange(self.size)

    def basis(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Design matrices of values and of derivatives, shape (n, size); beyond the knots, those at the end."""
        position = np.clip((places - self.first) / self.step, 1.0, self.size - 2.001)
        around = np.arange(-2.0, self.size + 2.0)
        design = BSpline.design_matrix(position, around, 3).toarray()
        # The derivative of a cubic B-spline is the difference of the quadratic ones on both sides of its knot.
        lower = BSpline.design_matrix(position, around, 2).toarray()
        return design, (lower[:, :-1] - lower[:, 1:]) / self.step


def _matern(distance: np.ndarray, length: float) -> np.ndarray:
    scaled = np.sqrt(5.0) * np.abs(distance) / length
    return (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)


@dataclass(eq=False)
class Surface:
    """The image of one band, and its part of the normal equations.

    Attributes
    ----------
    band : Band
        The data.
    weights : numpy.ndarray, shape (n,)
        Inverse variances, less for outliers.
    scale : float
        Scatter of the residuals over their errors.
    """

    band: Band
    margin: float = 0.15
    weights: np.ndarray = field(init=False)
    scale: float = field(init=False, default=1.0)

    def __post_init__(self) -> None:
        """Lay out knots over the data with a margin for the offsets."""
        band = self.band
        self.axes = [
            Axis(places.min() - self.margin, places.max() + self.margin, step)
            for places, step in zip((band.across, band.along), SPACING_ARCSEC, strict=True)
        ]
        self.weights = band.sigma**-2.0
        self.scatter = max(band.contrast, 0.1) * float(np.median(band.sigma))
        self.mean = float(np.median(band.value))
        self.prior = (LENGTHS_ARCSEC[1], 1.0)

    def choose_prior(self, offsets: np.ndarray) -> None:
        """Take the length and the amplitude that make the data most probable."""
        design, _, _ = self._design(offsets)
        root = design * np.sqrt(self.weights)[:, None]
        gram, moment = root.T @ root, root.T @ ((self.band.value - self.mean) * np.sqrt(self.weights))
        best = -np.inf
        for length in LENGTHS_ARCSEC:
            lower = np.linalg.cholesky(self._covariance(length))
            eigenvalues, vectors = np.linalg.eigh(lower.T @ gram @ lower)
            eigenvalues, power = np.maximum(eigenvalues, 0.0), (vectors.T @ (lower.T @ moment)) ** 2
            for amplitude in AMPLITUDES:
                variance = (amplitude * self.scatter) ** 2
                shrunk = variance / (1.0 + variance * eigenvalues)
                evidence = 0.5 * np.sum(power * shrunk - np.log1p(variance * eigenvalues))
                if evidence > best:
                    best, self.prior = evidence, (length, amplitude)
        length, amplitude = self.prior
        self._inverse_prior = np.linalg.inv(self._covariance(length) * (amplitude * self.scatter) ** 2)

    def _covariance(self, length: float) -> np.ndarray:
        """Prior covariance of the coefficients, in units of the amplitude."""
        across, along = (_matern(axis.knots[:, None] - axis.knots[None, :], length) for axis in self.axes)
        whole = np.kron(across, along)
        return whole + LEVEL**2 + 1e-6 * np.eye(len(whole))

    def _design(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Design matrices of the values and of their derivatives across and along."""
        band = self.band
        shift = offsets[band.exposure]
        u, du = self.axes[0].basis(band.across + shift[:, 0])
        v, dv = self.axes[1].basis(band.along + shift[:, 1])
        n = band.value.size
        return tuple((a[:, :, None] * b[:, None, :]).reshape(n, -1) for a, b in ((u, v), (du, v), (u, dv)))

    def equations(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Information on all offsets, and its right-hand side, with the surface eliminated.

        Parameters
        ----------
        offsets : numpy.ndarray, shape (n_exposures, 2)
            Current offsets across and along, arcsec.

        Returns
        -------
        information : numpy.ndarray, shape (2 n_exposures, 2 n_exposures)
        gradient : numpy.ndarray, shape (2 n_exposures,)
        """
        design, across, along = self._design(offsets)
        weighted = design * self.weights[:, None]
        self._factor = cho_factor(design.T @ weighted + self._inverse_prior)
        coefficients = cho_solve(self._factor, weighted.T @ (self.band.value - self.mean))
        self.residuals = self.band.value - self.mean - design @ coefficients
        self.misfit = float(self.weights @ self.residuals**2 + coefficients @ self._inverse_prior @ coefficients)
        # Likelihood with the surface integrated out: without the determinant, the offsets would make it smoother.
        self.misfit += 2.0 * float(np.sum(np.log(np.diag(self._factor[0]))))
        self.parameters = float(np.trace(cho_solve(self._factor, design.T @ weighted)))
        jacobian = np.zeros((self.band.value.size, offsets.size))
        rows = np.arange(self.band.value.size)
        jacobian[rows, 2 * self.band.exposure] = across @ coefficients
        jacobian[rows, 2 * self.band.exposure + 1] = along @ coefficients
        cross = weighted.T @ jacobian
        information = jacobian.T @ (self.weights[:, None] * jacobian) - cross.T @ cho_solve(self._factor, cross)
        gradient = jacobian.T @ (self.weights * self.residuals)
        spread = cho_solve(self._factor, weighted.T).T
        for axis, slopes in enumerate((across, along)):
            determinant = np.einsum("ij,ij->i", spread, slopes)
            gradient[axis::2] -= np.bincount(self.band.exposure, determinant, offsets.shape[0])
        return information, gradient

    def reweight(self) -> float:
        """Give outliers less weight and scale the errors up to the scatter; return scatter over error (1 or more)."""
        pulls = np.abs(self.residuals) / self.band.sigma
        free = np.sqrt(max(1.0 - self.parameters / pulls.size, 0.1))
        scale = max(1.0, 1.4826 * float(np.median(pulls)) / free)
        self.weights = (scale * self.band.sigma) ** -2.0 * np.minimum(1.0, HUBER * scale / np.maximum(pulls, 1e-9))
        return scale


@dataclass(frozen=True, eq=False)
class Solution:
    """Offsets of all exposures.

    Attributes
    ----------
    offsets : numpy.ndarray, shape (n_exposures, 2)
        Across and along the slit, arcsec: to be added to the positions by the headers. Mean zero.
    covariance : numpy.ndarray, shape (2 n_exposures, 2 n_exposures)
        Of the offsets, arcsec2, in the order across, along of each exposure.
    scales : dict of str to float
        Scatter over error of each band.
    iterations : int
        Rounds done.
    prior_arcsec : float
        Expected rms of the offsets.
    """

    offsets: np.ndarray
    covariance: np.ndarray
    scales: dict[str, float]
    iterations: int
    prior_arcsec: float

    @property
    def errors(self) -> np.ndarray:
        """Formal errors of the offsets, shape (n_exposures, 2), arcsec."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0)).reshape(-1, 2)


def solve(
    bands: list[Band],
    n_exposures: int,
    prior_arcsec: float = PRIOR_ARCSEC,
) -> Solution:
    """Fit images and offsets to all bands.

    Parameters
    ----------
    bands : list of Band
        Data.
    n_exposures : int
        Number of exposures.
    prior_arcsec : float
        Expected rms of an offset, a coordinate.

    Returns
    -------
    Solution
        Exposures that no band saw keep the offset 0 and the error of the prior.
    """
    system = _System([Surface(band) for band in bands], n_exposures)
    rms, damping, done = prior_arcsec, 1e-2, 0
    system.move_to(np.zeros((n_exposures, 2)))
    for done in range(1, ITERATIONS + 1):
        if done == 3:
            system.choose_priors()
        if done <= 4:
            system.reweight()
        step, damping = system.step(rms, damping)
        log.info("registration: round %d, largest step %.2f mas", done, 1e3 * step)
        if step < TOLERANCE_ARCSEC and done > 4:
            break
    scales = {surface.band.name: surface.scale for surface in system.surfaces}
    return Solution(system.offsets, system.covariance(rms), scales, done, rms)


class _System:
    """The normal equations of all surfaces at the current offsets, and damped steps (Levenberg-Marquardt)."""

    def __init__(self, surfaces: list[Surface], n_exposures: int):
        self.surfaces, self.n = surfaces, n_exposures
        # The mean of all offsets cannot be told from a shift of all images: it is held at zero.
        self._mean = np.kron(np.ones((n_exposures, n_exposures)), np.eye(2)) / n_exposures
        for surface in surfaces:
            surface.choose_prior(np.zeros((n_exposures, 2)))

    def move_to(self, offsets: np.ndarray) -> None:
        """Set up the equations at other offsets."""
        self.offsets = offsets
        parts = [surface.equations(offsets) for surface in self.surfaces]
        self.information = sum((part for part, _ in parts), np.zeros((2 * self.n, 2 * self.n)))
        self.gradient = sum((side for _, side in parts), np.zeros(2 * self.n))
        self.misfit = sum(surface.misfit for surface in self.surfaces)

    def choose_priors(self) -> None:
        """Choose the smoothness of the surfaces anew."""
        for surface in self.surfaces:
            surface.choose_prior(self.offsets)
        self.move_to(self.offsets)

    def reweight(self) -> None:
        """Weigh outliers anew."""
        for surface in self.surfaces:
            surface.scale = surface.reweight()
        self.move_to(self.offsets)

    def covariance(self, rms: float) -> np.ndarray:
        """Covariance of the offsets, their mean held at zero."""
        whole = np.linalg.inv(self.information + np.eye(2 * self.n) / rms**2 + self._mean * 1e10)
        free = np.eye(2 * self.n) - self._mean
        return free @ whole @ free

    def step(self, rms: float, damping: float) -> tuple[float, float]:
        """Take the next step that makes the fit better; give its largest component (arcsec) and the damping."""
        start = self.offsets
        before = self.misfit + np.sum(start**2) / rms**2
        information = self.information + np.eye(2 * self.n) / rms**2
        gradient = self.gradient - start.ravel() / rms**2
        damped = np.diag(np.diag(information))
        for _ in range(MOST_TRIALS):
            step = np.linalg.solve(information + damping * damped + self._mean * 1e10, gradient).reshape(-1, 2)
            step -= step.mean(axis=0)
            step *= min(1.0, LARGEST_STEP / np.abs(step).max())
            self.move_to(start + step)
            if self.misfit + np.sum(self.offsets**2) / rms**2 <= before:
                return float(np.abs(step).max()), max(damping / 5.0, 1e-6)
            damping = max(5.0 * damping, 1e-3)
        self.move_to(start)
        return 0.0, damping
