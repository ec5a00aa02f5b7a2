"""Which CRDS settings a run gets.

References by the real crds client from a server on this machine that speaks CRDS's JSON-RPC.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
import warnings
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from msa3d.archive import crds
from msa3d.archive import crds as archive_crds
from msa3d.archive.crds import (
    NO_SERVER,
    cached_context,
    environment,
    prefetch,
    record_path,
    types_needed,
    use_references,
    verified,
)
from msa3d.config import Dataset
from msa3d.errors import CrdsError, FetchError
from msa3d.pipeline.layout import Layout

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
    crds.take_paths_literally(path.parent)
    asdf.AsdfFile({"x": name}).write_to(str(path))
    assert [item.name for item in tmp_path.iterdir()] == [name]
    monkeypatch.undo()
    monkeypatch.setenv("CRDS_PATH", str(path.parent))
    for _ in range(2):
        crds.take_paths_literally()
    with asdf.open(str(path)) as content:
        assert content["x"] == name


RATE = "jw02136001001_03101_00001_nrs1_rate.fits"
VARIABLES_REFERENCES = (
    "CRDS_PATH", "CRDS_CONTEXT", "CRDS_SERVER_URL", "CRDS_CONFIG_URI", "CRDS_OBSERVATORY", "CRDS_READONLY_CACHE",
)  # fmt: skip


@functools.cache
def sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """A CRDS server of the files of a simulated cache."""

    daemon_threads = True

    def __init__(self, cache: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = archive_crds.cached_context(cache)
        self.files = {p.name: p for folder in ("mappings", "references") for p in (cache / folder).rglob("*.*")}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.got: Counter = Counter()
        self.calls: Counter = Counter()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}"

    def facts(self, names) -> dict:
        return {
            name: {"size": str(self.files[name].stat().st_size), "sha1sum": sha1(self.files[name])} for name in names
        }

    def call(self, method: str, params: list):
        from crds.client import proxy

        mappings = sorted(name for name in self.files if name.endswith("map"))
        if method == "get_mapping_names":
            return mappings
        if method == "get_file_info_map":
            return self.facts(params[1] or self.files)
        if method == "get_default_context":
            return self.context
        assert method == "get_server_info", method
        return {
            "observatory": "jwst", "operational_context": self.context, "edit_context": self.context,
            "bad_files": "", "bad_files_list": [], "force_remote_mode": False, "crds_version": {"str": "11.17.19"},
            "mappings": mappings, "last_synced": "2024-03-29 00:00:00",
            "download_metadata": proxy.crds_encode(self.facts(self.files)),
            "mapping_url": {"unchecked": {"jwst": f"{self.url}/mappings/"}},
            "reference_url": {"unchecked": {"jwst": f"{self.url}/references/"}},
        }  # fmt: skip

    def handle_error(self, request, client_address) -> None:
        """Say nothing."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments) -> None:
        """Say nothing."""

    def answer(self, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls[request["method"]] += 1
        result = self.server.call(request["method"], request["params"])
        self.answer(json.dumps({"result": result, "error": None, "id": request["id"]}).encode())

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.got[name] += 1
        fault = self.server.faults[name].pop(0) if self.server.faults[name] else ""
        content = self.server.files[name].read_bytes()
        if fault == "html":
            self.answer(b"<html>gone for lunch</html>")
        elif fault == "break":
            self.answer(content[: len(content) // 2], len(content))
        elif fault == "damage":
            self.answer(content[:-1] + b"?")
        else:
            self.answer(content)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    from msa3d_sim.crds_cache import build_crds_cache

    cache = tmp_path_factory.mktemp("crds") / "cache"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_crds_cache(cache)
    return cache


def unset(monkeypatch) -> None:
    """As in a fresh shell; what the code sets is undone after the test."""
    for variable in VARIABLES_REFERENCES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    # The client, once imported, stumbles where this is absent.
    monkeypatch.setenv("CRDS_CONFIG_URI", "none")


@pytest.fixture
def crds_references(served, monkeypatch):
    server = Server(served)
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
    unset(monkeypatch)
    monkeypatch.setenv("CRDS_SERVER_URL", server.url)
    monkeypatch.setenv("CRDS_CLIENT_RETRY_COUNT", "1")
    monkeypatch.setenv("CRDS_CLIENT_RETRY_DELAY_SECONDS", "0")
    from crds.client import api
    from crds.core import log

    # CRDS says that this is not https, and what it downloads.
    level = log.get_verbose()
    log.THE_LOGGER.logger.setLevel(100)
    yield server
    log.THE_LOGGER.logger.setLevel(20)
    log.set_verbose(level)
    server.shutdown()
    server.server_close()
    archive_crds.forget()
    api.set_crds_server("https://crds-serverless-mode.stsci.edu")


@pytest.fixture
def dataset(crds_references):
    return Dataset.load("go2136").replaced(crds_context=crds_references.context)


@pytest.fixture
def layout_references(tmp_path):
    """A root with the headers of two rates."""
    import numpy as np
    from astropy.io import fits

    from msa3d_sim.geometry import Pointing
    from msa3d_sim.plan import PlannedExposure, primary_header, science_header

    simulated = Dataset.load("tiny")
    pointing = Pointing(215.0, 52.9, 0.0)
    root = tmp_path / "Root of MINE"  # CRDS puts some paths into lower case
    root.mkdir()
    for detector in ("NRS1", "NRS2"):
        exposure = PlannedExposure(0, "03101", 0, 0, pointing, pointing, (0.0, 0.0))
        hdus = [
            fits.PrimaryHDU(header=primary_header(simulated, exposure, detector)),
            fits.ImageHDU(np.zeros((8, 8), np.float32), header=science_header(pointing)),
        ]
        fits.HDUList(hdus).writeto(root / RATE.replace("nrs1", detector.lower()))
    return Layout(root)


def rate_paths(layout_references):
    return sorted(layout_references.root.glob("*_rate.fits"))


def test_exactly_what_the_files_need_comes_and_is_verified(crds_references, dataset, layout_references):
    done = prefetch(dataset, layout_references, rate_paths(layout_references))
    assert done["context"] == crds_references.context
    fetched = {name for name in crds_references.got if not name.endswith("map")}
    kinds = {name.split("_")[2] for name in fetched}
    assert kinds >= {"camera", "collimator", "fpa", "msa", "disperser", "fflat", "photom", "pathloss", "msaoper"}
    assert not kinds & {"superbias", "dark", "gain"}  # of stage 1
    assert set(done["files"]) == fetched
    assert set(crds_references.got.values()) == {1}
    assert verified(layout_references) == done
    for name, facts in done["files"].items():
        path = layout_references.crds_cache / "references" / "jwst" / "nirspec" / name
        assert path.read_bytes() == crds_references.files[name].read_bytes()
        assert path.stat().st_size == facts["size"]


def test_what_is_verified_is_not_asked_for_again(crds_references, dataset, layout_references):
    prefetch(dataset, layout_references, rate_paths(layout_references))
    crds_references.calls.clear(), crds_references.got.clear()
    assert prefetch(dataset, layout_references, rate_paths(layout_references))["files"]
    assert not crds_references.calls
    assert not crds_references.got


def test_workers_then_read_without_any_server(crds_references, dataset, layout_references, monkeypatch):
    prefetch(dataset, layout_references, rate_paths(layout_references))
    unset(monkeypatch)
    crds_references.calls.clear(), crds_references.got.clear()
    settings = archive_crds.environment(layout_references, dataset)
    assert settings["CRDS_READONLY_CACHE"] == "1"
    assert settings["CRDS_SERVER_URL"] == archive_crds.NO_SERVER
    assert archive_crds.use_references(layout_references, dataset) == crds_references.context
    assert archive_crds.reference_for(rate_paths(layout_references)[0], "pathloss").is_file()
    assert not crds_references.calls
    assert not crds_references.got
    # The user's own CRDS, where it is another one, wins.
    monkeypatch.setenv("CRDS_PATH", "/somewhere/else")
    monkeypatch.setenv("CRDS_SERVER_URL", "https://localhost")
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_0001.pmap")
    assert archive_crds.environment(layout_references, dataset) == {}


@pytest.mark.parametrize("fault", ["html", "break", "damage"])
@pytest.mark.parametrize("kind", ["photom", "imap", "pmap"])
def test_what_came_wrong_comes_again(crds_references, dataset, layout_references, fault, kind):
    name = next(name for name in crds_references.files if kind in name and (kind != "photom" or name.endswith(".fits")))
    crds_references.faults[name] = [fault]
    done = prefetch(dataset, layout_references, rate_paths(layout_references))
    assert crds_references.got[name] == 2
    assert verified(layout_references) == done


def test_what_a_killed_run_left_short_comes_again(crds_references, dataset, layout_references):
    done = prefetch(dataset, layout_references, rate_paths(layout_references))
    name = next(name for name in done["files"] if "photom" in name)
    path = layout_references.crds_cache / "references" / "jwst" / "nirspec" / name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])
    assert verified(layout_references) is None
    crds_references.got.clear()
    prefetch(dataset, layout_references, rate_paths(layout_references))
    assert crds_references.got == {name: 1}
    assert verified(layout_references) == done


def test_what_always_comes_wrong_is_one_sentence(crds_references, dataset, layout_references):
    name = next(name for name in crds_references.files if "photom" in name and name.endswith(".fits"))
    crds_references.faults[name] = ["damage"] * 9
    with pytest.raises(FetchError, match=r"does not give the references|is not what the CRDS server says"):
        prefetch(dataset, layout_references, rate_paths(layout_references))
    assert not record_path(layout_references).exists()


def test_offline_is_one_sentence(crds_references, dataset, layout_references, monkeypatch):
    monkeypatch.setenv("CRDS_SERVER_URL", "http://localhost:9")
    with pytest.raises(FetchError, match=r"localhost:9 cannot be reached"):
        prefetch(dataset, layout_references, rate_paths(layout_references))


def test_without_a_context_nothing_is_fetched(crds_references, dataset, layout_references):
    with pytest.raises(CrdsError, match="names no crds_context"):
        prefetch(dataset.replaced(crds_context=None), layout_references, rate_paths(layout_references))
    assert not crds_references.calls


def test_types_follow_the_steps(crds_references, dataset):
    assert "superbias" in types_needed(dataset.replaced(process={"run_stage1": True}))
    assert "wavecorr" not in types_needed(dataset)
    assert "wavecorr" in types_needed(dataset.replaced(process={"spec2": {"wavecorr": {"skip": False}}}))


def test_types_of_a_step_that_is_a_pipeline_of_its_own(crds_references, dataset):
    without = dataset.replaced(process={"spec2": {name: {"skip": True} for name in ("flat_field", "photom")}})
    assert not {"fflat", "sflat"} & set(types_needed(without))
    background = without.replaced(process={"spec2": {"master_background_mos": {"skip": False}}})
    assert {"fflat", "sflat", "dflat", "pathloss", "barshadow", "photom"} <= set(types_needed(background))


def test_types_of_steps_that_jwst_itself_skips_are_not_asked_for(crds_references, dataset):
    """``residual_fringe`` and ``wfss_contam``; those of a pipeline without any parameters are what remains."""
    bare = dataset.model_copy(update={"process": dataset.process.model_copy(update={"spec2": {}})})
    assert "fringefreq" not in types_needed(bare)
    wanted = dataset.process.model_copy(update={"spec2": {"residual_fringe": {"skip": False}}})
    assert "fringefreq" in types_needed(dataset.model_copy(update={"process": wanted}))


def test_the_real_dataset_has_the_context_of_jwst_1_14():
    assert Dataset.load("go2136").crds_context == "jwst_1240.pmap"
