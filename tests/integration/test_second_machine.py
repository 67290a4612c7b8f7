"""A second machine joins by the one line that `faas worker-key create` prints: two network namespaces as two hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.live import Appliance, running, until

pytestmark = pytest.mark.slow

FAAS = Path(sys.executable).with_name("faas")


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=False)


@dataclass
class Machine:
    """The second one. It shares nothing with this one but a cable."""

    name: str
    first: str  #: this machine's address on the cable
    folder: Path

    @contextmanager
    def runs(self, line: str) -> Iterator[subprocess.Popen[str]]:
        """A shell's `line` there."""
        environ = {"PATH": f"{FAAS.parent}:{os.environ['PATH']}", "HOME": str(self.folder)}
        with subprocess.Popen(
            ["ip", "netns", "exec", self.name, "sh", "-c", f"exec env {line}"],
            cwd=self.folder,
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(15)
                finally:
                    process.kill()


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Machine]:
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed (apt-get install iproute2)")
    name, ours, theirs = f"faas{os.getpid()}", f"fa{os.getpid()}", f"fb{os.getpid()}"
    made = ip("netns", "add", name)
    if made.returncode:
        pytest.skip(f"network namespaces may not be made here: {made.stderr.strip()}")
    network = f"198.18.{os.getpid() % 250}"  # for tests of networks (RFC 2544), so nobody's
    try:
        for arguments in (
            ("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name),
            ("addr", "add", f"{network}.1/30", "dev", ours),
            ("link", "set", ours, "up"),
            ("-n", name, "addr", "add", f"{network}.2/30", "dev", theirs),
            ("-n", name, "link", "set", theirs, "up"),
            ("-n", name, "link", "set", "lo", "up"),
        ):
            done = ip(*arguments)
            if done.returncode:
                pytest.skip(f"no cable between network namespaces can be made here: {done.stderr.strip()}")
        yield Machine(name, f"{network}.1", tmp_path)
    finally:
        ip("link", "delete", ours)
        ip("netns", "delete", name)


def _keys(live: Appliance, machine: Machine, *arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
    port = live.workers_url.rpartition(":")[2]
    environ |= {"FAAS_DATA_DIR": str(live.data_dir), "FAAS_MODE": live.mode}
    environ |= {"FAAS_DISPATCHER_BIND": machine.first, "FAAS_DISPATCHER_PORT": port}
    command = [FAAS, "worker-key", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def _workers(live: Appliance) -> list[str]:
    """The names of those that are connected."""
    found: list[dict[str, Any]] = live.get("/api/v1/workers").json()["workers"]
    return sorted(worker["name"] for worker in found)


def _of_lab(live: Appliance) -> list[str]:
    return [name for name in _workers(live) if name.startswith("lab@")]


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_one_line_joins_it_and_revoking_puts_it_out(second: Machine, tmp_path: Path, mode: str) -> None:
    with running(tmp_path / "data", "--mode", mode, "--workers", "1", FAAS_DISPATCHER_BIND=second.first) as live:
        line = _keys(live, second, "create", "lab")
        assert len(line.splitlines()) == 1
        line = line.replace(f"worker {mode} 4", f"worker {mode} 2")  # slots; the machine that tests has two cores
        bare = line.partition(" ")[2]  # without the key
        with second.runs(line) as one, second.runs(line) as two, second.runs(bare) as keyless:
            names = until(lambda: (found := _of_lab(live)) and len(found) == 2 and found, what="both have joined")
            assert len(set(names)) == 2, "one key, two workers"
            where = f"{live.url}/api/v1/tasks"

            def look(seconds: float) -> str:
                import os
                import time

                time.sleep(seconds)
                return os.readlink("/proc/self/ns/net")

            tasks = [live.submit(look, 0.3) for _ in range(10)]
            spaces = {live.result(task)[1] for task in tasks}
            ran_on = {live.http.get(f"{where}/{task}", timeout=10).json()["worker"] for task in tasks}
            assert set(names) <= ran_on
            assert len(spaces) == 2
            assert os.readlink("/proc/self/ns/net") in spaces

            _keys(live, second, "revoke", "lab")
            for worker in (one, two):
                assert worker.wait(15) == 1
                assert worker.stderr is not None
                assert "a key that was revoked" in worker.stderr.read()
            with second.runs(line) as late:
                # Time enough to join, if it were let in.
                until(lambda: not _of_lab(live), timeout_s=15, what="the workers that were put out are forgotten")
                assert late.poll() is None, "it waits"
                assert live.call(look, 0) == os.readlink("/proc/self/ns/net"), "what stays works on"
            assert keyless.poll() is None
            assert len(_workers(live)) == 1
