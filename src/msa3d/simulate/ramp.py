"""Ramps (uncal): what the detectors read out, from noiseless count rates, for a cut-out of the detector.

Every group is the sum of the light so far, bent by the non-linearity, on top of the bias, with read noise, drifting
columns (1/f noise) and cosmic rays; stage 1 of jwst has to undo all of that. What is left out is said in
`msa3d.simulate.references_ramp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from msa3d.atomic import atomic_path
from msa3d.simulate.header import GROUP_SECONDS
from msa3d.simulate.instrument import GAIN_E_PER_DN
from msa3d.simulate.noise import BANDING_LONGEST_COLUMNS, DARK_RATE_DN_S, GROUP_READ_NOISE_DN
from msa3d.simulate.references_ramp import NONLINEARITY, Cutout, bias, reference_pixels

GROUP_BANDING_DN = 1.5
"""Standard deviation of the column offsets of a group, DN: a fifth of the read noise."""
HITS_PER_PIXEL_S = 2.5e-5
"""Cosmic rays a pixel and second: about 5 a cm2 and second, hits of several pixels counted as such (ours)."""
HIT_DN = 300.0
"""Mean size of a hit, DN; an exponential distribution above ten times the read noise."""


@dataclass(frozen=True)
class Ramp:
    """What was read out, and what no telescope tells.

    Attributes
    ----------
    counts : ndarray of uint16, shape (1, groups, rows, columns)
        DN.
    hit : ndarray of bool, shape (groups, rows, columns)
        Where a cosmic ray struck before a group.
    drift : ndarray, shape (groups, columns)
        Offsets of columns, DN.
    """

    counts: np.ndarray
    hit: np.ndarray
    drift: np.ndarray


def take_ramp(
    rate: np.ndarray, groups: int, seed: int, *, cutout: Cutout | None = None, hits: bool = True, drifts: bool = True
) -> Ramp:
    """Read a detector out while light falls on it.

    Parameters
    ----------
    rate : ndarray, shape (rows, columns) of the cut-out
        Noiseless count rates (DN/s).
    groups : int
        Number of groups.
    seed : int
        Of all random numbers.
    cutout : Cutout, optional
        Where on the detector; by default all of it.
    hits, drifts : bool
        Whether cosmic rays strike, and whether columns drift.

    Returns
    -------
    Ramp
    """
    cutout, rng = cutout or Cutout(), np.random.default_rng(seed)
    part = cutout.slices
    dark_only = reference_pixels()[part]
    light = np.where(dark_only, 0.0, np.maximum(rate, 0.0) + DARK_RATE_DN_S)
    shape = (groups, *light.shape)
    electrons = rng.poisson(np.broadcast_to(light * GAIN_E_PER_DN * GROUP_SECONDS, shape))
    added = electrons / GAIN_E_PER_DN
    hit = np.zeros(shape, bool)
    if hits:
        hit = (rng.random(shape) < HITS_PER_PIXEL_S * GROUP_SECONDS) & ~dark_only
        hit[0] = False  # what strikes before the first group is in all of them
        added[hit] += 10 * GROUP_READ_NOISE_DN + rng.exponential(HIT_DN, int(hit.sum()))
    total = np.cumsum(added, axis=0)
    measured = (np.sqrt(1.0 + 4.0 * NONLINEARITY * total) - 1.0) / (2.0 * NONLINEARITY)
    drift = _drift(rng, groups, cutout.columns) if drifts else np.zeros((groups, cutout.columns))
    counts = measured + bias()[part] + rng.normal(0.0, GROUP_READ_NOISE_DN, shape) + drift[:, None, :]
    return Ramp(np.clip(np.rint(counts), 0, 65535).astype(np.uint16)[None], hit, drift)


def _drift(rng: np.random.Generator, groups: int, columns: int) -> np.ndarray:
    """Offsets of whole columns with a 1/f spectrum, another series for every group."""
    size = max(columns, 2 * BANDING_LONGEST_COLUMNS)
    frequency = np.fft.rfftfreq(size)
    amplitude = np.zeros_like(frequency)
    kept = frequency > 1.0 / BANDING_LONGEST_COLUMNS
    amplitude[kept] = frequency[kept] ** -0.5
    phases = rng.normal(size=(groups, frequency.size)) + 1j * rng.normal(size=(groups, frequency.size))
    series = np.fft.irfft(phases * amplitude, size, axis=1)
    return (series * GROUP_BANDING_DN / series.std(axis=1, keepdims=True))[:, :columns]


def write_uncal(
    path: Path, ramp: Ramp, primary: fits.Header, science: fits.Header, cutout: Cutout | None = None
) -> None:
    """Write a ramp as the archive has it.

    Parameters
    ----------
    path : pathlib.Path
        ``jw*_uncal.fits``; appears when whole.
    ramp : Ramp
        What was read.
    primary, science : `astropy.io.fits.Header`
        Headers of the count-rate image of the same exposure (`msa3d.simulate.header`).
    cutout : Cutout, optional
        Which part of the detector it is: the header then says so.
    """
    header, cutout = primary.copy(), cutout or Cutout()
    for keyword in [keyword for keyword in header if keyword.startswith("S_")]:
        del header[keyword]
    groups, rows, columns = ramp.counts.shape[1:]
    header.update(
        {
            "FILENAME": path.name, "FILETYPE": "uncalibrated", "DATAMODL": "Level1bModel", "NINTS": 1,
            "NGROUPS": groups, "SUBSTRT1": cutout.first_column + 1, "SUBSTRT2": cutout.first_row + 1,
            "SUBSIZE1": columns, "SUBSIZE2": rows, "EFFINTTM": groups * GROUP_SECONDS,
            "EFFEXPTM": groups * GROUP_SECONDS,
        }
    )  # fmt: skip
    pointing = science.copy()
    pointing["BUNIT"] = "DN"
    with atomic_path(path) as temporary:
        fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(ramp.counts, header=pointing)]).writeto(temporary)
