"""Pull and push over real sockets, with real slots and a store in memory: they work, and what runs can be killed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dill
import pytest

from everythingfaas.status import State
from tests.integration.remote import Served, serving
from tests.live import until

MODES = ["pull", "push"]


@pytest.fixture(params=MODES)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with serving(request.param, tmp_path) as live:
        yield live


def endless() -> Callable[[str], None]:
    """A function that does not end. Made here, it travels by value: importing this module would take long."""

    def run(path: str) -> None:
        import os
        import time

        with open(path + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(path + ".new", path)
        while True:
            time.sleep(1)

    return run


def begun(path: Path) -> int:
    """The process that runs `endless`."""
    return int(until(lambda: path.exists() and path.read_text(), what="a begin"))


def test_tasks_run_on_a_worker(served: Served) -> None:
    tasks = [served.submit(lambda x: x * 2, n) for n in range(200)]
    assert [served.value(task) for task in tasks] == [n * 2 for n in range(200)]
    assert served.value(served.submit(len, bytes(300_000))) == 300_000
    assert served.value(served.submit(bytes, 300_000)) == bytes(300_000)
    assert not served.link.rejects.total


def test_a_result_that_the_dispatcher_does_not_take_fails(served: Served) -> None:
    def large() -> bytes:
        return bytes(2 * 1024 * 1024)

    task = served.submit(large)
    until(lambda: task.state.is_terminal)
    assert task.state is State.FAILED
    assert "at most 1048576 are kept" in str(dill.loads(task.result or b""))
    assert served.value(served.submit(abs, -1)) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_deadline_kills_what_runs(mode: str, tmp_path: Path) -> None:
    with serving(mode, tmp_path, slots=1, task_deadline_s=1.0) as served:
        task = served.submit(endless(), str(tmp_path / "pid"))
        pid = begun(tmp_path / "pid")
        started = time.monotonic()
        until(lambda: task.state.is_terminal, timeout_s=5)
        ended = time.monotonic()
        assert "exceeded deadline of 1 s" in str(dill.loads(task.result or b""))
        assert ended - started < 2.0
        assert not os.path.exists(f"/proc/{pid}")
        assert served.value(served.submit(abs, -1)) == 1
        assert time.monotonic() - ended < 1.0


def test_a_cancel_kills_what_runs(served: Served, tmp_path: Path) -> None:
    tasks: list[Any] = [served.submit(endless(), str(tmp_path / f"pid-{n}")) for n in range(2)]
    pids = [begun(tmp_path / f"pid-{n}") for n in range(2)]
    for task in tasks:
        served.store.cancel(task.task)
    cancelled = time.monotonic()
    until(lambda: all(task.state.is_terminal for task in tasks), timeout_s=5)
    ended = time.monotonic()
    assert ended - cancelled < 2.0  # the dispatcher looks once a second
    assert [task.state for task in tasks] == [State.CANCELLED] * 2
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert served.value(served.submit(abs, -1)) == 1
    assert time.monotonic() - ended < 1.0
