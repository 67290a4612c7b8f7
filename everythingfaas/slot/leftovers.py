"""What a function leaves behind in its process.

A slot stays warm for the next task of the same owner only if it is as it was. Looking costs some tens of
microseconds and happens after each task; anything found means that the supervisor replaces the process.

Threads of C libraries (the pools of OpenBLAS and OpenMP) are not counted: they are started by an import, idle
between calls, and counting them would cost every task that uses numpy a new import of it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import os
import signal
import sys
from typing import Any

_STREAMS = (0, 1, 2)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SIGNALS = sorted(int(signum) for signum in signal.valid_signals())


class Surroundings:
    """The state of a process at the time of construction, to compare with later."""

    def __init__(self) -> None:
        self._environ = os.environ
        self._variables = _variables().copy()
        self._folder = os.getcwd()
        self._umask = _umask()
        self._handlers = _handlers()
        self._blocked = _blocked()
        self._descriptors = _descriptors()
        self._streams = _streams()
        self._standard = (sys.stdin, sys.stdout, sys.stderr)
        self._recursion = sys.getrecursionlimit()

    def restore(self) -> None:
        """Takes back what can be taken back without a new process: reassigned streams, recursion limit."""
        sys.stdin, sys.stdout, sys.stderr = self._standard
        if sys.getrecursionlimit() != self._recursion:
            sys.setrecursionlimit(self._recursion)

    def differences(self) -> str:
        """What is not as it was, in words; empty if everything is."""
        found = []
        if _thread._count() > 0:  # noqa: SLF001 as `threading` has no name for those started without it
            found.append("threads")
        if _has_children():
            found.append("child processes")
        if _descriptors() != self._descriptors or _streams() != self._streams:
            found.append("open descriptors")
        if _folder() != self._folder:
            found.append("another folder")
        if os.environ is not self._environ or _variables() != self._variables:
            found.append("another environment")
        if _handlers() != self._handlers or _blocked() != self._blocked:
            found.append("signal handlers")
        if _umask() != self._umask:
            found.append("another umask")
        if any(signal.getitimer(timer)[0] for timer in _TIMERS):
            found.append("timers")
        if any(stream.closed for stream in self._standard):
            found.append("closed streams")
        return ", ".join(found)


def _variables() -> dict[bytes, bytes]:
    # The mapping behind os.environ: comparing that is thirty times faster than decoding every variable.
    variables: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined] # noqa: SLF001
    return variables


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _descriptors() -> int:
    """How many are open."""
    if _kernel_counts_descriptors:
        return os.stat("/proc/self/fd").st_size
    return len(os.listdir("/proc/self/fd"))


_kernel_counts_descriptors = os.stat("/proc/self/fd").st_size > 0  # since Linux 6.2


def _streams() -> list[tuple[int, int] | None]:
    """What the standard descriptors lead to: a function may have closed one, so that another took its number."""
    return [_identity(descriptor) for descriptor in _STREAMS]


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _umask() -> int:
    umask = os.umask(0o077)  # can only be read by setting it
    os.umask(umask)
    return umask


def _handlers() -> list[Any]:
    return [_signal.getsignal(signum) for signum in _SIGNALS]  # without the enumeration around each


def _blocked() -> set[int]:
    return set(_signal.pthread_sigmask(signal.SIG_BLOCK, ()))
