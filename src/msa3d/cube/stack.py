"""How the published builder puts exposures together: their rows in a stack, and interpolation onto its grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from msa3d.cube.grid import SlitSpectrum
from msa3d.cube.sky import tangent_offsets

STACK_MARGIN_PIXELS = 4.5
"""Native pixels that a stack is higher than one exposure: room for the dithers of the published pattern."""

Place = tuple[int, int]
"""Row (dither along the slit) and column (step along the dispersion) of an exposure, from 0."""


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
    truncated : bool
        Whether offsets are truncated to whole sub-pixels, as published.
    measured : mapping of (row, column) to float, optional
        Offsets of the exposures, sub-pixels, where they are not the nominal ones (`measured_offsets`).
    """

    native_arcsec: float
    n_pixels: int
    n_exposures: int
    row_step_arcsec: float
    subpixels: int = 4
    truncated: bool = True
    measured: Mapping[Place, float] | None = field(default=None, repr=False)

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

    def first_row(self, place: Place) -> float:
        """Row of the stack, from 0, at which an exposure begins: whole if offsets are truncated."""
        exact = self.exact_offsets[place[0]] if self.measured is None else self.measured[place]
        return int(exact) if self.truncated else float(exact)

    def reach(self, place: Place) -> tuple[slice, np.ndarray]:
        """Find what an exposure fills of the stack.

        Parameters
        ----------
        place : (int, int)
            Row and column of the exposure.

        Returns
        -------
        rows : slice
            Rows of the stack.
        positions : numpy.ndarray
            Where these rows lie in the exposure, native pixels.
        """
        first = self.first_row(place)
        if self.truncated:
            return slice(first, first + self.positions.size), self.positions
        start, stop = int(np.ceil(first)), int(np.floor(first)) + self.positions.size
        return slice(start, stop), (np.arange(start, stop) - first) / self.subpixels

    @property
    def positions(self) -> np.ndarray:
        """Positions along the slit, in native pixels, that every exposure is interpolated at."""
        return np.linspace(0, self.n_pixels - 1, (self.n_pixels - 1) * self.subpixels + 1)

    @property
    def n_rows(self) -> int:
        """Rows of the stack; for a pattern larger than the published one, as many as it needs."""
        published = int((self.n_pixels + STACK_MARGIN_PIXELS) * (self.native_arcsec / self.sub_arcsec))
        last = self.exact_offsets[-1] if self.measured is None else max(self.measured.values())
        return max(published, int(last) + self.positions.size)


def measured_offsets(spectra: Mapping[Place, SlitSpectrum], sub_arcsec: float) -> dict[Place, float]:
    """Offsets of the exposures along the slit, from their own WCS.

    Parameters
    ----------
    spectra : mapping of (row, column) to SlitSpectrum
        The exposures of a source.
    sub_arcsec : float
        Sub-pixel, arcsec.

    Returns
    -------
    dict of (row, column) to float
        How far the first row of each lies along the slit, in sub-pixels from the lowest of all.
    """
    ends = np.array([spectrum.geometry.ends for spectrum in spectra.values()])
    sky = np.array([tangent_offsets(*exposure.T, *ends[0, 0]) for exposure in ends])
    slit = (sky[:, :, 1] - sky[:, :, 0]).mean(axis=0)
    along = sky[:, :, 0] @ (slit / np.hypot(*slit)) / sub_arcsec
    return dict(zip(spectra, (float(value) for value in along - along.min()), strict=True))


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


def interpolate_cubic(data: np.ndarray, wave_um: np.ndarray, positions: np.ndarray, grid_um: np.ndarray) -> np.ndarray:
    """Interpolate linearly in wavelength, and by the cubic convolution of Keys (1981) along the slit.

    Parameters
    ----------
    data, wave_um, positions, grid_um
        As for `interpolate`. Beyond its ends the spectrum goes on as its first and last row.

    Returns
    -------
    numpy.ndarray, shape (m, n)
        NaN outside the spectrum, and where any of the four rows around is NaN.
    """
    rows = np.arange(data.shape[0], dtype=float)
    column, weight, outside_x = interpolation_weights(wave_um, grid_um)
    lines = (1 - weight) * data[:, column] + weight * data[:, column + 1]
    cell, t, outside = interpolation_weights(rows, positions)
    factors = (
        t * (-0.5 + t * (1.0 - 0.5 * t)),
        1.0 + t * t * (1.5 * t - 2.5),
        t * (0.5 + t * (2.0 - 1.5 * t)),
        t * t * (0.5 * t - 0.5),
    )
    out = np.zeros((positions.size, grid_um.size))
    for step, factor in zip((-1, 0, 1, 2), factors, strict=True):
        out += lines[np.clip(cell + step, 0, rows.size - 1)] * factor[:, None]
    out[outside] = np.nan
    out[:, outside_x] = np.nan
    return out
