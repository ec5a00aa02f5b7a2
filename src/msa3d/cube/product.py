"""What a cube file is: its WCS on the sky, its units, how it is written and read.

Axes of the array are ``[wave, y, column]``: ``column`` (FITS axis 1) counts the steps along the dispersion,
``y`` (FITS axis 2) the sub-pixels along the slit, ``wave`` (FITS axis 3) is linear. Both sky directions come
from the exposures' own WCS: neither the orientation of the slit nor the sense of the dithers is assumed, so
that the two axes may be of either handedness, and are as perpendicular as the exposures' pointings are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from msa3d.cube.grid import SlitSpectrum, StackGeometry
from msa3d.errors import ProductError

log = logging.getLogger(__name__)

DO_NOT_USE = 1
"""jwst's flag of a value that is not to be used."""

ARCSEC_PER_RADIAN = np.degrees(1.0) * 3600.0

# What a cube keeps of the primary header of its first exposure.
_INHERITED = (
    *("TELESCOP", "INSTRUME", "FILTER", "GRATING", "EXP_TYPE", "PROGRAM", "OBSERVTN", "VISIT", "TARGPROP"),
    *("TARGNAME", "TITLE", "PI_NAME", "CATEGORY", "MSAMETFL", "MSAMETID", "READPATT", "NGROUPS", "NINTS"),
    *("EFFEXPTM", "DATE-OBS", "CAL_VER", "CAL_VCS", "CRDS_VER", "CRDS_CTX"),
)


def tangent_offsets(ra, dec, ra0: float, dec0: float) -> tuple[np.ndarray, np.ndarray]:
    """Project sky positions onto the tangent plane at a point.

    Parameters
    ----------
    ra, dec : array_like
        Positions, deg.
    ra0, dec0 : float
        Tangent point, deg.

    Returns
    -------
    east, north : numpy.ndarray
        Gnomonic offsets, arcsec.
    """
    dra, dec, dec0 = np.radians(np.asarray(ra) - ra0), np.radians(dec), np.radians(dec0)
    depth = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(dra)
    east = np.cos(dec) * np.sin(dra) / depth
    north = (np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(dra)) / depth
    return east * ARCSEC_PER_RADIAN, north * ARCSEC_PER_RADIAN


def from_tangent(east, north, ra0: float, dec0: float) -> tuple[np.ndarray, np.ndarray]:
    """Sky position of gnomonic offsets: the inverse of `tangent_offsets`.

    Parameters
    ----------
    east, north : array_like
        Offsets, arcsec.
    ra0, dec0 : float
        Tangent point, deg.

    Returns
    -------
    ra, dec : numpy.ndarray
        Deg.
    """
    east, north = np.asarray(east) / ARCSEC_PER_RADIAN, np.asarray(north) / ARCSEC_PER_RADIAN
    dec0 = np.radians(dec0)
    depth = np.cos(dec0) - north * np.sin(dec0)
    ra = ra0 + np.degrees(np.arctan2(east, depth))
    dec = np.degrees(np.arctan2(np.sin(dec0) + north * np.cos(dec0), np.hypot(east, depth)))
    return ra % 360.0, dec


@dataclass(frozen=True, eq=False)
class SpaxelFrame:
    """The sky below the spaxels of a cube: an affine map on the tangent plane.

    Attributes
    ----------
    ra, dec : float
        Sky position of the array's centre, deg.
    n_rows, n_columns : int
        Shape of the spaxel array.
    row_step, column_step : numpy.ndarray, shape (2,)
        East and north of one step in y, and in column, arcsec.
    residuals : astropy.table.Table
        A line an exposure: ``row``, ``column``, ``file``, ``offset`` (sub-pixels), ``ra`` and ``dec`` of its
        slit's centre, and how far it lies from where this frame has it, ``d_column`` and ``d_y``, arcsec.
    """

    ra: float
    dec: float
    n_rows: int
    n_columns: int
    row_step: np.ndarray
    column_step: np.ndarray
    residuals: Table

    @property
    def pixel_area_arcsec2(self) -> float:
        """Area of a spaxel on the sky, arcsec squared."""
        east, north = self.column_step, self.row_step
        return float(abs(east[0] * north[1] - east[1] * north[0]))


def _exposure_points(spectra: Mapping, geometry: StackGeometry) -> list[tuple]:
    """(column, row in the stack of the slit's first pixel, step in rows, ra, dec of both ends)."""
    points = []
    for (row, column), spectrum in spectra.items():
        ra, dec = spectrum.geometry.ends.T
        points.append((column, geometry.offsets[row], (spectrum.shape[0] - 1) * geometry.subpixels, ra, dec))
    return points


def fit_frame(
    spectra: Mapping[tuple[int, int], SlitSpectrum],
    geometry: StackGeometry,
    n_columns: int,
    column_step_arcsec: float,
) -> SpaxelFrame:
    """Find where on the sky the spaxels of a stack of exposures lie.

    The step along y is the mean sub-pixel of the exposures; position and column step are the least-squares
    fit to all exposures, each put where the builder puts it. Truncating the offsets moves an exposure by up
    to a sub-pixel from where its own WCS has it: the fit takes away the mean of that.

    Parameters
    ----------
    spectra : mapping of (row, column) to SlitSpectrum
        The exposures of the cube.
    geometry : StackGeometry
        Where each one went.
    n_columns : int
        Columns of the cube.
    column_step_arcsec : float
        Nominal step, used only where fewer than two columns have exposures.

    Returns
    -------
    SpaxelFrame
    """
    points = _exposure_points(spectra, geometry)
    column = np.array([point[0] for point in points]) - (n_columns - 1) / 2
    middle = (geometry.n_rows - 1) / 2
    ra0, dec0 = float(points[0][3][0]), float(points[0][4][0])
    for _ in range(3):  # The tangent point moves to the cube's centre; the second round is exact to 1e-9".
        ends = np.array([tangent_offsets(ra, dec, ra0, dec0) for *_, ra, dec in points])
        slopes = (ends[:, :, 1] - ends[:, :, 0]) / np.array([[point[2]] for point in points])
        row_step = slopes.mean(axis=0)
        centres = ends[:, :, 0] + slopes * (middle - np.array([[point[1]] for point in points]))
        if np.unique(column).size > 1:
            design = np.column_stack([np.ones_like(column), column])
            (origin, column_step), *_ = np.linalg.lstsq(design, centres, rcond=None)
        else:
            # One column has no direction of its own: perpendicular to the slit, west where y is north.
            unit = row_step / np.hypot(*row_step)
            column_step = column_step_arcsec * np.array([-unit[1], unit[0]])
            origin = (centres - column[:, None] * column_step).mean(axis=0)
        ra0, dec0 = (float(value) for value in from_tangent(*origin, ra0, dec0))
    left = np.linalg.solve(
        np.column_stack([column_step / np.hypot(*column_step), row_step / np.hypot(*row_step)]),
        (centres - origin - column[:, None] * column_step).T,
    )
    residuals = _residual_table(spectra, geometry, points, left)
    return SpaxelFrame(ra0, dec0, geometry.n_rows, n_columns, row_step, column_step, residuals)


def _residual_table(spectra: Mapping, geometry: StackGeometry, points: list, left: np.ndarray) -> Table:
    table = Table(rows=list(spectra), names=("row", "column"), dtype=("i2", "i2"))
    # A name alone is not telling: all exposures of a source share it.
    table["file"] = [f"{item.path.parent.name}/{item.path.name}" for item in spectra.values()]
    table["offset"] = np.array([geometry.offsets[row] for row, _ in spectra], dtype=np.int16)
    table["ra"] = [float(point[3].mean()) for point in points]
    table["dec"] = [float(point[4].mean()) for point in points]
    table["d_column"], table["d_y"] = left
    for name, unit in (("ra", "deg"), ("dec", "deg"), ("d_column", "arcsec"), ("d_y", "arcsec")):
        table[name].unit = unit
    return table


def cube_header(frame: SpaxelFrame, wave_um: np.ndarray, unit: str = "MJy/sr") -> fits.Header:
    """Header of the SCI unit of a cube: WCS, units, pixel area.

    Parameters
    ----------
    frame : SpaxelFrame
        Where the spaxels lie.
    wave_um : numpy.ndarray, shape (n,)
        Linear wavelength grid, um.
    unit : str
        BUNIT.

    Returns
    -------
    astropy.io.fits.Header
        WCS with RA---TAN, DEC--TAN, WAVE; positive CDELT, rotation and handedness in PC.
    """
    header = fits.Header()
    header["BUNIT"] = (unit, "surface brightness")
    header["PIXAR_A2"] = (frame.pixel_area_arcsec2, "[arcsec2] area of a spaxel")
    header["PIXAR_SR"] = (frame.pixel_area_arcsec2 / ARCSEC_PER_RADIAN**2, "[sr] area of a spaxel")
    header["DISPAXIS"] = (3, "the dispersion runs along FITS axis 3")
    header["RADESYS"] = "ICRS"
    header["WCSAXES"] = 3
    steps = (np.hypot(*frame.column_step), np.hypot(*frame.row_step), wave_um[1] - wave_um[0])
    axes = (
        ("RA---TAN", "deg", frame.ra, (frame.n_columns + 1) / 2, steps[0] / 3600, "column"),
        ("DEC--TAN", "deg", frame.dec, (frame.n_rows + 1) / 2, steps[1] / 3600, "along the slit"),
        ("WAVE", "um", wave_um[0], 1.0, steps[2], "wavelength, vacuum"),
    )
    for axis, (kind, axis_unit, value, pixel, step, comment) in enumerate(axes, start=1):
        header[f"CTYPE{axis}"] = (kind, comment)
        header[f"CUNIT{axis}"] = axis_unit
        header[f"CRVAL{axis}"] = float(value)
        header[f"CRPIX{axis}"] = float(pixel)
        header[f"CDELT{axis}"] = float(step)
    # CDELTi belongs to the sky axis i, so that PC of unlike steps is a rotation stretched by their ratio.
    matrix = np.eye(3)
    matrix[:2, :2] = np.column_stack([frame.column_step, frame.row_step]) / np.array(steps[:2])[:, None]
    for i in range(3):
        for j in range(3):
            header[f"PC{i + 1}_{j + 1}"] = float(matrix[i, j])
    return header


def inherited_header(primary: fits.Header, source_id: int) -> fits.Header:
    """Primary header of a cube: what all exposures share, from that of the first one.

    Parameters
    ----------
    primary : astropy.io.fits.Header
        Primary header of the source's first exposure.
    source_id : int
        Written as SOURCEID.

    Returns
    -------
    astropy.io.fits.Header
    """
    header = fits.Header()
    for keyword in _INHERITED:
        if keyword in primary:
            header.append(primary.cards[keyword])
    header["SOURCEID"] = (source_id, "source in the MSA metafile")
    header["DATAMODL"] = ("IFUCubeModel", "axes of the array: wave, y, x")
    return header


@dataclass(frozen=True, eq=False)
class Cube:
    """A data cube in memory.

    Attributes
    ----------
    data : numpy.ndarray, shape (wave, y, x)
        Surface brightness, MJy/sr.
    wave_um : numpy.ndarray, shape (wave,)
        Wavelengths, um.
    dq : numpy.ndarray of uint32, shape (wave, y, x)
        jwst flags; bit 0 set: do not use.
    err : numpy.ndarray or None
        One sigma; None where the builder has no errors (the published one has none).
    nexp : numpy.ndarray
        Exposures at each spaxel, shape (y, x), or voxel.
    primary, header : astropy.io.fits.Header
        Headers of the primary and of the SCI unit.
    """

    data: np.ndarray
    wave_um: np.ndarray
    dq: np.ndarray
    err: np.ndarray | None
    nexp: np.ndarray
    primary: fits.Header
    header: fits.Header

    @property
    def wcs(self) -> WCS:
        """Celestial WCS of the spaxels, pixel order (x, y)."""
        return WCS(self.header).celestial

    def spaxel_sky(self) -> tuple[np.ndarray, np.ndarray]:
        """Right ascension and declination of every spaxel's centre, deg, each of shape (y, x)."""
        rows, columns = np.indices(self.data.shape[1:])
        return tuple(self.wcs.pixel_to_world_values(columns, rows))

    def spaxel_offsets(self, ra: float, dec: float) -> tuple[np.ndarray, np.ndarray]:
        """East and north of every spaxel from a sky position, arcsec, each of shape (y, x)."""
        return tangent_offsets(*self.spaxel_sky(), ra, dec)


def read_cube(path: str | Path, *, masked: bool = True) -> Cube:
    """Read a cube that msa3d wrote.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    masked : bool
        Make voxels that are flagged DO_NOT_USE NaN. Without, the values are as they were written: the
        published algorithm leaves zeros where most dithers do not reach.

    Returns
    -------
    Cube

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing or no cube of msa3d.
    """
    path = Path(path)
    if not path.is_file():
        raise ProductError(f"{path}: the cube is missing; run `msa3d cubebuild` first")
    try:
        with fits.open(path, memmap=False) as hdus:
            primary, header = hdus[0].header.copy(), hdus["SCI"].header.copy()
            data = np.array(hdus["SCI"].data, dtype=float)
            dq = np.array(hdus["DQ"].data, dtype=np.uint32)
            err = np.array(hdus["ERR"].data, dtype=float) if "ERR" in hdus else None
            nexp = np.array(hdus["NEXP"].data)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ProductError(f"{path}: not a whole cube ({error}); delete it and run `msa3d cubebuild`") from error
    if masked:
        data[(dq & DO_NOT_USE) > 0] = np.nan
    wave_um = header["CRVAL3"] + (np.arange(data.shape[0]) + 1 - header["CRPIX3"]) * header["CDELT3"]
    return Cube(data, wave_um, dq, err, nexp, primary, header)
