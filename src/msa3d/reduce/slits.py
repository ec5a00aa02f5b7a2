"""Post-processing of calibrated slit pixels: ``cal`` -> ``cal_pathcorr_astrocorr``, for the drizzle builder.

Every slit of every file is corrected for path loss and bar shadow, all planes alike: SCI and ERR by the factor,
the variances by its square. Then come, if wanted, the flags of cosmic rays and the subtraction of a background.
No pixel gets a value that was not measured in it: what cannot be corrected is flagged DO_NOT_USE and stays as it
is. The inputs are only read; the ASDF extension with the WCS is carried over as it is, and what the cube builder
needs of the WCS is written down beside it (`msa3d.reduce.geometry`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from msa3d.archive import crds
from msa3d.errors import ProductError
from msa3d.observation.reading import readable
from msa3d.observation.sky import DO_NOT_USE
from msa3d.pipeline import products
from msa3d.pipeline.engine import Made, Record, Report, Result, Step, Task, digest
from msa3d.pipeline.layout import GEOMETRY
from msa3d.reduce import background as reduce_background
from msa3d.reduce import cosmics
from msa3d.reduce.corrections import BarShadows, Pathloss
from msa3d.reduce.geometry import SlitGeometry, geometry_table, read_geometries
from msa3d.reduce.settings import CalpostSettings
from msa3d.reduce.slit import CalSlit, cal_files, product_of, slits_of

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


log = logging.getLogger(__name__)

MODULES = ("msa3d.reduce.slits",)
OPTIONAL = {"background": "msa3d.reduce.background", "cosmic_rays": "msa3d.reduce.cosmics"}
"""Modules of the parts that ``calpost.<part>.method: none`` switches off; then they do not count."""

SHADOW = "BARSHADOW"
"""Extension, one a slit, with what SCI was divided by for the bars; NaN where it was not. jwst's own name."""

REJECTED = "CRMASK"
"""Extension, one a slit, that marks cosmic rays found in this exposure alone with 1."""

STATISTICS = "calpost_statistics.ecsv"
"""Table under ``reduction/process``: what was done, a row a file and slit."""

COLUMNS = (
    "detector", "slit", "source_id", "shutters", "pixels", "usable_before", "usable", "errors_rebuilt", "pathloss",
    "aperture", "transmission", "shadow_min", "shadowed", "background", "examined", "rejected",
)  # fmt: skip


@dataclass(frozen=True)
class CalpostTask:
    """The calibrated files of one exposure, each with its product."""

    name: str
    dataset: Dataset
    settings: CalpostSettings
    files: tuple[tuple[Path, Path], ...]
    pathloss: Pathloss | None = field(repr=False)
    bars: BarShadows | None = field(repr=False)


def columns(result: Result) -> dict[str, Any]:
    """Slits, usable pixels and rejected pixels of an exposure."""
    rows = result.notes["rows"]
    return {
        "slits": len(rows),
        "usable": sum(row["usable"] for row in rows),
        "rejected": sum(row["rejected"] for row in rows),
    }


def statistics(report: Report) -> Table:
    """Tell what was done, a row a slit: pixels and corrections."""
    rows = [{"exposure": item.name, **row} for item in report.results for row in item.notes["rows"]]
    names = ("exposure", *COLUMNS)
    table = Table(rows=rows, names=names) if rows else Table(names=names)
    table.meta["comments"] = [
        "usable: pixels with a value and without DO_NOT_USE; shadowed: flagged as too dark or outside the slitlet",
        "transmission: median path loss divided by; shadow_min: least bar shadow divided by",
        "background: median subtracted, MJy/sr; examined, rejected: by the search for cosmic rays",
    ]
    return table


def finish(layout: Layout, report: Report, done: bool) -> None:
    """Write the statistics of all exposures beside these."""
    path = layout.process / STATISTICS
    if done or not path.is_file():
        with products.atomic_path(path) as partial:
            statistics(report).write(partial, format="ascii.ecsv")


def tasks(dataset: Dataset, layout: Layout) -> list[Task]:
    """Make the tasks of this step: one an exposure that has calibrated slits.

    Parameters
    ----------
    dataset : Dataset
        The observation and its parameters.
    layout : Layout
        Where things lie.

    Returns
    -------
    list of Task

    Raises
    ------
    ProductError
        If there is no calibrated file.
    CrdsError
        If there is no reference of a wanted correction.
    """
    settings = dataset.calpost
    files = {activity: cal_files(layout, activity) for activity in layout.activities()}
    files = {activity: found for activity, found in files.items() if found}
    if not files:
        raise ProductError(f"{layout.process}: no calibrated file jw*_cal.fits; run `msa3d process` first")
    pathloss, bars = _references(dataset, layout, settings, next(iter(files.values()))[0])
    return [_task(activity, found, dataset, layout, settings, pathloss, bars) for activity, found in files.items()]


def _references(
    dataset: Dataset, layout: Layout, settings: CalpostSettings, header_of: Path
) -> tuple[Pathloss | None, BarShadows | None]:
    """Read the references of the wanted corrections."""
    pathloss = bars = None
    if settings.pathloss.source != "none" or settings.barshadow.method != "none":
        crds.use_references(layout, dataset)
    if settings.pathloss.source != "none":
        pathloss = Pathloss.read(crds.reference_for(header_of, "pathloss"))
    if settings.barshadow.method != "none":
        bars = BarShadows.read(crds.reference_for(header_of, "barshadow"))
    return pathloss, bars


def _task(
    activity: str,
    files: list[Path],
    dataset: Dataset,
    layout: Layout,
    settings: CalpostSettings,
    pathloss: Pathloss | None,
    bars: BarShadows | None,
) -> Task:
    parameters: dict[str, Any] = {"calpost": settings.model_dump(mode="json")}
    if pathloss is not None:
        uniform = [[item.wave_um.tolist(), item.uniform.tolist()] for item in (pathloss.one, pathloss.three)]
        parameters["pathloss"] = [pathloss.name, digest(uniform)]
    if bars is not None:
        sums = {key: float(piece.sum()) for key, piece in bars.elements.items()}
        parameters["barshadow"] = [bars.name, digest(sums)]
    off = (f"-{module}" for part, module in OPTIONAL.items() if getattr(settings, part).method == "none")
    record = Record(layout, "calpost", activity, inputs=files, parameters=parameters, modules=(*MODULES, *off))
    pairs = tuple((path, product_of(path)) for path in files)
    job = CalpostTask(activity, dataset, settings, pairs, pathloss, bars)
    return Task(f"exposure {activity}", record, job)


def calpost_exposure(task: CalpostTask) -> Made:
    """Post-process the files of one exposure; the notes hold a row a slit, with the keys `COLUMNS`."""
    rows = [
        row
        for cal, final in task.files
        for row in calpost_file(task.dataset, task.settings, cal, final, task.pathloss, task.bars)
    ]
    return Made([final for _, final in task.files], {"rows": rows})


def calpost_file(
    dataset: Dataset,
    settings: CalpostSettings,
    cal: Path,
    final: Path,
    pathloss: Pathloss | None,
    bars: BarShadows | None,
) -> list[dict[str, Any]]:
    """Post-process one calibrated file.

    Parameters
    ----------
    dataset : Dataset
        What is stamped.
    settings : CalpostSettings
        Parameters.
    cal, final : pathlib.Path
        Input and product.
    pathloss : Pathloss or None
        Reference; None for no correction.
    bars : BarShadows or None
        Reference; None for no correction.

    Returns
    -------
    list of dict
        A row a slit, with the keys `COLUMNS`. A slit that lights hardly any column of the detector is left out: it has
        no row, and all its pixels are flagged DO_NOT_USE.
    """
    geometries = read_geometries(cal)
    with readable(cal):
        hdus = fits.open(cal, memmap=False)
    with hdus:
        with readable(cal):
            slits = list(slits_of(hdus, geometries, str(cal)))
        rows, extra = [], []
        for slit in slits:
            row, hdu = _correct(slit, settings, pathloss, bars)
            rows.append(row)
            extra += hdu
        _subtract_background(slits, geometries, settings, rows, cal)
        for hdu in hdus:
            if hdu.name == "DQ" and hdu.ver not in geometries:
                hdu.data = hdu.data | np.uint32(DO_NOT_USE)  # Left out: it lights hardly any column.
        detector = str(hdus[0].header.get("DETECTOR", ""))
        for slit, row in zip(slits, rows, strict=True):
            usable = int(np.count_nonzero(slit.usable))
            row.update(detector=detector, usable=usable)
            slit.store(hdus)
            _describe(hdus["SCI", slit.version].header, settings, row)
        if GEOMETRY not in hdus:
            hdus.insert(1, geometry_table(geometries))
        # Before the ASDF extension, which jwst keeps last.
        place = hdus.index_of("ASDF")
        for hdu in reversed(extra):
            hdus.insert(place, hdu)
        _stamp(hdus[0].header, dataset, settings, cal, pathloss, bars)
        with products.atomic_path(final) as partial:
            hdus.writeto(partial, checksum=True)
    return [{key: row[key] for key in COLUMNS} for row in rows]


def _correct(
    slit: CalSlit, settings: CalpostSettings, pathloss: Pathloss | None, bars: BarShadows | None
) -> tuple[dict[str, Any], list[fits.ImageHDU]]:
    """Do all to one slit that does not depend on the others; give its row and its new extensions."""
    row: dict[str, Any] = {
        "slit": slit.version,
        "source_id": slit.source_id,
        "shutters": slit.n_open,
        "pixels": int(slit.data.size),
        "usable_before": int(np.count_nonzero(slit.usable)),
        "pathloss": "none",
        "aperture": "",
        "transmission": 1.0,
        "shadow_min": 1.0,
        "shadowed": 0,
        "background": 0.0,
        "examined": 0,
        "rejected": 0,
    }
    hdus = []
    row["errors_rebuilt"] = slit.rebuild_errors() if settings.recompute_errors else 0
    if settings.open_area_only:
        row["shadowed"] = slit.flag(~slit.inside())
    if pathloss is not None:
        row.update(pathloss.correct(slit, settings.pathloss.source))
    if bars is not None and row["pathloss"] != "point":
        plane, statistics = bars.correct(slit, settings.barshadow.min_transmission)
        statistics["shadowed"] += row["shadowed"]
        row.update(statistics)
        hdus.append(fits.ImageHDU(plane.astype(np.float32), name=SHADOW, ver=slit.version))
    if settings.cosmic_rays.method != "none":
        hits, statistics = cosmics.flag_cosmic_rays(slit, settings.cosmic_rays)
        row.update(statistics)
        hdus.append(fits.ImageHDU(hits.astype(np.uint8), name=REJECTED, ver=slit.version))
    return row, hdus


def _subtract_background(
    slits: list[CalSlit],
    geometries: dict[int, SlitGeometry],
    settings: CalpostSettings,
    rows: list[dict[str, Any]],
    cal: Path,
) -> None:
    """Measure the background of a file or of each slit, and subtract it."""
    method = settings.background.method
    if method == "none" or not slits:
        return
    common = None
    if method == "empty":
        try:
            common = reduce_background.background_of(slits, settings.background, 1.0)
        except ProductError as error:
            raise ProductError(f"{cal}: {error}") from error
    for slit, row in zip(slits, rows, strict=True):
        background = common
        if background is None:
            try:
                opening = _opening_arcsec(geometries[slit.version])
                background = reduce_background.background_of([slit], settings.background, opening)
            except ProductError as error:
                # A slitlet whose spectrum just touches the detector: its few pixels are lost, the run goes on.
                log.warning("%s, slit %d is not used: %s", cal, slit.version, error)
                slit.flag(slit.usable)
                row["background"] = float("nan")
                continue
        row.update(reduce_background.subtract(slit, background))


def _opening_arcsec(geometry: SlitGeometry) -> float:
    """Open height of a shutter on the sky, in the middle of a slit."""
    east, north = geometry.on_sky(0.0, np.array([-0.5, 0.5]), np.full(2, geometry.domain[3].mean()))
    return float(np.hypot(np.diff(east), np.diff(north))[0])


def _describe(header: fits.Header, settings: CalpostSettings, row: dict[str, Any]) -> None:
    """Say in the header of SCI what was done to the slit."""
    header["PLSOURCE"] = (row["pathloss"], "path loss that the slit was divided by")
    if row["aperture"]:
        header["PLAPER"] = (row["aperture"], "aperture of the path loss")
    barred = row["pathloss"] != "point" and settings.barshadow.method != "none"
    header["BARCORR"] = (barred, "divided by the shadow of the bars")
    header["BKGMETH"] = (settings.background.method, "background subtracted")
    header["CRMETHOD"] = (settings.cosmic_rays.method, "rejection of cosmic rays")
    header["NREJECT"] = (row["rejected"], "pixels flagged as cosmic rays")


def _stamp(
    header: fits.Header,
    dataset: Dataset,
    settings: CalpostSettings,
    cal: Path,
    pathloss: Pathloss | None,
    bars: BarShadows | None,
) -> None:
    """Stamp the primary header, jwst's own keywords of the two corrections included."""
    used = {}
    if pathloss is not None:
        used["pathloss"] = pathloss.name
        header["S_PTHLOS"] = ("COMPLETE", "Pathloss Correction")
        header["R_PTHLOS"] = f"crds://{pathloss.name}"
    if bars is not None:
        used["barshadow"] = bars.name
        header["S_BARSHA"] = ("COMPLETE", "Bar Shadow Correction")
        header["R_BARSHA"] = f"crds://{bars.name}"
    history = "path loss, bar shadow, background and cosmic rays of the slits; all planes alike"
    products.stamp(header, dataset=dataset, inputs=[cal], references=used, step="calpost", history=[history])


STEP = Step("calpost", tasks, calpost_exposure, columns, memory_gb=0.7, finish=finish)
run = STEP.run
