"""Appliances for clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from everythingfaas.client import Client, Executor
from tests.integration.test_by_hand import answers, clean_environment, manage, started
from tests.live import ROOT, Appliance, free_port, running, until


@pytest.fixture(scope="session")
def faas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """One appliance in push mode, with two slots, for all tests that do it no harm."""
    with running(tmp_path_factory.mktemp("faas"), "--mode", "push", "--workers", "2") as live:
        yield live


@pytest.fixture
def executor(faas: Appliance) -> Iterator[Executor]:
    with Executor(faas.url, patience_s=20) as one:
        yield one


@pytest.fixture
def client(faas: Appliance) -> Iterator[Client]:
    with Client(faas.url) as one:
        yield one


@contextmanager
def of_another_python(program: str, folder: Path, redis: str, *, slots: int = 5) -> Iterator[str]:
    """The URL of a service whose only worker is run by the interpreter `program`."""
    assert manage(folder, "migrate", "-v", "0").returncode == 0
    environ = {"FAAS_REDIS_URL": redis}
    web, port = free_port(), free_port()
    url = f"http://127.0.0.1:{web}"
    with ExitStack() as stack:
        stack.enter_context(started(folder, "-m", "uvicorn", "main:app", "--port", str(web), **environ))
        stack.enter_context(started(folder, "manage.py", "task_dispatcher", "-m", "push", "-p", str(port), **environ))
        worker = subprocess.Popen(
            [program, "-m", "worker", "push", str(slots), f"tcp://127.0.0.1:{port}"],
            cwd=folder,
            env=clean_environment(folder) | {"PYTHONPATH": str(ROOT)},
        )
        stack.callback(worker.wait, 15)
        stack.callback(worker.terminate)
        until(lambda: answers(f"{url}/healthz"), what="the server")
        yield url
