"""Frames between a supervisor and one slot: raw bytes with a fixed prefix, on a stream socket.

    magic u16 │ kind u8 │ length of head u32 │ length of body u64 │ head │ body

A function shares its process with the slot's end of this socket and may write whatever it likes there. So
nothing here is a pickle, lengths are checked before anything is kept, and an answer carries the number of
the run that it answers: all that a forger can spoil is his own run.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from everythingfaas.errors import ProtocolError
from everythingfaas.status import Outcome

_MAGIC = 0xFA45
_PREFIX = struct.Struct("!HBIQ")
_RUN = struct.Struct("!Q32s")
_DONE = struct.Struct("!QdBBHHHH")

_OUTCOMES = {outcome.value: outcome for outcome in (Outcome.RETURNED, Outcome.RAISED)}

#: No head is larger: type name, message, traceback and the words for what was left behind.
MAX_HEAD = 16 * 1024
MAX_NAME, MAX_MESSAGE, MAX_TRACEBACK = 512, 2 * 1024, 8 * 1024

#: How much to ask a socket for at once; the larger figure while a large body is on its way.
_READ, _READ_MORE = 64 * 1024, 1024 * 1024


class Kind(enum.IntEnum):
    LEARN = 1  #: to the slot: keep this function; head: its digest, body: its bytes
    FORGET = 2  #: to the slot: drop that function; head: its digest
    RUN = 3  #: to the slot: head: number of the run and digest, body: the arguments' bytes
    DONE = 4  #: to the supervisor: see `Answer`; body: the result's bytes
    RESUME = 5  #: to the slot: what the last run had printed is read


class Frame(NamedTuple):
    kind: int
    head: bytes
    body: bytes


class ErrorParts(NamedTuple):
    """What was raised, as text."""

    type_name: str
    message: str
    traceback: str


class Answer(NamedTuple):
    """How a run ended."""

    run: int
    elapsed_s: float  #: by the slot's own clock
    outcome: Outcome  #: RETURNED or RAISED
    left: str  #: what the function left behind, in words; empty if the process is as it was
    printed: bool  #: something that it printed was not read yet: the slot waits for `Kind.RESUME`
    error: ErrorParts | None
    result: bytes


def prefixed(kind: Kind, head: bytes, body_length: int = 0) -> bytes:
    """All of a frame but its body, which may be large and is better sent from where it is."""
    return _PREFIX.pack(_MAGIC, kind, len(head), body_length) + head


def run_head(run: int, digest: bytes) -> bytes:
    return _RUN.pack(run, digest)


def parse_run_head(head: bytes) -> tuple[int, bytes]:
    run, digest = _RUN.unpack(head)
    return run, digest


def done_head(
    run: int, outcome: Outcome, left: str, error: ErrorParts | None, *, elapsed_s: float = 0.0, printed: bool = False
) -> bytes:
    if not left and error is None:
        return _DONE.pack(run, elapsed_s, outcome, printed, 0, 0, 0, 0)
    name, message, traceback = error or ("", "", "")
    texts = [
        clip(name, MAX_NAME),
        clip(message, MAX_MESSAGE),
        clip(traceback, MAX_TRACEBACK, keep_end=True),
        clip(left, MAX_NAME),
    ]
    return _DONE.pack(run, elapsed_s, outcome, printed, *map(len, texts)) + b"".join(texts)


def parse_answer(frame: Frame) -> Answer:
    """The answer in `frame`.

    Raises:
        ProtocolError: there is none.
    """
    if frame.kind != Kind.DONE or len(frame.head) < _DONE.size:
        raise ProtocolError(f"a slot sent a frame of kind {frame.kind} with a head of {len(frame.head)} bytes")
    run, elapsed_s, outcome, printed, *lengths = _DONE.unpack_from(frame.head)
    if outcome not in _OUTCOMES or len(frame.head) != _DONE.size + sum(lengths):
        raise ProtocolError("a slot sent an answer that does not add up")
    if len(frame.head) == _DONE.size:
        return Answer(run, elapsed_s, _OUTCOMES[outcome], "", bool(printed), _error(outcome, ("", "", "")), frame.body)
    texts = []
    start = _DONE.size
    for length in lengths:
        texts.append(frame.head[start : start + length].decode("utf-8", "replace"))
        start += length
    return Answer(run, elapsed_s, _OUTCOMES[outcome], texts[3], bool(printed), _error(outcome, texts[:3]), frame.body)


def _error(outcome: int, texts: Sequence[str]) -> ErrorParts | None:
    return ErrorParts(*texts) if outcome == Outcome.RAISED else None


def clip(text: str, limit: int, *, keep_end: bool = False) -> bytes:
    """`text` in at most `limit` bytes of UTF-8, cut between characters."""
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) <= limit:
        return raw
    kept = raw[-limit:] if keep_end else raw[:limit]
    return kept.decode("utf-8", "ignore").encode()


class FrameReader:
    """Cuts a stream into frames. Bytes are copied once, however large a frame is.

    Args:
        max_body: a frame that announces a larger body is refused before anything of it is kept.
    """

    def __init__(self, *, max_body: int) -> None:
        self._max_body = max_body
        self._parts: deque[bytes] = deque()
        self._have = 0
        self._prefix: tuple[int, int, int] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether all that was fed has come out as whole frames."""
        return self._have == 0 and self._prefix is None

    @property
    def read_size(self) -> int:
        """How many bytes to ask the socket for."""
        return _READ_MORE if self._prefix is not None and self._prefix[2] - self._have > _READ else _READ

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes.

        Raises:
            ProtocolError: these bytes are no frame of ours. The stream is useless from there on.
        """
        self._parts.append(data)
        self._have += len(data)
        frames: list[Frame] = []
        while True:
            if self._prefix is None:
                if self._have < _PREFIX.size:
                    return frames
                self._prefix = self._parse_prefix(self._take(_PREFIX.size))
            kind, head, body = self._prefix
            if self._have < head + body:
                return frames
            self._prefix = None
            frames.append(Frame(kind, self._take(head), self._take(body)))

    def _parse_prefix(self, raw: bytes) -> tuple[int, int, int]:
        magic, kind, head, body = _PREFIX.unpack(raw)
        if magic != _MAGIC:
            raise ProtocolError("bytes between supervisor and slot that are no frame")
        if head > MAX_HEAD or body > self._max_body:
            raise ProtocolError(f"a frame of {head} + {body} bytes, where {self._max_body} are allowed")
        return kind, head, body

    def _take(self, size: int) -> bytes:
        """Removes exactly `size` bytes from the front, of which there are enough."""
        self._have -= size
        taken = []
        while size:
            part = self._parts.popleft()
            if len(part) > size:
                self._parts.appendleft(part[size:])
                part = part[:size]
            taken.append(part)
            size -= len(part)
        return taken[0] if len(taken) == 1 else b"".join(taken)
