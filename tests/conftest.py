"""What all tests share: one thread, no display, no network, nobody's CRDS settings."""

from __future__ import annotations

import os
import socket

import pytest

# Before numpy is imported, as its BLAS reads them once.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "agg"
for _name in [name for name in os.environ if name.startswith("CRDS_")]:
    del os.environ[_name]

LOCAL = {"127.0.0.1", "::1", "localhost", "0.0.0.0", ""}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test reach beyond this machine (worker processes and notebook kernels talk on localhost)."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise AssertionError(f"a test wanted to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_environment() -> object:
    """Undo what a test, or the code it runs, does to the environment variables."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
