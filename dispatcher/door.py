"""Who may connect: the answers to ZeroMQ's own question, and to whose key a message came with.

ZAP (https://rfc.zeromq.org/spec/27/): for each connection that has proved to hold the secret of its CURVE key, libzmq
asks on an inproc socket whether that key is let in, and marks all messages of the connection with the text that it
gets for an answer. Ours is the public key: a name may stand for another key later, once its own was revoked.
"""

from __future__ import annotations

from collections import OrderedDict

import zmq
from zmq.utils import z85

from dispatcher.keyring import Keyring
from everythingfaas.errors import ProtocolError
from everythingfaas.wire.messages import FromDispatcher, FromWorker, Function, Hello, Run

_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"
#: libzmq asks only for sockets that have a domain; any will do.
DOMAIN = b"workers"
#: Of so many connections it is remembered whose they are, those that spoke last.
KEPT_PEERS = 10_000


class Door:
    """Makes a socket speak to nobody but holders of keys in `keyring`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], keyring: Keyring) -> None:
        self._keyring = keyring
        self._keys: OrderedDict[bytes, str] = OrderedDict()
        own = keyring.own()
        self._questions = context.socket(zmq.REP)
        self._questions.linger = 0
        self._questions.bind(_ZAP_ADDRESS)
        socket.zap_domain = DOMAIN
        socket.curve_server = True
        socket.curve_publickey = own.public.encode()
        socket.curve_secretkey = own.secret.encode()

    def register(self, poller: zmq.Poller) -> None:
        poller.register(self._questions, zmq.POLLIN)

    def answer(self) -> int:
        """Answers what is asked. Returns how many were not let in."""
        refused = 0
        while True:
            try:
                frames = self._questions.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return refused
            key = self._key(frames)
            refused += key is None
            verdict = [b"400", b"no such key", b""] if key is None else [b"200", b"OK", z85.encode(key)]
            self._questions.send_multipart([_ZAP_VERSION, frames[1], *verdict, b""])

    def check(self, peer: bytes, key: str, message: FromWorker) -> None:
        """Checks that a message of the connection `peer`, which came with `key`, may be, and speaks for nobody else.

        Raises:
            ProtocolError: the key is revoked, or a worker comes under a name that is not its key's.
        """
        name = self._keyring.name_of(key)
        if name is None:
            raise ProtocolError("a key that was revoked")
        if isinstance(message, Hello) and not message.name.startswith(f"{name}@"):
            raise ProtocolError("a worker under a name that is not its key's")
        self._keys[peer] = key
        self._keys.move_to_end(peer)
        if len(self._keys) > KEPT_PEERS:
            self._keys.popitem(last=False)

    def may_have(self, peer: bytes, message: FromDispatcher) -> bool:
        """Whether the connection `peer` is sent this: nothing of users, once its key is revoked."""
        return not isinstance(message, Run | Function) or self._keyring.name_of(self._keys.get(peer, "")) is not None

    def close(self) -> None:
        self._questions.close()

    def _key(self, frames: list[bytes]) -> bytes | None:
        """The key that is asked about, if it is let in."""
        # version, request id, domain, address, routing id, mechanism, key
        if len(frames) != 7 or frames[0] != _ZAP_VERSION or frames[2] != DOMAIN or frames[5] != b"CURVE":
            return None
        return frames[6] if frames[6] in self._keyring.workers() else None
