"""The metallicity gradient as it is usually measured, in a published cube, and how far its formal error can be trusted.

Ha and [NII] are fitted spaxel by spaxel; where both have a signal to noise of three, their ratio gives a metallicity; a
straight line is fitted to the metallicities against radius, weighted by their formal errors. Spaxels of a quarter of a
pixel are no independent measurements, nor are pixels that were interpolated, so that the formal error of the slope is
too small; and spaxels that are chosen by their own noise change the slope. The true scatter is that of the same galaxy
put into the same cube at other wavelengths, where there is nothing but its noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import map_coordinates, uniform_filter1d

from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube
from msa3d.galaxy import metals
from msa3d.galaxy.fit import fit_lines
from msa3d.galaxy.lines import LineSpread, bin_edges, species_profile, to_line_flux
from msa3d.galaxy.profiles import Exponential, Geometry, Gradient, disc_columns

NAMES = ("Ha", "[NII]6583")
SNR = 3.0
"""Least signal to noise of both lines in a spaxel, as is customary."""
_AROUND_KMS = 3500.0
_CLEAR_KMS = 2500.0
_SMOOTH = 51
_LEAST_SPAXELS = 10


def usual_gradient(
    cube: Cube,
    redshift: float,
    geometry: Geometry,
    spread: LineSpread,
    *,
    calibration: str = "PP04_N2",
    snr: float = SNR,
) -> tuple[Gradient | None, int]:
    """Regress the metallicity of spaxels on their radius.

    Parameters
    ----------
    cube : Cube
        Of the published builder, its spaxels as they are.
    redshift : float
        Of the galaxy.
    geometry : Geometry
        The disc.
    spread : LineSpread
        Line-spread function.
    calibration : str
        Name of a metallicity calibration by N2.
    snr : float
        Least signal to noise of both lines.

    Returns
    -------
    gradient : Gradient or None
        Slope (dex/kpc) with its formal error, for which the spaxels are independent; None of fewer than ten spaxels.
    spaxels : int
        How many were used.
    """
    near = LINES["Ha"] * (1.0 + redshift) * (1.0 + np.array([-1.0, 1.0]) * _AROUND_KMS / C_KMS)
    lines = fit_lines(cube.between(*near), redshift, names=NAMES, spread=spread)
    value, error = metals.metallicity(lines.flux, lines.flux_error, calibration=calibration, snr=snr)
    used = np.isfinite(value) & lines.reliable(snr)
    number = int(used.sum())
    if number < _LEAST_SPAXELS:
        return None, number
    radius = geometry.radius(cube)[used] * geometry.kpc_per_arcsec
    design = np.stack([np.ones(number), radius], axis=1) / error[used, None]
    covariance = np.linalg.inv(design.T @ design)
    best = covariance @ design.T @ (value[used] / error[used])
    return Gradient.of(best, covariance, unit="dex", method=f"regression of {number} spaxels, {calibration}"), number


@dataclass(frozen=True, eq=False)
class Regression:
    """The usual gradient of a galaxy, and its repetitions in the noise of the same cube.

    Attributes
    ----------
    slope, formal : float
        In the cube itself, with the formal error, dex/kpc; NaN of fewer than ten spaxels.
    spaxels : int
        Spaxels in it.
    slopes, formals : ndarray, shape (n,)
        Of the galaxy at other wavelengths, dex/kpc.
    injected : float
        Slope that was put in there.
    """

    slope: float
    formal: float
    spaxels: int
    slopes: np.ndarray
    formals: np.ndarray
    injected: float

    @property
    def scatter(self) -> float:
        """Standard deviation of the slopes over the repetitions, dex/kpc."""
        return float(np.std(self.slopes, ddof=1)) if self.slopes.size > 1 else float("nan")

    @property
    def ratio(self) -> float:
        """By how much the true scatter is larger than the formal error."""
        return self.scatter / float(np.median(self.formals)) if self.slopes.size > 1 else float("nan")


def repeated(
    cube: Cube,
    square: Cube,
    redshift: float,
    geometry: Geometry,
    spread: LineSpread,
    discs: Mapping[str, tuple[float, float]],
    *,
    sigma_kms: float = 40.0,
    calibration: str = "PP04_N2",
    number: int = 60,
) -> Regression:
    """Measure a galaxy as `usual_gradient` does, and again at wavelengths without lines, where it is put in.

    Parameters
    ----------
    cube : Cube
        Of the published builder.
    square : Cube
        The same as `msa3d.published.for_analysis.prepared` gives it: its header knows the point-spread function.
    redshift, geometry, spread, calibration
        As in `usual_gradient`.
    discs : mapping of str to tuple of float
        Total flux (erg s-1 cm-2) and scale length (arcsec) of the lines that are put in
        (`msa3d.galaxy.injected.line_discs`).
    sigma_kms : float
        Dispersion of the lines that are put in; they do not rotate.
    number : int
        How many wavelengths are tried; those too near to lines, gaps or ends drop out.

    Returns
    -------
    Regression
        Of the cube, and of the repetitions.
    """
    own, spaxels = usual_gradient(cube, redshift, geometry, spread, calibration=calibration)
    light = {name: _on(cube, square, geometry, redshift, *discs[name], name) for name in NAMES}
    rates = [1.0 / discs[name][1] for name in NAMES]
    relation = metals.metallicity_calibration(calibration)
    middle = np.log10(discs["[NII]6583"][0] / discs["Ha"][0] * (rates[1] / rates[0]) ** 2)
    injected = float(relation.slope(middle)) * (rates[0] - rates[1]) / np.log(10.0) / geometry.kpc_per_arcsec
    noise = _level(cube, LINES["Ha"] * (1.0 + redshift))
    slopes, formals = [], []
    for at in _places(cube, redshift, number):
        level = _level(cube, at)
        if not np.isfinite(level):
            continue
        part = _with_lines(cube, at, light, spread, sigma_kms, noise / level)
        found, _ = usual_gradient(part, at / LINES["Ha"] - 1.0, geometry, spread, calibration=calibration)
        if found is not None:
            slopes.append(found.slope)
            formals.append(found.slope_error)
    nan = float("nan")
    slope, formal = (nan, nan) if own is None else (own.slope, own.slope_error)
    return Regression(slope, formal, spaxels, np.array(slopes), np.array(formals), injected)


def _on(
    cube: Cube, square: Cube, geometry: Geometry, redshift: float, total: float, scale_arcsec: float, name: str
) -> np.ndarray:
    """Brightness of a disc convolved with the PSF at the middles of the spaxels of a cube, erg s-1 cm-2 arcsec-2."""
    where = np.ones(square.shape, bool)
    seen = disc_columns(square, geometry, LINES[name] * (1.0 + redshift), 1.0 / scale_arcsec, where)[:, 0]
    unit = Exponential(
        0.0, 1.0 / scale_arcsec, np.zeros((2, 2)), 0.0, 0, np.zeros((2, 2)), "", geometry.cos_inclination
    )
    x, y = square.wcs.world_to_pixel_values(*cube.spaxel_sky())
    return total / unit.total * map_coordinates(seen.reshape(square.shape), [y, x], order=3, mode="nearest")


def _places(cube: Cube, redshift: float, number: int) -> list[float]:
    """Wavelengths without lines of the galaxy, um."""
    lines = np.array(list(LINES.values())) * (1.0 + redshift)
    margin = 1.0 + 1.2 * _AROUND_KMS / C_KMS
    tried = np.linspace(cube.wave_um[0] * margin, cube.wave_um[-1] / margin, number)
    return [float(at) for at in tried if np.abs(lines / at - 1.0).min() * C_KMS > _AROUND_KMS]


def _level(cube: Cube, at: float) -> float:
    """Median over the spaxels of the scatter around a wavelength; NaN where less than nine tenths is observed."""
    part = cube.between(*(at * (1.0 + np.array([-1.0, 1.0]) * _AROUND_KMS / C_KMS)))
    known = np.isfinite(part.data) & (part.data != 0.0)
    seen = (np.isfinite(cube.data) & (cube.data != 0.0)).mean(axis=0) > 0.5
    if not seen.any() or known[:, seen].mean() < 0.9:
        return float("nan")
    step = np.diff(part.data[:, seen], axis=0)
    scatter = float(np.median(np.abs(step)))
    return scatter if scatter > 0 else float("nan")


def _with_lines(
    cube: Cube, at: float, light: Mapping[str, np.ndarray], spread: LineSpread, sigma_kms: float, scale: float
) -> Cube:
    """Cube around a wavelength with the lines of a galaxy there; its noise scaled to that of the galaxy's own lines."""
    part = cube.between(*(at * (1.0 + np.array([-1.0, 1.0]) * 1.1 * _AROUND_KMS / C_KMS)))
    known = np.isfinite(part.data) & (part.data != 0.0)
    filled = np.where(known, part.data, 0.0)
    smooth = uniform_filter1d(filled, _SMOOTH, axis=0, mode="nearest")
    data = smooth + scale * (filled - smooth)
    redshift, edges = at / LINES["Ha"] - 1.0, bin_edges(part.wave_um)
    for name, image in light.items():
        profile = species_profile(name, edges, redshift, np.zeros(1), np.full(1, sigma_kms), spread)[0]
        data += profile[:, None, None] * (image / to_line_flux(1.0, LINES[name] * (1.0 + redshift)))
    return replace(part, data=np.where(known, data, 0.0))
