"""The published cube: interpolate, stack the dithers of a column, take the median (builder `paper`).

Value for value the algorithm of Barisic et al. (2024) as its public code (version of 2024) has it, known
weaknesses included: offsets truncated to whole sub-pixels, medians that include the zeros of rows which
some dithers do not reach, no use of the sky WCS beyond the pixel size, no variance. Where the public code
would have stopped, or mixed up its exposures, there is one rule here:

- an exposure that is missing takes no part in its column's median (its plane in the stack is NaN), and a
  column without any exposure is NaN;
- exposures may have different numbers of rows: the source's first exposure gives the stack its height.

Each weakness has a switch (`msa3d.published.settings.PaperSettings`), so that its cost can be measured.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from msa3d.errors import ProductError
from msa3d.observation import sky, source
from msa3d.observation.sky import tangent_offsets
from msa3d.observation.source import SourceTask, sources_of
from msa3d.pipeline.layout import POST_SUFFIX
from msa3d.pipeline.products import atomic_path, is_simulated, stamp
from msa3d.published import frame as published_frame
from msa3d.published.rectified import SlitSpectrum, read_spectrum
from msa3d.published.settings import PaperSettings

log = logging.getLogger(__name__)

_PUBLISHED = PaperSettings()


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
            return _weighted_mean(stack, self.weights[self.present])
        return plane_median(stack) if self.settings.zeros_in_median else known_median(stack)


def _weighted_mean(stack: np.ndarray, weights: np.ndarray) -> np.ndarray:
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
    """Median over the first axis, NaN where any value is NaN: ``numpy.median``, in half its time."""
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


def build_median(
    spectra: Mapping[Place, SlitSpectrum],
    *,
    n_rows: int,
    n_columns: int,
    row_step_arcsec: float = 0.075,
    subpixels: int = 4,
    settings: PaperSettings = _PUBLISHED,
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


_STACK_MARGIN_PIXELS = 4.5
"""Native pixels that a stack is higher than one exposure: room for the dithers of the published pattern."""

Place = tuple[int, int]
"""Row (dither along the slit) and column (step along the dispersion) of an exposure, from 0."""


def common_wavelengths(wavelengths: Iterable[np.ndarray]) -> np.ndarray:
    """Linear wavelength grid, um, over the increasing wavelengths of all exposures of a source, as published.

    ``arange(smallest first, largest last, smallest step)``: the end is left out.
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
        """Rows of the stack that an exposure fills, and where these lie in the exposure, in native pixels."""
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
        published = int((self.n_pixels + _STACK_MARGIN_PIXELS) * (self.native_arcsec / self.sub_arcsec))
        last = self.exact_offsets[-1] if self.measured is None else max(self.measured.values())
        return max(published, int(last) + self.positions.size)


def measured_offsets(spectra: Mapping[Place, SlitSpectrum], sub_arcsec: float) -> dict[Place, float]:
    """How far each exposure lies along the slit from the lowest of all, in sub-pixels, by their own WCS."""
    ends = np.array([spectrum.geometry.ends for spectrum in spectra.values()])
    sky = np.array([tangent_offsets(*exposure.T, *ends[0, 0]) for exposure in ends])
    slit = (sky[:, :, 1] - sky[:, :, 0]).mean(axis=0)
    along = sky[:, :, 0] @ (slit / np.hypot(*slit)) / sub_arcsec
    return dict(zip(spectra, (float(value) for value in along - along.min()), strict=True))


def _interpolation_weights(nodes: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells of linear interpolation as scipy has them, weights of their second samples, and whether outside."""
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
    row, weight_y, outside_y = _interpolation_weights(np.arange(data.shape[0], dtype=float), positions)
    column, weight_x, outside_x = _interpolation_weights(wave_um, grid_um)
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
    """As `interpolate`, but by the cubic convolution of Keys (1981) along the slit, where the ends go on as they are.

    NaN also where any of the four rows around is NaN.
    """
    rows = np.arange(data.shape[0], dtype=float)
    column, weight, outside_x = _interpolation_weights(wave_um, grid_um)
    lines = (1 - weight) * data[:, column] + weight * data[:, column + 1]
    cell, t, outside = _interpolation_weights(rows, positions)
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


_SMEARED_ARCSEC = 0.05
"""Offset of an exposure from its place, beyond which the user is told: two sub-pixels, half a dither."""


sources = functools.partial(sources_of, suffix=POST_SUFFIX)


def record_name(source_id: int) -> str:
    """Name of the record of a source's cube."""
    return f"s{source_id:05d}"


def inputs(task: SourceTask) -> list[Path]:
    """Files that the cube is made from."""
    return list(task.spectra().values())


def products(task: SourceTask) -> list[Path]:
    """Files that `build` writes: the cube, and a median and a stack for each column (from 1)."""
    layout, source_id = task.layout, task.source_id
    columns = range(1, task.dataset.pattern.columns + 1)
    return [
        layout.cube_medians(source_id),
        *(layout.column_median(source_id, column) for column in columns),
        *(layout.column_stack(source_id, column) for column in columns),
    ]


def parameters(task: SourceTask) -> dict[str, Any]:
    """Parameters that decide what the files hold."""
    return {
        "paper": task.dataset.cubebuild.paper.model_dump(mode="json"),
        "cubebuild": task.dataset.cubebuild.model_dump(mode="json", include={"subpixels", "row_step_arcsec"}),
        "pattern": task.dataset.pattern.model_dump(mode="json"),
        "exposures": [(item.activity, item.row, item.column) for item in task.exposures],
    }


def modules(task: SourceTask) -> tuple[str, ...]:
    """Modules whose code decides what the files hold (see `msa3d.pipeline.codeversion.code_version`)."""
    return (__name__,)


def build(task: SourceTask) -> dict[str, Any]:
    """Build the published cube of one source.

    Returns
    -------
    dict
        What is worth recording: shape, exposures used, the largest distance between an exposure and the
        place that the cube's WCS gives it, arcsec.
    """
    pattern, settings = task.dataset.pattern, task.dataset.cubebuild
    for path in task.missing():
        log.warning("source %d: %s is missing and takes no part in the cube", task.source_id, path)
    chosen = settings.paper
    weights = chosen.combine == "mean"
    spectra = {place: read_spectrum(path, weights=weights) for place, path in task.spectra().items()}
    writer = _Writer(task, spectra)
    cube = build_median(
        spectra,
        n_rows=pattern.rows,
        n_columns=pattern.columns,
        row_step_arcsec=settings.row_step_arcsec or pattern.row_step_arcsec,
        subpixels=settings.subpixels,
        settings=chosen,
        on_column=writer.column,
    )
    frame = published_frame.fit_frame(spectra, cube.geometry, pattern.columns, pattern.column_step_arcsec)
    _check(task, frame)
    writer.cube(cube, frame)
    worst = np.max(np.hypot(frame.residuals["d_column"], frame.residuals["d_y"]))
    return {
        "shape": list(cube.data.shape),
        "exposures": len(spectra),
        "missing": len(task.missing()),
        "native_pixel_arcsec": cube.geometry.native_arcsec,
        "column_step_arcsec": float(np.hypot(*frame.column_step)),
        "worst_place_arcsec": float(worst),
    }


def _check(task: SourceTask, frame: published_frame.SpaxelFrame) -> None:
    """Tell the user where the nominal pattern is not what the telescope did."""
    off = np.abs(np.asarray(frame.residuals["d_y"]))
    if off.max() > _SMEARED_ARCSEC:
        worst = frame.residuals[int(off.argmax())]
        log.warning(
            'source %d: pointings differ from the nominal dithers by up to %.3f" along the slit (%s); the '
            "median smears the source by as much: check pattern.row_step_arcsec and the exposures' order",
            task.source_id,
            off.max(),
            worst["file"],
        )


class _Writer:
    """Writes the files of one source as they become ready."""

    def __init__(self, task: SourceTask, spectra: dict[tuple[int, int], SlitSpectrum]) -> None:
        self.task = task
        self.spectra = spectra
        self.settings = task.dataset.cubebuild.paper

    def _primary(self, files: list[Path], history: list[str]) -> fits.PrimaryHDU:
        first = next(iter(self.spectra.values()))
        header = source.inherited_header(first.primary, self.task.source_id)
        header["MSA3DBLD"] = ("paper", "cube builder: the published algorithm")
        stamp(
            header,
            dataset=self.task.dataset,
            inputs=[f"{path.parent.name}/{path.name}" for path in files],
            simulated=any(is_simulated(item.primary) for item in self.spectra.values()),
            step="cubebuild",
            history=history,
        )
        return fits.PrimaryHDU(header=header)

    def column(self, column: int, stack: np.ndarray, values: np.ndarray) -> None:
        """Write the stack and the median of one column; names count columns from 1, as published."""
        layout, source_id = self.task.layout, self.task.source_id
        used = [item.path for (_, col), item in self.spectra.items() if col == column]
        # Interpolated float32 data: their digits beyond float32 mean nothing, and the nine stacks are the
        # bulk of what a source writes. The median is taken before, in float64.
        for path, data in (
            (layout.column_stack(source_id, column + 1), stack.astype(np.float32)),
            (layout.column_median(source_id, column + 1), values),
        ):
            primary = self._primary(used, [f"column {column + 1}, axes: (dither,) y along the slit, wave"])
            sci = fits.ImageHDU(data, name="SCI")
            sci.header["BUNIT"] = "MJy/sr"
            with atomic_path(path) as partial:
                fits.HDUList([primary, sci]).writeto(partial, checksum=True)

    def cube(self, cube: MedianCube, frame: published_frame.SpaxelFrame) -> None:
        """Write the cube."""
        geometry = cube.geometry
        first = next(iter(self.spectra.values()))
        primary = self._primary(
            [item.path for item in self.spectra.values()],
            [description(self.settings)],
        )
        unit = first.sci.get("BUNIT", "MJy/sr")
        header = published_frame.cube_header(frame, cube.wave_um, unit)
        if "SPECSYS" in first.sci:
            header["SPECSYS"] = first.sci["SPECSYS"]
        header["NATPIX"] = (geometry.native_arcsec, "[arcsec] native pixel along the slit")
        header["SUBPIX"] = (geometry.subpixels, "sub-pixels a native pixel")
        header["ROWSTEP"] = (geometry.row_step_arcsec, "[arcsec] nominal dither along the slit")
        hdus = fits.HDUList(
            [
                primary,
                fits.ImageHDU(cube.data, header, name="SCI"),
                fits.ImageHDU(quality(cube, self.settings), name="DQ"),
                fits.ImageHDU(cube.nexp, name="NEXP"),
                fits.BinTableHDU(frame.residuals, name="EXPOSURES"),
            ]
        )
        with atomic_path(self.task.layout.cube_medians(self.task.source_id)) as partial:
            hdus.writeto(partial, checksum=True)


def description(settings: PaperSettings) -> str:
    """Say in a sentence in what a cube differs from the published one."""
    published = _PUBLISHED.model_dump()
    other = [f"{name} = {value}" for name, value in settings.model_dump().items() if value != published[name]]
    if not other:
        return "Published algorithm: truncated offsets, medians with zeros, no errors."
    return f"Published algorithm, but for {', '.join(other)}."


def quality(cube: MedianCube, settings: PaperSettings) -> np.ndarray:
    """Flag a published cube: DO_NOT_USE where a value is NaN, or made of the zeros around.

    Where zeros enter the medians and no more than half of a column's exposures reach a row, its median is made of
    zeros (in part, for an even number of exposures).

    Returns
    -------
    numpy.ndarray of uint32, shape (wave, y, column)
    """
    bad = np.isnan(cube.data)
    if settings.zeros_in_median and settings.combine == "median":
        bad |= 2 * cube.nexp <= cube.planes
    return np.where(bad, np.uint32(sky.DO_NOT_USE), np.uint32(0))
