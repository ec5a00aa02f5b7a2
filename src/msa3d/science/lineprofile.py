"""Profiles of emission lines in the bins of a cube: Gaussian gas behind the line-spread function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import erf

from msa3d.constants import C_KMS, LINES
from msa3d.science.lines import NII_RATIO
from msa3d.science.resolution import LineSpread

OIII_RATIO = 2.98
"""[OIII] 5007 over 4959 (Storey & Zeippen 2000)."""

SPECIES = {
    "Hb": (("Hb", 1.0),),
    "[OIII]5007": (("[OIII]5007", 1.0), ("[OIII]4959", 1.0 / OIII_RATIO)),
    "Ha": (("Ha", 1.0),),
    "[NII]6583": (("[NII]6583", 1.0), ("[NII]6548", 1.0 / NII_RATIO)),
    "[SII]6716": (("[SII]6716", 1.0),),
    "[SII]6731": (("[SII]6731", 1.0),),
}
"""What is free in a fit: a line and those tied to it, with their flux over its own."""


def bin_edges(wave_um: np.ndarray) -> np.ndarray:
    """Edges of the bins around increasing wavelengths, (n_wave + 1,)."""
    middle = 0.5 * (wave_um[1:] + wave_um[:-1])
    return np.concatenate([[2 * wave_um[0] - middle[0]], middle, [2 * wave_um[-1] - middle[-1]]])


def gaussian_bins(edges_um: np.ndarray, centre_um: np.ndarray, sigma_um: np.ndarray, half_um: float) -> np.ndarray:
    """Mean density in bins of a line of unit flux.

    Parameters
    ----------
    edges_um : ndarray, shape (n_wave + 1,)
        Edges of the bins, um.
    centre_um, sigma_um : ndarray, shape (n,)
        Centre, and sigma of each of the two Gaussians, um.
    half_um : float
        Half of the distance of the two Gaussians, um; 0 for one.

    Returns
    -------
    ndarray, shape (n, n_wave)
        Per um.
    """
    scale = np.sqrt(2.0) * sigma_um[:, None]
    shifts = (0.0,) if half_um == 0 else (-half_um, half_um)
    total = sum(erf((edges_um[None, :] - centre_um[:, None] - shift) / scale) for shift in shifts)
    return np.diff(total, axis=1) * (0.5 / len(shifts)) / np.diff(edges_um)


def species_profile(
    name: str,
    edges_um: np.ndarray,
    redshift: float,
    velocity_kms: np.ndarray,
    sigma_kms: np.ndarray,
    spread: LineSpread,
    *,
    alone: bool = False,
) -> np.ndarray:
    """Profile of a species of `SPECIES`, its first line of unit flux.

    Parameters
    ----------
    name : str
        Key of `SPECIES`.
    edges_um : ndarray, shape (n_wave + 1,)
        Edges of the bins, um.
    redshift : float
        Redshift of velocity 0; a line lies at rest (1 + z) (1 + v/c).
    velocity_kms, sigma_kms : ndarray, shape (n,)
        Velocity and dispersion of the gas.
    spread : LineSpread
        The instrument.
    alone : bool
        Without the lines that are tied to the first one.

    Returns
    -------
    ndarray, shape (n, n_wave)
        Per um.
    """
    total = 0.0
    for line, share in SPECIES[name][: 1 if alone else None]:
        rest = LINES[line] * (1.0 + redshift)
        half, own = spread.components(rest)
        sigma = np.hypot(own, rest * sigma_kms / C_KMS)
        total = total + share * gaussian_bins(edges_um, rest * (1.0 + velocity_kms / C_KMS), sigma, half)
    return total


def windows(
    wave_um: np.ndarray, redshift: float, names: Sequence[str], reach_kms: float
) -> list[tuple[np.ndarray, list[str]]]:
    """Group lines that lie close together.

    Parameters
    ----------
    wave_um : ndarray, shape (n_wave,)
        Wavelengths of the cube, um.
    redshift : float
        Of the galaxy.
    names : sequence of str
        Keys of `SPECIES`.
    reach_kms : float
        How far a window reaches to each side of its lines.

    Returns
    -------
    list of (ndarray of int, list of str)
        Indices of the wavelengths of each window, and the species in it. Species of which a line is not covered
        to either side by a third of the reach are left out.
    """
    found: list[tuple[float, float, list[str]]] = []
    for name in sorted(names, key=LINES.__getitem__):
        at = [LINES[line] * (1.0 + redshift) for line, _ in SPECIES[name]]
        margin = 1.0 + reach_kms / 3.0 / C_KMS
        if min(at) / margin < wave_um[0] or max(at) * margin > wave_um[-1]:
            continue
        low, high = min(at) * (1.0 - reach_kms / C_KMS), max(at) * (1.0 + reach_kms / C_KMS)
        if found and low <= found[-1][1]:
            found[-1] = (min(low, found[-1][0]), max(high, found[-1][1]), [*found[-1][2], name])
        else:
            found.append((low, high, [name]))
    return [(np.flatnonzero((wave_um >= low) & (wave_um <= high)), names) for low, high, names in found]
