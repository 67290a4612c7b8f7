"""Starting one child: in a session of its own, bound to the life of its parent, with nothing of ours open."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence

from everythingfaas.prctl import set_parent_death_signal

CANNOT_EXECUTE = 127

#: Python ignores these two, and what is ignored stays so in the program that a child becomes.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def spawn(command: Sequence[str], environ: Mapping[str, str], *, output: int | None = None) -> int:
    """Start `command` and return its process id; standard output and error go to `output`, else to ours.

    The child leads a session of its own, so that Ctrl-C on the terminal reaches the launcher alone, and is
    killed when the *thread* that called this ends (which is why the supervisor has one thread). A command that
    cannot be executed ends with status 127, after a line in its output.

    This is a plain fork and not `subprocess`: the supervisor has to reap children that it never started (orphans
    that came to it), which a `Popen` beside it would take for the loss of its own.
    """
    parent = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become(command, environ, output, parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return pid


def _become(command: Sequence[str], environ: Mapping[str, str], output: int | None, parent: int) -> None:
    try:
        os.setsid()
        set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(CANNOT_EXECUTE)  # it died before it could be watched
        _redirect(output)
        _reset_signals()
        os.execve(command[0], list(command), dict(environ))  # noqa: S606 -- no shell is the point
    except BaseException as error:  # noqa: BLE001 -- whatever it is, this copy of the supervisor must not go on
        os.write(2, f"cannot execute {command[0]}: {error}\n".encode())
    finally:
        os._exit(CANNOT_EXECUTE)


def _redirect(output: int | None) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for signum in (*_IGNORED_BY_PYTHON, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
