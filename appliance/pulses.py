"""Where the services of an appliance say that they do not hang: the listening end of `everythingfaas.alive.Pulse`."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct

_CREDENTIALS = struct.Struct("iII")  # struct ucred: process, user and group
_READS_PER_TURN = 100  # whoever floods us must not hold us


class Pulses:
    """A socket without a file, as the path of one may be too long for it.

    Anybody on this machine may write to it, and the kernel says who did.

    Attributes:
        address: for the variable NOTIFY_SOCKET of those that are to write to it.
    """

    def __init__(self) -> None:
        name = f"faas-{secrets.token_hex(16)}"
        self.address = f"@{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{name}")
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[int]:
        """The processes that have written since the last time."""
        pids = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READS_PER_TURN):
                _, about, _, _ = self._socket.recvmsg(64, socket.CMSG_SPACE(_CREDENTIALS.size))
                pids += [
                    _CREDENTIALS.unpack(data)[0]
                    for level, kind, data in about
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
                ]
        return pids

    def close(self) -> None:
        self._socket.close()
