"""Accelerations of what jwst 1.14.0 computes: WCS of slits, pixel maps, masks of failed-open shutters.

See `msa3d.steps.speed`, which names and switches them.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from msa3d.provenance import atomic_path
from msa3d.steps.speed_models import replaced


@contextmanager
def slit_wcs() -> Iterator[None]:
    """Copy the WCS of one slit, not the WCS of all slits, for every slit.

    `_nrs_wcs_set_input` deep-copies the exposure's WCS, which holds the transforms of every open slit, and
    then throws away all but one of them. Here the tables of slits are left out of the copy.
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
        # Steps 2 and 3 hold one transform a slit: they are replaced below, so that a placeholder does here.
        thin._pipeline[2].transform = Identity(1)
        thin._pipeline[3].transform = Identity(1)
        slit = copy.deepcopy(thin)
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
