"""Gradients of line ratios are unbiased, have the errors that they say, and are nearly as precise as the data allow.

The Cramer-Rao bound is that of all voxels around Ha and [NII] together with known velocities, the
continuum of every spaxel free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.linalg import toeplitz

from msa3d.constants import LINES
from msa3d.cubes.cube import Cube
from msa3d.galaxy import metals
from msa3d.galaxy.discfit import fit_disc
from msa3d.galaxy.fit import REACH_KMS, fit_lines
from msa3d.galaxy.lines import windows
from msa3d.galaxy.noise import blank_images
from msa3d.galaxy.profiles import fit_exponential

from ..fixtures import galaxies
from ..fixtures.cubes import DEC, RA, REDSHIFT, SPREAD, empty, wavelengths
from ..fixtures.galaxies import DISC, GEOMETRY, SCALES, TOTALS

N, NOISE, SEEDS = 21, 0.25, 40
NAMES = ("Ha", "[NII]6583")
SLIT_PA, SLIT_ARCSEC = -13.0, 0.2
TRUE = -0.57 / np.log(10) / GEOMETRY.kpc_per_arcsec * (1 / SCALES["[NII]6583"] - 1 / SCALES["Ha"])
"""dex/kpc."""


def light(rates: dict[str, float]) -> Cube:
    """Ha and [NII] without noise; the fluxes stay."""
    cube = empty(N, wavelengths(1.34, 1.42), drizzled=True)
    cube.header["SPECPIX"], cube.header["GRATING"] = 2.36e-4, "G140H"
    for name, rate in rates.items():
        galaxies.add(cube, name, 1.0 / rate, TOTALS[name])
    return cube


def autocorrelation(kernel: np.ndarray, n: int) -> np.ndarray:
    """Covariance matrix of white noise convolved with a kernel, unit variance."""
    row = np.convolve(kernel, kernel[::-1])[kernel.size - 1 :] / np.sum(kernel**2)
    return toeplitz(np.pad(row, (0, n - row.size)))


def slit_steps(cube: Cube) -> np.ndarray:
    """Number of the step of the slit that saw each spaxel."""
    east, north = cube.offsets(RA, DEC)
    angle = np.radians(SLIT_PA)
    step = np.floor((east * np.cos(angle) - north * np.sin(angle)) / SLIT_ARCSEC).astype(int)
    return step - step.min()


@dataclass
class Setting:
    """A galaxy, the covariance of its noise, and what is known of its velocities."""

    cube: Cube
    part: float
    velocity: np.ndarray
    sigma: np.ndarray

    @property
    def spatial(self) -> np.ndarray:
        """Covariance of the spaxels at one wavelength, unit variance."""
        one = autocorrelation(galaxies.ALONG_SKY, N)
        step = slit_steps(self.cube).ravel()
        return (1 - self.part) * np.kron(one, one) + self.part * (step[:, None] == step)

    def noisy(self, seed: int) -> Cube:
        """A realisation; what steps of the slit share has the same correlation along wavelength as the rest."""
        cube = galaxies.noisy(self.cube, NOISE, seed)
        steps = slit_steps(cube)
        white = np.random.default_rng(seed).normal(size=(cube.wave_um.size + 1, steps.max() + 1))
        first, second = galaxies.ALONG_WAVE / np.hypot(*galaxies.ALONG_WAVE)
        shared = NOISE * (first * white[1:] + second * white[:-1])[:, steps]
        own = cube.data - self.cube.data
        return replace(cube, data=self.cube.data + np.sqrt(1 - self.part) * own + np.sqrt(self.part) * shared)


@pytest.fixture(scope="module")
def known():
    """The galaxy, and velocities and dispersions by a fit to it in little noise."""
    cube = light({name: 1.0 / SCALES[name] for name in NAMES})
    quiet = replace(galaxies.noisy(cube, 1e-3, 1))
    fit = fit_disc(
        quiet, REDSHIFT, ra=RA, dec=DEC, inclination_deg=35.0, pa_deg=DISC.pa_deg, spread=SPREAD, sample=False
    )
    return cube, fit.maps["velocity"], fit.maps["sigma"]


@pytest.fixture(scope="module", params=[0.0, 0.15])
def setting(request, known) -> Setting:
    return Setting(known[0], request.param, *known[1:])


def bound(setting: Setting) -> float:
    """Least error that an unbiased estimate of the metallicity gradient can have, dex/kpc."""
    rates = {name: 1.0 / SCALES[name] for name in NAMES}
    ((index, _),) = windows(setting.cube.wave_um, REDSHIFT, NAMES, REACH_KMS)
    columns = []
    for name in NAMES:
        high, low = (light(rates | {name: rates[name] * (1 + step)}).data[index] for step in (0.01, -0.01))
        columns.append((high - low) / (0.02 * rates[name]))
    for name in NAMES:
        columns.append(light({name: rates[name]}).data[index] / TOTALS[name] * 1e-17)
    design = np.stack([c.reshape(index.size, -1) for c in columns])
    inverse = np.linalg.inv(autocorrelation(np.array([1.0, 0.14]), index.size))
    ramp = np.stack([np.ones(index.size), np.linspace(-1, 1, index.size)], axis=1)
    inverse -= inverse @ ramp @ np.linalg.solve(ramp.T @ inverse @ ramp, ramp.T @ inverse)
    across = np.linalg.solve(setting.spatial, design.reshape(-1, N * N).T).T.reshape(design.shape)
    fisher = np.einsum("iws,wv,jvs->ij", design, inverse, across, optimize=True) / NOISE**2
    covariance = np.linalg.inv(fisher)
    per = 0.57 / np.log(10) / GEOMETRY.kpc_per_arcsec
    return per * float(np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))


def measured(setting: Setting, seed: int) -> tuple[float, float]:
    """Metallicity gradient of a realisation, and its error, as `msa3d.galaxy.measure` fits them."""
    cube = setting.noisy(seed)
    lines = fit_lines(cube, REDSHIFT, names=NAMES, spread=SPREAD, velocity=setting.velocity, sigma=setting.sigma)
    discs = {
        name: fit_exponential(
            lines.flux[name], cube, GEOMETRY, LINES[name] * (1 + REDSHIFT),
            error=lines.flux_error[name], blanks=blank_images(cube, REDSHIFT, lines, name, spread=SPREAD, number=40),
        )
        for name in NAMES
    }  # fmt: skip
    found = metals.gradient(discs, GEOMETRY)
    return found.slope, found.slope_error


@pytest.mark.slow
def test_gradients_come_near_the_cramer_rao_bound(setting):
    slopes, errors = np.array([measured(setting, seed) for seed in range(SEEDS)]).T
    pulls = (slopes - TRUE) / errors
    few = 3.0 / np.sqrt(2 * SEEDS)
    assert abs(pulls.mean()) < 3.0 / np.sqrt(SEEDS)
    assert pulls.std(ddof=1) == pytest.approx(1.0, abs=few)
    # Errors are never below those of independent spaxels nor those of images of noise: the larger of two that scatter.
    least = bound(setting)
    assert np.median(errors) < 1.2 * least
    assert slopes.std(ddof=1) < 1.1 * least * (1.0 + few)
