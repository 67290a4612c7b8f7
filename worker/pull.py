"""A worker that asks: beside the DEALER for everything else, a REQ socket that is answered with tasks."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from everythingfaas.wire.messages import Pull
from everythingfaas.worker_key import WorkerKey
from worker.channel import Channel


class PullChannel(Channel):
    """The way to a dispatcher in pull mode.

    A REQ socket waits for the answer to its question, and does nothing else before. A question whose answer got lost
    is put on a new one: its connection, and with it whatever may still come on it, is gone.
    """

    def __init__(self, urls: Sequence[str], key: WorkerKey | None = None) -> None:
        self._questions = 0
        self._asking: zmq.Socket[bytes] | None = None
        super().__init__(urls, key)

    def ask(self, pull: Pull) -> None:
        if self._asking is not None and not self._asking.poll(0, zmq.POLLOUT):
            self._sockets.remove(self._asking)
            self._close_socket(self._asking, linger_ms=0)
            self._asking = None
        if self._asking is None:
            self._asking = self._connect_question()
        self._send(self._asking, pull)

    def _open(self) -> None:
        super()._open()
        self._asking = None

    def _connect_question(self) -> zmq.Socket[bytes]:
        self._questions += 1
        socket = self._connect(zmq.REQ, self._peer + self._questions.to_bytes(4, "big"))
        socket.req_correlate = True
        return socket
