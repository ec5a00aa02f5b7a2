"""An offline CRDS cache with the simulated instrument's reference files.

The cache has the layout that the ``crds`` client expects, with one context of a number that no real
context has. Its references are made here, from the same figures that the simulator uses; nothing is
downloaded. Point ``CRDS_PATH`` at it, ``CRDS_CONTEXT`` at `CONTEXT` and ``CRDS_CONFIG_URI`` at its
``config/jwst`` folder, and no server is ever asked (`msa3d.archive.crds` does so).
"""

from __future__ import annotations

import hashlib
import logging
import pprint
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from msa3d import __version__
from msa3d.archive.crds import take_paths_literally
from msa3d.errors import CrdsError
from msa3d.pipeline.codeversion import code_version
from msa3d.pipeline.products import jwst_version

log = logging.getLogger(__name__)

_NUMBER = "9136"
CONTEXT = f"jwst_{_NUMBER}.pmap"
_INSTRUMENT_CONTEXT = f"jwst_nirspec_{_NUMBER}.imap"
_EXPOSURE_TYPE = "NRS_MSASPEC"
_FILTER, _GRATING = "F100LP", "G140H"
_EXPOSURE_KEY, _FILTER_KEY, _GRATING_KEY = (
    "META.EXPOSURE.TYPE",
    "META.INSTRUMENT.FILTER",
    "META.INSTRUMENT.GRATING",
)
_MATCH_KEYS = {
    "fore": {_FILTER_KEY: _FILTER},
    "disperser": {_GRATING_KEY: _GRATING},
    "fflat": {_FILTER_KEY: _FILTER, _GRATING_KEY: _GRATING},
}
"""What a reference depends on beside the exposure type; any other filter or grating finds none."""
_NOT_APPLICABLE = (
    "apcorr", "bkg", "chromcorr", "cubepar", "dark", "dflat", "distortion", "drizpars", "emicorr", "extract1d",
    "filteroffset", "flat", "fringe", "fringefreq", "gain", "ifufore", "ifupost", "ifuslicer", "ipc", "linearity",
    "mask", "mrsptcorr", "mrsxartcorr", "pastasoss", "persat", "pictureframe", "psf", "readnoise", "refpix", "regions",
    "reset", "rscd", "saturation", "sflat", "sirskernel", "speckernel", "specprofile", "spectrace", "specwcs",
    "straymask", "superbias", "trapdensity", "trappars", "wavecorr", "wavemap", "wfssbkg",
)  # fmt: skip
STAMP = "msa3d_simulated.txt"


def build_crds_cache(path: Path, *, more: Callable | None = None) -> str:
    """Make the simulated CRDS cache, unless it is there already.

    The cache is built beside its final place and renamed when whole, so that a killed run leaves none
    that is half made. One of another version or of changed figures is replaced.

    Parameters
    ----------
    path : pathlib.Path
        The cache's root (``CRDS_PATH``), made if missing.
    more : callable, optional
        ``more(folder, name)`` writes further references and returns the file by type; `name` is that of
        `msa3d_sim.references.write_optics`. It does not replace a cache that is there.

    Returns
    -------
    str
        The name of the context (``CRDS_CONTEXT``).

    Raises
    ------
    CrdsError
        If something else than a cache made by this function is at `path`.
    """
    path = Path(path)
    stamp = _fingerprint()
    if (path / STAMP).is_file() and (path / STAMP).read_text(encoding="utf-8") == stamp:
        return CONTEXT
    if path.exists() and any(path.iterdir()) and not (path / STAMP).is_file():
        raise CrdsError(f"{path} is not a simulated CRDS cache and is left as it is: name another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        _write(partial, more)
        (partial / STAMP).write_text(stamp, encoding="utf-8")
        partial.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    log.info("simulated CRDS cache with context %s made in %s", CONTEXT, path)
    return CONTEXT


def _fingerprint() -> str:
    """What the content depends on: the versions (jwst 1.14 cannot read what 3.0 wrote), the code and its data."""
    return (
        "Simulated reference files, made by msa3d for its embedded observation. Not for real data.\n"
        f"version {__version__}\njwst {jwst_version()}\ncontext {CONTEXT}\ncontent {code_version(__name__)}\n"
    )


def _write(root: Path, more: Callable | None) -> None:
    # Imported where they are needed: a cache that is there already is told in no time.
    from msa3d_sim.references import write_calibration, write_optics

    take_paths_literally(root)
    references = root / "references" / "jwst" / "nirspec"
    mappings = root / "mappings" / "jwst"
    references.mkdir(parents=True)
    mappings.mkdir(parents=True)

    def name(reftype, suffix):
        return f"jwst_nirspec_{reftype}_{_NUMBER}.{suffix}"

    files = write_optics(references, name) | write_calibration(references, name)
    if more:
        files |= more(references, name)
    for reftype, file in files.items():
        _write_mapping(mappings / f"jwst_nirspec_{reftype}_{_NUMBER}.rmap", *_reference_mapping(reftype, file))
    _write_mapping(mappings / _INSTRUMENT_CONTEXT, *_instrument_mapping(files))
    _write_mapping(mappings / CONTEXT, *_pipeline_mapping())
    _write_configuration(root / "config" / "jwst", sorted(p.name for p in mappings.iterdir()))


def _header(name: str, kind: str, **entries) -> dict:
    return {"derived_from": "msa3d_sim", "mapping": kind, "name": name, "observatory": "JWST", **entries}


def _reference_mapping(reftype: str, file: Path):
    keys = {_EXPOSURE_KEY: _EXPOSURE_TYPE, **_MATCH_KEYS.get(reftype, {})}
    header = _header(
        f"jwst_nirspec_{reftype}_{_NUMBER}.rmap", "REFERENCE",
        classes=("Match", "UseAfter"), filekind=reftype.upper(), instrument="NIRSPEC",
        parkey=(tuple(keys), ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")),
        file_ext=file.suffix,
    )  # fmt: skip
    from msa3d_sim.references import USEAFTER

    used_after = USEAFTER.replace("T", " ")
    selector = (
        f"Match({{\n    {tuple(keys.values())!r} : UseAfter({{\n        {used_after!r} : {file.name!r},\n    }}),\n}})"
    )
    return header, selector


def _instrument_mapping(files):
    header = _header(_INSTRUMENT_CONTEXT, "INSTRUMENT", instrument="NIRSPEC", parkey=("REFTYPE",))
    selections = {reftype: f"jwst_nirspec_{reftype}_{_NUMBER}.rmap" for reftype in files}
    selections |= {reftype: "N/A" for reftype in _NOT_APPLICABLE if reftype not in files}
    return header, pprint.pformat(selections, width=100)


def _pipeline_mapping():
    header = _header(CONTEXT, "PIPELINE", parkey=("META.INSTRUMENT.NAME",))
    return header, pprint.pformat({"nirspec": _INSTRUMENT_CONTEXT})


def _write_mapping(path: Path, header: dict, selector: str) -> None:
    """Write a CRDS mapping; its checksum is that of the text without the line of the checksum."""

    def text(lines):
        return "header = {\n" + "".join(lines) + "}\n\nselector = " + selector + "\n"

    lines = [f"    {key!r} : {value!r},\n" for key, value in sorted(header.items())]
    checksum = hashlib.sha1(text(lines).encode("utf-8"), usedforsecurity=False).hexdigest()
    path.write_text(text([*lines, f"    'sha1sum' : {checksum!r},\n"]), encoding="utf-8")


def _write_configuration(folder: Path, mappings: list[str]) -> None:
    """Write what the client would otherwise learn from the server."""
    folder.mkdir(parents=True)
    nowhere = {"unchecked": ""}
    server = {
        "observatory": "jwst", "operational_context": CONTEXT, "edit_context": CONTEXT,
        "bad_files_list": [], "bad_files": "", "force_remote_mode": False,
        "crds_version": {"str": "11.17.19"}, "mappings": mappings, "download_metadata": {},
        "reference_url": nowhere, "mapping_url": nowhere, "last_synced": "2024-03-01 00:00:00",
    }  # fmt: skip
    (folder / "server_config").write_text(pprint.pformat(server) + "\n", encoding="utf-8")
    (folder / "bad_files.txt").write_text("", encoding="utf-8")
    (folder.parent.parent / "config" / "jwst" / "ref_cache_subdir_mode").write_text("instrument", encoding="utf-8")
