"""The same results of jwst, sooner.

Each acceleration has a name, can be switched, and leaves the image planes bit-identical. jwst's Spec2 and Spec3 spend
most of their time on work whose result is known already or is discarded: schemas, validation, copies, WCS of slits,
pixel maps, masks of failed-open shutters. Each acceleration here replaces one such piece for the length of a ``with``
block and puts the original back afterwards. None of them changes an algorithm; the tests run jwst with and without
each and compare. Which of them are used with which version stands in `HOLDS`, as what is replaced has to be tested
version by version. The dataset names the ones to use (``process.accelerations``); what was used is in the exported
parameters.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from msa3d.errors import DatasetError
from msa3d.pipeline.products import atomic_path, jwst_version

#: Thresholds of the garbage collector.
RARELY = (100_000, 50, 100)


@contextmanager
def replaced(owner: Any, attribute: str, replacement: Any) -> Iterator[None]:
    """Replace ``owner.attribute`` inside the block."""
    original = getattr(owner, attribute)
    setattr(owner, attribute, replacement)
    try:
        yield
    finally:
        setattr(owner, attribute, original)


@contextmanager
def late_validation() -> Iterator[None]:
    """Check metadata of Spec2's models against their schema once, when written, not at every assignment."""
    name = "VALIDATE_ON_ASSIGNMENT"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


# Merged schemas by URL, for the life of the process: one model class has one schema.
_schemas: dict[str, Any] = {}


@contextmanager
def schemas_once() -> Iterator[None]:
    """Merge the schema of a model class once, not for every model that is made.

    Every model, also one made to look at another, reads its schema, copies it deeply and merges it: a quarter
    of the time of Spec2 on few slitlets. Models do not change their schema in place.
    """
    from stdatamodels import model_base

    load, merge = model_base.asdf_schema.load_schema, model_base.mschema.merge_property_trees

    def load_later(url: str, *, resolve_references: bool = False) -> Any:
        return _Wanted(url) if resolve_references else load(url, resolve_references=resolve_references)

    def merge_once(schema: Any) -> Any:
        if not isinstance(schema, _Wanted):
            return merge(schema)
        if schema.url not in _schemas:
            _schemas[schema.url] = merge(load(schema.url, resolve_references=True))
        return _schemas[schema.url]

    loader = SimpleNamespace(load_schema=load_later)
    merger = SimpleNamespace(**{**vars(model_base.mschema), "merge_property_trees": merge_once})
    with replaced(model_base, "asdf_schema", loader), replaced(model_base, "mschema", merger):
        yield


class _Wanted:
    """A schema that is to be loaded only if it has not been merged before."""

    def __init__(self, url: str) -> None:
        self.url = url


# Scalars that passed their schema, and the schemas, which must live as long as their identities are used.
_passed: set[tuple] = set()
_schemas_of_passed: dict[int, Any] = {}


@contextmanager
def scalars_once() -> Iterator[None]:
    """Validate the same keyword value against the same schema once in the life of the process.

    A value that fails is looked at, and complained about, every time.
    """
    from stdatamodels import validate

    original = validate._check_value

    def check(value: Any, schema: Any, ctx: Any) -> None:
        if type(value) not in (str, int, float, bool):
            return original(value, schema, ctx)
        # repr tells 0.0 from -0.0 and 1 from True.
        key = (id(schema), type(value), repr(value))
        if key not in _passed:
            original(value, schema, ctx)
            _schemas_of_passed[id(schema)] = schema
            _passed.add(key)
        return None

    with replaced(validate, "_check_value", check):
        yield


@contextmanager
def shared_wcs() -> Iterator[None]:
    """Let the copy of a model share its WCS objects: steps copy their input, and go on with the copy only.

    The planes and the metadata are copied as ever. No step of Spec2 or Spec3 changes a WCS in place.
    """
    from stdatamodels.model_base import DataModel

    original = DataModel.copy

    def copy_but_wcs(self: Any, memo: dict | None = None) -> Any:
        memo = {} if memo is None else memo
        # What is in the memo counts as copied.
        memo.update({id(wcs): wcs for wcs in _wcs_objects(self._instance)})
        return original(self, memo)

    with replaced(DataModel, "copy", copy_but_wcs):
        yield


def _wcs_objects(instance: Mapping[str, Any]) -> Iterator[Any]:
    """Find the WCS objects of a model's tree and of its slits or exposures."""
    for tree in (instance, *instance.get("slits", ()), *instance.get("exposures", ())):
        wcs = tree.get("meta", {}).get("wcs")
        if wcs is not None:
            yield wcs


@contextmanager
def no_asdf_validation() -> Iterator[None]:
    """Do not check ASDF trees against their schemas when files are read and written.

    The trees are those of jwst and of the references. Their metadata are still validated by stdatamodels when a
    model is saved, and a tree that cannot be serialised is still an error.
    """
    from asdf import AsdfFile, yamlutil

    # In yamlutil the tagged tree is checked once more while it is written; nothing else of the module is used there.
    unchecked = SimpleNamespace(validate=lambda tree, ctx: None)
    with (
        replaced(AsdfFile, "_validate", lambda self, tree, *arguments, **more: None),
        replaced(yamlutil, "schema", unchecked),
    ):
        yield


@contextmanager
def no_wcs_validation() -> Iterator[None]:
    """Do not turn WCS objects into ASDF trees to check them, when assigned or with the model that holds them.

    The schemas of the models say nothing about them. All else is validated as ever. Not for models from files, whose
    WCS are loaded by being looked into, before the file is closed.
    """
    from asdf import treeutil
    from gwcs import WCS
    from stdatamodels import validate

    original = validate._check_value

    def check(value: Any, schema: Any, ctx: Any) -> None:
        original(treeutil.walk_and_modify(value, lambda node: {} if isinstance(node, WCS) else node), schema, ctx)

    with replaced(validate, "_check_value", check):
        yield


@contextmanager
def header_ends() -> Iterator[None]:
    """Append to a FITS header without looking through the positions of all its cards: no card comes after the last.

    The table of all metadata (HDRTAB) has 400 columns, and thus 800 cards.
    """
    from astropy.io.fits import Header

    original = Header._updateindices

    def update(self: Any, idx: int, increment: bool = True) -> None:
        # The new card is counted already, the deleted one no longer.
        if idx < len(self._cards) - increment:
            original(self, idx, increment)

    with replaced(Header, "_updateindices", update):
        yield


@contextmanager
def slit_wcs() -> Iterator[None]:
    """Copy the WCS of one slit, not the WCS of all slits, for every slit.

    `_nrs_wcs_set_input` deep-copies the exposure's WCS, which holds the transforms of every open slit, and
    then throws away all but one of them. Here the tables of slits are left out of the copy, and what comes after
    them, telescope and sky, is shared: only the first transform, which bears the bounding box, is ever changed.
    """
    from astropy.modeling.models import Identity
    from jwst.assign_wcs import nirspec

    original = nirspec._nrs_wcs_set_input

    def one_slit(input_model, slit_name):
        exposure_type = (input_model.meta.exposure.type or "").lower()
        if exposure_type != "nrs_msaspec":
            return original(input_model, slit_name)
        whole = input_model.meta.wcs
        thin = copy.copy(whole)
        thin._pipeline = [copy.copy(step) for step in whole.pipeline]
        # Steps 2 and 3 hold one transform a slit. All three are replaced below, so that a placeholder does here.
        for step in thin._pipeline[1:4]:
            step.transform = Identity(1)
        shared = [part for step in thin._pipeline[4:] for part in (step.transform, step.frame)]
        slit = copy.deepcopy(thin, {id(part): part for part in shared})
        slit.set_transform("sca", "gwa", whole.pipeline[1].transform[1:])
        # In the original this one is a deep copy, the other is not.
        gwa_to_slit = copy.deepcopy(whole.pipeline[2].transform.get_model(slit_name))
        slit.set_transform("gwa", "slit_frame", gwa_to_slit)
        slit_to_msa = whole.pipeline[3].transform.get_model(slit_name) & Identity(1)
        slit.set_transform("slit_frame", "msa_frame", slit_to_msa)
        return slit

    with replaced(nirspec, "_nrs_wcs_set_input", one_slit):
        yield


@contextmanager
def pixmap() -> Iterator[None]:
    """Compute the drizzle pixel map of a slit once, not once each for SCI and its three variances."""
    from jwst.resample import resample_utils

    original = resample_utils.calc_gwcs_pixmap
    # The WCS objects are kept with the map, so that an identity cannot be taken over by another object.
    kept: OrderedDict[tuple, tuple] = OrderedDict()

    def remembered(in_wcs, out_wcs, shape=None):
        key = (id(in_wcs), id(out_wcs), tuple(shape) if shape else None)
        if key not in kept:
            kept[key] = (in_wcs, out_wcs, original(in_wcs, out_wcs, shape))
            while len(kept) > 4:
                kept.popitem(last=False)
        return kept[key][2]

    with replaced(resample_utils, "calc_gwcs_pixmap", remembered):
        yield


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Leave out the full garbage collection that stpipe runs before every step, also before skipped ones."""
    import stpipe.step

    with replaced(stpipe.step, "gc", SimpleNamespace(collect=lambda: 0)):
        yield


@contextmanager
def hdrtab() -> Iterator[None]:
    """Make the table of all metadata (HDRTAB) without header: only its data go on, and written it gets its own."""
    from astropy.io.fits.hdu.table import _TableBaseHDU
    from jwst.model_blender import blendmeta

    original = blendmeta.get_blended_metadata

    def blended(*arguments: Any, **more: Any) -> Any:
        with replaced(_TableBaseHDU, "update_header", lambda self: None):
            return original(*arguments, **more)

    with replaced(blendmeta, "get_blended_metadata", blended):
        yield


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect garbage rarely; `msa3d.reduce.exposure` does after each exposure, and freezes what the first one loaded.

    The pipeline makes millions of small objects that live as long as their model, and holds schemas, references and
    modules for good: looking through them again and again is a quarter of the time on few slitlets.
    """
    before = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def failed_open_key(model: Any, wcs_references: dict[str, str], shutters: list) -> str:
    """Digest of all that decides which pixels failed-open shutters light up.

    Parameters
    ----------
    model : stdatamodels.jwst.datamodels.ImageModel
        Exposure after ``assign_wcs``.
    wcs_references : dict
        Reference files of the WCS, by type.
    shutters : list of Slit
        The failed-open shutters.

    Returns
    -------
    str
        SHA-256 in hexadecimal. The pointing is not in it: whether a pixel lies in a shutter's image does not
        depend on where the telescope looks.
    """
    instrument, subarray = model.meta.instrument, model.meta.subarray
    parts = {
        "detector": instrument.detector,
        "filter": instrument.filter,
        "grating": instrument.grating,
        "tilts": [instrument.gwa_xtilt, instrument.gwa_ytilt, instrument.gwa_tilt],
        "subarray": [subarray.xstart, subarray.ystart],
        "shape": list(model.dq.shape),
        "velosys": model.meta.wcsinfo.velosys,
        "references": {kind: [name, *_size_and_time(name)] for kind, name in sorted(wcs_references.items())},
        "shutters": [[s.quadrant, s.xcen, s.ycen, s.ymin, s.ymax] for s in shutters],
    }
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _size_and_time(name: str) -> list[int]:
    """Size and modification time of a reference file, or nothing for N/A."""
    path = Path(name)
    if not path.is_file():
        return []
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


@contextmanager
def failed_open_mask() -> Iterator[None]:
    """Compute the mask of failed-open shutters once for all exposures of the same detector and grating tilt.

    ``msa_flagging`` builds a WCS for every shutter that is stuck open and evaluates it to the sky, half of
    Spec2's time on three slitlets. The result depends on the detector and the grating wheel only. Masks are
    kept in memory, and where a directory was given (`mask_store`) on disk for the other processes.
    """
    from jwst.msaflagopen import msaflag_open

    original = msaflag_open.flag

    def compute(model, shutters, wcs_references) -> np.ndarray:
        before = model.dq.copy()
        model.dq = np.zeros_like(before)
        packed = np.packbits(original(model, shutters, wcs_references).dq > 0)
        model.dq = before
        return packed

    def remembered(input_datamodel, failed_slitlets, wcs_refnames):
        key = failed_open_key(input_datamodel, wcs_refnames, failed_slitlets)
        if key not in _failed_open_masks:
            packed = _read_mask(key)
            if packed is None:
                packed = compute(input_datamodel, failed_slitlets, wcs_refnames)
                _write_mask(key, packed)
            _failed_open_masks[key] = packed
        dq = input_datamodel.dq
        lit = np.unpackbits(_failed_open_masks[key], count=dq.size).astype(bool).reshape(dq.shape)
        dq[lit] |= np.uint32(msaflag_open.FAILEDOPENFLAG)
        input_datamodel.dq = dq
        return input_datamodel

    with replaced(msaflag_open, "flag", remembered):
        yield


# Masks computed or read in this process, by key, and where to share them.
_failed_open_masks: dict[str, np.ndarray] = {}
_mask_directory: list[Path] = []


@contextmanager
def mask_store(directory: Path | None) -> Iterator[None]:
    """Keep masks of failed-open shutters in a directory as well, for other processes and later runs."""
    if directory is None:
        yield
        return
    _mask_directory.append(directory)
    try:
        yield
    finally:
        _mask_directory.pop()


def _mask_path(key: str) -> Path | None:
    return _mask_directory[-1] / f"failed_open_{key[:16]}.npz" if _mask_directory else None


def _read_mask(key: str) -> np.ndarray | None:
    path = _mask_path(key)
    if path is None or not path.exists():
        return None
    with np.load(path) as stored:
        return stored["packed"] if str(stored["key"]) == key else None


def _write_mask(key: str, packed: np.ndarray) -> None:
    path = _mask_path(key)
    if path is not None:
        with atomic_path(path) as partial:
            np.savez_compressed(partial, packed=packed, key=key)


def in_memory(models: list[Any], association: Path) -> Any:
    """Make of Spec2's results what Spec3 would have read from their files.

    Parameters
    ----------
    models : list of `stdatamodels.jwst.datamodels.MultiSlitModel`
        Calibrated slits, saved already, in the order of the association.
    association : Path
        Association file that names them.

    Returns
    -------
    `jwst.datamodels.ModelContainer`
        With the association's table and name, and the members' ``meta.asn`` as reading would set them.
    """
    from jwst.datamodels import ModelContainer
    from stdatamodels.properties import merge_tree

    class Loaded(ModelContainer):
        """A container that keeps its association when it is opened again, as Spec3 does."""

        def __init__(self, init: Any = None, **more: Any) -> None:
            super().__init__(init, **more)
            if isinstance(init, Loaded):
                self.asn_table_name, self.asn_pool_name = init.asn_table_name, init.asn_pool_name

    table = ModelContainer.read_asn(str(association))
    container = Loaded(models)
    container.meta.asn_table = {}
    merge_tree(container.meta.asn_table._instance, table)
    container.asn_table_name, container.asn_pool_name = association.name, table["asn_pool"]
    for model in container:
        model.meta.asn.exptype = "science"
        model.meta.asn.table_name, model.meta.asn.pool_name = association.name, table["asn_pool"]
    return container


def without_copies(pipeline: Any) -> None:
    """Spare Spec2 the two deep copies of its result that only its resampled image and spectrum would need.

    Parameters
    ----------
    pipeline : `jwst.pipeline.Spec2Pipeline`
        Nothing is spared where its ``resample_spec`` or ``extract_1d`` is not skipped.
    """
    from stdatamodels.jwst import datamodels

    def spare(result: Any) -> None:
        if not (pipeline.resample_spec.skip and pipeline.extract_1d.skip):
            return

        def copy_nothing(memo: dict | None = None) -> Any:
            object.__delattr__(result, "copy")
            return datamodels.MultiSlitModel()

        # Past the model's own attributes, which are metadata; it is itself again after its first copy.
        object.__setattr__(result, "copy", copy_nothing)

    pipeline.pixel_replace._post_hooks.append(SimpleNamespace(run=spare))


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Acceleration:
    """One acceleration of jwst.

    Attributes
    ----------
    name : str
        Name used in the dataset.
    summary : str
        What it saves, in one sentence.
    patch : callable or None
        Makes the context manager that switches it on; None when it is a setting of the pipeline, which
        `msa3d.reduce.calibrate` applies itself.
    """

    name: str
    summary: str
    patch: Callable[[], AbstractContextManager] | None = None


ACCELERATIONS: dict[str, Acceleration] = {
    one.name: one
    for one in (
        Acceleration("slit_wcs", "the WCS of a slit is copied alone, not with all others", slit_wcs),
        Acceleration("pixmap", "the drizzle pixel map is computed once a slit, not four times", pixmap),
        Acceleration("skip_spec2_resample", "Spec2 makes no resampled image, which nothing would read"),
        Acceleration("late_validation", "Spec2's metadata are validated when written", late_validation),
        Acceleration("fewer_collections", "no garbage collection before every step", fewer_collections),
        Acceleration("no_prefetch", "references are looked up when a step needs them, not twice"),
        Acceleration("failed_open_mask", "failed-open shutters are projected once a tilt", failed_open_mask),
        Acceleration("schemas_once", "the schema of a model class is merged once", schemas_once),
        Acceleration("scalars_once", "the same keyword value is validated once", scalars_once),
        Acceleration("shared_wcs", "a copy of a model shares its WCS", shared_wcs),
        Acceleration("no_asdf_validation", "ASDF trees are not checked again", no_asdf_validation),
        Acceleration("no_wcs_validation", "WCS objects are not checked against schemas", no_wcs_validation),
        Acceleration("header_ends", "appending to a FITS header does not look through all cards", header_ends),
        Acceleration("hdrtab", "the table of all metadata gets its header once, not three times", hdrtab),
        Acceleration("rare_collections", "garbage is collected once an exposure", rare_collections),
        Acceleration("in_memory", "Spec3 takes Spec2's models from memory, not from the files just written"),
        Acceleration("no_source_cal", "Spec3 does not write the cal pixels a second time, a file a source"),
    )
}

#: The accelerations that were tested, one by one and together, with a version of jwst; with another one none is used.
#: In 3.0.0, jwst itself does what ``slit_wcs``, ``pixmap`` and ``shared_wcs`` did; ``late_validation`` breaks photom,
#: ``in_memory`` changes the resampled images (by up to 6e-6), ``hdrtab`` has nothing left to replace, and
#: ``scalars_once`` gains nothing.
HOLDS: dict[str, tuple[str, ...]] = {
    "1.14.0": tuple(ACCELERATIONS),
    "3.0.0": (
        "skip_spec2_resample", "fewer_collections", "no_prefetch", "failed_open_mask", "schemas_once",
        "no_asdf_validation", "header_ends", "rare_collections", "no_source_cal",
    ),
}  # fmt: skip


def chosen(names: str | Iterable[str]) -> tuple[str, ...]:
    """Names of the accelerations to use, checked and in fixed order; those that hold for the jwst that is installed.

    Parameters
    ----------
    names : "all", "none" or iterable of str
        What the dataset says.

    Returns
    -------
    tuple of str

    Raises
    ------
    DatasetError
        For a name that is not an acceleration.
    """
    holds = HOLDS.get(jwst_version(), ())
    if isinstance(names, str):
        if names in ("all", "none"):
            return holds if names == "all" else ()
        names = [names]
    wanted = set(names)
    unknown = sorted(wanted - set(ACCELERATIONS))
    if unknown:
        known = ", ".join(ACCELERATIONS)
        raise DatasetError(f"process.accelerations: there is no {unknown[0]!r}; choose from {known}, or 'all'")
    if left := sorted(wanted - set(holds)):
        log.warning("jwst %s runs without %s, which is for other versions", jwst_version(), ", ".join(left))
    return tuple(name for name in holds if name in wanted)


@contextmanager
def accelerated(names: Iterable[str], *, store: Path | None = None) -> Iterator[None]:
    """Switch accelerations on for the length of the block.

    Parameters
    ----------
    names : iterable of str
        The accelerations to use; those without a patch, or for other versions of jwst, are passed over.
    store : Path, optional
        Directory for what can be kept between processes: masks of failed-open shutters.
    """
    allowed = set(HOLDS.get(jwst_version(), ()))
    with ExitStack() as stack:
        stack.enter_context(mask_store(store))
        for name in names:
            patch = ACCELERATIONS[name].patch
            if patch is not None and name in allowed:
                stack.enter_context(patch())
        yield
