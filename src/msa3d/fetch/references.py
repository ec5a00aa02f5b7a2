"""References from CRDS: exactly those that an observation's files need, verified, before any worker starts.

The crds client downloads straight to a file's final name, so that a killed download leaves a short file that it takes
for whole ever after. Here every file is compared, size and SHA-1, with what the server says of it; what was verified
is kept in ``<root>/fetch/references.json``, and a later run finds by it that no server has to be asked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msa3d.atomic import atomic_path
from msa3d.errors import CrdsError
from msa3d.fetch.archive import offline
from msa3d.fetch.errors import FetchError
from msa3d.fetch.manifest import FOLDER
from msa3d.references import forget

if TYPE_CHECKING:
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout

logger = logging.getLogger(__name__)

SERVER = "https://jwst-crds.stsci.edu"
#: What msa3d itself reads, whatever steps of jwst run.
OWN_TYPES = frozenset({"pathloss", "barshadow", "area"})


def record_path(layout: Layout) -> Path:
    """Where a run keeps which references were verified.

    Parameters
    ----------
    layout : Layout
        The run.

    Returns
    -------
    Path
    """
    return layout.root / FOLDER / "references.json"


def types_needed(dataset: Dataset) -> list[str]:
    """List the types of references that the steps of a dataset read.

    Parameters
    ----------
    dataset : Dataset
        Which steps run.

    Returns
    -------
    list of str
        Sorted; those of skipped steps are not among them.
    """
    from jwst.pipeline import Detector1Pipeline, Spec2Pipeline, Spec3Pipeline

    settings = dataset.process
    chosen = [(Spec2Pipeline, settings.spec2), (Spec3Pipeline, settings.spec3)]
    if settings.run_stage1:
        chosen.append((Detector1Pipeline, settings.detector1))
    types = set(OWN_TYPES)
    for pipeline, parameters in chosen:
        for name, step in pipeline.step_defs.items():
            if not parameters.get(name, {}).get("skip", False):
                types |= set(step.reference_file_types)
    return sorted(types)


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
    if done and all(done.get(key) == value for key, value in wanted.items()):
        return done
    server = os.environ.get("CRDS_SERVER_URL") or SERVER
    _point_crds(cache, context, server)
    try:
        _verify(_mappings(context))
        names = _best_references(files, types, context)
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
    """Return the record of verified references, where all of them are still there with their sizes.

    Parameters
    ----------
    layout : Layout
        The run.

    Returns
    -------
    dict or None
    """
    try:
        record = json.loads(record_path(layout).read_text(encoding="utf-8"))
        cache = Path(record["path"])
        for name, facts in record["files"].items():
            if _located(cache, name).stat().st_size != facts["size"]:
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
            logger.warning("%s is not whole: fetching it again", name)
            path.unlink(missing_ok=True)
            cacher.get_local_files([name])
        checked[name] = {"size": size, "sha1": sha1}
    return checked


def _located(cache: Path, name: str) -> Path:
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
