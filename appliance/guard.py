"""The process in front: what the user started, and what outlives everything else.

It forks the supervisor and waits, in one system call. If the supervisor ends, however it ends, the front kills
what is left of the tree (as a subreaper it gets whatever the supervisor leaves); if the front itself is killed,
a pipe ends and the supervisor stops everything. If both are killed at once, the next start sweeps.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from appliance.console import tell
from appliance.folder import DataFolder
from appliance.lifecycle import ProcessSpec
from appliance.supervisor import Supervisor
from appliance.sweep import sweep
from appliance.valkey import forget_socket
from everythingfaas.prctl import set_child_subreaper
from everythingfaas.proctree import kill_tree


@dataclass(frozen=True)
class Appliance:
    """What is to run, and what to say when it does."""

    plan: Sequence[ProcessSpec]
    announcement: str
    shutdown_s: float


def run_guarded(folder: DataFolder, prepare: Callable[[], Appliance]) -> int:
    """Run what `prepare` returns on `folder` until it is stopped; the exit status.

    `prepare` is called when the folder is ours and empty of remainders, so it may look for free ports and
    write into ``run/``.

    Raises:
        ConfigurationError: the folder cannot be written or is in use, or whatever `prepare` raises.
    """
    signals = _signals_to_stop()
    # From here on they wait until somebody takes them; the supervisor inherits that until it is ready for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*signals, signal.SIGCHLD})
    set_child_subreaper()
    folder.prepare()
    lock = folder.lock()
    try:
        if killed := sweep(folder.path):
            tell(f"faas: killed {killed} processes that an earlier run had left")
        _clear(folder)
        try:
            supervisor = _fork_supervisor(folder, prepare())
            return _wait(supervisor, signals)
        finally:
            kill_tree(os.getpid(), include_root=False)
            _clear(folder)
    finally:
        os.close(lock)


def _signals_to_stop() -> set[signal.Signals]:
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # started by nohup
        signals.remove(signal.SIGHUP)
    return signals


def _fork_supervisor(folder: DataFolder, appliance: Appliance) -> int:
    guard, kept = os.pipe2(os.O_CLOEXEC)
    gc.freeze()  # what both share stays shared
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(kept)
            os.setsid()  # Ctrl-C is for the front, which passes it on
            supervisor = Supervisor(
                appliance.plan,
                folder=folder,
                announcement=appliance.announcement,
                shutdown_s=appliance.shutdown_s,
                guard=guard,
            )
            status = supervisor.run()
            _clear(folder)  # the front does so too, unless it is gone
        except BaseException:  # noqa: BLE001 -- this copy of the front must end here, whatever happened
            with contextlib.suppress(OSError):
                traceback.print_exc()
        finally:
            os._exit(status)
    os.close(guard)
    return pid


def _wait(supervisor: int, signals: set[signal.Signals]) -> int:
    while True:
        signum = signal.sigwait({*signals, signal.SIGCHLD})
        if signum != signal.SIGCHLD:
            os.kill(supervisor, signal.SIGTERM)
            continue
        pid, status = os.waitpid(supervisor, os.WNOHANG | os.WUNTRACED)
        if pid == 0:  # it goes on
            continue
        if os.WIFSTOPPED(status):  # by some function: whoever wants everything to stand still stops the front as well
            os.kill(supervisor, signal.SIGCONT)
            continue
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            tell("faas: the supervisor was killed; ending everything")
            return 1
        return code


def _clear(folder: DataFolder) -> None:
    forget_socket(folder)
    folder.clear()
