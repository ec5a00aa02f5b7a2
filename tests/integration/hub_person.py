"""A person at a hub: the login form, the session, and notebooks run cell by cell, all through the hub's proxy."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import nbformat
import requests
import websocket
from nbformat.v4 import output_from_msg


class SessionEnded(Exception):
    """The server went away while a cell was running."""


class Person:
    """Somebody with a browser (which keeps cookies) and with a token for the programming interface."""

    def __init__(self, hub, name: str) -> None:
        self.hub, self.name = hub, name
        self.browser, self.interface = requests.Session(), requests.Session()
        for session in (self.browser, self.interface):
            session.trust_env = False
        self.token = ""

    def close(self) -> None:
        """Close all connections."""
        self.browser.close()
        self.interface.close()

    def get(self, path: str) -> requests.Response:
        """Open a page in the browser."""
        return self.browser.get(f"{self.hub.url}{path}", timeout=60)

    def log_in(self) -> requests.Response:
        """Fill in the login form, and go where it leads."""
        form = self.get("/hub/login")
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', form.text).group(1)
        answer = self.browser.post(
            f"{self.hub.url}/hub/login",
            params={"next": ""},
            data={"username": self.name, "password": "anything", "_xsrf": xsrf},
            timeout=180,
        )
        self.hub.log(f"{self.name} logs in by the form: {answer.status_code}, {answer.url.removeprefix(self.hub.url)}")
        return answer

    def take_token(self) -> None:
        """Ask for a token with the browser's cookies, as the page of tokens does."""
        xsrf = next(cookie.value for cookie in self.browser.cookies if (cookie.name, cookie.path) == ("_xsrf", "/hub/"))
        answer = self.browser.post(
            f"{self.hub.url}/hub/api/users/{self.name}/tokens",
            json={"note": "notebooks"},
            headers={"X-XSRFToken": xsrf},
            timeout=60,
        )
        answer.raise_for_status()
        self.token = answer.json()["token"]
        self.interface.headers["Authorization"] = f"token {self.token}"

    def api(self, method: str, path: str, **more) -> requests.Response:
        """Ask the hub's interface."""
        return self.interface.request(method, f"{self.hub.url}/hub/api/{path}", timeout=60, **more)

    def server(self, method: str, path: str, **more) -> requests.Response:
        """Ask the person's own server, through the proxy."""
        answer = self.interface.request(method, f"{self.hub.url}/user/{self.name}/api/{path}", timeout=120, **more)
        answer.raise_for_status()
        return answer

    def start(self) -> None:
        """Start the server, if it is not starting already, and wait until it is ready."""
        answer = self.api("POST", f"users/{self.name}/server")
        assert answer.status_code in (201, 202, 400), answer.text
        self._wait(lambda server: server is not None and server["ready"])
        self.hub.log(f"the server of {self.name} is ready")

    def stop(self) -> None:
        """Stop the server, as the hub does when it is idle, or when its user says so."""
        answer = self.api("DELETE", f"users/{self.name}/server")
        assert answer.status_code in (202, 204), answer.text
        self._wait(lambda server: server is None)
        self.hub.log(f"the server of {self.name} is stopped")

    def _wait(self, enough: Callable, seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not enough(self.api("GET", f"users/{self.name}").json()["servers"].get("")):
            assert time.monotonic() < deadline, self.hub.text.read_text()[-4000:]
            time.sleep(0.5)

    def open(self, path: str) -> Notebook:
        """Open a notebook, with a kernel of its own."""
        return Notebook(self, path)


class Notebook:
    """A notebook that is open in the session of a person, and its kernel."""

    def __init__(self, person: Person, path: str) -> None:
        self.person, self.path = person, path
        content = person.server("GET", f"contents/{path}", params={"content": 1}).json()["content"]
        self.content = nbformat.from_dict(content)
        session = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        answer = person.server("POST", "sessions", json=session).json()
        self.session, self.kernel = answer["id"], answer["kernel"]["id"]
        self.id = uuid.uuid4().hex
        address = f"{person.hub.url}/user/{person.name}/api/kernels/{self.kernel}/channels?session_id={self.id}"
        self.socket = websocket.create_connection(
            address.replace("http://", "ws://", 1),
            header=[f"Authorization: token {person.token}"],
            http_no_proxy=["127.0.0.1"],
            timeout=60,
        )
        self.socket.settimeout(0.5)

    @property
    def code(self) -> list:
        """The code cells."""
        return [cell for cell in self.content.cells if cell.cell_type == "code"]

    def set_parameter(self, name: str, value: str) -> None:
        """Edit the first cell as a person would."""
        cell = self.code[0]
        cell.source, number = re.subn(rf"^{name} = .*?(?=\s+#)", f'{name} = "{value}"', cell.source, flags=re.M)
        assert number == 1

    def run(self, cell, meanwhile: Callable = lambda: None, seconds: float = 1500) -> str:
        """Run a cell, take up its outputs, and give the name of the error that it ended with ("" for none)."""
        identity = uuid.uuid4().hex
        header = {
            "msg_id": identity, "msg_type": "execute_request", "session": self.id, "username": self.person.name,
            "version": "5.3", "date": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        content = {
            "code": cell.source, "silent": False, "store_history": True, "user_expressions": {},
            "allow_stdin": False, "stop_on_error": True,
        }  # fmt: skip
        message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        self.socket.send(json.dumps(message))
        cell.outputs, reply, idle = [], None, False
        deadline = time.monotonic() + seconds
        while reply is None or not idle:
            assert time.monotonic() < deadline, f"a cell of {self.path} takes more than {seconds} s"
            meanwhile()
            try:
                got = json.loads(self.socket.recv())
            except websocket.WebSocketTimeoutException:
                continue
            except (websocket.WebSocketConnectionClosedException, ConnectionError, ValueError) as error:
                raise SessionEnded from error
            if got["parent_header"].get("msg_id") != identity:
                continue
            kind = got["header"]["msg_type"]
            if kind == "execute_reply":
                reply = got["content"]
            elif kind == "status":
                idle = got["content"]["execution_state"] == "idle"
            elif kind in ("stream", "display_data", "execute_result", "error"):
                cell.outputs.append(output_from_msg(got))
        cell.execution_count = reply.get("execution_count")
        return reply.get("ename", "error") if reply["status"] != "ok" else ""

    def run_all(self) -> None:
        """Run all cells, which must all go well, and save the notebook with its outputs."""
        start = time.monotonic()
        for cell in self.code:
            error = self.run(cell)
            assert not error, f"{self.path}: {error} in\n{cell.source}\n{cell.outputs[-1]}"
        self.save()
        self.person.hub.log(f"{self.person.name} ran {self.path} in {time.monotonic() - start:.0f} s")

    def text(self, source: str) -> str:
        """Run a line of one's own, and give what it printed."""
        cell = nbformat.v4.new_code_cell(source)
        error = self.run(cell)
        printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        assert not error, f"{error}: {printed[-3000:]} {cell.outputs[-1]}"
        return printed

    def interrupt(self) -> None:
        """Press the square button."""
        self.person.server("POST", f"kernels/{self.kernel}/interrupt")

    def save(self) -> None:
        """Save, with the outputs."""
        model = {"type": "notebook", "format": "json", "content": self.content}
        self.person.server("PUT", f"contents/{self.path}", json=model)

    def close(self) -> None:
        """Close the notebook and shut its kernel down."""
        self.socket.close()
        self.person.server("DELETE", f"sessions/{self.session}")
