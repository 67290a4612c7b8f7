"""Listens for the bell: connected by a thread that may wait, read by the dispatcher's loop, which may not.

A task that has just come waits for this. So it is the loop itself that polls the connection: a thread in between would
have to be woken first, and then to wake the loop.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping

import hiredis

from api.redis_commands import NOTHING, RedisUnavailable
from api.redis_sync import SyncLink

log = logging.getLogger("dispatcher.bell")

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0

OnRing = Mapping[bytes, Callable[[], None]]


class Line:
    """A connection on which a bell is rung, to be polled and read by one thread."""

    def __init__(self, connection: socket.socket, reader: hiredis.Reader, on_ring: OnRing) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._reader = reader
        self._on_ring = on_ring
        self.lost = threading.Event()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bool:
        """Rings for all that has come in. False when the connection is lost, and closed."""
        try:
            while True:
                data = self._socket.recv(65536)
                if not data:
                    self.close()
                    return False
                self._reader.feed(data)
                if not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
                    break  # what is left in the kernel is polled; what TLS has decoded already is not
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self.close()
            return False
        messages: set[bytes] = set()
        while (reply := self._reader.gets()) is not NOTHING:
            if isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message":
                messages.add(bytes(reply[2]))
        for message in messages:
            ring(self._on_ring, message)
        return True

    def close(self) -> None:
        self._socket.close()
        self.lost.set()


class Bell:
    """Calls what `on_ring` has for the message when one is published on `channel`, and all of them after each
    (re)connection, since what was published meanwhile is lost. So it does for a message that it does not know.
    While Redis is away nothing rings, and the dispatcher looks by itself.

    Args:
        listen: takes a line, to read it whenever there is something to read, until it is lost. From another thread.
    """

    def __init__(self, redis_url: str, channel: str, on_ring: OnRing, *, listen: Callable[[Line], None]) -> None:
        self._url = redis_url
        self._channel = channel
        self._on_ring = on_ring
        self._listen = listen
        self._closing = threading.Event()
        self._line: Line | None = None
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Connects no more. The line is the listener's, who stops to read it."""
        self._closing.set()
        if self._line is not None:
            self._line.lost.set()

    def _run(self) -> None:
        wait_s, told = RETRY_FIRST_S, False
        while not self._closing.is_set():
            try:
                line = self._connect()
            except RedisUnavailable as exc:
                if not told:
                    log.warning("no bell, new tasks are found within a second: %s", exc)
                    told = True
                self._closing.wait(wait_s)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
                continue
            wait_s, told = RETRY_FIRST_S, False
            self._line = line
            self._listen(line)
            for callback in self._on_ring.values():
                callback()
            line.lost.wait()

    def _connect(self) -> Line:
        link = SyncLink(self._url)
        (reply,) = link.call([("SUBSCRIBE", self._channel)])
        if isinstance(reply, Exception):
            raise RedisUnavailable(str(reply))
        return Line(*link.detach(), self._on_ring)


def ring(on_ring: OnRing, message: bytes) -> None:
    """Calls what is there for `message`, or everything if it is not known."""
    known = on_ring.get(message)
    for callback in on_ring.values() if known is None else (known,):
        callback()
