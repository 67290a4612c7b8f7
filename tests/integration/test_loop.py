"""The dispatcher's loop around real slots, with a store that can hang, fail and lose its answers."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dill
import pytest

from dispatcher.local import LocalLink
from dispatcher.loop import Loop
from dispatcher.memory import MemoryStore, MemoryTask
from dispatcher.scheduler import Scheduler
from dispatcher.store import Exchange, Exchanged, Policy
from everythingfaas.errors import StoreUnavailable
from everythingfaas.status import State
from tests.live import until
from worker.slots import SlotLimits


class TroubledStore(MemoryStore):
    """Commits only while `open` is set; loses the answer of the next commit if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.hanging = threading.Event()
        self.fail = 0
        self.lose_answer = False
        self.crash: Exception | None = None

    def exchange(self, exchange: Exchange) -> Exchanged:
        if not self.open.is_set():
            self.hanging.set()
            self.open.wait(30)
        if self.crash is not None:
            raise self.crash
        if self.fail:
            self.fail -= 1
            raise StoreUnavailable("as the test wants it")
        answer = super().exchange(exchange)
        if self.lose_answer and exchange.claim:
            self.lose_answer = False
            raise StoreUnavailable("committed, and nobody was told")
        return answer


class Running:
    """A loop in a thread, and its store."""

    def __init__(self, folder: Path, *, slots: int = 2, task_deadline_s: float | None = None) -> None:
        self.store = TroubledStore()
        self.error: BaseException | None = None
        self._ready = threading.Event()
        self._args = (folder, slots, task_deadline_s)
        # The slots die with the thread that started them, so the loop and its slots live in one.
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        folder, slots, task_deadline_s = self._args
        now = time.monotonic()
        link = LocalLink(slots, folder=folder, limits=SlotLimits(), now=now)
        core = Scheduler(
            self.store.register(mode="local", slots=slots), now=now, task_deadline_s=task_deadline_s, grace_s=0.0
        )
        self.loop = Loop(core, self.store, link, drain_s=0.5)
        self._ready.set()
        try:
            self.loop.run()
        except Exception as exc:  # noqa: BLE001 -- the tests look at it
            self.error = exc

    def submit(self, function: Callable[..., Any], *args: Any, policy: Policy | None = None) -> MemoryTask:
        blob = dill.dumps(function, recurse=True)
        name = hashlib.sha256(blob).hexdigest()
        self.store.functions[name] = blob
        task = MemoryTask(f"t{len(self.store.tasks)}", name, dill.dumps((args, {})), policy=policy or Policy())
        self.store.submit(task)
        self.loop.ring()
        return task

    def stop(self) -> None:
        self.store.open.set()
        self.loop.stop()
        self.thread.join(15)
        assert not self.thread.is_alive()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    live = Running(tmp_path)
    yield live
    live.stop()


def ended(task: MemoryTask) -> Callable[[], bool]:
    return lambda: task.state.is_terminal


def value(task: MemoryTask) -> Any:
    until(ended(task), what=f"the end of {task.task}")
    assert task.state is State.COMPLETED, dill.loads(task.result or b"N.")
    return dill.loads(task.result)


def test_tasks_run_in_slots(running: Running) -> None:
    tasks = [running.submit(lambda x: x * 2, n) for n in range(50)]
    assert [value(task) for task in tasks] == [n * 2 for n in range(50)]


def test_deadlines_kill_while_a_commit_hangs(tmp_path: Path) -> None:
    running = Running(tmp_path, slots=1, task_deadline_s=1.0)

    def endless(path: str) -> None:
        import os
        import time

        with open(path, "w") as file:
            file.write(str(os.getpid()))
        while True:
            time.sleep(1)

    try:
        file = tmp_path / "pid"
        task = running.submit(endless, str(file))
        pid = int(until(lambda: file.exists() and file.read_text()))
        running.store.open.clear()
        assert running.store.hanging.wait(10)
        until(lambda: not os.path.exists(f"/proc/{pid}"), timeout_s=5, what="the kill")
        assert task.state is State.RUNNING  # nobody could write it down so far
        running.store.open.set()
        until(ended(task))
        assert "exceeded deadline" in str(dill.loads(task.result or b""))
    finally:
        running.stop()


@pytest.mark.parametrize(("rung", "within_s"), [(True, 0.9), (False, 2.0)])
def test_a_cancel_kills_at_once_when_the_bell_rings_and_at_the_next_look_when_not(
    running: Running, tmp_path: Path, rung: bool, within_s: float
) -> None:
    def endless(path: str) -> None:
        import time

        open(path, "w").close()
        while True:
            time.sleep(1)

    task = running.submit(endless, str(tmp_path / "began"))
    until((tmp_path / "began").exists)
    began = time.monotonic()
    running.store.cancel(task.task)
    if rung:
        running.loop.look()
    until(ended(task), timeout_s=within_s)
    assert task.state is State.CANCELLED
    assert time.monotonic() - began < within_s


def test_a_store_that_fails_for_a_while_loses_nothing(running: Running) -> None:
    running.store.fail = 5
    tasks = [running.submit(lambda x: x, n) for n in range(5)]
    assert [value(task) for task in tasks] == list(range(5))
    assert all(task.attempt == 1 for task in tasks)


def test_claims_whose_answer_was_lost_are_given_back(running: Running) -> None:
    running.store.lose_answer = True
    tasks = [running.submit(lambda x: x, n) for n in range(5)]
    assert [value(task) for task in tasks] == list(range(5))
    assert max(task.attempt for task in tasks) == 2
    assert all(task.starts == 1 for task in tasks)


def test_a_mistake_in_the_store_ends_the_loop_with_it(running: Running) -> None:
    running.store.crash = LookupError("a mistake")
    running.submit(lambda: None)
    running.thread.join(10)
    assert isinstance(running.error, LookupError)


def test_one_whose_lease_was_taken_ends_with_all_that_it_runs(running: Running) -> None:
    def lasts() -> None:
        import time

        time.sleep(3600)

    task = running.submit(lasts)
    until(lambda: task.begun)
    task.dispatcher = "another"
    running.store.data.dispatchers.clear()
    running.thread.join(10)
    assert not running.thread.is_alive()
    assert task.state is State.RUNNING  # whoever has it now says what becomes of it


def test_stopping_lets_short_tasks_end_and_gives_long_ones_back(tmp_path: Path) -> None:
    running = Running(tmp_path)

    def lasts(seconds: float) -> str:
        import time

        time.sleep(seconds)
        return "done"

    short, long = running.submit(lasts, 0.2), running.submit(lasts, 60)
    waiting = [running.submit(lasts, 60) for _ in range(3)]
    until(lambda: short.begun and long.begun)
    running.stop()
    assert short.state is State.COMPLETED
    assert (long.state, long.starts, long.deaths) == (State.QUEUED, 1, 0)
    assert all((task.state, task.starts) == (State.QUEUED, 0) for task in waiting)


def test_a_second_stop_does_not_wait(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.loop._drain_s = 3600

    def lasts() -> None:
        import time

        time.sleep(3600)

    task = running.submit(lasts)
    until(lambda: task.begun)
    running.loop.stop()
    running.stop()
    assert task.state is State.QUEUED
