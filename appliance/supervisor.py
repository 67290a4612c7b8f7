"""The process that starts, restarts and stops the others: the hands of `appliance.lifecycle`.

One thread, one `select`, and no time-out but the lifecycle's own: when nothing happens it does not run at all.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from appliance import lifecycle
from appliance.child import CANNOT_EXECUTE, spawn
from appliance.console import tell
from appliance.folder import DataFolder
from appliance.lifecycle import Action, Lifecycle, ProcessSpec, Role
from appliance.logs import RotatingLog
from appliance.pulses import Pulses
from everythingfaas.prctl import set_child_subreaper
from everythingfaas.proctree import children, kill_tree

_LINES_SHOWN = 20
_CHUNK = 65536
_ROUNDS = 5
#: The roles that speak to the user; everybody else writes into a log.
_SPEAKERS = (Role.PROBE, Role.AFTERWARDS)


@dataclass
class _Output:
    """The pipe into which all lives of one process write, and the log that it ends in.

    The supervisor keeps the writing end too: so the pipe never ends, neither when a process is restarted nor
    when a grandchild holds on to it.
    """

    reader: int
    writer: int
    log: RotatingLog


class Supervisor:
    """Runs a plan, in a process of its own, until it is told to stop.

    Args:
        announcement: the line on standard output that says that everything serves.
        guard: becomes readable (ends) when the front process is gone.
    """

    def __init__(
        self, plan: Sequence[ProcessSpec], *, folder: DataFolder, announcement: str, shutdown_s: float, guard: int
    ) -> None:
        self._specs = {spec.name: spec for spec in plan}
        self._life = Lifecycle(plan, shutdown_s=shutdown_s)
        self._folder = folder
        self._announcement = announcement
        self._guard = guard
        self._pulses = Pulses()
        self._wake = -1
        self._pids: dict[int, str] = {}
        self._stillborn: list[str] = []
        self._outputs: dict[str, _Output] = {}
        self._own_log = RotatingLog(folder.log / "up.log")
        self._status: int | None = None

    def run(self) -> int:
        """Run everything, and return the exit status when everything is gone."""
        set_child_subreaper()
        with selectors.DefaultSelector() as selector:
            try:
                self._open(selector)
                self._perform(self._life.start(time.monotonic()))
                while self._status is None:
                    self._turn(selector)
            finally:
                kill_tree(os.getpid(), include_root=False)
                self._close()
        return self._status

    def _open(self, selector: selectors.BaseSelector) -> None:
        self._wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, _do_nothing)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        selector.register(self._wake, selectors.EVENT_READ, self._on_signals)
        selector.register(self._guard, selectors.EVENT_READ, self._on_front_gone)
        selector.register(self._pulses, selectors.EVENT_READ, self._on_pulses)
        for spec in self._specs.values():
            if spec.role not in _SPEAKERS and not spec.speaks:
                reader, writer = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(reader, False)
                output = _Output(reader, writer, RotatingLog(self._folder.log / f"{spec.name}.log"))
                self._outputs[spec.name] = output
                selector.register(reader, selectors.EVENT_READ, lambda _, output=output: _move(output))

    def _turn(self, selector: selectors.BaseSelector) -> None:
        deadline = self._life.next_deadline()
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        for key, _ in selector.select(timeout):
            if self._status is None:
                key.data(selector)
        if self._status is None:
            self._perform(self._life.expire(time.monotonic()))

    def _on_signals(self, selector: selectors.BaseSelector) -> None:
        for signum in os.read(self._wake, 512):
            if signum != signal.SIGCHLD:
                self._perform(self._life.interrupt(time.monotonic()))
        self._reap()

    def _on_pulses(self, selector: selectors.BaseSelector) -> None:
        for pid in self._pulses.read():
            if pid in self._pids:
                self._life.pulse(self._pids[pid], time.monotonic())

    def _on_front_gone(self, selector: selectors.BaseSelector) -> None:
        selector.unregister(self._guard)
        self._say("the process in front was killed; stopping")
        self._perform(self._life.stop(time.monotonic()))

    def _reap(self) -> None:
        while self._status is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self._pids.get(pid)
            if name is None:  # an orphan that had come to us
                continue
            if os.WIFSTOPPED(status):
                self._note(f"{name} was stopped by a signal")
                self._life.stopped(name, time.monotonic())
            elif os.WIFCONTINUED(status):
                self._life.continued(name)
            else:
                del self._pids[pid]
                self._on_exit(name, os.waitstatus_to_exitcode(status))

    def _on_exit(self, name: str, code: int) -> None:
        self._folder.remove_pid(name)
        if name in self._outputs:
            _move(self._outputs[name], everything=True)
        if self._specs[name].role is Role.SERVICE:
            self._kill_orphans()
        self._note(f"{name} ended ({lifecycle.describe(code)})")
        self._perform(self._life.exited(name, code, time.monotonic()))

    def _kill_orphans(self) -> None:
        """End what came to us because its parents are gone: with its dispatcher, a running function has lost
        whoever could take its result, and must not run beside its own second attempt."""
        for _ in range(_ROUNDS):  # what is orphaned by this comes to us too
            orphans = [other for other in children(os.getpid()) if other.pid not in self._pids and not other.dead]
            for orphan in orphans:
                kill_tree(orphan.pid, timeout_s=0.5)
            if not orphans:
                return

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case lifecycle.Spawn(name):
                    self._spawn(self._specs[name])
                case lifecycle.Terminate(name):
                    self._terminate(self._specs[name])
                case lifecycle.Kill(name):
                    kill_tree(self._pid(name), timeout_s=0.5)
                case lifecycle.Announce():
                    self._announce()
                case lifecycle.Say(text):
                    self._say(text)
                case lifecycle.ShowLog(name):
                    self._show_log(name)
                case lifecycle.Finish(status):
                    self._status = status
        while self._stillborn:  # told when everything else was done that the lifecycle takes for done
            self._perform(self._life.exited(self._stillborn.pop(), CANNOT_EXECUTE, time.monotonic()))

    def _spawn(self, spec: ProcessSpec) -> None:
        output = self._outputs.get(spec.name)
        environ = spec.environ
        if spec.role is Role.SERVICE:
            environ = {**environ, "NOTIFY_SOCKET": self._pulses.address}
        try:
            pid = spawn(spec.command, environ, output=output.writer if output else None)
        except OSError as error:  # no process left on this machine: that is no reason to end what runs
            self._say(f"{spec.name} cannot be started: {error.strerror}")
            self._stillborn.append(spec.name)
            return
        self._pids[pid] = spec.name
        if spec.role is Role.SERVICE:
            self._folder.write_pid(spec.name, pid)
        self._note(f"{spec.name} started, process {pid}")

    def _terminate(self, spec: ProcessSpec) -> None:
        # Not reaped yet, or it would not be in the table: so the number is still its own.
        os.kill(self._pid(spec.name), signal.SIGTERM)
        self._note(f"{spec.name} told to stop")
        if spec.farewell is not None:
            spec.farewell()

    def _pid(self, name: str) -> int:
        return next(pid for pid, owner in self._pids.items() if owner == name)

    def _announce(self) -> None:
        with contextlib.suppress(OSError):
            os.write(1, f"{self._announcement}\n".encode())
        self._say("everything serves; stop it with Ctrl-C")

    def _show_log(self, name: str) -> None:
        if name in self._outputs:
            for line in self._outputs[name].log.tail(_LINES_SHOWN):
                tell(f"{name}: {line}")

    def _say(self, text: str) -> None:
        tell(f"faas: {text}")
        self._note(text)

    def _note(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._own_log.write(f"{stamp} {text}\n".encode(errors="replace"))

    def _close(self) -> None:
        self._pulses.close()
        for output in self._outputs.values():
            _move(output, everything=True)
            output.log.close()
        self._note("everything is gone")
        self._own_log.close()


def _do_nothing(signum: int, frame: object) -> None:
    """Only there so that the signal is written to the wake-up pipe."""


def _move(output: _Output, *, everything: bool = False) -> None:
    """Bring what was written to the pipe into the log."""
    with contextlib.suppress(BlockingIOError):
        output.log.write(os.read(output.reader, _CHUNK))
        for _ in range(16 if everything else 0):  # a pipe holds 16 of these at most; who writes on must not hold us
            output.log.write(os.read(output.reader, _CHUNK))
