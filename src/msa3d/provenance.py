"""What every product is stamped with, how it is written whole, and when it has to be made again.

Code version
------------
A product is out of date when the code that made it has changed, but a changed comment or docstring must not
cost a quarter of an hour. `code_version` therefore hashes the syntax trees, without docstrings, of the modules
that a step names and of all `msa3d` modules that those import, directly or not. The ground floor
(`GROUND_FLOOR`) is left out: it changes paths, messages and checks; what of it reaches a pixel, the dataset, is
hashed as parameters. The package version and the git revision are stamped into headers but do not count.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits

import msa3d
from msa3d.errors import ProductError

if TYPE_CHECKING:
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout

logger = logging.getLogger(__name__)

#: Logical keyword of the primary header, true in every simulated file and all that is made from one.
SIMULATED_KEYWORD = "MSA3DSIM"

#: The sentence that goes with it.
SIMULATED_HISTORY = (
    "Simulated by msa3d: not an observation. Recovering the injected numbers is a closure test of the "
    "method, not a confirmation of any published result."
)

#: Modules that do not count for `code_version`.
GROUND_FLOOR = frozenset(
    f"msa3d.{name}" for name in ("errors", "layout", "provenance", "workers", "references", "dataset")
) | {"msa3d"}

_PACKAGE_DIR = Path(__file__).parent
#: Headers list at most this many inputs by name.
_MAX_LISTED = 12


# --- who made it


@functools.cache
def git_revision() -> str:
    """Short git revision of the source tree, with ``-dirty`` where it differs, or ``unknown``.

    The environment variable ``MSA3D_GIT_REVISION`` wins: an image built without ``.git`` sets it.
    """
    if os.environ.get("MSA3D_GIT_REVISION"):
        return os.environ["MSA3D_GIT_REVISION"]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_PACKAGE_DIR), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        # A package installed inside another project's tree must not borrow that project's revision.
        git("ls-files", "--error-unmatch", "__init__.py")
        revision = git("rev-parse", "--short=12", "HEAD")
        return revision + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _module_file(module: str) -> Path | None:
    parts = module.split(".")[1:]
    plain = _PACKAGE_DIR.joinpath(*parts).with_suffix(".py") if parts else _PACKAGE_DIR / "__init__.py"
    if parts and plain.is_file():
        return plain
    package = _PACKAGE_DIR.joinpath(*parts) / "__init__.py"
    return package if package.is_file() else None


def _imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[str]:
    """Names of `msa3d` modules (or of things in them) that a module imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                up = node.level - 1 if is_package else node.level
                base = ".".join([*parts[: len(parts) - up], *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def _parsed(module: str) -> tuple[str, frozenset[str]]:
    """Hash of a module's code without docstrings, and the msa3d modules it imports."""
    path = _module_file(module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = frozenset(
        name
        for name in _imports(tree, module, path.name == "__init__.py")
        if (name == "msa3d" or name.startswith("msa3d.")) and _module_file(name)
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imported


def code_version(*modules: str) -> str:
    """Hash of the code that makes a product.

    Parameters
    ----------
    *modules : str
        Dotted names of the modules whose code makes the product, e.g. ``msa3d.steps.process``. What they
        import from msa3d, directly or not, counts as well, save the ground floor. A package counts as a
        whole. Without any, the version of msa3d alone.

    Returns
    -------
    str
        16 hexadecimal digits, or the package version.

    Raises
    ------
    ValueError
        Where there is no such module in msa3d.
    """
    if not modules:
        return msa3d.__version__
    todo, seen = [], set()
    for module in modules:
        path = _module_file(module)
        if path is None:
            raise ValueError(f"msa3d has no module {module!r}")
        todo.append(module)
        if path.name == "__init__.py":
            todo += [f"{module}.{p.stem}" for p in sorted(path.parent.glob("*.py")) if p.stem != "__init__"]
    while todo:
        module = todo.pop()
        if module in seen or (module in GROUND_FLOOR and module not in modules):
            continue
        seen.add(module)
        todo.extend(_parsed(module)[1])
    text = "\n".join(f"{module} {_parsed(module)[0]}" for module in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


# --- written whole or not at all


@contextmanager
def atomic_path(final: Path | str) -> Iterator[Path]:
    """Give a temporary name beside `final`, and rename it when the block has ended well.

    Parameters
    ----------
    final : path
        The product, a file or a directory. Its parent is made. A product of that name is replaced.

    Yields
    ------
    Path
        A hidden sibling with the same ending, e.g. ``.cube.1234.partial.fits``, which does not exist yet.

    Raises
    ------
    ProductError
        Where the block ended without having written the temporary file.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.parent / f".{final.stem}.{os.getpid()}.partial{final.suffix}"
    remove(partial)
    try:
        yield partial
        if not partial.exists():
            raise ProductError(f"{final} was not written: the step that makes it left no file.")
        if partial.is_dir() and final.is_dir():
            old = final.parent / f".{final.name}.{os.getpid()}.old"
            final.rename(old)
            partial.rename(final)
            shutil.rmtree(old)
        else:
            partial.replace(final)
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Remove a file or a directory tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_partials(directory: Path) -> list[Path]:
    """Remove what a killed run left under temporary names in a directory (not below it).

    Parameters
    ----------
    directory : Path
        May be absent.

    Returns
    -------
    list of Path
        What was removed. Call it only where no other process is writing.
    """
    left = sorted(directory.glob(".*.partial*")) if directory.is_dir() else []
    for path in left:
        logger.info("removing %s, left by an interrupted run", path)
        remove(path)
    return left


# --- records: is a product still current?


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of anything that JSON can express (paths and dates as text), keys sorted."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Record:
    """The record of what made a group of products, kept as JSON under ``reduction/records``.

    Use::

        record = Record(layout, "process", activity, inputs=rates, parameters=settings.model_dump(),
                        modules=("msa3d.steps.process",))
        if not record.is_current():
            ...                                   # write the products, each through `atomic_path`
            record.write(products, seconds=12.3)

    Inputs are compared by size and time of change, which costs one ``stat`` a file; only where the time alone
    differs (a copied or touched file) is the content hashed.

    Parameters
    ----------
    layout : Layout
        Where the run lives. Paths under its root are recorded relative to it, so that a run can be moved.
    step : str
        Name of the step.
    name : str
        What of the step: an activity, a source id.
    inputs : sequence of path
        Files that the products are made from.
    parameters : mapping
        All parameters that reach the products; JSON-like.
    modules : sequence of str
        For `code_version`.
    folder : Path, optional
        Where the JSON goes, by default ``layout.records``.
    """

    layout: Layout
    step: str
    name: str
    inputs: Sequence[Path] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    modules: Sequence[str] = ()
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Note the state of the inputs now, before the work starts."""
        self.inputs = [Path(path) for path in self.inputs]
        self._before = {self._relative(path): self._stat(path) for path in self.inputs}

    @property
    def path(self) -> Path:
        """The JSON file."""
        return (self.folder or self.layout.records) / f"{self.step}_{self.name}.json"

    def _relative(self, path: Path) -> str:
        path = Path(path).absolute()
        return str(path.relative_to(self.layout.root)) if path.is_relative_to(self.layout.root) else str(path)

    @staticmethod
    def _stat(path: Path) -> dict[str, int] | None:
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            return None
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}

    def read(self) -> dict[str, Any] | None:
        """Return what was recorded, or None where there is no readable record."""
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def reason(self, products: Iterable[Path] | None = None) -> str:
        """Why the products have to be made again, in words; empty where they are current.

        Parameters
        ----------
        products : iterable of path, optional
            Products that must be there beyond those recorded.
        """
        old = self.read()
        if old is None:
            return "never made"
        if old.get("code") != code_version(*self.modules):
            return "the code has changed"
        if old.get("parameters") != digest(self.parameters):
            return "parameters have changed"
        if set(old.get("inputs", {})) != set(self._before):
            return "other inputs"
        for path, was in old["inputs"].items():
            if not self._same_input(path, was):
                return f"input {path} has changed"
        recorded = old.get("products", {})
        for path in products or ():
            if self._relative(path) not in recorded:
                return f"{self._relative(path)} is not among the products made"
        for path, size in recorded.items():
            now = self._stat(self.layout.root / path)
            if now is None or now["size"] != size:
                return f"product {path} is missing or has another size"
        return ""

    def _same_input(self, path: str, was: Mapping[str, Any]) -> bool:
        now = self._before[path]
        if now is None or now["size"] != was["size"]:
            return False
        if now["mtime_ns"] == was["mtime_ns"]:
            return True
        return _sha256(self.layout.root / path) == was["sha256"]

    def is_current(self, products: Iterable[Path] | None = None) -> bool:
        """Whether the products are there and inputs, parameters and code are those that made them."""
        why = self.reason(products)
        logger.debug("%s %s: %s", self.step, self.name, why or "current")
        return not why

    def write(self, products: Iterable[Path], **notes: Any) -> None:
        """Record products that were just made.

        Parameters
        ----------
        products : iterable of path
            Every file made; each must exist.
        **notes
            Anything worth keeping that does not decide currency: seconds, peak memory, counts.

        Raises
        ------
        ProductError
            Where a product is missing, or an input changed while the products were made.
        """
        made = {}
        for path in products:
            status = self._stat(Path(path))
            if status is None:
                raise ProductError(f"{path} was not written, so {self.step} {self.name} is not complete.")
            made[self._relative(path)] = status["size"]
        inputs = {}
        for path, before in self._before.items():
            full = self.layout.root / path
            if before is None or self._stat(full) != before:
                raise ProductError(f"{full} changed or vanished while {self.step} {self.name} was using it.")
            inputs[path] = {**before, "sha256": _sha256(full)}
        text = {
            "step": self.step,
            "name": self.name,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": msa3d.__version__,
            "revision": git_revision(),
            "code": code_version(*self.modules),
            "parameters": digest(self.parameters),
            "inputs": inputs,
            "products": made,
            "notes": notes,
        }
        with atomic_path(self.path) as partial:
            partial.write_text(json.dumps(text, indent=1, default=str) + "\n", encoding="utf-8")

    def notes(self) -> dict[str, Any]:
        """Return the notes of the recorded run; empty where there is none."""
        return (self.read() or {}).get("notes", {})
