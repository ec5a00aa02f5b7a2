"""A rectified 2-D spectrum (a jwst ``s2d`` file): its values, its wavelengths, where on the sky it lies.

Pixel coordinates are those of jwst: ``x`` runs along the dispersion, ``y`` along the slit, both from 0 at
the centre of the first pixel; arrays are ``[y, x]``. Sky positions are ICRS degrees. Wavelengths are
vacuum micrometres and always come from the WCS in the file's ASDF extension: the wavelength axis of an
``s2d`` jumps over the gap between the detectors, which the linear keywords of its header do not know.

Opening that WCS costs some tenths of a second, and a cube needs that of every exposure. So post-processing writes
what the builders take from it, digit by digit, into a table of its product (`SLITGEOM`), and they read the table;
a file without it is read from its gwcs, to the same numbers.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import asdf
import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from msa3d.errors import ProductError, UnlitSlitError
from msa3d.observation.reading import readable
from msa3d.observation.sky import MIN_COLUMNS

SLITGEOM = "SLITGEOM"
"""Extension of a post-processed ``s2d``: a row of numbers that its WCS gave."""


@dataclass(frozen=True, eq=False)
class RectifiedGeometry:
    """What the WCS of an ``s2d`` file says, in plain numbers.

    Attributes
    ----------
    wave_um : numpy.ndarray, shape (nx,)
        Wavelength of each column in the first row, um.
    ends : numpy.ndarray, shape (2, 2)
        Sky position (ra, dec), deg, of the first and of the last row, at the middle column.
    last : numpy.ndarray, shape (2, 2)
        Sky position (ra, dec), deg, of the last row but one and of the last row, at column 0.
    along : numpy.ndarray, shape (2,)
        Position along the slit of the first and of the last row, in openings of a shutter from the middle of the
        primary one; NaN where the WCS has no frame of the slit. Rows between are evenly spaced.
    """

    wave_um: np.ndarray
    ends: np.ndarray
    last: np.ndarray
    along: np.ndarray = field(default_factory=lambda: np.full(2, np.nan))

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
    geometry : RectifiedGeometry
        Its wavelengths and where on the sky it lies.
    primary, sci : astropy.io.fits.Header
        Headers of the primary and the SCI unit.
    weight : numpy.ndarray or None, shape (ny, nx)
        Inverse variance of the read noise, (MJy/sr)^-2; 0 where there are no data. None where it was not asked for.
    """

    path: Path
    data: np.ndarray
    geometry: RectifiedGeometry
    primary: fits.Header
    sci: fits.Header
    weight: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows along the slit, columns along the dispersion."""
        return self.data.shape

    @property
    def wave_um(self) -> np.ndarray:
        """Wavelength of each column, um."""
        return self.geometry.wave_um


def read_spectrum(path: str | Path, *, weights: bool = False) -> SlitSpectrum:
    """Read an ``s2d`` file (as jwst or :mod:`msa3d.published.spectra` wrote it).

    Parameters
    ----------
    path : str or pathlib.Path
        File with a 2-D SCI plane and a gwcs in its ASDF extension.
    weights : bool
        Whether to read the variance of the read noise as well.

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, truncated, without a WCS, or its wavelengths do not increase.
    """
    path = Path(path)
    with readable(path), fits.open(path, memmap=False) as hdus:
        data = np.array(hdus["SCI"].data, dtype=np.float64)
        primary, sci = hdus[0].header.copy(), hdus["SCI"].header.copy()
        geometry = _geometry_of(hdus, path)
        weight = inverse(hdus["VAR_RNOISE"].data) if weights else None
    return SlitSpectrum(path, data, geometry, primary, sci, weight)


def inverse(variance: np.ndarray) -> np.ndarray:
    """Inverse of a variance; 0 where it is not positive or not finite."""
    variance = np.array(variance, dtype=np.float64)
    known = np.isfinite(variance) & (variance > 0)
    return np.divide(1.0, variance, out=np.zeros_like(variance), where=known)


def read_geometry(path: str | Path) -> RectifiedGeometry:
    """Read what the WCS of an ``s2d`` file says: from the table `SLITGEOM`, or from the gwcs where there is none.

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, holds no WCS, or its wavelengths do not increase.
    """
    path = Path(path)
    with readable(path), fits.open(path, memmap=False) as hdus:
        return _geometry_of(hdus, path)


def _geometry_of(hdus: fits.HDUList, path: Path) -> RectifiedGeometry:
    """Geometry in an open file."""
    if SLITGEOM in hdus:
        row = hdus[SLITGEOM].data[0]
        # In the machine's byte order, as the gwcs gives them.
        return RectifiedGeometry(*(np.array(row[name], dtype=float) for name in RectifiedGeometry.__dataclass_fields__))
    return geometry_of_wcs(hdus, path)


def geometry_of_wcs(hdus: fits.HDUList, path: Path) -> RectifiedGeometry:
    """Evaluate the gwcs of an ``s2d`` file.

    The WCS is evaluated without its bounding box, as published. The extension is read by asdf itself and not
    checked against its schemas, which ``jwst.datamodels.open`` does at several times the cost; the WCS is
    the same.

    Raises
    ------
    msa3d.errors.UnlitSlitError
        If it has less than `MIN_COLUMNS` columns.
    msa3d.errors.ProductError
        If it holds no WCS, or its wavelengths do not increase.
    """
    # Asked for once, the extensions of asdf stay in the configuration that each context copies; otherwise every
    # context looks them up anew among all installed packages, which takes longer than to read the file.
    defaults = asdf.get_config()
    _ = defaults.extensions, defaults.resource_manager
    with asdf.config_context() as config, readable(path):
        ny, nx = hdus["SCI"].shape
        tree = io.BytesIO(hdus["ASDF"].data.tobytes())
        config.validate_on_read = config.legacy_fill_schema_defaults = False
        # Tables inside a gwcs are read when first used, hence everything while the file is open.
        with asdf.open(tree) as asdf_file:
            wcs = asdf_file["meta"]["wcs"]
            to_world = wcs.get_transform("detector", "world")
            _, _, wave_um = to_world(np.arange(nx), np.zeros(nx, dtype=int))
            middle, ends_y = np.full(2, nx // 2), np.array([0, ny - 1])
            ends = to_world(middle, ends_y)
            last = to_world(np.zeros(2, dtype=int), np.array([ny - 2, ny - 1]))
            along = np.full(2, np.nan)
            if "slit_frame" in wcs.available_frames:
                along = np.array(wcs.get_transform("detector", "slit_frame")(middle, ends_y)[1], dtype=float)
    wave_um = np.array(wave_um, dtype=float)
    if np.isfinite(wave_um).sum() < MIN_COLUMNS:
        detector = hdus[0].header.get("DETECTOR", "")
        raise UnlitSlitError(f"{path} ({detector}): it has {np.isfinite(wave_um).sum()} columns of a spectrum, too few")
    if not np.all(np.diff(wave_um) > 0):
        raise ProductError(f"{path}: the wavelengths of its WCS do not increase along the first row")
    return RectifiedGeometry(wave_um, np.transpose(ends[:2]).astype(float), np.transpose(last[:2]).astype(float), along)


def geometry_table(geometry: RectifiedGeometry) -> fits.BinTableHDU:
    """Write a geometry as a table of one row, named `SLITGEOM`, in float64: nothing is rounded."""
    names = RectifiedGeometry.__dataclass_fields__
    table = Table({name: np.asarray(getattr(geometry, name), dtype=float)[None] for name in names})
    table["wave_um"].unit = "um"
    table["ends"].unit = table["last"].unit = "deg"
    return fits.BinTableHDU(table, name=SLITGEOM)
