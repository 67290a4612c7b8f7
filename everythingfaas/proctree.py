"""Finding and ending the processes that a process has started, by way of ``/proc``.

A process that wants its orphaned descendants to stay findable calls `everythingfaas.prctl.set_child_subreaper`
first; then whatever forked twice to get away is its child again. A number is reused by the kernel sooner or
later, so a process is known here by its number *and* the time at which it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple

_FIRST_PAUSE_S = 0.0001
_LONGEST_PAUSE_S = 0.01


class Process(NamedTuple):
    """One line of ``/proc/<pid>/stat``, as far as it is of use here."""

    pid: int
    parent: int
    session: int
    started: int  #: in clock ticks since boot; with `pid`, what identifies a process
    dead: bool  #: ended and waiting to be reaped


def descendants(pid: int) -> list[int]:
    """The living children of `pid`, their children and so on. Those that wait to be reaped are left out."""
    return [process.pid for process in _walk(pid) if not process.dead]


def kill_tree(root: int, *, include_root: bool = True, timeout_s: float = 5.0) -> int:
    """SIGKILL every descendant of `root`, and `root` itself unless told otherwise, until none is left.

    Everything is stopped before anything is killed, so that nobody forks on and nobody loses the parent by
    which it is found. A root that is a subreaper adopts the orphans which are made all the same, and they
    are found again; one that is not may lose some. The dead are not reaped, which is their parents' business.

    Returns:
        The number of processes killed, when none is left or after `timeout_s` seconds (a process may hang
        in the kernel for longer than that).
    """
    top = look(root)
    if top is None or top.dead:
        return 0
    deadline = time.monotonic() + timeout_s
    stop_root = include_root and root != os.getpid()
    if stop_root:
        _send(top, signal.SIGSTOP)
    killed = _kill_descendants(root, deadline)
    if include_root:
        _send(top, signal.SIGKILL)
        killed.add(top)
    for process in killed:
        _await_death(process, deadline)
    return len(killed)


def find_by_environment(name: str, value: str) -> list[int]:
    """The living processes that were started with the environment variable `name` set to `value`.

    What a process has changed in its environment since then does not count. Processes of other users
    cannot be read and are left out.
    """
    wanted = f"{name}={value}".encode()
    found = []
    for pid in _all_pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            continue
        if wanted in variables:  # what has ended has an empty environment
            found.append(pid)
    return found


def look(pid: int) -> Process | None:
    """What ``/proc`` says about `pid`; None if there is no such process."""
    fields = _stat(pid)
    if fields is None:
        return None
    # A process whose first thread has ended while others run on reads "zombie" too, but has threads.
    dead = fields[0] in b"ZX" and int(fields[17]) <= 1
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), dead)


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process, and none has let it go on."""
    fields = _stat(pid)
    return fields is not None and fields[0] == b"T"


def children(pid: int) -> list[Process]:
    """The children of `pid`, those that wait to be reaped included."""
    return [process for process in map(look, _child_pids(pid)) if process is not None and process.parent == pid]


def _walk(root: int) -> Iterator[Process]:
    """Parents before their children, whose list is read only after the caller has seen the parent."""
    pending = [root]
    while pending:
        for process in children(pending.pop()):
            yield process
            if not process.dead:
                pending.append(process.pid)


def _kill_descendants(root: int, deadline: float) -> set[Process]:
    killed: set[Process] = set()
    pause = _FIRST_PAUSE_S
    quiet = 0
    while quiet < 2:  # one empty walk may have missed a process that moved to another parent meanwhile
        alive = list(_stop_all(root))
        for process in alive:
            _send(process, signal.SIGKILL)
        killed.update(alive)
        quiet = 0 if alive else quiet + 1
        if alive:
            if time.monotonic() > deadline:
                break
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
    return killed


def _stop_all(root: int) -> Iterator[Process]:
    """Stop each living descendant before its children are listed: what is stopped forks no more, and none
    is killed before the walk is over, so no child loses the parent by which it is found."""
    for process in _walk(root):
        if not process.dead:
            _send(process, signal.SIGSTOP)
            yield process


def _await_death(process: Process, deadline: float) -> None:
    pause = _FIRST_PAUSE_S
    while _is_alive(process) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _is_alive(process: Process) -> bool:
    now = look(process.pid)
    return now is not None and now.started == process.started and not now.dead


def _send(process: Process, signum: int) -> None:
    """Signal `process`, unless its number belongs to another one by now."""
    now = look(process.pid)
    if now is not None and now.started == process.started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, signum)


def _stat(pid: int) -> list[bytes] | None:
    """The fields of ``/proc/<pid>/stat`` from the process' state on; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            line = file.read(4096)
    except OSError:
        return None
    # The name of the program stands in brackets, and may itself hold brackets and blanks.
    return line[line.rindex(b")") + 2 :].split()


_kernel_lists_children = os.path.exists("/proc/thread-self/children")


def _child_pids(pid: int) -> list[int]:
    if not _kernel_lists_children:
        return [process.pid for process in map(look, _all_pids()) if process is not None and process.parent == pid]
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
            found += map(int, file.readall().split())
    return found


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
