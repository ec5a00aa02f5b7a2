"""Noise of a line summed over an aperture, from the wavelengths without lines, alike for several cubes of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from astropy.stats import biweight_scale

from msa3d.constants import C_KMS
from msa3d.cube import Cube
from msa3d.science import linemerit

BEAM_ARCSEC = 0.1
"""Radius of an aperture about as large as what the telescope resolves."""

_PLACES = 0.15 * np.array([[x, y] for x in (-2, -1, 0, 1, 2) for y in (-2, -1, 0, 1, 2)])
_REACH_KMS = 150000.0
_DRAWS = 100


@dataclass(frozen=True, eq=False)
class ApertureNoise:
    """Lines measured where there are none.

    Attributes
    ----------
    radii : tuple of float
        Of the apertures, arcsec.
    fluxes : dict of str to list of numpy.ndarray
        For each cube and radius the line flux at every wavelength and place, shape (n_wavelengths, n_places), erg s-1
        cm-2; each place's median (what the continuum leaves) is taken off. NaN where one of the cubes has no data.
    light : dict of str to float
        For each cube, all its light (sky, stars and gas) in the middle aperture of the largest radius, in units of
        that of the first cube: the median over the wavelengths.
    """

    radii: tuple[float, ...]
    fluxes: dict[str, list[np.ndarray]]
    light: dict[str, float]

    def scatter(self, name: str) -> np.ndarray:
        """Robust standard deviation (biweight) for each radius, erg s-1 cm-2."""
        return np.array([_scatter(values) for values in self.fluxes[name]])

    def over_light(self, name: str) -> np.ndarray:
        """Noise over light for each radius, in units of the first cube's."""
        return self.scatter(name) / self.scatter(next(iter(self.fluxes))) / self.light[name]

    def over_light_error(self, name: str) -> np.ndarray:
        """Error of `over_light`: by bootstrap over wavelengths, as places share their noise."""
        first = next(iter(self.fluxes.values()))
        errors = []
        for values, others in zip(self.fluxes[name], first, strict=True):
            draws = np.random.default_rng(0).integers(0, len(values), (_DRAWS, len(values)))
            errors.append(np.std([_scatter(values[draw]) / _scatter(others[draw]) for draw in draws]))
        return np.array(errors) / self.light[name]


def measure(
    cubes: Mapping[str, Cube], centre: tuple[float, float], redshift: float, radii: Sequence[float]
) -> ApertureNoise:
    """Measure lines in apertures at all wavelengths without lines.

    The measurement is that of `msa3d.science.linemerit.line_image`, in 25 apertures 0.15 arcsec apart.

    Parameters
    ----------
    cubes : mapping of str to Cube
        The cubes. Light holds the sky: where that is subtracted from one cube, put `ApertureNoise.light` right.
    centre : tuple of float
        Of the middle aperture, ICRS, deg.
    redshift : float
        Of the source, whose lines are left out.
    radii : sequence of float
        Of the apertures, arcsec.

    Returns
    -------
    ApertureNoise

    Raises
    ------
    ValueError
        If the cubes have no wavelengths without lines in common.
    """
    blank = list(linemerit.blank_lines(redshift, reach_kms=_REACH_KMS))
    for cube in cubes.values():
        blank = [at for at in blank if covers(cube, at)]
        if not blank:
            raise ValueError(f"{cube.name} has no wavelengths without lines in common with the others")
    fluxes = {name: _fluxes(cube, centre, radii, blank) for name, cube in cubes.items()}
    for k in range(len(radii)):
        # A place is known as well as in the cube that knows it least.
        known = np.all([np.isfinite(found[k]) for found in fluxes.values()], axis=0)
        known &= known.sum(axis=0) > 4
        for found in fluxes.values():
            values = np.where(known, found[k], np.nan)[:, known.any(axis=0)]
            found[k] = values - np.nanmedian(values, axis=0) if values.size else values
    levels = {name: _levels(cube, centre, max(radii), blank) for name, cube in cubes.items()}
    first = next(iter(levels.values()))
    first = np.where(first > 0, first, np.nan)
    return ApertureNoise(tuple(radii), fluxes, {name: float(np.nanmedian(of / first)) for name, of in levels.items()})


def covers(cube: Cube, line_um: float) -> bool:
    """Whether a cube has the wavelengths around a line that its measurement takes, um."""
    low, high = (line_um * (1.0 + velocity / C_KMS) for velocity in (-2000.0, 2200.0))
    return bool(cube.wave_um[0] <= low and cube.wave_um[-1] >= high)


def _fluxes(cube: Cube, centre: tuple[float, float], radii: Sequence[float], blank: list[float]) -> list[np.ndarray]:
    """Flux at each wavelength and place, for each radius; NaN where the aperture is not whole."""
    images = np.array([linemerit.line_image(cube, at) for at in blank]).reshape(len(blank), -1)
    filled, known = np.nan_to_num(images) * linemerit.square_arcsec(cube), np.isfinite(images)
    found = []
    for radius in radii:
        weights = [linemerit.aperture_weights(cube, centre, radius, tuple(at)).ravel() for at in _PLACES]
        weights = np.array(weights).T
        flux, whole = filled @ weights, (known @ weights) / np.maximum(weights.sum(axis=0), 1e-9)
        found.append(np.where(whole > 0.98, flux / np.maximum(whole, 1e-9), np.nan))
    return found


def _levels(cube: Cube, centre: tuple[float, float], radius: float, blank: list[float]) -> np.ndarray:
    """Mean brightness of an aperture around each wavelength, MJy/sr."""
    weights = linemerit.aperture_weights(cube, centre, radius)
    levels = []
    for at in blank:
        part = cube.data[np.abs(cube.wave_um / at - 1.0) <= linemerit.HALF_KMS / C_KMS]
        known = np.isfinite(part) * weights
        levels.append(np.nansum(part * weights) / known.sum() if known.any() else np.nan)
    return np.array(levels)


def _scatter(values: np.ndarray) -> float:
    return float(biweight_scale(values, ignore_nan=True)) if values.size else float("nan")
