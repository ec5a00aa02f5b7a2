"""Whether errors mean what they say: a disc put into many cubes of different noise, and fitted in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from msa3d.cube import Cube
from msa3d.science.kinematics import fit_disc


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
        What was put in: ``sigma0``, ``v_sin_i`` ...; these parameters are compared.
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
