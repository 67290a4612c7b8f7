"""What a function finds out about the worker that runs it, where neither has the capabilities of root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.remote import Served
from tests.live import free_port, until

#: Stands in the worker's environment, in a variable of ours.
SECRET = "only-the-supervisor-knows-this"


@contextmanager
def a_worker(served: Served, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One without rights, as in a container of ours."""
    modest = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed (apt-get install util-linux), and root reads everything")
        modest = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "FAAS_SECRET_KEY": SECRET, "THEIRS": "kept"}
    command = [*modest, sys.executable, "-m", "worker", served.mode, "1", served.address]
    with subprocess.Popen(command, cwd=folder, env=environ, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def test_a_function_reads_neither_memory_nor_environment_of_its_supervisor(tmp_path: Path) -> None:
    def look() -> dict[str, Any]:
        import os

        seen: dict[str, Any] = {"own": dict(os.environ), "ancestors": 0, "open": [], "found": []}
        pid = os.getppid()
        while pid > 1:
            with open(f"/proc/{pid}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
            seen["ancestors"] += 1
            for what in ("environ", "mem", "maps", "auxv"):
                try:
                    with open(f"/proc/{pid}/{what}", "rb") as file:
                        seen["open"].append((pid, what))
                        if what == "environ" and b"only-the-supervisor" in file.read():
                            seen["found"].append(pid)
                except OSError:
                    continue
            pid = parent
        return seen

    served = Served("push", f"tcp://127.0.0.1:{free_port()}")
    try:
        with a_worker(served, tmp_path) as worker:
            until(lambda: len(served.core.workers) == 1, what="the worker has joined")
            seen = served.value(served.submit(look))
            assert seen["ancestors"] >= 2, "the zygote and the supervisor"
            assert not [name for name in seen["own"] if name.startswith("FAAS_")]
            assert seen["own"]["THEIRS"] == "kept"
            assert seen["found"] == []
            assert worker.pid not in [pid for pid, _ in seen["open"]]
            # It is there to be found, by who may.
            if os.geteuid() == 0:
                assert SECRET.encode() in Path(f"/proc/{worker.pid}/environ").read_bytes()
    finally:
        served.stop()
