"""A running appliance for tests: real processes, reached by REST alone, as any client would."""

from __future__ import annotations

import codecs
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dill
import pytest
import redis
import requests

ROOT = Path(__file__).resolve().parent.parent
TERMINAL = ("COMPLETED", "FAILED")


def serialize(obj: Any) -> str:
    """As the contract's clients do it: dill's defaults, so a module-level function goes by reference."""
    return codecs.encode(dill.dumps(obj), "base64").decode()


def deserialize(text: str) -> Any:
    return dill.loads(codecs.decode(text.encode(), "base64"))


def until(condition: Callable[[], Any], *, timeout_s: float = 30.0, what: str = "") -> Any:
    """Waits for `condition` to hold, and returns what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what or condition}")
        time.sleep(0.005)
    return value


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Appliance:
    """A client of one running appliance."""

    url: str
    data_dir: Path | None = None
    mode: str = ""  #: if known
    workers_url: str = ""  #: where workers connect, in pull and push
    process: subprocess.Popen[str] | None = None
    http: requests.Session = field(default_factory=requests.Session)

    def post(self, path: str, body: Any, **kwargs: Any) -> requests.Response:
        return self.http.post(self.url + path, json=body, timeout=30, **kwargs)

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.http.get(self.url + path, timeout=90, **kwargs)

    def register(self, function: Any, *, payload: str | None = None) -> str:
        name = getattr(function, "__name__", "function")
        answer = self.post("/register_function", {"name": name, "payload": payload or serialize(function)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["function_id"])

    def execute(self, function_id: str, *args: Any, **kwargs: Any) -> str:
        answer = self.post("/execute_function", {"function_id": function_id, "payload": serialize((args, kwargs))})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["task_id"])

    def submit(self, function: Any, *args: Any, **kwargs: Any) -> str:
        return self.execute(self.register(function), *args, **kwargs)

    def status(self, task_id: str) -> str:
        return str(self.get(f"/status/{task_id}").json()["status"])

    def result(self, task_id: str, *, timeout_s: float = 30.0) -> tuple[str, Any]:
        """The state it ended in, and what is in its result."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answer = self.get(f"/result/{task_id}?wait=10").json()
            if answer["status"] in TERMINAL:
                return answer["status"], deserialize(answer["result"])
        raise TimeoutError(f"task {task_id} has not ended within {timeout_s:g} s")

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """The value that `function` returns there."""
        status, value = self.result(self.submit(function, *args, **kwargs))
        assert status == "COMPLETED", repr(value)
        return value

    def redis(self) -> redis.Redis:
        assert self.data_dir is not None
        return redis.Redis.from_url((self.data_dir / "run" / "redis.url").read_text())

    def pid(self, role: str) -> int:
        assert self.data_dir is not None
        return int((self.data_dir / "run" / f"{role}.pid").read_text())


@contextmanager
def running(data_dir: Path, *options: str, cwd: Path = ROOT, **environ: str) -> Iterator[Appliance]:
    """`faas up` with `options` until the block ends."""
    port, dispatcher_port = free_port(), free_port()
    faas = Path(sys.executable).with_name("faas")
    command = [faas, "up", "--port", str(port), "--data-dir", str(data_dir)]
    command += ["--dispatcher-port", str(dispatcher_port)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("FAAS_")} | environ
    with subprocess.Popen([*command, *options], cwd=cwd, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready "), f"faas up said {line!r}"
            mode = options[options.index("--mode") + 1] if "--mode" in options else "local"
            yield Appliance(line.split()[1], data_dir, mode, f"tcp://127.0.0.1:{dispatcher_port}", process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            finally:
                process.kill()


#: Where the acceptance tests run: an appliance of each mode, or what FAAS_URL names, whatever runs behind it.
PLACES = ("elsewhere",) if os.environ.get("FAAS_URL") else ("local", "pull", "push")


@pytest.fixture(scope="session", params=PLACES)
def appliance(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One appliance for the acceptance tests: four slots, a deadline of two seconds."""
    if request.param == "elsewhere":
        yield Appliance(os.environ["FAAS_URL"].rstrip("/"))
        return
    options = ["--mode", request.param, "--workers", "4", "--task-deadline", "2"]
    with running(tmp_path_factory.mktemp("appliance"), *options) as live:
        yield live
