"""Whether errors mean what they say: the same galaxy in many cubes of different noise, measured in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft

from msa3d.cubes.cube import Cube
from msa3d.errors import ProductError
from msa3d.galaxy.discfit import fit_disc


@dataclass(frozen=True, eq=False)
class Pulls:
    """Pulls of every parameter over realisations of the noise.

    Attributes
    ----------
    names : tuple of str
        The parameters.
    pulls : numpy.ndarray, shape (n, n_names)
        (recovered - injected) / error.
    """

    names: tuple[str, ...]
    pulls: np.ndarray

    @property
    def mean(self) -> dict[str, float]:
        """Mean pull of each parameter; 0 +- n^-1/2 is wanted."""
        return dict(zip(self.names, map(float, self.pulls.mean(axis=0)), strict=True))

    @property
    def width(self) -> dict[str, float]:
        """Standard deviation of the pulls of each parameter; 1 +- (2n)^-1/2 is wanted."""
        return dict(zip(self.names, map(float, self.pulls.std(axis=0, ddof=1)), strict=True))


def realisations(
    make: Callable[[int], Cube], truth: dict[str, float], redshift: float, *, n: int = 20, **options
) -> Pulls:
    """Fit a disc in many cubes.

    Parameters
    ----------
    make : callable
        Gives the cube of a seed.
    truth : dict of str to float
        What was injected: ``sigma0``, ``v_sin_i`` ...; these parameters are compared.
    redshift : float
        As for `fit_disc`.
    n : int
        Number of realisations, seeds 0 to n - 1.
    **options
        For `fit_disc`; ``sample`` is off unless asked for.

    Returns
    -------
    Pulls
        Of the parameters in `truth`.
    """
    options = {"sample": False} | options
    rows = []
    for seed in range(n):
        fit = fit_disc(make(seed), redshift, **options)
        rows.append([(fit.best[name] - value) / fit.error[name] for name, value in truth.items()])
    return Pulls(tuple(truth), np.array(rows))


def noise_like(cube: Cube, seed: int) -> np.ndarray:
    """Draw noise with the errors of a cube and with the correlation that its voxels have.

    White noise is given the power spectrum of the cube's mean correlation, and then each voxel's own error. What
    the errors do not know of (banding, what is left of cosmic rays) is not in it.

    Parameters
    ----------
    cube : Cube
        With errors; neighbours are independent if it has no correlation.
    seed : int
        Another seed, other noise.

    Returns
    -------
    numpy.ndarray, shape (n_wave, n_y, n_x)
        MJy/sr; NaN where the cube has no error.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube has no errors.
    """
    if cube.err is None:
        raise ProductError(f"{cube.name} has no errors: no noise can be drawn from it")
    correlation = np.ones((1, 1, 1)) if cube.correlation is None else cube.correlation
    # Room around the cube, so that its two ends share nothing.
    size = [fft.next_fast_len(n + m, real=True) for n, m in zip(cube.err.shape, correlation.shape, strict=True)]
    kernel = np.zeros(size)
    kernel[tuple(slice(0, m) for m in correlation.shape)] = correlation
    kernel = np.roll(kernel, [-(m // 2) for m in correlation.shape], axis=(0, 1, 2))
    # A mean of correlations of different places need not be one itself: negative power is none.
    power = np.maximum(fft.rfftn(kernel).real, 0.0)
    # Of the whole spectrum rather than of the half that a real transform holds.
    power /= fft.irfftn(power, s=size)[0, 0, 0]
    white = np.random.default_rng(seed).standard_normal(size)
    drawn = fft.irfftn(fft.rfftn(white) * np.sqrt(power), s=size)
    return drawn[tuple(slice(0, n) for n in cube.err.shape)] * cube.err


def with_noise(cube: Cube, seed: int, times: float = 1.0) -> Cube:
    """Add noise to a noiseless cube that knows how noisy it would be.

    Parameters
    ----------
    cube : Cube
        Noiseless data, with errors.
    seed : int
        As in `noise_like`.
    times : float
        Noise and errors are so many times those of the cube: a longer or a shorter exposure.

    Returns
    -------
    Cube
        The same with noise.
    """
    noise = noise_like(cube, seed)
    return replace(cube, data=cube.data + times * noise, err=times * cube.err)
