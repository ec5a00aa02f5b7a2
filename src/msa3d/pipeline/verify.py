"""Whether what a run made still holds: checksums recomputed, code and inputs compared, and why where not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from astropy.io import fits
from tqdm import tqdm

from msa3d.errors import ProductError
from msa3d.pipeline.codeversion import code_version
from msa3d.pipeline.products import sha256_of

if TYPE_CHECKING:
    from astropy.table import Table

    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


#: Keywords that every product must have in its primary header.
STAMP = ("MSA3DVER", "MSA3DGIT", "MSA3DSET", "MSA3DCFG", "CAL_VER")


@dataclass(frozen=True)
class Verdict:
    """What is known of the products of one record.

    Attributes
    ----------
    step, name : str
        What made them, and of what.
    products : int
        How many.
    state : {"holds", "stale", "damaged", "doubtful"}
        ``damaged``: a product is missing or is not what was written. ``stale``: it would come out otherwise today, or
        is made again. ``doubtful``: it cannot be told.
    reasons : tuple of str
        Why it does not simply hold.
    """

    step: str
    name: str
    products: int
    state: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verification:
    """What became of a run.

    Attributes
    ----------
    verdicts : list of Verdict
        One a record.
    strangers : list of str
        Files among the products that no record knows of.
    """

    verdicts: list[Verdict]
    strangers: list[str]

    @property
    def holds(self) -> bool:
        """Whether everything holds."""
        return all(one.state == "holds" for one in self.verdicts)

    def table(self) -> Table:
        """A row a record: step, name, products, state, why."""
        from astropy.table import Table

        return Table(
            {
                "step": [one.step for one in self.verdicts],
                "name": [one.name for one in self.verdicts],
                "products": [one.products for one in self.verdicts],
                "state": [one.state for one in self.verdicts],
                "why": ["; ".join(one.reasons) for one in self.verdicts],
            }
        )


def verify(layout: Layout, dataset: Dataset | None = None) -> Verification:
    """Recompute the checksums of all inputs and products of a run, and compare code and headers.

    Parameters
    ----------
    layout : Layout
        The run.
    dataset : Dataset, optional
        Today's description: products made with another one are stale as far as it reaches them.

    Returns
    -------
    Verification

    Raises
    ------
    ProductError
        Where the root has no records at all.
    """
    paths = sorted(layout.records.glob("*.json")) + sorted((layout.truth / "records").glob("*.json"))
    if not paths:
        raise ProductError(f"{layout.root} has no records of products: nothing was made there yet.")
    hashes: dict[str, str | None] = {}
    verdicts, known, stale = [], set(), set()
    for path in tqdm(
        sorted(paths, key=lambda one: one.stat().st_mtime_ns),
        desc="verify",
        mininterval=0.5 if sys.stderr.isatty() else 30,
    ):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            step, _, name = path.stem.partition("_")
            verdicts.append(Verdict(step, name, 0, "doubtful", ("its record cannot be read",)))
            continue
        known |= set(record["products"])
        verdict = _judge(record, layout, dataset, hashes, stale)
        if verdict.state in ("damaged", "stale"):
            stale |= set(record["products"])
        verdicts.append(verdict)
    there = {str(path.relative_to(layout.root)) for path in layout.reduction.rglob("*.fits") if path.name[0] != "."}
    return Verification(verdicts, sorted(there - known))


def _judge(
    record: Mapping[str, Any],
    layout: Layout,
    dataset: Dataset | None,
    hashes: dict[str, str | None],
    stale: set[str],
) -> Verdict:
    """Judge the products of one record; `stale` are products of earlier steps that do not hold."""
    damaged = list(_damages(record, layout, hashes))
    outdated = list(_staleness(record, layout, dataset, hashes, stale))
    doubts = list(_doubts(record, layout)) if not damaged else []
    state = "damaged" if damaged else "stale" if outdated else "doubtful" if doubts else "holds"
    return Verdict(
        record["step"], record["name"], len(record["products"]), state, tuple([*damaged, *outdated, *doubts])
    )


def _hash(name: str, layout: Layout, hashes: dict[str, str | None]) -> str | None:
    if name not in hashes:
        path = layout.root / name
        hashes[name] = sha256_of(path) if path.is_file() else None
    return hashes[name]


def _damages(record: Mapping[str, Any], layout: Layout, hashes: dict[str, str | None]) -> Iterator[str]:
    for name, size in record["products"].items():
        path, wanted = layout.root / name, record.get("hashes", {}).get(name)
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != size:
            yield f"{name} has {path.stat().st_size} bytes instead of {size}"
        elif wanted and _hash(name, layout, hashes) != wanted:
            yield f"{name} is not what was written (SHA-256)"


def _staleness(
    record: Mapping[str, Any],
    layout: Layout,
    dataset: Dataset | None,
    hashes: dict[str, str | None],
    stale: set[str],
) -> Iterator[str]:
    if record.get("modules"):
        try:
            if code_version(*record["modules"]) != record["code"]:
                yield f"the code has changed since revision {record['revision']}"
        except ValueError:
            yield f"{', '.join(record['modules'])} is no longer there"
    for name, was in record["inputs"].items():
        now = _hash(name, layout, hashes)
        if now is None:
            yield f"input {name} is missing"
        elif now != was["sha256"]:
            yield f"input {name} has changed"
        elif name in stale:
            yield f"input {name} does not hold itself"
    if dataset is not None:
        digests = {header.get("MSA3DCFG") for header in _headers(record, layout).values()}
        if digests - {None, dataset.digest[:32]}:
            yield f"dataset {dataset.name} has changed since"


def _doubts(record: Mapping[str, Any], layout: Layout) -> Iterator[str]:
    for name, header in _headers(record, layout).items():
        missing = [keyword for keyword in STAMP if keyword not in header]
        # What is simulated looks like the files of the archive.
        if missing and record["step"] != "simulate" and not name.endswith("_rate.fits"):
            yield f"{name} does not say what made it ({', '.join(missing)})"
    if record["products"] and not record.get("hashes"):
        yield "recorded without checksums, by an older version"


def _headers(record: Mapping[str, Any], layout: Layout) -> dict[str, fits.Header]:
    paths = {name: layout.root / name for name in record["products"] if name.endswith(".fits")}
    return {name: fits.getheader(path) for name, path in paths.items() if path.is_file()}
