"""The `drizzle` builder: straight from the calibrated slit pixels of all exposures to a source's cube."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from msa3d.cubes.files import PixelFootprint, science_header, write_cube
from msa3d.cubes.grid import make_grid, median_pixel, slit_pa
from msa3d.cubes.operator import CubeOperator, Planes, mean_correlation
from msa3d.cubes.outliers import Rejection, find_outliers
from msa3d.cubes.shared import add_shared, blank_noise
from msa3d.cubes.slit import SlitPixels, read_slit
from msa3d.errors import ProductError
from msa3d.observation.source import SourceTask, inherited_header, sources_calibrated
from msa3d.pipeline.products import atomic_path, is_simulated, stamp
from msa3d.pointing.offsets import Registration, table_path

log = logging.getLogger(__name__)

sources = sources_calibrated


def record_name(source_id: int) -> str:
    """Name of the record of a source's cube."""
    return f"s{source_id:05d}_drizzle"


def inputs(task: SourceTask) -> list[Path]:
    """Files that the cube is made from."""
    files = [path for paths in task.calibrated().values() for path in paths]
    return [*files, table_path(task.layout)] if _registered(task) else files


def products(task: SourceTask) -> list[Path]:
    """Files that `build` writes: the cube, and the maps of rejected pixels."""
    return [task.layout.cube(task.source_id, task.dataset), task.layout.outliers(task.source_id)]


def parameters(task: SourceTask) -> dict[str, Any]:
    """Parameters that decide what the files hold."""
    return {
        "drizzle": task.dataset.cubebuild.drizzle.model_dump(mode="json"),
        "exposures": [item.activity for item in task.exposures],
        "bars": _bars(task),
    }


def modules(task: SourceTask) -> tuple[str, ...]:
    """Modules whose code decides what the files hold (see `msa3d.pipeline.codeversion.code_version`)."""
    return (__name__,) if _registered(task) else (__name__, "-msa3d.pointing.offsets")


def _registered(task: SourceTask) -> bool:
    return task.dataset.cubebuild.drizzle.registration.method == "apply"


def read_slits(task: SourceTask) -> list[SlitPixels]:
    """Read the pixels of a source from all exposures, moved by their measured offsets if these are applied.

    In observing order, NRS1 before NRS2; files in which the source has no light are left out.

    Raises
    ------
    msa3d.errors.ProductError
        If no file has a slit of the source.
    """
    settings = task.dataset.cubebuild.drizzle
    options = settings.model_dump(include={"slit_frac", "pixfrac", "exclude"}) | {"bars": _bars(task)}
    offsets = Registration.read(table_path(task.layout)) if _registered(task) else None
    slits = []
    for activity, paths in task.calibrated().items():
        here = [slit for path in paths if (slit := read_slit(path, task.source_id, **options)) is not None]
        if not here:
            log.warning("source %d: no pixels in exposure %s, which takes no part", task.source_id, activity)
        if offsets is not None:
            here = [slit.shifted(*offsets.offset_of(activity)) for slit in here]
        slits += here
    if not slits:
        raise ProductError(
            f"{task.layout.process}: no post-processed slit of source {task.source_id}; run `msa3d process` and "
            "`msa3d postprocess` first"
        )
    return slits


def build(task: SourceTask) -> dict[str, Any]:
    """Build the drizzled cube of one source.

    Returns
    -------
    dict
        What is worth recording: shape, exposures used and missing, pixels and those rejected, entries of the
        operator.
    """
    settings = task.dataset.cubebuild.drizzle
    grid, slits = make_grid(read_slits(task), settings)
    footprint = _footprint_of(slits, settings.slit_frac, settings.pixfrac)
    operator = CubeOperator(slits, grid, settings.weighting, settings.slit_frac * settings.pixfrac)
    rejection = find_outliers(operator, settings.outliers)
    planes = operator.combine(rejection.masks)
    correlation = mean_correlation(operator, planes, rejection.masks)
    noise = blank_noise(planes.sci, planes.err)
    correlation = add_shared(correlation, noise, grid.wcs().celestial, footprint.pa_deg)
    primary = _primary(task, slits, settings.weighting)
    header = science_header(grid, footprint, _spectral_system(slits[0]))
    cube, outliers = products(task)
    _write_outliers(outliers, operator, rejection, primary)
    write_cube(cube, primary, header, planes, correlation, rejection.table)
    return {
        "shape": list(grid.shape),
        "exposures": len(operator.exposures),
        "missing": len(task.exposures) - len(operator.exposures),
        "pixels": int(sum(len(slit.flat) for slit in slits)),
        "rejected": int(rejection.table["rejected"].sum()),
        "entries": int(sum(block.matrix.nnz for block in operator.blocks)),
        "empty_voxels": _empty_fraction(planes),
    }


def _bars(task: SourceTask) -> bool:
    """Whether the pixels were corrected for the shadow of the bars."""
    return task.dataset.calpost.barshadow.method == "apply"


def _empty_fraction(planes: Planes) -> float:
    """Fraction of the voxels of covered spaxels that have no data."""
    covered = np.isfinite(planes.sci).any(axis=0)
    return float(np.isnan(planes.sci[:, covered]).mean()) if covered.any() else 1.0


def _footprint_of(slits: Sequence[SlitPixels], slit_frac: float, pixfrac: float) -> PixelFootprint:
    """Measure what a pixel sees, from the corners of those of all slits (medians)."""
    wide, high = [], []
    for slit in slits:
        wide.append(np.median(np.hypot(slit.east[:, 1] - slit.east[:, 0], slit.north[:, 1] - slit.north[:, 0])))
        high.append(np.median(np.hypot(slit.east[:, 3] - slit.east[:, 0], slit.north[:, 3] - slit.north[:, 0])))
    width, height = float(np.median(wide)) / slit_frac, float(np.median(high)) / pixfrac
    pixel_um = round(median_pixel(slits), 9)
    return PixelFootprint(round(width, 6), round(height, 6), round(slit_pa(slits), 6), slit_frac, pixfrac, pixel_um)


def _spectral_system(slit: SlitPixels) -> str:
    with fits.open(slit.path) as hdus:
        return hdus["SCI", slit.extver].header.get("SPECSYS", "BARYCENT")


def _primary(task: SourceTask, slits: Sequence[SlitPixels], weighting: str) -> fits.Header:
    header = inherited_header(slits[0].header, task.source_id)
    outliers = task.dataset.cubebuild.drizzle.outliers.method
    header["MSA3DBLD"] = ("drizzle", "cube builder: overlaps of slit pixels")
    header["WTYPE"] = (weighting, "weight of a pixel beside its overlap")
    stamp(
        header,
        dataset=task.dataset,
        inputs=[slit.name for slit in slits],
        simulated=any(is_simulated(slit.header) for slit in slits),
        step="cubebuild",
        history=[f"Overlap of every calibrated pixel with the voxels; outliers: {outliers}."],
    )
    return header


def _write_outliers(path: Path, operator: CubeOperator, rejection: Rejection, primary: fits.Header) -> None:
    """Write the table of rejections, and a map for each slit image that has any."""
    hdus = [fits.PrimaryHDU(header=primary), fits.BinTableHDU(Table(rejection.table), name="STATISTICS")]
    for block, mask in zip(operator.blocks, rejection.masks, strict=True):
        if not mask.any():
            continue
        image = np.zeros(block.slit.shape, dtype=np.uint8)
        image.ravel()[block.slit.flat[mask]] = 1
        hdu = fits.CompImageHDU(image, name=f"{block.exposure}_{block.slit.detector}".upper())
        hdu.header["FILE"] = block.slit.name
        hdu.header["SLIT"] = (block.slit.extver, "EXTVER of the slit")
        hdus.append(hdu)
    with atomic_path(path) as partial:
        fits.HDUList(hdus).writeto(partial, checksum=True)
