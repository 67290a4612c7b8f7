"""The parent of all slots: small, single-threaded, and without a line of user code.

It forks a slot when told to, ends one with everything that it has started when told to, and reports how
slots ended. It dies with its supervisor, and its slots die with it.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
import sys
from typing import NoReturn

from everythingfaas import prctl, proctree
from everythingfaas.slot import control
from everythingfaas.slot.child import run_slot
from everythingfaas.slot.control import Packet, Verb
from everythingfaas.slot.scratch import remove_tree

#: A process that hangs in the kernel for longer is left to the next look at strangers.
_KILL_TIMEOUT_S = 1.0


class Zygote:
    """Serves one supervisor until it hangs up.

    Args:
        supervisor: the control socket.
        folder: the user's, see `run_slot`.
        scratch: see `run_slot`; what slots have left there is removed when they are dead.
        max_result_bytes: see `run_slot`.
    """

    def __init__(self, supervisor: socket.socket, *, folder: str, scratch: str, max_result_bytes: int) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._scratch = scratch
        self._max_result_bytes = max_result_bytes
        self._pid = os.getpid()
        self._slots: set[int] = set()
        self._removers: set[int] = set()

    def serve(self) -> None:
        """Returns when the supervisor has closed its end, with no slot left."""
        woken = _wake_on_child()
        poll = select.poll()
        poll.register(self._supervisor, select.POLLIN)
        poll.register(woken, select.POLLIN)
        self._send(Packet(Verb.READY, self._pid))
        connected = True
        while connected:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if woken.fileno() in ready:
                woken.recv(4096)
                self._reap()
            if self._supervisor.fileno() in ready:
                connected = self._obey()
        proctree.kill_tree(self._pid, include_root=False)

    def _obey(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._supervisor, control.SIZE, 3)
        if not data:
            return False
        packet = control.decode(data)
        if packet.verb == Verb.FORK:
            self._fork(packet.subject, *descriptors)
        elif packet.verb == Verb.KILL and packet.subject in self._slots:
            proctree.kill_tree(packet.subject, timeout_s=_KILL_TIMEOUT_S)
            self._reap()
        return True

    def _fork(self, number: int, connection: int, output: int, tickets: int) -> None:
        try:
            pid = os.fork()
        except OSError as exc:
            pid = -(exc.errno or errno.EAGAIN)
        if pid == 0:
            run_slot(
                connection,
                output,
                tickets,
                zygote=self._pid,
                folder=self._folder,
                scratch=self._scratch,
                max_result_bytes=self._max_result_bytes,
            )
        for descriptor in (connection, output, tickets):
            os.close(descriptor)
        if pid < 0:
            self._send(Packet(Verb.FORK_FAILED, number, -pid))
        else:
            self._slots.add(pid)
            self._send(Packet(Verb.FORKED, number, pid))

    def _reap(self) -> None:
        """Collects the dead. What a dead slot had started is a child of the zygote now, and is ended before
        the supervisor hears of the slot's end."""
        ended = []
        while exited := _next_exited():
            if exited[0] in self._slots:
                self._slots.remove(exited[0])
                ended.append(exited)
            self._removers.discard(exited[0])
        if ended:
            self._kill_strangers()
        for pid, status in ended:
            self._send(Packet(Verb.EXITED, pid, status))
        for pid, _ in ended:
            self._remove_files(pid)

    def _remove_files(self, slot: int) -> None:
        """Removes the temporary files of a dead slot. That may take long, so a process of its own does it."""
        folder = os.path.join(self._scratch, str(slot))
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:  # there is something in it
            try:
                pid = os.fork()
            except OSError:  # what is left is removed with the whole
                return
            if pid == 0:
                _remove_and_exit(folder, self._pid)
            self._removers.add(pid)

    def _kill_strangers(self) -> None:
        for child in proctree.children(self._pid):
            if child.pid not in self._slots and child.pid not in self._removers and not child.dead:
                proctree.kill_tree(child.pid, timeout_s=_KILL_TIMEOUT_S)

    def _send(self, packet: Packet) -> None:
        self._supervisor.send(control.encode(packet))


def main(control_descriptor: int, supervisor_pid: int, folder: str, scratch: str, max_result_bytes: int) -> None:
    """Entry point of the process that the supervisor starts."""
    prctl.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != supervisor_pid:
        return
    prctl.set_child_subreaper()
    _normalize_signals()
    _leave_no_names()
    gc.collect()
    gc.freeze()  # no collection touches these objects, so slots go on sharing their memory
    supervisor = socket.socket(fileno=control_descriptor)
    supervisor.set_inheritable(False)
    Zygote(supervisor, folder=folder, scratch=scratch, max_result_bytes=max_result_bytes).serve()


def _remove_and_exit(folder: str, zygote: int) -> NoReturn:
    try:
        prctl.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() == zygote:
            remove_tree(folder)
    finally:
        os._exit(0)


def _next_exited() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _wake_on_child() -> socket.socket:
    """A socket that becomes readable when a child has ended."""
    woken, waker = socket.socketpair()
    woken.setblocking(False)
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.detach(), warn_on_full_buffer=False)
    return woken


def _normalize_signals() -> None:
    """What the shell or nohup has ignored or blocked is no business of the functions."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # which Python itself ignores
        if signal.getsignal(signum) == signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave_no_names() -> None:
    """Functions of a client's ``__main__`` find this process's one: it must hold nothing that they may use."""
    names = vars(sys.modules["__main__"])
    for name in [name for name in names if not name.startswith("__")]:
        del names[name]
    sys.argv[:] = [""]
