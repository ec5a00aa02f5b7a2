"""The published cube: interpolate, stack the dithers of a column, take the median (mode ``paper``).

Value for value the algorithm of Barisic et al. (2024) as its public code (version of 2024) has it, known
weaknesses included: offsets truncated to whole sub-pixels, medians that include the zeros of rows which
some dithers do not reach, no use of the sky WCS beyond the pixel size, no variance. Where the public code
would have stopped, or mixed up its exposures, there is one rule here:

- an exposure that is missing takes no part in its column's median (its plane in the stack is NaN), and a
  column without any exposure is NaN;
- exposures may have different numbers of rows: the source's first exposure gives the stack its height.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from msa3d.cube.grid import (
    SlitSpectrum,
    StackGeometry,
    common_wavelengths,
    interpolate,
)
from msa3d.errors import ProductError

log = logging.getLogger(__name__)

Place = tuple[int, int]
"""Row (dither along the slit) and column (step along the dispersion) of an exposure, from 0."""


@dataclass(frozen=True, eq=False)
class MedianCube:
    """What the published algorithm makes of one source.

    Attributes
    ----------
    data : numpy.ndarray, shape (wave, y, column)
        Medians, MJy/sr; NaN where an exposure had no data at that wavelength, 0 where most dithers of
        the column do not reach the row.
    wave_um : numpy.ndarray, shape (wave,)
        The linear wavelength grid.
    geometry : StackGeometry
        Offsets and sub-pixels.
    nexp : numpy.ndarray of int16, shape (y, column)
        Exposures whose slit reaches the spaxel.
    planes : numpy.ndarray of int16, shape (column,)
        Exposures of the column that were there: a median over `planes` values.
    """

    data: np.ndarray
    wave_um: np.ndarray
    geometry: StackGeometry
    nexp: np.ndarray
    planes: np.ndarray


@dataclass
class _Column:
    """The stack of one column, filled exposure by exposure."""

    geometry: StackGeometry
    wave_um: np.ndarray
    stack: np.ndarray = field(init=False)
    present: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.geometry.n_exposures, self.geometry.n_rows, self.wave_um.size)
        self.stack = np.zeros(shape)
        self.present = np.zeros(self.geometry.n_exposures, dtype=bool)

    def add(self, row: int, spectrum: SlitSpectrum) -> None:
        """Interpolate one exposure into its plane, zeros left around it."""
        positions = self.geometry.positions
        first = self.geometry.offsets[row]
        self.stack[row, first : first + positions.size] = interpolate(
            spectrum.data, spectrum.wave_um, positions, self.wave_um
        )
        self.present[row] = True

    def close(self) -> None:
        """Make the planes of missing exposures NaN."""
        self.stack[~self.present] = np.nan

    def median(self) -> np.ndarray:
        """Median of the exposures that are there, shape (y, wave); NaN without any."""
        if not self.present.any():
            return np.full(self.stack.shape[1:], np.nan)
        return plane_median(self.stack[self.present])

    def coverage(self) -> np.ndarray:
        """Exposures that reach each row, shape (y,)."""
        count = np.zeros(self.geometry.n_rows, dtype=np.int16)
        for first in self.geometry.offsets[self.present]:
            count[first : first + self.geometry.positions.size] += 1
        return count


def plane_median(stack: np.ndarray) -> np.ndarray:
    """Median over the first axis, NaN where any value is NaN: ``numpy.median``, in half its time.

    Parameters
    ----------
    stack : numpy.ndarray, shape (n, ...)
        Values; n > 0.

    Returns
    -------
    numpy.ndarray, shape (...)
    """
    ordered = np.sort(stack, axis=0)
    half = len(stack) // 2
    middle = ordered[half] if len(stack) % 2 else (ordered[half - 1] + ordered[half]) / 2
    # NaN sorts to the end.
    return np.where(np.isnan(ordered[-1]), np.nan, middle)


def middle_place(n_rows: int, n_columns: int) -> Place:
    """Place of the exposure that gives the native pixel: the middle row of the middle column."""
    return (n_rows + 1) // 2 - 1, (n_columns + 1) // 2 - 1


def _middle_spectrum(spectra: Mapping[Place, SlitSpectrum], n_rows: int, n_columns: int) -> SlitSpectrum:
    place = middle_place(n_rows, n_columns)
    if place in spectra:
        return spectra[place]
    nearest = min(spectra, key=lambda p: (abs(p[1] - place[1]) + abs(p[0] - place[0]), p))
    log.warning("middle exposure missing: the native pixel is taken from %s", spectra[nearest].path)
    return spectra[nearest]


def build(
    spectra: Mapping[Place, SlitSpectrum],
    *,
    n_rows: int,
    n_columns: int,
    row_step_arcsec: float = 0.075,
    subpixels: int = 4,
    on_column: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
) -> MedianCube:
    """Build the published cube of one source.

    Parameters
    ----------
    spectra : mapping of (row, column) to SlitSpectrum
        Post-processed exposures, in observing order: the first one gives the cube its number of rows.
    n_rows, n_columns : int
        Size of the dither pattern: rows along the slit, columns along the dispersion.
    row_step_arcsec : float
        Nominal dither step along the slit.
    subpixels : int
        Sub-pixels a native pixel.
    on_column : callable, optional
        Called with (column, stack, median) as each column is ready, so that only one stack is in memory.
        The stack has shape (row, y, wave), the median (y, wave).

    Returns
    -------
    MedianCube

    Raises
    ------
    msa3d.errors.ProductError
        If there is no exposure at all.
    """
    if not spectra:
        raise ProductError("no 2-D spectrum of this source: run `msa3d process` and `msa3d postprocess` first")
    first = next(iter(spectra.values()))
    geometry = StackGeometry(
        native_arcsec=_middle_spectrum(spectra, n_rows, n_columns).geometry.native_pixel_arcsec,
        n_pixels=first.shape[0],
        n_exposures=n_rows,
        row_step_arcsec=row_step_arcsec,
        subpixels=subpixels,
    )
    wave_um = common_wavelengths(spectrum.wave_um for spectrum in spectra.values())
    data = np.full((wave_um.size, geometry.n_rows, n_columns), np.nan)
    nexp = np.zeros((geometry.n_rows, n_columns), dtype=np.int16)
    planes = np.zeros(n_columns, dtype=np.int16)
    for column in range(n_columns):
        stack = _Column(geometry, wave_um)
        for row in range(n_rows):
            if (row, column) in spectra:
                stack.add(row, spectra[row, column])
        stack.close()
        nexp[:, column], planes[column] = stack.coverage(), stack.present.sum()
        median = stack.median()
        data[:, :, column] = median.T
        if on_column is not None:
            on_column(column, stack.stack, median)
    return MedianCube(data, wave_um, geometry, nexp, planes)
