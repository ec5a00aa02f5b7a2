"""References by the real crds client from a server on this machine that speaks CRDS's JSON-RPC."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import warnings
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from msa3d import references
from msa3d.dataset import Dataset
from msa3d.errors import CrdsError
from msa3d.fetch import FetchError
from msa3d.fetch.references import prefetch, record_path, types_needed, verified
from msa3d.layout import Layout

RATE = "jw02136001001_03101_00001_nrs1_rate.fits"
VARIABLES = (
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
        self.context = references.cached_context(cache)
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
    from msa3d.simulate.crds_cache import build_crds_cache

    cache = tmp_path_factory.mktemp("crds") / "cache"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_crds_cache(cache)
    return cache


def unset(monkeypatch) -> None:
    """As in a fresh shell; what the code sets is undone after the test."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    # The client, once imported, stumbles where this is absent.
    monkeypatch.setenv("CRDS_CONFIG_URI", "none")


@pytest.fixture
def crds(served, monkeypatch):
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
    references.forget()
    api.set_crds_server("https://crds-serverless-mode.stsci.edu")


@pytest.fixture
def dataset(crds):
    return Dataset.load("go2136").replaced(crds_context=crds.context)


@pytest.fixture
def layout(tmp_path):
    """A root with the headers of two rates."""
    import numpy as np
    from astropy.io import fits

    from msa3d.simulate.header import PlannedExposure, Pointing, primary_header, science_header

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


def rate_paths(layout):
    return sorted(layout.root.glob("*_rate.fits"))


def test_exactly_what_the_files_need_comes_and_is_verified(crds, dataset, layout):
    done = prefetch(dataset, layout, rate_paths(layout))
    assert done["context"] == crds.context
    fetched = {name for name in crds.got if not name.endswith("map")}
    kinds = {name.split("_")[2] for name in fetched}
    assert kinds >= {"camera", "collimator", "fpa", "msa", "disperser", "fflat", "photom", "pathloss", "msaoper"}
    assert not kinds & {"superbias", "dark", "gain"}  # of stage 1
    assert set(done["files"]) == fetched
    assert set(crds.got.values()) == {1}
    assert verified(layout) == done
    for name, facts in done["files"].items():
        path = layout.crds_cache / "references" / "jwst" / "nirspec" / name
        assert path.read_bytes() == crds.files[name].read_bytes()
        assert path.stat().st_size == facts["size"]


def test_what_is_verified_is_not_asked_for_again(crds, dataset, layout):
    prefetch(dataset, layout, rate_paths(layout))
    crds.calls.clear(), crds.got.clear()
    assert prefetch(dataset, layout, rate_paths(layout))["files"]
    assert not crds.calls
    assert not crds.got


def test_workers_then_read_without_any_server(crds, dataset, layout, monkeypatch):
    prefetch(dataset, layout, rate_paths(layout))
    unset(monkeypatch)
    crds.calls.clear(), crds.got.clear()
    settings = references.environment(layout, dataset)
    assert settings["CRDS_READONLY_CACHE"] == "1"
    assert settings["CRDS_SERVER_URL"] == references.NO_SERVER
    assert references.use_references(layout, dataset) == crds.context
    assert references.reference_for(rate_paths(layout)[0], "pathloss").is_file()
    assert not crds.calls
    assert not crds.got
    # The user's own CRDS, where it is another one, wins.
    monkeypatch.setenv("CRDS_PATH", "/somewhere/else")
    monkeypatch.setenv("CRDS_SERVER_URL", "https://localhost")
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_0001.pmap")
    assert references.environment(layout, dataset) == {}


@pytest.mark.parametrize("fault", ["html", "break", "damage"])
@pytest.mark.parametrize("kind", ["photom", "imap", "pmap"])
def test_what_came_wrong_comes_again(crds, dataset, layout, fault, kind):
    name = next(name for name in crds.files if kind in name and (kind != "photom" or name.endswith(".fits")))
    crds.faults[name] = [fault]
    done = prefetch(dataset, layout, rate_paths(layout))
    assert crds.got[name] == 2
    assert verified(layout) == done


def test_what_a_killed_run_left_short_comes_again(crds, dataset, layout):
    done = prefetch(dataset, layout, rate_paths(layout))
    name = next(name for name in done["files"] if "photom" in name)
    path = layout.crds_cache / "references" / "jwst" / "nirspec" / name
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])
    assert verified(layout) is None
    crds.got.clear()
    prefetch(dataset, layout, rate_paths(layout))
    assert crds.got == {name: 1}
    assert verified(layout) == done


def test_what_always_comes_wrong_is_one_sentence(crds, dataset, layout):
    name = next(name for name in crds.files if "photom" in name and name.endswith(".fits"))
    crds.faults[name] = ["damage"] * 9
    with pytest.raises(FetchError, match=r"does not give the references|is not what the CRDS server says"):
        prefetch(dataset, layout, rate_paths(layout))
    assert not record_path(layout).exists()


def test_offline_is_one_sentence(crds, dataset, layout, monkeypatch):
    monkeypatch.setenv("CRDS_SERVER_URL", "http://localhost:9")
    with pytest.raises(FetchError, match=r"localhost:9 cannot be reached"):
        prefetch(dataset, layout, rate_paths(layout))


def test_without_a_context_nothing_is_fetched(crds, dataset, layout):
    with pytest.raises(CrdsError, match="names no crds_context"):
        prefetch(dataset.replaced(crds_context=None), layout, rate_paths(layout))
    assert not crds.calls


def test_types_follow_the_steps(crds, dataset):
    assert "superbias" in types_needed(dataset.replaced(process={"run_stage1": True}))
    assert "wavecorr" not in types_needed(dataset)
    assert "wavecorr" in types_needed(dataset.replaced(process={"spec2": {"wavecorr": {"skip": False}}}))


def test_the_real_dataset_has_the_context_of_jwst_1_14():
    assert Dataset.load("go2136").crds_context == "jwst_1240.pmap"
