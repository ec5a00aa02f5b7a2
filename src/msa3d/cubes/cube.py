"""A cube in memory, and reading one from a file, whichever builder (or telescope) made it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from msa3d.cubes import psf as cubes_psf
from msa3d.errors import ProductError
from msa3d.observation.sky import DO_NOT_USE, tangent_offsets
from msa3d.pipeline.products import is_simulated

_SR_PER_SQUARE_DEGREE = (np.pi / 180.0) ** 2

CORRELATION = "CORR"
"""Extension with the mean correlation coefficient of the noise by lag, axes (wave, y, x)."""

_PLANES = {"err": "ERR", "wmap": "WMAP", "etime": "ETIME", "nexp": "NEXP"}


@dataclass(frozen=True, eq=False)
class Cube:
    """A data cube in memory; arrays are ``[wave, y, x]``.

    Attributes
    ----------
    data : numpy.ndarray, shape (n_wave, n_y, n_x)
        Surface brightness, MJy/sr; NaN where nothing was observed or the voxel is flagged DO_NOT_USE.
    wave_um : numpy.ndarray, shape (n_wave,)
        Vacuum wavelength of the voxels' centres, um, in the observer's frame.
    wcs : astropy.wcs.WCS
        The two celestial axes, ICRS.
    pixel_sr : float
        Solid angle of a spaxel, sr.
    simulated : bool
        Whether the data come from a simulation.
    name : str
        File name, for messages.
    err : numpy.ndarray or None
        One sigma, MJy/sr, NaN where data are; None where the builder has no errors (the published one).
    dq : numpy.ndarray of uint32, or None
        jwst flags; bit 0 set: do not use.
    wmap, etime, nexp : numpy.ndarray or None
        Weight, effective exposure time (s) and number of exposures of each voxel (of each spaxel, shape
        (n_y, n_x), for the published builder's NEXP).
    correlation : numpy.ndarray or None, shape (2 Lw + 1, 2 Ly + 1, 2 Lx + 1)
        Mean correlation coefficient of the noise of two voxels by their lag; 1 at the centre.
    primary, header : astropy.io.fits.Header
        Headers of the primary and of the image's unit.
    """

    data: np.ndarray
    wave_um: np.ndarray
    wcs: WCS
    pixel_sr: float
    simulated: bool = False
    name: str = "cube"
    err: np.ndarray | None = None
    dq: np.ndarray | None = None
    wmap: np.ndarray | None = None
    etime: np.ndarray | None = None
    nexp: np.ndarray | None = None
    correlation: np.ndarray | None = None
    primary: fits.Header = field(default_factory=fits.Header, repr=False)
    header: fits.Header = field(default_factory=fits.Header, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of spaxels along y and x."""
        return self.data.shape[1], self.data.shape[2]

    def between(self, first_um: float, last_um: float) -> Cube:
        """Return the part of the cube within two wavelengths, um, both included."""
        inside = (self.wave_um >= first_um) & (self.wave_um <= last_um)
        planes = {name: getattr(self, name) for name in ("data", *_PLANES, "dq")}
        cut = {name: plane[inside] for name, plane in planes.items() if plane is not None and plane.ndim == 3}
        return replace(self, wave_um=self.wave_um[inside], **cut)

    def spaxel_sky(self) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination of every spaxel's centre, deg, each of shape (n_y, n_x)."""
        rows, columns = np.indices(self.shape)
        return tuple(self.wcs.pixel_to_world_values(columns, rows))

    def offsets(self, ra: float, dec: float, *, corners: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return where the spaxels are, relative to a place on the sky.

        Parameters
        ----------
        ra, dec : float
            The place, ICRS, deg.
        corners : bool
            Give the spaxels' corners, shape (n_y + 1, n_x + 1), rather than centres (n_y, n_x).

        Returns
        -------
        tuple of numpy.ndarray
            Offsets to the east and to the north, arcsec, in the plane tangent to the sky there.
        """
        ny, nx = self.shape
        if corners:
            y, x = np.mgrid[0 : ny + 1, 0 : nx + 1] - 0.5
        else:
            y, x = np.mgrid[0:ny, 0:nx].astype(float)
        here = self.wcs.pixel_to_world_values(x, y)
        return tangent_offsets(here[0], here[1], ra, dec)

    def sum_error(self, mask: np.ndarray) -> np.ndarray | None:
        """Error of the sum over spaxels, with the correlation between them.

        Parameters
        ----------
        mask : numpy.ndarray, shape (n_y, n_x)
            True, or a weight, for the spaxels that are summed. NaN voxels take no part.

        Returns
        -------
        numpy.ndarray, shape (n_wave,), or None
            One sigma of ``nansum(data * mask)`` at each wavelength, MJy/sr; None without errors.
        """
        if self.err is None:
            return None
        weighted = np.nan_to_num(self.err) * np.asarray(mask, dtype=float)
        if self.correlation is None:
            return np.sqrt(np.sum(weighted**2, axis=(1, 2)))
        return np.sqrt(cubes_psf.quadratic_form(weighted, self.correlation[self.correlation.shape[0] // 2]))

    def noise_factor(self, mask: np.ndarray) -> np.ndarray | None:
        """Error of a sum over spaxels, over what it were if their noise were independent.

        Parameters
        ----------
        mask : numpy.ndarray, shape (n_y, n_x)
            As in `sum_error`.

        Returns
        -------
        numpy.ndarray, shape (n_wave,), or None
            NaN where no voxel takes part; None without errors.
        """
        if self.err is None:
            return None
        naive = np.sqrt(np.sum((np.nan_to_num(self.err) * np.asarray(mask, dtype=float)) ** 2, axis=(1, 2)))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(naive > 0, self.sum_error(mask) / naive, np.nan)

    @cached_property
    def spectral_correlation(self) -> np.ndarray | None:
        """Correlation coefficient along wavelength, at lags 0, 1, ... of one spaxel; None if unknown."""
        if self.correlation is None:
            return None
        middle = tuple(size // 2 for size in self.correlation.shape)
        return self.correlation[middle[0] :, middle[1], middle[2]]

    def psf(self, wave_um: float) -> np.ndarray:
        """Effective point-spread function on the cube's spaxels at a wavelength.

        Telescope, slit, detector pixel, footprint and spaxel folded; the header says how large they are.

        Parameters
        ----------
        wave_um : float
            Wavelength, um.

        Returns
        -------
        numpy.ndarray, odd shape (n, n)
            Kernel with sum 1.

        Raises
        ------
        msa3d.errors.ProductError
            If the header has no SLITWID, SLITLEN and SLITPA (the cube is not of the drizzle builder).
        """
        return cubes_psf.gaussian_psf(self.header, self.wcs, wave_um, self.name)


def open_cube(path: str | Path) -> Cube:
    """Read a cube with its wavelengths and its place on the sky; voxels flagged DO_NOT_USE become NaN.

    It needs no plane but the image itself, and so reads truth files and other people's cubes as well.

    Parameters
    ----------
    path : str or pathlib.Path
        A FITS file with an image ``[wave, y, x]``: ``SCI``, or else the first HDU with three axes.

    Returns
    -------
    Cube
        Planes in float64.

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing or damaged, has no such image, or no celestial and wavelength axes.
    """
    path = Path(path)
    if not path.is_file():
        raise ProductError(f"{path} is missing: run the step that makes it (cubebuild) first")
    try:
        with fits.open(path, memmap=False) as hdus:
            return _read(hdus, path)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ProductError(f"{path}: not a whole cube ({error}); delete it and run `msa3d cubebuild`") from error


def _read(hdus: fits.HDUList, path: Path) -> Cube:
    images = [hdu for hdu in hdus if hdu.is_image and hdu.header.get("NAXIS") == 3]
    hdu = next((image for image in images if image.name == "SCI"), images[0] if images else None)
    if hdu is None:
        raise ProductError(f"{path} holds no image with three axes: make it again with cubebuild")
    header, primary = hdu.header.copy(), hdus[0].header.copy()
    if "GRATING" in primary:
        header.setdefault("GRATING", primary["GRATING"])  # Decides on the line-spread function.
    data = np.array(hdu.data, dtype=float)
    planes = {name: np.array(hdus[ext].data, dtype=float) for name, ext in _PLANES.items() if ext in hdus}
    dq = np.array(hdus["DQ"].data, dtype=np.uint32) if "DQ" in hdus else None
    if dq is not None and dq.shape == data.shape:
        data[(dq & DO_NOT_USE) > 0] = np.nan
    correlation = np.array(hdus[CORRELATION].data, dtype=float) if CORRELATION in hdus else None
    wave = _wavelength_table(hdus)
    wcs = WCS(header)
    if not wcs.has_celestial or (wave is None and not wcs.has_spectral):
        raise ProductError(f"{path}: CTYPE1-3 name no sky and wavelength axes; make it again with cubebuild")
    if wave is None:
        wave = wcs.spectral.pixel_to_world_values(np.arange(data.shape[0])) * 1e6
    celestial = wcs.celestial
    area = header.get("PIXAR_SR") or proj_plane_pixel_area(celestial) * _SR_PER_SQUARE_DEGREE
    return Cube(
        data,
        np.asarray(wave, dtype=float),
        celestial,
        float(area),
        is_simulated(primary),
        path.name,
        dq=dq,
        correlation=correlation,
        primary=primary,
        header=header,
        **planes,
    )


def _wavelength_table(hdus: fits.HDUList) -> np.ndarray | None:
    """Return the wavelengths (um) of a table or image HDU named WAVE, if the file has one."""
    if "WAVE" not in hdus:
        return None
    hdu = hdus["WAVE"]
    if isinstance(hdu, fits.BinTableHDU):
        return np.asarray(hdu.data.field(0), dtype=float).ravel()
    return np.asarray(hdu.data, dtype=float).ravel()
