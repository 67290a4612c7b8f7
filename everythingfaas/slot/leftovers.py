"""What a function leaves behind in its process.

A slot stays warm for the next task of the same owner only if it is as it was. Looking costs some tens of
microseconds and happens after each task; anything found means that the supervisor replaces the process.

Threads of C libraries (the pools of OpenBLAS and OpenMP) are not counted: they are started by an import, idle
between calls, and counting them would cost every task that uses numpy a new import of it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import builtins
import gc
import operator
import os
import resource
import signal
import sys
from typing import Any

_STREAMS = (0, 1, 2)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SIGNALS = sorted(int(signum) for signum in signal.valid_signals())
_LIMITS = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_STACK,
)


class Builtins:
    """The builtins at the time of construction. A function may replace them, and what runs after it uses them."""

    def __init__(self) -> None:
        self.were_changed = False
        self._names = builtins.__dict__.copy()
        # Not looked up again when they may be something else.
        self._same, self._all, self._map, self._len = operator.is_, all, map, len

    def restore(self) -> None:
        """Puts them back, and notes whether they had been changed."""
        now, then = builtins.__dict__, self._names
        if self._len(now) != self._len(then) or not self._all(self._map(self._same, now.values(), then.values())):
            self.were_changed = True
            now.update(then)
            for name in now.keys() - then.keys():
                del now[name]


class Surroundings:
    """The state of a process at the time of construction, to compare with later.

    Args:
        builtins_: those of the process.
        temporary: its folder of temporary files; empty if it has none of its own.
    """

    def __init__(self, builtins_: Builtins, temporary: str) -> None:
        self._builtins = builtins_
        self._temporary = temporary
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
        self._path = sys.path.copy()
        self._finders = sys.meta_path.copy()
        self._limits = _limits()

    def restore(self) -> None:
        """Takes back what can be taken back without a new process: reassigned streams, recursion limit, the path
        of modules, the collector of garbage."""
        self._builtins.restore()  # once more: results run code of their own while they are pickled
        sys.stdin, sys.stdout, sys.stderr = self._standard
        if sys.path != self._path:
            sys.path[:] = self._path
        if not gc.isenabled():
            gc.enable()
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
        if self._builtins.were_changed:
            found.append("other builtins")
        if sys.getprofile() is not None or sys.gettrace() is not None:
            found.append("a profiler or tracer")
        if not _holds(sys.meta_path, self._finders):
            found.append("imports that no longer work")
        if _limits() != self._limits:
            found.append("other limits")
        if self._temporary and not _is_empty(self._temporary):
            found.append("temporary files")
        return ", ".join(found)


def _holds(finders: list[Any], former: list[Any]) -> bool:
    """Whether all of `former` are there still: modules may well add some when they are imported."""
    return all(any(finder is one for one in finders) for finder in former)


def _limits() -> list[Any]:
    return [resource.getrlimit(limit) for limit in _LIMITS] + [os.getpriority(os.PRIO_PROCESS, 0)]


def _is_empty(folder: str) -> bool:
    try:
        return not os.listdir(folder)
    except OSError:  # it was removed, or made something else
        return False


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
