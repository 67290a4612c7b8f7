"""Pull: workers ask on a REQ socket, and the answer is held back until there is work.

Each worker has two connections to the one port. Its DEALER, as in push, is for everything but tasks: the Kill of
a running function has to reach a worker that is not asking. Its REQ asks, and a `Run` is the answer:

    DEALER  [peer]                    [version, header, …]      both ways
    REQ     [peer + 4 bytes, id, ""]  [version, header]         Pull
            [peer + 4 bytes, id, ""]  [version, header, …]      Run

The 4 bytes number the worker's REQ sockets: it takes a new one where an answer got lost. REQ_CORRELATE makes the
`id`, by which an answer that comes too late is told from the one that is waited for.
"""

from __future__ import annotations

from typing import NamedTuple

from dispatcher.books import Send
from dispatcher.keyring import Keyring
from dispatcher.router import PEER_BYTES, RouterLink
from everythingfaas.errors import ProtocolError
from everythingfaas.wire.messages import FromWorker, Pull, Run

_QUESTION_BYTES = PEER_BYTES + 4
_REQUEST_ID_BYTES = 4
#: Questions of workers that are gone are forgotten when there are so many; one that asks still, asks again.
MAX_QUESTIONS = 10_000


class _Question(NamedTuple):
    number: int
    envelope: list[bytes]


class PullLink(RouterLink):
    """A link to workers that ask."""

    def __init__(self, address: str, *, max_result_bytes: int, keyring: Keyring | None = None) -> None:
        self._questions: dict[bytes, _Question] = {}
        super().__init__(address, max_result_bytes=max_result_bytes, keyring=keyring)

    def _read(self, frames: list[bytes]) -> tuple[bytes, FromWorker]:
        identity = frames[0]
        if len(identity) == PEER_BYTES:
            return identity, self._decode(frames[1:])
        if len(identity) != _QUESTION_BYTES or len(frames) < 3 or len(frames[1]) != _REQUEST_ID_BYTES or frames[2]:
            raise ProtocolError("a connection that no worker of ours makes")
        pull = self._decode(frames[3:])
        if not isinstance(pull, Pull):
            raise ProtocolError("a question for something else than tasks")
        peer = identity[:PEER_BYTES]
        self._ask(peer, _Question(pull.number, frames[:3]))
        return peer, pull

    def _ask(self, peer: bytes, question: _Question) -> None:
        known = self._questions.get(peer)
        if known is not None and known.number >= question.number:
            return
        if len(self._questions) >= MAX_QUESTIONS:
            del self._questions[next(iter(self._questions))]
        self._questions[peer] = question

    def _envelope(self, send: Send) -> list[bytes] | None:
        if not isinstance(send.message, Run):
            return [send.peer]
        question = self._questions.pop(send.peer, None)
        return None if question is None else question.envelope
