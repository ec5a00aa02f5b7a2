"""What every product is stamped with: who made it, from what, and whether it is simulated.

How products are written whole (`msa3d.atomic`), which code made them (`msa3d.codeversion`) and when they have to be
made again (`msa3d.records`) can all be had from here.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits

import msa3d
from msa3d.atomic import alone, atomic_path, one_run_a_root, remove, remove_partials, working
from msa3d.codeversion import code_version, git_revision
from msa3d.records import Record, digest

if TYPE_CHECKING:
    from msa3d.dataset import Dataset

__all__ = [
    "SIMULATED_HISTORY",
    "SIMULATED_KEYWORD",
    "Record",
    "alone",
    "atomic_path",
    "code_version",
    "digest",
    "git_revision",
    "is_simulated",
    "mark_simulated",
    "one_run_a_root",
    "remove",
    "remove_partials",
    "stamp",
    "stamp_file",
    "working",
]

#: Logical keyword of the primary header, true in every simulated file and all that is made from one.
SIMULATED_KEYWORD = "MSA3DSIM"

#: The sentence that goes with it.
SIMULATED_HISTORY = (
    "Simulated by msa3d: not an observation. Recovering the injected numbers is a closure test of the "
    "method, not a confirmation of any published result."
)

#: Headers list at most this many inputs by name.
_MAX_LISTED = 12


# --- simulated or not


def is_simulated(header: Mapping[str, Any]) -> bool:
    """Whether a primary header says that its file is simulated or made from simulated files."""
    return bool(header.get(SIMULATED_KEYWORD, False))


def mark_simulated(header: fits.Header) -> None:
    """Mark a primary header as simulated: keyword and HISTORY sentence, once."""
    header[SIMULATED_KEYWORD] = (True, "simulated by msa3d: not an observation")
    if SIMULATED_HISTORY not in _history(header):
        header.add_history(SIMULATED_HISTORY)


def _history(header: fits.Header) -> str:
    # Long lines are cut into cards of 72 characters: joined, they can be searched.
    return "".join(str(line).ljust(72) for line in header.get("HISTORY", []))


# --- the stamp


def stamp(
    header: fits.Header,
    *,
    dataset: Dataset | None = None,
    inputs: Iterable[Path | str] = (),
    references: Mapping[str, str] | Iterable[str] = (),
    simulated: bool | None = None,
    step: str = "",
    history: Iterable[str] = (),
) -> None:
    """Say in a primary header what made the file.

    Writes ``MSA3DVER``, ``MSA3DGIT``, ``MSA3DSET``, ``MSA3DCFG``, ``CAL_VER`` and ``CRDS_CTX`` where absent,
    ``MSA3DSIM`` for simulated data, and HISTORY lines with step, inputs and references.

    Parameters
    ----------
    header : `astropy.io.fits.Header`
        Primary header, changed in place.
    dataset : Dataset, optional
        The description of the observation; its name and digest are written.
    inputs : iterable of path
        What the product was made from: names are listed, beyond a dozen only the first and the last.
    references : mapping or iterable of str
        Reference files used: ``{type: name}`` or names.
    simulated : bool, optional
        Mark as simulated. By default where the dataset or the header itself says so; a mark is never
        taken away.
    step : str
        Name of the step, for the HISTORY.
    history : iterable of str
        More sentences.
    """
    header["MSA3DVER"] = (msa3d.__version__, "msa3d version")
    header["MSA3DGIT"] = (git_revision(), "msa3d git revision")
    if dataset is not None:
        header["MSA3DSET"] = (dataset.name, "msa3d dataset")
        header["MSA3DCFG"] = (dataset.digest[:32], "SHA-256 of the dataset")
    if not header.get("CAL_VER"):
        header["CAL_VER"] = (_jwst_version(), "jwst version")
    context = os.environ.get("CRDS_CONTEXT")
    if context and not header.get("CRDS_CTX"):
        header["CRDS_CTX"] = (context, "CRDS context")
    if simulated is None:
        simulated = is_simulated(header) or (dataset is not None and dataset.simulated)
    if simulated or is_simulated(header):
        mark_simulated(header)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"msa3d {msa3d.__version__} {step or 'product'} {now}"]
    names = [Path(item).name for item in inputs]
    if len(names) > _MAX_LISTED:
        lines.append(f"msa3d inputs: {len(names)} files, {names[0]} to {names[-1]}")
    else:
        lines += [f"msa3d input: {name}" for name in names]
    if isinstance(references, Mapping):
        references = [f"{kind} {Path(str(name)).name}" for kind, name in references.items()]
    lines += [f"msa3d reference: {name}" for name in references]
    for line in [*lines, *history]:
        header.add_history(line)


@functools.cache
def _jwst_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("jwst")
    except PackageNotFoundError:
        return "unknown"


def stamp_file(path: Path, **keywords: Any) -> None:
    """Stamp the primary header of a FITS file that another program, such as jwst, wrote.

    Only the primary header changes; pixels, tables and the ASDF extension are copied as they are. Call it
    before the file gets its final name (inside `atomic_path`).

    Parameters
    ----------
    path : Path
        The file.
    **keywords
        As for `stamp`.
    """
    with fits.open(
        path, mode="update", memmap=True, do_not_scale_image_data=True, disable_image_compression=True
    ) as hdus:
        stamp(hdus[0].header, **keywords)
