"""What is named or called otherwise in other versions of the JWST pipeline.

One code serves the paper's jwst 1.14.0 and today's. Here, and nowhere else, it is asked which of two forms the jwst
that is installed has: by looking for the form itself, never by comparing version numbers. (The accelerations of
`msa3d.reduce.jwst_speed`, which replace code of jwst, have a table of versions instead.)
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

#: What jwst's old step ``nsclean`` does by default, in the terms of its successor.
NSCLEAN_DEFAULTS = {
    "fit_method": "fft",
    "background_method": "None",
    "mask_science_regions": True,
    "n_sigma": 5.0,
}

#: Parameters that were renamed, by step: old name and new one.
RENAMED = {
    "extract_2d": {"slit_name": "slit_names"},
    "photom": {"mrs_time_correction": "apply_time_correction"},
    "clean_flicker_noise": {"mask_spectral_regions": "mask_science_regions"},
}

#: Steps that not every version has.
SOMETIMES = frozenset({
    "adaptive_trace_model", "badpix_selfcal", "clean_flicker_noise", "mrs_imatch", "nsclean", "picture_frame",
    "pixel_replace", "targ_centroid",
})  # fmt: skip


def translated(pipeline: type, parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Say parameters of steps as the jwst that is installed names them.

    Parameters
    ----------
    pipeline : type
        `jwst.pipeline.Spec2Pipeline`, say.
    parameters : mapping
        ``{step: {parameter: value}}`` in the names of any version.

    Returns
    -------
    dict of dict
        ``nsclean`` is ``clean_flicker_noise`` where that has taken its place, with the method and thresholds of the
        old one. A step of `SOMETIMES` that is skipped and that this version does not have is left out; any other that
        it does not have is kept, for the pipeline to refuse.
    """
    steps, found = pipeline.step_defs, {}
    for step, given in parameters.items():
        name, values = step, dict(given)
        if step == "nsclean" and step not in steps and "clean_flicker_noise" in steps:
            name, values = "clean_flicker_noise", NSCLEAN_DEFAULTS | values
        elif step in SOMETIMES - steps.keys() and values.get("skip") is True:
            continue
        known = steps[name].load_spec_file() if name in steps else ()
        for old, new in RENAMED.get(name, {}).items():
            if old in values and old not in known and new in known:
                values[new] = values.pop(old)
        found[name] = values
    return found


def reference_types(pipeline: type, parameters: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Types of references that the steps of a pipeline read, those that are skipped, also by default, left out.

    Parameters
    ----------
    pipeline : type
        As for `translated`.
    parameters : mapping
        Likewise.

    Returns
    -------
    set of str
    """
    types: set[str] = set()
    wanted = translated(pipeline, parameters)
    for name, step in pipeline.step_defs.items():
        usual = "default=True" in "".join(str(step.load_spec_file()["skip"]).split())
        if not wanted.get(name, {}).get("skip", usual):
            # A step that is a pipeline of its own, such as master_background_mos, reads what its steps read.
            types |= reference_types(step, {}) if hasattr(step, "step_defs") else set(step.reference_file_types)
    return types


def slitlets_wcs(model: Any, references: Mapping[str, str], slits: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Make the steps of the WCS of open slitlets.

    Parameters
    ----------
    model : `jwst.datamodels.ImageModel`
        Header of the exposure; jwst writes to it.
    references : mapping
        Reference files of the optics, by type.
    slits : sequence of mapping
        Fields of `stdatamodels.jwst.transforms.models.Slit` but ``slit_id``; ``name`` is a number as text.

    Returns
    -------
    list
        For `wcs_of_slit`.
    """
    from jwst.assign_wcs import nirspec
    from stdatamodels.jwst.transforms.models import Slit

    # Where transforms take the slit as a number, it has a field of its own.
    numbered = "slit_id" in Slit._fields
    given = [Slit(**slit, **({"slit_id": int(slit["name"])} if numbered else {})) for slit in slits]
    return nirspec.slitlets_wcs(model, references, given)


def wcs_of_slit(steps: list[Any], name: str) -> Any:
    """Take the WCS of one slitlet, as jwst would attach it, out of that of all.

    Parameters
    ----------
    steps : list
        From `slitlets_wcs`.
    name : str
        Name of the slitlet.

    Returns
    -------
    `gwcs.WCS`
    """
    from astropy.modeling.models import Identity
    from gwcs import WCS

    if steps[0][1].n_inputs == 3:
        # x, y and the slit.
        from jwst.assign_wcs.nirspec import nrs_wcs_set_input

        return nrs_wcs_set_input(SimpleNamespace(meta=SimpleNamespace(wcs=WCS(steps))), int(name))
    # The same chain as `nrs_wcs_set_input` makes, without first copying that of all slitlets, which takes seconds each.
    steps = list(steps)
    (sca, to_gwa), (gwa, to_slit), (slit_frame, to_msa) = steps[1:4]
    steps[1:4] = [
        (sca, to_gwa[1:]),
        (gwa, to_slit.get_model(name)),
        (slit_frame, to_msa.get_model(name) & Identity(1)),
    ]
    return WCS(steps)


def oteip_to_v23(references: Mapping[str, str], model: Any) -> Any:
    """Make the transform from the telescope's focal plane to V2, V3.

    Parameters
    ----------
    references : mapping
        Reference files of the optics, by type.
    model : `jwst.datamodels.ImageModel`
        Header of the exposure.

    Returns
    -------
    `astropy.modeling.Model`
    """
    from jwst.assign_wcs import nirspec

    takes_model = len(inspect.signature(nirspec.oteip_to_v23).parameters) == 2
    return nirspec.oteip_to_v23(references, model) if takes_model else nirspec.oteip_to_v23(references)


def open_msa_slits(metafile: str, metadata_id: int, dither: int, programme: str = "2136") -> list[Any]:
    """Let jwst read the open slitlets of a configuration from a metafile.

    Parameters
    ----------
    metafile : str
        Path of the metafile.
    metadata_id, dither : int
        Configuration and dither point.
    programme : str
        Programme, of which younger versions make the names of slitlets without a source.

    Returns
    -------
    list of `stdatamodels.jwst.transforms.models.Slit`
    """
    from jwst.assign_wcs.nirspec import get_open_msa_slits

    named = "prog_id" in inspect.signature(get_open_msa_slits).parameters
    return get_open_msa_slits(*([programme] if named else []), metafile, metadata_id, dither)


def add_history(model: Any, text: str) -> None:
    """Add an entry to the history of a data model that is written as ASDF.

    Parameters
    ----------
    model : `stdatamodels.DataModel`
        Changed in place.
    text : str
        The entry.
    """
    if hasattr(model, "add_history_entry"):
        model.add_history_entry(text)
    else:
        from asdf.tags.core import HistoryEntry

        model.history = [HistoryEntry({"description": text})]


def nsclean_class() -> type:
    """Find jwst's class of the NSClean algorithm; its weights are always called ``p_matrix``."""
    if importlib.util.find_spec("jwst.nsclean") is None:
        from jwst.clean_flicker_noise.nsclean import NSClean

        return NSClean
    from jwst.nsclean.lib import NSClean as Original

    class NSClean(Original):
        """With the younger name of its weights."""

        @property
        def p_matrix(self) -> Any:
            """Weight of every pixel."""
            return self.P

    return NSClean


def nsclean_step() -> Any:
    """Make jwst's step of the NSClean algorithm, switched on; give it a ``user_mask``."""
    if importlib.util.find_spec("jwst.nsclean") is None:
        from jwst.clean_flicker_noise import CleanFlickerNoiseStep

        return CleanFlickerNoiseStep(skip=False, **(NSCLEAN_DEFAULTS | {"background_method": None}))
    from jwst.nsclean import NSCleanStep

    return NSCleanStep(skip=False)


def correlated_noise_correction() -> tuple[Any, str, tuple[Any, ...]]:
    """Find the function ``do_correction`` with which jwst cleans an image of correlated noise.

    Returns
    -------
    module
        Where it is.
    str
        Name of the step in ``meta.cal_step``.
    tuple
        What it returns after the cleaned image, where nothing else is to be saved.
    """
    if importlib.util.find_spec("jwst.nsclean") is None:
        from jwst.clean_flicker_noise import clean_flicker_noise

        return clean_flicker_noise, "clean_flicker_noise", (None, None, None, "COMPLETE")
    from jwst.nsclean import nsclean

    return nsclean, "nsclean", (None,)
