"""The web process for tests: `python -m faas_project.serve` on a free port, and clients of it.

The tests end tasks themselves, by the moves that a dispatcher would make, so nothing happens that they do not do.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.live import ROOT, free_port, serialize, until
from tests.redis_fixture import Valkey

NO_REDIS = "unix:///nowhere/redis.sock"


@dataclass
class Web:
    """A client of one web process."""

    port: int
    process: subprocess.Popen[str]
    log: Path
    http: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.http.get(self.url + path, timeout=30, **kwargs)

    def post(self, path: str, **kwargs: Any) -> requests.Response:
        return self.http.post(self.url + path, timeout=30, **kwargs)

    def register(self, function: Any = len) -> str:
        answer = self.post("/register_function", json={"name": "function", "payload": serialize(function)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["function_id"])

    def execute(self, function_id: str, *args: Any, policy: Any = ..., **kwargs: Any) -> requests.Response:
        body = {"function_id": function_id, "payload": serialize((args, {}))}
        if policy is not ...:
            body["policy"] = policy
        return self.post("/execute_function", json=body, **kwargs)

    def submit(self) -> str:
        """A task that waits for somebody to claim it."""
        answer = self.execute(self.register(), 1)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["task_id"])

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


@contextmanager
def web_process(data_dir: Path, *command: str, **settings: object) -> Iterator[Web]:
    """A web process with these settings (``port=…`` is FAAS_PORT). By default there is no Redis."""
    port = free_port()
    given = {"port": port, "data_dir": data_dir, "redis_url": NO_REDIS, "bind": "127.0.0.1"} | settings
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
    environ |= {f"FAAS_{name.upper()}": str(value) for name, value in given.items()}
    log = data_dir / f"web-{port}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *(part.format(port=port) for part in command or ("-m", "faas_project.serve"))],
            cwd=ROOT,
            env=environ,
            stderr=stderr,
            text=True,
        )
    web = Web(port, process, log)
    try:
        until(lambda: _serves(web), what="the web process serves")
        yield web
    finally:
        web.http.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                pytest.fail(f"the web process did not stop:\n{log.read_text()}")


def _serves(web: Web) -> bool:
    assert web.process.poll() is None, web.log.read_text()
    try:
        socket.create_connection(("127.0.0.1", web.port)).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def _web(sqlite_database: Any, valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    with web_process(folder, database_url=sqlite_database.url, redis_url=valkey_server.url) as web:
        yield web


@pytest.fixture(scope="session")
def _web_alone(sqlite_database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web_process(tmp_path_factory.mktemp("web-alone"), database_url=sqlite_database.url) as web:
        yield web


@pytest.fixture
def web(_web: Web, database: str, valkey: Valkey) -> Web:
    """A web process with an empty database and a Redis. Needs `backend` to be SQLite: see `on_sqlite`."""
    return _web


@pytest.fixture
def web_alone(_web_alone: Web, database: str) -> Web:
    """A web process with an empty database and without Redis."""
    return _web_alone


#: For tests that start processes of their own on the database of `database`.
on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


class Answer(threading.Thread):
    """A request whose answer is waited for later, on a connection of its own."""

    def __init__(self, web: Web, method: str, path: str, body: Any = None) -> None:
        super().__init__(daemon=True)
        self.connection = HTTPConnection("127.0.0.1", web.port, timeout=60)
        self.status = 0
        self.body: Any = None
        self._request = (method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        self.start()

    def run(self) -> None:
        self.connection.request(*self._request)
        response: HTTPResponse = self.connection.getresponse()
        self.body = json.loads(response.read())
        self.status = response.status
        self.connection.close()

    def wait(self, timeout_s: float = 30.0) -> int:
        self.join(timeout_s)
        assert not self.is_alive(), "no answer"
        return self.status
