"""Accelerations of jwst's data models (stdatamodels 1.10, asdf 3.1): schemas, validation, copies.

See `msa3d.steps.speed`, which names and switches them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


@contextmanager
def replaced(owner: Any, attribute: str, replacement: Any) -> Iterator[None]:
    """Replace ``owner.attribute`` inside the block."""
    original = getattr(owner, attribute)
    setattr(owner, attribute, replacement)
    try:
        yield
    finally:
        setattr(owner, attribute, original)


@contextmanager
def late_validation() -> Iterator[None]:
    """Check metadata of Spec2's models against their schema once, when written, not at every assignment."""
    name = "VALIDATE_ON_ASSIGNMENT"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


# Merged schemas by URL, for the life of the process: one model class has one schema.
_schemas: dict[str, Any] = {}


@contextmanager
def schemas_once() -> Iterator[None]:
    """Merge the schema of a model class once, not for every model that is made.

    Every model, also one made to look at another, reads its schema, copies it deeply and merges it: a quarter
    of the time of Spec2 on few slitlets. Models do not change their schema in place.
    """
    from stdatamodels import model_base

    load, merge = model_base.asdf_schema.load_schema, model_base.mschema.merge_property_trees

    def load_later(url: str, *, resolve_references: bool = False) -> Any:
        return _Wanted(url) if resolve_references else load(url, resolve_references=resolve_references)

    def merge_once(schema: Any) -> Any:
        if not isinstance(schema, _Wanted):
            return merge(schema)
        if schema.url not in _schemas:
            _schemas[schema.url] = merge(load(schema.url, resolve_references=True))
        return _schemas[schema.url]

    loader = SimpleNamespace(load_schema=load_later)
    merger = SimpleNamespace(**{**vars(model_base.mschema), "merge_property_trees": merge_once})
    with replaced(model_base, "asdf_schema", loader), replaced(model_base, "mschema", merger):
        yield


class _Wanted:
    """A schema that is to be loaded only if it has not been merged before."""

    def __init__(self, url: str) -> None:
        self.url = url


# Scalars that passed their schema, and the schemas, which must live as long as their identities are used.
_passed: set[tuple] = set()
_schemas_of_passed: dict[int, Any] = {}


@contextmanager
def scalars_once() -> Iterator[None]:
    """Validate the same keyword value against the same schema once in the life of the process.

    A value that fails is looked at, and complained about, every time.
    """
    from stdatamodels import validate

    original = validate._check_value

    def check(value: Any, schema: Any, ctx: Any) -> None:
        if type(value) not in (str, int, float, bool):
            return original(value, schema, ctx)
        # repr tells 0.0 from -0.0 and 1 from True.
        key = (id(schema), type(value), repr(value))
        if key not in _passed:
            original(value, schema, ctx)
            _schemas_of_passed[id(schema)] = schema
            _passed.add(key)
        return None

    with replaced(validate, "_check_value", check):
        yield


@contextmanager
def shared_wcs() -> Iterator[None]:
    """Let the copy of a model share its WCS objects: steps copy their input, and go on with the copy only.

    The planes and the metadata are copied as ever. No step of Spec2 or Spec3 changes a WCS in place.
    """
    from stdatamodels.model_base import DataModel

    original = DataModel.copy

    def copy_but_wcs(self: Any, memo: dict | None = None) -> Any:
        memo = {} if memo is None else memo
        # What is in the memo counts as copied.
        memo.update({id(wcs): wcs for wcs in _wcs_objects(self._instance)})
        return original(self, memo)

    with replaced(DataModel, "copy", copy_but_wcs):
        yield


def _wcs_objects(instance: Mapping[str, Any]) -> Iterator[Any]:
    """Find the WCS objects of a model's tree and of its slits or exposures."""
    for tree in (instance, *instance.get("slits", ()), *instance.get("exposures", ())):
        wcs = tree.get("meta", {}).get("wcs")
        if wcs is not None:
            yield wcs


@contextmanager
def no_asdf_validation() -> Iterator[None]:
    """Do not check ASDF trees against their schemas when files are read and written.

    The trees are those of jwst and of the references. Their metadata are still validated by stdatamodels when a
    model is saved, and a tree that cannot be serialised is still an error.
    """
    from asdf import AsdfFile

    with replaced(AsdfFile, "_validate", lambda self, tree, custom=True, reading=False: None):
        yield
