"""The voxels of a drizzled cube: where they are on the sky and in wavelength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from astropy.wcs import WCS

from msa3d.errors import ProductError
from msa3d.observation.sky import SR_PER_SQUARE_ARCSEC, from_tangent

if TYPE_CHECKING:
    from msa3d.cubes.settings import DrizzleSettings
    from msa3d.cubes.slit import SlitPixels


_MAX_VOXELS = 2**31 - 1
_UNEVEN = 0.8
"""Shortest pixel over the median, below which the bins follow the former. That of a grating is above 0.9."""


@dataclass(frozen=True, eq=False)
class SkyGrid:
    """A regular grid of voxels.

    Attributes
    ----------
    ra, dec : float
        Sky position of the middle of the grid, deg; tangent point.
    pa_deg : float
        Position angle of the y axis, east of north; x is 90 deg from it, to the west where y is north.
    scale_arcsec : float
        Size of a (square) spaxel.
    wave0_um, step_um : float
        Wavelength of the middle of the first bin, and the bins' width.
    shape : tuple of int
        ``(n_wave, n_y, n_x)``.
    """

    ra: float
    dec: float
    pa_deg: float
    scale_arcsec: float
    wave0_um: float
    step_um: float
    shape: tuple[int, int, int]

    @property
    def wave_um(self) -> np.ndarray:
        """Wavelengths of the bins' middles, um."""
        return self.wave0_um + np.arange(self.shape[0]) * self.step_um

    @property
    def area_sr(self) -> float:
        """Solid angle of a spaxel."""
        return self.scale_arcsec**2 * SR_PER_SQUARE_ARCSEC

    @property
    def rotation(self) -> np.ndarray:
        """Matrix from offsets (east, north) to (x, y), both in arcsec."""
        sin, cos = np.sin(np.radians(self.pa_deg)), np.cos(np.radians(self.pa_deg))
        return np.array([[-cos, sin], [sin, cos]])

    def spaxels(self, east: np.ndarray, north: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn offsets from the middle of the grid, arcsec, into spaxels (x, y) that count from 0."""
        matrix = self.rotation / self.scale_arcsec
        x = matrix[0, 0] * east + matrix[0, 1] * north + (self.shape[2] - 1) / 2
        y = matrix[1, 0] * east + matrix[1, 1] * north + (self.shape[1] - 1) / 2
        return x, y

    def bins(self, wave_um: np.ndarray) -> np.ndarray:
        """Turn wavelengths, um, into bins that count from 0."""
        return (wave_um - self.wave0_um) / self.step_um

    def wcs(self) -> WCS:
        """FITS WCS of the grid: positive CDELT, rotation and handedness in PC."""
        wcs = WCS(naxis=3)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "WAVE"]
        wcs.wcs.cunit = ["deg", "deg", "um"]
        wcs.wcs.crval = [self.ra, self.dec, self.wave0_um]
        wcs.wcs.crpix = [(self.shape[2] + 1) / 2, (self.shape[1] + 1) / 2, 1.0]
        wcs.wcs.cdelt = [self.scale_arcsec / 3600.0, self.scale_arcsec / 3600.0, self.step_um]
        matrix = np.eye(3)
        matrix[:2, :2] = self.rotation.T  # A rotation with a flip is its own inverse's transpose.
        wcs.wcs.pc = matrix
        wcs.wcs.radesys = "ICRS"
        return wcs


def slit_pa(slits: Sequence[SlitPixels]) -> float:
    """Position angle of the +y direction along the slit, deg east of north, mean of all slits."""
    units = []
    for slit in slits:
        east = (slit.east[:, 2:] - slit.east[:, :2][:, ::-1]).mean()
        north = (slit.north[:, 2:] - slit.north[:, :2][:, ::-1]).mean()
        units.append(np.array([east, north]) / np.hypot(east, north))
    east, north = np.mean(units, axis=0)
    return float(np.degrees(np.arctan2(east, north)))


def median_pixel(slits: Sequence[SlitPixels]) -> float:
    """Length of a detector pixel along the spectrum, um, median of all slits."""
    return float(np.median([np.median(np.diff(slit.wave_um)) for slit in slits]))


def make_grid(slits: Sequence[SlitPixels], settings: DrizzleSettings) -> tuple[SkyGrid, list[SlitPixels]]:
    """Lay a grid around what the slits of a source cover.

    Parameters
    ----------
    slits : sequence of SlitPixels
        All slits of the source.
    settings : DrizzleSettings
        Orientation, scales, limits.

    Returns
    -------
    grid : SkyGrid
        The grid.
    slits : list of SlitPixels
        The same slits, their corners around the middle of the grid.

    Raises
    ------
    msa3d.errors.ProductError
        If the limits leave nothing, or the grid would be too large.
    """
    pa_deg = settings.cube_pa if settings.coord_system == "skyalign" else slit_pa(slits) + settings.cube_pa
    scale = settings.scalexy
    ra = slits[0].ra0 if settings.ra_center is None else settings.ra_center
    dec = slits[0].dec0 if settings.dec_center is None else settings.dec_center
    turn = SkyGrid(ra, dec, pa_deg, scale, 1.0, 1.0, (1, 1, 1))
    extents = np.stack([_extent(turn, slit) for slit in slits])
    low, high = extents[:, 0].min(axis=0), extents[:, 1].max(axis=0)
    half = np.maximum(np.abs(low), np.abs(high))
    if settings.ra_center is None:
        # The middle of the grid is where the slits' is; the tangent point goes with it.
        east, north = turn.rotation @ ((low + high) / 2 * scale)
        ra, dec = (float(value) for value in from_tangent(east, north, ra, dec))
        half = (high - low) / 2
    slits = [slit.around(ra, dec) for slit in slits]
    nx, ny = (int(n) for n in 2 * np.ceil(half - 0.5) + 1)
    wave0, step, nw = _wavelengths(slits, settings)
    if nw * ny * nx > _MAX_VOXELS:
        raise ProductError(
            f"a cube of {nw} x {ny} x {nx} voxels is too large: choose a larger drizzle.scalexy or scalew, or "
            "limit it with wavemin and wavemax"
        )
    return SkyGrid(ra, dec, pa_deg, scale, wave0, step, (nw, ny, nx)), slits


def _extent(turn: SkyGrid, slit: SlitPixels) -> np.ndarray:
    """Least and greatest x and y of a slit's corners, in spaxels: [[x, y], [x, y]]."""
    # The tangent planes differ by far less than a pixel: what is outermost in one is so in the other.
    first = turn.spaxels(slit.east, slit.north)
    outermost = np.unique([find(np.ravel(axis)) // 4 for axis in first for find in (np.argmin, np.argmax)])
    few = replace(slit, east=slit.east[outermost], north=slit.north[outermost]).around(turn.ra, turn.dec)
    x, y = turn.spaxels(few.east, few.north)
    return np.array([[x.min(), y.min()], [x.max(), y.max()]])


def _wavelengths(slits: Sequence[SlitPixels], settings: DrizzleSettings) -> tuple[float, float, int]:
    """First wavelength, step and number of bins.

    The step is a pixel; of a prism, whose pixels differ by more than `_UNEVEN`, the shortest one, so that none is lost.
    """
    step = settings.scalew
    if not step:
        step = median_pixel(slits)
        shortest = float(min(np.diff(slit.wave_um).min() for slit in slits))
        step = round(shortest if shortest < _UNEVEN * step else step, 9)
    lowest = min(slit.wave_um.min() for slit in slits)
    highest = max(slit.wave_um.max() for slit in slits)
    first = lowest if settings.wavemin is None else settings.wavemin
    last = highest if settings.wavemax is None else settings.wavemax
    if first >= min(last, highest) or last <= lowest:
        raise ProductError(
            f"drizzle.wavemin and wavemax leave nothing of {lowest:.4f} to {highest:.4f} um: choose others"
        )
    return first + step / 2, step, max(int(np.ceil((last - first) / step - 1e-6)), 1)
