"""Real processes on one database, killed and stopped at random, under load.

    python -m tests.chaos.processes --seconds 90 --database sqlite --modes push,pull,local [--seed N]

Web, Redis, a dispatcher for each of the modes and workers for those that have some. Each fault waits until half of
all slots are busy. What is accepted has to end exactly once, with the result of its last attempt: `tests.chaos.verdict`
has what is checked.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.chaos.books import Books, database
from tests.chaos.clients import Clients
from tests.chaos.cluster import Cluster, Member
from tests.chaos.verdict import Report, judge
from tests.live import until

SLOTS = 10  #: for each dispatcher
#: Everything that was accepted has ended so long after the last fault.
HEAL_S = 30.0
#: Longer than it takes to declare a worker lost (5 s), and than the lease of a dispatcher (10 s).
LONG_S = {"worker": (5.5, 8.0), "dispatcher": (10.2, 12.5), "web": (2.0, 3.0)}
#: The mean time between two faults.
PAUSE_S = 0.2
OLD_FILE_S = 10.0


@dataclass(frozen=True)
class Fault:
    weight: float
    inject: Callable[[Chaos], str | None]  #: returns what it did to whom; None: there was nobody to do it to


@dataclass
class Chaos:
    """What goes wrong, in one thread, from a seed."""

    cluster: Cluster
    chance: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    busy_shares: list[float] = field(default_factory=list)

    def go_on_for(self, seconds: float, enough: Callable[[], bool]) -> None:
        """For so long at the least; until there is `enough`, or twice as long, on a machine that is slow."""
        begun = copied_at = time.monotonic()
        end = begun + 2 * seconds
        while (now := time.monotonic()) < begun + seconds or (now < end and not enough()):
            time.sleep(self.chance.expovariate(1 / PAUSE_S))
            if time.monotonic() >= copied_at + OLD_FILE_S:
                self.cluster.keep_redis_file()
                copied_at = time.monotonic()
            busy = self.wait_until_busy(end)
            if busy is None:
                return
            fault = self.chance.choices(FAULTS, [fault.weight for fault in FAULTS])[0]
            name = fault.inject(self)
            if name is not None:
                self.faults[name] += 1
                self.busy_shares.append(busy)

    def wait_until_busy(self, end: float) -> float | None:
        """Which share of all slots is busy, when that is half of them at the least."""
        while time.monotonic() < end:
            share = len(self.busy()) / self.cluster.slots
            if share >= 0.5:
                return share
            time.sleep(0.01)
        return None

    def busy(self) -> list[int]:
        """The processes in which a function runs."""
        names = os.listdir(self.cluster.folder / "running")
        return [int(name) for name in names if os.path.exists(f"/proc/{name}")]

    def choose(self, kind: str) -> Member | None:
        members = self.cluster.of_kind(kind)
        return self.chance.choice(members) if members else None


def _kill(kind: str) -> Callable[[Chaos], str | None]:
    def inject(chaos: Chaos) -> str | None:
        member = chaos.choose(kind)
        if member is None:
            return None
        chaos.cluster.kill(member)
        return f"kill -9 {kind}"

    return inject


def _stop(kind: str, *, long: bool = False) -> Callable[[Chaos], str | None]:
    def inject(chaos: Chaos) -> str | None:
        member = chaos.choose(kind)
        if member is None:
            return None
        # Whoever is left has to keep half of the slots busy.
        if long and any(other.is_stopped and other.kind == kind for other in chaos.cluster.members):
            return None
        chaos.cluster.stop(member, chaos.chance.uniform(*LONG_S[kind]) if long else chaos.chance.uniform(0.1, 1.5))
        return f"SIGSTOP {kind}, long" if long else f"SIGSTOP {kind}"

    return inject


def _kill_slot(chaos: Chaos) -> str | None:
    return _signal_slot(chaos, signal.SIGKILL, "kill -9 slot")


def _stop_slot(chaos: Chaos) -> str | None:
    busy = chaos.busy()
    if not busy:
        return None
    pid = chaos.chance.choice(busy)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(chaos.chance.uniform(0.1, 2.0), _continue, [pid]).start()
    return "SIGSTOP slot"


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _signal_slot(chaos: Chaos, number: int, name: str) -> str | None:
    busy = chaos.busy()
    if not busy:
        return None
    try:
        os.kill(chaos.chance.choice(busy), number)
    except ProcessLookupError:
        return None
    return name


def _lose_redis(name: str, *, away_s: float, empty: bool = False, old: bool = False) -> Callable[[Chaos], str | None]:
    def inject(chaos: Chaos) -> str | None:
        member = chaos.choose("redis")
        if member is None:
            return None
        before = chaos.cluster.empty_redis if empty else chaos.cluster.put_back_redis_file if old else None
        chaos.cluster.kill(member, away_s=chaos.chance.uniform(0.1, away_s), before=before)
        return name

    return inject


def _flush_redis(chaos: Chaos) -> str | None:
    try:
        with redis.Redis(unix_socket_path=str(chaos.cluster.redis_socket()), socket_timeout=1) as client:
            client.flushall()
    except redis.RedisError:
        return None
    return "Redis flushed"


FAULTS = (
    Fault(30, _kill_slot),
    Fault(8, _stop_slot),
    Fault(12, _kill("worker")),
    Fault(9, _stop("worker")),
    Fault(4, _stop("worker", long=True)),
    Fault(5, _kill("dispatcher")),
    Fault(7, _stop("dispatcher")),
    Fault(2, _stop("dispatcher", long=True)),
    Fault(3, _kill("web")),
    Fault(5, _stop("web")),
    Fault(1, _stop("web", long=True)),
    Fault(4, _lose_redis("kill -9 Redis", away_s=3.0)),
    Fault(4, _lose_redis("Redis emptied", away_s=1.0, empty=True)),
    Fault(4, _lose_redis("Redis with an old file", away_s=1.0, old=True)),
    Fault(6, _flush_redis),
)


@dataclass(frozen=True)
class Course:
    """What is asked for. A course that brings fewer faults or tasks than it should is no proof, and a violation."""

    kind: str  #: of database
    modes: tuple[str, ...]
    seconds: float
    seed: int
    slots: int = SLOTS
    least_faults: int = 200
    least_tasks: int = 5000
    least_lost: int = 100


def run(folder: Path, course: Course) -> Report:
    """From an empty database to the verdict."""
    (folder / "running").mkdir()
    with database(course.kind, folder) as url:
        books = Books(url)
        books.prepare(folder / "prepare")
        cluster = Cluster(folder, url, course.modes, course.slots)
        cluster.start()
        try:
            clients = Clients(cluster.url, folder, course.seed)
            clients.start()
            chaos = Chaos(cluster, random.Random(course.seed))
            until(lambda: len(chaos.busy()) >= cluster.slots / 2, timeout_s=60, what="half of the slots are busy")
            chaos.go_on_for(
                course.seconds,
                lambda: (
                    chaos.faults.total() >= course.least_faults and len(clients.seen.accepted) >= course.least_tasks
                ),
            )
            cluster.heal()
            clients.stop_submitting()
            healed_s = _await_end(books)
            clients.stop_watching()
            report = judge(books, clients, folder)
        finally:
            left = cluster.close()
    report.wrong += left
    report.faults = chaos.faults
    report.least_busy = min(chaos.busy_shares, default=0.0)
    report.healed_s = healed_s
    figures = ("faults", report.faults.total(), course.least_faults), ("tasks", report.accepted, course.least_tasks)
    for what, count, least in (*figures, ("attempts lost in mid-run", report.lost, course.least_lost)):
        if count < least:
            report.wrong.append(f"{count} {what}, which is no proof: at least {least} are due")
    return report


def _await_end(books: Books) -> float:
    begun = time.monotonic()
    with contextlib.suppress(TimeoutError):  # which the verdict says of each task
        until(lambda: not books.unfinished(), timeout_s=HEAL_S)
    return time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.processes")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--modes", "--mode", default="push,pull,local", help="a dispatcher for each, with commas")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    parser.add_argument("--slots", type=int, default=SLOTS, help="for each dispatcher")
    parser.add_argument("--keep", action="store_true", help="leave the folder with logs and database behind")
    options = parser.parse_args()
    modes = tuple(options.modes.split(","))
    print(f"processes: seed {options.seed}, {options.database}, {options.modes}, {options.seconds:g} s", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="faas-chaos-"))
    try:
        report = run(folder, Course(options.database, modes, options.seconds, options.seed, options.slots))
    finally:
        if options.keep:
            print(f"left in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(report)
    print(f"processes: {report.summary}, seed {options.seed}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
