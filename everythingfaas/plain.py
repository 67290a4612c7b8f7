"""Plain data between pickles and JSON, without ever loading a pickle.

Tasks are called with pickles, and end with pickles. Whoever has no Python speaks JSON, and the server, which speaks
with them, must load no pickle. So arguments are written here as one, which is harmless, and results are read by a walk
over the opcodes that knows numbers, text, lists, tuples and dictionaries, and nothing that could call or import:

    {"args": [1], "kwargs": {}} ──▶ dump_call ──▶ slot ──▶ pickle of [2, 4] ──▶ to_json ──▶ b"[2,4]"
"""

from __future__ import annotations

import pickle  # writes, and names its opcodes; nothing is loaded
import pickletools
from collections.abc import Callable
from typing import Any

import msgspec

from everythingfaas.errors import FaasError

#: The newest protocol that every Python of ours, and every worker's, reads.
_PROTOCOL = 4
#: So many opcodes, and so many values as they would be written, are read; what is larger is fetched as bytes.
MAX_VALUES = 1_000_000
MAX_DEPTH = 200


class NotPlain(FaasError):
    """A result has no form in JSON. The message says why."""


def dump_call(args: list[Any], kwargs: dict[str, Any]) -> bytes:
    """The payload of a task with these arguments, which came as JSON."""
    return pickle.dumps((tuple(args), kwargs), _PROTOCOL)


def to_json(raw: bytes) -> bytes:
    """The value in the pickle `raw` as JSON.

    Tuples and sets become arrays, and bytes base64, as `msgspec` writes them.

    Raises:
        NotPlain: it holds something else than plain data, or too much of it.
    """
    value = _Reader(raw).read()
    if _size(value, {}) > MAX_VALUES:
        raise NotPlain("the result has too many values for JSON; fetch it as bytes")
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise NotPlain(f"the result has no form in JSON: {exc}") from exc


def _size(value: Any, known: dict[int, int], depth: int = 0) -> int:
    """How many values would be written: what a pickle holds once may stand in it very often."""
    if not isinstance(value, list | tuple | dict | set | frozenset):
        return 1
    if id(value) in known:
        size = known[id(value)]
        if not size:
            raise NotPlain("the result contains itself, and so has no form in JSON; fetch it as bytes")
        return size
    if depth > MAX_DEPTH:
        raise NotPlain("the result is nested too deeply for JSON; fetch it as bytes")
    known[id(value)] = 0  # while it is looked at
    parts = [part for item in value.items() for part in item] if isinstance(value, dict) else value
    size = 1 + sum(_size(part, known, depth + 1) for part in parts)
    known[id(value)] = size
    return size


_MARK = object()


class _Reader:
    """A stack machine for the opcodes of plain data."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(self._raw)):
                if count > MAX_VALUES:
                    raise NotPlain("the result is too large for JSON; fetch it as bytes")
                if opcode.name == "STOP":
                    return self._stack.pop()
                act = _ACTS.get(opcode.name)
                if act is None:
                    raise NotPlain(
                        "the result is no plain data (numbers, text, lists, dictionaries), and so has no form in"
                        " JSON; let the function return such, or fetch it as bytes"
                    )
                act(self, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as exc:
            raise NotPlain("the result is no whole pickle") from exc
        raise NotPlain("the result is no whole pickle")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def memoize(self, at: int | None) -> None:
        self._memo[len(self._memo) if at is None else at] = self._stack[-1]

    def get(self, at: int) -> None:
        self._stack.append(self._memo[at])

    def above_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
        items = self._stack[at + 1 :]
        del self._stack[at:]
        return items

    def below(self, count: int) -> tuple[Any, ...]:
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        return items

    def append(self, items: list[Any]) -> None:
        self._stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))


_Act = Callable[[_Reader, Any], None]
_PUSH = (
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "LONG4",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
)

_ACTS: dict[str, _Act] = {
    "PROTO": lambda reader, argument: None,
    "FRAME": lambda reader, argument: None,
    "NONE": lambda reader, _: reader.push(None),
    "NEWTRUE": lambda reader, _: reader.push(True),
    "NEWFALSE": lambda reader, _: reader.push(False),
    "EMPTY_LIST": lambda reader, _: reader.push([]),
    "EMPTY_DICT": lambda reader, _: reader.push({}),
    "EMPTY_TUPLE": lambda reader, _: reader.push(()),
    "EMPTY_SET": lambda reader, _: reader.push(set()),
    "MARK": _Reader.mark,
    "MEMOIZE": lambda reader, _: reader.memoize(None),
    "BINPUT": _Reader.memoize,
    "LONG_BINPUT": _Reader.memoize,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "TUPLE": lambda reader, _: reader.push(tuple(reader.above_mark())),
    "TUPLE1": lambda reader, _: reader.push(reader.below(1)),
    "TUPLE2": lambda reader, _: reader.push(reader.below(2)),
    "TUPLE3": lambda reader, _: reader.push(reader.below(3)),
    "FROZENSET": lambda reader, _: reader.push(frozenset(reader.above_mark())),
    "ADDITEMS": lambda reader, _: _add(reader, reader.above_mark()),
    "APPEND": lambda reader, _: reader.append(list(reader.below(1))),
    "APPENDS": lambda reader, _: reader.append(reader.above_mark()),
    "SETITEM": lambda reader, _: reader.set_items(list(reader.below(2))),
    "SETITEMS": lambda reader, _: reader.set_items(reader.above_mark()),
    **dict.fromkeys(_PUSH, _Reader.push),
}


def _add(reader: _Reader, items: list[Any]) -> None:
    into = reader.below(1)[0]
    into.update(items)
    reader.push(into)
