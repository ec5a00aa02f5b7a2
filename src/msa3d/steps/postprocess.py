"""Cosmic rays and path loss of the 2-D spectra, as published: ``s2d`` -> ``s2d_pathcorr_astrocorr``.

Only the SCI plane changes. The published order is kept: first L.A.Cosmic in blocks of wavelengths, then
division by the uniform-source path loss of the CRDS reference, one vector a source for all exposures, made
from the wavelengths of the middle exposure.

Two things to know. With gain and read noise left at their defaults on data of order 0.1 to 1, as published, a
hit on a single pixel below about 3 to 5 data units is never flagged (`msa3d.settings_paper.PaperPostprocess` has
switches for this and other weaknesses). And NaN goes through as the published
code lets it: astroscrappy never flags a NaN, leaves it NaN, and spreads none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from msa3d import provenance
from msa3d.cube.grid import geometry_of_wcs, geometry_table, readable
from msa3d.cube.source import Placed, place_exposures, sources_of
from msa3d.errors import ProductError, UnlitSlitError
from msa3d.layout import POST_SUFFIX
from msa3d.ratefile import spectra
from msa3d.settings_paper import PaperPostprocess
from msa3d.steps.outdated import run_outdated
from msa3d.steps.pathloss import PathlossVector, pathloss_vectors
from msa3d.steps.rectified import corrected

if TYPE_CHECKING:
    from msa3d.dataset import Dataset, PostprocessSettings
    from msa3d.layout import Layout
    from msa3d.steps.calcorrections import BarShadows

log = logging.getLogger(__name__)

MEMORY_GB_EACH = 1.0
MODULES = ("msa3d.steps.postprocess",)

REJECTED = "CRMASK"
"""Extension of the product that marks replaced pixels with 1."""

STATISTICS = "postprocess_statistics.ecsv"
"""Table under ``reduction/process``: pixels flagged, a row an exposure and source."""


@dataclass(frozen=True)
class PostprocessTask:
    """One exposure with all its sources."""

    name: str
    dataset: Dataset
    sources: dict[int, tuple[Path, Path]]
    vectors: dict[int, PathlossVector] = field(repr=False)
    references: dict[str, str]
    record: provenance.Record = field(repr=False)
    bars: BarShadows | None = field(repr=False, default=None)


@dataclass(frozen=True)
class PostprocessResult:
    """What was done to one exposure: rows for the table of statistics."""

    activity: str
    status: str
    seconds: float
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class PostprocessReport:
    """Results of all exposures, in observing order."""

    exposures: list[PostprocessResult]

    def table(self) -> Table:
        """Exposure, status, sources, pixels, rejected pixels and seconds, a row an exposure."""
        return Table(
            {
                "exposure": [item.activity for item in self.exposures],
                "status": [item.status for item in self.exposures],
                "sources": [len(item.rows) for item in self.exposures],
                "rejected": [sum(row["rejected"] for row in item.rows) for item in self.exposures],
                "seconds": [round(item.seconds, 2) for item in self.exposures],
            }
        )

    def statistics(self) -> Table:
        """Exposure, source, pixels, NaN pixels, rejected pixels and their fraction, a row a spectrum."""
        rows = [{"exposure": item.activity, **row} for item in self.exposures for row in item.rows]
        names = ("exposure", "source_id", "pixels", "nan", "examined", "rejected", "fraction")
        table = Table(rows=rows, names=names) if rows else Table(names=names)
        table.meta["comments"] = [f"rejected pixels are marked in the extension {REJECTED} of each product"]
        return table


@provenance.one_run_a_root
def run(dataset: Dataset, layout: Layout, *, workers: int | str | None = None) -> PostprocessReport:
    """Post-process every 2-D spectrum of every source with an id greater than ``postprocess.min_source_id``.

    Exposures whose products are current are left alone.

    Parameters
    ----------
    dataset : Dataset
        The observation and its parameters.
    layout : Layout
        Where things lie.
    workers : int or str, optional
        Number of exposures at a time, or address of a dask scheduler; None for what the machine allows.

    Returns
    -------
    PostprocessReport

    Raises
    ------
    ProductError
        If there is no 2-D spectrum, or one cannot be read.
    CrdsError
        If there is no path loss reference.
    """
    exposures = place_exposures(dataset, layout)
    sources = sources_of(dataset, layout, exposures)
    if not sources:
        raise ProductError(
            f"{layout.process}: no 2-D spectrum {dataset.process.product}_s*_s2d.fits of a source with an id "
            f"above {dataset.postprocess.min_source_id}; run `msa3d process` first"
        )
    for source_id, seen in sources.items():
        for exposure in exposures:
            if exposure not in seen:
                log.warning("source %d has no 2-D spectrum in exposure %s", source_id, exposure.activity)
    reference, vectors = pathloss_vectors(dataset, layout, exposures, sources)
    shadows = _bars(dataset, layout, exposures, sources)
    tasks = [_task(item, dataset, layout, sources, vectors, (reference, shadows)) for item in exposures]
    results, done = run_outdated(
        "postprocess", postprocess_exposure, tasks, _recorded, workers=workers, memory_gb_each=MEMORY_GB_EACH
    )
    report = PostprocessReport(results)
    if done or not (layout.process / STATISTICS).is_file():
        with provenance.atomic_path(layout.process / STATISTICS) as partial:
            report.statistics().write(partial, format="ascii.ecsv")
    return report


def _task(
    exposure: Placed,
    dataset: Dataset,
    layout: Layout,
    sources: Mapping[int, list[Placed]],
    vectors: dict[int, PathlossVector],
    files: tuple[Path | None, BarShadows | None],
) -> PostprocessTask:
    product = dataset.process.product
    here = {
        source_id: (
            layout.s2d(exposure.activity, source_id, "", product),
            layout.s2d(exposure.activity, source_id, POST_SUFFIX, product),
        )
        for source_id, seen in sources.items()
        if exposure in seen
    }
    used = {source_id: vectors[source_id] for source_id in here if source_id in vectors}
    parameters = {
        "postprocess": dataset.postprocess.model_dump(mode="json"),
        "pathloss": {str(source_id): provenance.digest(vector.at.tolist()) for source_id, vector in used.items()},
    }
    record = provenance.Record(
        layout,
        "postprocess",
        exposure.activity,
        inputs=[spectrum for spectrum, _ in here.values()],
        parameters=parameters,
        modules=(*MODULES, "-msa3d.steps.calcorrections") if switches(dataset).ignore_bars else MODULES,
    )
    reference, bars = files
    names = {"pathloss": reference.name} if reference else {}
    if bars is not None:
        names["barshadow"] = bars.name
    return PostprocessTask(exposure.activity, dataset, here, used, names, record, bars)


def switches(dataset: Dataset) -> PaperPostprocess:
    """Give the switches of the dataset: which of the published weaknesses to keep."""
    return dataset.postprocess.paper


def _bars(
    dataset: Dataset, layout: Layout, exposures: tuple[Placed, ...], sources: Mapping[int, list[Placed]]
) -> BarShadows | None:
    """Read the reference of the bar shadow, if it is wanted."""
    if switches(dataset).ignore_bars:
        return None
    from msa3d import references
    from msa3d.steps.calcorrections import BarShadows

    references.use_references(layout, dataset)
    source_id, seen = next(iter(sources.items()))
    any_spectrum = layout.s2d(seen[0].activity, source_id, "", dataset.process.product)
    header_of = next(spectra(layout.rates()), any_spectrum)
    return BarShadows.read(references.reference_for(header_of, "barshadow"))


def _recorded(task: PostprocessTask) -> PostprocessResult:
    notes = task.record.notes()
    return PostprocessResult(task.name, "current", notes.get("seconds", 0.0), notes.get("rows", []))


def postprocess_exposure(task: PostprocessTask) -> PostprocessResult:
    """Post-process all sources of one exposure.

    Parameters
    ----------
    task : PostprocessTask
        The exposure.

    Returns
    -------
    PostprocessResult
    """
    start = time.perf_counter()
    rows, made = [], []
    for source_id, (spectrum, final) in task.sources.items():
        try:
            rows.append(postprocess_spectrum(task, spectrum, final, source_id))
            made.append(final)
        except UnlitSlitError as error:
            log.warning("source %d is left out of exposure %s: %s", source_id, task.name, error)
            final.unlink(missing_ok=True)
    seconds = time.perf_counter() - start
    task.record.write(made, seconds=seconds, rows=rows)
    return PostprocessResult(task.name, "done", seconds, rows)


def postprocess_spectrum(task: PostprocessTask, spectrum: Path, final: Path, source_id: int) -> dict[str, Any]:
    """Post-process one 2-D spectrum.

    All extensions but SCI are copied as they are; `REJECTED` is added, and `msa3d.cube.grid.SLITGEOM`, what
    the cube builder needs of the WCS. SCI becomes float64, as in the published products, so that nothing is
    rounded away.

    Parameters
    ----------
    task : PostprocessTask
        The exposure: parameters, references, and what is stamped.
    spectrum, final : pathlib.Path
        Input and product.
    source_id : int
        The source.

    Returns
    -------
    dict
        ``source_id``, ``pixels``, ``nan``, ``examined`` (pixels that the rejection looked at), ``rejected``,
        ``fraction`` (rejected of examined).
    """
    settings = task.dataset.postprocess
    with readable(spectrum):
        hdus = fits.open(spectrum, memmap=False)
    with hdus:
        with readable(spectrum):
            # Read it to its end now, so that one cut short is found before anything is written.
            len(hdus), hdus[-1].data
        geometry = geometry_of_wcs(hdus, spectrum)
        with readable(spectrum):
            data = np.array(hdus["SCI"].data, dtype=np.float32)
            cleaned, mask, examined = corrected(
                hdus,
                geometry,
                settings.cosmic_rays,
                switches(task.dataset),
                vector=task.vectors.get(source_id),
                bars=task.bars,
                name=spectrum,
            )
        row = {
            "source_id": source_id,
            "pixels": int(data.size),
            "nan": int(np.isnan(data).sum()),
            "examined": examined,
            "rejected": int(mask.sum()),
            "fraction": float(mask.sum() / examined) if examined else 0.0,
        }
        hdus[hdus.index_of("SCI")] = _science(cleaned, hdus["SCI"].header, row["rejected"], settings)
        # Before the rest, so that the builders need not read on.
        hdus.insert(hdus.index_of("SCI") + 1, geometry_table(geometry))
        hdus.append(fits.ImageHDU(mask.astype(np.uint8), name=REJECTED))
        provenance.stamp(
            hdus[0].header,
            dataset=task.dataset,
            inputs=[spectrum],
            references=task.references,
            step="postprocess",
            history=["SCI: L.A.Cosmic in blocks of wavelengths, then division by the path loss"],
        )
        with provenance.atomic_path(final) as partial:
            hdus.writeto(partial)
    return row


def _science(data: np.ndarray, header: fits.Header, rejected: int, settings: PostprocessSettings) -> fits.ImageHDU:
    """Put new pixels under an old header, and say in it what was done."""
    sci = fits.ImageHDU(data, header, name="SCI")
    sci.header["CRMETHOD"] = (settings.cosmic_rays.method, "rejection of cosmic rays")
    sci.header["NREJECT"] = (rejected, f"pixels replaced, see extension {REJECTED}")
    sci.header["PLSOURCE"] = (settings.pathloss.source, "path loss that SCI was divided by")
    if settings.pathloss.source != "none":
        sci.header["PLAPER"] = (settings.pathloss.aperture, "aperture of the path loss")
    return sci
