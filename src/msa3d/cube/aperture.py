"""Apertures on the sky, and how much of every spaxel of a cube lies in one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from astropy.io import fits
from photutils.aperture import EllipticalAperture

from msa3d.cube.cubefile import Cube
from msa3d.cube.sky import tangent_offsets
from msa3d.errors import ProductError

DISC_THICKNESS = 0.2
"""Axis ratio of a disc seen edge-on (Hubble 1926), for inclinations."""


class Aperture(Protocol):
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
        thickness: float = DISC_THICKNESS,
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

        Returns
        -------
        Ellipse
        """
        cosine = np.cos(np.radians(inclination_deg))
        ratio = float(np.sqrt(thickness**2 + (1.0 - thickness**2) * cosine**2))
        return cls(ra, dec, semi_major_arcsec, ratio, pa_deg)

    def weights(self, cube: Cube) -> np.ndarray:
        """Part of every spaxel that lies inside.

        Parameters
        ----------
        cube : Cube
            The cube; its spaxels may be rotated, oblong or sheared.

        Returns
        -------
        numpy.ndarray, shape (n_y, n_x)
            0 to 1; the sum is the ellipse's area in spaxels where all of it lies on the cube.
        """
        x, y = (float(value) for value in cube.wcs.world_to_pixel_values(self.ra, self.dec))
        around = cube.wcs.pixel_to_world_values(x + np.array([0.0, 1.0, 0.0]), y + np.array([0.0, 0.0, 1.0]))
        points = np.array(tangent_offsets(*around, self.ra, self.dec))
        to_sky = points[:, 1:] - points[:, :1]  # (east, north) arcsec of one step in x, and in y
        sin, cos = np.sin(np.radians(self.pa_deg)), np.cos(np.radians(self.pa_deg))
        # Along (major, minor) axis, in units of the semi-axes: the unit circle, seen from the pixels.
        to_circle = np.array([[sin, cos], [cos, -sin]]) @ to_sky / self.semi_major_arcsec
        to_circle[1] /= self.axis_ratio
        # An ellipse stays one under a linear map; its axes in pixels are the singular vectors.
        _, scales, axes = np.linalg.svd(to_circle)
        theta = np.arctan2(axes[1, 1], axes[1, 0])
        ellipse = EllipticalAperture((x, y), 1.0 / scales[1], 1.0 / scales[0], theta)
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
    """Make a circular aperture.

    Parameters
    ----------
    ra, dec : float
        Centre, ICRS, deg.
    radius_arcsec : float
        Its radius.

    Returns
    -------
    Ellipse
    """
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
        """Read a mask.

        Parameters
        ----------
        path : pathlib.Path
            A FITS file; its first two-dimensional image is taken.

        Returns
        -------
        Mask

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
        """Give the image, after a look at its shape and values.

        Parameters
        ----------
        cube : Cube
            The cube.

        Returns
        -------
        numpy.ndarray, shape (n_y, n_x)
            0 to 1.

        Raises
        ------
        msa3d.errors.ProductError
            If the image has another shape, or values outside 0 to 1.
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
