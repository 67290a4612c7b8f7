"""Redis for a thread that may wait for it, but not for long."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

import hiredis

from api.redis_commands import NOTHING, TIMEOUT_S, Address, Command, RedisUnavailable, pack


class SyncLink:
    """A connection for one thread, which sends a list of commands in one write and reads all their replies.

    Connects when it is first used, and again after a failure.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._address = Address.parse(url)
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to `commands`; one that was refused is a `hiredis.ReplyError` among them.

        Raises:
            RedisUnavailable: there is no connection, it was lost, or the answer did not come in time.
        """
        try:
            if self._socket is None:
                self._connect()
            return self._exchange(commands)
        except (OSError, hiredis.ProtocolError) as exc:
            self.close()
            raise RedisUnavailable(str(exc)) from exc

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def detach(self) -> tuple[socket.socket, hiredis.Reader]:
        """The connection, for whoever reads it in another way from here on; there is one after a `call`."""
        if self._socket is None:
            raise RedisUnavailable("not connected")
        connection, self._socket = self._socket, None
        return connection, self._reader

    def _connect(self) -> None:
        address = self._address
        if address.path:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(self._timeout_s)
            self._socket.connect(address.path)
        else:
            self._socket = socket.create_connection((address.host, address.port), self._timeout_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls:
                context = ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=address.host)
        self._reader = hiredis.Reader(notEnoughData=NOTHING)
        refused = [reply for reply in self._exchange(address.greeting()) if isinstance(reply, Exception)]
        if refused:
            raise OSError(str(refused[0]))

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        assert self._socket is not None
        self._socket.sendall(b"".join(map(pack, commands)))
        replies: list[Any] = []
        while len(replies) < len(commands):
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("closed by the server")
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not NOTHING:
                replies.append(reply)
        return replies
