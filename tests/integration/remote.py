"""A dispatcher with its ROUTER socket and one worker with real slots, each in a thread of this process."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dill

from dispatcher.loop import Loop
from dispatcher.memory import MemoryStore, MemoryTask
from dispatcher.pull import PullLink
from dispatcher.push import PushLink
from dispatcher.router import RouterLink
from dispatcher.scheduler import LOST_AFTER_S, Scheduler
from dispatcher.store import Exchange, Exchanged, Policy
from everythingfaas.status import State
from tests.live import until
from worker.command import CHANNELS
from worker.identity import identity
from worker.loop import WorkerLoop
from worker.pool import SlotPool
from worker.session import Stop, WorkerSession
from worker.slots import SlotLimits

LINKS: dict[str, type[RouterLink]] = {"pull": PullLink, "push": PushLink}


class LockedStore(MemoryStore):
    """One that the test and the loop may use at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def submit(self, task: MemoryTask) -> None:
        with self._lock:
            super().submit(task)

    def cancel(self, task: str) -> None:
        with self._lock:
            super().cancel(task)

    def exchange(self, exchange: Exchange) -> Exchanged:
        with self._lock:
            return super().exchange(exchange)


class Served:
    """A dispatcher's loop between a store in memory and sockets."""

    def __init__(self, mode: str, address: str, *, task_deadline_s: float | None = None) -> None:
        self.mode, self.address = mode, address
        self.store = LockedStore()
        self.link = LINKS[mode](address, max_result_bytes=1024 * 1024)
        self.core = Scheduler(
            self.store.register(mode=mode, slots=0),
            now=time.monotonic(),
            task_deadline_s=task_deadline_s,
            grace_s=LOST_AFTER_S,
            max_result_bytes=1024 * 1024,
            pulls=mode == "pull",
        )
        self.loop = Loop(self.core, self.store, self.link, drain_s=0.0)
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def submit(self, function: Callable[..., Any], *args: Any, policy: Policy | None = None) -> MemoryTask:
        blob = dill.dumps(function, recurse=True)
        name = hashlib.sha256(blob).hexdigest()
        self.store.functions[name] = blob
        task = MemoryTask(f"t{len(self.store.tasks)}", name, dill.dumps((args, {})), policy=policy or Policy())
        self.store.submit(task)
        self.loop.ring()
        return task

    def value(self, task: MemoryTask, *, timeout_s: float = 20.0) -> Any:
        until(lambda: task.state.is_terminal, timeout_s=timeout_s, what=f"the end of {task.task}")
        value = dill.loads(task.result or b"N.")
        assert task.state is State.COMPLETED, value
        return value

    def stop(self) -> None:
        self.loop.stop()
        self._thread.join(15)
        assert not self._thread.is_alive()


class RemoteWorker:
    """A worker's loop with real slots. They die with the thread that started them, so it lives in one."""

    def __init__(self, mode: str, address: str, folder: Path, *, slots: int = 2) -> None:
        self.over: Stop | None = None
        session = WorkerSession(identity(slots, pulls=mode == "pull"), now=time.monotonic())
        self.loop = WorkerLoop(session, SlotPool(slots, folder=folder, limits=SlotLimits()), CHANNELS[mode]([address]))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.over = self.loop.run()

    def stop(self, *, times: int = 1) -> Stop:
        for _ in range(times):
            self.loop.stop()
        self._thread.join(15)
        assert self.over is not None
        return self.over


@contextmanager
def serving(mode: str, folder: Path, *, slots: int = 2, task_deadline_s: float | None = None) -> Iterator[Served]:
    """A dispatcher with one worker that is registered."""
    served = Served(mode, f"ipc://{folder}/dispatcher.sock", task_deadline_s=task_deadline_s)
    try:
        worker = RemoteWorker(mode, served.address, folder, slots=slots)
        try:
            until(lambda: any(w.takes for w in served.core.workers), what="a worker")
            yield served
        finally:
            worker.stop(times=2)
    finally:
        served.stop()
