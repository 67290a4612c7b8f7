"""Signs of life: what a process says of itself for as long as it does what it is there for.

Two of them, for two listeners. Health checks look at a file that is touched while all is well, which it is not while
the database is away, say. Whoever started the process, and starts it again when it hangs, is told its pulse: that its
loop turns, whatever the world around it is like.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger("faas.alive")

#: The file is touched at most this often. Whoever looks at it should allow for some of these.
EVERY_S = 2.0
#: A pulse is given this often. Whoever listens should allow for some of these, too.
PULSE_S = 4.0


class SignOfLife:
    """Touches a file, if there is one to touch.

    Args:
        path: the file; None: nobody looks.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next = -math.inf if path is not None else math.inf

    def give(self, now: float) -> None:
        """Says that all is well. Costs a comparison, and every two seconds a system call or two."""
        if now < self._next or self._path is None:
            return
        self._next = now + EVERY_S
        try:
            self._path.touch()
        except OSError as exc:  # whoever looks at it will see; tasks need no health check
            log.warning("%s cannot be touched: %s", self._path, exc)


class Pulse:
    """Tells the service manager that we are not stuck, as ``sd_notify`` does: `faas up` listens, and so does systemd.

    Args:
        environ: has the address in NOTIFY_SOCKET; without it nobody listens.

    Attributes:
        due: when to call `give` again at the latest; infinite if nobody listens.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.due = 0.0 if address else math.inf

    def give(self, now: float) -> None:
        """Says that the loop turns. Costs a comparison, and every four seconds some system calls."""
        if now < self.due:
            return
        self.due = now + PULSE_S
        # With a socket for each: so there is nothing to be closed by whoever has one of these.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with contextlib.suppress(OSError):  # nobody listens any more
                sender.sendto(b"WATCHDOG=1", self._address)
