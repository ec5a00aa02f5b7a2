"""Which CRDS settings a run gets."""

from __future__ import annotations

import os

import pytest

from msa3d import references
from msa3d.dataset import Dataset
from msa3d.errors import CrdsError
from msa3d.layout import Layout
from msa3d.references import NO_SERVER, cached_context, environment, use_references

VARIABLES = (
    "CRDS_PATH", "CRDS_CONTEXT", "CRDS_CONFIG_URI", "CRDS_SERVER_URL", "CRDS_OBSERVATORY",
    "CRDS_READONLY_CACHE",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_crds(monkeypatch):
    # setenv first: monkeypatch then restores what the tests set, too
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


@pytest.fixture
def layout(tmp_path):
    config = tmp_path / "crds_cache" / "config" / "jwst"
    config.mkdir(parents=True)
    (config / "server_config").write_text("{'operational_context': 'jwst_9999.pmap', 'observatory': 'jwst'}")
    return Layout(tmp_path)


def test_simulated_cache_wins_over_the_users_settings(layout, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", "/somewhere/else")
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_1237.pmap")
    assert use_references(layout, Dataset.load("tiny")) == "jwst_9999.pmap"
    assert os.environ["CRDS_PATH"] == str(layout.crds_cache)
    assert os.environ["CRDS_CONTEXT"] == "jwst_9999.pmap"
    assert os.environ["CRDS_CONFIG_URI"] == "none"
    assert os.environ["CRDS_SERVER_URL"] == NO_SERVER


def test_environment_changes_nothing(layout):
    settings = environment(layout, Dataset.load("tiny"))
    assert settings["CRDS_CONTEXT"] == "jwst_9999.pmap"
    assert not any(variable in os.environ for variable in VARIABLES)


def test_simulated_without_cache(tmp_path):
    with pytest.raises(CrdsError, match="crds_cache holds no CRDS cache: `msa3d simulate`"):
        use_references(Layout(tmp_path), Dataset.load("tiny"))


def test_damaged_cache(layout):
    (layout.crds_cache / "config" / "jwst" / "server_config").write_text("<html>")
    with pytest.raises(CrdsError, match="not a CRDS server configuration"):
        cached_context(layout.crds_cache)


def test_real_data_use_the_users_settings(layout, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", "/crds")
    monkeypatch.setenv("CRDS_SERVER_URL", "https://jwst-crds.stsci.edu")
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_1237.pmap")
    assert use_references(layout, Dataset.load("go2136")) == "jwst_1237.pmap"
    assert os.environ["CRDS_PATH"] == "/crds"


def test_real_data_with_a_context_in_the_dataset(layout, monkeypatch):
    monkeypatch.setenv("CRDS_PATH", "/crds")
    monkeypatch.setenv("CRDS_SERVER_URL", "https://jwst-crds.stsci.edu")
    dataset = Dataset.load("go2136").replaced(crds_context="jwst_1200.pmap")
    assert use_references(layout, dataset) == "jwst_1200.pmap"
    assert os.environ["CRDS_CONTEXT"] == "jwst_1200.pmap"


@pytest.mark.parametrize("variable", ["CRDS_PATH", "CRDS_SERVER_URL"])
def test_real_data_without_crds(layout, monkeypatch, variable):
    monkeypatch.setenv("CRDS_PATH", "/crds")
    monkeypatch.setenv("CRDS_SERVER_URL", "https://jwst-crds.stsci.edu")
    monkeypatch.delenv(variable)
    with pytest.raises(CrdsError, match=f"{variable} is not set: .* export {variable}="):
        use_references(layout, Dataset.load("go2136"))


@pytest.mark.parametrize("name", ["a #1", "what?", "100%20", "a; b", "a b"])
def test_references_below_any_directory(tmp_path, monkeypatch, name):
    import asdf

    path = tmp_path / name / "fore.asdf"
    path.parent.mkdir()
    monkeypatch.setattr(asdf.generic_io, "get_file", asdf.generic_io.get_file)
    references.take_paths_literally(path.parent)
    asdf.AsdfFile({"x": name}).write_to(str(path))
    assert [item.name for item in tmp_path.iterdir()] == [name]
    monkeypatch.undo()
    monkeypatch.setenv("CRDS_PATH", str(path.parent))
    for _ in range(2):
        references.take_paths_literally()
    with asdf.open(str(path)) as content:
        assert content["x"] == name
