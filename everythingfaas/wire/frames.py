"""Messages as frames: ``[version, header, blob…]``.

The header is the msgpack of one message. Client bytes above `INLINE_MAX` are left out of it and travel as
frames of their own, in the order in which the header names them, so that a payload of 100 MB is not copied.

The decoder believes nothing: whatever does not decode to exactly one message of the expected direction,
with exactly its blobs, raises `ProtocolError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from everythingfaas.errors import ProtocolError, VersionMismatch
from everythingfaas.wire.messages import PROTOCOL, Blob, FromDispatcher, FromWorker, Message, Refuse

#: Blobs up to this many bytes stay in the header, where they cost less than a frame.
INLINE_MAX = 1024
#: A header larger than this is not one of ours (a full Run of inline payloads stays far below).
HEADER_MAX = 8 * 1024 * 1024

_VERSION_FRAME = PROTOCOL.to_bytes(2, "big")
M = TypeVar("M")


class Encoder:
    """Encodes messages. Not to be shared between threads."""

    def __init__(self) -> None:
        self._blobs: list[bytes] = []
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._place)

    def _place(self, obj: Any) -> Any:
        if not isinstance(obj, Blob):
            raise NotImplementedError(f"{type(obj).__name__} is no part of a message")
        if len(obj.data) <= INLINE_MAX:
            return obj.data
        self._blobs.append(obj.data)
        return len(self._blobs) - 1

    def encode(self, message: Message) -> list[bytes]:
        """The frames of `message`."""
        self._blobs = []
        header = self._encoder.encode(message)
        return [_VERSION_FRAME, header, *self._blobs]


class Decoder(Generic[M]):
    """Decodes messages of one direction. Not to be shared between threads."""

    def __init__(self, union: Any) -> None:
        self._blobs: Sequence[bytes] = ()
        self._taken = 0
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(union, dec_hook=self._fetch)

    def _fetch(self, wanted: type, obj: Any) -> Blob:
        if wanted is not Blob:
            raise NotImplementedError(f"no message holds a {wanted.__name__}")
        if isinstance(obj, bytes):
            return Blob(obj)
        # Blobs are numbered in the order of the header, so each frame is used once and none is shared.
        if type(obj) is not int or obj != self._taken or obj >= len(self._blobs):
            raise ValueError("a blob that has no frame")
        self._taken += 1
        return Blob(self._blobs[obj])

    def decode(self, frames: Sequence[bytes]) -> M:
        """The message in `frames`.

        Raises:
            VersionMismatch: a message of another version of the protocol.
            ProtocolError: anything else that is not exactly one message.
        """
        if len(frames) < 2 or len(frames[0]) != 2:
            raise ProtocolError("not a message: no version frame")
        if frames[0] != _VERSION_FRAME:
            raise VersionMismatch(int.from_bytes(frames[0], "big"), PROTOCOL)
        if len(frames[1]) > HEADER_MAX:
            raise ProtocolError(f"a header over the limit of {HEADER_MAX} bytes: {len(frames[1])}")
        self._blobs, self._taken = frames[2:], 0
        try:
            message = self._decoder.decode(frames[1])
        except (msgspec.DecodeError, ValueError, RecursionError) as exc:
            raise ProtocolError(f"not a message: {exc}") from exc
        if self._taken != len(self._blobs):
            raise ProtocolError("a message with frames that it does not name")
        return message


_refusals: msgspec.msgpack.Decoder[Refuse] = msgspec.msgpack.Decoder(Refuse)


def read_refusal(frames: Sequence[bytes]) -> Refuse | None:
    """The `Refuse` in `frames`, whatever version of the protocol they are of; None if it is something else."""
    try:
        return _refusals.decode(frames[1])
    except (IndexError, msgspec.DecodeError):
        return None


def worker_decoder() -> Decoder[FromDispatcher]:
    """Decodes what a worker receives."""
    return Decoder(FromDispatcher)


def dispatcher_decoder() -> Decoder[FromWorker]:
    """Decodes what a dispatcher receives."""
    return Decoder(FromWorker)
