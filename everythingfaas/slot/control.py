"""Messages between the supervisor and its zygote: one packet each, on a SOCK_SEQPACKET pair."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

_PACKET = struct.Struct("!Bii")

#: Of a packet; a shorter or longer one is not ours.
SIZE = _PACKET.size


class Verb(enum.IntEnum):
    FORK = 1  #: to the zygote: number; the slot's socket, its output pipe and its tickets come with the packet
    KILL = 2  #: to the zygote: end the slot with this pid and everything that it has started
    READY = 3  #: from the zygote: everything is imported
    FORKED = 4  #: from the zygote: number of the request, pid
    FORK_FAILED = 5  #: from the zygote: number of the request, errno
    EXITED = 6  #: from the zygote: pid, wait status; all that the slot had started is gone, too


class Packet(NamedTuple):
    verb: int
    subject: int  #: number of a fork request, or a pid
    detail: int = 0


def encode(packet: Packet) -> bytes:
    return _PACKET.pack(*packet)


def decode(raw: bytes) -> Packet:
    """Raises struct.error if `raw` is no packet."""
    return Packet(*_PACKET.unpack(raw))
