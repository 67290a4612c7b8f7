"""The supervisor's end of its zygote, the process that forks the slots."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from pathlib import Path

import everythingfaas
from everythingfaas import proctree
from everythingfaas.slot import control
from everythingfaas.slot.control import Packet, Verb

# The folder of the user stands out of the way while the zygote imports what it needs, and comes first in the
# slots. The library itself may not be installed for this interpreter; its own folder is the last resort.
_BOOTSTRAP = """
import sys
folder, home, descriptor, supervisor, scratch, max_result_bytes = sys.argv[1:]
sys.path[:] = [entry for entry in sys.path if entry not in ("", folder)]
try:
    from everythingfaas.slot import zygote
except ImportError:
    sys.path.append(home)
    from everythingfaas.slot import zygote
zygote.main(int(descriptor), int(supervisor), folder, scratch, int(max_result_bytes))
"""
_HOME = str(Path(everythingfaas.__file__).resolve().parent.parent)

#: A zygote that owes an answer for longer is ended.
ANSWER_S = 10.0
#: But so often it is looked at whether some function has stopped it: what is to be killed is to be gone in a second.
LOOK_S = 0.2
#: Its first answer takes longer, as it imports dill before.
FIRST_ANSWER_S = 30.0
#: Restarts: at once, then after a wait that doubles up to the longest.
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
#: One that has lived for as long was well, and its loss starts the count anew.
WELL_S = 10.0

#: Zygotes of this process. They are its children, and in sessions of their own, as orphans of a slot are.
_living: set[int] = set()


class ZygoteHandle:
    """Starts a zygote and speaks with it. Nothing here waits, but for `end`.

    Args:
        folder: the user's, from which functions import.
        scratch: where slots keep their temporary files.
        max_result_bytes: a larger result fails its task.

    Raises:
        OSError: there is no such folder, or no room for a process.
    """

    def __init__(self, folder: Path, scratch: str, max_result_bytes: int) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        arguments = [str(folder), _HOME, str(theirs.fileno()), str(os.getpid()), scratch, str(max_result_bytes)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, *arguments],
                cwd=folder,
                env=slot_environment(dict(os.environ)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
        _living.add(self._process.pid)
        self._unsent: deque[tuple[Packet, list[socket.socket | int]]] = deque()
        self._unanswered = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def is_awaited(self) -> bool:
        """Whether it owes an answer: one that owes it for long is stopped or stuck."""
        return self._unanswered > 0

    @property
    def is_stopped(self) -> bool:
        """Whether a function has stopped it, which nobody else has reason to."""
        return proctree.is_stopped(self.pid)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    @property
    def has_unsent(self) -> bool:
        """Whether `send_pending` is to be called when the socket takes more."""
        return bool(self._unsent)

    def fork(self, number: int, connection: socket.socket, output: int, tickets: int) -> None:
        """Asks for a slot. The descriptors are the handle's from now on, to be closed when they are sent."""
        self._unanswered += 1
        self._unsent.append((Packet(Verb.FORK, number), [connection, output, tickets]))
        self.send_pending()

    def kill(self, pid: int) -> None:
        """Asks for the end of a slot, and of all that it has started. `Verb.EXITED` is the answer."""
        self._unanswered += 1
        self._unsent.append((Packet(Verb.KILL, pid), []))
        self.send_pending()

    def send_pending(self) -> None:
        while self._unsent:
            packet, passed = self._unsent[0]
            numbers = [item if isinstance(item, int) else item.fileno() for item in passed]
            try:
                socket.send_fds(self._socket, [control.encode(packet)], numbers)
            except BlockingIOError:
                return
            except OSError:  # it is gone, which reading finds out
                pass
            self._unsent.popleft()
            _close_all(passed)

    def read(self) -> list[Packet]:
        """What it has said since the last time.

        Raises:
            EOFError: it is gone.
        """
        packets: list[Packet] = []
        while True:
            try:
                packet = control.decode(self._socket.recv(2 * control.SIZE))
            except BlockingIOError:
                return packets
            except (OSError, struct.error, ValueError) as exc:
                raise EOFError from exc
            packets.append(packet)

    def answered(self) -> None:
        """A fork or a kill is done, or was overtaken by the slot's own end."""
        self._unanswered -= 1

    def end(self) -> None:
        """Ends it, its slots and everything that they have started. Takes milliseconds."""
        proctree.kill_tree(self.pid)
        self._process.kill()
        self._process.wait()
        _living.discard(self.pid)
        self._socket.close()
        for _, passed in self._unsent:
            _close_all(passed)
        self._unsent.clear()


class ZygoteWatch:
    """When a zygote is to be given up, and when to start another one. Knows the time as an argument only.

    One that is found stopped goes on, which costs the tasks in its slots nothing; found so again before it has
    answered, it is given up.
    """

    def __init__(self) -> None:
        self._first_heard: float | None = None
        self._awaited_since: float | None = None
        self._look_at = 0.0
        self._stops = 0
        self._losses = 0
        self._restart_at = 0.0

    def started(self) -> None:
        self._first_heard = None
        self._answered()

    def heard(self, now: float) -> None:
        self._answered()
        if self._first_heard is None:
            self._first_heard = now

    def lost(self, now: float) -> None:
        """It has ended, or could not be started."""
        if self._first_heard is not None and now - self._first_heard >= WELL_S:
            self._losses = 0
        wait = min(FIRST_BACKOFF_S * 2 ** (self._losses - 1), LONGEST_BACKOFF_S) if self._losses else 0.0
        self._losses += 1
        self._restart_at = now + wait

    def is_due(self, zygote: ZygoteHandle | None, now: float) -> bool:
        """Whether it is time to start another one; instead of `zygote`, if there is one."""
        if zygote is None:
            return now >= self._restart_at
        if not zygote.is_awaited:
            self._answered()
            return False
        if self._awaited_since is None:
            self._awaited_since = now
            self._look_at = now + LOOK_S
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            if zygote.is_stopped:
                self._stops += 1
                zygote.go_on()
        return self._stops > 1 or now >= self._awaited_since + self._patience

    def deadline(self, zygote: ZygoteHandle | None) -> float | None:
        """When to ask `is_due` again; in the past for at once."""
        if zygote is None:
            return self._restart_at
        if not zygote.is_awaited:
            return None
        return 0.0 if self._awaited_since is None else min(self._look_at, self._awaited_since + self._patience)

    def _answered(self) -> None:
        self._awaited_since = None
        self._stops = 0

    @property
    def _patience(self) -> float:
        return FIRST_ANSWER_S if self._first_heard is None else ANSWER_S


#: Variables without our prefix that are for this process alone; the second says where its pulse is felt.
_OURS_TOO = ("DJANGO_SETTINGS_MODULE", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


def slot_environment(variables: dict[str, str]) -> dict[str, str]:
    """Of `variables`, what functions see: the user's own, and of ours the one by which leftovers are found."""
    return {
        name: value
        for name, value in variables.items()
        if name == "FAAS_DATA_DIR" or not (name.startswith("FAAS_") or name in _OURS_TOO)
    }


def end_strangers(spared: set[int]) -> dict[int, int]:
    """Ends what is left of the slots of a zygote that is gone.

    They are children of this process now, as it is a subreaper, but in sessions of their own, unlike whatever
    else this process has started; those that are, all the same, stand in `spared`.

    Returns:
        The wait status of each.
    """
    statuses: dict[int, int] = {}
    session = os.getsid(0)
    while True:  # each one ended may leave children of its own
        strangers = [
            child.pid
            for child in proctree.children(os.getpid())
            if child.session != session and child.pid not in _living | spared | statuses.keys()
        ]
        if not strangers:
            return statuses
        for pid in strangers:
            proctree.kill_tree(pid)
            with contextlib.suppress(ChildProcessError):
                statuses[pid] = os.waitpid(pid, 0)[1]


def _close_all(items: list[socket.socket | int]) -> None:
    for item in items:
        if isinstance(item, int):
            os.close(item)
        else:
            item.close()
