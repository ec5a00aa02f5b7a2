"""Errors that a user can act on.

Errors that a user can act on: one sentence that names the file, the keyword and what to do.

What can go wrong between an archive and the disk.
"""

from __future__ import annotations


class Msa3dError(Exception):
    """Base of all errors that msa3d raises on purpose."""


class DatasetError(Msa3dError):
    """A dataset description is wrong: an unknown key, a value out of range, a missing file."""


class ObservationError(Msa3dError):
    """The exposures do not make the observation that the dataset describes."""


class MetafileError(Msa3dError):
    """An MSA metafile cannot be read, or what it says contradicts itself."""


class CrdsError(Msa3dError):
    """Calibration references are missing, or no CRDS context is set."""


class ProductError(Msa3dError):
    """A product of an earlier step is missing, broken or not what the next step needs."""


class BusyError(Msa3dError):
    """Another process works in the same root; the sentence names it."""


class UnlitSlitError(ProductError):
    """A slit lights too few columns of a detector to be of use: it is left out, others go on."""


class TaskError(Msa3dError):
    """One of many tasks given to the workers failed; the sentence names it."""


class FetchError(Msa3dError):
    """A file or a list of files could not be had from an archive."""


class SizeChangedError(FetchError):
    """The archive sends another number of bytes than its own list says."""
