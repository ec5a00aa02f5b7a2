"""Geometry that the cube builders share: what a resampled exposure covers, and where a spaxel lies.

Pixel coordinates are those of jwst: ``x`` runs along the dispersion, ``y`` along the slit, both from 0 at
the centre of the first pixel; arrays are ``[y, x]``. Sky positions are ICRS degrees. Wavelengths are
vacuum micrometres and always come from the WCS in the file's ASDF extension: the wavelength axis of an
``s2d`` jumps over the gap between the detectors, which the linear keywords of its header do not know.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asdf
import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from msa3d.errors import ProductError

STACK_MARGIN_PIXELS = 4.5
"""Native pixels that a stack is higher than one exposure: room for the dithers of the published pattern."""


@dataclass(frozen=True, eq=False)
class SlitGeometry:
    """What the WCS of an ``s2d`` file says, in plain numbers.

    Attributes
    ----------
    wave_um : numpy.ndarray, shape (nx,)
        Wavelength of each column in the first row, um.
    ends : numpy.ndarray, shape (2, 2)
        Sky position (ra, dec), deg, of the first and of the last row, at the middle column.
    last : numpy.ndarray, shape (2, 2)
        Sky position (ra, dec), deg, of the last row but one and of the last row, at column 0.
    """

    wave_um: np.ndarray
    ends: np.ndarray
    last: np.ndarray

    @property
    def native_pixel_arcsec(self) -> float:
        """Size of a native pixel along the slit, arcsec, rounded to 5 decimals as published.

        It is the distance on the sky between the pixels (row -2, column 0) and (row -1, column 0).
        """
        first, second = SkyCoord(self.last * u.deg, frame="icrs")
        return round(float(first.separation(second).arcsecond), 5)


@dataclass(frozen=True, eq=False)
class SlitSpectrum:
    """One exposure's rectified 2-D spectrum of one source (a jwst ``s2d`` file).

    Attributes
    ----------
    path : pathlib.Path
        The file it was read from.
    data : numpy.ndarray, shape (ny, nx)
        SCI plane in float64, MJy/sr; zero or NaN where jwst had no data (1.14.0 writes zeros).
    geometry : SlitGeometry
        Its wavelengths and where on the sky it lies.
    primary, sci : astropy.io.fits.Header
        Headers of the primary and the SCI unit.
    """

    path: Path
    data: np.ndarray
    geometry: SlitGeometry
    primary: fits.Header
    sci: fits.Header

    @property
    def shape(self) -> tuple[int, int]:
        """Rows along the slit, columns along the dispersion."""
        return self.data.shape

    @property
    def wave_um(self) -> np.ndarray:
        """Wavelength of each column, um."""
        return self.geometry.wave_um


def read_spectrum(path: str | Path) -> SlitSpectrum:
    """Read an ``s2d`` file (as jwst or :mod:`msa3d.steps.postprocess` wrote it).

    Parameters
    ----------
    path : str or pathlib.Path
        File with a 2-D SCI plane and a gwcs in its ASDF extension.

    Returns
    -------
    SlitSpectrum

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, truncated, without a WCS, or its wavelengths do not increase.
    """
    path = Path(path)
    with readable(path), fits.open(path, memmap=False) as hdus:
        data = np.array(hdus["SCI"].data, dtype=np.float64)
        primary, sci = hdus[0].header.copy(), hdus["SCI"].header.copy()
    return SlitSpectrum(path, data, read_geometry(path), primary, sci)


def read_geometry(path: str | Path) -> SlitGeometry:
    """Read what the WCS of an ``s2d`` file says, from the gwcs in its ASDF extension.

    The WCS is evaluated without its bounding box, as published. The extension is read by asdf itself and not
    checked against its schemas, which ``jwst.datamodels.open`` does at several times the cost; the WCS is
    the same.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    SlitGeometry

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, holds no WCS, or its wavelengths do not increase.
    """
    path = Path(path)
    with readable(path), fits.open(path, memmap=False) as hdus:
        ny, nx = hdus["SCI"].shape
        tree = io.BytesIO(hdus["ASDF"].data.tobytes())
    with asdf.config_context() as config, readable(path):
        config.validate_on_read = config.legacy_fill_schema_defaults = False
        # Tables inside a gwcs are read when first used, hence everything while the file is open.
        with asdf.open(tree) as asdf_file:
            to_world = asdf_file["meta"]["wcs"].get_transform("detector", "world")
            _, _, wave_um = to_world(np.arange(nx), np.zeros(nx, dtype=int))
            ends = to_world(np.full(2, nx // 2), np.array([0, ny - 1]))
            last = to_world(np.zeros(2, dtype=int), np.array([ny - 2, ny - 1]))
    wave_um = np.array(wave_um, dtype=float)
    if not np.all(np.diff(wave_um) > 0):
        raise ProductError(f"{path}: the wavelengths of its WCS do not increase along the first row")
    return SlitGeometry(wave_um, np.transpose(ends[:2]).astype(float), np.transpose(last[:2]).astype(float))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong in the block, while a 2-D spectrum is read, into a sentence.

    Parameters
    ----------
    path : pathlib.Path
        The file.

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, truncated or not what it should be.
    """
    if not path.is_file():
        raise ProductError(f"{path}: the 2-D spectrum is missing; run the step before this one")
    try:
        with warnings.catch_warnings():
            # astropy only warns of a file that ends too early, and then reads what there is.
            warnings.filterwarnings("error", "File may have been truncated", AstropyUserWarning)
            yield
    except (OSError, KeyError, TypeError, ValueError, AttributeError, AstropyUserWarning) as error:
        raise ProductError(
            f"{path}: the 2-D spectrum cannot be read ({error}); delete it and run the step before this one"
        ) from error


def common_wavelengths(wavelengths: Iterable[np.ndarray]) -> np.ndarray:
    """Linear wavelength grid of the published algorithm over all exposures of a source.

    Parameters
    ----------
    wavelengths : iterable of numpy.ndarray
        Wavelengths of each exposure, um, increasing.

    Returns
    -------
    numpy.ndarray
        ``arange(smallest first, largest last, smallest step)``, um: the end is left out.
    """
    wavelengths = list(wavelengths)
    start = np.min([wave[0] for wave in wavelengths])
    stop = np.max([wave[-1] for wave in wavelengths])
    step = np.min([np.min(np.diff(wave)) for wave in wavelengths])
    return np.arange(start, stop, step=step)


@dataclass(frozen=True)
class StackGeometry:
    """How the exposures of one column lie in their common stack, in sub-pixels along the slit.

    Attributes
    ----------
    native_arcsec : float
        Native pixel along the slit.
    n_pixels : int
        Rows of the source's first exposure.
    n_exposures : int
        Cross-dispersion dithers of a column.
    row_step_arcsec : float
        Nominal dither step along the slit.
    subpixels : int
        Sub-pixels a native pixel; 4 as published.
    """

    native_arcsec: float
    n_pixels: int
    n_exposures: int
    row_step_arcsec: float
    subpixels: int = 4

    @property
    def sub_arcsec(self) -> float:
        """Size of a sub-pixel, arcsec."""
        return self.native_arcsec / self.subpixels

    @property
    def exact_offsets(self) -> np.ndarray:
        """Where the dithers would put each exposure, sub-pixels, not truncated."""
        return np.arange(self.n_exposures) * self.row_step_arcsec / self.sub_arcsec

    @property
    def offsets(self) -> np.ndarray:
        """First row of each exposure in the stack: the exact offsets truncated, as published."""
        return self.exact_offsets.astype(int)

    @property
    def positions(self) -> np.ndarray:
        """Positions along the slit, in native pixels, that every exposure is interpolated at."""
        return np.linspace(0, self.n_pixels - 1, (self.n_pixels - 1) * self.subpixels + 1)

    @property
    def n_rows(self) -> int:
        """Rows of the stack; for a pattern larger than the published one, as many as it needs."""
        published = int((self.n_pixels + STACK_MARGIN_PIXELS) * (self.native_arcsec / self.sub_arcsec))
        return max(published, int(self.offsets[-1]) + self.positions.size)


def interpolation_weights(nodes: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the cells and weights of linear interpolation on one axis, as scipy has them.

    Parameters
    ----------
    nodes : numpy.ndarray, shape (n,)
        Increasing coordinates of the samples, n > 1.
    at : numpy.ndarray, shape (m,)
        Coordinates wanted.

    Returns
    -------
    cell : numpy.ndarray of int, shape (m,)
        Index of the sample before (of the last cell at the end).
    weight : numpy.ndarray, shape (m,)
        Weight of the sample after it; that of ``cell`` is 1 less this.
    outside : numpy.ndarray of bool, shape (m,)
        True outside the samples.
    """
    cell = np.clip(np.searchsorted(nodes, at, side="right") - 1, 0, nodes.size - 2)
    weight = (at - nodes[cell]) / (nodes[cell + 1] - nodes[cell])
    return cell, weight, (at < nodes[0]) | (at > nodes[-1])


def interpolate(data: np.ndarray, wave_um: np.ndarray, positions: np.ndarray, grid_um: np.ndarray) -> np.ndarray:
    """Interpolate a 2-D spectrum linearly onto positions along the slit and a wavelength grid.

    The sums are those of ``scipy.interpolate.RegularGridInterpolator`` in their order, hence equal to it to
    the last bit, at a tenth of its time, because the cells of the two axes are found once each.

    Parameters
    ----------
    data : numpy.ndarray, shape (ny, nx)
        Spectrum; a NaN makes NaN of every value whose cell it is a corner of, even with weight 0.
    wave_um : numpy.ndarray, shape (nx,)
        Its wavelengths.
    positions : numpy.ndarray, shape (m,)
        Rows wanted, in pixels of `data`, fractional.
    grid_um : numpy.ndarray, shape (n,)
        Wavelengths wanted.

    Returns
    -------
    numpy.ndarray, shape (m, n)
        NaN outside the spectrum.
    """
    row, weight_y, outside_y = interpolation_weights(np.arange(data.shape[0], dtype=float), positions)
    column, weight_x, outside_x = interpolation_weights(wave_um, grid_um)
    out = np.zeros((positions.size, grid_um.size))
    for corner_y, factor_y in ((row, 1 - weight_y), (row + 1, weight_y)):
        for corner_x, factor_x in ((column, 1 - weight_x), (column + 1, weight_x)):
            term = data[:, corner_x][corner_y]
            term *= factor_y[:, None] * factor_x
            out += term
    out[outside_y] = np.nan
    out[:, outside_x] = np.nan
    return out
