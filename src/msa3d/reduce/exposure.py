"""One exposure through Spec2 and Spec3: what a worker process of `msa3d.reduce.calibrate` runs."""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits

from msa3d.archive import crds
from msa3d.errors import CrdsError, DatasetError, ProductError, UnlitSlitError
from msa3d.jwst_adapter import translated
from msa3d.observation.metafile_tables import ADDED
from msa3d.observation.sky import DO_NOT_USE
from msa3d.pipeline import products as pipeline_products
from msa3d.pipeline.engine import Made
from msa3d.reduce import jwst_speed
from msa3d.reduce.geometry import WcsAsWritten, evaluate_rectified, fit_geometries, geometry_table, rectified_table
from msa3d.reduce.jwst_log import pipeline_log
from msa3d.reduce.jwst_speed import in_memory, without_copies
from msa3d.reduce.settings import check_steps

if TYPE_CHECKING:
    from msa3d.config import Dataset


LOG_NAME = "jwst.log"
PARAMETERS_NAME = "parameters.json"


@dataclass(frozen=True)
class ExposureTask:
    """All that a worker process needs to know to reduce one exposure (picklable).

    Attributes
    ----------
    activity : str
        Name of the exposure (`msa3d.pipeline.layout.exposure_names`).
    rates : dict of str to Path
        Count-rate image of each detector (``nrs1``, ``nrs2``).
    metafile : Path
        The copy of the MSA metafile that the pipeline reads.
    directory : Path
        Where the products go, ``exp_<activity>_nobar``.
    product : str
        Name of Spec3's product.
    spec2, spec3 : dict of dict
        Parameters by step.
    accelerations : tuple of str
        Names out of `msa3d.reduce.jwst_speed.ACCELERATIONS`.
    masks : Path
        Directory where masks of failed-open shutters are kept.
    dataset : Dataset
        For the stamp.
    simulated : bool
        For the stamp.
    """

    activity: str
    rates: dict[str, Path]
    metafile: Path
    directory: Path
    product: str
    spec2: dict[str, dict[str, Any]]
    spec3: dict[str, dict[str, Any]]
    accelerations: tuple[str, ...]
    masks: Path
    dataset: Dataset
    simulated: bool


def process_exposure(task: ExposureTask) -> Made:
    """Reduce one exposure into its directory.

    Everything is written into a temporary directory, which is renamed when whole: an exposure's directory is
    either complete or absent. An older one is replaced, post-processed files included.

    Parameters
    ----------
    task : ExposureTask
        What to do.

    Returns
    -------
    Made
        All files, the references that Spec2 names in their headers, and in the notes wall seconds of ``spec2_nrs1``,
        ``spec2_nrs2`` and ``spec3``, and of each image that was cleaned of correlated noise what
        `msa3d.reduce.nsclean.columns` tells.

    Raises
    ------
    ProductError
        When the pipeline fails, or leaves no spectrum. The log is kept under ``failed_<activity>.log``.
    """
    kept_log = task.directory.parent / f"failed_{task.activity}.log"
    kept_log.unlink(missing_ok=True)
    with pipeline_products.atomic_path(task.directory) as partial:
        partial.mkdir()
        try:
            with pipeline_log(partial / LOG_NAME):
                notes = _reduce(task, partial)
        except (DatasetError, CrdsError):
            raise
        except Exception as error:
            if (partial / LOG_NAME).exists():
                shutil.copy(partial / LOG_NAME, kept_log)
            if isinstance(error, ProductError):
                raise ProductError(f"{error} Its log is {kept_log}.") from error
            raise ProductError(
                f"jwst failed with {type(error).__name__}: {first_line(error)}; its log is {kept_log}."
            ) from error
    files = sorted(path for path in task.directory.iterdir() if path.suffix != ".log")
    gc.collect()
    if "rare_collections" in task.accelerations and not gc.get_freeze_count():
        gc.freeze()
    return Made(files, {**notes, "accelerations": list(task.accelerations)}, references_of(files))


def references_of(files: Iterable[Path]) -> list[Path]:
    """Find the reference files that the headers of calibrated files name (R_...), in the CRDS cache."""
    cache = Path(os.environ["CRDS_PATH"])
    names = {
        str(value).removeprefix("crds://")
        for path in files
        if path.name.endswith("_cal.fits")
        for keyword, value in fits.getheader(path).items()
        if keyword.startswith("R_") and str(value).startswith("crds://")
    }
    return [found for name in sorted(names) if (found := crds.located(cache, name)).is_file()]


def first_line(error: Exception) -> str:
    """Last line of a traceback that jwst wrapped into a message, else its first line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return "no message"
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def _reduce(task: ExposureTask, directory: Path) -> dict[str, dict[str, Any]]:
    """Run Spec2 on each detector, Spec3 on the results if wanted; return wall seconds, and what was cleaned."""
    _check_references(os.environ["CRDS_PATH"], task.dataset, tuple(task.rates.values()))
    seconds: dict[str, float] = {}
    cleaned: dict[str, dict[str, float]] = {}
    parameters: dict[str, Any] = {"accelerations": list(task.accelerations)}
    models = {}
    tables: dict[str, fits.BinTableHDU] = {}
    try:
        for detector, rate in task.rates.items():
            started = time.perf_counter()
            with _cleaning(task) as notes:
                model, parameters[f"spec2_{detector}"] = run_spec2(task, rate, directory)
            if notes:
                cleaned[detector] = notes
            if model is not None:
                models[detector] = model
                _add_geometry(tables, model)
            seconds[f"spec2_{detector}"] = time.perf_counter() - started
        if not models:
            raise ProductError(
                f"no slitlet of {task.metafile.name} falls on a detector; "
                "check MSAMETID and PATT_NUM of the rate files."
            )
        if task.dataset.process.rectify:
            started = time.perf_counter()
            parameters["spec3"] = run_spec3(task, models, directory, tables)
            seconds["spec3"] = time.perf_counter() - started
    finally:
        for model in models.values():
            model.close()
    if task.dataset.process.rectify and not any(directory.glob("*_s2d.fits")):
        raise ProductError("Spec3 made no spectrum.")
    text = json.dumps(parameters, indent=1, default=str)
    (directory / PARAMETERS_NAME).write_text(text + "\n", encoding="utf-8")
    inputs = [*task.rates.values(), task.metafile]
    for path in sorted(directory.glob("*.fits")):
        pipeline_products.stamp_file(
            path,
            tables.get(path.name),
            "SCI" if path.name.endswith("_s2d.fits") else 0,
            dataset=task.dataset,
            inputs=inputs,
            simulated=task.simulated,
            step="process",
        )
    return {"stages": seconds, "nsclean": cleaned}


def _cleaning(task: ExposureTask) -> AbstractContextManager[dict[str, float]]:
    """While Spec2 runs, its step ``nsclean`` is that of `msa3d.reduce.nsclean` if the dataset wants it."""
    if not task.dataset.process.nsclean:
        return nullcontext({})
    from msa3d.reduce import nsclean

    return nsclean.within_spec2(task.masks)


def _add_geometry(tables: dict[str, fits.BinTableHDU], model: Any) -> None:
    """Write down where the pixels look, while the WCS is in memory: to read it from a file again takes much longer.

    Of slits that post-processing could not use there is no table; it reads the WCS itself, and says what is wrong.
    """
    name = model.meta.filename
    with suppress(ProductError, UnlitSlitError):
        if hasattr(model, "slits"):
            slits = [
                (k, WcsAsWritten(one.meta.wcs), one.data.shape, one.source_id)
                for k, one in enumerate(model.slits, start=1)
            ]
            tables[name] = geometry_table(fit_geometries(slits, name, model.meta.instrument.detector))
        else:
            tables[name] = rectified_table(evaluate_rectified(WcsAsWritten(model.meta.wcs), model.data.shape, name))


_checked: set[str] = set()


def _check_references(cache: str, dataset: Dataset, rates: tuple[Path, ...]) -> None:
    """See once a process that the references are whole: those of all exposures of a detector are the same."""
    if cache not in _checked:
        crds.check_references(dataset, rates)
        _checked.add(cache)


def run_spec2(task: ExposureTask, rate: Path, directory: Path) -> tuple[Any, dict[str, Any]]:
    """Run Spec2 on one count-rate image and save ``*_cal.fits``.

    Parameters
    ----------
    task : ExposureTask
        Parameters and accelerations.
    rate : Path
        The image; opened, not written.
    directory : Path
        Where the product goes.

    Returns
    -------
    model : `stdatamodels.jwst.datamodels.MultiSlitModel` or None
        The calibrated slits; None when no slitlet falls on this detector.
    parameters : dict
        The parameters that ran.
    """
    from jwst.assign_wcs.util import NoDataOnDetectorError
    from jwst.pipeline import Spec2Pipeline
    from stdatamodels.jwst import datamodels

    pipeline = configured(Spec2Pipeline, task.spec2)
    pipeline.output_dir = str(directory)
    # The header names the metafile without a directory; the pipeline looks for it in its input directory.
    pipeline.input_dir = str(task.metafile.parent)
    if "skip_spec2_resample" in task.accelerations:
        pipeline.resample_spec.skip = True
        without_copies(pipeline)
    if "no_prefetch" in task.accelerations:
        pipeline.prefetch_references = False
    # Opened outside of the accelerations: without validation, absent keywords would become None, not defaults.
    with datamodels.open(rate) as model, jwst_speed.accelerated(task.accelerations, store=task.masks):
        model.meta.instrument.msa_metadata_file = task.metafile.name
        try:
            (calibrated,) = pipeline.run(model)
        except NoDataOnDetectorError:
            return None, parameters_of(pipeline)
        restore_states(calibrated, task.metafile)
        calibrated.save(str(directory / calibrated.meta.filename))
    return calibrated, parameters_of(pipeline)


def restore_states(model: Any, metafile: Path) -> None:
    """Take the shutters that only pretend to be open out of SHUTSTA; what was cut out of the detector stays.

    Parameters
    ----------
    model : `stdatamodels.jwst.datamodels.MultiSlitModel`
        Calibrated slits; changed in place. A slit whose primary shutter only pretends is flagged DO_NOT_USE.
    metafile : Path
        The copy that the pipeline read: rows in the state `msa3d.observation.metafile_tables.ADDED` are the pretended
        ones.
    """
    # Read without `msa3d.observation.metafile`, an edit of which must not make all exposures stale: the copy is in our
    # own format.
    rows = fits.getdata(metafile, "SHUTTER_INFO")
    if not (rows["shutter_state"] == ADDED).any():
        return
    rows = rows[
        (rows["msa_metadata_id"] == model.meta.instrument.msa_metadata_id)
        & (rows["dither_point_index"] == model.meta.dither.position_number)
    ]
    for slit in model.slits:
        mine = rows[rows["slitlet_id"] == slit.slitlet_id]
        added = set(mine["shutter_column"][mine["shutter_state"] == ADDED])
        states = zip(itertools.count(mine["shutter_column"].min()), slit.shutter_state, strict=False)
        # They lie at the ends: the string begins and ends with a shutter that is open.
        state = "".join("0" if column in added else letter for column, letter in states).strip("0")
        if "x" in state:
            slit.shutter_state = state
        else:
            slit.dq = slit.dq | DO_NOT_USE


def run_spec3(
    task: ExposureTask, models: Mapping[str, Any], directory: Path, tables: dict[str, fits.BinTableHDU]
) -> dict[str, Any]:
    """Run Spec3 on the calibrated slits of one exposure and save ``<product>_s<id>_s2d.fits``.

    Parameters
    ----------
    task : ExposureTask
        Parameters and accelerations.
    models : mapping
        Calibrated slits by detector, saved in `directory` already.
    directory : Path
        Where the cal files are and the products go.
    tables : dict of str to BinTableHDU
        By name of the file; what the WCS of each spectrum says is added.

    Returns
    -------
    dict
        The parameters that ran.
    """
    from jwst.pipeline import Spec3Pipeline

    pipeline = configured(Spec3Pipeline, task.spec3)
    pipeline.output_dir = str(directory)
    pipeline.save_results = True
    if "no_prefetch" in task.accelerations:
        pipeline.prefetch_references = False
    if "no_source_cal" in task.accelerations:
        save = pipeline.save_model
        pipeline.save_model = lambda model, suffix=None, **more: (
            None if suffix == "cal" else save(model, suffix, **more)
        )
    keep = pipeline.resample_spec.save_model

    def save_rectified(model: Any, *arguments: Any, **more: Any) -> Any:
        saved = keep(model, *arguments, **more)
        _add_geometry(tables, model)
        return saved

    pipeline.resample_spec.save_model = save_rectified
    association = write_association(task.product, [m.meta.filename for m in models.values()], directory)
    # Validation on assignment stays on: Spec3 relies on it. It also loads the WCS of models that come from files, which
    # are closed before it is needed.
    without = {"late_validation"} if "in_memory" in task.accelerations else {"late_validation", "no_wcs_validation"}
    spec3 = [name for name in task.accelerations if name not in without]
    with jwst_speed.accelerated(spec3):
        if "in_memory" in task.accelerations:
            source = in_memory(list(models.values()), association)
        else:
            source = str(association)
        pipeline.run(source)
    renamed = restore_ids(models, task.product, directory)
    tables |= {new: tables.pop(old) for old, new in renamed.items() if old in tables}
    return parameters_of(pipeline)


def restore_ids(models: Mapping[str, Any], product: str, directory: Path) -> dict[str, str]:
    """Give what Spec3 wrote the ids of the metafile again, in names and headers.

    jwst 1.14.0 replaces ids that are no positive number of five digits by some that are free, in each exposure
    others; 3.0.0 writes names of nine digits. The slitlet tells which source it was: its spectra are called
    ``<product>_s<id>_...``, the id with five digits or more. Spectra of background, whose ids are zero or negative,
    get the name ``<product>_b<slitlet>_...``, so that they are not taken for those of a source.

    Parameters
    ----------
    models : mapping
        Calibrated slits by detector, as Spec3 got them.
    product : str
        Product name of the association.
    directory : Path
        Where the products are; they are renamed.

    Returns
    -------
    dict of str to str
        New names by old ones.
    """
    true = {str(slit.name): int(slit.source_id) for model in models.values() for slit in model.slits}
    moved, renamed = {}, {}
    for path in sorted(directory.glob(f"{product}_*_s2d.fits")):
        slitlet = str(fits.getheader(path, "SCI")["SLTNAME"])
        given = path.name.removeprefix(f"{product}_").removesuffix("_s2d.fits")
        name = f"s{true[slitlet]:05d}" if true[slitlet] > 0 else f"b{int(slitlet):05d}"
        if name != given:
            moved[given] = (name, true[slitlet])
    for given, (name, source_id) in moved.items():
        for path in sorted(directory.glob(f"{product}_{given}_*.fits")):
            with fits.open(path, mode="update") as hdus:
                new = path.with_name(path.name.replace(f"{product}_{given}_", f"{product}_{name}_", 1))
                hdus[0].header["FILENAME"] = new.name
                for hdu in hdus:
                    if "SOURCEID" in hdu.header:
                        hdu.header["SOURCEID"] = source_id
            path.rename(new)
            renamed[path.name] = new.name
    return renamed


def write_association(product: str, members: list[str], directory: Path) -> Path:
    """Write the association that Spec3 reads: one product, all members science exposures."""
    association = {
        "asn_type": "spec3",
        "asn_rule": "DMS_Level3_Base",
        "asn_pool": "none",
        "asn_id": "a3001",
        "program": "none",
        "target": "none",
        "products": [{"name": product, "members": [{"expname": name, "exptype": "science"} for name in members]}],
    }
    path = directory / f"{product}_spec3_asn.json"
    path.write_text(json.dumps(association, indent=1) + "\n", encoding="utf-8")
    return path


def configured(pipeline_class: type, parameters: Mapping[str, Mapping[str, Any]]) -> Any:
    """Make a pipeline with parameters from a dataset; no ``pars-*`` reference is asked for.

    Parameters
    ----------
    pipeline_class : type
        `jwst.pipeline.Spec2Pipeline`, say.
    parameters : mapping
        Parameters by step, in the names of any version of jwst (`msa3d.jwst_adapter.translated`).

    Returns
    -------
    Pipeline

    Raises
    ------
    DatasetError
        For a step, a parameter or a value that this pipeline does not know, or that no dataset may set.
    """
    from stpipe import config_parser

    name = pipeline_class.__name__
    parameters = translated(pipeline_class, parameters)
    try:
        # Those of a dataset have been checked when it was read, but they can be made without one.
        check_steps(parameters, tuple(pipeline_class.step_defs))
    except ValueError as error:
        raise DatasetError(f"process: {name} of jwst {pipeline_products.jwst_version()}: {error}") from error
    config = config_parser.ConfigObj()
    config["steps"] = {step: dict(values) for step, values in parameters.items()}
    try:
        return pipeline_class.from_config_section(config, name=name)
    except config_parser.ValidationError as error:
        raise DatasetError(f"process: {name} refuses its parameters: {error}") from error


def parameters_of(pipeline: Any) -> dict[str, Any]:
    """Parameters of a pipeline after its run: what was asked for, and what it switched itself."""
    # Spec2 leaves a value there that its own specification refuses.
    if pipeline.suffix is False:
        pipeline.suffix = None
    return pipeline.get_pars()
