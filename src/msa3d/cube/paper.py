"""The `paper` builder: reads a source's post-processed spectra, writes the published files."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from msa3d.cube import median, product
from msa3d.cube.grid import SlitSpectrum, read_spectrum
from msa3d.cube.source import SourceTask, sources_of
from msa3d.layout import POST_SUFFIX
from msa3d.provenance import atomic_path, is_simulated, stamp
from msa3d.settings_paper import PaperSettings

log = logging.getLogger(__name__)

SMEARED_ARCSEC = 0.05
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
        "paper": switches(task).model_dump(mode="json"),
        "cubebuild": task.dataset.cubebuild.model_dump(mode="json", include={"subpixels", "row_step_arcsec"}),
        "pattern": task.dataset.pattern.model_dump(mode="json"),
        "exposures": [(item.activity, item.row, item.column) for item in task.exposures],
    }


def modules(task: SourceTask) -> tuple[str, ...]:
    """Modules whose code decides what the files hold (see `msa3d.codeversion.code_version`)."""
    return (__name__,)


def switches(task: SourceTask) -> PaperSettings:
    """Give the switches of the dataset: which of the published weaknesses to keep."""
    return task.dataset.cubebuild.paper


def build(task: SourceTask) -> dict[str, Any]:
    """Build the published cube of one source.

    Parameters
    ----------
    task : SourceTask
        The source.

    Returns
    -------
    dict
        What is worth recording: shape, exposures used, the largest distance between an exposure and the
        place that the cube's WCS gives it, arcsec.
    """
    pattern, settings = task.dataset.pattern, task.dataset.cubebuild
    for path in task.missing():
        log.warning("source %d: %s is missing and takes no part in the cube", task.source_id, path)
    chosen = switches(task)
    weights = chosen.combine == "mean"
    spectra = {place: read_spectrum(path, weights=weights) for place, path in task.spectra().items()}
    writer = _Writer(task, spectra)
    cube = median.build(
        spectra,
        n_rows=pattern.rows,
        n_columns=pattern.columns,
        row_step_arcsec=settings.row_step_arcsec or pattern.row_step_arcsec,
        subpixels=settings.subpixels,
        settings=chosen,
        on_column=writer.column,
    )
    frame = product.fit_frame(spectra, cube.geometry, pattern.columns, pattern.column_step_arcsec)
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


def _check(task: SourceTask, frame: product.SpaxelFrame) -> None:
    """Tell the user where the nominal pattern is not what the telescope did."""
    off = np.abs(np.asarray(frame.residuals["d_y"]))
    if off.max() > SMEARED_ARCSEC:
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
        self.settings = switches(task)

    def _primary(self, files: list[Path], history: list[str]) -> fits.PrimaryHDU:
        first = next(iter(self.spectra.values()))
        header = product.inherited_header(first.primary, self.task.source_id)
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
                fits.HDUList([primary, sci]).writeto(partial)

    def cube(self, cube: median.MedianCube, frame: product.SpaxelFrame) -> None:
        """Write the cube."""
        geometry = cube.geometry
        first = next(iter(self.spectra.values()))
        primary = self._primary(
            [item.path for item in self.spectra.values()],
            [description(self.settings)],
        )
        unit = first.sci.get("BUNIT", "MJy/sr")
        header = product.cube_header(frame, cube.wave_um, unit)
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
            hdus.writeto(partial)


def description(settings: PaperSettings) -> str:
    """Say in a sentence in what a cube differs from the published one."""
    published = PaperSettings().model_dump()
    other = [f"{name} = {value}" for name, value in settings.model_dump().items() if value != published[name]]
    if not other:
        return "Published algorithm: truncated offsets, medians with zeros, no errors."
    return f"Published algorithm, but for {', '.join(other)}."


def quality(cube: median.MedianCube, settings: PaperSettings) -> np.ndarray:
    """Flag a published cube: DO_NOT_USE where a value is NaN, or made of the zeros around.

    Parameters
    ----------
    cube : MedianCube
        The cube.
    settings : PaperSettings
        How it was built.

    Returns
    -------
    numpy.ndarray of uint32, shape (wave, y, column)
        Where zeros enter the medians and no more than half of a column's exposures reach a row, its median is
        made of zeros (in part, for an even number of exposures).
    """
    bad = np.isnan(cube.data)
    if settings.zeros_in_median and settings.combine == "median":
        bad |= 2 * cube.nexp <= cube.planes
    return np.where(bad, np.uint32(product.DO_NOT_USE), np.uint32(0))
