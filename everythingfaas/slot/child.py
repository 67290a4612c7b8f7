"""A slot: what the forked process does until its supervisor or a function ends it."""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import sys
import tempfile
import termios
import time
from collections import deque
from typing import NoReturn, TextIO

from everythingfaas import prctl
from everythingfaas.slot.execute import Executor
from everythingfaas.slot.frames import Frame, FrameReader, Kind, done_head, parse_run_head, prefixed
from everythingfaas.slot.leftovers import Builtins, Surroundings
from everythingfaas.slot.tickets import Tickets

#: Exit code of a slot that cannot go on: a function has closed or broken the socket to the supervisor.
BROKEN = 70

_OUTPUT, _ERRORS, _SOCKET, _TICKETS = 1, 2, 3, 4
_SENT_TOGETHER = 64 * 1024
_UNLIMITED = 1 << 62  # the supervisor is trusted

_libc = ctypes.CDLL(None)
_monotonic = time.monotonic  #: whatever a function makes of the module
_unread = array.array("i", [0])


def run_slot(
    connection: int, output: int, tickets: int, *, zygote: int, folder: str, scratch: str, max_result_bytes: int
) -> NoReturn:
    """Turns a fork of the zygote into a slot and serves until the supervisor hangs up.

    Args:
        connection: descriptor of the stream socket to the supervisor.
        output: descriptor of the pipe that takes what functions print.
        tickets: descriptor of the pipe that says what begins, see `everythingfaas.slot.tickets`.
        zygote: pid of the parent.
        folder: the user's; comes first where modules are looked for.
        scratch: where the slot makes its own folder of temporary files, named after its pid.
        max_result_bytes: see `Executor`.
    """
    try:
        _leave_parent(zygote)
        _take_descriptors(connection, output, tickets)
        _reset_signals()
        sys.path.insert(0, folder)
        temporary = _take_temporary_folder(scratch)
        builtins = Builtins()
        executor = Executor(max_result_bytes=max_result_bytes, restore=builtins.restore)
        _Slot(socket.socket(fileno=_SOCKET), executor, Surroundings(builtins, temporary)).serve()
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


def _take_descriptors(connection: int, output: int, tickets: int) -> None:
    """0 to 4 are input (which the zygote has from /dev/null), output, errors, the socket and the tickets; no other is
    open."""
    os.dup2(output, _OUTPUT)
    os.dup2(output, _ERRORS)
    os.dup2(connection, _SOCKET, inheritable=False)
    os.dup2(tickets, _TICKETS, inheritable=False)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _TICKETS:
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


class _Slot:
    """Takes jobs, one after the other, and answers."""

    def __init__(self, connection: socket.socket, executor: Executor, surroundings: Surroundings) -> None:
        self._connection = connection
        self._executor = executor
        self._surroundings = surroundings
        self._tickets = Tickets(_TICKETS)
        self._reader = FrameReader(max_body=_UNLIMITED)
        self._inbox: deque[Frame] = deque()

    def serve(self) -> None:
        """Until the supervisor hangs up, or a function leaves something behind: then it has this process ended."""
        with contextlib.suppress(EOFError):
            while True:
                while self._inbox:
                    self._obey(self._inbox.popleft())
                self._receive()

    def _receive(self) -> None:
        data = self._connection.recv(self._reader.read_size)
        if not data:
            raise EOFError
        self._inbox += self._reader.feed(data)

    def _obey(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RUN:
                run, digest = parse_run_head(frame.head)
                if self._tickets.admit(run):
                    self._run(run, digest, frame.body)
            case Kind.LEARN:
                self._executor.learn(frame.head, frame.body)
            case Kind.FORGET:
                self._executor.forget(frame.head)

    def _run(self, run: int, digest: bytes, payload: bytes) -> None:
        began = _monotonic()
        ended = self._executor.run(digest, payload)
        elapsed_s = _monotonic() - began
        _flush()
        self._surroundings.restore()
        left = self._surroundings.differences()
        printed = _has_printed()
        head = done_head(run, ended.outcome, left, ended.error, elapsed_s=elapsed_s, printed=printed)
        start = prefixed(Kind.DONE, head, len(ended.result))
        if len(ended.result) <= _SENT_TOGETHER:
            self._connection.sendall(start + ended.result)
        else:
            self._connection.sendall(start)
            self._connection.sendall(ended.result)
        if left:
            self._idle()
        if printed:
            self._wait_for_resume()

    def _wait_for_resume(self) -> None:
        """What the next run prints would not be told from what this one has printed."""
        later: list[Frame] = []
        while True:
            while self._inbox:
                frame = self._inbox.popleft()
                if frame.kind == Kind.RESUME:
                    self._inbox.extendleft(reversed(later))
                    return
                later.append(frame)
            self._receive()

    def _idle(self) -> NoReturn:
        """Begins nothing any more."""
        while self._connection.recv(_SENT_TOGETHER):
            continue
        raise EOFError


def _has_printed() -> bool:
    """Whether there is something in the pipe for output that nobody has read yet."""
    try:
        fcntl.ioctl(_OUTPUT, termios.FIONREAD, _unread)
    except OSError:  # closed, or made something else: that is something left behind, and tells more
        return False
    return _unread[0] > 0


def _flush() -> None:
    """Sends what is printed and still held back on its way, before the answer says that this was all."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        # A function may have put anything there, which may raise anything.
        with contextlib.suppress(BaseException):
            stream.flush()  # type: ignore[union-attr]
    _libc.fflush(None)
