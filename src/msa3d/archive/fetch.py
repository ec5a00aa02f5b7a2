"""Fetch an observation: list, disk, files one after the other, references; complete files are not requested again."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from msa3d.archive.download import Manners, download, partial_path
from msa3d.archive.mast import FOLDER, FileEntry, Manifest, Mast, Product, packaged
from msa3d.errors import FetchError, SizeChangedError
from msa3d.observation.reading import Rate, leave_out_others, spectra
from msa3d.pipeline.products import alone

if TYPE_CHECKING:
    from astropy.table import Table

    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


logger = logging.getLogger(__name__)

#: Left free beside what is fetched, GB.
_SPARE_GB = 0.5


@dataclass(frozen=True)
class FileReport:
    """What happened to one file.

    Attributes
    ----------
    file : str
        Its name.
    status : {"whole", "fetched"}
        Whether it lay there already.
    size : int
        Bytes.
    received, resumed_from, requests : int
        See `msa3d.archive.download.Download`; 0 for a file that lay there.
    seconds : float
        Wall time.
    troubles : str
        What went wrong on the way.
    """

    file: str
    status: str
    size: int
    received: int = 0
    resumed_from: int = 0
    requests: int = 0
    seconds: float = 0.0
    troubles: str = ""


@dataclass(frozen=True)
class FetchReport:
    """What `fetch_observation` did.

    Attributes
    ----------
    files : list of FileReport
        One a file.
    asked : bool
        Whether the archive was asked for its list.
    """

    files: list[FileReport] = field(default_factory=list)
    asked: bool = False

    def table(self) -> Table:
        """A row a file: name, status, MB, MB received now, MB resumed from, requests, seconds, troubles."""
        from astropy.table import Table

        return Table(
            {
                "file": [one.file for one in self.files],
                "status": [one.status for one in self.files],
                "MB": [round(one.size / 1e6, 3) for one in self.files],
                "received": [round(one.received / 1e6, 3) for one in self.files],
                "resumed_from": [round(one.resumed_from / 1e6, 3) for one in self.files],
                "requests": [one.requests for one in self.files],
                "seconds": [round(one.seconds, 1) for one in self.files],
                "troubles": [one.troubles for one in self.files],
            }
        )


def manifest_path(layout: Layout) -> Path:
    """Where a run keeps the list of its files."""
    return layout.root / FOLDER / "manifest.yaml"


def log_path(layout: Layout) -> Path:
    """Where a run keeps what happened, a line of JSON a file fetched, over all attempts."""
    return layout.root / FOLDER / "log.jsonl"


def fetch_observation(
    dataset: Dataset,
    layout: Layout,
    *,
    products: Sequence[Product] = ("rate", "metafile"),
    manifest: Path | None = None,
    refresh: bool = False,
    manners: Manners | None = None,
    make_archive: Callable[[], Mast] = Mast,
) -> FetchReport:
    """Fetch the files of a real observation into the top of its root.

    Files are fetched one after the other. A complete file is left alone; if all are, no server is
    asked for anything. A run that was killed goes on within the file where it stopped.

    Parameters
    ----------
    dataset : Dataset
        Programme, observation, visit, detectors.
    layout : Layout
        Where the files go.
    products : sequence of {"rate", "metafile", "uncal"}
        What is wanted.
    manifest : Path, optional
        A list of files to use; by default that of an earlier run in this root, else the packaged one, else the
        archive is asked.
    refresh : bool
        Ask the archive for its list even where one is there.
    manners : Manners, optional
        Attempts and waits.
    make_archive : callable, optional
        Gives the archive; called when it is first needed.

    Raises
    ------
    FetchError
        Where the archive or a file is not to be had, the disk is too full, or another process is at it.
    """
    manners, products = manners or Manners(), list(products)
    (layout.root / FOLDER).mkdir(parents=True, exist_ok=True)
    with alone(layout.root / FOLDER, "fetch"):
        work = _Fetching(dataset, layout, products, manners, make_archive)
        work.learn(manifest, refresh)
        work.make_room()
        work.fetch()
        work.fetch_named_metafile()
        return FetchReport(sorted(work.reports, key=lambda one: one.file), work.asked)


@dataclass
class _Fetching:
    """One call of `fetch_observation`."""

    dataset: Dataset
    layout: Layout
    products: list[Product]
    manners: Manners
    make_archive: Callable[[], Mast]
    known: Manifest = field(default_factory=Manifest)
    reports: list[FileReport] = field(default_factory=list)
    asked: bool = False
    _archive: Mast | None = None

    @property
    def archive(self) -> Mast:
        """The archive, made when first needed."""
        if self._archive is None:
            self._archive = self.make_archive()
        return self._archive

    def learn(self, manifest: Path | None, refresh: bool) -> None:
        """Find out which files there are."""
        own = manifest_path(self.layout)
        if manifest is not None:
            self.known = Manifest.load(manifest)
            if not self.known.of(self.products):
                raise FetchError(f"{manifest} lists no {' or '.join(self.products)} files.")
        else:
            self.known = packaged(self.dataset)
            if own.is_file():
                self.known = self.known.merged(Manifest.load(own))
        if refresh or not (manifest is not None or self.known.knows(self.products)):
            self.ask()
        self.known.write(own)

    def ask(self) -> None:
        """Ask the archive for its list, and keep it."""
        self.known = self.known.merged(self.archive.list_files(self.dataset, self.products))
        self.asked = True
        self.known.write(manifest_path(self.layout))

    def make_room(self) -> None:
        """Stop where what is missing does not fit onto the disk."""
        need = 0
        for entry in self.known.of(self.products):
            if not entry.is_whole(self.layout.root):
                part = partial_path(self.layout.root / entry.name)
                need += max((entry.size or 0) - (part.stat().st_size if part.exists() else 0), 0)
        free = shutil.disk_usage(self.layout.root).free
        if need and need + _SPARE_GB * 1e9 > free:
            raise FetchError(
                f"{self.layout.root} has {free / 1e9:.2f} GB free, but {need / 1e9:.2f} GB are still to be fetched and "
                f"{_SPARE_GB} GB stay free; make room, or choose another root."
            )

    def fetch(self) -> None:
        """Fetch what is not complete."""
        entries = self.known.of(self.products)
        total = sum(entry.size or 0 for entry in entries)
        interval = 0.5 if sys.stderr.isatty() else 30
        with tqdm(total=total, desc="fetch", unit="B", unit_scale=True, mininterval=interval, file=sys.stderr) as bar:
            for name in [entry.name for entry in entries]:
                bar.set_postfix_str(name, refresh=False)
                # The list may have been renewed on the way.
                entry = next((one for one in self.known.files if one.name == name), None)
                if entry is None:
                    raise FetchError(f"{name} is in an older list, but no longer in the archive's.")
                self.fetch_one(entry, bar.update)
        self.leave_out()

    def leave_out(self) -> None:
        """Remove what turned out not to be spectra on the sky: the archive's list does not tell lamps."""
        came = {
            self.layout.root / report.file: report.file
            for report in self.reports
            if report.status == "fetched" and report.file.endswith(("_rate.fits", "_uncal.fits"))
        }
        others = {came[path] for path in came.keys() - set(leave_out_others(came))}
        for name in others:
            (self.layout.root / name).unlink()
        if others:
            self.reports = [report for report in self.reports if report.file not in others]
            left = [entry for entry in self.known.files if entry.name not in others]
            self.known = self.known.model_copy(update={"files": left})
            self.known.write(manifest_path(self.layout))

    def fetch_one(self, entry: FileEntry, progress: Callable[[int], object]) -> None:
        """Fetch one file, unless it is complete; a list that has become wrong is renewed once."""
        path = self.layout.root / entry.name
        if entry.is_whole(self.layout.root):
            size = path.stat().st_size
            progress(size)
            self.reports.append(FileReport(entry.name, "whole", size))
            return
        part = partial_path(path)
        if part.exists():
            progress(part.stat().st_size)
        started = time.perf_counter()
        try:
            done = self._download(entry, progress)
        except SizeChangedError:
            if self.asked:
                raise
            self.ask()
            entry = next((one for one in self.known.files if one.name == entry.name), entry)
            done = self._download(entry, progress)
        report = FileReport(
            entry.name, "fetched", done.size, done.received, done.resumed_from, done.requests,
            time.perf_counter() - started, "; ".join(done.troubles),
        )  # fmt: skip
        self.reports.append(report)
        self.remember(entry.model_copy(update={"size": done.size, "sha256": done.sha256}), report)

    def _download(self, entry: FileEntry, progress: Callable[[int], object]):
        return download(
            self.archive.session, self.archive.url(entry), self.layout.root / entry.name,
            size=entry.size, sha256=entry.sha256, manners=self.manners, progress=progress,
        )  # fmt: skip

    def remember(self, entry: FileEntry, report: FileReport) -> None:
        """Keep the checksum of what came, and the line of the log."""
        self.known = self.known.merged(Manifest(files=[entry]))
        self.known.write(manifest_path(self.layout))
        with log_path(self.layout).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(report)) + "\n")

    def fetch_named_metafile(self) -> None:
        """Fetch the metafile that the headers name, where the archive's list has none."""
        if "metafile" not in self.products or self.known.of(["metafile"]):
            return
        # Of uncal files too, though these have no pointing: the name is in the primary header.
        path = next(spectra(self.layout.rates()), None)
        if path is None:
            return
        name = self.layout.metafile(str(Rate.read(path).primary["MSAMETFL"])).name
        self.known = self.known.merged(
            Manifest(files=[FileEntry(name=name, product="metafile")], complete=["metafile"])
        )
        self.known.write(manifest_path(self.layout))
        self.fetch_one(self.known.of(["metafile"])[0], lambda n: None)
