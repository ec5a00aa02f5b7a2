"""The spectrum of an aperture: flux density with errors that know the covariance of the cube's voxels.

Every voxel of a cube shares detector pixels with its neighbours. The error of a sum over spaxels follows from
the cube's mean correlation coefficients (`Cube.sum_error`); what of the correlation lies along wavelength stays
in the spectrum and is kept with it, for whoever fits lines.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from msa3d.cube import kernels
from msa3d.cube.aperture import Aperture, circle
from msa3d.cube.cubefile import Cube
from msa3d.cube.product import DO_NOT_USE
from msa3d.cube.sky import from_tangent
from msa3d.errors import ProductError

if TYPE_CHECKING:
    from specutils import Spectrum1D

JY_PER_MJY = 1e6
LEAST_COVERAGE = 0.5
"""Wavelengths at which less of the aperture than this holds data have no flux."""

CLOSE_ENOUGH_ARCSEC = 1e-3
MOST_STEPS = 50


@dataclass(frozen=True, eq=False)
class ApertureSpectrum:
    """Spectrum of an aperture; arrays have the shape (n_wave,).

    Attributes
    ----------
    wave_um : numpy.ndarray
        Vacuum wavelength, um, in the observer's frame.
    flux_jy : numpy.ndarray
        Flux density, Jy: mean brightness times the solid angle of the aperture (where the cube has data at
        all); NaN where less than half of it holds data.
    err_jy : numpy.ndarray or None
        One sigma, with the correlation between the spaxels; None where the cube has no errors.
    brightness, brightness_err : numpy.ndarray
        Mean surface brightness of the aperture and one sigma (or None), MJy/sr.
    coverage : numpy.ndarray
        Part of the aperture that holds data, 0 to 1.
    dq : numpy.ndarray of uint32
        1 (jwst's DO_NOT_USE) where there is no flux.
    correlation : numpy.ndarray or None, shape (n_lag,)
        Correlation coefficient of the errors of two wavelengths, by their lag 0, 1, ... in the cube's steps.
    weights : numpy.ndarray, shape (n_y, n_x)
        Part of each spaxel that was taken.
    area_sr : float
        Solid angle of the aperture on spaxels with data.
    aperture : str
        What the aperture is.
    simulated : bool
        Whether the data come from a simulation.
    name : str
        File name of the cube.
    wcs : astropy.wcs.WCS
        Of the weights.
    primary : astropy.io.fits.Header
        Primary header of the cube.
    """

    wave_um: np.ndarray
    flux_jy: np.ndarray
    err_jy: np.ndarray | None
    brightness: np.ndarray
    brightness_err: np.ndarray | None
    coverage: np.ndarray
    dq: np.ndarray
    correlation: np.ndarray | None
    weights: np.ndarray
    area_sr: float
    aperture: str
    simulated: bool
    name: str
    wcs: WCS = field(repr=False)
    primary: fits.Header = field(repr=False)

    def to_specutils(self) -> Spectrum1D:
        """Hand it to specutils.

        Returns
        -------
        specutils.Spectrum1D
            In Jy over um, its uncertainty a standard deviation, masked where there is no flux; ``meta`` holds
            the correlation along wavelength (``"correlation"``) and what the aperture is.
        """
        import astropy.units as u
        from astropy.nddata import StdDevUncertainty
        from specutils import Spectrum1D

        return Spectrum1D(
            flux=self.flux_jy * u.Jy,
            spectral_axis=self.wave_um * u.um,
            uncertainty=None if self.err_jy is None else StdDevUncertainty(self.err_jy * u.Jy),
            mask=self.dq > 0,
            meta={
                "correlation": self.correlation,
                "aperture": self.aperture,
                "cube": self.name,
                "simulated": self.simulated,
            },
        )

    def write(self, path: str | Path, srctype: str = "POINT") -> Path:
        """Write a file as jwst writes its x1d, whole or not at all.

        EXTRACT1D has jwst's columns, those that are not known (the parts of the variance) being NaN; the
        images CORR (by lag) and APERTURE (part of each spaxel) say what x1d has no place for.

        Parameters
        ----------
        path : str or pathlib.Path
            The file; another of that name is replaced.
        srctype : str
            Keyword SRCTYPE, by which readers choose: POINT shows them FLUX, EXTENDED shows SURF_BRIGHT.

        Returns
        -------
        pathlib.Path
            The file.
        """
        from msa3d.cube.x1dwrite import write_x1d

        return write_x1d(self, Path(path), srctype)


def extract(cube: Cube, aperture: Aperture) -> ApertureSpectrum:
    """Take the spectrum of an aperture.

    Spaxels count with the part of them that lies in the aperture. A voxel without data, in a spaxel that has
    data elsewhere, counts as the mean of the others; spaxels without any data do not belong to the aperture.

    Parameters
    ----------
    cube : Cube
        The cube.
    aperture : Aperture
        `Ellipse`, `circle` or `Mask`.

    Returns
    -------
    ApertureSpectrum

    Raises
    ------
    msa3d.errors.ProductError
        If no spaxel with data lies in the aperture.
    """
    finite = np.isfinite(cube.data)
    # The published builder fills with zeros what no exposure saw.
    seen = (finite & (cube.data != 0)).any(axis=0)
    weights = np.where(seen, aperture.weights(cube), 0.0)
    total = float(weights.sum())
    if total <= 0:
        raise ProductError(f"{cube.name} has no data in the aperture ({aperture.describe()}): choose another place")
    covered = np.tensordot(finite, weights, axes=([1, 2], [0, 1])) / total
    enough = covered >= LEAST_COVERAGE
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = 1.0 / np.where(enough, covered * total, np.nan)
    brightness = np.tensordot(np.where(finite, cube.data, 0.0), weights, axes=([1, 2], [0, 1])) * mean
    error = cube.sum_error(weights)
    error = None if error is None else error * mean
    area = total * cube.pixel_sr
    return ApertureSpectrum(
        wave_um=cube.wave_um,
        flux_jy=brightness * area * JY_PER_MJY,
        err_jy=None if error is None else error * area * JY_PER_MJY,
        brightness=brightness,
        brightness_err=error,
        coverage=covered,
        dq=np.where(enough, np.uint32(0), np.uint32(DO_NOT_USE)),
        correlation=_along_wavelength(cube, weights),
        weights=weights,
        area_sr=area,
        aperture=aperture.describe(),
        simulated=cube.simulated,
        name=cube.name,
        wcs=cube.wcs,
        primary=cube.primary,
    )


def _along_wavelength(cube: Cube, weights: np.ndarray) -> np.ndarray | None:
    """Correlation coefficient along wavelength of the sum over spaxels, at lags 0, 1, ...; None if unknown."""
    if cube.correlation is None or cube.err is None:
        return None
    with warnings.catch_warnings():
        # Spaxels without any error take no part.
        warnings.simplefilter("ignore", RuntimeWarning)
        typical = np.nan_to_num(np.nanmedian(cube.err, axis=0)) * weights
    middle = cube.correlation.shape[0] // 2
    variance = [kernels.quadratic_form(typical[None], plane)[0] for plane in cube.correlation[middle:]]
    return np.array(variance) / variance[0] if variance[0] > 0 else None


def brightest(cube: Cube, radius_arcsec: float = 0.3) -> tuple[float, float]:
    """Find the middle of the brightest thing in a cube.

    Parameters
    ----------
    cube : Cube
        The cube.
    radius_arcsec : float
        The centre of light is taken within this, first of the brightest spaxel, then of the centre found.

    Returns
    -------
    tuple of float
        Right ascension and declination, ICRS, deg.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube is empty.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        image = np.nanmedian(cube.data, axis=0)
    # The rims of a cube are noisy: a spaxel needs half of the wavelengths.
    image[np.isfinite(cube.data).mean(axis=0) < 0.5] = np.nan
    if not np.isfinite(image).any():
        raise ProductError(f"{cube.name} holds no data to find a centre in: give right ascension and declination")
    y, x = np.unravel_index(np.nanargmax(image), image.shape)
    ra, dec = (float(value) for value in cube.wcs.pixel_to_world_values(x, y))
    for _ in range(MOST_STEPS):
        near = circle(ra, dec, radius_arcsec).weights(cube) * np.isfinite(image)
        weight = near * np.nan_to_num(image - np.nanmin(np.where(near > 0, image, np.nan)))
        if weight.sum() <= 0:
            break
        # The circle follows the light, as a circle off the middle cuts off more on one side.
        east, north = (float((weight * axis).sum() / weight.sum()) for axis in cube.offsets(ra, dec))
        ra, dec = (float(value) for value in from_tangent(east, north, ra, dec))
        if np.hypot(east, north) < CLOSE_ENOUGH_ARCSEC:
            break
    return ra, dec
