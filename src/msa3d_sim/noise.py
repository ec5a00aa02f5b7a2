"""From noiseless count rates to the planes of a rate image, flaws included.

Every plane tells of the noise that was really injected: VAR_POISSON and VAR_RNOISE are the variances of the
draws, ERR is the square root of their sum, DQ flags what was spoilt on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from stdatamodels.jwst.datamodels import dqflags

from msa3d_sim.instrument import GROUP_SECONDS, exposure_seconds
from msa3d_sim.throughput import GAIN_E_PER_DN

GROUP_READ_NOISE_DN = 7.0
"""Read noise of one NRSIRS2 group (DN); the slope of 16 groups then has about 6 e- of it (Birkmann+ 2022)."""
DARK_RATE_DN_S = 0.0085
"""Dark current (DN/s): subtracted in stage 1, its shot noise stays."""
BANDING_FRACTION = 0.2
"""Standard deviation of the column offsets that 1/f noise leaves, over the read noise of the slope."""
_BAD_PIXEL_FRACTION = 0.003
_JUMP_FRACTION = 0.002
"""Pixels whose ramp lost groups to a cosmic ray: flagged, noisier, unbiased."""
_RESIDUAL_HITS = 700
"""Cosmic-ray events a detector and exposure that stage 1 missed."""
BANDING_LONGEST_COLUMNS = 256
"""Slower drifts are taken out by the reference pixels that NRSIRS2 interleaves (Rauscher et al. 2017)."""
_SATURATED_SPOTS = 12
_FLAGS = dqflags.pixel


@dataclass
class RatePlanes:
    """Planes of one rate image, (row, column); DN/s, (DN/s)**2 and jwst flags. NaN where the first group saturated."""

    sci: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray


def read_variance(groups: int) -> float:
    """Variance, (DN/s)**2, of the least-squares slope of equally spaced groups from read noise alone.

    Source: e.g. Robberto 2009, JWST-STScI-001853.
    """
    return 12.0 * GROUP_READ_NOISE_DN**2 / (groups * (groups**2 - 1) * GROUP_SECONDS**2)


def spoil(ideal: np.ndarray, detector: str, exposure_index: int, simulation) -> RatePlanes:
    """Add noise and flaws to a noiseless image (DN/s) of a detector; the exposure's index seeds the draws."""
    side = {"NRS1": 1, "NRS2": 2}[detector]
    rng = np.random.default_rng([simulation.seed, 2, side, exposure_index])
    seconds = exposure_seconds(simulation.groups)
    dq = np.zeros(ideal.shape, np.uint32)
    poisson = (np.maximum(ideal, 0.0) + DARK_RATE_DN_S) / (GAIN_E_PER_DN * seconds)
    read = np.full(ideal.shape, read_variance(simulation.groups))
    sci = ideal.astype(np.float64)
    if simulation.cosmic_rays:
        _lose_groups(dq, poisson, read, rng)
    if simulation.noise:
        sci += rng.normal(size=ideal.shape) * np.sqrt(poisson + read)
        if simulation.banding:
            sci += _banding(rng, read)
    if simulation.cosmic_rays:
        _hit(sci, np.sqrt(np.median(poisson + read)), rng)
    if simulation.bad_pixels:
        _break_pixels(sci, dq, np.random.default_rng([simulation.seed, 3, side]))
    if simulation.saturation:
        _saturate(sci, dq, rng)
    return RatePlanes(
        sci.astype(np.float32),
        np.sqrt(poisson + read).astype(np.float32),
        dq,
        poisson.astype(np.float32),
        read.astype(np.float32),
    )


def _banding(rng, read: np.ndarray) -> np.ndarray:
    """Offsets of whole columns with a 1/f spectrum; their variance is added to ``read`` in place."""
    columns = read.shape[1]
    frequency = np.fft.rfftfreq(columns)
    amplitude = np.zeros_like(frequency)
    kept = frequency > 1.0 / BANDING_LONGEST_COLUMNS
    amplitude[kept] = frequency[kept] ** -0.5
    phases = rng.normal(size=frequency.size) + 1j * rng.normal(size=frequency.size)
    series = np.fft.irfft(phases * amplitude, columns)
    sigma = BANDING_FRACTION * np.sqrt(np.median(read))
    read += sigma**2
    return (series * (sigma / series.std()))[None, :]


def _lose_groups(dq, poisson, read, rng) -> None:
    """Ramps cut short by flagged jumps: fewer groups, larger variances."""
    hit = rng.random(dq.shape) < _JUMP_FRACTION
    kept = rng.uniform(0.4, 0.95, size=int(hit.sum()))
    dq[hit] |= _FLAGS["JUMP_DET"]
    poisson[hit] /= kept
    read[hit] /= kept**3


def _hit(sci, sigma: float, rng) -> None:
    """Cosmic rays that stage 1 missed: short tracks of positive signal."""
    rows, columns = rng.integers(1, sci.shape[0] - 1, size=(2, _RESIDUAL_HITS))
    peaks = sigma * (6.0 + rng.exponential(20.0, _RESIDUAL_HITS))
    steps = np.array([(0, 1), (1, 0), (1, 1), (1, -1)])[rng.integers(0, 4, _RESIDUAL_HITS)]
    lengths = rng.integers(1, 5, _RESIDUAL_HITS)
    for k in range(4):
        on = lengths > k
        r = np.clip(rows[on] + k * steps[on, 0], 0, sci.shape[0] - 1)
        c = np.clip(columns[on] + k * steps[on, 1], 0, sci.shape[1] - 1)
        sci[r, c] += peaks[on] * 0.6**k


def _break_pixels(sci, dq, rng) -> None:
    """Dead and hot pixels, the same in every exposure; dead pixels come in small clusters too."""
    bad = rng.random(dq.shape)
    dead = bad < 0.4 * _BAD_PIXEL_FRACTION
    hot = (bad >= 0.4 * _BAD_PIXEL_FRACTION) & (bad < _BAD_PIXEL_FRACTION)
    dq[dead] |= _FLAGS["DO_NOT_USE"] | _FLAGS["DEAD"]
    dq[hot] |= _FLAGS["DO_NOT_USE"] | _FLAGS["HOT"]
    sci[dead] = 0.0
    sci[hot] += rng.lognormal(-1.0, 1.5, size=int(hot.sum()))


def _saturate(sci, dq, rng) -> None:
    """A few spots saturated in the first group: no slope at all."""
    rows, columns = rng.integers(2, sci.shape[0] - 2, size=(2, _SATURATED_SPOTS))
    for row, column in zip(rows, columns, strict=True):
        spot = (slice(row - 1, row + 2), slice(column - 1, column + 2))
        sci[spot] = np.nan
        dq[spot] |= _FLAGS["SATURATED"] | _FLAGS["DO_NOT_USE"]
