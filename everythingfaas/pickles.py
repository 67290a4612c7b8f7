"""The static check of pickles that clients send. Nothing here ever loads one.

Loading a pickle runs it, and only a slot may do that. A client who registers text, JSON or a list should
still be told at once, so `check_function` walks the opcodes with a stack of descriptions instead of objects:

    bytes ──▶ one handler per opcode ──▶ stack, marks and memo of `_Value` ──▶ the value at STOP ──▶ verdict

The walk takes time in proportion to the opcodes, never to what a length claims, and leaves large constants unread.
It is a check of input and no wall: a pickle that passes can still do anything where it is loaded, and a
function or an instance that is named by reference can only be told apart there.

Refused with the rest are opcodes that Python 3 writes in no pickle of protocol 2 to 5 (the text forms of
protocol 0, the strings of Python 2), and those that need something beside the pickle to be loaded.
"""

from __future__ import annotations

import enum
import pickle  # for the names of its opcodes only
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from everythingfaas.errors import InvalidPayload

__all__ = ["FunctionKind", "PickledCode", "check_arguments", "check_function", "read_function"]

#: No module or qualified name is longer, in bytes.
LONGEST_NAME = 1_000

_SEND = "send codecs.encode(dill.dumps({}), 'base64').decode(), all of it and nothing else"
_SEND_FUNCTION = _SEND.format("function")
_SEND_ARGUMENTS = _SEND.format("(args, kwargs)")
_PROTOCOLS = range(2, 6)
_PROTO = pickle.PROTO[0]
_STOP = pickle.STOP[0]
_SURROGATE = 0xED  #: what lone surrogates begin with, which pickles write although UTF-8 has none


class FunctionKind(enum.Enum):
    """What a pickle that was registered as a function can be seen to hold."""

    CALLABLE = "callable"  #: it builds a function, a class, a method or a partial
    UNKNOWN = "unknown"  #: a reference or an instance: whether it can be called, a worker finds out


class PickledCode(NamedTuple):
    """What can be seen of a code object in a pickle. Of what cannot be counted there is any number."""

    code: bytes | None  #: its instructions; None where the pickle has them in another form
    has_qualname: bool  #: as since Python 3.11
    has_linetable: bool | None  #: as since Python 3.10; None: not known
    constants: int
    names: int
    variables: int
    cells: int  #: variables that it shares with the functions around it and in it


def check_function(raw: bytes, *, max_opcodes: int = 200_000) -> FunctionKind:
    """What kind of function the pickle in `raw` holds, as far as can be told without loading it.

    Raises:
        InvalidPayload: `raw` is no whole pickle of protocol 2 to 5, or one of plain data, or one of more
            than `max_opcodes` opcodes.
    """
    return read_function(raw, max_opcodes=max_opcodes)[0]


def read_function(raw: bytes, *, max_opcodes: int = 200_000) -> tuple[FunctionKind, list[PickledCode | None]]:
    """As `check_function`, with all code objects that the pickle makes; None stands for one of unknown form."""
    _check_header(raw, _SEND_FUNCTION)
    walk = _Walk(raw, max_opcodes)
    value = walk.run()
    if isinstance(value, _Data):
        raise InvalidPayload(
            f"payload is {value.noun}, which is data, not a callable; register the function itself, "
            "and pass data as an argument of its tasks"
        )
    return value.kind, [_pickled_code(raw, items) for items in walk.codes]


def check_arguments(raw: bytes) -> None:
    """Check that `raw` begins and ends as a pickle does. What is wrong in between, a worker finds out.

    Raises:
        InvalidPayload: it does not.
    """
    if len(raw) < 4 or raw[0] != _PROTO or raw[1] not in _PROTOCOLS or raw[-1] != _STOP:
        _check_header(raw, _SEND_ARGUMENTS)
        raise InvalidPayload(f"payload is a truncated pickle, or has bytes after its end; {_SEND_ARGUMENTS}")


def _check_header(raw: bytes, send: str) -> None:
    if not raw:
        raise InvalidPayload(f"payload is empty; {send}")
    if raw[0] != _PROTO:
        raise InvalidPayload(f"payload is not a pickle of protocol 2 to 5; {send}")
    if len(raw) > 1 and raw[1] not in _PROTOCOLS:
        raise InvalidPayload(f"payload claims pickle protocol {raw[1]}, and only 2 to 5 can be read; {send}")


# What the walk knows of an object.


class _Value:
    """An object of which nothing but its kind is known."""

    __slots__ = ("kind",)

    def __init__(self, kind: FunctionKind) -> None:
        self.kind = kind


class _Global(_Value):
    """Whatever goes by that name, with its module in front."""

    __slots__ = ("name",)

    def __init__(self, name: str, kind: FunctionKind) -> None:
        self.kind = kind
        self.name = name


class _Data(_Value):
    """What cannot be called, whatever is in it."""

    __slots__ = ("noun",)

    def __init__(self, noun: str) -> None:
        self.noun = noun


class _Tuple(_Data):
    """Keeps its items, because they are what things are called with."""

    __slots__ = ("items",)
    noun = "a tuple"

    def __init__(self, items: list[_Value]) -> None:
        self.items = items


class _Span(_Data):
    """A constant that is left where it is in the pickle."""

    __slots__ = ("start", "stop")

    def __init__(self, noun: str, start: int, stop: int) -> None:
        self.noun = noun
        self.start = start
        self.stop = stop


_CALLABLE = _Value(FunctionKind.CALLABLE)
_OBJECT = _Value(FunctionKind.UNKNOWN)
_TEXT = "a str"
_BYTES = _Data("bytes")
_CODE = _Data("a code object")
_DICT = _Data("a dict")
_FROZENSET = _Data("a frozenset")
_LIST = _Data("a list")
_RANGE = _Data("a range")
_SET = _Data("a set")

#: Called with the name of a type, these give the type.
_TYPE_LOADERS = frozenset({"dill._dill._load_type", "cloudpickle.cloudpickle._builtin_type"})

#: Called with anything, these give something that can be called.
_CALLABLE_MAKERS = frozenset(
    {
        "cloudpickle.cloudpickle._make_function",
        "cloudpickle.cloudpickle._make_skeleton_class",
        "cloudpickle.cloudpickle._make_skeleton_enum",
        "dill._dill._create_ftype",
        "dill._dill._create_function",
        "dill._dill._create_namedtuple",
        "dill._dill._create_type",
        "functools.partial",
        "operator.attrgetter",
        "operator.itemgetter",
        "operator.methodcaller",
        "types.AttrGetterType",
        "types.FunctionType",
        "types.ItemGetterType",
        "types.LambdaType",
        "types.MethodType",
        "types.PartialType",
    }
)

#: Called with the parts of a code object, these make one.
_CODE_MAKERS = frozenset({"dill._dill._create_code", "types.CodeType"})

#: Called with anything, these give plain data: what has no opcode, or none in the older protocols.
_DATA_MAKERS = {
    "_codecs.encode": _BYTES,
    "builtins.bytearray": _Data("a bytearray"),
    "builtins.bytes": _BYTES,
    "builtins.complex": _Data("a complex number"),
    "builtins.frozenset": _FROZENSET,
    "builtins.range": _RANGE,
    "builtins.set": _SET,
    "builtins.slice": _Data("a slice"),
    "builtins.xrange": _RANGE,  # what protocol 2 calls it
    "datetime.date": _Data("a date"),
    "datetime.datetime": _Data("a datetime"),
    "datetime.timedelta": _Data("a timedelta"),
    "decimal.Decimal": _Data("a decimal number"),
    "dill._dill._create_code": _CODE,
    "dill._dill._eval_repr": _Data("a range or another constant"),
    "types.CodeType": _CODE,
}


# The walk.


class _Walk:
    """An unpickler that puts values where the real one puts objects.

    `stack` holds what was pushed since the last MARK, `outer` the stacks below it, one for each open MARK.
    Whatever takes more than is there meets an IndexError, which `run` turns into a refusal.
    """

    __slots__ = ("codes", "max_opcodes", "memo", "outer", "pos", "raw", "stack")

    def __init__(self, raw: bytes, max_opcodes: int) -> None:
        self.raw = raw
        self.max_opcodes = max_opcodes
        self.pos = 2  # behind the header
        self.stack: list[_Value] = []
        self.outer: list[list[_Value]] = []
        self.memo: dict[int, _Value] = {}
        self.codes: list[list[_Value]] = []  # what code objects are made of

    def run(self) -> _Value:
        """The value that the whole pickle stands for."""
        try:
            self._step_to_stop()
        except IndexError as exc:
            raise self.damaged("something is taken from an empty stack") from exc
        extra = len(self.raw) - self.pos
        if extra:
            raise InvalidPayload(f"payload has {extra} more bytes after the end of its pickle; {_SEND_FUNCTION}")
        if self.outer or len(self.stack) != 1:
            raise self.damaged("what is left at its end is not one object")
        return self.stack[0]

    def _step_to_stop(self) -> None:
        raw = self.raw
        size = len(raw)
        handlers = _HANDLERS
        for _ in range(self.max_opcodes - 1):  # the header was the first
            pos = self.pos
            if pos >= size:
                raise self.truncated()
            opcode = raw[pos]
            self.pos = pos + 1
            if opcode == _STOP:
                return
            handlers[opcode](self)
        raise InvalidPayload(
            f"payload is too complex, it takes more than {self.max_opcodes} opcodes: "
            "keep large data out of the function, and pass data as an argument of its tasks"
        )

    def skip(self, size: int) -> int:
        """Go on by `size` bytes. Returns where they begin."""
        start = self.pos
        if size > len(self.raw) - start:
            raise self.truncated()
        self.pos = start + size
        return start

    def number(self, size: int) -> int:
        """The number in the next `size` bytes. What is signed in pickles and negative is huge here, and refused."""
        start = self.skip(size)
        return int.from_bytes(self.raw[start : start + size], "little")

    def line(self) -> str:
        """The name that a newline ends."""
        start = self.pos
        stop = self.raw.find(b"\n", start, start + LONGEST_NAME + 1)
        if stop < 0:
            raise self.damaged("a name has no end")
        self.pos = stop + 1
        return self.name(start, stop)

    def name(self, start: int, stop: int) -> str:
        """The name in the bytes from `start` to `stop`."""
        if stop - start > LONGEST_NAME:
            raise self.damaged("a name is too long")
        try:
            return self.raw[start:stop].decode()
        except UnicodeDecodeError as exc:
            raise self.damaged("a name is not UTF-8") from exc

    def check_text(self, start: int, stop: int) -> None:
        """Check that the bytes from `start` to `stop` are UTF-8, unless they may hold a lone surrogate."""
        text = self.raw[start:stop]
        if _SURROGATE not in text:
            try:
                text.decode()
            except UnicodeDecodeError as exc:
                raise self.damaged("a text is not UTF-8") from exc

    def name_in(self, value: _Value) -> str:
        """The name that `value` is the text of."""
        if not isinstance(value, _Span) or value.noun is not _TEXT:
            raise self.damaged("a name is not text")
        return self.name(value.start, value.stop)

    def pop_mark(self) -> list[_Value]:
        """Close the last MARK. Returns what was pushed since."""
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def put(self, index: int) -> None:
        if index >= self.max_opcodes:  # they count up from 0; the real unpickler makes its table that long
            raise self.damaged(f"memo number {index} is out of reach")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        value = self.memo.get(index)
        if value is None:
            raise self.damaged(f"memo number {index} was never set")
        self.stack.append(value)

    def check_fillable(self, like: _Data) -> None:
        """Check that the top of the stack takes items as `like` does: it is one, or no plain data at all."""
        target = self.stack[-1]
        if target is not like and isinstance(target, _Data):
            raise self.damaged(f"{target.noun} is filled as if it were {like.noun}")

    def check_call(self, maker: _Value, args: _Value) -> None:
        """Check that `maker` can be called at all, and with `args`."""
        if isinstance(maker, _Data):
            raise self.damaged(f"{maker.noun} is called")
        if isinstance(args, _Data) and not isinstance(args, _Tuple):
            raise self.damaged(f"something is called with {args.noun} for arguments")

    def damaged(self, why: str) -> InvalidPayload:
        return InvalidPayload(f"payload is a damaged pickle: {why}, before byte {self.pos}; {_SEND_FUNCTION}")

    def truncated(self) -> InvalidPayload:
        return InvalidPayload(f"payload is a truncated pickle: its {len(self.raw)} bytes hold no end; {_SEND_FUNCTION}")


_Handler: TypeAlias = Callable[[_Walk], object]


def _refuse(walk: _Walk) -> None:
    opcode = walk.raw[walk.pos - 1]
    why = _NOT_SELF_CONTAINED.get(opcode)
    if why is None:
        raise walk.damaged(f"0x{opcode:02x} is no opcode that Python 3 writes in protocols 2 to 5")
    raise InvalidPayload(f"payload {why}")


_EXTENSION = "uses a copyreg extension code, which no worker knows; dump it where none is registered"
_PERSISTENT = "names an object outside of it by a persistent id; dump it without persistent_id"
_OUT_OF_BAND = "leaves its buffers out; dump it without buffer_callback"

_NOT_SELF_CONTAINED = {
    pickle.EXT1[0]: _EXTENSION,
    pickle.EXT2[0]: _EXTENSION,
    pickle.EXT4[0]: _EXTENSION,
    pickle.PERSID[0]: _PERSISTENT,
    pickle.BINPERSID[0]: _PERSISTENT,
    pickle.NEXT_BUFFER[0]: _OUT_OF_BAND,
    pickle.READONLY_BUFFER[0]: _OUT_OF_BAND,
}

#: One for each byte. STOP has none, for the walk ends there; nor has PROTO, which only a header holds.
_HANDLERS: list[_Handler] = [_refuse] * 256


def _on(opcode: bytes) -> Callable[[_Handler], _Handler]:
    def register(handler: _Handler) -> _Handler:
        _HANDLERS[opcode[0]] = handler
        return handler

    return register


def _on_constant(opcode: bytes, value: _Data, size: int = 0) -> None:
    """`opcode` pushes a constant, which it takes from the next `size` bytes."""

    @_on(opcode)
    def push(walk: _Walk) -> None:
        if size:
            walk.skip(size)
        walk.stack.append(value)


def _on_span(opcode: bytes, noun: str, size: int) -> None:
    """`opcode` pushes a constant as long as the number in the next `size` bytes says."""

    @_on(opcode)
    def push(walk: _Walk) -> None:
        length = walk.number(size)
        start = walk.skip(length)
        walk.stack.append(_Span(noun, start, start + length))


def _on_text(opcode: bytes, size: int) -> None:
    """As `_on_span`, for text. It is read where that is short, as all names are."""

    @_on(opcode)
    def push(walk: _Walk) -> None:
        length = walk.number(size)
        start = walk.skip(length)
        if length <= LONGEST_NAME:
            walk.check_text(start, start + length)
        walk.stack.append(_Span(_TEXT, start, start + length))


def _on_memo(put: bytes, get: bytes, size: int) -> None:
    """`put` and `get` carry a memo number of `size` bytes."""
    _on(put)(lambda walk: walk.put(walk.number(size)))
    _on(get)(lambda walk: walk.get(walk.number(size)))


def _on_tuple(opcode: bytes, length: int) -> None:
    """`opcode` makes a tuple of the topmost `length` objects."""

    @_on(opcode)
    def pack(walk: _Walk) -> None:
        items = walk.stack[-length:]
        walk.stack[-length] = _Tuple(items)
        del walk.stack[len(walk.stack) - length + 1 :]


def _on_item(opcode: bytes, like: _Data, each: int) -> None:
    """`opcode` adds one item, made of `each` objects, to the container below it."""

    @_on(opcode)
    def add(walk: _Walk) -> None:
        for _ in range(each):
            walk.stack.pop()
        walk.check_fillable(like)


def _on_items(opcode: bytes, like: _Data, each: int) -> None:
    """`opcode` adds all that stands above the last MARK to the container below that."""

    @_on(opcode)
    def add(walk: _Walk) -> None:
        if len(walk.pop_mark()) % each:
            raise walk.damaged("a key has no value")
        walk.check_fillable(like)


_on_constant(pickle.NONE, _Data("None"))
_on_constant(pickle.NEWTRUE, _Data("a bool"))
_on_constant(pickle.NEWFALSE, _Data("a bool"))
_on_constant(pickle.BININT, _Data("an int"), 4)
_on_constant(pickle.BININT1, _Data("an int"), 1)
_on_constant(pickle.BININT2, _Data("an int"), 2)
_on_constant(pickle.BINFLOAT, _Data("a float"), 8)
_on_constant(pickle.EMPTY_TUPLE, _Tuple([]))
_on_constant(pickle.EMPTY_LIST, _LIST)
_on_constant(pickle.EMPTY_DICT, _DICT)
_on_constant(pickle.EMPTY_SET, _SET)

_on_span(pickle.LONG1, "an int", 1)
_on_span(pickle.LONG4, "an int", 4)
_on_span(pickle.SHORT_BINBYTES, "bytes", 1)
_on_span(pickle.BINBYTES, "bytes", 4)
_on_span(pickle.BINBYTES8, "bytes", 8)
_on_span(pickle.BYTEARRAY8, "a bytearray", 8)

_on_text(pickle.SHORT_BINUNICODE, 1)
_on_text(pickle.BINUNICODE, 4)
_on_text(pickle.BINUNICODE8, 8)

_on_memo(pickle.BINPUT, pickle.BINGET, 1)
_on_memo(pickle.LONG_BINPUT, pickle.LONG_BINGET, 4)

_on_tuple(pickle.TUPLE1, 1)
_on_tuple(pickle.TUPLE2, 2)
_on_tuple(pickle.TUPLE3, 3)

_on_item(pickle.APPEND, _LIST, 1)
_on_item(pickle.SETITEM, _DICT, 2)
_on_items(pickle.APPENDS, _LIST, 1)
_on_items(pickle.ADDITEMS, _SET, 1)
_on_items(pickle.SETITEMS, _DICT, 2)

_on(pickle.POP_MARK)(_Walk.pop_mark)


@_on(pickle.FRAME)
def _frame(walk: _Walk) -> None:
    if walk.number(8) > len(walk.raw) - walk.pos:
        raise walk.truncated()


@_on(pickle.MARK)
def _mark(walk: _Walk) -> None:
    walk.outer.append(walk.stack)
    walk.stack = []


@_on(pickle.POP)
def _pop(walk: _Walk) -> None:
    if walk.stack:
        walk.stack.pop()
    else:  # as in the real one, it takes a MARK that has nothing above it
        walk.pop_mark()


@_on(pickle.DUP)
def _dup(walk: _Walk) -> None:
    walk.stack.append(walk.stack[-1])


@_on(pickle.MEMOIZE)
def _memoize(walk: _Walk) -> None:
    walk.memo[len(walk.memo)] = walk.stack[-1]


@_on(pickle.TUPLE)
def _tuple(walk: _Walk) -> None:
    items = walk.pop_mark()
    walk.stack.append(_Tuple(items))


@_on(pickle.FROZENSET)
def _frozenset(walk: _Walk) -> None:
    walk.pop_mark()
    walk.stack.append(_FROZENSET)


@_on(pickle.GLOBAL)
def _global(walk: _Walk) -> None:
    module = walk.line()
    name = walk.line()
    walk.stack.append(_reference(module, name))


@_on(pickle.STACK_GLOBAL)
def _stack_global(walk: _Walk) -> None:
    name = walk.name_in(walk.stack.pop())
    module = walk.name_in(walk.stack.pop())
    walk.stack.append(_reference(module, name))


@_on(pickle.REDUCE)
def _reduce(walk: _Walk) -> None:
    args = walk.stack.pop()
    walk.stack.append(_made(walk, walk.stack.pop(), args))


@_on(pickle.NEWOBJ)
def _newobj(walk: _Walk) -> None:
    args = walk.stack.pop()
    walk.check_call(walk.stack.pop(), args)
    walk.stack.append(_OBJECT)


@_on(pickle.NEWOBJ_EX)
def _newobj_ex(walk: _Walk) -> None:
    kwargs = walk.stack.pop()
    if kwargs is not _DICT and isinstance(kwargs, _Data):
        raise walk.damaged(f"{kwargs.noun} stands for keyword arguments")
    _newobj(walk)


@_on(pickle.BUILD)
def _build(walk: _Walk) -> None:
    walk.stack.pop()
    target = walk.stack[-1]
    if isinstance(target, _Data):
        raise walk.damaged(f"{target.noun} is given attributes")


def _reference(module: str, name: str) -> _Global:
    if module == "__builtin__":  # as protocol 2 calls it
        module = "builtins"
    return _Global(f"{module}.{name}", FunctionKind.UNKNOWN)


def _made(walk: _Walk, maker: _Value, args: _Value) -> _Value:
    """What calling `maker` with `args` gives.

    All that makes up a function passes here, so this is where code objects are found.
    """
    walk.check_call(maker, args)
    if not isinstance(maker, _Global):
        return _OBJECT
    if maker.name in _CODE_MAKERS:
        walk.codes.append(args.items if isinstance(args, _Tuple) else [])
    if maker.name in _CALLABLE_MAKERS:
        return _CALLABLE
    if maker.name in _TYPE_LOADERS and isinstance(args, _Tuple) and args.items:
        name = walk.name_in(args.items[0])
        return _Global(f"builtins.{name}" if name.islower() else f"types.{name}", FunctionKind.CALLABLE)
    return _DATA_MAKERS.get(maker.name, _OBJECT)


#: How many parts follow the instructions, themselves included: constants, names, variables, file, name, line, line
#: table, free variables, cells; since 3.11 a qualified name and a table of exceptions as well.
_PARTS = {10: False, 12: True}


def _pickled_code(raw: bytes, items: list[_Value]) -> PickledCode | None:
    """Finds the instructions by what stands around them: before them numbers, of which there are more or fewer, and
    in what dill writes since Python 3.10 bytes in front of these; behind them three tuples."""
    for at in range(4, len(items) - 9):
        if _is_bytes(items[at]) and all(isinstance(item, _Tuple) for item in items[at + 1 : at + 4]):
            break
    else:
        return None
    has_qualname = _PARTS.get(len(items) - at)
    if has_qualname is None:
        return None
    code = items[at]
    return PickledCode(
        raw[code.start : code.stop] if isinstance(code, _Span) else None,
        has_qualname,
        True if has_qualname or _is_bytes(items[0]) else None,
        _count(items[at + 1]),
        _count(items[at + 2]),
        _count(items[at + 3]),
        _count(items[-2]) + _count(items[-1]),
    )


def _is_bytes(value: _Value) -> bool:
    return value is _BYTES or (isinstance(value, _Span) and value.noun == "bytes")


def _count(value: _Value) -> int:
    return len(value.items) if isinstance(value, _Tuple) else 1 << 32
