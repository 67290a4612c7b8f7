"""Accounts of processes, from /proc: the CPU time and the memory of a whole tree."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Account:
    """What one process has used so far."""

    pid: int
    name: str
    cpu_s: float
    pss_mb: float


def descendants(root: int) -> list[int]:
    """`root` and every process below it. Whoever leaves its session stays in the tree."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir(_PROC):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, ())
    return sorted(found)


def account(pid: int, *, with_pss: bool = True) -> Account | None:
    """The account of a process, or None if it is gone.

    The CPU time is the scheduler's own, in nanoseconds, summed over the threads (`/proc/PID/task/*/schedstat`): the
    100 ticks a second of `/proc/PID/stat` are too coarse for a process that is nearly idle. Kernels without it have
    the ticks.
    """
    try:
        cpu_s = _cpu_s(pid)
        command = (_PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        pss_mb = _pss_mb(pid) if with_pss else 0.0
    except OSError:
        return None
    return Account(pid, _name(command), cpu_s, pss_mb)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that one process has used so far. Raises `OSError` if it is gone."""
    return _cpu_s(pid)


def cpu_of_tree(root: int) -> dict[int, float]:
    """Seconds of CPU that each process of the tree has used so far."""
    accounts = (account(pid, with_pss=False) for pid in descendants(root))
    return {item.pid: item.cpu_s for item in accounts if item is not None}


class Strangers:
    """How many cores processes that are not ours have used since this was made: what others do to our figures.

    Ours are this process and everything below it. Steal, what the host gives to other machines, counts as theirs.
    """

    def __init__(self) -> None:
        self._began, self._all, self._ours = time.perf_counter(), _busy_s(), _ours_s()

    def cores(self) -> float:
        theirs = (_busy_s() - self._all) - (_ours_s() - self._ours)
        return round(max(0.0, theirs / (time.perf_counter() - self._began)), 2)


def _busy_s() -> float:
    """Seconds that all cores together were neither idle nor waiting for a disk, since the start of the machine."""
    fields = [int(field) for field in (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _ours_s() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(cpu_of_tree(os.getpid()).values()) + ended.ru_utime + ended.ru_stime


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    fields = _stat(pid)
    return fields is None or fields[0] in {"Z", "X"}


def _stat(pid: int) -> list[str] | None:
    """The fields behind the name, which may hold anything: state, parent, …"""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    try:
        threads = list((_PROC / str(pid) / "task").glob("*/schedstat"))
        return sum(int(path.read_text().split()[0]) for path in threads) / 1e9
    except FileNotFoundError:
        fields = _stat(pid)
        if fields is None:
            raise
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss_mb(pid: int) -> float:
    """Proportional set size: a page that n processes share counts 1/n in each, so that they can be added."""
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _name(command: list[bytes]) -> str:
    """What a process is, from its command line: the module or program, without paths and options."""
    words = [word.decode(errors="replace") for word in command]
    if "-m" in words[:-1]:
        at = words.index("-m") + 1
        return " ".join(words[at : at + 2] if words[at] == "django" else words[at : at + 1])
    if "-c" in words[:-1]:
        return "slot or its parent" if "everythingfaas.slot" in words[words.index("-c") + 1] else "python -c"
    return os.path.basename(words[0])
