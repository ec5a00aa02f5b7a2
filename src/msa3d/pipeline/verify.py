"""Whether what a run made still holds: checksums recomputed, code and inputs compared, and why where not."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from tqdm import tqdm

from msa3d.errors import ProductError
from msa3d.pipeline.codeversion import code_version
from msa3d.pipeline.engine import place_of, read_record, sha256_of
from msa3d.pipeline.products import jwst_version

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
    """Recompute the checksums of all inputs and products of a run, and compare code, references and headers.

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
    records = {path: read_record(path) for path in paths}
    verdicts: list[Verdict] = []
    known: set[str] = set()
    stale: set[str] = set()
    for path in tqdm(_in_order(records), desc="verify", mininterval=0.5 if sys.stderr.isatty() else 30):
        record = records[path]
        if record is None:
            step, _, name = path.stem.partition("_")
            verdicts.append(Verdict(step, name, 0, "doubtful", ("its record cannot be read",)))
            continue
        known |= set(record["products"])
        verdict = _judge(record, layout, dataset, stale)
        if verdict.state in ("damaged", "stale"):
            stale |= set(record["products"])
        verdicts.append(verdict)
    there = {str(path.relative_to(layout.root)) for path in layout.reduction.rglob("*.fits") if path.name[0] != "."}
    return Verification(verdicts, sorted(there - known))


def _in_order(records: Mapping[Path, Mapping[str, Any] | None]) -> list[Path]:
    """Put the records of what was made from others behind these, whenever they were written."""
    makers = {name: path for path, record in records.items() if record for name in record["products"]}
    inputs = {path: set(record["inputs"]) if record else set() for path, record in records.items()}
    before = {path: {makers[name] for name in names if name in makers} - {path} for path, names in inputs.items()}
    return list(TopologicalSorter(before).static_order())


def _judge(record: Mapping[str, Any], layout: Layout, dataset: Dataset | None, stale: set[str]) -> Verdict:
    """Judge the products of one record; `stale` are products of earlier steps that do not hold."""
    damaged = list(_damages(record, layout))
    headers, unread = _headers(record, layout)
    # A product that is what was written, and yet cannot be read, was written so.
    damaged += [f"{name} is no FITS file" for name in unread if not any(name in reason for reason in damaged)]
    outdated = list(_staleness(record, layout, dataset, headers, stale))
    doubts = list(_doubts(record, headers)) if not damaged else []
    state = "damaged" if damaged else "stale" if outdated else "doubtful" if doubts else "holds"
    return Verdict(
        record["step"], record["name"], len(record["products"]), state, tuple([*damaged, *outdated, *doubts])
    )


def _damages(record: Mapping[str, Any], layout: Layout) -> Iterator[str]:
    for name, was in record["products"].items():
        path = layout.root / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != was["size"]:
            yield f"{name} has {path.stat().st_size} bytes instead of {was['size']}"
        elif sha256_of(path) != was["sha256"]:
            yield f"{name} is not what was written (SHA-256)"


def _staleness(
    record: Mapping[str, Any],
    layout: Layout,
    dataset: Dataset | None,
    headers: Mapping[str, fits.Header],
    stale: set[str],
) -> Iterator[str]:
    if record["jwst"] != jwst_version():
        yield f"made with jwst {record['jwst']}, this is {jwst_version()}"
    if record["modules"]:
        try:
            if code_version(*record["modules"]) != record["code"]:
                yield f"the code has changed since revision {record['revision']}"
        except ValueError:
            yield f"{', '.join(record['modules'])} is no longer there"
    for name, was in record["inputs"].items():
        path = layout.root / name
        if not path.is_file():
            yield f"input {name} is missing"
        elif sha256_of(path) != was["sha256"]:
            yield f"input {name} has changed"
        elif name in stale:
            yield f"input {name} does not hold itself"
    for name, was in record["references"].items():
        if (path := place_of(name, layout)).is_file() and sha256_of(path) != was["sha256"]:
            yield f"reference {path.name} has changed"
    if dataset is not None:
        digests = {header.get("MSA3DCFG") for header in headers.values()}
        if digests - {None, dataset.digest[:32]}:
            yield f"dataset {dataset.name} has changed since"


def _doubts(record: Mapping[str, Any], headers: Mapping[str, fits.Header]) -> Iterator[str]:
    for name, header in headers.items():
        missing = [keyword for keyword in STAMP if keyword not in header]
        # What is simulated looks like the files of the archive.
        if missing and record["step"] != "simulate" and not name.endswith("_rate.fits"):
            yield f"{name} does not say what made it ({', '.join(missing)})"


def _headers(record: Mapping[str, Any], layout: Layout) -> tuple[dict[str, fits.Header], list[str]]:
    """Read the headers of the FITS files among the products; name those that are none."""
    headers, unread = {}, []
    for name in record["products"]:
        path = layout.root / name
        if name.endswith(".fits") and path.is_file():
            try:
                with path.open("rb") as stream, warnings.catch_warnings():
                    warnings.simplefilter("ignore", AstropyWarning)
                    headers[name] = fits.Header.fromfile(stream)
            except (OSError, EOFError, ValueError):
                unread.append(name)
    return headers, unread
