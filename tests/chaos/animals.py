"""Hostile functions, as users write them by accident or on purpose.

Slots import this module, so it imports nothing but the standard library, and at the top only what is harmless.
Each function does its harm and nothing else; what has to come of it stands in `tests.chaos.zoo`.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import contextlib
import ctypes
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

#: Where a function finds what it may use up: no more, or the machine would suffer and not the task.
_BOMB_PROCESSES = 300
_HOG_BYTES = 2 << 30
#: How long the daemon that gets away sleeps: a number by which it is found, as nothing else sleeps for so long.
DAEMON_S = "86398.75"


def innocent(number: int) -> list[Any]:
    """Returns what it is due, and whether its surroundings are those of a process that nobody has spoiled."""
    with tempfile.TemporaryFile() as file:
        file.write(str(number).encode())
    time.sleep(0.005)
    tidy = (
        len("four") == 4
        and "HOSTILE" not in os.environ
        and os.getcwd() != "/"
        and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        and not signal.pthread_sigmask(signal.SIG_BLOCK, ())
        and threading.active_count() == 1
        and sys.getrecursionlimit() < 100_000
        and resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64
    )
    print("innocent", number)
    return [number * number, tidy]


# --- its process ends


def exits() -> NoReturn:
    os._exit(3)


def kills_itself(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(60)


def reads_nowhere() -> None:
    ctypes.string_at(0)


def becomes_another_program() -> NoReturn:
    os.execv("/bin/true", ["true"])


def kills_its_group() -> None:
    os.killpg(0, signal.SIGKILL)
    time.sleep(60)


def kills_its_parent() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def _parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def kills_its_supervisor() -> None:
    os.kill(_parent_of(os.getppid()), signal.SIGKILL)
    time.sleep(60)


# --- it stops what it depends on


def stops_its_parent() -> None:
    os.kill(os.getppid(), signal.SIGSTOP)
    blocks_signals_and_spins()


def stops_its_parent_all_the_time() -> NoReturn:
    while True:
        os.kill(os.getppid(), signal.SIGSTOP)


def stops_its_parent_and_returns() -> str:
    os.kill(os.getppid(), signal.SIGSTOP)
    return "done"


def stops_its_supervisor() -> None:
    os.kill(_parent_of(os.getppid()), signal.SIGSTOP)
    time.sleep(60)


def stops_the_supervisor_of_all() -> str:
    """That of the appliance, without which nothing that dies is started again."""
    os.kill(_parent_of(_parent_of(os.getppid())), signal.SIGSTOP)
    return "done"


def overflows_the_stack() -> str:
    sys.setrecursionlimit(1 << 30)

    class Endless:
        def __repr__(self) -> str:
            return repr([self])

    return repr(Endless())


def leaves_a_thread_that_exits() -> str:
    threading.Thread(target=lambda: (time.sleep(0.05), os._exit(6)), daemon=True).start()
    return "done"


# --- it raises


def raises_system_exit() -> NoReturn:
    raise SystemExit(2)


def raises_keyboard_interrupt() -> NoReturn:
    raise KeyboardInterrupt


def raises_stop_iteration() -> NoReturn:
    raise StopIteration


class Unpicklable(Exception):
    """Holds what no pickle can hold."""

    def __init__(self) -> None:
        super().__init__("unpicklable")
        self.generator = (number for number in ())


class NeedsTwo(Exception):
    """Pickles, and cannot be built again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Irreducible(Exception):
    def __reduce__(self) -> NoReturn:
        raise RuntimeError("no pickle for you")


class FatalWhenLoaded(Exception):
    def __reduce__(self) -> Any:
        return os._exit, (9,)


def raises_unpicklable() -> NoReturn:
    raise Unpicklable


def raises_what_cannot_be_built() -> NoReturn:
    raise NeedsTwo(1, 2)


def raises_mute() -> NoReturn:
    raise Mute


def raises_irreducible() -> NoReturn:
    raise Irreducible("irreducible")


def raises_what_exits_when_loaded() -> NoReturn:
    raise FatalWhenLoaded


def recurses() -> int:
    return recurses() + 1


def reads_input() -> str:
    return input()


# --- it returns


def returns_a_generator() -> Iterator[int]:
    yield 1


async def is_a_coroutine() -> int:
    await asyncio.sleep(0)
    return 7


class _ExitsWhenLoaded:
    def __reduce__(self) -> Any:
        return os._exit, (9,)


class _ExitsWhenPickled:
    def __reduce__(self) -> NoReturn:
        os._exit(5)


class _CannotBeLoaded:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def returns_what_exits_when_loaded() -> Any:
    return _ExitsWhenLoaded()


def returns_what_exits_when_pickled() -> Any:
    return _ExitsWhenPickled()


def returns_what_cannot_be_loaded() -> Any:
    return _CannotBeLoaded()


def returns_200_megabytes() -> bytes:
    return bytes(200 << 20)


class ExitsAsArgument:
    def __reduce__(self) -> Any:
        return os._exit, (4,)


class HugeAsArgument:
    def __reduce__(self) -> Any:
        return bytes, (1 << 46,)


def takes_one(argument: Any) -> Any:
    return argument


# --- it never ends


def _begin_to_spin() -> NoReturn:
    while True:
        pass


def blocks_signals_and_spins() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _begin_to_spin()


def stops_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)


def is_a_fork_bomb() -> None:
    """Every process forks for as long as it lives, until there have been as many as a test machine bears."""
    count = mmap.mmap(-1, 8)
    while True:
        made = struct.unpack("q", count[:8])[0]
        if made >= _BOMB_PROCESSES:
            time.sleep(60)
        count[:8] = struct.pack("q", made + 1)
        with contextlib.suppress(OSError):
            os.fork()


def catches_everything() -> None:
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def hogs_memory() -> None:
    held = []
    for _ in range(_HOG_BYTES >> 24):
        held.append(b"\1" * (1 << 24))
        time.sleep(0.01)


# --- it leaves something behind


def forks_a_child_that_returns() -> str:
    if os.fork() == 0:
        return "child"
    os.wait()
    return "parent"


def forks_a_child_that_raises() -> str:
    if os.fork() == 0:
        raise RuntimeError("the child")
    os.wait()
    return "parent"


def leaves_a_daemon() -> str:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            os.write(writer, b".")
            os.execve("/bin/sleep", ["sleep", DAEMON_S], {})  # and nothing in its environment tells whose it is
        os._exit(0)
    os.wait()
    os.read(reader, 1)
    return "done"


def leaves_threads() -> str:
    for _ in range(20):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return "done"


def leaves_a_thread_that_spins() -> str:
    threading.Thread(target=_begin_to_spin, daemon=True).start()
    return "done"


def exits_in_a_thread() -> str:
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    return "done"


def leaves_files() -> str:
    """200 MB in a temporary file, and others that are not easily removed."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        for _ in range(200):
            file.write(bytes(1 << 20))
    folder = tempfile.mkdtemp()
    os.mkdir(f"{folder}/locked")
    os.symlink("/", f"{folder}/link")
    with open(f"{folder}/locked/file", "w") as locked:
        locked.write("x")
    os.chmod(f"{folder}/locked", 0)
    return "done"


def leaves_a_file_and_dies() -> None:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(bytes(1 << 20))
    os._exit(3)


def changes_everything() -> str:
    os.chdir("/")
    os.umask(0)
    os.environ.clear()
    os.environ["HOSTILE"] = "1"
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    signal.setitimer(signal.ITIMER_REAL, 1000)
    sys.setrecursionlimit(1_000_000)
    return "done"


def patches_builtins() -> str:
    builtins.len = lambda _: 5  # type: ignore[assignment]
    builtins.sum = builtins.sorted = None  # type: ignore[assignment]
    return "done"


def breaks_imports() -> str:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise ImportError("not any more")

    builtins.__import__ = refuse
    sys.path.clear()
    sys.meta_path.clear()
    return "done"


def lowers_its_limits() -> str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    os.nice(5)
    return "done"


def traces_everything() -> str:
    def refuse(*_: object) -> NoReturn:
        sys.setprofile(refuse)  # for one that raises is dropped
        raise RuntimeError("traced")

    sys.setprofile(refuse)
    return "done"


def raises_at_exit() -> str:
    def refuse() -> NoReturn:
        raise RuntimeError("at exit")

    atexit.register(refuse)
    return "done"


# --- it spoils its connections


def closes_its_descriptors() -> None:
    os.closerange(0, 4096)
    time.sleep(60)


def closes_its_output() -> str:
    sys.stdout.close()
    sys.stderr.close()
    os.close(1)
    os.close(2)
    return "done"


class _Refuses:
    def __getattr__(self, name: str) -> NoReturn:
        raise SystemExit(name)


def replaces_its_output() -> str:
    sys.stdout = sys.stderr = sys.stdin = _Refuses()  # type: ignore[assignment]
    return "done"


def prints_a_gigabyte() -> str:
    megabyte = b"x" * (1 << 20)
    for _ in range(1024):
        os.write(1, megabyte)
    return "done"


def forges_frames() -> None:
    """Answers in its own name and in those of others, on whatever is open."""
    from everythingfaas.slot import control, frames

    forged = [frames.prefixed(4, frames.done_head(run, 1, "", None), 1) + b"N" for run in range(10_000, 10_010)]
    forged += [control.encode(control.Packet(verb, os.getpid(), 0)) for verb in range(8)]
    forged += [frames.prefixed(4, b"", 1 << 60), b"\xff" * 100, b"[1]"]
    for descriptor in range(64):
        for frame in forged:
            with contextlib.suppress(OSError):
                os.write(descriptor, frame)
    time.sleep(60)
