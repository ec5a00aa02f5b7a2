"""What can go wrong between an archive and the disk."""

from __future__ import annotations

from msa3d.errors import Msa3dError


class FetchError(Msa3dError):
    """A file or a list of files could not be had from an archive."""


class SizeChangedError(FetchError):
    """The archive sends another number of bytes than its own list says."""
