"""Reading a cube and its place on the sky, whichever builder (or truth file) it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from msa3d.cube.product import DO_NOT_USE, tangent_offsets
from msa3d.errors import ProductError
from msa3d.provenance import is_simulated

SR_PER_SQUARE_DEGREE = (np.pi / 180.0) ** 2


@dataclass(frozen=True)
class Cube:
    """A spectral cube in memory.

    Attributes
    ----------
    data : ndarray, shape (n_wave, n_y, n_x)
        Surface brightness, MJy/sr; NaN where nothing was observed.
    wave_um : ndarray, shape (n_wave,)
        Vacuum wavelength of the voxels' centres, um, in the observer's frame.
    wcs : astropy.wcs.WCS
        The two celestial axes, ICRS.
    pixel_sr : float
        Solid angle of a spaxel, sr.
    simulated : bool
        Whether the data come from a simulation.
    name : str
        File name, for messages.
    """

    data: np.ndarray
    wave_um: np.ndarray
    wcs: WCS
    pixel_sr: float
    simulated: bool
    name: str = "cube"

    @property
    def shape(self) -> tuple[int, int]:
        """Number of spaxels along y and x."""
        return self.data.shape[1], self.data.shape[2]

    def between(self, first_um: float, last_um: float) -> Cube:
        """Return the part of the cube within two wavelengths, um, both included."""
        inside = (self.wave_um >= first_um) & (self.wave_um <= last_um)
        return replace(self, data=self.data[inside], wave_um=self.wave_um[inside])

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
        tuple of ndarray
            Offsets to the east and to the north, arcsec, in the plane tangent to the sky there.
        """
        ny, nx = self.shape
        if corners:
            y, x = np.mgrid[0 : ny + 1, 0 : nx + 1] - 0.5
        else:
            y, x = np.mgrid[0:ny, 0:nx].astype(float)
        return tangent_offsets(*self.wcs.pixel_to_world_values(x, y), ra, dec)


def read_cube(path: Path, extension: str | None = None) -> Cube:
    """Read a cube with its wavelengths and its place on the sky; voxels flagged DO_NOT_USE become NaN.

    Unlike `msa3d.cube.product.read_cube` it needs no plane but the image itself, and so reads truth
    files and other people's cubes as well.

    Parameters
    ----------
    path : pathlib.Path
        A FITS file with an image ``[wave, y, x]``.
    extension : str, optional
        Name of the HDU; without it ``SCI``, or else the first HDU with three axes.

    Returns
    -------
    Cube
        The cube, as float64.

    Raises
    ------
    ProductError
        If the file is missing, or has no such image, or no celestial and wavelength axes.
    """
    if not path.is_file():
        raise ProductError(f"{path} is missing: run the step that makes it (cubebuild) first")
    with fits.open(path) as hdus:
        simulated = is_simulated(hdus[0].header)
        hdu = _find_image(hdus, extension)
        if hdu is None:
            raise ProductError(f"{path} holds no image with three axes: make it again with cubebuild")
        header = hdu.header.copy()
        data = np.array(hdu.data, dtype=float)
        if "DQ" in hdus and hdus["DQ"].data.shape == data.shape:
            data[(hdus["DQ"].data.astype(np.uint32) & DO_NOT_USE) > 0] = np.nan
        wave = _wavelength_table(hdus)
    wcs = WCS(header)
    if not wcs.has_celestial or (wave is None and not wcs.has_spectral):
        raise ProductError(f"{path}: CTYPE1-3 name no sky and wavelength axes; make it again with cubebuild")
    if wave is None:
        wave = wcs.spectral.pixel_to_world_values(np.arange(data.shape[0])) * 1e6
    celestial = wcs.celestial
    area = header.get("PIXAR_SR") or proj_plane_pixel_area(celestial) * SR_PER_SQUARE_DEGREE
    return Cube(data, np.asarray(wave, dtype=float), celestial, float(area), simulated, path.name)


def _find_image(hdus: fits.HDUList, extension: str | None) -> fits.ImageHDU | None:
    """Return the named image, or SCI, or the first image with three axes; None when there is none."""
    wanted = [h for h in hdus if h.is_image and h.header.get("NAXIS") == 3]
    for name in (extension, "SCI") if extension is None else (extension,):
        for hdu in wanted:
            if name is not None and hdu.name == name:
                return hdu
    return wanted[0] if wanted and extension is None else None


def _wavelength_table(hdus: fits.HDUList) -> np.ndarray | None:
    """Return the wavelengths (um) of a table or image HDU named WAVE, if the file has one."""
    if "WAVE" not in hdus:
        return None
    hdu = hdus["WAVE"]
    if isinstance(hdu, fits.BinTableHDU):
        return np.asarray(hdu.data.field(0), dtype=float).ravel()
    return np.asarray(hdu.data, dtype=float).ravel()
