"""An appliance to measure: `faas up`, in a temporary data folder, on a free port."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.report import ROOT

#: How long everything may take to serve.
START_S = 60.0
#: And to stop; after that it is killed.
STOP_S = 15.0


class NotStarted(Exception):
    """The appliance did not come up."""


@dataclass(frozen=True)
class Appliance:
    url: str
    data_dir: Path
    pid: int  #: of `faas up`, above all other processes

    @property
    def database(self) -> Path:
        """Where it is SQLite."""
        return self.data_dir / "db.sqlite3"

    def pid_of(self, role: str) -> int:
        return int((self.data_dir / "run" / f"{role}.pid").read_text())


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    """The environment of what we start: none of the caller's settings, and this checkout, installed or not."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FAAS_", "DJANGO_"))}
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), *filter(None, [clean.get("PYTHONPATH")])])
    return clean | {"PYTHONPATH": path} | more


@contextmanager
def running(
    *options: str, workers: int, folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Appliance]:
    """`faas up` with `options` until the block ends. `folder`: on whose disk the data are."""
    command = [sys.executable, "-c", "from everythingfaas.cli import main; main()", "up"]
    with tempfile.TemporaryDirectory(prefix="faas-bench-", dir=folder, ignore_cleanup_errors=True) as path:
        data_dir = Path(path).resolve() / "data"
        command += ["--port", str(free_port()), "--data-dir", str(data_dir), "--workers", str(workers), *options]
        env = environment(**(environ or {}))
        said = Path(path, "up.txt")
        with (
            said.open("wb") as errors,
            subprocess.Popen(command, cwd=path, env=env, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            try:
                yield Appliance(_ready(process, said), data_dir, process.pid)
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def _ready(process: subprocess.Popen[str], said: Path) -> str:
    """The URL in the line that it prints when it serves. What else it says goes to the file `said`."""
    assert process.stdout is not None
    deadline = time.monotonic() + START_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            line = process.stdout.readline()
            if line.startswith("ready "):
                return line.split()[1]
            if not line:
                raise NotStarted(f"`faas up` ended with status {process.wait()}:\n{said.read_text()}")
    raise NotStarted(f"`faas up` was not ready within {START_S:g} s:\n{said.read_text()}")
