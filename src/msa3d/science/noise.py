"""How uncertain a line is, from the cube itself.

The published cube brings no errors, and neighbouring voxels share noise: interpolation spreads it along
the slit, and what read-out leaves on the detector spreads it along the wavelengths. Errors that take voxels
for independent are therefore too small. What a line of given width would measure where there is none
says by how much.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msa3d.constants import C_KMS, LINES
from msa3d.science.lines import LineMaps

ERROR_FIELDS = ("halpha_error", "nii_error", "velocity_error", "sigma_error")


def error_factor(
    wave_um: np.ndarray,
    cube: np.ndarray,
    redshift: float,
    *,
    sigma_kms: float = 75.0,
    reach_kms: float = 12000.0,
    spacing_kms: float = 300.0,
) -> float:
    """Scatter of a line measured where there is none, in units of its formal error.

    At places without lines around Ha, a Gaussian of fixed width on a straight continuum is fitted to every
    spaxel in a window of 1500 km/s to each side; its flux over its formal error should scatter by 1.

    Parameters
    ----------
    wave_um : ndarray, shape (n_wave,)
        Vacuum wavelengths, um.
    cube : ndarray, shape (n_wave, n_y, n_x)
        Surface brightness; NaN or zero where unknown.
    redshift : float
        Of the galaxy, whose lines are left out.
    sigma_kms : float
        Width of the line, km/s.
    reach_kms : float
        How far from Ha to look.
    spacing_kms : float
        Distance of the places.

    Returns
    -------
    float
        1.4826 times the median absolute deviation of flux over error, over all places and spaxels; never
        below 1. NaN where there is no place without lines.
    """
    halpha = LINES["Ha"] * (1.0 + redshift)
    lines = np.array([rest * (1.0 + redshift) for rest in LINES.values()])
    flat = cube.reshape(cube.shape[0], -1)
    found = []
    for velocity in np.arange(-reach_kms, reach_kms + 1.0, spacing_kms):
        centre = halpha * (1.0 + velocity / C_KMS)
        offset = C_KMS * (wave_um / centre - 1.0)
        inside = np.abs(offset) <= 1500.0
        blank = np.abs(C_KMS * (lines / centre - 1.0)).min() > 1500.0 + 4.0 * sigma_kms
        if blank and inside.sum() >= 10:
            found.append(_significance(offset[inside], flat[inside], sigma_kms))
    values = np.concatenate(found) if found else np.array([])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return float("nan")
    return max(1.0, float(1.4826 * np.median(np.abs(values - np.median(values)))))


def _significance(offset_kms: np.ndarray, spectra: np.ndarray, sigma_kms: float) -> np.ndarray:
    """Flux over formal error of a line at offset 0 in spectra (n_wave, n); NaN for incomplete ones."""
    profile = np.exp(-0.5 * (offset_kms / sigma_kms) ** 2)
    design = np.column_stack([profile, np.ones_like(profile), offset_kms / 1500.0])
    whole = np.isfinite(spectra).all(axis=0) & (np.abs(np.nan_to_num(spectra)) > 0).any(axis=0)
    result = np.full(spectra.shape[1], np.nan)
    if whole.any():
        solution, *_ = np.linalg.lstsq(design, spectra[:, whole], rcond=None)
        residual = spectra[:, whole] - design @ solution
        variance = (residual**2).sum(axis=0) / (offset_kms.size - 3)
        error = np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0])
        result[whole] = np.divide(solution[0], error, out=np.full(error.size, np.nan), where=error > 0)
    return result


def with_errors_scaled(maps: LineMaps, factor: float) -> LineMaps:
    """Return maps whose errors are larger by a factor.

    Parameters
    ----------
    maps : LineMaps
        Maps with formal errors.
    factor : float
        As `error_factor` gives it.

    Returns
    -------
    LineMaps
        The same values; errors of flux, velocity and width times the factor.
    """
    return replace(maps, **{name: getattr(maps, name) * factor for name in ERROR_FIELDS})
