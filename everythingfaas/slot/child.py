"""A slot: what the forked process does until its supervisor or a function ends it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import tempfile
from typing import NoReturn, TextIO

from everythingfaas import prctl
from everythingfaas.slot.execute import Executor
from everythingfaas.slot.frames import Frame, FrameReader, Kind, done_head, parse_run_head, prefixed
from everythingfaas.slot.leftovers import Builtins, Surroundings

#: Exit code of a slot that cannot go on: a function has closed or broken the socket to the supervisor.
BROKEN = 70

_OUTPUT, _ERRORS, _SOCKET = 1, 2, 3
_SENT_TOGETHER = 64 * 1024
_UNLIMITED = 1 << 62  # the supervisor is trusted

_libc = ctypes.CDLL(None)


def run_slot(
    connection: int, output: int, *, zygote: int, folder: str, scratch: str, max_result_bytes: int
) -> NoReturn:
    """Turns a fork of the zygote into a slot and serves until the supervisor hangs up.

    Args:
        connection: descriptor of the stream socket to the supervisor.
        output: descriptor of the pipe that takes what functions print.
        zygote: pid of the parent.
        folder: the user's; comes first where modules are looked for.
        scratch: where the slot makes its own folder of temporary files, named after its pid.
        max_result_bytes: see `Executor`.
    """
    try:
        _leave_parent(zygote)
        _take_descriptors(connection, output)
        _reset_signals()
        sys.path.insert(0, folder)
        temporary = _take_temporary_folder(scratch)
        builtins = Builtins()
        executor = Executor(max_result_bytes=max_result_bytes, restore=builtins.restore)
        _serve(socket.socket(fileno=_SOCKET), executor, Surroundings(builtins, temporary))
    except BaseException:  # noqa: BLE001 nothing may come back into the zygote's loop
        os._exit(BROKEN)
    os._exit(0)


def _leave_parent(zygote: int) -> None:
    prctl.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != zygote:
        os._exit(BROKEN)  # it was gone before the kernel knew
    os.setsid()
    prctl.set_child_subreaper()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when memory runs out, a slot goes before anything else


def _take_descriptors(connection: int, output: int) -> None:
    """0 to 3 are input (which the zygote has from /dev/null), output, errors and the socket; no other is open."""
    os.dup2(output, _OUTPUT)
    os.dup2(output, _ERRORS)
    os.dup2(connection, _SOCKET, inheritable=False)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _SOCKET:
            with contextlib.suppress(OSError):
                os.close(int(name))
    sys.stdout = sys.__stdout__ = _text_stream(_OUTPUT)  # type: ignore[assignment,misc]
    sys.stderr = sys.__stderr__ = _text_stream(_ERRORS)  # type: ignore[assignment,misc]


def _take_temporary_folder(scratch: str) -> str:
    """What functions put there goes with this process; empty if there is no room for it."""
    folder = os.path.join(scratch, str(os.getpid()))
    try:
        os.mkdir(folder, 0o700)
    except OSError:  # functions that need none go on, the others say what is wrong
        return ""
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    return folder


def _text_stream(descriptor: int) -> TextIO:
    """Written by lines, so that what is printed is seen at once."""
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _serve(connection: socket.socket, executor: Executor, surroundings: Surroundings) -> None:
    reader = FrameReader(max_body=_UNLIMITED)
    while data := connection.recv(reader.read_size):
        for frame in reader.feed(data):
            match frame.kind:
                case Kind.LEARN:
                    executor.learn(frame.head, frame.body)
                case Kind.FORGET:
                    executor.forget(frame.head)
                case Kind.RUN:
                    _run(connection, executor, surroundings, frame)


def _run(connection: socket.socket, executor: Executor, surroundings: Surroundings, frame: Frame) -> None:
    run, digest = parse_run_head(frame.head)
    ended = executor.run(digest, frame.body)
    _flush()
    surroundings.restore()
    left = surroundings.differences()
    start = prefixed(Kind.DONE, done_head(run, ended.outcome, left, ended.error), len(ended.result))
    if len(ended.result) <= _SENT_TOGETHER:
        connection.sendall(start + ended.result)
    else:
        connection.sendall(start)
        connection.sendall(ended.result)


def _flush() -> None:
    """Sends what is printed and still held back on its way, before the answer says that this was all."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        # A function may have put anything there, which may raise anything.
        with contextlib.suppress(BaseException):
            stream.flush()  # type: ignore[union-attr]
    _libc.fflush(None)
