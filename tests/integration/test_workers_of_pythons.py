"""Remote workers of several Pythons at one dispatcher: each runs what its Python has written."""

from __future__ import annotations

import platform
import subprocess
from contextlib import ExitStack
from pathlib import Path

import dill
import pytest

from everythingfaas.pythons import Minor
from everythingfaas.serialize import encode
from tests.data.functions import CASES
from tests.functions import pickled
from tests.integration.test_by_hand import answers, clean_environment, manage, started
from tests.live import ROOT, Appliance, free_port, until
from tests.pythons import environment

#: Other than that of the server, which is there in most tests.
OTHERS: list[Minor] = [(3, 10), (3, 12), (3, 13)]
NAMES = ["lambda_", "nested", "coroutine", "comprehension", "match_", "method"]


@pytest.mark.parametrize("mode", ["push", "pull"])
def test_each_worker_runs_what_its_python_has_written(
    mode: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    programs = [environment(python, request.config.cache.mkdir("pythons")) for python in OTHERS]
    assert manage(tmp_path, "migrate", "-v", "0").returncode == 0
    web, port = free_port(), free_port()
    url = f"http://127.0.0.1:{web}"
    with ExitStack() as stack:
        stack.enter_context(started(tmp_path, "-m", "uvicorn", "main:app", "--port", str(web)))
        stack.enter_context(started(tmp_path, "manage.py", "task_dispatcher", "-m", mode, "-p", str(port)))
        for program in programs:
            worker = subprocess.Popen(
                [program, "-m", "worker", mode, "2", f"tcp://127.0.0.1:{port}"],
                cwd=tmp_path,
                env=clean_environment(tmp_path) | {"PYTHONPATH": str(ROOT)},
            )
            stack.callback(worker.wait, 15)
            stack.callback(worker.terminate)
        until(lambda: answers(f"{url}/healthz"), what="the server")
        client = Appliance(url)
        cases = {name: (args, value) for name, _, args, value in CASES}
        functions = [f for f in pickled() if f.name in NAMES and f.python in OTHERS]
        assert len(functions) == 3 * len(NAMES) * len(OTHERS)
        tasks = []
        for function in functions:
            registered = client.register(None, payload=encode(function.raw))
            tasks.append(client.execute(registered, *cases[function.name][0]))
        for function, task in zip(functions, tasks, strict=True):
            assert client.result(task) == ("COMPLETED", cases[function.name][1]), function.path
        for python in ("3.10", "3.12", "3.13"):
            told = {"name": "f", "payload": encode(dill.dumps(platform.python_version)), "python": python}
            registered = client.post("/register_function", told).json()["function_id"]
            assert client.result(client.execute(registered))[1].startswith(f"{python}.")
