"""Accelerations of jwst 1.14.0: each has a name, can be switched, and leaves the image planes bit-identical.

jwst's Spec2 and Spec3 spend most of their time on work whose result is known already or is thrown away. Each
acceleration here replaces one such piece for the length of a ``with`` block and puts the original back
afterwards. None of them changes an algorithm; the tests run jwst with and without each and compare.

The dataset names the ones to use (``process.accelerations``); what was used is in the exported parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from msa3d.errors import DatasetError
from msa3d.steps.speed_models import (
    late_validation,
    no_asdf_validation,
    scalars_once,
    schemas_once,
    shared_wcs,
)
from msa3d.steps.speed_pipeline import (
    failed_open_mask,
    fewer_collections,
    mask_store,
    pixmap,
    slit_wcs,
)

__all__ = ["ACCELERATIONS", "SUPPORTED_JWST", "Acceleration", "accelerated", "chosen"]

log = logging.getLogger(__name__)

SUPPORTED_JWST = "1.14.0"


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
        `msa3d.steps.process` applies itself.
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
        Acceleration("in_memory", "Spec3 takes Spec2's models from memory, not from the files just written"),
        Acceleration("no_source_cal", "Spec3 does not write the cal pixels a second time, a file a source"),
    )
}


def chosen(names: str | Iterable[str]) -> tuple[str, ...]:
    """Names of the accelerations to use, checked and in fixed order.

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
    if isinstance(names, str):
        if names in ("all", "none"):
            return tuple(ACCELERATIONS) if names == "all" else ()
        names = [names]
    wanted = set(names)
    unknown = sorted(wanted - set(ACCELERATIONS))
    if unknown:
        known = ", ".join(ACCELERATIONS)
        raise DatasetError(f"process.accelerations: there is no {unknown[0]!r}; choose from {known}, or 'all'")
    return tuple(name for name in ACCELERATIONS if name in wanted)


@contextmanager
def accelerated(
    names: Iterable[str], *, only: Iterable[str] | None = None, store: Path | None = None
) -> Iterator[None]:
    """Switch accelerations on for the length of the block.

    Parameters
    ----------
    names : iterable of str
        The accelerations to use; those without a patch are passed over.
    only : iterable of str, optional
        Restrict to these, for pieces that hold in one pipeline only.
    store : Path, optional
        Directory for what can be kept between processes: masks of failed-open shutters.
    """
    import jwst

    allowed = set(ACCELERATIONS if only is None else only)
    with ExitStack() as stack:
        stack.enter_context(mask_store(store))
        if jwst.__version__ == SUPPORTED_JWST:
            for name in names:
                patch = ACCELERATIONS[name].patch
                if patch is not None and name in allowed:
                    stack.enter_context(patch())
        else:
            log.warning("accelerations are for jwst %s; jwst %s runs without", SUPPORTED_JWST, jwst.__version__)
        yield
