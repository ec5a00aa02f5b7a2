"""Metallicities from ratios of strong lines.

The cited table of strong-line and star-formation calibrations, and how to apply one.

Gas-phase metallicity from strong lines: of spaxels, of rings, and its gradient.

The gradient is taken from exponential discs fitted to the images of the lines convolved with the point-spread function:
their ratio is an exponential as well, so that its logarithm, and with a linear calibration the
metallicity, changes linearly with the radius, free of beam smearing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import yaml
from numpy.polynomial import polynomial

from msa3d.galaxy.profiles import Exponential, Geometry, Gradient

DEFAULT_METALLICITY = "PP04_N2"
"""Our default: needs Ha and [NII] only, which lie side by side, and no correction for dust."""

DEFAULT_STAR_FORMATION = "KE12_Ha"
"""Our default."""

INDICES = {
    "N2": (("[NII]6583", 1.0), ("Ha", -1.0)),
    "O3N2": (("[OIII]5007", 1.0), ("Hb", -1.0), ("[NII]6583", -1.0), ("Ha", 1.0)),
    "R3": (("[OIII]5007", 1.0), ("Hb", -1.0)),
    "S2": (("[SII]6716+6731", 1.0), ("Ha", -1.0)),
}
"""Line ratios: the power with which each line enters."""


@dataclass(frozen=True)
class MetallicityCalibration:
    """One relation between a line ratio and the gas-phase metallicity.

    Attributes
    ----------
    name : str
        Key of the table.
    index : str
        Ratio, of `INDICES`.
    direct : bool
        True: 12 + log(O/H) is a polynomial of log10 of the ratio. False: log10 of the ratio is a polynomial of
        12 + log(O/H) - `offset`, which is inverted.
    coefficients : tuple of float
        From the constant upwards.
    offset : float
        See `direct`.
    valid : tuple of float
        Range of log10 of the ratio in which the relation holds (of the metallicity, where it is not direct).
    intrinsic_dex : float
        Scatter of the relation, dex.
    reference, bibcode : str
        Where it comes from.
    """

    name: str
    index: str
    direct: bool
    coefficients: tuple[float, ...]
    offset: float
    valid: tuple[float, float]
    intrinsic_dex: float
    reference: str
    bibcode: str

    def metallicity(self, log_ratio, *, extrapolate: bool = False) -> np.ndarray:
        """12 + log(O/H) of log10 of the ratio.

        Parameters
        ----------
        log_ratio : array-like
            log10 of the ratio.
        extrapolate : bool
            Give values outside the range as well (of direct relations).

        Returns
        -------
        ndarray
            NaN outside the range of the relation.
        """
        x = np.asarray(log_ratio, dtype=float)
        if self.direct:
            value = polynomial.polyval(x, self.coefficients)
            outside = (x < self.valid[0]) | (x > self.valid[1])
            return value if extrapolate else np.where(outside, np.nan, value)
        grid = np.linspace(*self.valid, 2001)
        ratio = polynomial.polyval(grid - self.offset, self.coefficients)
        # The branch that reaches the metal-rich end: where the relation folds, it is the one of massive galaxies.
        step = np.diff(ratio)
        turns = np.flatnonzero(np.sign(step) != np.sign(step[-1]))
        first = turns[-1] + 1 if turns.size else 0
        ratio, grid = ratio[first:], grid[first:]
        if ratio[-1] < ratio[0]:
            ratio, grid = ratio[::-1], grid[::-1]
        return np.interp(x, ratio, grid, left=np.nan, right=np.nan)

    def slope(self, log_ratio) -> np.ndarray:
        """Change of 12 + log(O/H) for each dex of the ratio."""
        x = np.asarray(log_ratio, dtype=float)
        step = 1e-3
        high, low = (self.metallicity(x + sign * step, extrapolate=True) for sign in (1.0, -1.0))
        return (high - low) / (2.0 * step)


@dataclass(frozen=True)
class StarFormationCalibration:
    """``log10 SFR = log10 L(Ha) - log_luminosity``, Msun/yr and erg/s, dust-free."""

    name: str
    log_luminosity: float
    reference: str
    bibcode: str


@cache
def _table() -> dict:
    text = resources.files("msa3d.galaxy").joinpath("data/calibrations.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def metallicity_calibration(name: str = DEFAULT_METALLICITY) -> MetallicityCalibration:
    """Look up a metallicity calibration by name.

    Parameters
    ----------
    name : str
        Key of the table; see `names`.

    Returns
    -------
    MetallicityCalibration
        The relation.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    row = _row("metallicity", name)
    valid = row["ratio_range"] if row["direct"] else row["metallicity_range"]
    return MetallicityCalibration(
        name,
        row["index"],
        row["direct"],
        tuple(map(float, row["coefficients"])),
        float(row.get("offset", 0.0)),
        (float(valid[0]), float(valid[1])),
        float(row["intrinsic_dex"]),
        row["reference"],
        str(row["bibcode"]),
    )


def star_formation_calibration(name: str = DEFAULT_STAR_FORMATION) -> StarFormationCalibration:
    """Look up a star-formation calibration by name.

    Parameters
    ----------
    name : str
        Key of the table; see `names`.

    Returns
    -------
    StarFormationCalibration
        The relation.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    row = _row("star_formation", name)
    return StarFormationCalibration(name, float(row["log_luminosity"]), row["reference"], str(row["bibcode"]))


def names(kind: str = "metallicity") -> tuple[str, ...]:
    """Names of the calibrations of a kind, ``metallicity`` or ``star_formation``."""
    return tuple(_table()[kind])


def _row(kind: str, name: str) -> dict:
    rows = _table()[kind]
    if name not in rows:
        raise ValueError(f"no {kind} calibration {name!r}: choose one of {', '.join(rows)}")
    return rows[name]


_LN10 = np.log(10.0)


def log_ratio(
    flux: Mapping[str, np.ndarray], error: Mapping[str, np.ndarray], index: str, *, snr: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of a line ratio, with its error.

    Parameters
    ----------
    flux, error : mapping of str to ndarray
        Fluxes by species and their errors, as in `fit.LineFit`.
    index : str
        Of `metals.INDICES`.
    snr : float
        Least signal to noise of every line: below it the logarithm is biased, and NaN is given.

    Returns
    -------
    tuple of ndarray
        log10 of the ratio and its 1 sigma error, dex.

    Raises
    ------
    ValueError
        If a line of the ratio is not there.
    """
    total, variance, good = 0.0, 0.0, True
    for name, power in INDICES[index]:
        parts = ("[SII]6716", "[SII]6731") if name == "[SII]6716+6731" else (name,)
        if any(part not in flux for part in parts):
            raise ValueError(f"{index} needs {name}, which was not fitted (not covered?)")
        value = sum(flux[part] for part in parts)
        sigma = np.sqrt(sum(np.square(error[part]) for part in parts))
        with np.errstate(invalid="ignore", divide="ignore"):
            fine = value >= snr * sigma
            total = total + power * np.log10(np.where(fine, value, np.nan))
            variance = variance + (power * sigma / np.where(fine, value, np.nan) / _LN10) ** 2
        good = good & fine
    return np.where(good, total, np.nan), np.where(good, np.sqrt(variance), np.nan)


def metallicity(
    flux: Mapping[str, np.ndarray],
    error: Mapping[str, np.ndarray],
    *,
    calibration: str = DEFAULT_METALLICITY,
    snr: float = 3.0,
) -> tuple[np.ndarray, np.ndarray]:
    """12 + log(O/H) of spaxels, bins or rings.

    Parameters
    ----------
    flux, error : mapping of str to ndarray
        As in `log_ratio`.
    calibration : str
        Name in the table of calibrations.
    snr : float
        As in `log_ratio`.

    Returns
    -------
    tuple of ndarray
        12 + log(O/H) and the 1 sigma error of measurement, dex (the calibration's own scatter is not in it); NaN
        where a line is too faint or the ratio is outside the calibration's range.
    """
    relation = metallicity_calibration(calibration)
    ratio, sigma = log_ratio(flux, error, relation.index, snr=snr)
    value = relation.metallicity(ratio)
    return value, np.where(np.isfinite(value), np.abs(relation.slope(ratio)) * sigma, np.nan)


def gradient(
    discs: Mapping[str, Exponential],
    geometry: Geometry,
    *,
    calibration: str = DEFAULT_METALLICITY,
    radius_kpc: float | None = None,
) -> Gradient:
    """Metallicity gradient from exponential discs.

    Parameters
    ----------
    discs : mapping of str to Exponential
        Fitted discs by species (`profiles.fit_exponential`), of independent noise.
    geometry : Geometry
        With `kpc_per_arcsec`.
    calibration : str
        Name in the table of calibrations.
    radius_kpc : float, optional
        Where a calibration that is not linear is linearised; one scale length of Ha by default.

    Returns
    -------
    Gradient
        dex/kpc.

    Raises
    ------
    ValueError
        If a line of the ratio is not there.
    """
    relation = metallicity_calibration(calibration)
    terms = INDICES[relation.index]
    missing = [name for name, _ in terms if name not in discs]
    if missing:
        raise ValueError(f"{calibration} needs {', '.join(missing)}: no disc was fitted to it")
    scale = geometry.kpc_per_arcsec
    # log10 ratio = constant + slope * r; covariances of independent lines add.
    constant = sum(power * discs[name].log_centre for name, power in terms) / _LN10
    slope = -sum(power * discs[name].rate for name, power in terms) / _LN10 / scale
    turn = np.diag([1.0, -1.0 / scale]) / _LN10
    covariance = sum(power**2 * turn @ discs[name].covariance @ turn.T for name, power in terms)
    at = abs(discs[terms[-1][0]].scale_arcsec) * scale if radius_kpc is None else radius_kpc
    steep = float(relation.slope(constant + slope * at))
    middle = float(relation.metallicity(constant + slope * at, extrapolate=True))
    values = np.array([middle - steep * slope * at, steep * slope])
    return Gradient.of(values, covariance * steep**2, unit="dex", method=f"exponential discs, {calibration}")
