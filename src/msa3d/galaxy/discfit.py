"""Rotation, fitted to the cube.

The least-squares problem of a disc in a cube: data, weights, and a model whose linear part is solved for.

How noisy the parameters of a disc are, measured where the cube shows no line.

A rotating disc fitted to the cube around an emission line.

Every spaxel's spectrum near the line is compared with what a thin disc would show there, through slit, spectrograph and
drizzle (`discmodel`). How bright the line is in a spaxel, and the straight continuum beneath it, are
linear and solved for exactly, so that only shapes bear on the disc: its position angle, the amplitude of the rotation
curve times sin(inclination), turn-over radius, dispersion, systemic velocity and, if wanted, centre. The
inclination itself is given: kinematics hardly tell that of a disc seen face on.

Residuals are whitened along wavelength. Noise that neighbouring spaxels share, and what the errors do not know
of (banding), is measured: the same linear combination of voxels that turns noise into an error of a parameter is
applied where there is no line, and chi square is divided by the factor by which variances come out larger
(`DiscFit.scale`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import least_squares
from scipy.signal import fftconvolve

from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube
from msa3d.errors import ProductError
from msa3d.galaxy.disc import Disc
from msa3d.galaxy.discmodel import ITERATIONS, SLIT_SIGN, LineModel, deconvolve
from msa3d.galaxy.fit import SIGMA_LIMITS, _root, fit_lines
from msa3d.galaxy.lines import LineSpread
from msa3d.galaxy.profiles import response_to_centre

LIMITS = {
    "pa_deg": (-720.0, 720.0),
    "v_sin_i": (0.0, 600.0),
    "log_r_turn": (np.log(0.01), np.log(1.5)),
    "sigma0": (0.5, 250.0),
    "systemic": (-300.0, 300.0),
    "x0": (-0.4, 0.4),
    "y0": (-0.4, 0.4),
}
_STEP = {"pa_deg": 1.0, "v_sin_i": 1.0, "log_r_turn": 0.05, "sigma0": 1.0, "systemic": 1.0, "x0": 0.01, "y0": 0.01}


class Problem:
    """Data, weights and model of a fit; parameters are a vector with log(r_turn) in the third place."""

    def __init__(self, cube: Cube, model: LineModel, index: np.ndarray, used: np.ndarray, settings: dict):
        self.model, self.used, self.index = model, used, index
        self.names = tuple(settings["names"])
        self.inclination, self.curve = settings["inclination_deg"], settings["curve"]
        self.light = settings["light"]
        values = cube.data[index][:, used].T
        error = cube.err[index][:, used].T
        known = np.isfinite(values) & np.isfinite(error) & (error > 0)
        self.weight = np.where(known, 1.0 / np.where(known, error, 1.0), 0.0)
        self.values = np.where(known, values, 0.0)
        root = _root(cube.spectral_correlation, index.size)
        self.whiten = np.eye(index.size) if root is None else np.linalg.inv(root)
        ramp = np.stack([np.ones(index.size), np.linspace(-0.5, 0.5, index.size)], axis=1)
        # Per spaxel: whitening, weights, and the projection that takes the straight continuum out.
        operator = self.whiten[None] * self.weight[:, None, :]
        basis = np.linalg.qr(operator @ ramp)[0]
        self.operator = operator - basis @ (basis.transpose(0, 2, 1) @ operator)
        self.target = np.einsum("sij,sj->si", self.operator, self.values)
        self.freedom = float(known.sum() - 3 * known.shape[0] - len(self.names))

    def disc(self, vector: np.ndarray) -> Disc:
        """Disc of a vector of parameters."""
        centre = dict(zip(self.names[5:], vector[5:], strict=True))
        return Disc(vector[0], self.inclination, vector[1], np.exp(vector[2]), vector[4], curve=self.curve, **centre)

    def shapes(self, vector: np.ndarray) -> np.ndarray:
        """Model spectra of the spaxels used, (n, n_wave)."""
        velocity = self.disc(vector).velocity(self.model.east, self.model.north)
        return self.model.predict(self.light, velocity, vector[3])[:, self.used].T

    def amplitudes(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whitened model spectra, and how bright each must be."""
        seen = np.einsum("sij,sj->si", self.operator, self.shapes(vector))
        bright = (seen * self.target).sum(axis=1) / np.maximum((seen**2).sum(axis=1), 1e-300)
        return seen, np.maximum(bright, 0.0)

    def residuals(self, vector: np.ndarray) -> np.ndarray:
        """Whitened residuals, flat."""
        seen, bright = self.amplitudes(vector)
        return (self.target - bright[:, None] * seen).ravel()

    def jacobian(self, vector: np.ndarray) -> np.ndarray:
        """Derivatives of the residuals, (n_residuals, n_parameters)."""
        columns = []
        for k, name in enumerate(self.names):
            step = np.zeros(vector.size)
            step[k] = _STEP["log_r_turn" if name == "r_turn" else name]
            columns.append((self.residuals(vector + step) - self.residuals(vector - step)) / (2.0 * step[k]))
        return np.stack(columns, axis=1)


CLEAR_KMS = 700.0
LEAST_WINDOWS = 12


def noise_scale(cube: Cube, problem, vector: np.ndarray, redshift: float) -> tuple[float, np.ndarray]:
    """Covariance of a disc's parameters, and by how much larger it is than independent spaxels would have it.

    Near the best fit an error of a parameter is a sum of voxels' noise with weights that follow from the
    Jacobian. The same weights are applied to windows of the cube without lines, in units of the voxels' errors
    there, and to the correlation of the noise that the builder predicts. The larger of both rules.

    Parameters
    ----------
    cube : Cube
        The whole cube.
    problem : msa3d.galaxy.discfit.Problem
        The fit.
    vector : numpy.ndarray
        Its best parameters.
    redshift : float
        Of the galaxy, whose lines are kept clear of.

    Returns
    -------
    scale : float
        Geometric mean, over the parameters, of variance over formal variance; not below 1.
    covariance : numpy.ndarray
        Formal covariance times the scale.
    """
    jacobian = problem.jacobian(vector)
    normal = jacobian.T @ jacobian
    size = np.sqrt(np.diag(normal)) + 1e-300
    formal = np.linalg.pinv(normal / np.outer(size, size), hermitian=True) / np.outer(size, size)
    n, n_wave = problem.target.shape
    response = -(formal @ jacobian.T).reshape(-1, n, n_wave)
    # Weights of the voxels in units of their errors: (n_parameters, n_wave, n_y, n_x).
    weights = np.zeros((len(vector), n_wave, *cube.shape))
    voxel = np.einsum("psi,sij->psj", response, problem.operator)
    with np.errstate(divide="ignore"):
        sigma = np.where(problem.weight > 0, 1.0 / problem.weight, 0.0)
    weights[:, :, problem.used] = (voxel * sigma).transpose(0, 2, 1)
    ratios = [np.ones(len(vector))]
    if cube.correlation is not None:
        spread = [_correlated_sum(w, cube.correlation) for w in weights]
        ratios.append(np.array(spread) / np.diag(formal))
    found = _windows(cube, problem, weights, redshift)
    if len(found) >= LEAST_WINDOWS:
        ratios.append(np.var(found, axis=0) / np.diag(formal))
    scale = max(float(np.exp(np.mean(np.log(np.maximum(r, 1e-3))))) for r in ratios)
    return scale, formal * scale


def _correlated_sum(weights: np.ndarray, correlation: np.ndarray) -> float:
    """Variance of a weighted sum of voxels, (n_wave, n_y, n_x), in units of their errors."""
    reach = np.minimum(np.array(correlation.shape) // 2, np.array(weights.shape) - 1)
    middle = np.array(correlation.shape) // 2
    near = correlation[tuple(slice(m - r, m + r + 1) for m, r in zip(middle, reach, strict=True))]
    return float((weights * fftconvolve(weights, near, mode="same")).sum())


def _windows(cube: Cube, problem, weights: np.ndarray, redshift: float) -> np.ndarray:
    """Apply the weights to every window without lines, (n_windows, n_parameters)."""
    n_wave = problem.index.size
    rest = np.array(list(LINES.values())) * (1.0 + redshift)
    found = []
    used = np.broadcast_to(problem.used, (n_wave, *cube.shape))
    ramp = np.stack([np.ones(n_wave), np.linspace(-0.5, 0.5, n_wave)], axis=1)
    flat = ramp @ np.linalg.pinv(ramp)
    for first in range(0, cube.wave_um.size - n_wave, n_wave):
        part = slice(first, first + n_wave)
        wave = cube.wave_um[part]
        if np.any((wave[:, None] / rest - 1.0 < CLEAR_KMS / C_KMS) & (wave[:, None] / rest - 1.0 > -CLEAR_KMS / C_KMS)):
            continue
        data, error = cube.data[part], cube.err[part]
        known = np.isfinite(data) & np.isfinite(error) & (error > 0)
        if known[used].mean() < 0.97:
            continue
        noise = np.where(known, data, 0.0)
        noise = noise - np.einsum("ij,jyx->iyx", flat, noise)
        noise = np.where(known, noise / np.where(known, error, 1.0), 0.0)
        found.append([(w * noise).sum() for w in weights])
    return np.array(found)


log = logging.getLogger(__name__)

REACH_KMS = 400.0
LEAST_SNR = 5.0
LEAST_SPAXELS = 20
LEAST_MODEL_SNR = 2.0
"""A spaxel takes part where the smooth light, not its own noise, promises so much."""
AROUND_KMS = 3500.0


STEPS_PER_TIME = 50
"""As many autocorrelation times a chain should have for the time itself to be known (Foreman-Mackey et al. 2013)."""


@dataclass(frozen=True)
class Convergence:
    """How long a chain of samples is, in units of its own memory.

    Attributes
    ----------
    time : float
        Integrated autocorrelation time of the parameter that has the longest, in steps; an underestimate where the
        chain is short.
    steps, walkers : int
        Of the chain, burn-in left out.
    """

    time: float
    steps: int
    walkers: int

    @classmethod
    def of(cls, chain: np.ndarray) -> Convergence:
        """Measure a chain, (n_steps, n_walkers, n_parameters)."""
        from emcee.autocorr import integrated_time

        times = integrated_time(chain, tol=0, quiet=True)
        return cls(float(np.max(times)), *chain.shape[:2])

    @property
    def effective(self) -> float:
        """Number of independent samples that know as much as the chain."""
        return self.steps * self.walkers / self.time

    @property
    def told(self) -> str:
        """Both numbers in a sentence, with a warning where the chain has fewer than `STEPS_PER_TIME` times."""
        times = self.steps / self.time
        text = f"{self.effective:.0f} independent samples, {times:.1f} autocorrelation times of {self.time:.0f} steps"
        if times < STEPS_PER_TIME:
            percent = 100.0 * (2.0 * self.effective) ** -0.5
            text = f"at most {text}, a lower limit below {STEPS_PER_TIME}; errors are known to {percent:.0f}% at best"
        return text


@dataclass(frozen=True, eq=False)
class DiscFit:
    """A disc that was fitted to a cube.

    Attributes
    ----------
    names : tuple of str
        The free parameters: ``pa_deg``, ``v_sin_i`` (km/s), ``r_turn`` (arcsec), ``sigma0`` (km/s), ``systemic``
        (km/s, relative to the redshift given) and perhaps ``x0``, ``y0`` (arcsec east and north).
    best, error : dict of str to float
        Best fit, and half the central 68% of the samples (of the covariance, unless sampled).
    covariance : numpy.ndarray, shape (n, n)
        At the best fit, `scale` included; the third parameter is the logarithm of r_turn.
    scale : float
        By what chi square was divided.
    samples : numpy.ndarray or None, shape (n_samples, n)
        Of the posterior, in the order of `names`.
    disc : Disc
        The best fit.
    redshift : float
        What velocities refer to.
    maps : dict of str to numpy.ndarray
        ``velocity`` and ``sigma``: moments of the gas before the spectrograph, weighted by light within
        each spaxel's PSF; ``observed_velocity``, ``observed_velocity_error``, ``observed_sigma``,
        ``observed_sigma_error``, ``flux``, ``snr``: of the line fit; ``used``: the spaxels fitted. Shape (n_y, n_x).
    wave_um : numpy.ndarray, shape (n_wave,)
        Of the cubes below, um.
    data, model : numpy.ndarray, shape (n_wave, n_y, n_x)
        What was fitted, continuum removed, and the model; NaN outside the spaxels used. MJy/sr.
    chi2, freedom : float
        Of the whitened residuals, not scaled.
    convergence : Convergence or None
        Of the samples; None without any.
    """

    names: tuple[str, ...]
    best: dict[str, float]
    error: dict[str, float]
    covariance: np.ndarray
    scale: float
    samples: np.ndarray | None
    disc: Disc
    redshift: float
    maps: dict[str, np.ndarray] = field(repr=False)
    wave_um: np.ndarray = field(repr=False)
    data: np.ndarray = field(repr=False)
    model: np.ndarray = field(repr=False)
    chi2: float = np.nan
    freedom: float = np.nan
    convergence: Convergence | None = None

    def draws(self, n: int = 400, seed: int = 0) -> np.ndarray:
        """Sets of parameters from the posterior (or from the covariance), (n, n_names)."""
        rng = np.random.default_rng(seed)
        if self.samples is not None:
            return self.samples[rng.integers(0, len(self.samples), n)]
        centre = np.array([self.best[name] for name in self.names])
        centre[2] = np.log(centre[2])
        drawn = rng.multivariate_normal(centre, self.covariance, n)
        drawn[:, 2] = np.exp(drawn[:, 2])
        return drawn

    def rotation(self, radius_arcsec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rotation curve times sin(inclination): median and central 68%.

        Parameters
        ----------
        radius_arcsec : array-like
            Radii in the plane, arcsec.

        Returns
        -------
        median, low, high : numpy.ndarray
            km/s.
        """
        curves = [Disc(0.0, 0.0, v, r, curve=self.disc.curve).rotation(radius_arcsec) for v, r in self.draws()[:, 1:3]]
        return tuple(np.percentile(curves, (50.0, 16.0, 84.0), axis=0))

    def v_over_sigma(self, radius_arcsec: float | None = None) -> tuple[float, float]:
        """V / sigma0, the inclination taken out of V (given, and so not in the error).

        Parameters
        ----------
        radius_arcsec : float, optional
            Radius in the plane at which V is taken, arcsec; by default V is the asymptote of the curve.

        Returns
        -------
        ratio, error : float
        """
        drawn = self.draws()
        speed = drawn[:, 1]
        if radius_arcsec is not None:
            curves = (Disc(0.0, 0.0, v, r, curve=self.disc.curve) for v, r in drawn[:, 1:3])
            speed = np.array([float(disc.rotation(radius_arcsec)) for disc in curves])
        ratio = speed / drawn[:, 3] / max(np.sin(np.radians(self.disc.inclination_deg)), 1e-6)
        low, middle, high = np.percentile(ratio, (16.0, 50.0, 84.0))
        return float(middle), float(0.5 * (high - low))


def fit_disc(
    cube: Cube,
    redshift: float,
    *,
    ra: float,
    dec: float,
    inclination_deg: float,
    line: str = "Ha",
    pa_deg: float | None = None,
    free_centre: bool = False,
    centre_covariance: np.ndarray | None = None,
    curve: str = "arctan",
    spread: LineSpread | None = None,
    slit_shift: int = SLIT_SIGN,
    columns: bool = True,
    iterations: int = ITERATIONS,
    sample: bool = True,
    walkers: int = 16,
    steps: int = 240,
    seed: int = 0,
) -> DiscFit:
    """Fit a rotating disc to a cube.

    Parameters
    ----------
    cube : Cube
        Of the drizzle builder, with errors.
    redshift : float
        What velocities refer to.
    ra, dec : float
        Centre of the disc (or a first guess), ICRS, deg.
    inclination_deg : float
        Taken as known.
    line : str
        Key of `msa3d.galaxy.lines.LINES`.
    pa_deg : float, optional
        First guess; without it four are tried.
    free_centre : bool
        Fit the centre too.
    centre_covariance : ndarray, shape (2, 2), optional
        Of a centre that is not free, to the east and to the north, arcsec squared: it adds to all errors.
    curve : str
        ``arctan`` or ``freeman``, see `Disc`.
    spread : LineSpread, optional
        Line-spread function; without it that of the header.
    slit_shift : int
        As in `LineModel`: 0 forgets that light beside the slit's middle is shifted in wavelength.
    columns : bool
        As in `LineModel`.
    iterations : int
        As in `deconvolve`: 0 takes the light for an exponential disc.
    sample : bool
        Sample the posterior with emcee, for errors.
    walkers, steps, seed : int
        Of emcee; a third of the steps is discarded as burn-in.

    Returns
    -------
    DiscFit
        Best fit, errors, maps.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube has no errors, or fewer than 20 spaxels show the line.
    """
    if cube.err is None:
        raise ProductError(f"{cube.name} has no errors: a disc is fitted to cubes of the drizzle builder")
    work = _Work(cube, redshift, line, spread)
    model = LineModel(cube, work.wave_um, work.line_um, ra, dec, spread=spread, slit_shift=slit_shift, columns=columns)
    settings = {
        "names": ("pa_deg", "v_sin_i", "r_turn", "sigma0", "systemic", *(("x0", "y0") if free_centre else ())),
        "inclination_deg": inclination_deg,
        "curve": curve,
    }
    lines = work.lines()
    with np.errstate(invalid="ignore"):
        used = lines.reliable(LEAST_SNR, line)
    if used.sum() < LEAST_SPAXELS:
        raise ProductError(f"{cube.name}: {used.sum()} spaxels show {line} at {LEAST_SNR} sigma; check the redshift")
    light = deconvolve(model, lines.flux[line], lines.flux_error[line], iterations=iterations)
    problem = Problem(cube, model, work.index, used, settings | {"light": light})
    vector = _optimise(problem, lines, used, pa_deg)
    for _ in range(2):
        scale, _ = noise_scale(cube, problem, vector, redshift)
        problem = _refined(problem, vector, work, settings, iterations, scale)
        vector = _least_squares(problem, vector).x
    scale, covariance = noise_scale(cube, problem, vector, redshift)
    samples = convergence = None
    if sample:
        chain = _sample(problem, vector, covariance, scale, walkers, steps, seed)
        convergence, samples = Convergence.of(chain), chain.reshape(-1, vector.size)
    if centre_covariance is not None and not free_centre:
        response = response_to_centre(problem, vector)
        covariance = covariance + response @ centre_covariance @ response.T
        if samples is not None:
            moved = np.random.default_rng(seed).multivariate_normal(np.zeros(2), centre_covariance, len(samples))
            change = moved @ response.T
            samples = np.where(np.arange(vector.size) == 2, samples * np.exp(change), samples + change)
    found = _result(cube, problem, vector, covariance, scale, samples, lines, redshift, line)
    return replace(found, convergence=convergence)


class _Work:
    """The part of a cube around a line, and line fits of it."""

    def __init__(self, cube: Cube, redshift: float, line: str, spread: LineSpread | None):
        self.line_um = LINES[line] * (1.0 + redshift)
        away = (cube.wave_um / self.line_um - 1.0) * C_KMS
        self.cube, self.redshift, self.line, self.spread = cube, redshift, line, spread
        self.index = np.flatnonzero(np.abs(away) <= REACH_KMS)
        self.wave_um = cube.wave_um[self.index]
        self.part = cube.between(*(self.line_um * (1.0 + np.array([-1.0, 1.0]) * AROUND_KMS / C_KMS)))

    def lines(self, velocity=None, sigma=None):
        """Fit the line in every spaxel, with velocity and dispersion if they are known."""
        names = (self.line, "[NII]6583") if self.line == "Ha" else (self.line,)
        return fit_lines(self.part, self.redshift, names=names, spread=self.spread, velocity=velocity, sigma=sigma)


def _refined(problem: Problem, vector: np.ndarray, work: _Work, settings: dict, iterations: int, scale: float):
    """Measure the line anew where a disc says it must be: unbiased, and so in faint spaxels too."""
    disc, model = problem.disc(vector), problem.model
    moments = _moments(problem, disc, vector[3])
    lines = work.lines(moments["velocity"], moments["sigma"])
    flux, error = lines.flux[work.line], lines.flux_error[work.line]
    place = {"pa_deg": disc.pa_deg, "inclination_deg": disc.inclination_deg, "x0": disc.x0, "y0": disc.y0}
    # Light that followed the noise would shift the lines as the noise does.
    light = deconvolve(model, flux, error * np.sqrt(scale), iterations=iterations, **place)
    with np.errstate(invalid="ignore"):
        used = np.isfinite(flux) & (model.flux(light) > LEAST_MODEL_SNR * error)
    return Problem(work.cube, model, work.index, used, settings | {"light": light})


def _bounds(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array([LIMITS["log_r_turn" if n == "r_turn" else n] for n in problem.names]).T)


def _least_squares(problem: Problem, start: np.ndarray):
    low, high = _bounds(problem)
    start = np.clip(start, low + 1e-6, high - 1e-6)
    # Soft L1: a spaxel that a cosmic ray has spoilt does not rule the fit.
    return least_squares(
        problem.residuals,
        start,
        jac=problem.jacobian,
        bounds=(low, high),
        x_scale="jac",
        loss="soft_l1",
        f_scale=3.0,
        xtol=1e-5,
        ftol=1e-7,
        max_nfev=30,
    )


def _optimise(problem: Problem, lines, used: np.ndarray, pa_deg: float | None) -> np.ndarray:
    """Best of several starts, which differ in position angle."""
    velocity = lines.velocity[used]
    weight = 1.0 / np.maximum(lines.velocity_error[used], 1.0) ** 2
    systemic = float(np.average(velocity, weights=weight))
    spread = float(np.sqrt(np.average((velocity - systemic) ** 2, weights=weight)))
    sigma = float(np.clip(np.average(lines.sigma[used], weights=weight), 10.0, 150.0))
    best = None
    for angle in (pa_deg,) if pa_deg is not None else (0.0, 90.0, 180.0, 270.0):
        start = np.array([angle, 2.0 * spread, np.log(0.2), sigma, systemic] + [0.0] * (len(problem.names) - 5))
        found = _least_squares(problem, start)
        if best is None or found.cost < best.cost:
            best = found
    log.info("disc: chi2 %.1f for %.0f degrees of freedom", 2.0 * best.cost, problem.freedom)
    return best.x


def _sample(problem, vector, covariance, scale, walkers, steps, seed) -> np.ndarray:
    """Sample the posterior (uniform in all and in log r_turn, chi square over the scale): (steps, walkers, n)."""
    import emcee

    low, high = _bounds(problem)
    low[0], high[0] = vector[0] - 180.0, vector[0] + 180.0

    def log_probability(trial):
        if np.any(trial < low) or np.any(trial > high):
            return -np.inf
        return -0.5 * float((problem.residuals(trial) ** 2).sum()) / scale

    rng = np.random.default_rng(seed)
    width = np.minimum(np.sqrt(np.diag(covariance)), 0.1 * (high - low))
    start = vector + 0.5 * width * rng.standard_normal((walkers, vector.size))
    start = np.clip(start, low + 1e-6, high - 1e-6)
    sampler = emcee.EnsembleSampler(walkers, vector.size, log_probability)
    sampler.random_state = np.random.RandomState(seed).get_state()
    sampler.run_mcmc(start, steps)
    chain = sampler.get_chain(discard=steps // 3)
    chain[..., 2] = np.exp(chain[..., 2])
    return chain


def _result(cube, problem, vector, covariance, scale, samples, lines, redshift, line) -> DiscFit:
    best = dict(zip(problem.names, map(float, vector), strict=True))
    error = dict(zip(problem.names, np.sqrt(np.diag(covariance)), strict=True))
    best["r_turn"] = float(np.exp(vector[2]))
    error["r_turn"] *= best["r_turn"]
    if samples is not None:
        low, high = np.percentile(samples, (15.865, 84.135), axis=0)
        error = dict(zip(problem.names, 0.5 * (high - low), strict=True))
    best["pa_deg"] = (best["pa_deg"] + 180.0) % 360.0 - 180.0
    seen, bright = problem.amplitudes(vector)
    used = problem.used
    shapes = problem.shapes(vector) * bright[:, None]
    # Continuum of each spaxel: straight line through what the model leaves, weighted.
    left = problem.values - shapes
    ramp = np.stack([np.ones(left.shape[1]), np.linspace(-0.5, 0.5, left.shape[1])], axis=1)
    design = ramp[None] * problem.weight[..., None]
    normal = design.transpose(0, 2, 1) @ design
    line_fit = np.linalg.solve(normal, design.transpose(0, 2, 1) @ (problem.weight * left)[..., None])
    data, model = (np.full((left.shape[1], *used.shape), np.nan) for _ in range(2))
    data[:, used] = np.where(problem.weight > 0, problem.values - (ramp @ line_fit)[..., 0], np.nan).T
    model[:, used] = shapes.T
    disc = problem.disc(vector)
    maps = _moments(problem, disc, vector[3])
    maps |= {"observed_velocity": lines.velocity, "observed_velocity_error": lines.velocity_error}
    maps |= {"observed_sigma": lines.sigma, "observed_sigma_error": lines.sigma_error}
    maps |= {"flux": lines.flux[line], "snr": lines.snr(line), "used": used}
    chi2 = float(((problem.target - bright[:, None] * seen) ** 2).sum())
    return DiscFit(
        problem.names,
        best,
        {k: float(v) for k, v in error.items()},
        covariance,
        scale,
        samples,
        disc,
        redshift,
        maps,
        cube.wave_um[problem.index],
        data,
        model,
        chi2,
        problem.freedom,
    )


def _moments(problem: Problem, disc: Disc, sigma0: float) -> dict[str, np.ndarray]:
    """Velocity and dispersion as a line fit sees them, slit shift included, the spectrograph's width not."""
    model = problem.model
    velocity = disc.velocity(model.east, model.north)
    total = model.flux(problem.light)
    with np.errstate(invalid="ignore", divide="ignore"):
        first = model.flux(problem.light * velocity) / total
        second = model.flux(problem.light * velocity**2) / total
        shift = model.slit_velocity(problem.light) / total
        # Where velocity changes across the slit, its gradient adds to the slit's own image in wavelength, or undoes it.
        joint = model.slit_velocity(problem.light * velocity) / total - first * shift
    spread = np.sqrt(np.maximum(second - first**2 + 2.0 * joint + sigma0**2, SIGMA_LIMITS[0] ** 2))
    return {"velocity": first + shift, "slit_shift": shift, "sigma": spread}
