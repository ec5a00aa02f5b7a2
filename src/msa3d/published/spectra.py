"""The published post-processing of rectified 2-D spectra: ``s2d`` -> ``s2d_pathcorr_astrocorr``.

Only the SCI plane changes. The published order is kept: first L.A.Cosmic in blocks of wavelengths, then
division by the uniform-source path loss of the CRDS reference, one vector a source for all exposures, made
from the wavelengths of the middle exposure. Each weakness has a switch (`msa3d.published.settings`).

Two things to know. With gain and read noise left at their defaults on data of order 0.1 to 1, as published, a
hit on a single pixel below about 3 to 5 data units is never flagged. And NaN goes through as the published
code lets it: astroscrappy never flags a NaN, leaves it NaN, and spreads none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from msa3d.archive import crds
from msa3d.errors import ProductError, UnlitSlitError
from msa3d.observation.reading import readable, spectra
from msa3d.observation.source import Placed, place_exposures, sources_of
from msa3d.pipeline import products
from msa3d.pipeline.engine import Made, Record, Report, Result, Step, Task, digest
from msa3d.pipeline.layout import POST_SUFFIX
from msa3d.published.settings import PaperPostprocess
from msa3d.reduce.geometry import SLITGEOM, read_rectified, rectified_geometry, rectified_table
from msa3d.reduce.slit import PITCH_IN_OPENINGS, open_ranges

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout
    from msa3d.published.settings import CosmicRays, PostprocessSettings
    from msa3d.reduce.corrections import BarShadows
    from msa3d.reduce.geometry import RectifiedGeometry


_PUBLISHED = PaperPostprocess()

_LEAST_TRANSMISSION = 0.2
"""Darker pixels are left as they are: dividing by less makes noise."""


def corrected(
    hdus: fits.HDUList,
    geometry: RectifiedGeometry,
    cosmic_rays: CosmicRays,
    switches: PaperPostprocess = _PUBLISHED,
    *,
    vector: PathlossVector | None = None,
    bars: BarShadows | None = None,
    name: Path | str = "",
) -> tuple[np.ndarray, np.ndarray, int]:
    """Correct the image of a 2-D spectrum for cosmic rays, path loss and, if wanted, the shadow of the bars.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList
        The open file, which is not changed.
    geometry : RectifiedGeometry
        What its WCS says.
    cosmic_rays : CosmicRays
        Parameters of the rejection.
    switches : PaperPostprocess
        Which of the published weaknesses to keep: all of them by default.
    vector : PathlossVector, optional
        Path loss to divide by; none without it.
    bars : BarShadows, optional
        Bar shadow to divide by; none without it.
    name : path
        What a warning calls the file.

    Returns
    -------
    cleaned : numpy.ndarray of float64, shape (ny, nx)
        The image.
    mask : numpy.ndarray of bool, shape (ny, nx)
        True where a cosmic ray was replaced.
    examined : int
        Pixels that were looked at for cosmic rays.
    """
    data = np.array(hdus["SCI"].data, dtype=np.float32)
    variance = None
    if not switches.default_noise:
        variance = np.array(hdus["VAR_POISSON"].data) + np.array(hdus["VAR_RNOISE"].data)
    cleaned, mask, examined = reject_cosmic_rays(data, cosmic_rays, switches, variance)
    if vector is not None:
        cleaned = cleaned / _matching(vector, name, geometry.wave_um, own=not switches.one_pathloss)
    if bars is not None:
        cleaned = cleaned / bar_transmission(bars, geometry, data.shape[0], hdus["SCI"].header["SHUTSTA"])
    return cleaned, mask, examined


def reject_cosmic_rays(
    data: np.ndarray,
    settings: CosmicRays,
    switches: PaperPostprocess = _PUBLISHED,
    variance: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """L.A.Cosmic (van Dokkum 2001) in blocks of wavelengths, as published.

    The image is transposed to [wave, y]. Blocks begin at wavelength 0 and follow each other while the end of
    the block is below the last whole multiple of the block's length: the last whole block, and what is left
    after it, stay as they are. Each block is replaced by astroscrappy's cleaned array.

    Parameters
    ----------
    data : numpy.ndarray of float32, shape (ny, nx)
        Image; NaN stays NaN.
    settings : CosmicRays
        Method, sigclip, sigfrac, niter, block; astroscrappy's other arguments are at their defaults.
    switches : PaperPostprocess
        Which of the published weaknesses to keep: all of them by default.
    variance : numpy.ndarray, shape (ny, nx), optional
        Of photons and read noise, (MJy/sr)^2; needed where ``default_noise`` is off.

    Returns
    -------
    cleaned : numpy.ndarray of float64, shape (ny, nx)
        The image.
    mask : numpy.ndarray of bool, shape (ny, nx)
        True where a pixel was rejected.
    examined : int
        Pixels that lie in a block.
    """
    import astroscrappy

    image = data.T
    cleaned = image.astype(np.float64)
    mask = np.zeros(image.shape, dtype=bool)
    if settings.method == "none":
        return cleaned.T, mask.T, 0
    whole = image.shape[0] // settings.block * settings.block
    ends = list(range(settings.block, whole, settings.block))
    if not switches.skip_last_blocks:
        # The rest goes with the last whole block: alone it may be too narrow to say what is normal.
        ends = [*ends, image.shape[0]] if image.shape[0] else []
    start = 0
    for end in ends:
        block = slice(start, end)
        options = {"sigclip": settings.sigclip, "sigfrac": settings.sigfrac, "niter": settings.niter}
        if not switches.default_noise:
            options = {"niter": settings.niter, **_known_noise(image[block], variance.T[block])}
        mask[block], cleaned[block] = astroscrappy.detect_cosmics(np.ascontiguousarray(image[block]), **options)
        start = end
    return cleaned.T, mask.T, start * image.shape[1]


def _known_noise(image: np.ndarray, variance: np.ndarray) -> dict[str, object]:
    """Arguments of astroscrappy for an image whose variance is known; pixels without one are masked."""
    good = np.isfinite(image) & np.isfinite(variance) & (variance > 0)
    typical = float(np.median(variance[good])) if good.any() else 1.0
    known = np.ascontiguousarray(np.where(good, variance, typical), dtype=np.float32)
    mask = np.ascontiguousarray(~good)
    return {"inmask": mask, "invar": known, "gain": 1.0, "readnoise": 0.0, "satlevel": np.inf}


def bar_transmission(bars: BarShadows, geometry: RectifiedGeometry, n_rows: int, state: str) -> np.ndarray:
    """Shadow of the bars on a rectified 2-D spectrum.

    Parameters
    ----------
    bars : BarShadows
        The CRDS reference.
    geometry : RectifiedGeometry
        Gives the places of the rows in the slitlet, and the wavelengths.
    n_rows : int
        Rows of the spectrum.
    state : str
        SHUTSTA: a letter a shutter.

    Returns
    -------
    numpy.ndarray, shape (n_rows, nx)
        Fraction of uniform light that passes; 1 outside the open slitlet, and where hardly any (below 0.2) passes.
    """
    along = np.linspace(*geometry.along, n_rows)
    first, last = open_ranges(state)[0][0], open_ranges(state)[-1][1]
    inside = (along >= first) & (along <= last)
    middle = ((len(state.strip()) - 1) / 2 - state.strip().index("x")) * PITCH_IN_OPENINGS
    where = np.broadcast_arrays((along - middle)[:, None], geometry.wave_um[None, :])
    at = bars.transmission(state.strip(), *where)
    return np.where(inside[:, None] & (at >= _LEAST_TRANSMISSION), at, 1.0)


log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PathlossVector:
    """Transmission of the reference file, and its values at the wavelengths of one source.

    Attributes
    ----------
    reference_um, reference : numpy.ndarray, shape (m,)
        The reference's own table.
    at : numpy.ndarray, shape (nx,)
        Interpolated to the first row of the source's middle exposure.
    """

    reference_um: np.ndarray
    reference: np.ndarray
    at: np.ndarray


def uniform_pathloss(reference: Path, aperture: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the uniform-source path loss of one aperture.

    Parameters
    ----------
    reference : pathlib.Path
        CRDS reference of type ``pathloss``.
    aperture : str
        ``MOS1x3`` or another aperture of the file, in any case.

    Returns
    -------
    wave_um, transmission : numpy.ndarray of float32, shape (m,)

    Raises
    ------
    ProductError
        If the file has no such aperture; it names those that it has.
    """
    from jwst.pathloss.pathloss import calculate_pathloss_vector
    from stdatamodels.jwst import datamodels

    with datamodels.PathlossModel(str(reference)) as model:
        names = [entry.name for entry in model.apertures]
        for entry in model.apertures:
            if entry.name.upper() == aperture.upper():
                data = np.array(entry.uniform_data)
                wave_m, transmission, _ = calculate_pathloss_vector(data, entry.uniform_wcs, 0.0, 0.0)
                # In float32, as the published code divides.
                return wave_m / np.float32(1e-6), transmission
    raise ProductError(
        f"{reference}: no aperture {aperture!r}; choose postprocess.pathloss.aperture among {', '.join(names)}"
    )


def pathloss_vectors(
    dataset: Dataset, layout: Layout, exposures: tuple[Placed, ...], sources: Mapping[int, list[Placed]]
) -> tuple[Path | None, dict[int, PathlossVector]]:
    """Read the path loss, and interpolate it for every source to the wavelengths of its middle exposure.

    Parameters
    ----------
    dataset : Dataset
        Which path loss (``postprocess.pathloss``).
    layout : Layout
        Where things lie.
    exposures : tuple of Placed
        All exposures in observing order; the middle one has the index ceil(N/2) - 1, as published.
    sources : mapping of int to list of Placed
        The sources, and the exposures that have a 2-D spectrum of each.

    Returns
    -------
    reference : pathlib.Path or None
        The CRDS reference; None where no correction is wanted.
    vectors : dict of int to PathlossVector
        By source id. Where the middle exposure lacks a source, the nearest exposure gives its wavelengths; none of a
        source that lights hardly any column in all exposures.
    """
    settings = dataset.postprocess.pathloss
    if settings.source == "none":
        return None, {}
    crds.use_references(layout, dataset)
    middle = exposures[(len(exposures) + 1) // 2 - 1]
    product = dataset.process.product
    header_of = next(spectra(layout.rates()), None)
    if header_of is None:
        source_id, seen = next(iter(sources.items()))
        header_of = layout.s2d(seen[0].activity, source_id, "", product)
    reference = (
        crds.named_reference(settings.reference) if settings.reference else crds.reference_for(header_of, "pathloss")
    )
    wave_um, transmission = uniform_pathloss(reference, settings.aperture)
    vectors = {}
    for source_id, seen in sources.items():
        for chosen in sorted(seen, key=lambda item: _distance(item, middle, exposures)):
            try:
                geometry = read_rectified(layout.s2d(chosen.activity, source_id, "", product))
                break
            except UnlitSlitError as error:
                log.warning("source %d, exposure %s: %s", source_id, chosen.activity, error)
        else:
            continue  # Post-processing leaves it out everywhere.
        if chosen is not middle:
            log.warning(
                "source %d has no 2-D spectrum in the middle exposure %s: its path loss is made from %s",
                source_id, middle.activity, chosen.activity,
            )  # fmt: skip
        at = np.interp(geometry.wave_um, wave_um, transmission)
        vectors[source_id] = PathlossVector(wave_um, transmission, at)
    return reference, vectors


def _distance(one: Placed, other: Placed, exposures: tuple[Placed, ...]) -> int:
    return abs(exposures.index(one) - exposures.index(other))


def _matching(vector: PathlossVector, spectrum: Path | str, wave_um: np.ndarray, *, own: bool = False) -> np.ndarray:
    """The vector at a spectrum's wavelengths (um): the middle exposure's, or its own if wanted or of another width."""
    if own:
        return np.interp(wave_um, vector.reference_um, vector.reference)
    if vector.at.size == wave_um.size:
        return vector.at
    log.warning("%s: not as wide as the middle exposure; its own wavelengths give its path loss", spectrum)
    return np.interp(wave_um, vector.reference_um, vector.reference)


_REJECTED = "CRMASK"
"""Extension of the product that marks replaced pixels with 1."""

STATISTICS = "postprocess_statistics.ecsv"
"""Table under ``reduction/process``: pixels flagged, a row an exposure and source."""


@dataclass(frozen=True)
class _PostprocessTask:
    """One exposure with all its sources: spectrum and product of each."""

    name: str
    dataset: Dataset
    sources: dict[int, tuple[Path, Path]]
    vectors: dict[int, PathlossVector] = field(repr=False)
    references: dict[str, str]
    bars: BarShadows | None = field(repr=False, default=None)


def _columns(result: Result) -> dict[str, Any]:
    """Sources and rejected pixels of an exposure."""
    rows = result.notes["rows"]
    return {"sources": len(rows), "rejected": sum(row["rejected"] for row in rows)}


def statistics(report: Report) -> Table:
    """Exposure, source, pixels, NaN pixels, rejected pixels and their fraction, a row a spectrum."""
    rows = [{"exposure": item.name, **row} for item in report.results for row in item.notes["rows"]]
    names = ("exposure", "source_id", "pixels", "nan", "examined", "rejected", "fraction")
    table = Table(rows=rows, names=names) if rows else Table(names=names)
    table.meta["comments"] = [f"rejected pixels are marked in the extension {_REJECTED} of each product"]
    return table


def _finish(layout: Layout, report: Report, done: bool) -> None:
    """Write the statistics of all exposures beside these."""
    path = layout.process / STATISTICS
    if done or not path.is_file():
        with products.atomic_path(path) as partial:
            statistics(report).write(partial, format="ascii.ecsv")


def _tasks(dataset: Dataset, layout: Layout) -> list[Task]:
    """One task an exposure, with every source of an id above ``postprocess.min_source_id``."""
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
    return [_task(item, dataset, layout, sources, vectors, (reference, shadows)) for item in exposures]


def _task(
    exposure: Placed,
    dataset: Dataset,
    layout: Layout,
    sources: Mapping[int, list[Placed]],
    vectors: dict[int, PathlossVector],
    files: tuple[Path | None, BarShadows | None],
) -> Task:
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
        "pathloss": {str(source_id): digest(vector.at.tolist()) for source_id, vector in used.items()},
    }
    record = Record(
        layout,
        "postprocess",
        exposure.activity,
        inputs=[spectrum for spectrum, _ in here.values()],
        parameters=parameters,
        modules=(__name__, "-msa3d.reduce.corrections") if dataset.postprocess.paper.ignore_bars else (__name__,),
    )
    reference, bars = files
    names = {"pathloss": reference.name} if reference else {}
    if bars is not None:
        names["barshadow"] = bars.name
    return Task(
        f"exposure {exposure.activity}", record, _PostprocessTask(exposure.activity, dataset, here, used, names, bars)
    )


def _bars(
    dataset: Dataset, layout: Layout, exposures: tuple[Placed, ...], sources: Mapping[int, list[Placed]]
) -> BarShadows | None:
    """Read the reference of the bar shadow, if it is wanted."""
    if dataset.postprocess.paper.ignore_bars:
        return None
    from msa3d.reduce.corrections import BarShadows

    crds.use_references(layout, dataset)
    source_id, seen = next(iter(sources.items()))
    any_spectrum = layout.s2d(seen[0].activity, source_id, "", dataset.process.product)
    header_of = next(spectra(layout.rates()), any_spectrum)
    return BarShadows.read(crds.reference_for(header_of, "barshadow"))


def _postprocess_exposure(task: _PostprocessTask) -> Made:
    """Post-process all sources of one exposure; the notes hold a row a source."""
    rows, made = [], []
    for source_id, (spectrum, final) in task.sources.items():
        try:
            rows.append(_postprocess_spectrum(task, spectrum, final, source_id))
            made.append(final)
        except UnlitSlitError as error:
            log.warning("source %d is left out of exposure %s: %s", source_id, task.name, error)
            final.unlink(missing_ok=True)
    return Made(made, {"rows": rows})


def _postprocess_spectrum(task: _PostprocessTask, spectrum: Path, final: Path, source_id: int) -> dict[str, Any]:
    """Post-process one 2-D spectrum, SCI in float64, the rest as it is; give its row of the statistics."""
    settings = task.dataset.postprocess
    with readable(spectrum):
        hdus = fits.open(spectrum, memmap=False)
    with hdus:
        with readable(spectrum):
            # Read it to its end now, so that one cut short is found before anything is written.
            len(hdus), hdus[-1].data
        geometry = rectified_geometry(hdus, spectrum)
        with readable(spectrum):
            data = np.array(hdus["SCI"].data, dtype=np.float32)
            cleaned, mask, examined = corrected(
                hdus,
                geometry,
                settings.cosmic_rays,
                settings.paper,
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
        if SLITGEOM not in hdus:
            # Before the rest, so that the builders need not read on.
            hdus.insert(hdus.index_of("SCI") + 1, rectified_table(geometry))
        hdus.append(fits.ImageHDU(mask.astype(np.uint8), name=_REJECTED))
        products.stamp(
            hdus[0].header,
            dataset=task.dataset,
            inputs=[spectrum],
            references=task.references,
            step="postprocess",
            history=["SCI: L.A.Cosmic in blocks of wavelengths, then division by the path loss"],
        )
        with products.atomic_path(final) as partial:
            hdus.writeto(partial, checksum=True)
    return row


def _science(data: np.ndarray, header: fits.Header, rejected: int, settings: PostprocessSettings) -> fits.ImageHDU:
    """Put new pixels under an old header, and say in it what was done."""
    sci = fits.ImageHDU(data, header, name="SCI")
    sci.header["CRMETHOD"] = (settings.cosmic_rays.method, "rejection of cosmic rays")
    sci.header["NREJECT"] = (rejected, f"pixels replaced, see extension {_REJECTED}")
    sci.header["PLSOURCE"] = (settings.pathloss.source, "path loss that SCI was divided by")
    if settings.pathloss.source != "none":
        sci.header["PLAPER"] = (settings.pathloss.aperture, "aperture of the path loss")
    return sci


STEP = Step("postprocess", _tasks, _postprocess_exposure, _columns, memory_gb=1.0, finish=_finish)
run = STEP.run
