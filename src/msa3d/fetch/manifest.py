"""Which files an observation consists of: names, sizes and checksums as far as they are known.

A manifest is a YAML file. Those that are packaged hold what was known when they were committed; what the archive
answers is kept in the run's own, ``<root>/fetch/manifest.yaml``, together with the checksums of what came.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml
from pydantic import Field, ValidationError

from msa3d._fitswalk import read_headers
from msa3d._model import Model, PlainName
from msa3d._yaml import read_yaml
from msa3d.atomic import atomic_path
from msa3d.errors import DatasetError, ObservationError
from msa3d.fetch.errors import FetchError

if TYPE_CHECKING:
    from msa3d.dataset import Dataset

Product = Literal["rate", "metafile", "uncal"]

#: Where files that the run needs to know of are kept, below its root.
FOLDER = "fetch"


class FileEntry(Model):
    """One file of an archive.

    Parameters
    ----------
    name : str
        Its name.
    product : {"rate", "metafile", "uncal"}
        What it is.
    uri : str
        Its name in the archive; by default ``mast:JWST/product/<name>``.
    size : int, optional
        Bytes; None where not known.
    sha256 : str, optional
        Checksum of its content; None where not known. MAST lists none: it is that of the first download.
    """

    name: PlainName
    product: Product
    uri: str = ""
    size: int | None = Field(None, ge=1)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @property
    def address(self) -> str:
        """Its name in the archive."""
        return self.uri or f"mast:JWST/product/{self.name}"

    def is_whole(self, folder: Path) -> bool:
        """Whether the file lies in a folder and is not cut short.

        Parameters
        ----------
        folder : Path
            Where it should be.

        Returns
        -------
        bool
            By its size; where that is not known, by its FITS structure.
        """
        path = folder / self.name
        if not path.is_file():
            return False
        if self.size is not None:
            return path.stat().st_size == self.size
        return is_whole_fits(path)


class Manifest(Model):
    """Files of an observation.

    Parameters
    ----------
    source : str
        Where this was learnt.
    complete : list of str
        Products of which all files are listed.
    files : list of FileEntry
        The files.
    """

    source: str = ""
    complete: list[Product] = Field([])
    files: list[FileEntry] = Field([])

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest.

        Parameters
        ----------
        path : Path
            A YAML file.

        Returns
        -------
        Manifest

        Raises
        ------
        FetchError
            Where it is not a manifest; the sentence names file and key.
        """
        try:
            return cls.model_validate(read_yaml(path) or {})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise FetchError(f"{path} is not a manifest: {place}: {first['msg']}.") from error
        except DatasetError as error:
            raise FetchError(f"This is not a manifest: {error}") from error

    def write(self, path: Path) -> None:
        """Write it.

        Parameters
        ----------
        path : Path
            Appears when whole; replaced where it is there.
        """
        text = yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False, width=200)
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8")

    def of(self, products: list[Product]) -> list[FileEntry]:
        """List the files of some products, sorted by name.

        Parameters
        ----------
        products : list of str
            Which.

        Returns
        -------
        list of FileEntry
        """
        return sorted((entry for entry in self.files if entry.product in products), key=lambda entry: entry.name)

    def knows(self, products: list[Product]) -> bool:
        """Whether all files of some products are listed.

        Parameters
        ----------
        products : list of str
            Which.

        Returns
        -------
        bool
        """
        return set(products) <= set(self.complete)

    def merged(self, other: Manifest) -> Manifest:
        """Replace what another manifest knows better: its files, and its word on what is complete.

        Parameters
        ----------
        other : Manifest
            The newer one.

        Returns
        -------
        Manifest
            A checksum is kept where the size is the same and the other has none.
        """
        files = {entry.name: entry for entry in self.files if entry.product not in other.complete}
        old = {entry.name: entry for entry in self.files}
        for entry in other.files:
            was = old.get(entry.name)
            if was and entry.sha256 is None and was.size == entry.size:
                entry = entry.model_copy(update={"sha256": was.sha256})
            files[entry.name] = entry
        complete = sorted({*self.complete, *other.complete})
        return Manifest(source=other.source or self.source, complete=complete, files=list(files.values()))


def is_whole_fits(path: Path) -> bool:
    """Whether a FITS file goes on to its end.

    Parameters
    ----------
    path : Path
        A file.

    Returns
    -------
    bool
        False also for what is not FITS.
    """
    try:
        read_headers(path)
    except (ObservationError, OSError):
        return False
    return True


def packaged(dataset: Dataset) -> Manifest:
    """Read the manifest that is packaged with a dataset.

    Parameters
    ----------
    dataset : Dataset
        The dataset.

    Returns
    -------
    Manifest
        An empty one where there is none.
    """
    path = Path(str(resources.files("msa3d"))) / "datasets" / "manifests" / f"{dataset.name}.yaml"
    return Manifest.load(path) if path.is_file() else Manifest()


def pattern_of(dataset: Dataset, product: Product) -> re.Pattern[str]:
    """Names that files of a product of a visit have in the archive.

    Parameters
    ----------
    dataset : Dataset
        Programme, observation, visit and detectors.
    product : {"rate", "metafile", "uncal"}
        Which.

    Returns
    -------
    re.Pattern
        To be matched in full. Rates are those of single exposures: association products and integrations
        (``rateints``) are not among them.
    """
    if product == "metafile":
        if dataset.metafile:
            return re.compile(re.escape(dataset.metafile))
        return re.compile(rf"{dataset.file_root}_[0-9a-z]{{2}}_msa\.fits")
    detectors = "|".join(detector.lower() for detector in dataset.detectors)
    return re.compile(rf"{dataset.file_root}_[0-9a-z]{{5}}_\d{{5}}_({detectors})_{product}\.fits")
