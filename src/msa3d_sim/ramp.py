"""Ramps of the simulated exposures, and the reference files that stage 1 needs.

Reference files of stage 1: mask, superbias, saturation, linearity, dark, gain and read noise (FITS).

They are smooth, so that full frames compress to kilobytes; what they describe is what `msa3d_sim.ramp` puts into
the ramps, no more: no interleaved reference pixels (IRS2), no inter-pixel capacitance, no persistence.

Ramps (uncal): what the detectors read out, from noiseless count rates, for a cut-out of the detector.

Every group is the sum of the light so far, bent by the non-linearity, on top of the bias, with read noise, drifting
columns (1/f noise) and cosmic rays; stage 1 of jwst has to undo all of that. What is left out is said in
`msa3d_sim.ramp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.io.fits.hdu.compressed import CompImageHDU

from msa3d.pipeline.products import atomic_path, mark_simulated
from msa3d_sim.header import GROUP_SECONDS
from msa3d_sim.noise import BANDING_LONGEST_COLUMNS, DARK_RATE_DN_S, GROUP_READ_NOISE_DN
from msa3d_sim.references import AUTHOR, USEAFTER
from msa3d_sim.throughput import GAIN_E_PER_DN

SIZE = 2048
BIAS_DN = 12000.0
BIAS_SPREAD_DN = 300.0
"""The bias rises by so much from the first column to the last, and alternates by a hundredth of it by row."""
SATURATION_DN = 55000.0
"""Raw counts, bias included, from which a group is saturated."""
NONLINEARITY = 8e-7
"""Corrected counts are m + NONLINEARITY m**2 of the measured ones, DN."""
DARK_GROUPS = 10
"""Longer ramps than this find no dark long enough; jwst then leaves it out."""
REFERENCE_PIXELS = 4
"""Rows and columns at each edge that see no light."""
TYPES = ("mask", "superbias", "saturation", "linearity", "dark", "gain", "readnoise")


@dataclass(frozen=True)
class Cutout:
    """A rectangle of the detector, whole frames being 64 times as large as most tests need.

    Parameters
    ----------
    first_row, first_column : int
        Its corner, from 0, in the orientation of the pipeline.
    rows, columns : int
        Its size.
    """

    first_row: int = 0
    first_column: int = 0
    rows: int = 2048
    columns: int = 2048

    @property
    def slices(self) -> tuple[slice, slice]:
        """For arrays of the whole detector."""
        return (
            slice(self.first_row, self.first_row + self.rows),
            slice(self.first_column, self.first_column + self.columns),
        )


def bias() -> np.ndarray:
    """Bias of a detector in DN, shape (2048, 2048), float32."""
    columns = np.linspace(0.0, BIAS_SPREAD_DN, SIZE, dtype=np.float32)
    rows = (np.arange(SIZE) % 2).astype(np.float32) * BIAS_SPREAD_DN / 100
    return np.float32(BIAS_DN) + columns[None, :] + rows[:, None]


def reference_pixels() -> np.ndarray:
    """Where the pixels are that see no light, boolean, shape (2048, 2048)."""
    edge = np.ones((SIZE, SIZE), bool)
    edge[REFERENCE_PIXELS:-REFERENCE_PIXELS, REFERENCE_PIXELS:-REFERENCE_PIXELS] = False
    return edge


def write_ramp_references(folder: Path, name, group_seconds: float, frames: int, cutout: Cutout) -> dict[str, Path]:
    """Write the references of stage 1.

    Parameters
    ----------
    folder : pathlib.Path
        Existing folder.
    name : callable
        ``name(reftype, suffix)`` gives the file's name.
    group_seconds : float
        Time of a group.
    frames : int
        Frames averaged into a group, without gaps.
    cutout : Cutout
        Which part of the detector the dark is of: jwst cuts all other references out of full frames itself.

    Returns
    -------
    dict of str to pathlib.Path
        The file of every type in `TYPES`.
    """
    flat = np.ones((SIZE, SIZE), np.float32)
    times = np.arange(1, DARK_GROUPS + 1, dtype=np.float32)[:, None, None] * np.float32(group_seconds)
    good = np.zeros((SIZE, SIZE), np.uint32)
    coefficients = np.stack([0 * flat, flat, flat * np.float32(NONLINEARITY)])
    dark = np.broadcast_to(times * np.float32(DARK_RATE_DN_S), (DARK_GROUPS, cutout.rows, cutout.columns))
    reference = np.where(reference_pixels(), np.uint32(1 << 0), np.uint32(0))
    # As jwst takes it: of the difference of two single frames.
    noise = GROUP_READ_NOISE_DN * np.sqrt(2 * frames)
    definition = _definitions([(0, 1, "REFERENCE_PIXEL")])
    planes = {
        "mask": ("MaskModel", {"DQ": reference}, definition),
        "superbias": ("SuperBiasModel", {"SCI": bias(), "ERR": 0 * flat, "DQ": good}, _definitions([])),
        "saturation": ("SaturationModel", {"SCI": flat * np.float32(SATURATION_DN), "DQ": good}, _definitions([])),
        "linearity": ("LinearityModel", {"COEFFS": coefficients, "DQ": good}, _definitions([])),
        "dark": ("DarkModel", {"SCI": dark, "DQ": good[cutout.slices]}, _definitions([])),
        "gain": ("GainModel", {"SCI": flat * np.float32(GAIN_E_PER_DN)}, None),
        "readnoise": ("ReadnoiseModel", {"SCI": flat * np.float32(noise)}, None),
    }  # fmt: skip
    written = {}
    for reftype, (model, extensions, table) in planes.items():
        primary = fits.PrimaryHDU(header=_header(reftype, model, group_seconds, frames))
        if reftype == "dark":
            cards = (cutout.first_column + 1, cutout.first_row + 1, cutout.columns, cutout.rows)
            primary.header.update(dict(zip(("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2"), cards, strict=True)))
        hdus = [primary, *(_compressed(key, plane) for key, plane in extensions.items())]
        written[reftype] = folder / name(reftype, "fits")
        fits.HDUList([*hdus, *([table] if table is not None else [])]).writeto(written[reftype])
    return written


def _header(reftype: str, model: str, group_seconds: float, frames: int) -> fits.Header:
    header = fits.Header()
    cards = {
        "TELESCOP": "JWST", "INSTRUME": "NIRSPEC", "DATAMODL": model, "REFTYPE": reftype.upper(), "AUTHOR": AUTHOR,
        "PEDIGREE": "DUMMY", "USEAFTER": USEAFTER, "DESCRIP": f"SIMULATED: NIRSpec {reftype}",
        "EXP_TYPE": "NRS_MSASPEC", "SUBARRAY": "FULL", "SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": SIZE, "SUBSIZE2": SIZE,
        "FASTAXIS": 2, "SLOWAXIS": 1, "READPATT": "NRSIRS2", "NFRAMES": frames, "GROUPGAP": 0, "NGROUPS": DARK_GROUPS,
        "TGROUP": group_seconds,
    }  # fmt: skip
    for keyword, value in cards.items():
        header[keyword] = value
    mark_simulated(header)
    return header


def _compressed(name: str, plane: np.ndarray) -> CompImageHDU:
    tile = (1,) * (plane.ndim - 2) + plane.shape[-2:]
    plane = np.ascontiguousarray(plane)
    return fits.CompImageHDU(
        plane, header=fits.Header({"EXTNAME": name}), compression_type="GZIP_2", quantize_level=0.0, tile_shape=tile
    )


def _definitions(rows: list[tuple[int, int, str]]) -> fits.BinTableHDU:
    """What the bits of DQ mean."""
    table = np.array(
        [(bit, value, text, "") for bit, value, text in rows],
        [("BIT", "i4"), ("VALUE", "i4"), ("NAME", "S40"), ("DESCRIPTION", "S80")],
    )
    return fits.BinTableHDU(table, name="DQ_DEF")


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
        Headers of the count-rate image of the same exposure (`msa3d_sim.header`).
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
