"""The cited table of strong-line and star-formation calibrations, and how to apply one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import yaml
from numpy.polynomial import polynomial

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
    text = resources.files("msa3d.science").joinpath("data/calibrations.yaml").read_text(encoding="utf-8")
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
