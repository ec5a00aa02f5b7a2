"""All emission lines and the continuum of a cube's spaxels, fitted together.

Least squares on whitened data: residuals are divided by their errors and decorrelated between
neighbouring wavelengths. Velocity and dispersion are shared by all lines, or given; fluxes and the
continuum (a straight line in each window) enter linearly and are solved for exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular, toeplitz

from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube
from msa3d.errors import ProductError
from msa3d.galaxy.lines import (
    FWHM_PER_SIGMA,
    SPECIES,
    LineSpread,
    bin_edges,
    line_spread_of,
    species_profile,
    to_line_flux,
    windows,
)

log = logging.getLogger(__name__)

REACH_KMS = 1500.0
VELOCITY_LIMIT = 500.0
SIGMA_LIMITS = (2.0, 300.0)
REACH_SIGMA = 6.0
"""Windows reach at least so many standard deviations of the line-spread function: only of the prism is that more."""
LEAST_COVERAGE = 0.7
"""A line of which less fell on voxels with data has no flux."""

_GRID = (np.arange(-400.0, 401.0, 20.0), np.array([15.0, 40.0, 70.0, 120.0]))
_STEPS = 30
_LEAST_POWER = 1e-3


@dataclass(frozen=True)
class LineFit:
    """Maps of a fit of all lines; every map has shape (n_y, n_x) and is NaN where nothing could be fitted.

    Attributes
    ----------
    flux, flux_error : dict of str to ndarray
        By species (`lines.SPECIES`; the fainter line of a doublet follows from its ratio): surface
        brightness and its error, erg s-1 cm-2 arcsec-2. Negative where noise is: nothing is clipped.
    velocity, velocity_error : ndarray
        km/s, positive when receding: ``lambda = lambda_rest (1 + z) (1 + v/c)``. Errors 0 where given.
    sigma, sigma_error : ndarray
        Dispersion of the gas, the instrument taken out by forward modelling, km/s.
    chi2 : ndarray
        Chi square of the whitened residuals.
    freedom : ndarray
        Degrees of freedom.
    redshift : float
        What velocities refer to.
    blended : tuple of str
        Species that the line-spread function does not part from others: only their sum is measured. Their own fluxes
        are limits, with errors as large as the largest of them, unless velocity and dispersion were given.
    """

    flux: dict[str, np.ndarray]
    flux_error: dict[str, np.ndarray]
    velocity: np.ndarray
    velocity_error: np.ndarray
    sigma: np.ndarray
    sigma_error: np.ndarray
    chi2: np.ndarray
    freedom: np.ndarray
    redshift: float
    blended: tuple[str, ...] = ()

    def snr(self, name: str = "Ha") -> np.ndarray:
        """Signal to noise of a line's flux."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.flux[name] / self.flux_error[name]

    def reliable(self, snr: float = 5.0, name: str = "Ha") -> np.ndarray:
        """Where a line is significant and neither velocity nor dispersion ran to its limit."""
        with np.errstate(invalid="ignore"):
            inside = (np.abs(self.velocity) < 0.99 * VELOCITY_LIMIT) & (self.sigma < 0.99 * SIGMA_LIMITS[1])
            return np.isfinite(self.flux[name]) & (self.snr(name) >= snr) & inside


class Whitened:
    """Whitened spectra of some spaxels in the windows of their lines, and the design that goes with them."""

    def __init__(self, cube: Cube, redshift: float, names: Sequence[str], spread: LineSpread, reach_kms: float):
        self.redshift, self.spread = redshift, spread
        wide = max(spread.sigma_kms(LINES[name] * (1.0 + redshift)) for name in names)
        reach_kms = max(reach_kms, REACH_SIGMA * wide)
        self.windows = [w for w in windows(cube.wave_um, redshift, names, reach_kms) if w[0].size > 8]
        if not self.windows:
            raise ProductError(
                f"{cube.name}: none of {', '.join(names)} at z = {redshift:g} is covered; check redshift"
            )
        self.names = [name for _, group in self.windows for name in group]
        self.blended = tuple(name for name in self.names if self._is_blended(name))
        self.edges = [bin_edges(cube.wave_um[index]) for index, _ in self.windows]
        self.roots = [_root(cube.spectral_correlation, index.size) for index, _ in self.windows]
        self.data, self.weight = [], []
        for (index, _), root in zip(self.windows, self.roots, strict=True):
            values = cube.data[index].reshape(index.size, -1).T
            error = np.ones_like(values) if cube.err is None else cube.err[index].reshape(index.size, -1).T
            known = np.isfinite(values) & np.isfinite(error) & (error > 0)
            known &= (values != 0) if cube.err is None else True
            weight = np.where(known, 1.0 / np.where(known, error, 1.0), 0.0)
            self.weight.append(weight)
            self.data.append(_whiten(root, np.where(known, values, 0.0) * weight))
        self.known = np.sum([(w > 0).sum(axis=1) for w in self.weight], axis=0)
        # A detector gap may hide one window; the others go on.
        self.usable = np.max([(w > 0).mean(axis=1) for w in self.weight], axis=0) >= 0.8
        self.target = np.concatenate(self.data, axis=1)

    def _is_blended(self, name: str) -> bool:
        """Whether another line lies within the full width at half maximum."""
        width = FWHM_PER_SIGMA * self.spread.sigma_kms(LINES[name] * (1.0 + self.redshift)) / C_KMS
        return any(abs(LINES[other] / LINES[name] - 1.0) < width for other in self.names if other != name)

    def part(self, where: np.ndarray) -> Whitened:
        """Return the same for some of the spaxels."""
        result = copy(self)
        result.weight = [w[where] for w in self.weight]
        result.target, result.known = self.target[where], self.known[where]
        return result

    def coverage(self, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Fraction of each species' main line that fell on voxels with data, (n, n_species)."""
        result = []
        for (_, group), edges, weight in zip(self.windows, self.edges, self.weight, strict=True):
            for name in group:
                main = SPECIES[name][0][0]
                profile = species_profile(main, edges, self.redshift, velocity, sigma, self.spread, alone=True)
                result.append((profile * (weight > 0) * np.diff(edges)).sum(axis=1))
        return np.stack(result, axis=-1)

    def profiles(self, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Whitened line profiles, (n, n_wave, n_species)."""
        return self._assemble(velocity, sigma, continuum=False)

    def design(self, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Whitened design, (n, n_wave, n_species + 2 n_windows)."""
        return self._assemble(velocity, sigma, continuum=True)

    def _assemble(self, velocity: np.ndarray, sigma: np.ndarray, *, continuum: bool) -> np.ndarray:
        size = [w.shape[1] for w in self.weight]
        columns = len(self.names) + (2 * len(self.windows) if continuum else 0)
        out = np.zeros((velocity.size, sum(size), columns))
        row = column = 0
        for k, (_, group) in enumerate(self.windows):
            rows = slice(row, row + size[k])
            for name in group:
                profile = species_profile(name, self.edges[k], self.redshift, velocity, sigma, self.spread)
                out[:, rows, column] = _whiten(self.roots[k], profile * self.weight[k])
                column += 1
            if continuum:
                base = len(self.names) + 2 * k
                out[:, rows, base] = _whiten(self.roots[k], self.weight[k])
                out[:, rows, base + 1] = _whiten(self.roots[k], self.weight[k] * np.linspace(-0.5, 0.5, size[k]))
            row += size[k]
        return out


def fit_lines(
    cube: Cube,
    redshift: float,
    *,
    names: Sequence[str] = tuple(SPECIES),
    spread: LineSpread | None = None,
    velocity: np.ndarray | None = None,
    sigma: np.ndarray | None = None,
    reach_kms: float = REACH_KMS,
) -> LineFit:
    """Fit lines and continuum of every spaxel.

    Parameters
    ----------
    cube : Cube
        The cube; without errors every voxel weighs the same, and errors are scaled by the residuals.
    redshift : float
        Redshift that velocities refer to.
    names : sequence of str
        Species to fit, of `lines.SPECIES`; those that the cube does not cover are left out.
    spread : LineSpread, optional
        Line-spread function; without it that of the cube's header.
    velocity, sigma : ndarray, shape (n_y, n_x), optional
        Velocity and dispersion (km/s) where they are known, of a disc model say. Fluxes are then linear in the data and
        unbiased however faint the line is. Spaxels with NaN are left out.
    reach_kms : float
        How far the windows reach to either side of their lines.

    Returns
    -------
    LineFit
        The maps.

    Raises
    ------
    msa3d.errors.ProductError
        If none of the lines is covered.
    """
    spread = spread or line_spread_of(cube.header, step_um=float(np.median(np.diff(cube.wave_um))))
    work = Whitened(cube, redshift, names, spread, reach_kms)
    if work.blended:
        log.warning(
            "%s: %s are nearer to another line than the line-spread function is wide: their sum is measured, their own "
            "fluxes are limits",
            cube.name,
            ", ".join(work.blended),
        )
    use, given = work.usable.copy(), velocity is not None
    if given:
        velocity, sigma = (np.broadcast_to(a, cube.shape).ravel().astype(float) for a in (velocity, sigma))
        use &= np.isfinite(velocity) & np.isfinite(sigma)
    work = work.part(use)
    k = len(work.names)
    values, errors = np.full((use.size, k + 2), np.nan), np.full((use.size, k + 2), np.nan)
    chi2 = np.full(use.size, np.nan)
    if use.any():
        shape = np.column_stack([velocity[use], sigma[use]]) if given else _polish(work, _start(work))
        linear, residual = solve_linear(work.design(shape[:, 0], shape[:, 1]), work.target)
        covariance = _covariance(work, linear, shape, given)
        chi2[use] = (residual**2).sum(axis=1)
        if cube.err is None:
            free = work.known - linear.shape[1] - 2
            covariance = covariance * (chi2[use] / free)[:, None, None]
        error = np.sqrt(np.clip(np.einsum("sii->si", covariance), 0.0, None))
        last = np.zeros((len(error), 2)) if given else error[:, -2:]
        linear[:, :k][work.coverage(*shape.T) < LEAST_COVERAGE] = np.nan
        shape = np.where(np.isfinite(linear[:, :k]).any(axis=1)[:, None], shape, np.nan)
        values[use] = np.column_stack([linear[:, :k], shape])
        errors[use] = np.where(np.isfinite(values[use]), np.column_stack([error[:, :k], last]), np.nan)
    if work.blended and not given:
        # With free velocities the covariance at the best fit knows nothing of the others: the parts are limits.
        parts = [work.names.index(name) for name in work.blended]
        most = np.abs(np.nan_to_num(values[:, parts])).max(axis=1, keepdims=True)
        errors[:, parts] = np.hypot(errors[:, parts], most)
    freedom = np.full(use.size, np.nan)
    freedom[use] = work.known - k - 2 * len(work.windows) - (0 if given else 2)
    return _maps(work, values, errors, chi2, freedom, cube.shape)


def solve_linear(design: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of many small problems: parameters (n, k) and residuals (n, n_wave)."""
    normal = design.transpose(0, 2, 1) @ design
    diagonal = np.einsum("sii->si", normal)
    lift = np.where(diagonal > 0, 1e-12 * diagonal, 1.0)
    normal = normal + np.einsum("si,ij->sij", lift, np.eye(normal.shape[-1]))
    right = design.transpose(0, 2, 1) @ target[..., None]
    # Columns differ by orders of magnitude: solve in units of their norms.
    scale = np.sqrt(np.einsum("sii->si", normal))
    scaled = normal / (scale[:, :, None] * scale[:, None, :])
    linear = np.linalg.solve(scaled, right / scale[..., None])[..., 0] / scale
    return linear, target - (design @ linear[..., None])[..., 0]


def _root(correlation: np.ndarray | None, size: int) -> np.ndarray | None:
    """Cholesky factor of the correlation of a spaxel's wavelengths; None where they are independent."""
    if correlation is None or np.abs(correlation[1:]).max(initial=0.0) < 1e-6:
        return None
    row = np.zeros(size)
    n = min(size, correlation.size)
    row[:n] = correlation[:n]
    matrix = toeplitz(row)
    # A correlation that was measured, or is a mean, need not be one: what would be negative power is made small.
    values, vectors = np.linalg.eigh(matrix)
    if values[0] < _LEAST_POWER:
        matrix = (vectors * np.maximum(values, _LEAST_POWER)) @ vectors.T
        scale = np.sqrt(np.diag(matrix))
        matrix = matrix / np.outer(scale, scale)
    return cholesky(matrix + 1e-9 * np.eye(size), lower=True)


def _whiten(root: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """Apply the inverse root to rows (n, n_wave)."""
    return rows if root is None else solve_triangular(root, rows.T, lower=True, check_finite=False).T


def _start(work: Whitened) -> np.ndarray:
    """Velocity and dispersion on a coarse grid, one projection for all spaxels (mean weights)."""
    saved, best = work.weight, np.full(work.target.shape[0], -np.inf)
    start = np.zeros((best.size, 2))
    lines = len(work.names)
    try:
        work.weight = [np.median(w, axis=0, keepdims=True) for w in saved]
        for velocity in _GRID[0]:
            for sigma in _GRID[1]:
                design = work.design(np.array([velocity]), np.array([sigma]))[0]
                # Continuum first: what the lines explain is what is left after it.
                basis = np.linalg.qr(np.roll(design, -lines, axis=1))[0][:, -lines:]
                projected = work.target @ basis
                found = np.where((work.target @ design[:, :lines]).sum(axis=1) > 0, (projected**2).sum(axis=1), -1.0)
                better = found > best
                best[better], start[better] = found[better], (velocity, sigma)
    finally:
        work.weight = saved
    return start


def _slopes(work: Whitened, linear: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Derivatives of the whitened model to velocity and dispersion, (n, n_wave, 2)."""
    lines, result = len(work.names), []
    for step in np.array([[0.5, 0.0], [0.0, 0.5]]):
        high, low = (work.profiles(*(shape + sign * step).T) for sign in (1.0, -1.0))
        result.append(np.einsum("swk,sk->sw", high - low, linear[:, :lines]))
    return np.stack(result, axis=-1)


def _polish(work: Whitened, start: np.ndarray) -> np.ndarray:
    """Damped Gauss-Newton steps on velocity and dispersion of all spaxels; the rest stays solved."""
    shape, damping = start.copy(), np.full(len(start), 1e-3)
    active = np.arange(len(start))
    for _ in range(_STEPS):
        here = work.part(active)
        design = here.design(*shape[active].T)
        linear, residual = solve_linear(design, here.target)
        slopes = _slopes(here, linear, shape[active])
        # Variable projection: only what the linear columns cannot follow moves velocity and dispersion.
        free = np.stack([solve_linear(design, slopes[..., i])[1] for i in range(2)], axis=-1)
        normal = free.transpose(0, 2, 1) @ free
        diagonal = np.einsum("sii->si", normal)
        lifted = normal + np.einsum("si,ij->sij", diagonal * damping[active, None] + 1e-12, np.eye(2))
        gradient = free.transpose(0, 2, 1) @ residual[..., None]
        trial = shape[active] + np.clip(np.linalg.solve(lifted, gradient)[..., 0], -60.0, 60.0)
        trial[:, 0] = np.clip(trial[:, 0], -VELOCITY_LIMIT, VELOCITY_LIMIT)
        trial[:, 1] = np.clip(trial[:, 1], *SIGMA_LIMITS)
        moved = np.abs(trial - shape[active]).max(axis=1)
        after = (solve_linear(here.design(*trial.T), here.target)[1] ** 2).sum(axis=1)
        better = after <= (residual**2).sum(axis=1)
        shape[active[better]] = trial[better]
        change = np.where(better, 0.2, 5.0)
        damping[active] = np.clip(damping[active] * change, 1e-9, 1e9)
        active = active[moved > 0.02]
        if not active.size:
            break
    return shape


def _covariance(work: Whitened, linear: np.ndarray, shape: np.ndarray, given: bool) -> np.ndarray:
    """Covariance of all parameters, velocity and dispersion last unless they were given."""
    design = work.design(*shape.T)
    if not given:
        design = np.concatenate([design, _slopes(work, linear, shape)], axis=-1)
    normal = design.transpose(0, 2, 1) @ design
    scale = np.sqrt(np.einsum("sii->si", normal))
    scale = np.where(scale > 0, scale, 1.0)
    inverse = np.linalg.pinv(normal / (scale[:, :, None] * scale[:, None, :]), hermitian=True)
    return inverse / (scale[:, :, None] * scale[:, None, :])


def _maps(
    work: Whitened,
    values: np.ndarray,
    errors: np.ndarray,
    chi2: np.ndarray,
    freedom: np.ndarray,
    shape: tuple[int, int],
) -> LineFit:
    flux, error = {}, {}
    for i, name in enumerate(work.names):
        at = LINES[name] * (1.0 + work.redshift)
        flux[name] = to_line_flux(values[:, i], at).reshape(shape)
        error[name] = to_line_flux(errors[:, i], at).reshape(shape)
    rest = [a[:, j].reshape(shape) for j in (-2, -1) for a in (values, errors)]
    return LineFit(flux, error, *rest, chi2.reshape(shape), freedom.reshape(shape), work.redshift, work.blended)
