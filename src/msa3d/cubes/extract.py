"""Apertures on a cube, and their spectra with errors that know the covariance of the voxels (files as jwst's x1d)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from photutils.aperture import EllipticalAperture

from msa3d.cubes import psf
from msa3d.cubes.cube import CORRELATION, Cube
from msa3d.cubes.files import write_model
from msa3d.errors import ProductError
from msa3d.observation.sky import DO_NOT_USE, from_tangent, tangent_offsets
from msa3d.pipeline.products import stamp

if TYPE_CHECKING:
    from astropy.nddata import NDData


_DISC_THICKNESS = 0.2
"""Axis ratio of a disc seen edge-on (Hubble 1926), for inclinations."""


class CubeAperture(Protocol):
    """Anything that tells how much of each spaxel of a cube it covers."""

    def weights(self, cube: Cube) -> np.ndarray:
        """Covered part of every spaxel, 0 to 1, shape (n_y, n_x)."""
        ...

    def describe(self) -> str:
        """Say what it is, for headers."""
        ...


@dataclass(frozen=True)
class Ellipse:
    """An ellipse on the sky; spaxels at its edge count with the part of them that lies inside, exactly.

    Attributes
    ----------
    ra, dec : float
        Centre, ICRS, deg.
    semi_major_arcsec : float
        Semi-major axis: the half-light radius, for the ellipse that holds half of a galaxy's light.
    axis_ratio : float
        Minor over major axis, more than 0, at most 1.
    pa_deg : float
        Position angle of the major axis, east of north.
    """

    ra: float
    dec: float
    semi_major_arcsec: float
    axis_ratio: float = 1.0
    pa_deg: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no ellipse."""
        if not (self.semi_major_arcsec > 0 and 0 < self.axis_ratio <= 1):
            raise ProductError(
                f"an aperture of semi-major axis {self.semi_major_arcsec:g} arcsec and axis ratio "
                f"{self.axis_ratio:g} is no ellipse: the first must be positive, the second above 0 and at most 1"
            )

    @classmethod
    def inclined(
        cls,
        ra: float,
        dec: float,
        semi_major_arcsec: float,
        inclination_deg: float,
        pa_deg: float,
        thickness: float = _DISC_THICKNESS,
    ) -> Ellipse:
        """Make the outline of an inclined disc.

        Parameters
        ----------
        ra, dec : float
            Centre, ICRS, deg.
        semi_major_arcsec : float
            Radius in the plane of the disc.
        inclination_deg : float
            0 is face-on.
        pa_deg : float
            Position angle of the major axis, east of north.
        thickness : float
            Axis ratio q0 of the disc edge-on: q^2 = q0^2 + (1 - q0^2) cos^2 i; 0 for an infinitely thin one.
        """
        cosine = np.cos(np.radians(inclination_deg))
        ratio = float(np.sqrt(thickness**2 + (1.0 - thickness**2) * cosine**2))
        return cls(ra, dec, semi_major_arcsec, ratio, pa_deg)

    def weights(self, cube: Cube) -> np.ndarray:
        """Part, 0 to 1, of every spaxel (they may be rotated, oblong or sheared) that lies inside, shape (n_y, n_x).

        The sum is the ellipse's area in spaxels where all of it lies on the cube.
        """
        x, y = (float(value) for value in cube.wcs.world_to_pixel_values(self.ra, self.dec))
        around = cube.wcs.pixel_to_world_values(x + np.array([0.0, 1.0, 0.0]), y + np.array([0.0, 0.0, 1.0]))
        points = np.array(tangent_offsets(around[0], around[1], self.ra, self.dec))
        to_sky = points[:, 1:] - points[:, :1]  # (east, north) arcsec of one step in x, and in y
        sin, cos = np.sin(np.radians(self.pa_deg)), np.cos(np.radians(self.pa_deg))
        # Along (major, minor) axis, in units of the semi-axes: the unit circle, seen from the pixels.
        to_circle = np.array([[sin, cos], [cos, -sin]]) @ to_sky / self.semi_major_arcsec
        to_circle[1] /= self.axis_ratio
        # An ellipse stays one under a linear map; its axes in pixels are the singular vectors.
        _, scales, axes = np.linalg.svd(to_circle)
        theta = np.arctan2(axes[1, 1], axes[1, 0])
        ellipse = EllipticalAperture((x, y), 1.0 / scales[1], 1.0 / scales[0], theta=theta)
        image = ellipse.to_mask(method="exact").to_image(cube.shape)
        return np.zeros(cube.shape) if image is None else image

    def describe(self) -> str:
        """Say what it is, for headers."""
        if self.axis_ratio == 1.0:
            return f"circle {self.ra:.7f} {self.dec:.7f} deg, {self.semi_major_arcsec:g} arcsec"
        return (
            f"ellipse {self.ra:.7f} {self.dec:.7f} deg, {self.semi_major_arcsec:g} arcsec, "
            f"axis ratio {self.axis_ratio:.4g}, PA {self.pa_deg:g} deg"
        )


def circle(ra: float, dec: float, radius_arcsec: float) -> Ellipse:
    """Make a circular aperture, its centre ICRS (deg)."""
    return Ellipse(ra, dec, radius_arcsec)


@dataclass(frozen=True, eq=False)
class Mask:
    """An aperture given spaxel by spaxel.

    Attributes
    ----------
    image : numpy.ndarray, shape (n_y, n_x)
        True, or the part from 0 to 1, of the spaxels that belong to it; NaN is 0.
    name : str
        What it is called, for headers.
    """

    image: np.ndarray
    name: str = "mask"

    @classmethod
    def read(cls, path: Path) -> Mask:
        """Read a mask from the first two-dimensional image of a FITS file.

        Raises
        ------
        msa3d.errors.ProductError
            If there is no such file or image.
        """
        try:
            with fits.open(path, memmap=False) as hdus:
                images = [hdu.data for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS") == 2]
        except OSError as error:
            raise ProductError(f"{path}: no FITS file with a mask image ({error})") from error
        if not images:
            raise ProductError(f"{path} holds no image with two axes that could be a mask")
        return cls(np.asarray(images[0], dtype=float), Path(path).name)

    def weights(self, cube: Cube) -> np.ndarray:
        """The image, 0 to 1, shape (n_y, n_x), NaN as 0.

        Raises
        ------
        msa3d.errors.ProductError
            If the image has another shape than the cube's spaxels, or values outside 0 to 1.
        """
        image = np.nan_to_num(np.asarray(self.image, dtype=float))
        if image.shape != cube.shape:
            raise ProductError(f"{self.name} has the shape {image.shape}, but the spaxels of {cube.name} {cube.shape}")
        if image.min() < 0 or image.max() > 1:
            raise ProductError(f"{self.name} has values from {image.min():g} to {image.max():g}: a mask is 0 to 1")
        return image

    def describe(self) -> str:
        """Say what it is, for headers."""
        return self.name


_JY_PER_MJY = 1e6
_LEAST_COVERAGE = 0.5
"""Wavelengths at which less of the aperture than this holds data have no flux."""

_LIGHT_ARCSEC = 0.3
_CLOSE_ENOUGH_ARCSEC = 1e-3
_MOST_STEPS = 50


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

    def to_specutils(self) -> NDData:
        """Hand it to specutils.

        Returns
        -------
        specutils.Spectrum1D (Spectrum since specutils 2)
            In Jy over um, its uncertainty a standard deviation, masked where there is no flux; ``meta`` holds
            the correlation along wavelength (``"correlation"``) and what the aperture is.
        """
        import astropy.units as u
        import specutils
        from astropy.nddata import StdDevUncertainty

        # So called since specutils 2.
        spectrum = specutils.Spectrum if hasattr(specutils, "Spectrum") else specutils.Spectrum1D
        return spectrum(
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
        """
        from stdatamodels.jwst.datamodels import MultiSpecModel

        path = Path(path)
        primary = self.primary.copy()
        for key in ("DATAMODL", "FILENAME", "DATE", "CHECKSUM", "DATASUM"):
            primary.remove(key, ignore_missing=True)
        stamp(
            primary,
            inputs=[self.name],
            simulated=self.simulated or None,
            step="extract",
            history=[f"Spectrum of {self.aperture}."],
        )
        ours = [fits.ImageHDU(self.weights, self.wcs.to_header(), name="APERTURE")]
        if self.correlation is not None:
            ours.append(fits.ImageHDU(self.correlation, name=CORRELATION))
            ours[-1].header.add_comment("Correlation coefficient of the errors, by lag 0, 1, ... in wavelength.")
        write_model(path, MultiSpecModel, [fits.PrimaryHDU(header=primary), _table(self, srctype)], ours)
        return path


def extract(cube: Cube, aperture: CubeAperture) -> ApertureSpectrum:
    """Take the spectrum of an aperture.

    Spaxels count with the part of them that lies in the aperture. A voxel without data, in a spaxel that has
    data elsewhere, counts as the mean of the others; spaxels without any data do not belong to the aperture.

    Parameters
    ----------
    cube : Cube
        The cube.
    aperture : CubeAperture
        `Ellipse`, `circle` or `Mask`.

    Raises
    ------
    msa3d.errors.ProductError
        If no spaxel with data lies in the aperture.

    Examples
    --------
    A cube of 1 MJy/sr everywhere, with spaxels of 0.1 arcsec, and a circle of 0.3 arcsec:

    >>> import numpy as np
    >>> from astropy.wcs import WCS
    >>> from msa3d import Cube, circle, extract
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [215.0, 52.9], [8, 8]
    >>> wcs.wcs.cdelt = [-0.1 / 3600, 0.1 / 3600]
    >>> cube = Cube(np.ones((3, 15, 15)), np.array([1.3, 1.4, 1.5]), wcs, np.radians(0.1 / 3600) ** 2)
    >>> spectrum = extract(cube, circle(215.0, 52.9, 0.3))
    >>> np.round(spectrum.flux_jy * 1e6, 2)
    array([6.65, 6.65, 6.65])
    """
    finite = np.isfinite(cube.data)
    # The published builder fills with zeros what no exposure saw.
    seen = (finite & (cube.data != 0)).any(axis=0)
    weights = np.where(seen, aperture.weights(cube), 0.0)
    total = float(weights.sum())
    if total <= 0:
        raise ProductError(f"{cube.name} has no data in the aperture ({aperture.describe()}): choose another place")
    covered = np.tensordot(finite, weights, axes=([1, 2], [0, 1])) / total
    enough = covered >= _LEAST_COVERAGE
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = 1.0 / np.where(enough, covered * total, np.nan)
    brightness = np.tensordot(np.where(finite, cube.data, 0.0), weights, axes=([1, 2], [0, 1])) * mean
    error = cube.sum_error(weights)
    error = None if error is None else error * mean
    area = total * cube.pixel_sr
    return ApertureSpectrum(
        wave_um=cube.wave_um,
        flux_jy=brightness * area * _JY_PER_MJY,
        err_jy=None if error is None else error * area * _JY_PER_MJY,
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
    variance = [psf.quadratic_form(typical[None], plane)[0] for plane in cube.correlation[middle:]]
    return np.array(variance) / variance[0] if variance[0] > 0 else None


def brightest(cube: Cube) -> tuple[float, float]:
    """Right ascension and declination, ICRS, deg, of the middle of the brightest thing in a cube.

    It is the centre of light within 0.3 arcsec, first of the brightest spaxel, then of the centre found.

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
    for _ in range(_MOST_STEPS):
        near = circle(ra, dec, _LIGHT_ARCSEC).weights(cube) * np.isfinite(image)
        weight = near * np.nan_to_num(image - np.nanmin(np.where(near > 0, image, np.nan)))
        if weight.sum() <= 0:
            break
        # The circle follows the light, as a circle off the middle cuts off more on one side.
        east, north = (float((weight * axis).sum() / weight.sum()) for axis in cube.offsets(ra, dec))
        ra, dec = (float(value) for value in from_tangent(east, north, ra, dec))
        if np.hypot(east, north) < _CLOSE_ENOUGH_ARCSEC:
            break
    return ra, dec


_VARIANCES = ("POISSON", "RNOISE", "FLAT")


def _table(spectrum: ApertureSpectrum, srctype: str) -> fits.BinTableHDU:
    """EXTRACT1D, its columns in jwst's order."""
    unknown = np.full(spectrum.wave_um.size, np.nan)
    nothing = np.zeros(spectrum.wave_um.size)

    def group(name: str, error: str, part: str, unit: str, value: np.ndarray, sigma: np.ndarray | None) -> list:
        columns = [(name, "D", unit, value), (error, "D", unit, unknown if sigma is None else sigma)]
        squared = {"Jy": "Jy2", "MJy/sr": "MJy2 sr-2"}[unit]
        return columns + [(f"{part}_VAR_{kind}", "D", squared, unknown) for kind in _VARIANCES]

    columns = [
        ("WAVELENGTH", "D", "um", spectrum.wave_um),
        *group("FLUX", "FLUX_ERROR", "FLUX", "Jy", spectrum.flux_jy, spectrum.err_jy),
        *group("SURF_BRIGHT", "SB_ERROR", "SB", "MJy/sr", spectrum.brightness, spectrum.brightness_err),
        ("DQ", "J", None, spectrum.dq),
        *group("BACKGROUND", "BKGD_ERROR", "BKGD", "MJy/sr", nothing, nothing),
        ("NPIXELS", "D", None, spectrum.coverage * spectrum.weights.sum()),
    ]
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name=name, format=kind, unit=unit, array=array, bzero=2**31 if kind == "J" else None)
            for name, kind, unit, array in columns
        ],
        name="EXTRACT1D",
    )
    header = table.header
    header["SRCTYPE"] = (srctype, "POINT: readers take FLUX; EXTENDED: SURF_BRIGHT")
    header["EXTVER"] = 1
    header["DISPAXIS"] = (3, "of the cube")
    header["SPORDER"] = (-1, "spectral order")
    if "SOURCEID" in spectrum.primary:
        header["SOURCEID"] = (spectrum.primary["SOURCEID"], "source in the MSA metafile")
    header["PIXAR_SR"] = (spectrum.area_sr / float(spectrum.weights.sum()), "[sr] area of a spaxel")
    header["APERTURE"] = (spectrum.aperture, "what was summed")
    header["APAREA"] = (spectrum.area_sr, "[sr] its area on spaxels with data")
    return table
