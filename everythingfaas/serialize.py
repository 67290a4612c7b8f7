"""The codec of the REST contract: dill inside MIME base64 (a newline after each 76 characters and at the end)."""

from __future__ import annotations

import base64
import binascii
import codecs
from typing import Any

from everythingfaas.errors import InvalidPayload


def serialize(obj: Any) -> str:
    """`obj` as the text that the contract's `payload` and `result` fields hold.

    Functions travel by value with the globals that they use (``recurse=True``); where following those does
    not end, as with a nested function that refers to itself, dill's default takes over.
    """
    import dill  # here, because web and dispatcher use this module's text codec and load no pickle

    try:
        raw = dill.dumps(obj, recurse=True)
    except RecursionError:
        raw = dill.dumps(obj)
    return encode(raw)


def deserialize(text: str) -> Any:
    """The object in `text`. Runs whatever the sender put there: call it on results of your own tasks only."""
    import dill

    return dill.loads(decode(text))


def encode(raw: bytes) -> str:
    """MIME base64 of `raw`."""
    return codecs.encode(raw, "base64").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes in base64 `text`, with or without newlines.

    Raises:
        InvalidPayload: it holds anything else than base64, or nothing at all.
    """
    try:
        compact = text.encode("ascii").translate(None, b" \t\r\n")
        raw = base64.b64decode(compact, validate=True)
    except (UnicodeEncodeError, binascii.Error) as exc:
        raise InvalidPayload("payload is not base64; send codecs.encode(dill.dumps(obj), 'base64').decode()") from exc
    if not raw:
        raise InvalidPayload("payload is empty; send codecs.encode(dill.dumps(obj), 'base64').decode()")
    return raw
