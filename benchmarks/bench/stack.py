"""The product's own processes, started one by one, for what `faas up` has no option for (and should not have).

The commands are those of `faas up`; only the settings module is another one: see `bench.settings`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from appliance.folder import DataFolder
from appliance.valkey import choose_socket, server_command
from bench.appliance import START_S, STOP_S, NotStarted, environment, free_port
from everythingfaas.settings import socket_url


@dataclass(frozen=True)
class Stack:
    url: str
    data_dir: Path
    web: int  #: process ids
    dispatcher: int
    redis: int
    mode: str
    port: int  #: of the dispatcher, in pull and push

    @contextmanager
    def worker(self, slots: int) -> Iterator[int]:
        """A worker with so many slots until the block ends; its process id."""
        command = [sys.executable, "-P", "-m", "worker", self.mode, str(slots), f"tcp://127.0.0.1:{self.port}"]
        with open(self.data_dir / "log" / "worker.log", "ab") as log:
            process = subprocess.Popen(
                command, cwd=self.data_dir, env=environment(), stdout=log, stderr=log, start_new_session=True
            )
            try:
                yield process.pid
            finally:
                _stop(process)


@contextmanager
def running(
    *,
    workers: int,
    database_url: str = "",
    commit_ms: float = 0.0,
    folder: Path | None = None,
    mode: str = "local",
    auth: str = "",
) -> Iterator[Stack]:
    """Redis, web and dispatcher until the block ends; on SQLite unless there is a `database_url`. In pull and push
    there is no worker until one is started."""
    with ExitStack() as stack:
        path = tempfile.TemporaryDirectory(prefix="faas-bench-", dir=folder, ignore_cleanup_errors=True)
        data = DataFolder(Path(stack.enter_context(path)).resolve())
        data.prepare()
        socket_path = choose_socket(data)
        port, dispatcher_port = free_port(), free_port()
        env = environment(
            FAAS_DATA_DIR=str(data.path),
            FAAS_DATABASE_URL=database_url,
            FAAS_REDIS_URL=socket_url(socket_path),
            FAAS_PORT=str(port),
            FAAS_WORKERS=str(workers),
            FAAS_AUTH=auth,
            DJANGO_SETTINGS_MODULE="bench.settings",
            BENCH_COMMIT_MS=str(commit_ms),
        )
        django = [sys.executable, "-P", "-m", "django"]
        how = ["-w", str(workers)] if mode == "local" else ["-p", str(dispatcher_port)]
        dispatcher_command = [*django, "task_dispatcher", "-m", mode, *how]

        def start(name: str, command: list[str]) -> int:
            log = stack.enter_context(open(data.log / f"{name}.log", "wb"))
            process = subprocess.Popen(command, cwd=data.path, env=env, stdout=log, stderr=log, start_new_session=True)
            stack.callback(_stop, process)
            return process.pid

        # What is started first stops last.
        redis = start("redis", list(server_command(data, socket_path)))
        subprocess.run([*django, "migrate", "--noinput", "-v", "0"], cwd=data.path, env=env, check=True)
        dispatcher = start("dispatcher", dispatcher_command)
        web = start("web", [sys.executable, "-P", "-m", "faas_project.serve"])
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, data.log, mode)
        yield Stack(url, data.path, web, dispatcher, redis, mode, dispatcher_port)


def _wait_for(url: str, logs: Path, mode: str) -> None:
    ready = f"{url}/readyz" if mode == "local" else f"{url}/healthz"  # no worker, no readiness
    patience = time.monotonic() + START_S
    while True:
        try:
            if requests.get(ready, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        if time.monotonic() > patience:
            raise NotStarted("\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in logs.glob("*.log")))
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
