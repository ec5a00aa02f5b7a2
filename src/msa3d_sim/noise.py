"""From noiseless count rates to the planes of a rate image, flaws included.

Every plane tells of the noise that was really injected: VAR_POISSON and VAR_RNOISE are the variances of the
draws, ERR is the square root of their sum, DQ flags what was spoilt on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft
from stdatamodels.jwst.datamodels import dqflags

from msa3d_sim.instrument import GROUP_SECONDS, exposure_seconds
from msa3d_sim.throughput import GAIN_E_PER_DN

GROUP_READ_NOISE_DN = 7.0
"""Read noise of one NRSIRS2 group (DN); the slope of 16 groups then has about 6 e- of it (Birkmann+ 2022)."""
DARK_RATE_DN_S = 0.0085
"""Dark current (DN/s): subtracted in stage 1, its shot noise stays."""
BANDING_FRACTION = 0.2
"""Standard deviation of the column offsets that 1/f noise leaves, over the read noise of the slope. Ours: published are
that faint vertical bands remain behind NRSIRS2, and how they arise (Rauscher 2024, PASP 136, 015001)."""
OWN_BANDING = 1.0 / 3.0
"""1/f noise that each output has for itself, over what all four have in common: 1 and 3 e- in the noise model that was
made for NIRSpec (Rauscher 2015, arXiv:1509.06264)."""
OUTPUTS = 4
"""Outputs of a detector, each of which reads a quarter of every column, every second one in the opposite direction."""
NOISE_SCATTER = 0.1
"""Scatter of the logarithm of the pixels' read noise. Ours."""
NOISY_FRACTION = 0.01
"""Pixels of larger read noise, always the same ones, as random telegraph noise has it (Rauscher et al. 2007,
arXiv:0706.2344): their noise exceeds that of others by an exponentially distributed factor of mean 1. Ours in size."""
OPEN_FRACTION = 2e-4
"""Pixels without contact to the readout: they lose `OPEN_LOSS` of their signal to the four neighbours. Ours in size."""
OPEN_LOSS = 0.8
_BAD_PIXEL_FRACTION = 0.003
"""Dead (0.4 of them) and hot pixels. Ours."""
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
    if simulation.noisy_pixels:
        read *= _noisy_pixels(simulation.seed, side, ideal.shape)
    sci = ideal.astype(np.float64)
    if simulation.cosmic_rays:
        _lose_groups(dq, poisson, read, rng)
    if simulation.noise:
        sci += rng.normal(size=ideal.shape) * np.sqrt(poisson + read)
        if simulation.banding:
            drift = banding(rng, read, along=simulation.banding_along)
            sci += drift
            read += drift.var()
    if simulation.cosmic_rays:
        _hit(sci, np.sqrt(np.median(poisson + read)), rng)
    if simulation.bad_pixels:
        _break_pixels(sci, dq, np.random.default_rng([simulation.seed, 3, side]), unconnected=simulation.open_pixels)
    if simulation.saturation:
        _saturate(sci, dq, rng)
    return RatePlanes(
        sci.astype(np.float32),
        np.sqrt(poisson + read).astype(np.float32),
        dq,
        poisson.astype(np.float32),
        read.astype(np.float32),
    )


def banding(rng, read: np.ndarray, *, along: bool) -> np.ndarray:
    """Draw the 1/f noise that remains of the readout.

    It is one time series in the order in which pixels are read: column after column, the 6 clock ticks of reference
    pixels after every 16 pixels, 8 ticks at the end of a line (as jwst's ``refpix`` step has it). So there is as much
    of it per octave within a column as from column to column.

    Parameters
    ----------
    rng : numpy.random.Generator
        Random numbers.
    read : numpy.ndarray, shape (rows, columns)
        Variance of the read noise; its median is the scale.
    along : bool
        Without it every column is shifted by its mean.

    Returns
    -------
    numpy.ndarray, shape (rows, columns) or (1, columns)
        The drift, in the unit of the read noise.
    """
    rows, columns = read.shape
    pixel = np.arange(rows // OUTPUTS)
    tick = pixel + 6 * ((pixel + 8) // 16)
    ticks = rows // OUTPUTS * 22 // 16 + 8
    common = _pink(rng, columns * ticks, 1.0 / (BANDING_LONGEST_COLUMNS * ticks)).reshape(columns, ticks)[:, tick].T
    of_columns = common.mean(axis=0)
    scale = BANDING_FRACTION * np.sqrt(np.median(read)) / of_columns.std()
    if not along:
        return (scale * of_columns)[None, :]
    drift = np.concatenate([common, common[::-1]] * (OUTPUTS // 2))
    own = np.array([_pink(rng, columns, 1.0 / BANDING_LONGEST_COLUMNS) for _ in range(OUTPUTS)])
    # Within a column, what an output has for itself is too little to matter.
    own *= OWN_BANDING * of_columns.std() / own.std(axis=1, keepdims=True)
    return scale * (drift + np.repeat(own, pixel.size, axis=0))


def _pink(rng, n: int, lowest: float) -> np.ndarray:
    """Draw a series whose power goes as 1/f above a frequency (cycles per sample), and is zero below; float32."""
    # Powers of single-precision numbers differ between versions of numpy in their last digit, those of doubles do not.
    frequency = fft.rfftfreq(n).astype(np.float64)
    amplitude = np.zeros(frequency.size, np.float32)
    kept = frequency > lowest
    amplitude[kept] = frequency[kept] ** -0.5
    phases = rng.standard_normal((frequency.size, 2), dtype=np.float32).view(np.complex64)[:, 0]
    return fft.irfft(phases * amplitude, n)


@lru_cache(maxsize=2)
def _noisy_pixels(seed: int, side: int, shape: tuple[int, int]) -> np.ndarray:
    """Read variance of each pixel of a detector over the median; the same in every exposure, and not flagged."""
    rng = np.random.default_rng([seed, 4, side])
    factor = np.exp(NOISE_SCATTER * rng.standard_normal(shape, dtype=np.float32).astype(np.float64)).astype(np.float32)
    noisy = rng.random(shape, dtype=np.float32) < NOISY_FRACTION
    factor[noisy] *= 1.0 + rng.exponential(1.0, int(noisy.sum()))
    return factor**2


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


def _break_pixels(sci, dq, rng, *, unconnected: bool) -> None:
    """Dead, hot and perhaps open pixels, the same in every exposure, flagged as in jwst's masks."""
    bad = rng.random(dq.shape)
    dead = bad < 0.4 * _BAD_PIXEL_FRACTION
    hot = (bad >= 0.4 * _BAD_PIXEL_FRACTION) & (bad < _BAD_PIXEL_FRACTION)
    dq[dead] |= _FLAGS["DO_NOT_USE"] | _FLAGS["DEAD"]
    dq[hot] |= _FLAGS["DO_NOT_USE"] | _FLAGS["HOT"]
    sci[dead] = 0.0
    sci[hot] += rng.lognormal(-1.0, 1.5, size=int(hot.sum()))
    if unconnected:
        _open_pixels(sci, dq, rng)


def _open_pixels(sci, dq, rng) -> None:
    """Let some pixels lose their signal to their neighbours; neither can be used."""
    rows, columns = rng.integers(1, np.array(sci.shape) - 1, size=(round(OPEN_FRACTION * sci.size), 2)).T
    lost = OPEN_LOSS * sci[rows, columns]
    np.subtract.at(sci, (rows, columns), lost)
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        beside = rows + down, columns + right
        np.add.at(sci, beside, lost / 4)
        dq[beside] |= _FLAGS["DO_NOT_USE"] | _FLAGS["ADJ_OPEN"]
    dq[rows, columns] |= _FLAGS["DO_NOT_USE"] | _FLAGS["OPEN"]


def _saturate(sci, dq, rng) -> None:
    """A few spots saturated in the first group: no slope at all."""
    rows, columns = rng.integers(2, sci.shape[0] - 2, size=(2, _SATURATED_SPOTS))
    for row, column in zip(rows, columns, strict=True):
        spot = (slice(row - 1, row + 2), slice(column - 1, column + 2))
        sci[spot] = np.nan
        dq[spot] |= _FLAGS["SATURATED"] | _FLAGS["DO_NOT_USE"]
