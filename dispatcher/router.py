"""What push and pull have in common: one ROUTER socket, to which workers connect.

Each worker chooses the id of its connection at random, 16 bytes and a new one for each socket; so an id can
neither be guessed nor met twice, and a connection speaks for the worker that said Hello on it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence

import zmq

from dispatcher.books import Send
from dispatcher.door import Door
from dispatcher.keyring import Keyring
from everythingfaas.errors import ConfigurationError, ProtocolError, VersionMismatch
from everythingfaas.wire.frames import HEADER_MAX, Encoder, dispatcher_decoder
from everythingfaas.wire.messages import PROTOCOL, FromWorker, Refuse

log = logging.getLogger("dispatcher.router")

#: A worker's id of its connection.
PEER_BYTES = 16
#: Messages that may wait for one worker in each direction; what is more is not sent, and goes to another one.
MESSAGES_PER_PEER = 1000
#: How long the last acknowledgements may take after the end.
LINGER_MS = 500
#: Who has connected has so long to prove who they are. What says nothing at all costs a descriptor until then.
HANDSHAKE_MS = 5000
#: Frames that no worker of ours sends are counted, and told of this often.
REPORT_S = 60.0
#: After so many messages in one turn something else gets its turn.
MESSAGES_PER_TURN = 5000


class Rejects:
    """Counts what was dropped at the door, and says so once a minute. Knows the time as an argument only."""

    #: Reasons may hold what a peer has sent: so many different ones are told apart, and no more.
    MAX_REASONS = 32

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self._untold: Counter[str] = Counter()
        self._tell_at = 0.0

    def count(self, reason: str, now: float) -> None:
        if reason not in self.total and len(self.total) >= self.MAX_REASONS:
            reason = "others"
        self.total[reason] += 1
        self._untold[reason] += 1
        self.expire(now)

    def expire(self, now: float) -> None:
        """Says what there is to say, if it is time."""
        if self._untold and now >= self._tell_at:
            told = ", ".join(f"{count} x {reason}" for reason, count in self._untold.most_common(5))
            log.warning("dropped what no worker of ours sends: %s", told)
            self._untold.clear()
            self._tell_at = now + REPORT_S

    def next_deadline(self) -> float:
        return self._tell_at if self._untold else float("inf")


class RouterLink(ABC):
    """A `dispatcher.loop.Link` to workers elsewhere.

    Args:
        address: where to listen, as ZeroMQ has it: ``tcp://127.0.0.1:5555`` or ``ipc:///path``.
        keyring: whose keys are let in; None: whoever reaches the address, which must be this machine's own.
        max_result_bytes: no frame is much larger than the largest result.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    ends_with_us = False
    has_answers = False

    def __init__(self, address: str, *, max_result_bytes: int, keyring: Keyring | None = None) -> None:
        self.rejects = Rejects()
        self._encoder = Encoder()
        self._decoder = dispatcher_decoder()
        self._max_result_bytes = max_result_bytes
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = LINGER_MS
        self._socket.sndhwm = self._socket.rcvhwm = MESSAGES_PER_PEER
        self._socket.router_mandatory = True  # or what is sent to a peer that is gone would vanish unheard
        self._socket.tcp_keepalive = True
        self._socket.backlog = 1024
        self._socket.handshake_ivl = HANDSHAKE_MS
        # Frames beyond this never get as far as us: the connection is closed by ZeroMQ while it reads them.
        self._socket.maxmsgsize = 2 * max(max_result_bytes, HEADER_MAX)
        self._socket.ipv6 = "[" in address
        self._door = None if keyring is None else Door(self._context, self._socket, keyring)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as exc:
            self.close()
            raise ConfigurationError(
                f"cannot listen on {address} for workers: {exc}; is another dispatcher running there? "
                "Choose another with -p (FAAS_DISPATCHER_PORT)"
            ) from None

    def register(self, poller: zmq.Poller) -> None:
        poller.register(self._socket, zmq.POLLIN)
        if self._door is not None:
            self._door.register(poller)

    def receive(self, now: float) -> Iterable[tuple[bytes, FromWorker]]:
        received = []
        if self._door is not None:
            for _ in range(self._door.answer()):
                self.rejects.count("a connection with a key that is not let in", now)
        for _ in range(MESSAGES_PER_TURN):
            try:
                frames, key = self._receive()
            except zmq.Again:
                break
            try:
                peer, message = self._read(frames)
                self._check(peer, key, message, now)
                received.append((peer, message))
            except VersionMismatch as exc:
                self._refuse(frames[0], exc.theirs, now)
            except ProtocolError as exc:
                self.rejects.count(str(exc).partition(":")[0], now)  # what follows is the peer's own
        self.rejects.expire(now)
        return received

    def _receive(self) -> tuple[list[bytes], str]:
        """The frames of one message, and the public key that its connection has, if there are keys."""
        if self._door is None:
            return self._socket.recv_multipart(zmq.NOBLOCK), ""
        frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        return [frame.bytes for frame in frames], str(frames[-1].get("User-Id"))

    def _check(self, peer: bytes, key: str, message: FromWorker, now: float) -> None:
        if self._door is None:
            return
        try:
            self._door.check(peer, key, message)
        except ProtocolError as exc:
            self._send(Send(peer, Refuse(f"you come with {exc}")), now)
            raise

    def send(self, sends: Iterable[Send], now: float) -> list[Send]:
        return [send for send in sends if not self._send(send, now)]

    def next_deadline(self) -> float:
        return self.rejects.next_deadline()

    def drain(self, now: float) -> None:  # noqa: B027 -- there is nothing to do
        """Workers elsewhere go on."""

    def kill(self, now: float) -> None:  # noqa: B027 -- there is nothing to do
        """Workers elsewhere go on, and deliver to the next dispatcher."""

    def close(self) -> None:
        self._socket.close()
        if self._door is not None:
            self._door.close()
        self._context.term()

    @abstractmethod
    def _read(self, frames: list[bytes]) -> tuple[bytes, FromWorker]:
        """The peer and its message, from the frames as ROUTER gives them.

        Raises:
            ProtocolError: it is not exactly one message that a worker sends this way.
        """

    @abstractmethod
    def _envelope(self, send: Send) -> list[bytes] | None:
        """The frames before the message; None: there is no way to the peer now."""

    def _decode(self, frames: Sequence[bytes]) -> FromWorker:
        for frame in frames:
            if len(frame) > max(self._max_result_bytes, HEADER_MAX):
                raise ProtocolError("a frame that is larger than any result may be")
        return self._decoder.decode(frames)

    def _send(self, send: Send, now: float) -> bool:
        if isinstance(send.message, Refuse) and not send.message.again:
            # What follows a comma is the peer's own, or advice to it.
            self.rejects.count(f"refused, {send.message.reason.partition(',')[0]}", now)
        if self._door is not None and not self._door.may_have(send.peer, send.message):
            return False
        envelope = self._envelope(send)
        if envelope is None:
            return False
        try:
            self._socket.send_multipart([*envelope, *self._encoder.encode(send.message)], zmq.NOBLOCK)
        except zmq.Again:  # it has stopped reading
            return False
        except zmq.ZMQError as exc:
            if exc.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True

    def _refuse(self, peer: bytes, version: int, now: float) -> None:
        """A worker of another version is told why, in the one message that all versions read."""
        self._send(Send(peer, Refuse(f"this dispatcher speaks protocol {PROTOCOL}, you speak {version}")), now)
