"""The frame of the published cube on the sky, and its header.

Axes of the array are ``[wave, y, column]``: ``column`` (FITS axis 1) counts the steps along the dispersion,
``y`` (FITS axis 2) the sub-pixels along the slit, ``wave`` (FITS axis 3) is linear. Both sky directions come
from the exposures' own WCS: neither the orientation of the slit nor the sense of the dithers is assumed, so
that the two axes may be of either handedness, and are as perpendicular as the exposures' pointings are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.table import Table

from msa3d.observation.sky import ARCSEC_PER_RADIAN, from_tangent, tangent_offsets

if TYPE_CHECKING:
    from msa3d.published.cube import StackGeometry
    from msa3d.published.rectified import SlitSpectrum


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
        points.append(
            (column, geometry.first_row((row, column)), (spectrum.shape[0] - 1) * geometry.subpixels, ra, dec)
        )
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
    offsets = np.array([geometry.first_row(place) for place in spectra])
    table["offset"] = offsets.astype(np.int16) if geometry.truncated else offsets
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
