"""Who may connect: the answers to ZeroMQ's own question, and to whose key a message came with.

ZAP (https://rfc.zeromq.org/spec/27/): for each connection that has proved to hold the secret of its CURVE key, libzmq
asks on an inproc socket whether that key is let in, and marks all messages of the connection with the name that it
gets for an answer.
"""

from __future__ import annotations

import zmq

from dispatcher.keyring import Keyring
from everythingfaas.errors import ProtocolError
from everythingfaas.wire.messages import FromWorker, Hello

_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"
#: libzmq asks only for sockets that have a domain; any will do.
DOMAIN = b"workers"


class Door:
    """Makes a socket speak to nobody but holders of keys in `keyring`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], keyring: Keyring) -> None:
        self._keyring = keyring
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
            name = self._name(frames)
            refused += name is None
            verdict = [b"200", b"OK"] if name is not None else [b"400", b"no such key"]
            self._questions.send_multipart([_ZAP_VERSION, frames[1], *verdict, (name or "").encode(), b""])

    def check(self, name: str, message: FromWorker) -> None:
        """Checks that a message of a connection with the key `name` may still be, and speaks for nobody else.

        Raises:
            ProtocolError: the key is revoked, or a worker comes under a name that is not its key's.
        """
        if name not in self._keyring.workers().values():
            raise ProtocolError("a key that was revoked")
        if isinstance(message, Hello) and not message.name.startswith(f"{name}@"):
            raise ProtocolError("a worker under a name that is not its key's")

    def close(self) -> None:
        self._questions.close()

    def _name(self, frames: list[bytes]) -> str | None:
        # version, request id, domain, address, routing id, mechanism, key
        if len(frames) != 7 or frames[0] != _ZAP_VERSION or frames[2] != DOMAIN or frames[5] != b"CURVE":
            return None
        return self._keyring.workers().get(frames[6])
