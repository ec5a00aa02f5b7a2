"""A server on this machine that speaks MAST's protocol, and does to downloads what networks do to them."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
from astropy.io import fits

COLUMNS = {
    "obsid": "string", "obs_id": "string", "obs_collection": "string", "proposal_id": "string",
    "instrument_name": "string",
}  # fmt: skip


def fits_bytes(name: str, pixels: int = 4000, **cards) -> bytes:
    """A small FITS file, another for every name."""
    data = np.random.default_rng([ord(c) for c in name]).integers(0, 60000, pixels).astype(np.uint16)
    primary = fits.PrimaryHDU()
    primary.header.update(FILENAME=name, **cards)
    stream = io.BytesIO()
    fits.HDUList([primary, fits.ImageHDU(data, name="SCI")]).writeto(stream)
    return stream.getvalue()


def tag(content: bytes) -> str:
    """ETag of a file."""
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


class StandIn(ThreadingHTTPServer):
    """Files by name, faults by name (one a request), and what was asked for."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.listed: dict[str, int] = {}
        self.kinds: dict[str, str] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.requests: list[dict] = []
        self.answers: list[str] = []
        self.tags = True
        self.ranges = True
        self.hold_at: int | None = None
        self.held = threading.Event()
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}"

    def add(self, name: str, content: bytes | None = None) -> bytes:
        self.files[name] = fits_bytes(name) if content is None else content
        return self.files[name]

    def asked(self, name: str) -> list[dict]:
        return [request for request in self.requests if request["name"] == name]

    def list_of_products(self) -> list[dict]:
        return [
            {
                "obsID": "77", "obs_collection": "JWST", "description": "file",
                "dataproduct_type": self.kinds.get(name, "spectrum"),
                "productFilename": name, "dataURI": f"mast:JWST/product/{name}",
                "size": self.listed.get(name, len(content)), "productSubGroupDescription": name[:-5].upper(),
            }
            for name, content in self.files.items()
        ]  # fmt: skip

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    server: StandIn

    def log_message(self, *arguments) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path.endswith("/columnsconfig"):
            self.send({name: {"text": name, "type": kind} for name, kind in COLUMNS.items()})
            return
        request = json.loads(unquote(text.removeprefix("request=")))
        server = self.server
        server.requests.append({"name": request["service"], "params": request["params"]})
        answer = server.answers.pop(0) if server.answers else "complete"
        if answer == "executing":
            self.send({"status": "EXECUTING"})
        elif answer == "error":
            self.send({"status": "ERROR", "msg": "the database is away"})
        elif answer == "html":
            self.send("<html>maintenance</html>", "text/html")
        elif request["service"].endswith("Products"):
            self.send_table(server.list_of_products())
        else:
            wanted = {f["paramName"]: f["values"] or f.get("freeText") for f in request["params"]["filters"]}
            mine = wanted["proposal_id"] == ["2136"] and wanted["obs_collection"] == ["JWST"]
            rows = [{"obsid": "77", "obs_id": "jw02136001001_03101_00001_nrs1", "obs_collection": "JWST"}]
            self.send_table(rows if mine and server.files else [])

    def send(self, content, kind: str = "application/json") -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_table(self, rows: list[dict]) -> None:
        names = list(rows[0]) if rows else ["obsid"]
        fields = [{"name": name, "type": "int" if name == "size" else "string"} for name in names]
        paging = {"page": 1, "pagesFiltered": 1, "rows": len(rows)}
        self.send({"status": "COMPLETE", "fields": fields, "data": rows, "paging": paging})

    def do_GET(self) -> None:
        server = self.server
        name = parse_qs(urlsplit(self.path).query)["uri"][0].rpartition("/")[2]
        asked = {"name": name, "range": self.headers.get("Range"), "sent": 0}
        server.requests.append(asked)
        fault = server.faults[name].pop(0) if server.faults[name] else ""
        if fault.isdecimal():
            self.send_response(int(fault))
            if fault == "429":
                self.send_header("Retry-After", "0")
            self.end_headers()
            return
        if fault == "html":
            asked["sent"] = -1
            self.send("<html><body>An error occurred</body></html>", "text/html; charset=utf-8")
            return
        if name not in server.files:
            self.send_response(404)
            self.end_headers()
            return
        self.send_file(name, fault, asked)

    def send_file(self, name: str, fault: str, asked: dict) -> None:
        server = self.server
        content = server.files[name]
        if fault == "changed":
            content = server.files[name] = content + b"\0" * 2880
        if fault == "garbage":
            content = b"<!doctype" + content[9:]
        start = self.start_of(name, content) if fault != "refuse" and server.ranges else 0
        body = content[start:]
        if fault == "shifted":  # another part than asked for
            start += 1
            body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/fits")
        self.send_header("Content-Length", str(len(body)))
        if server.tags:
            self.send_header("ETag", tag(content))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        number = sum(1 for r in server.requests if r["name"].endswith(".fits"))
        if server.hold_at == number:
            fault = "hold"
        half = len(body) // 2
        self.wfile.write(body[:half])
        asked["sent"] = half
        if fault == "hold":
            self.wfile.flush()
            server.held.set()
            server.release.wait(20)
            return
        if fault == "stall":
            self.wfile.flush()
            server.release.wait(3)
            return
        if fault == "break":
            return
        self.wfile.write(body[half:])
        asked["sent"] = len(body)

    def start_of(self, name: str, content: bytes) -> int:
        asked = self.headers.get("Range", "")
        unchanged = self.headers.get("If-Range") in (None, tag(content))
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked and unchanged else 0


@pytest.fixture
def mast(monkeypatch):
    """The stand-in, and astroquery pointed at it."""
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("MSA3D_MAST_SERVER", server.url)
    monkeypatch.delenv("MAST_API_TOKEN", raising=False)
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def serialised():
    return fits_bytes
