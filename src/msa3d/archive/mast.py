"""MAST, asked through astroquery for the files of an observation, and what is known of these.

A manifest is a YAML file of names, sizes and checksums. Those that are packaged hold what was known when they were
committed; what the archive answers is kept in the run's own, ``<root>/fetch/manifest.yaml``, together with the
checksums of what came.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, ValidationError

from msa3d._model import Model, PlainName, read_yaml
from msa3d.errors import DatasetError, FetchError, ObservationError
from msa3d.observation.reading import listed, read_headers
from msa3d.pipeline.products import atomic_path

if TYPE_CHECKING:
    import requests

    from msa3d.config import Dataset


logger = logging.getLogger(__name__)

#: Observations whose products are asked for in one request.
_BATCH = 50
#: Environment variable that names another server, for a mirror or a test.
_SERVER_VARIABLE = "MSA3D_MAST_SERVER"


class Mast:
    """The archive.

    Parameters
    ----------
    server : str, optional
        Address; by default that in the environment variable ``MSA3D_MAST_SERVER``, else astroquery's own.
    timeout_s : float
        Seconds of silence after which a request is given up.
    """

    def __init__(self, server: str | None = None, timeout_s: float = 60.0) -> None:
        with warnings.catch_warnings():
            # astroquery's companions warn about each other when first imported.
            warnings.simplefilter("ignore")
            from astroquery.mast import ObservationsClass, conf

        self.server = (server or os.environ.get(_SERVER_VARIABLE) or conf.server).rstrip("/")
        self._client = ObservationsClass()
        portal = self._client._portal_api_connection
        portal.MAST_REQUEST_URL = f"{self.server}/api/v0/invoke"
        portal.COLUMNS_CONFIG_URL = f"{self.server}/portal/Mashup/Mashup.asmx/columnsconfig"
        portal.MAST_DOWNLOAD_URL = f"{self.server}/api/v0.1/Download/file"
        portal._column_configs = {}
        self.timeout_s = timeout_s
        self._portal = portal
        # astroquery gives its requests no timeout of their own: a server that falls silent would be waited for.
        send = portal._session.request
        portal._session.request = lambda *a, **k: send(*a, **{**k, "timeout": k.get("timeout") or timeout_s})

    @property
    def session(self) -> requests.Session:
        """The session of astroquery, with the user's token (MAST_API_TOKEN) where there is one."""
        return self._portal._session

    def url(self, entry: FileEntry) -> str:
        """Address of a file."""
        from urllib.parse import quote

        return f"{self._portal.MAST_DOWNLOAD_URL}?uri={quote(entry.address, safe=':/')}"

    def list_files(self, dataset: Dataset, products: list[Product]) -> Manifest:
        """Ask for the files of an observation.

        Parameters
        ----------
        dataset : Dataset
            Programme, observation and visit.
        products : list of str
            Which products.

        Returns
        -------
        Manifest
            Complete for these products; names, sizes and addresses as the archive lists them.

        Raises
        ------
        FetchError
            Where the archive cannot be reached, answers with an error, or has no such file.
        """
        table = self._ask(dataset)
        found: dict[str, FileEntry] = {}
        images: dict[str, FileEntry] = {}
        tells = "dataproduct_type" in table.colnames
        for row in table:
            name = str(row["productFilename"])
            for product in products:
                if pattern_of(dataset, product).fullmatch(name):
                    size = int(row["size"]) if row["size"] is not None and str(row["size"]).isdecimal() else None
                    entry = FileEntry(name=name, product=product, uri=str(row["dataURI"]), size=size or None)
                    image = tells and product != "metafile" and str(row["dataproduct_type"]).lower() == "image"
                    (images if image else found)[name] = entry
        # A file is listed with each observation that it is part of: it is an image where all say so. Where all are
        # images, the list does not tell, and the headers of what comes do.
        images = {name: entry for name, entry in images.items() if name not in found}
        if {entry.product for entry in images.values()} <= {entry.product for entry in found.values()}:
            if images:
                logger.warning("left out, as images and not spectra (target acquisition): %s", listed(sorted(images)))
        else:
            found |= images
        have = {entry.product for entry in found.values()}
        for product in products:
            # A metafile that is not listed is asked for by the name in the headers of the rates.
            if product not in have and product != "metafile":
                raise FetchError(
                    f"{self.server} lists no {product} files of {dataset.file_root} (dataset {dataset.name}); check "
                    "programme, observation and visit, and whether the data are public."
                )
        source = f"{self.server}, {datetime.now(UTC).isoformat(timespec='seconds')}"
        return Manifest(source=source, complete=list(have), files=sorted(found.values(), key=lambda e: e.name))

    def _ask(self, dataset: Dataset) -> Any:
        """Products of all observations of the programme with this instrument."""
        import requests
        from astropy.table import vstack
        from astroquery.exceptions import InvalidQueryError, NoResultsWarning, RemoteServiceError

        logger.info("asking %s for the files of programme %s", self.server, dataset.programme)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NoResultsWarning)
                observations = self._client.query_criteria(
                    obs_collection="JWST", proposal_id=str(int(dataset.programme)), instrument_name="NIRSPEC*"
                )
                if not len(observations):
                    raise FetchError(f"{self.server} has no NIRSpec observations of programme {dataset.programme}.")
                ids = sorted({str(i) for i in observations["obsid"]})
                batches = [ids[i : i + _BATCH] for i in range(0, len(ids), _BATCH)]
                return vstack([self._client.get_product_list(batch) for batch in batches], metadata_conflicts="silent")
        except requests.exceptions.ConnectionError as error:
            raise offline(self.server, error) from error
        except (requests.exceptions.RequestException, TimeoutError) as error:
            raise FetchError(
                f"{self.server} does not answer as it should ({_short(error)}); try again later."
            ) from error
        except (RemoteServiceError, InvalidQueryError, ValueError, KeyError) as error:
            raise FetchError(f"{self.server} answers with something else than a list ({_short(error)}).") from error


def offline(server: str, error: Exception) -> FetchError:
    """Make the error of a server (by its address) that cannot be reached."""
    return FetchError(
        f"{server} cannot be reached ({_short(error)}): this machine may be offline. Check the network, or put the "
        "files into the root by hand and look at them with `msa3d check`."
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


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
        """Whether a folder has the complete file, by its size or, if that is not known, its FITS structure."""
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
        """Read a manifest from a YAML file.

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
        """Write it to a path, where it appears when complete and replaces what is there."""
        text = yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False, width=200)
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8")

    def of(self, products: list[Product]) -> list[FileEntry]:
        """List the files of some products, sorted by name."""
        return sorted((entry for entry in self.files if entry.product in products), key=lambda entry: entry.name)

    def knows(self, products: list[Product]) -> bool:
        """Whether all files of some products are listed."""
        return set(products) <= set(self.complete)

    def merged(self, other: Manifest) -> Manifest:
        """Replace what another, newer manifest knows better: its files, and its word on what is complete.

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
    """Whether a file is FITS and goes on to its end."""
    try:
        read_headers(path)
    except (ObservationError, OSError):
        return False
    return True


def packaged(dataset: Dataset) -> Manifest:
    """Read the manifest that is packaged with a dataset; an empty one where there is none."""
    path = Path(str(resources.files("msa3d"))) / "datasets" / "manifests" / f"{dataset.name}.yaml"
    return Manifest.load(path) if path.is_file() else Manifest()


def pattern_of(dataset: Dataset, product: Product) -> re.Pattern[str]:
    """Names, to be matched in full, that files of a product of a dataset's visit have in the archive.

    Rates are those of single exposures: association products and integrations (``rateints``) are not among them.
    """
    if product == "metafile":
        if dataset.metafile:
            return re.compile(re.escape(dataset.metafile))
        return re.compile(rf"{dataset.file_root}_[0-9a-z]{{2}}_msa\.fits")
    detectors = "|".join(detector.lower() for detector in dataset.detectors)
    return re.compile(rf"{dataset.file_root}_[0-9a-z]{{5}}_\d{{5}}_({detectors})_{product}\.fits")
