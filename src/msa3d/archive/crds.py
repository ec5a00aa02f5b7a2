"""Which CRDS references a run uses, and fetching and verifying them before any worker starts.

CRDS is told by environment variables, which worker processes inherit. A root that holds a simulated cache uses
that one, offline, whatever the user's own settings are; real data use the user's settings.

The crds client downloads straight to a file's final name, so that a killed download leaves a short file that it takes
for complete ever after. Here every file is compared, size and SHA-1, with what the server says of it; what was verified
is kept in ``<root>/fetch/references.json``, and a later run finds by it that no server has to be asked.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa3d.archive.mast import FOLDER, offline
from msa3d.errors import CrdsError, FetchError
from msa3d.jwst_adapter import reference_types
from msa3d.observation.reading import read_headers
from msa3d.pipeline.products import atomic_path

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


logger = logging.getLogger(__name__)

#: The name by which CRDS knows that there is no server.
NO_SERVER = "https://crds-serverless-mode.stsci.edu"


def cached_context(cache: Path) -> str | None:
    """Operational context of a CRDS cache on disk, without asking any server.

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
        record = json.loads(record_path(layout).read_text(encoding="utf-8"))
        cache, context = Path(record["path"]), str(record["context"])
    except (OSError, ValueError, KeyError):
        return None
    own = {"CRDS_PATH": str(cache), "CRDS_CONTEXT": context}
    if any(os.environ.get(key, value) != value for key, value in own.items()) or cached_context(cache) is None:
        return None
    return _offline(cache, context)


def use_references(layout: Layout, dataset: Dataset) -> str:
    """Make CRDS use the references of a run, in this process and those it starts.

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


def named_reference(name: str) -> Path:
    """Path of a reference file of NIRSpec that is asked for by name.

    Parameters
    ----------
    name : str
        E.g. ``jwst_nirspec_pathloss_0002.fits``.

    Returns
    -------
    Path
        The file in the cache.

    Raises
    ------
    CrdsError
        Where the cache does not have it.
    """
    path = located(Path(os.environ.get("CRDS_PATH", "")), name)
    if not path.is_file():
        raise CrdsError(f"{path} is not there: `msa3d fetch` gets it, or leave postprocess.pathloss.reference out.")
    check_whole(path)
    return path


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
    check_whole(Path(found))
    return Path(found)


def check_references(dataset: Dataset, rates: Iterable[Path]) -> None:
    """See that the references of some exposures are complete files.

    Parameters
    ----------
    dataset : Dataset
        Which steps run.
    rates : iterable of Path
        Count rates; only their headers are read.

    Raises
    ------
    CrdsError
        Where one is truncated; the sentence names it. What jwst says of such a file names none.
    """
    import crds
    from stdatamodels.jwst import datamodels

    types = types_needed(dataset)
    for rate in rates:
        with datamodels.open(rate) as model:
            parameters = model.get_crds_parameters()
        for path in crds.getreferences(parameters, reftypes=types, observatory="jwst").values():
            if Path(path).is_absolute():  # Else it says why there is none, which a step that wants one says too.
                check_whole(Path(path))


def check_whole(path: Path) -> None:
    """See that a reference file, FITS, ASDF or JSON, has not been cut short; `CrdsError` where it was."""
    import asdf

    try:
        if path.suffix == ".asdf":
            with asdf.open(path, lazy_load=False, memmap=False):
                pass
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".fits":
            read_headers(path)
    except Exception as error:  # asdf raises many kinds
        raise CrdsError(
            f"the reference {path} is damaged ({_line(error)}): delete it, and CRDS or `msa3d fetch` brings it again "
            "(of a simulated observation delete its crds_cache, and `msa3d data` makes it again)."
        ) from error


_SERVER = "https://jwst-crds.stsci.edu"
#: What msa3d itself reads, whatever steps of jwst run.
_OWN_TYPES = frozenset({"pathloss", "barshadow", "area"})


def record_path(layout: Layout) -> Path:
    """Where a run keeps which references were verified."""
    return layout.root / FOLDER / "references.json"


def types_needed(dataset: Dataset) -> list[str]:
    """Sorted types of references that the steps of a dataset read, those that it skips left out."""
    from jwst.pipeline import Detector1Pipeline, Spec2Pipeline, Spec3Pipeline

    settings = dataset.process
    chosen = [(Spec2Pipeline, settings.spec2), (Spec3Pipeline, settings.spec3)]
    if settings.run_stage1:
        chosen.append((Detector1Pipeline, settings.detector1))
    return sorted(_OWN_TYPES.union(*(reference_types(pipeline, parameters) for pipeline, parameters in chosen)))


def prefetch(dataset: Dataset, layout: Layout, files: Iterable[Path]) -> dict[str, Any]:
    """Fetch and verify the references of some files.

    Parameters
    ----------
    dataset : Dataset
        Steps, and the CRDS context (``crds_context``; the environment variable CRDS_CONTEXT wins).
    layout : Layout
        The run; its ``crds_cache`` is used where CRDS_PATH is not set.
    files : iterable of Path
        Rates or ramps.

    Returns
    -------
    dict
        ``context``, ``path`` (of the cache), ``types`` and ``files``: ``{name: {size, sha1}}``. It is also written
        beside the list of files.

    Raises
    ------
    FetchError
        Where the server is not to be reached, or sends something else than it announces, twice.
    CrdsError
        Where there is no context, or a reference does not exist.
    """
    files = [Path(path) for path in files]
    context = os.environ.get("CRDS_CONTEXT") or dataset.crds_context
    if not context:
        raise CrdsError(
            f"dataset {dataset.name} names no crds_context and CRDS_CONTEXT is not set: without one, references would "
            "change from day to day."
        )
    cache = Path(os.environ.get("CRDS_PATH") or layout.crds_cache)
    types = types_needed(dataset)
    done = verified(layout)
    wanted = {"context": context, "path": str(cache), "types": types, "rates": sorted(path.name for path in files)}
    wanted["named"] = dataset.postprocess.pathloss.reference
    if done and all(done.get(key) == value for key, value in wanted.items()):
        return done
    server = os.environ.get("CRDS_SERVER_URL") or _SERVER
    _point_crds(cache, context, server)
    try:
        _verify(_mappings(context))
        names = _best_references(files, types, context)
        if named := dataset.postprocess.pathloss.reference:
            names = sorted({*names, named})
        record = wanted | {"server": server, "files": _verify(names)}
    except CrdsError:
        raise
    except Exception as error:  # CRDS raises many kinds
        if _is_network(error):
            raise offline(server, error) from error
        raise FetchError(f"{server} does not give the references of {context}: {_line(error)}.") from error
    with atomic_path(record_path(layout)) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def verified(layout: Layout) -> dict[str, Any] | None:
    """Return the record of verified references, where all of them are still there with their sizes."""
    try:
        record = json.loads(record_path(layout).read_text(encoding="utf-8"))
        cache = Path(record["path"])
        for name, facts in record["files"].items():
            if located(cache, name).stat().st_size != facts["size"]:
                return None
    except (OSError, ValueError, KeyError):
        return None
    return record


def _point_crds(cache: Path, context: str, server: str) -> None:
    """Make the crds client use a cache that it may write to, and a server."""
    cache.mkdir(parents=True, exist_ok=True)
    # By itself the client gives up at the first failure.
    os.environ.setdefault("CRDS_CLIENT_RETRY_COUNT", "3")
    os.environ.setdefault("CRDS_CLIENT_RETRY_DELAY_SECONDS", "5")
    os.environ.update(
        {
            "CRDS_PATH": str(cache),
            "CRDS_CONTEXT": context,
            "CRDS_SERVER_URL": server,
            "CRDS_OBSERVATORY": "jwst",
            "CRDS_READONLY_CACHE": "0",
            # The client stumbles where this is absent, having been there.
            "CRDS_CONFIG_URI": "none",
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import crds  # noqa: F401

    forget()


def _mappings(context: str) -> list[str]:
    """Let the client download the rules of a context; return their names."""
    from crds.client import api

    names = api.get_mapping_names(context)
    # What does not come right is told of by `_verify`, which tries once more.
    api.FileCacher(context, raise_exceptions=False).get_local_files(list(names))
    return names


def _best_references(files: list[Path], types: list[str], context: str) -> list[str]:
    """Let the client choose and download; each distinct header asks once."""
    import crds
    from stdatamodels.jwst import datamodels

    names: set[str] = set()
    seen: set[tuple] = set()
    for path in files:
        with datamodels.open(path) as model:
            parameters = model.get_crds_parameters()
        # The minute of an exposure decides nothing: references change by the day at most.
        key = tuple(sorted((k, str(v)) for k, v in parameters.items() if "observation.time" not in k.lower()))
        key = tuple(item for item in key if not _varies(item[0]))
        if key in seen:
            continue
        seen.add(key)
        found = crds.getreferences(parameters, reftypes=types, context=context, observatory="jwst")
        for reftype, where in found.items():
            text = str(where).upper()
            if text.startswith("NOT FOUND") and "N/A" not in text:
                raise CrdsError(f"CRDS ({context}) has no {reftype} reference for {path.name}: {where}.")
            if "N/A" not in text:
                names.add(Path(where).name)
    return sorted(names)


def _varies(keyword: str) -> bool:
    """Whether a keyword differs between exposures without deciding on references."""
    return any(word in keyword.lower() for word in ("filename", "exposure.start", "exposure.end", "exposure.mid"))


def _verify(names: list[str]) -> dict[str, dict[str, Any]]:
    """Compare what lies in the cache with what the server says of it; what is wrong is fetched again, twice at most."""
    from crds.client import api

    facts = api.get_file_info_map("jwst", names, ["size", "sha1sum"])
    # A download that fails is found by its size or hash, as one that came wrong.
    cacher = api.FileCacher(os.environ["CRDS_CONTEXT"], raise_exceptions=False)
    checked: dict[str, dict[str, Any]] = {}
    for name in names:
        said = facts.get(name)
        if not isinstance(said, dict):
            raise FetchError(f"the CRDS server does not know {name}, which its own context names.")
        path = Path(cacher.locate(name))
        for attempt in (1, 2, 3):
            size = path.stat().st_size if path.is_file() else -1
            sha1 = _sha1(path) if size == int(said["size"]) else ""
            if sha1 == said["sha1sum"]:
                break
            if attempt == 3:
                raise FetchError(f"{path} is not what the CRDS server says of it (size {said['size']}, SHA-1).")
            logger.warning("%s is incomplete: fetching it again", name)
            path.unlink(missing_ok=True)
            cacher.get_local_files([name])
        checked[name] = {"size": size, "sha1": sha1}
    return checked


def located(cache: Path, name: str) -> Path:
    """Where a reference of NIRSpec lies in a cache, sorted by instrument or flat."""
    folder = cache / "references" / "jwst"
    sorted_by_instrument = folder / "nirspec" / name
    return sorted_by_instrument if sorted_by_instrument.exists() else folder / name


def _sha1(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()


def _is_network(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError) or "urlopen error" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
