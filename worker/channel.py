"""The sockets of a worker, which it may throw away and make anew at any time."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Sequence

import zmq

from everythingfaas.errors import ProtocolError, VersionMismatch
from everythingfaas.wire.frames import Encoder, read_refusal, worker_decoder
from everythingfaas.wire.messages import FromDispatcher, FromWorker, Pull
from everythingfaas.worker_key import WorkerKey

log = logging.getLogger("worker")

#: Id of a connection: random, so that it is nobody else's and cannot be guessed. ZeroMQ's own begin with a zero.
PEER_BYTES = 16
#: How long the last message may take after the end.
LINGER_MS = 1000
RECONNECT_FIRST_MS = 50
RECONNECT_MAX_MS = 1000
MESSAGES_PER_TURN = 1000


class Channel:
    """The way to a dispatcher in push mode: one DEALER socket, to the first of the URLs until it is renewed.

    Args:
        urls: where dispatchers listen; each renewal goes on to the next.
        key: with which dispatchers let us in; None: they are on this machine, and ask for none.
    """

    def __init__(self, urls: Sequence[str], key: WorkerKey | None = None) -> None:
        self._urls = urls
        self._key = key
        self._turn = 0
        self._context = zmq.Context()
        self._poller: zmq.Poller | None = None
        self._encoder = Encoder()
        self._decoder = worker_decoder()
        self._peer = b""
        self._sockets: list[zmq.Socket[bytes]] = []
        self._open()

    @property
    def url(self) -> str:
        """Where the sockets lead."""
        return self._urls[self._turn % len(self._urls)]

    def register(self, poller: zmq.Poller) -> None:
        """Has the sockets polled, those to come included."""
        self._poller = poller
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)

    def receive(self) -> list[FromDispatcher]:
        """What has come in. Does not block."""
        messages: list[FromDispatcher] = []
        for socket in self._sockets:
            messages += self._receive(socket)
        return messages

    def send(self, message: FromWorker) -> None:
        """Sends if there is room; the session says again whatever matters."""
        self._send(self._sockets[0], message)

    def ask(self, pull: Pull) -> None:
        """Puts a question, in place of one that is not answered yet."""
        raise TypeError("a worker that is sent to does not ask")

    def renew(self) -> None:
        """Takes new sockets, to the next of the URLs."""
        self._close_sockets(linger_ms=0)
        self._turn += 1
        self._open()

    def close(self) -> None:
        """Sends what is still to be sent, for a second at the most."""
        self._close_sockets(linger_ms=LINGER_MS)
        self._context.term()

    def _open(self) -> None:
        # ZeroMQ's own ids begin with a zero.
        self._peer = bytes([1 + secrets.randbelow(255)]) + secrets.token_bytes(PEER_BYTES - 1)
        self._connect(zmq.DEALER, self._peer)

    def _connect(self, kind: int, identity: bytes) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.routing_id = identity
        socket.reconnect_ivl = RECONNECT_FIRST_MS
        socket.reconnect_ivl_max = RECONNECT_MAX_MS
        socket.tcp_keepalive = True
        socket.ipv6 = "[" in self.url
        if self._key is not None:
            socket.curve_serverkey = self._key.dispatcher.encode()
            socket.curve_publickey = self._key.public.encode()
            socket.curve_secretkey = self._key.secret.encode()
        socket.connect(self.url)
        self._sockets.append(socket)
        if self._poller is not None:
            self._poller.register(socket, zmq.POLLIN)
        return socket

    def _close_sockets(self, *, linger_ms: int) -> None:
        for socket in self._sockets:
            self._close_socket(socket, linger_ms=linger_ms)
        self._sockets.clear()

    def _close_socket(self, socket: zmq.Socket[bytes], *, linger_ms: int) -> None:
        if self._poller is not None:
            self._poller.unregister(socket)
        socket.close(linger_ms)

    def _receive(self, socket: zmq.Socket[bytes]) -> Iterable[FromDispatcher]:
        for _ in range(MESSAGES_PER_TURN):
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except zmq.ZMQError as exc:
                if exc.errno != zmq.EFSM:  # a REQ that has not asked
                    raise
                return
            message = self._read(frames)
            if message is not None:
                yield message

    def _read(self, frames: list[bytes]) -> FromDispatcher | None:
        try:
            return self._decoder.decode(frames)
        except VersionMismatch as exc:
            refusal = read_refusal(frames)
            if refusal is not None:
                return refusal
            log.warning("dropped a message: %s", exc)
        except ProtocolError as exc:
            log.warning("dropped a message: %s", exc)
        return None

    def _send(self, socket: zmq.Socket[bytes], message: FromWorker) -> None:
        try:
            socket.send_multipart(self._encoder.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            log.debug("no room for %s", type(message).__name__)
