"""Real observations: files from MAST, references from CRDS, each asked for once."""

from msa3d.fetch.errors import FetchError
from msa3d.fetch.run import FetchReport, fetch_observation

__all__ = ["FetchError", "FetchReport", "fetch_observation"]
