"""The published cube: interpolate, stack the dithers of a column, take the median (mode ``paper``).

Value for value the algorithm of Barisic et al. (2024) as its public code (version of 2024) has it, known
weaknesses included: offsets truncated to whole sub-pixels, medians that include the zeros of rows which
some dithers do not reach, no use of the sky WCS beyond the pixel size, no variance. Where the public code
would have stopped, or mixed up its exposures, there is one rule here:

- an exposure that is missing takes no part in its column's median (its plane in the stack is NaN), and a
  column without any exposure is NaN;
- exposures may have different numbers of rows: the source's first exposure gives the stack its height.

Each weakness has a switch (`msa3d.settings_paper.PaperSettings`), so that its cost can be measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from msa3d.cube.grid import SlitSpectrum
from msa3d.cube.stack import (
    Place,
    StackGeometry,
    common_wavelengths,
    interpolate,
    interpolate_cubic,
    measured_offsets,
)
from msa3d.errors import ProductError
from msa3d.settings_paper import PaperSettings

log = logging.getLogger(__name__)

PUBLISHED = PaperSettings()


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
    settings: PaperSettings
    stack: np.ndarray = field(init=False)
    weights: np.ndarray | None = field(init=False, default=None)
    present: np.ndarray = field(init=False)
    reached: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.geometry.n_exposures, self.geometry.n_rows, self.wave_um.size)
        self.stack = np.full(shape, 0.0 if self.settings.zeros_in_median else np.nan)
        self.present = np.zeros(self.geometry.n_exposures, dtype=bool)
        self.reached = np.zeros(self.geometry.n_rows, dtype=np.int16)
        if self.settings.combine == "mean":
            self.weights = np.zeros(shape)

    def add(self, place: Place, spectrum: SlitSpectrum) -> None:
        """Interpolate one exposure into its plane; what it does not reach stays as it was."""
        rows, positions = self.geometry.reach(place)
        data = spectrum.data
        if not self.settings.zeros_in_median:
            data = np.where(data == 0, np.nan, data)
        onto_grid = interpolate_cubic if self.settings.interpolation == "cubic" else interpolate
        self.stack[place[0], rows] = onto_grid(data, spectrum.wave_um, positions, self.wave_um)
        if self.weights is not None:
            # A cell with an unknown corner is unknown.
            known = np.where(spectrum.weight > 0, spectrum.weight, np.nan)
            weight = interpolate(known, spectrum.wave_um, positions, self.wave_um)
            self.weights[place[0], rows] = np.nan_to_num(weight, nan=0.0)
        self.present[place[0]] = True
        self.reached[rows] += 1

    def close(self) -> None:
        """Make the planes of missing exposures NaN."""
        self.stack[~self.present] = np.nan

    def combined(self) -> np.ndarray:
        """Median, or weighted mean, of the exposures that are there, shape (y, wave); NaN without any."""
        stack = self.stack[self.present]
        if not len(stack):
            return np.full(self.stack.shape[1:], np.nan)
        if self.weights is not None:
            return weighted_mean(stack, self.weights[self.present])
        return plane_median(stack) if self.settings.zeros_in_median else known_median(stack)


def weighted_mean(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is finite and has weight; NaN where nothing does."""
    weights = np.where(np.isfinite(stack), weights, 0.0)
    total = weights.sum(axis=0)
    summed = (weights * np.where(weights > 0, stack, 0.0)).sum(axis=0)
    return np.divide(summed, total, out=np.full(total.shape, np.nan), where=total > 0)


def known_median(stack: np.ndarray) -> np.ndarray:
    """Median over the first axis of what is not NaN; NaN where nothing is."""
    ordered = np.sort(stack, axis=0)
    count = np.isfinite(ordered).sum(axis=0)
    last = np.maximum(count - 1, 0)
    low, high = (np.take_along_axis(ordered, item[None], axis=0)[0] for item in (last // 2, (last + 1) // 2))
    return np.where(count > 0, 0.5 * (low + high), np.nan)


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
    settings: PaperSettings = PUBLISHED,
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
    settings : PaperSettings
        Which of the published weaknesses to keep: all of them by default.
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
    geometry = _geometry(spectra, n_rows, n_columns, row_step_arcsec, subpixels, settings)
    wave_um = common_wavelengths(spectrum.wave_um for spectrum in spectra.values())
    data = np.full((wave_um.size, geometry.n_rows, n_columns), np.nan)
    nexp = np.zeros((geometry.n_rows, n_columns), dtype=np.int16)
    planes = np.zeros(n_columns, dtype=np.int16)
    for column in range(n_columns):
        stack = _Column(geometry, wave_um, settings)
        for row in range(n_rows):
            if (row, column) in spectra:
                stack.add((row, column), spectra[row, column])
        stack.close()
        nexp[:, column], planes[column] = stack.reached, stack.present.sum()
        median = stack.combined()
        data[:, :, column] = median.T
        if on_column is not None:
            on_column(column, stack.stack, median)
    return MedianCube(data, wave_um, geometry, nexp, planes)


def _geometry(
    spectra: Mapping[Place, SlitSpectrum],
    n_rows: int,
    n_columns: int,
    row_step_arcsec: float,
    subpixels: int,
    settings: PaperSettings,
) -> StackGeometry:
    """Lay out the stack of a column."""
    native = _middle_spectrum(spectra, n_rows, n_columns).geometry.native_pixel_arcsec
    return StackGeometry(
        native_arcsec=native,
        n_pixels=next(iter(spectra.values())).shape[0],
        n_exposures=n_rows,
        row_step_arcsec=row_step_arcsec,
        subpixels=subpixels,
        truncated=settings.truncate_offsets,
        measured=None if settings.nominal_offsets else measured_offsets(spectra, native / subpixels),
    )
