"""Dispatchers and workers as real processes on one database, and a network between them that can be cut."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import dill
import psutil
from django.db import connection, transaction

from api import moves
from api.mirror import BELL
from api.models import new_id
from everythingfaas.status import State
from tests.conftest import Database
from tests.integration.test_by_hand import clean_environment
from tests.live import ROOT, free_port, until
from tests.redis_fixture import Valkey

#: What starts a worker: mode, slots and URLs follow, or are in the name.
MODULE = ("-m", "worker", "{mode}")
MANAGE = ("manage.py", "{mode}_worker")
FAAS = ("-c", "from everythingfaas.cli import main; main()", "worker", "{mode}")


class Proxy:
    """Forwards TCP connections to `port`, until told to hold what comes from workers ("up") or goes to them ("down").

    What is held is not lost: it goes on when the network does, as after an outage.
    """

    def __init__(self, port: int, *, sniff: bytes = b"") -> None:
        self.seen = 0  #: how often `sniff` went down
        self._sniff = sniff
        self._target = port
        self._gates = {"up": threading.Event(), "down": threading.Event()}
        self.restore()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._thread(self._accept)

    def cut(self, *directions: str) -> None:
        for direction in directions:
            self._gates[direction].clear()

    def restore(self) -> None:
        for gate in self._gates.values():
            gate.set()

    def reset(self) -> None:
        """Breaks all connections; new ones work."""
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def close(self) -> None:
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self.restore()

    def _thread(self, run: Callable[..., None], *args: Any) -> None:
        threading.Thread(target=run, args=args, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # no dispatcher there
                    near.close()
                    continue
                self._sockets += [near, far]
                self._thread(self._pump, near, far, "up")
                self._thread(self._pump, far, near, "down")

    def _pump(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        gate, last = self._gates[direction], b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                gate.wait()
                if self._sniff and direction == "down":
                    self.seen += (last + data).count(self._sniff)
                    last = (last + data)[-len(self._sniff) + 1 :]
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@dataclass
class Part:
    """A process and what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def says(self, pattern: str, *, times: int = 1, timeout_s: float = 20.0) -> None:
        until(
            lambda: len(re.findall(pattern, self.said)) >= times or self.process.poll() is not None,
            timeout_s=timeout_s,
            what=f"{pattern!r} in the log of {self.process.args!r}",
        )
        assert len(re.findall(pattern, self.said)) >= times, self.said

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self, *, timeout_s: float = 15.0) -> int:
        """Its exit status."""
        return self.process.wait(timeout_s)

    def runs(self, pid: int) -> bool:
        """Whether the process `pid` is one of its slots'."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return self.process.pid in [parent.pid for parent in psutil.Process(pid).parents()]
        return False


class Site:
    """Everything that one test starts."""

    def __init__(self, folder: Path, database: Database, redis: Valkey, **environ: str) -> None:
        self.folder = folder
        self._environ = {"FAAS_DATABASE_URL": database.url, "FAAS_REDIS_URL": redis.url} | environ
        self._redis = redis.client()
        self._parts: list[Part] = []
        self._functions: dict[bytes, UUID] = {}
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM auth_user WHERE username = 'local'")
            self._owner = int(cursor.fetchone()[0])

    def start(self, *command: str, data: str = "data") -> Part:
        (self.folder / data).mkdir(exist_ok=True)
        log = self.folder / f"{len(self._parts)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=clean_environment(self.folder / data) | self._environ,
                stdout=output,
                stderr=output,
            )
        self._parts.append(Part(process, log))
        return self._parts[-1]

    def dispatcher(self, mode: str, port: int, *options: str, data: str = "data", wait: bool = True) -> Part:
        """One in the same `data` as a former one continues it."""
        part = self.start("manage.py", "task_dispatcher", "-m", mode, "-p", str(port), *options, data=data)
        if wait:
            part.says(r"dispatcher: dispatcher .* epoch")
        return part

    def worker(self, mode: str, slots: int, *urls: str, via: tuple[str, ...] = MODULE, registered: bool = True) -> Part:
        command = [word.format(mode=mode) for word in via]
        part = self.start(*command, str(slots), *urls, data="worker")
        if registered:
            part.says("registered with the dispatcher")
        return part

    def submit(self, function: Callable[..., Any], *args: Any, at_most_once: bool = False) -> UUID:
        blob = dill.dumps(function, recurse=True)
        task, now = new_id(), time.time()
        with transaction.atomic(), connection.cursor() as cursor:
            if blob not in self._functions:
                self._functions[blob] = moves.register(cursor, self._owner, "function", blob, created=now)
            payload = dill.dumps((args, {}))
            submission = moves.Submission(
                task, self._owner, self._functions[blob], payload, now, at_most_once=at_most_once
            )
            moves.submit(cursor, [submission])
        self._redis.publish(BELL, "")
        return task

    def cancel(self, task: UUID) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            assert moves.request_cancel(cursor, [task], time.time()) == [task]

    def state(self, task: UUID) -> State:
        with connection.cursor() as cursor:
            return moves.read(cursor, [task])[task].state

    def counts(self, task: UUID) -> tuple[int, int, int]:
        """Attempts, starts and deaths."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT attempt, starts, deaths FROM api_task WHERE id = %s", [task.hex])
            attempt, starts, deaths = cursor.fetchone()
            return attempt, starts, deaths

    def value(self, task: UUID, *, timeout_s: float = 20.0) -> Any:
        until(lambda: self.state(task).is_terminal, timeout_s=timeout_s, what=f"the end of {task}")
        with connection.cursor() as cursor:
            view = moves.read(cursor, [task])[task]
        value = dill.loads(view.result or b"N.")
        assert view.state is State.COMPLETED, value
        return value

    def close(self) -> None:
        for part in self._parts:
            if part.process.poll() is None:
                part.signal(signal.SIGCONT)
                part.process.kill()
                part.process.wait()
        self._redis.close()


class Trial:
    """A function that writes down each of its starts, and runs until it is let go."""

    def __init__(self, site: Site, name: str = "trial", **kwargs: Any) -> None:
        self._site = site
        self._starts = site.folder / f"{name}.starts"
        self._go = site.folder / f"{name}.go"
        self.task = site.submit(_wait(), str(self._starts), str(self._go), **kwargs)

    @property
    def pids(self) -> list[int]:
        """The processes in which it was started, in that order."""
        return [int(line) for line in self._starts.read_text().splitlines()] if self._starts.exists() else []

    def begun(self, count: int = 1, *, timeout_s: float = 20.0) -> int:
        """The process of its start of that number."""
        until(lambda: len(self.pids) >= count, timeout_s=timeout_s, what=f"start {count}")
        assert len(self.pids) == count
        return self.pids[-1]

    def let_go(self) -> None:
        self._go.touch()

    def value(self, **kwargs: Any) -> int:
        """It returns the process that it ran in."""
        value: int = self._site.value(self.task, **kwargs)
        return value


def _wait() -> Callable[[str, str], int]:
    """Made here, the function travels by value: slots need not import this module."""

    def run(starts: str, go: str) -> int:
        import os
        import time

        with open(starts, "a") as file:
            file.write(f"{os.getpid()}\n")
        while not os.path.exists(go):
            time.sleep(0.01)
        return os.getpid()

    return run


def is_gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


@contextlib.contextmanager
def proxy(port: int, *, sniff: bytes = b"") -> Iterator[Proxy]:
    live = Proxy(port, sniff=sniff)
    try:
        yield live
    finally:
        live.close()


__all__ = ["FAAS", "MANAGE", "MODULE", "Part", "Proxy", "Site", "Trial", "free_port", "is_gone", "proxy"]
