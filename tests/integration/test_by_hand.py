"""Each part started by hand, as the README shows it: no launcher, and no Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from appliance.pulses import Pulses
from dispatcher.loop import DRAIN_S
from everythingfaas.proctree import children
from tests.live import ROOT, Appliance, free_port, until


def clean_environment(data_dir: Path) -> dict[str, str]:
    """That of a user, who has never heard of our test runner's settings."""
    ours = ("FAAS_", "DJANGO_", "PYTEST")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | {"FAAS_DATA_DIR": str(data_dir)}


def manage(data_dir: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *arguments]
    env = clean_environment(data_dir) | environ
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def started(data_dir: Path, *command: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    env = clean_environment(data_dir) | environ
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(15)


def answers(url: str) -> Any:
    try:
        return requests.get(url, timeout=5)
    except requests.ConnectionError:
        return None


@pytest.mark.parametrize(
    "server", [("uvicorn", "main:app", "--port"), ("daphne", "main:app", "-p")], ids=lambda s: s[0]
)
def test_server_and_dispatcher(server: tuple[str, ...], tmp_path: Path) -> None:
    assert manage(tmp_path, "migrate", "-v", "0").returncode == 0
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        started(tmp_path, "-m", *server, str(port)),
        started(tmp_path, "manage.py", "task_dispatcher", "-m", "local", "-w", "2") as dispatcher,
    ):
        until(lambda: answers(f"{url}/healthz"), what="the server")
        client = Appliance(url)
        assert client.call(divmod, 7, 2) == (3, 1)
        ready = until(lambda: (answer := answers(f"{url}/readyz")).status_code == 200 and answer)
        assert ready.json() == {
            "status": "degraded",
            "checks": {"database": "ok", "dispatcher": "ok", "redis": "down", "disk": "ok"},
        }
    assert dispatcher.returncode == 0


@pytest.mark.parametrize("arguments", [[], ["-m", "nope"], ["-m", "local", "-w", "0"], ["-m", "local", "-w", "x"]])
def test_wrong_arguments_are_told_with_the_usage(arguments: list[str], tmp_path: Path) -> None:
    done = manage(tmp_path, "task_dispatcher", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: manage.py task_dispatcher")


def test_an_unreadable_setting_is_one_line(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", FAAS_PORT="x")
    assert done.returncode == 1
    assert done.stderr == "manage.py: FAAS_PORT=x: expected a port number, 1 to 65535\n"


def test_a_dispatcher_waits_for_its_tables(tmp_path: Path) -> None:
    with started(tmp_path, "manage.py", "task_dispatcher", "-m", "local", "-w", "1") as dispatcher:
        until(lambda: (tmp_path / "dispatcher-1.id").exists())
        assert manage(tmp_path, "migrate", "-v", "0").returncode == 0
        port = free_port()
        with started(tmp_path, "-m", "uvicorn", "main:app", "--port", str(port)):
            url = f"http://127.0.0.1:{port}/readyz"
            until(lambda: (answer := answers(url)) is not None and answer.status_code == 200)
        assert dispatcher.poll() is None


def test_signs_of_life_are_given_by_who_can_work(tmp_path: Path) -> None:
    assert manage(tmp_path, "migrate", "-v", "0").returncode == 0
    port = str(free_port())
    of_worker, of_dispatcher = tmp_path / "worker alive", tmp_path / "dispatcher alive"
    worker = ("-m", "worker", "push", "1", f"tcp://127.0.0.1:{port}")
    dispatcher = ("manage.py", "task_dispatcher", "-m", "push", "-p", port)
    with started(tmp_path, *worker, FAAS_ALIVE_FILE=str(of_worker)) as process:
        until(lambda: children(process.pid), what="the worker has started its zygote")
        assert not of_worker.exists()
        with started(tmp_path, *dispatcher, FAAS_ALIVE_FILE=str(of_dispatcher)):
            until(lambda: of_worker.exists() and of_dispatcher.exists(), what="both can work")


@pytest.mark.slow
def test_pulses_are_given_by_whoever_does_not_hang(tmp_path: Path) -> None:
    """Again and again, by a worker without a dispatcher as well. Functions are not told where."""
    assert manage(tmp_path, "migrate", "-v", "0").returncode == 0
    port, pulses = str(free_port()), Pulses()
    where = {"NOTIFY_SOCKET": pulses.address}
    try:
        with (
            started(tmp_path, "-m", "faas_project.serve", FAAS_PORT=str(free_port()), **where) as web,
            started(tmp_path, "manage.py", "task_dispatcher", "-m", "local", "-w", "1", **where) as dispatcher,
            started(tmp_path, "-m", "worker", "push", "1", f"tcp://127.0.0.1:{port}", **where) as worker,
        ):
            felt: Counter[int] = Counter()

            def all_felt() -> bool:
                felt.update(pulses.read())
                return min(felt[process.pid] for process in (web, dispatcher, worker)) >= 2

            until(all_felt, what="two pulses of each")
            assert set(felt) == {web.pid, dispatcher.pid, worker.pid}
            (zygote,) = children(worker.pid)
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{zygote.pid}/environ").read_bytes()
    finally:
        pulses.close()


@pytest.mark.slow
def test_a_dispatcher_waits_for_what_workers_deliver_that_stop_with_it(tmp_path: Path) -> None:
    def sleeps(seconds: float) -> str:
        import time

        time.sleep(seconds)
        return "slept"

    assert manage(tmp_path, "migrate", "-v", "0").returncode == 0
    web_port, port = str(free_port()), str(free_port())
    client = Appliance(f"http://127.0.0.1:{web_port}")
    with (
        started(tmp_path, "-m", "uvicorn", "main:app", "--port", web_port),
        started(tmp_path, "manage.py", "task_dispatcher", "-m", "push", "-p", port, FAAS_SHUTDOWN_S="15") as dispatcher,
        started(tmp_path, "-m", "worker", "push", "1", f"tcp://127.0.0.1:{port}", FAAS_SHUTDOWN_S="15") as worker,
    ):
        until(lambda: answers(f"{client.url}/healthz"), what="the server")
        task = client.submit(sleeps, DRAIN_S + 1.5)
        until(lambda: client.status(task) == "RUNNING", what="the function has begun")
        for process in (dispatcher, worker):
            process.terminate()
        assert worker.wait(20) == 0
        assert dispatcher.wait(5) == 0
        assert client.result(task) == ("COMPLETED", "slept")
