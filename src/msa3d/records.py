"""Records of what made each product, which tell whether it is current or must be made again."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msa3d
from msa3d.atomic import atomic_path
from msa3d.codeversion import code_version, git_revision
from msa3d.errors import ProductError

if TYPE_CHECKING:
    from msa3d.layout import Layout

logger = logging.getLogger(__name__)


def sha256_of(path: Path) -> str:
    """SHA-256 of the content of a file."""
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

    @functools.cached_property
    def code(self) -> str:
        """Version of the code, as found first: an edit while the products are made counts as one after it."""
        return code_version(*self.modules)

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
        if old.get("code") != self.code:
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
        return sha256_of(self.layout.root / path) == was["sha256"]

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
        made, hashes = {}, {}
        for path in products:
            status = self._stat(Path(path))
            if status is None:
                raise ProductError(f"{path} was not written, so {self.step} {self.name} is not complete.")
            made[self._relative(path)] = status["size"]
            hashes[self._relative(path)] = sha256_of(Path(path))
        inputs = {}
        for path, before in self._before.items():
            full = self.layout.root / path
            if before is None or self._stat(full) != before:
                raise ProductError(f"{full} changed or vanished while {self.step} {self.name} was using it.")
            inputs[path] = {**before, "sha256": sha256_of(full)}
        text = {
            "step": self.step,
            "name": self.name,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": msa3d.__version__,
            "revision": git_revision(),
            "code": self.code,
            "modules": list(self.modules),
            "parameters": digest(self.parameters),
            "inputs": inputs,
            "products": made,
            "hashes": hashes,
            "notes": notes,
        }
        with atomic_path(self.path) as partial:
            partial.write_text(json.dumps(text, indent=1, default=str) + "\n", encoding="utf-8")

    def notes(self) -> dict[str, Any]:
        """Return the notes of the recorded run; empty where there is none."""
        return (self.read() or {}).get("notes", {})
