"""Pointing offsets against a given image, such as a mosaic whose astrometry is trusted.

The image is averaged over the slit's width and a pixel's height, as every exposure averages the sky, and fitted to the
profiles along the slit of all exposures: a level and a scale a band, an offset an exposure. Unlike offsets measured
between the exposures themselves (`msa3d.pointing.fit`), these are absolute: the mean of all is free.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import map_coordinates, uniform_filter1d

from msa3d.errors import ProductError
from msa3d.observation.sky import from_tangent
from msa3d.pointing.fit import HUBER, ITERATIONS, LARGEST_STEP, PRIOR_ARCSEC, Solution
from msa3d.pointing.profiles import Band, Frame

log = logging.getLogger(__name__)

SLIT_ARCSEC = 0.2
"""Open width of a shutter on the sky."""
FINE_ARCSEC = 0.02
"""Spacing of the image in the frame of the slit."""
SEARCH_ARCSEC = 0.3
"""How far all exposures together may be from the image."""
TOLERANCE_ARCSEC = 2e-4
"""Step at which the fit has converged."""


@dataclass(frozen=True, eq=False)
class Reference:
    """An image of the sky.

    Attributes
    ----------
    path : pathlib.Path
        Where it was read from.
    data : numpy.ndarray, shape (ny, nx)
        Surface brightness, of any unit; NaN counts as nothing seen.
    wcs : astropy.wcs.WCS
        Celestial.
    """

    path: Path
    data: np.ndarray
    wcs: WCS

    @classmethod
    def read(cls, path: Path) -> Reference:
        """Read the first image with celestial coordinates.

        Raises
        ------
        ProductError
            If there is none.
        """
        try:
            with fits.open(path, memmap=False) as hdus:
                for hdu in hdus:
                    if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2 and WCS(hdu.header).has_celestial:
                        return cls(path, np.nan_to_num(hdu.data.astype(float)), WCS(hdu.header).celestial)
        except (OSError, ValueError) as error:
            raise ProductError(f"{path} cannot be read ({error}); name an image by registration.reference") from error
        raise ProductError(f"{path} has no 2-D image with celestial coordinates (CTYPE1, CTYPE2); name one that has")

    def seen_by(self, band: Band, frame: Frame, centre: tuple[float, float]) -> Seen | None:
        """Lay the image into the frame of the slit, as the slit averages it.

        Parameters
        ----------
        band : Band
            Where the exposures looked.
        frame : Frame
            Axes of the band.
        centre : tuple of float
            Tangent point of the band's source, deg.

        Returns
        -------
        Seen or None
            None where the image does not reach all that the slits saw.
        """
        reach = SEARCH_ARCSEC + 3 * LARGEST_STEP + SLIT_ARCSEC
        axes = [
            np.arange(places.min() - reach, places.max() + reach, FINE_ARCSEC) for places in (band.across, band.along)
        ]
        across, along = np.meshgrid(*axes, indexing="ij")
        east, north = frame.to_sky(across, along)
        x, y = self.wcs.world_to_pixel_values(*from_tangent(east, north, *centre))
        outside = (x < -0.5) | (y < -0.5) | (x > self.data.shape[1] - 0.5) | (y > self.data.shape[0] - 0.5)
        if outside.any():
            log.warning("%s does not reach %.1f arcsec beyond the slits of %d", self.path, reach, band.source_id)
            return None
        image = map_coordinates(self.data, [y, x], order=3, mode="nearest")
        for axis, width in enumerate((SLIT_ARCSEC, band.pixel_arcsec)):
            image = _averaged(image, width / FINE_ARCSEC, axis)
        return Seen(band, RectBivariateSpline(*axes, image))


def _averaged(image: np.ndarray, width: float, axis: int) -> np.ndarray:
    """Average over a box of any width, in samples: two odd boxes mixed to have its variance (n samples: n^2 - 1)."""
    small = 2 * int((np.sqrt(width**2 + 1.0) - 1.0) // 2) + 1
    share = (width**2 + 1.0 - small**2) / ((small + 2) ** 2 - small**2)
    low, high = (uniform_filter1d(image, size, axis=axis, mode="nearest") for size in (small, small + 2))
    return (1.0 - share) * low + share * high


@dataclass(frozen=True, eq=False)
class Seen:
    """The image as a band sees it.

    Attributes
    ----------
    band : Band
        The data.
    image : scipy.interpolate.RectBivariateSpline
        Of places across and along.
    """

    band: Band
    image: RectBivariateSpline

    def at(self, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, and their derivatives across and along, where each value was measured; offsets by exposure."""
        shift = offsets[self.band.exposure]
        places = self.band.across + shift[:, 0], self.band.along + shift[:, 1]
        return tuple(self.image.ev(*places, dx=dx, dy=dy) for dx, dy in ((0, 0), (1, 0), (0, 1)))


def solve_against(
    seen: list[Seen],
    n_exposures: int,
    prior_arcsec: float = PRIOR_ARCSEC,
) -> Solution:
    """Fit level and scale of every band, and the offset of every exposure, to an image.

    Parameters
    ----------
    seen : list of Seen
        Image and data of every band.
    n_exposures : int
        Number of exposures.
    prior_arcsec : float
        Expected rms of an offset about the mean of all, a coordinate.

    Returns
    -------
    Solution
        Exposures that no band saw get the mean offset.
    """
    offsets = np.tile(_common(seen, n_exposures), (n_exposures, 1))
    # Deviations from the mean are kept small, the mean itself is free.
    about = np.kron(np.eye(n_exposures) - 1.0 / n_exposures, np.eye(2)) / prior_arcsec**2
    scales, done = {}, 0
    for done in range(1, ITERATIONS + 1):
        information, gradient = about.copy(), -about @ offsets.ravel()
        for one in seen:
            part, side, scales[one.band.name] = _equations(one, offsets)
            information += part
            gradient += side
        step = np.linalg.solve(information + 1e-6 * np.eye(2 * n_exposures), gradient).reshape(-1, 2)
        step *= min(1.0, LARGEST_STEP / np.abs(step).max())
        offsets = offsets + step
        log.info("registration against an image: round %d, largest step %.2f mas", done, 1e3 * np.abs(step).max())
        if np.abs(step).max() < TOLERANCE_ARCSEC:
            break
    return Solution(offsets, np.linalg.pinv(information), scales, done, prior_arcsec)


def _equations(one: Seen, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Information on all offsets from one band, its right-hand side, and the scatter over the errors.

    Level and scale of the band are eliminated.
    """
    band = one.band
    value, across, along = one.at(offsets)
    design = np.stack([np.ones(value.size), value], axis=1)
    weights = band.sigma**-2.0
    for _ in range(3):
        weighted = design * weights[:, None]
        level = np.linalg.solve(design.T @ weighted, weighted.T @ band.value)
        residual = band.value - design @ level
        pulls = np.abs(residual) / band.sigma
        scale = max(1.0, 1.4826 * float(np.median(pulls)))
        weights = (scale * band.sigma) ** -2.0 * np.minimum(1.0, HUBER * scale / np.maximum(pulls, 1e-9))
    weighted = design * weights[:, None]
    jacobian = np.zeros((value.size, offsets.size))
    rows = np.arange(value.size)
    jacobian[rows, 2 * band.exposure] = level[1] * across
    jacobian[rows, 2 * band.exposure + 1] = level[1] * along
    cross = weighted.T @ jacobian
    information = jacobian.T @ (weights[:, None] * jacobian)
    information -= cross.T @ np.linalg.solve(design.T @ weighted, cross)
    return information, jacobian.T @ (weights * residual), scale


def _common(seen: list[Seen], n_exposures: int) -> np.ndarray:
    """The offset of all exposures together at which the image is most like the data, on a coarse grid."""
    trials = np.arange(-SEARCH_ARCSEC, SEARCH_ARCSEC + 1e-9, 0.05)
    best, found = np.inf, np.zeros(2)
    for across in trials:
        for along in trials:
            offsets = np.tile([across, along], (n_exposures, 1))
            misfit = 0.0
            for one in seen:
                value, *_ = one.at(offsets)
                weight = one.band.sigma**-2.0
                data, value = (item - np.average(item, weights=weight) for item in (one.band.value, value))
                power = np.sum(weight * value**2)
                match = max(np.sum(weight * data * value), 0.0)
                misfit += np.sum(weight * data**2) - (match**2 / power if power > 0 else 0.0)
            if misfit < best:
                best, found = misfit, np.array([across, along])
    return found


def seen_bands(
    reference: Reference,
    bands: list[Band],
    frame: Frame,
    centres: Mapping[int, tuple[float, float]],
) -> list[Seen]:
    """What of the bands the image can be compared with.

    Parameters
    ----------
    reference : Reference
        The image.
    bands : list of Band
        All bands.
    frame : Frame
        Their axes.
    centres : mapping of int to tuple of float
        Tangent points of the sources, deg.

    Returns
    -------
    list of Seen

    Raises
    ------
    ProductError
        If no band shows the continuum, or the image reaches no source.
    """
    wanted = [band for band in bands if band.name.split()[1] == "continuum"]
    if not wanted:
        raise ProductError(
            f"no source shows continuum above the noise in three exposures, which {reference.path} is to be compared "
            "with; leave registration.reference out"
        )
    seen = [reference.seen_by(band, frame, centres[band.source_id]) for band in wanted]
    if not any(seen):
        sources = ", ".join(sorted({str(band.source_id) for band in wanted}))
        raise ProductError(
            f"{reference.path} covers none of the sources {sources}; name an image that does, or leave "
            "registration.reference out"
        )
    return [one for one in seen if one is not None]
