"""How good a line image of a cube is: flux, centre, width and noise, measured alike on spaxels of any shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from scipy import fft
from scipy.ndimage import map_coordinates
from scipy.optimize import least_squares

from msa3d.constants import C_KMS, LINES
from msa3d.cube import Cube
from msa3d.cube.sky import ARCSEC_PER_RADIAN
from msa3d.science.lines import to_line_flux

HALF_KMS = 350.0
"""Half width of the window that a line's flux is summed over."""

SIDES_KMS = ((-1900.0, -1000.0), (1250.0, 2150.0))
"""Where the continuum below a line is taken from: between H-alpha and [N II] and beyond."""

FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
_SUB_ARCSEC = 0.01


@dataclass(frozen=True, eq=False)
class TruthImage:
    """Surface brightness of a line behind the telescope.

    Attributes
    ----------
    flux : numpy.ndarray, shape (n_y, n_x)
        In erg s-1 cm-2 arcsec-2.
    wcs : astropy.wcs.WCS
        Celestial, north up.
    pixel_arcsec : float
        Size of a pixel.
    """

    flux: np.ndarray
    wcs: WCS
    pixel_arcsec: float

    @classmethod
    def read(cls, path: Path, line: str = "Ha") -> TruthImage:
        """Read a line's image from the truth of a simulated source.

        Parameters
        ----------
        path : pathlib.Path
            Truth file.
        line : str
            Name of the line.

        Returns
        -------
        TruthImage
        """
        with fits.open(path) as hdus:
            hdu = hdus[f"OBS_{line}"]
            wcs = WCS(hdu.header)
            pixel_arcsec = float(proj_plane_pixel_scales(wcs)[1]) * 3600.0
            return cls(np.array(hdu.data, dtype=float), wcs, pixel_arcsec)

    def through_slit(self, width_arcsec: float, height_arcsec: float, pa_deg: float) -> TruthImage:
        """Average over what a pixel sees through the slit: the sharpest image that the data hold.

        Parameters
        ----------
        width_arcsec, height_arcsec : float
            Width of the slit, and of a pixel along it.
        pa_deg : float
            Position angle of the slit, deg east of north.

        Returns
        -------
        TruthImage
            Convolved with that rectangle.
        """
        along, across = self._frequencies(pa_deg)
        return self._filtered(np.sinc(along * height_arcsec) * np.sinc(across * width_arcsec))

    def blurred(self, along_arcsec: float, across_arcsec: float, pa_deg: float) -> TruthImage:
        """Convolve with a Gaussian whose axes are those of the slit.

        Parameters
        ----------
        along_arcsec, across_arcsec : float
            Its full widths at half maximum, along the slit and across it.
        pa_deg : float
            Position angle of the slit, deg east of north.

        Returns
        -------
        TruthImage
        """
        along, across = self._frequencies(pa_deg)
        phase = 2.0 * np.pi / FWHM
        return self._filtered(np.exp(-0.5 * phase**2 * ((along * along_arcsec) ** 2 + (across * across_arcsec) ** 2)))

    def _frequencies(self, pa_deg: float) -> tuple[np.ndarray, np.ndarray]:
        """Spatial frequencies along the slit and across it, cycles an arcsec."""
        ny, nx = self.flux.shape
        north, east = fft.fftfreq(ny, self.pixel_arcsec)[:, None], -fft.fftfreq(nx, self.pixel_arcsec)[None, :]
        angle = np.radians(pa_deg)
        return east * np.sin(angle) + north * np.cos(angle), east * np.cos(angle) - north * np.sin(angle)

    def _filtered(self, transfer: np.ndarray) -> TruthImage:
        return TruthImage(fft.ifft2(fft.fft2(self.flux) * transfer).real, self.wcs, self.pixel_arcsec)

    def at(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Surface brightness at places on the sky, deg; 0 outside the image."""
        x, y = self.wcs.world_to_pixel_values(ra, dec)
        return map_coordinates(self.flux, [y, x], order=3, mode="constant", cval=0.0)


def line_image(cube: Cube, line_um: float) -> np.ndarray:
    """Flux of a line in every spaxel: the sum over a window, less a straight continuum from both sides.

    Nothing is fitted that could go astray in noise, and what it gives is linear in the data.

    Parameters
    ----------
    cube : Cube
        The cube.
    line_um : float
        Wavelength of the line as observed, um.

    Returns
    -------
    numpy.ndarray, shape (n_y, n_x)
        In erg s-1 cm-2 arcsec-2; NaN where more than a fifth of the window, or half of a side, is unknown.

    Raises
    ------
    ValueError
        If the cube's wavelengths do not reach around the line.
    """
    velocity = C_KMS * (cube.wave_um / line_um - 1.0)
    window = np.abs(velocity) <= HALF_KMS
    sides = [(velocity >= low) & (velocity <= high) for low, high in SIDES_KMS]
    if not (window.sum() > 3 and all(side.sum() > 3 for side in sides)):
        raise ValueError(f"{cube.name} does not reach around {line_um:.4f} um")
    side = sides[0] | sides[1]
    values, at = cube.data[side], velocity[side, None, None] / 1000.0
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    count, first, second = (np.sum(known * at**power, axis=0) for power in (0, 1, 2))
    total, moment = filled.sum(axis=0), (filled * at).sum(axis=0)
    enough = np.isfinite(cube.data[window]).mean(axis=0) >= 0.8
    for one in sides:
        enough &= np.isfinite(cube.data[one]).mean(axis=0) >= 0.5
    determinant = np.where(enough, count * second - first**2, 1.0)
    level = (second * total - first * moment) / determinant
    slope = (count * moment - first * total) / determinant
    line = cube.data[window] - level - slope * velocity[window, None, None] / 1000.0
    there = np.isfinite(line)
    mean = np.where(there, line, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    steps = np.gradient(cube.wave_um)[window]
    return np.where(enough, to_line_flux(mean * steps.sum(), line_um), np.nan)


def blank_lines(redshift: float, line: str = "Ha", reach_kms: float = 12000.0) -> np.ndarray:
    """Wavelengths around a line, um, at which `line_image` sees neither lines nor itself twice."""
    centre = LINES[line] * (1.0 + redshift)
    lines = np.array([rest * (1.0 + redshift) for rest in LINES.values()])
    found = []
    for velocity in np.arange(-reach_kms, reach_kms + 1.0, 2.0 * HALF_KMS):
        at = centre * (1.0 + velocity / C_KMS)
        away = C_KMS * (lines / at - 1.0)
        if not ((away > SIDES_KMS[0][0] - 400.0) & (away < SIDES_KMS[1][1] + 400.0)).any():
            found.append(at)
    return np.array(found)


def aperture_weights(
    cube: Cube, centre: tuple[float, float], radius_arcsec: float, at: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Fraction of every spaxel that lies in a circle.

    Parameters
    ----------
    cube : Cube
        Whose spaxels they are.
    centre : tuple of float
        Origin, ICRS, deg.
    radius_arcsec : float
        Radius.
    at : tuple of float
        Middle of the circle, east and north of the origin, arcsec.

    Returns
    -------
    numpy.ndarray, shape (n_y, n_x)
        Between 0 and 1.
    """
    ny, nx = cube.shape
    east, north = cube.offsets(*centre, corners=True)
    steps = [np.hypot(np.diff(east, axis=axis), np.diff(north, axis=axis)).mean() for axis in (0, 1)]
    n = [max(1, int(np.ceil(step / _SUB_ARCSEC))) for step in steps]
    y = (np.arange(ny * n[0]) + 0.5) / n[0] - 0.5
    x = (np.arange(nx * n[1]) + 0.5) / n[1] - 0.5
    # Locally the map is affine: from the corners of the array, not through the WCS point by point.
    grid_y, grid_x = np.meshgrid((y + 0.5) / ny, (x + 0.5) / nx, indexing="ij")
    places = []
    for corner in (east, north):
        origin = corner[0, 0]
        places.append(origin + grid_y * (corner[-1, 0] - origin) + grid_x * (corner[0, -1] - origin))
    inside = np.hypot(places[0] - at[0], places[1] - at[1]) <= radius_arcsec
    return inside.reshape(ny, n[0], nx, n[1]).mean(axis=(1, 3))


@dataclass(frozen=True)
class Match:
    """How a line image differs from the truth.

    Attributes
    ----------
    flux : float
        Brightness over that of the truth.
    east, north : float
        Shift, arcsec.
    along, across : float
        Full widths at half maximum, along the slit and across it, of the Gaussian that the truth has to be
        convolved with to look like the image, arcsec.
    """

    flux: float
    east: float
    north: float
    along: float
    across: float

    @property
    def fwhm(self) -> float:
        """Root mean square of the two widths, arcsec."""
        return float(np.hypot(self.along, self.across) / np.sqrt(2.0))

    @property
    def shift(self) -> float:
        """Length of the shift, arcsec."""
        return float(np.hypot(self.east, self.north))


def match(image: np.ndarray, cube: Cube, truth: TruthImage, pa_deg: float, sigma: np.ndarray | None = None) -> Match:
    """Fit the truth to a line image: its flux, a shift, and a Gaussian blur with the axes of the slit.

    The blur is what slit, detector and builder do to the image together. All of the image's structure counts, which
    makes it sharper a measure in noise than the width of the source itself.

    Parameters
    ----------
    image : numpy.ndarray, shape (n_y, n_x)
        Brightness, NaN left out.
    cube : Cube
        Whose spaxels they are.
    truth : TruthImage
        Behind the telescope, not through the slit.
    pa_deg : float
        Position angle of the slit.
    sigma : numpy.ndarray, shape (n_y, n_x), optional
        Noise of the spaxels, in any unit; all the same without it.

    Returns
    -------
    Match
        NaN where fewer than ten spaxels are known.
    """
    sigma = np.ones(image.shape) if sigma is None else sigma
    use = np.isfinite(image / sigma)
    if use.sum() < 10:
        return Match(*[np.nan] * 5)
    ra, dec = (item[use] for item in cube.spaxel_sky())
    values, weight = image[use], np.median(sigma[use]) / sigma[use]
    scale = np.cos(np.radians(dec))
    norm = float(np.sqrt(np.mean(truth.at(ra, dec) ** 2))) or 1.0

    def residuals(p: np.ndarray) -> np.ndarray:
        model = truth.blurred(p[3], p[4], pa_deg).at(ra - p[1] / scale / 3600.0, dec - p[2] / 3600.0)
        return weight * (p[0] * model - values) / norm

    limits = ([0.0, -0.5, -0.5, 0.0, 0.0], [np.inf, 0.5, 0.5, 1.5, 1.5])
    start = [1.0, 0.0, 0.0, 0.15, 0.15]
    # The steps of the derivatives are wide against the truth's interpolation, narrow against its structure.
    fit = least_squares(residuals, start, bounds=limits, x_scale=[1.0, 0.1, 0.1, 0.1, 0.1], diff_step=1e-4)
    return Match(*(float(value) for value in fit.x))


def laid_on(image: np.ndarray, cube: Cube, onto: Cube) -> np.ndarray:
    """Lay the spaxels of an image on those of another cube, by their common area.

    Parameters
    ----------
    image : numpy.ndarray, shape (n_y, n_x)
        One value a spaxel of `cube`; NaN takes no part.
    cube, onto : Cube
        Whose spaxels they are, and are to be.

    Returns
    -------
    numpy.ndarray, shape of the spaxels of `onto`
        Means over the common area; NaN where less than half of a spaxel is known.
    """
    ny, nx = onto.shape
    n = max(1, int(np.ceil(np.sqrt(square_arcsec(onto)) / _SUB_ARCSEC)))
    y, x = ((np.arange(size * n) + 0.5) / n - 0.5 for size in (ny, nx))
    places = onto.wcs.pixel_to_world_values(*np.meshgrid(x, y))
    column, row = (np.rint(item).astype(int) for item in cube.wcs.world_to_pixel_values(*places))
    inside = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
    fine = np.where(inside, image[np.where(inside, row, 0), np.where(inside, column, 0)], np.nan)
    blocks = fine.reshape(ny, n, nx, n)
    known = np.isfinite(blocks).sum(axis=(1, 3))
    total = np.nansum(blocks, axis=(1, 3))
    return np.divide(total, known, out=np.full(known.shape, np.nan), where=known >= 0.5 * n * n)


def slit_angle(cube: Cube) -> float:
    """Position angle of a cube's y axis, deg east of north."""
    ny, nx = cube.shape
    east, north = cube.offsets(*(float(value[ny // 2, nx // 2]) for value in cube.spaxel_sky()))
    return float(np.degrees(np.arctan2(east[-1, 0] - east[0, 0], north[-1, 0] - north[0, 0])))


def square_arcsec(cube: Cube) -> float:
    """Area of a spaxel, arcsec squared."""
    return cube.pixel_sr * ARCSEC_PER_RADIAN**2
