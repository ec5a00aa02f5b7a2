"""What `import msa3d` offers: all of it on a page of the book, with examples that run."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import msa3d

PAGE = Path(__file__).parents[1] / "book" / "api.md"
MODULES = sorted({*msa3d._PUBLIC.values(), "msa3d.config"})
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def test_every_public_name_is_there_and_on_the_page():
    assert set(msa3d.__all__) == {*msa3d._PUBLIC, "__version__"} == {*dir(msa3d)}
    shown = re.findall(r"auto(?:function|class|exception):: msa3d\.(\w+)", PAGE.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(msa3d._PUBLIC)
    for name in shown:
        assert len(inspect.getdoc(getattr(msa3d, name)) or "") > 40, name


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    assert doctest.testmod(importlib.import_module(module), optionflags=FLAGS).failed == 0


def test_there_are_examples():
    found = doctest.DocTestFinder()
    tests = [test for module in MODULES for test in found.find(importlib.import_module(module))]
    assert sum(len(test.examples) for test in tests) >= 15
