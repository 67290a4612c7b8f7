"""A PostgreSQL of our own for the time of a benchmark, from the programs that are installed here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

NOT_INSTALLED = "PostgreSQL is not installed here (apt-get install postgresql): left out"


@dataclass(frozen=True)
class Cluster:
    url: str  #: for FAAS_DATABASE_URL
    conninfo: str  #: for psycopg


def programs() -> Path | None:
    """The folder of the newest version that is installed as Debian does it."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    return max(found, key=lambda path: float(path.parent.name), default=None)


@contextmanager
def cluster(folder: Path | None = None) -> Iterator[Cluster]:
    """A server with its defaults, which are durable, on a socket in a temporary folder (below `folder`, if given)."""
    bin_folder = programs()
    if bin_folder is None:
        raise FileNotFoundError(NOT_INSTALLED)
    with tempfile.TemporaryDirectory(prefix="faas-bench-pg-", dir=folder) as path:
        how: dict[str, Any] = {"cwd": path, "env": {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}}
        if os.geteuid() == 0:  # as which it does not run
            shutil.chown(path, "postgres", "postgres")
            how |= {"user": "postgres", "group": "postgres", "extra_groups": []}
        data = os.path.join(path, "data")
        make = [
            str(bin_folder / "initdb"),
            "--pgdata",
            data,
            "--username",
            "faas",
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
        ]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, **how)
        run = [str(bin_folder / "postgres"), "-D", data, "-k", path, "-c", "listen_addresses="]
        with open(Path(path, "log"), "wb") as log, subprocess.Popen(run, stdout=log, stderr=log, **how) as server:
            try:
                conninfo = f"host={path} user=faas dbname=postgres"
                _wait_for(conninfo, server)
                yield Cluster(f"postgres://faas@/postgres?host={path}", conninfo)
            finally:
                server.send_signal(signal.SIGINT)  # disconnect everybody and stop
                server.wait(30)


def _wait_for(conninfo: str, server: subprocess.Popen[bytes]) -> None:
    patience = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(conninfo).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > patience:
                raise
            time.sleep(0.05)
        else:
            return
