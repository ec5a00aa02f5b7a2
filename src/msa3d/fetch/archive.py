"""MAST, asked through astroquery for the files of an observation."""

from __future__ import annotations

import logging
import os
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msa3d.fetch.errors import FetchError
from msa3d.fetch.manifest import FileEntry, Manifest, Product, pattern_of
from msa3d.ratefile import listed

if TYPE_CHECKING:
    import requests

    from msa3d.dataset import Dataset

logger = logging.getLogger(__name__)

#: Observations whose products are asked for in one request.
_BATCH = 50
#: Environment variable that names another server, for a mirror or a test.
SERVER_VARIABLE = "MSA3D_MAST_SERVER"


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

        self.server = (server or os.environ.get(SERVER_VARIABLE) or conf.server).rstrip("/")
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
        """Address of a file.

        Parameters
        ----------
        entry : FileEntry
            Which.

        Returns
        -------
        str
        """
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
    """Say that a server cannot be reached.

    Parameters
    ----------
    server : str
        Its address.
    error : Exception
        What happened.

    Returns
    -------
    FetchError
    """
    return FetchError(
        f"{server} cannot be reached ({_short(error)}): this machine may be offline. Check the network, or put the "
        "files into the root by hand and look at them with `msa3d check`."
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
