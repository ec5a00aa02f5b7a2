"""Which calibration references a run uses: those of its own simulated cache, or the user's CRDS.

CRDS is told by environment variables, which worker processes inherit. A root that holds a simulated cache uses
that one, offline, whatever the user's own settings are; real data use the user's settings.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa3d.errors import CrdsError

if TYPE_CHECKING:
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout

logger = logging.getLogger(__name__)

#: The name by which CRDS knows that there is no server.
NO_SERVER = "https://crds-serverless-mode.stsci.edu"


def cached_context(cache: Path) -> str | None:
    """Operational context of a CRDS cache on disk, without asking any server.

    Parameters
    ----------
    cache : Path
        The directory that CRDS_PATH names.

    Returns
    -------
    str or None
        E.g. ``jwst_9999.pmap``; None where the cache has no ``config/jwst/server_config``.

    Raises
    ------
    CrdsError
        Where the configuration cannot be read.
    """
    config = cache / "config" / "jwst" / "server_config"
    if not config.is_file():
        return None
    try:
        return ast.literal_eval(config.read_text(encoding="utf-8"))["operational_context"]
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise CrdsError(f"{config} is not a CRDS server configuration; remove {cache} and make it again.") from error


def environment(layout: Layout, dataset: Dataset) -> dict[str, str]:
    """Environment variables that make CRDS use the references of a run.

    Parameters
    ----------
    layout : Layout
        The run.
    dataset : Dataset
        Simulated or not, and the context to prefer for real data.

    Returns
    -------
    dict of str
        For a simulated cache: CRDS_PATH, CRDS_CONTEXT, CRDS_CONFIG_URI, CRDS_SERVER_URL, CRDS_OBSERVATORY,
        CRDS_READONLY_CACHE. For real data the same with what `msa3d fetch` has verified, unless the user's own
        CRDS_PATH or CRDS_CONTEXT are others; else CRDS_CONTEXT where the dataset names one and the user does not.

    Raises
    ------
    CrdsError
        Where a simulated observation has no cache, or CRDS is not set up for real data.
    """
    if dataset.simulated:
        context = cached_context(layout.crds_cache)
        if context is None:
            raise CrdsError(
                f"{layout.crds_cache} holds no CRDS cache: `msa3d simulate` makes it together with the "
                "simulated observation."
            )
        return _offline(layout.crds_cache, context)
    fetched = _fetched(layout)
    if fetched:
        return fetched
    for variable, example in (
        ("CRDS_PATH", "$HOME/crds_cache"),
        ("CRDS_SERVER_URL", "https://jwst-crds.stsci.edu"),
    ):
        if not os.environ.get(variable):
            raise CrdsError(
                f"{variable} is not set: real data need it, for example export {variable}={example}; or let `msa3d "
                "fetch` get the references."
            )
    if not os.environ.get("CRDS_CONTEXT") and dataset.crds_context:
        return {"CRDS_CONTEXT": dataset.crds_context}
    return {}


def _offline(cache: Path, context: str) -> dict[str, str]:
    """Environment variables for a cache that is complete: nothing is asked for, nothing written."""
    return {
        "CRDS_PATH": str(cache),
        "CRDS_CONTEXT": context,
        # Not the path of the configuration, which CRDS 11.17 would put into lower case: without a server it reads the
        # one in the cache by itself.
        "CRDS_CONFIG_URI": "none",
        "CRDS_SERVER_URL": NO_SERVER,
        "CRDS_OBSERVATORY": "jwst",
        "CRDS_READONLY_CACHE": "1",
    }


def _fetched(layout: Layout) -> dict[str, str] | None:
    """Environment variables for the references that were fetched for this run; None where the user has others."""
    try:
        record = json.loads((layout.root / "fetch" / "references.json").read_text(encoding="utf-8"))
        cache, context = Path(record["path"]), str(record["context"])
    except (OSError, ValueError, KeyError):
        return None
    own = {"CRDS_PATH": str(cache), "CRDS_CONTEXT": context}
    if any(os.environ.get(key, value) != value for key, value in own.items()) or cached_context(cache) is None:
        return None
    return _offline(cache, context)


def use_references(layout: Layout, dataset: Dataset) -> str:
    """Make CRDS use the references of a run, in this process and those it starts.

    Parameters
    ----------
    layout, dataset
        As for `environment`.

    Returns
    -------
    str
        Name of the context; for real data without a set context, the operational one of the server.

    Raises
    ------
    CrdsError
        As for `environment`, and where the server cannot be asked for its context.
    """
    settings = environment(layout, dataset)
    if any(os.environ.get(key) != value for key, value in settings.items()):
        os.environ.update(settings)
        forget()
    take_paths_literally()
    if os.environ.get("CRDS_CONTEXT"):
        return os.environ["CRDS_CONTEXT"]
    import crds

    try:
        return crds.get_default_context("jwst")
    except Exception as error:  # CRDS raises many kinds, for the network and for the cache
        raise CrdsError(
            f"CRDS does not say which context to use ({error}); set CRDS_CONTEXT, or check CRDS_SERVER_URL."
        ) from error


def take_paths_literally(directory: Path | None = None) -> None:
    """Let asdf 3.1, which takes paths for URLs, work below a directory with ``#``, ``?`` or ``%`` in its name.

    Parameters
    ----------
    directory : Path, optional
        By default that of the references, CRDS_PATH.
    """
    if not set("#?%;") & set(str(directory or os.environ.get("CRDS_PATH", ""))):
        return
    from asdf import generic_io

    original = generic_io.get_file
    if hasattr(original, "takes_paths_literally"):
        return

    def get_file(init: Any, *arguments: Any, **keywords: Any) -> Any:
        if isinstance(init, str | Path) and Path(init).is_absolute():
            init = Path(init).as_uri()
        return original(init, *arguments, **keywords)

    get_file.takes_paths_literally = True
    generic_io.get_file = get_file


def forget() -> None:
    """Drop what CRDS remembers of another cache and of another server."""
    if "crds" in sys.modules:
        from crds.client import api
        from crds.core import utils

        utils.clear_function_caches()
        # It reads the variable when first imported, and not again.
        api.set_crds_server(os.environ.get("CRDS_SERVER_URL") or NO_SERVER)


def reference_for(rate_path: Path, reftype: str) -> Path:
    """Path of the reference file of one type for one exposure.

    Parameters
    ----------
    rate_path : Path
        A rate (or cal) file; only its header is read.
    reftype : str
        E.g. ``pathloss``.

    Returns
    -------
    Path
        The file in the cache; it is downloaded where the user's CRDS has a server.

    Raises
    ------
    CrdsError
        Where there is none, or it does not apply.
    """
    import crds
    from stdatamodels.jwst import datamodels

    try:
        with datamodels.open(rate_path) as model:
            parameters = model.get_crds_parameters()
        found = crds.getreferences(parameters, reftypes=[reftype], observatory="jwst")[reftype]
    except Exception as error:  # CRDS raises many kinds
        raise CrdsError(f"CRDS has no {reftype} reference for {rate_path}: {error}.") from error
    if str(found).upper().startswith("NOT FOUND") or str(found).upper().endswith("N/A"):
        raise CrdsError(f"CRDS has no {reftype} reference for {rate_path}: {found}.")
    return Path(found)
