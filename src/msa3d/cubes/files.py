"""Drizzled cubes in the layout of jwst's s3d, through its IFUCubeModel, with planes of our own."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from msa3d.cubes.cube import CORRELATION
from msa3d.cubes.grid import SkyGrid
from msa3d.cubes.operator import Planes
from msa3d.observation.sky import DO_NOT_USE
from msa3d.pipeline.products import atomic_path

if TYPE_CHECKING:
    from stdatamodels.jwst.datamodels import JwstDataModel

_NON_SCIENCE = 512
"""jwst's flag of a pixel that no light reaches."""


@dataclass(frozen=True, eq=False)
class PixelFootprint:
    """What a pixel of the cube's exposures sees, and where its value is placed.

    Attributes
    ----------
    width_arcsec, height_arcsec : float
        Open width of the shutter, and a pixel along the slit, on the sky.
    pa_deg : float
        Position angle of the slit's +y, east of north.
    slit_frac, pixfrac : float
        Parts of width and height over which a pixel is drizzled.
    pixel_um : float
        Length of a pixel along the spectrum.
    """

    width_arcsec: float
    height_arcsec: float
    pa_deg: float
    slit_frac: float
    pixfrac: float
    pixel_um: float


def _quality(planes: Planes) -> np.ndarray:
    """DQ of a cube: DO_NOT_USE and NON_SCIENCE where no good pixel reaches a voxel."""
    return np.where(np.isnan(planes.sci), np.uint32(DO_NOT_USE | _NON_SCIENCE), np.uint32(0))


def science_header(grid: SkyGrid, footprint: PixelFootprint, spectral_system: str) -> fits.Header:
    """Header of the SCI unit: WCS, unit, areas, and what the point-spread function is made of."""
    header = grid.wcs().to_header()
    for axis in (1, 2, 3):  # astropy writes SI units, and leaves out what is at its default; jwst reads all.
        header[f"CUNIT{axis}"] = ("deg", "deg", "um")[axis - 1]
        for other in (1, 2, 3):
            header.setdefault(f"PC{axis}_{other}", float(axis == other))
    header["CRVAL3"], header["CDELT3"], header["CRPIX3"] = grid.wave0_um, grid.step_um, 1.0
    header["BUNIT"] = ("MJy/sr", "surface brightness")
    header["PIXAR_A2"] = (grid.scale_arcsec**2, "[arcsec2] area of a spaxel")
    header["PIXAR_SR"] = (grid.area_sr, "[sr] area of a spaxel")
    header["DISPAXIS"] = (3, "the dispersion runs along FITS axis 3")
    header["SPECSYS"] = spectral_system
    header["SLITWID"] = (footprint.width_arcsec, "[arcsec] open width of the shutter")
    header["SLITLEN"] = (footprint.height_arcsec, "[arcsec] detector pixel along the slit")
    header["SLITPA"] = (footprint.pa_deg, "[deg] +y along the slit, east of north")
    header["SLITFRAC"] = (footprint.slit_frac, "part of SLITWID over which a pixel is drizzled")
    header["PIXFRAC"] = (footprint.pixfrac, "part of SLITLEN over which a pixel is drizzled")
    header["SPECPIX"] = (footprint.pixel_um, "[um] detector pixel along the spectrum")
    return header


def write_cube(
    path: Path,
    primary: fits.Header,
    header: fits.Header,
    planes: Planes,
    correlation: np.ndarray,
    exposures: Table,
) -> None:
    """Write a cube, whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    primary, header : astropy.io.fits.Header
        Of the primary and of the SCI unit.
    planes : Planes
        SCI, ERR, WMAP, ETIME, NEXP.
    correlation : numpy.ndarray, shape (wave, y, x)
        Mean correlation coefficient by lag.
    exposures : astropy.table.Table
        What was used of each slit image.
    """
    from jwst.assign_wcs.pointing import create_fitswcs
    from stdatamodels.jwst.datamodels import IFUCubeModel

    plain = fits.Header([(card.keyword, card.value) for card in header.cards if card.keyword in _COMMON])
    hdus = [fits.PrimaryHDU(header=primary), fits.ImageHDU(planes.sci.astype(np.float32), header, name="SCI")]
    hdus += [
        _image("ERR", planes.err.astype(np.float32), plain, "MJy/sr"),
        fits.ImageHDU(_quality(planes), name="DQ"),
        _image("WMAP", planes.weight.astype(np.float32), plain, "overlap times weight, in voxels"),
    ]
    ours = [
        _image("ETIME", planes.etime.astype(np.float32), plain, "s"),
        _image("NEXP", planes.nexp.astype(np.int16), plain, "exposures"),
        fits.ImageHDU(correlation.astype(np.float32), name=CORRELATION),
        fits.BinTableHDU(exposures, name="EXPOSURES"),
    ]

    def add_wcs(model: IFUCubeModel) -> None:
        model.meta.wcs = create_fitswcs(model)
        # specutils takes the wavelengths from the WCS within its bounds.
        model.meta.wcs.bounding_box = tuple((-0.5, size - 0.5) for size in reversed(planes.sci.shape))

    write_model(path, IFUCubeModel, hdus, ours, add_wcs)


def write_model(
    path: Path, kind: type[JwstDataModel], hdus: list, ours: list, prepare: Callable[[Any], None] = lambda model: None
) -> None:
    """Write a data model of jwst, with its ASDF extension, by which specutils knows it, and extensions of our own.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    kind : type
        The data model.
    hdus : list of astropy.io.fits HDU
        What it is made from.
    ours : list of astropy.io.fits HDU
        Extensions that the model does not know; it would write them a second time into its ASDF extension.
    prepare : callable, optional
        What is done to the model before it is written.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # What the data model does not know is kept as it is, with a warning.
        warnings.filterwarnings("ignore", module="stdatamodels|astropy")
        with kind(fits.HDUList(hdus)) as model:
            prepare(model)
            model.meta.filename = path.name
            model.to_fits(buffer)
    buffer.seek(0)
    with fits.open(buffer) as saved, atomic_path(path) as partial:
        at = saved.index_of("ASDF")
        fits.HDUList([*saved[:at], *ours, *saved[at:]]).writeto(partial, checksum=True)


def _image(name: str, data: np.ndarray, common: fits.Header, unit: str) -> fits.ImageHDU:
    """Make a plane of the cube, with the cube's WCS."""
    hdu = fits.ImageHDU(data, common, name=name)
    hdu.header["BUNIT"] = unit
    return hdu


_COMMON = {
    *(f"{key}{axis}" for key in ("CTYPE", "CUNIT", "CRVAL", "CRPIX", "CDELT") for axis in (1, 2, 3)),
    *(f"PC{i}_{j}" for i in (1, 2, 3) for j in (1, 2, 3)),
    *("WCSAXES", "RADESYS", "SPECSYS"),
}
"""Keywords of the WCS, which all planes share."""
