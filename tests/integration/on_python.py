"""Runs in an interpreter of any version that a worker may have, for `test_pythons`.

on_python.py essence FOLDER             what a pool has to be able to do; prints JSON
on_python.py run FOLDER JOBS ANSWERS    runs pickled jobs one after the other
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pickle
import pkgutil
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dill

import everythingfaas
import worker
from everythingfaas.status import Outcome
from everythingfaas.wire.frames import Encoder, dispatcher_decoder
from everythingfaas.wire.messages import Attempt, Hello
from worker.events import OutputChunk, PoolEvent, SlotDone, SlotJob, SlotReady
from worker.pool import SlotPool

PATIENCE_S = 20.0


class Slot:
    """A pool of one."""

    def __init__(self, folder: Path) -> None:
        self.pool = SlotPool(1, folder=folder)
        self.pool.start()
        self.printed = b""
        self.until(lambda events: SlotReady(0) in events)

    def until(self, condition: Callable[[list[PoolEvent]], Any]) -> list[PoolEvent]:
        poller = select.poll()
        poller.register(self.pool.fileno(), select.POLLIN)
        end = time.monotonic() + PATIENCE_S
        seen: list[PoolEvent] = []
        while not condition(seen):
            now = time.monotonic()
            assert now < end, seen
            due = self.pool.next_deadline()
            poller.poll(1000 * max(0.0, min(end, due if due is not None else end) - now))
            seen += self.pool.process(time.monotonic())
        self.printed += b"".join(event.data for event in seen if isinstance(event, OutputChunk))
        return seen

    def start(self, function: bytes, payload: bytes) -> None:
        job = SlotJob("task", 1, hashlib.sha256(function).hexdigest(), function, payload, "owner")
        self.pool.run(job, 0, time.monotonic())

    def done(self) -> SlotDone:
        (done,) = (event for event in self.until(lambda events: SlotReady(0) in events) if isinstance(event, SlotDone))
        return done

    def call(self, function: Any, *args: Any) -> SlotDone:
        self.start(dill.dumps(function, recurse=True), dill.dumps((args, {})))
        return self.done()


def main() -> None:
    slot = Slot(Path(sys.argv[2]))
    try:
        if sys.argv[1] == "essence":
            print(json.dumps(essence(slot)))
        else:
            run(slot, Path(sys.argv[3]), Path(sys.argv[4]))
    finally:
        slot.pool.close()


def run(slot: Slot, jobs: Path, answers: Path) -> None:
    done = []
    for function, payload in pickle.loads(jobs.read_bytes()):
        slot.start(function, payload)
        answer = slot.done()
        done.append((answer.outcome.name, answer.result, answer.exit_code, answer.exit_signal))
    answers.write_bytes(pickle.dumps(done))


def essence(slot: Slot) -> dict[str, Any]:
    said: dict[str, Any] = {"python": list(sys.version_info[:2])}
    done = slot.call(lambda x: [x, __import__("sys").version_info[1]], 20)
    said["returned"] = [done.outcome.name, dill.loads(done.result)]
    pid = slot.pool.pid(0)

    def fail() -> None:
        raise ValueError("wrong")

    done = slot.call(fail)
    said["raised"] = [done.outcome.name, repr(dill.loads(done.result)), done.error.type_name if done.error else ""]
    said["is_warm"] = slot.pool.pid(0) == pid
    slot.call(lambda: print("printed"))
    said["printed"] = slot.printed.decode()

    def crash() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    done = slot.call(crash)
    said["died"] = [done.outcome.name, done.exit_signal]

    def leave() -> None:
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()

    pid = slot.pool.pid(0)
    said["left_a_thread"] = [slot.call(leave).outcome.name, slot.pool.pid(0) != pid]

    def sleep() -> None:
        print("sleeping", flush=True)
        time.sleep(100)

    slot.printed = b""
    slot.start(dill.dumps(sleep, recurse=True), dill.dumps(((), {})))
    slot.until(lambda events: any(isinstance(event, OutputChunk) for event in events))
    slot.pool.kill(0, "task", 1, Outcome.DEADLINE, time.monotonic())
    said["killed"] = slot.done().outcome.name
    said["wire"] = wire()
    said["modules"] = modules()
    return said


def wire() -> bool:
    hello = Hello(1, "w", "name", "host", 1, (3, 10), "0.4", 2, held=(Attempt("task", 1),))
    return dispatcher_decoder().decode(Encoder().encode(hello)) == hello


def modules() -> int:
    """How many modules of the library and the worker import here; those that need more than a worker has are not."""
    imported = 0
    for package in (everythingfaas, worker):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            of_others = module.name.startswith(("everythingfaas.client", "everythingfaas.commands"))
            if not of_others and "management" not in module.name and not module.name.endswith((".cli", ".__main__")):
                importlib.import_module(module.name)
                imported += 1
    return imported


if __name__ == "__main__":
    main()
