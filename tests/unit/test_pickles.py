"""What the static check of pickles lets through, what it refuses, and that nothing makes it do anything else."""

from __future__ import annotations

import array
import base64
import collections
import contextlib
import dataclasses
import datetime
import decimal
import functools
import io
import json
import marshal
import math
import operator
import pickle
import pickletools
import random
import subprocess
import sys
import textwrap
import tracemalloc
import typing
import zipfile
from collections.abc import Callable
from typing import Any

import cloudpickle
import dill
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everythingfaas.errors import InvalidPayload
from everythingfaas.pickles import FunctionKind, check_arguments, check_function

CALLABLE = FunctionKind.CALLABLE
UNKNOWN = FunctionKind.UNKNOWN

#: dill warns about each class that it writes by value.
pytestmark = pytest.mark.filterwarnings("ignore::dill.PicklingWarning")


def refusal(raw: bytes, **options: int) -> str:
    """The message that `raw` is refused with."""
    with pytest.raises(InvalidPayload) as caught:
        check_function(raw, **options)
    return str(caught.value)


@functools.cache
def by_value() -> dict[str, Any]:
    """Callables that exist nowhere but in here, so that picklers have to write what is in them."""
    offset = 3
    everything = [1, -2, 2**70, 2.5, "é", b"x", None, True, ..., {1: 2}, {3}, frozenset([4]), 1j, range(3), slice(1)]
    shared: list[Any] = []
    shared.append((shared, {"self": shared}))

    def plain(x: int) -> int:
        return x * 2

    def recursive(n: int) -> int:
        return n * recursive(n - 1) if n else 1

    def defaults(a: Any, b: int = 1, *c: Any, d: Any = (2, [3]), **e: Any) -> Any:
        """Return them."""
        return a, b, c, d, e

    def imports(x: float) -> float:
        import cmath

        return abs(cmath.sqrt(x))

    def generator() -> Any:
        yield offset

    async def coroutine() -> int:
        return offset

    async def async_generator() -> Any:
        yield offset

    @contextlib.contextmanager
    def context() -> Any:
        yield

    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    class Base:
        table: typing.ClassVar = {"a": [1, 2]}

        def __init__(self, start: int = 1) -> None:
            self.start = start

        def method(self) -> int:
            return self.start

        @classmethod
        def of_class(cls) -> type:
            return cls

        @staticmethod
        def static() -> int:
            return offset

        @property
        def prop(self) -> int:
            return self.start

    class Child(Base):
        __slots__ = ("extra",)

        def __call__(self, x: int) -> int:
            return super().method() + x

    @dataclasses.dataclass
    class Point:
        x: int = 0

    class Oops(Exception):
        pass

    class Pair(typing.NamedTuple):
        a: int

    return {
        "function": plain,
        "recursive function": recursive,
        "function with defaults": defaults,
        "function that imports": imports,
        "lambda": lambda x: x + 1,
        "closure": lambda x: x + offset,
        "closure over data": lambda: everything,
        "closure over data that holds itself": lambda: shared,
        "generator function": generator,
        "coroutine function": coroutine,
        "async generator function": async_generator,
        "context manager": context,
        "decorated function": decorator(plain),
        "class": Base,
        "subclass": Child,
        "dataclass": Point,
        "exception class": Oops,
        "named tuple class": Pair,
        "old named tuple class": collections.namedtuple("old", "a b"),
        "bound method": Base(2).method,
        "class method": Base.of_class,
        "static method": Base.static,
        "partial": functools.partial(plain, x=1),
        "partial of a partial": functools.partial(functools.partial(defaults, 1), 2),
        "partial of a builtin": functools.partial(pow, 2),
        "item getter": operator.itemgetter(1),
        "attribute getter": operator.attrgetter("a.b"),
        "method caller": operator.methodcaller("a", 1),
    }


def by_reference() -> dict[str, Any]:
    """Callables of which any pickler writes the name at most."""
    return {
        "function of a module": json.dumps,
        "builtin of a module": math.sqrt,
        "builtin": len,
        "class of a module": collections.OrderedDict,
        "method of a type": str.upper,
        "bound method of data": [1, 2].count,
    }


@functools.cache
def instances() -> dict[str, Any]:
    """Callable instances, which look like any other instance."""

    @functools.lru_cache
    def cached(x: int) -> int:
        return x

    class Adder:
        def __call__(self, x: int) -> int:
            return x + 1

    return {"callable instance": Adder(), "cached function": cached}


@functools.cache
def data() -> dict[str, Any]:
    """What nobody can call, and what the refusal calls it."""
    return {
        "None": None,
        "a bool": True,
        "an int": 5,
        "an int ": -70_000,
        "an int  ": 2**80,
        "an int   ": 2 ** (8 * 300),
        "a float": 2.5,
        "a str": "def f(): pass",
        "a str ": "é" * 300,
        "bytes": b"f",
        "bytes ": b"f" * 300,
        "bytes  ": b"",
        "a bytearray": bytearray(b"f"),
        "a list": [len],
        "a list ": [],
        "a tuple": (),
        "a tuple ": (len, math.sqrt),
        "a tuple  ": ((1, 2), {}),
        "a tuple   ": tuple(range(9)),
        "a dict": {"f": len},
        "a dict ": {n: n for n in range(3000)},
        "a set": {1, 2},
        "a frozenset": frozenset([len]),
        "a complex number": 1j,
        "a range": range(3),
        "a slice": slice(1),
        "a datetime": datetime.datetime(2024, 1, 1),
        "a date": datetime.date(2024, 1, 1),
        "a timedelta": datetime.timedelta(1),
        "a decimal number": decimal.Decimal("1.5"),
    }


def dill_with_globals(obj: Any) -> bytes:
    try:
        return bytes(dill.dumps(obj, recurse=True))
    except RecursionError:  # of functions that refer to themselves: dill cannot do those
        return bytes(dill.dumps(obj))


PROTOCOLS = {f"pickle {n}": functools.partial(pickle.dumps, protocol=n) for n in range(2, 6)}
PURE = {f"pure pickle {n}": functools.partial(pickle._dumps, protocol=n) for n in range(2, 6)}  # type: ignore[attr-defined]
DILLS: dict[str, Callable[[Any], bytes]] = {
    "dill": dill.dumps,
    "dill recurse": dill_with_globals,
    **{f"dill {n}": functools.partial(dill.dumps, protocol=n) for n in (2, 3, 5)},
}
CLOUDPICKLES: dict[str, Callable[[Any], bytes]] = {"cloudpickle": cloudpickle.dumps}


class TestAccepted:
    @pytest.mark.parametrize("dumps", [*DILLS.values(), *CLOUDPICKLES.values()], ids=[*DILLS, *CLOUDPICKLES])
    @pytest.mark.parametrize("name", by_value())
    def test_what_is_written_by_value_is_callable(self, name: str, dumps: Callable[[Any], bytes]) -> None:
        assert check_function(dumps(by_value()[name])) is CALLABLE

    @pytest.mark.parametrize("dumps", PROTOCOLS.values(), ids=PROTOCOLS)
    @pytest.mark.parametrize("name", ["partial of a builtin", "item getter", "attribute getter", "method caller"])
    def test_so_is_what_pickle_itself_builds(self, name: str, dumps: Callable[[Any], bytes]) -> None:
        assert check_function(dumps(by_value()[name])) is CALLABLE

    @pytest.mark.parametrize(
        "dumps",
        [*DILLS.values(), *CLOUDPICKLES.values(), *PROTOCOLS.values(), *PURE.values()],
        ids=[*DILLS, *CLOUDPICKLES, *PROTOCOLS, *PURE],
    )
    @pytest.mark.parametrize("name", by_reference())
    def test_a_reference_is_unknown(self, name: str, dumps: Callable[[Any], bytes]) -> None:
        assert check_function(dumps(by_reference()[name])) is UNKNOWN

    @pytest.mark.parametrize("dumps", DILLS.values(), ids=DILLS)
    @pytest.mark.parametrize("name", instances())
    def test_an_instance_is_unknown(self, name: str, dumps: Callable[[Any], bytes]) -> None:
        assert check_function(dumps(instances()[name])) is UNKNOWN

    @pytest.mark.parametrize(
        "obj",
        [json, collections.OrderedDict(a=1), collections.deque([1]), array.array("i", [1]), ValueError("no")],
        ids=lambda obj: type(obj).__name__,
    )
    def test_an_object_that_is_no_callable_cannot_be_told_apart(self, obj: Any) -> None:
        assert check_function(dill.dumps(obj)) is UNKNOWN

    def test_a_type_by_its_name_is_callable_as_dill_writes_it(self) -> None:
        assert check_function(dill.dumps(int)) is CALLABLE
        assert check_function(pickle.dumps(int)) is UNKNOWN

    @pytest.mark.parametrize("name", by_value())
    def test_renumbered_memos_and_frames_make_no_difference(self, name: str) -> None:
        assert check_function(pickletools.optimize(dill.dumps(by_value()[name]))) is CALLABLE

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
            lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
        ),
        st.integers(2, 5),
    )
    def test_no_data_stands_in_the_way_of_a_callable(self, inner: Any, protocol: int) -> None:
        assert check_function(pickle.dumps(functools.partial(len, inner), protocol)) is CALLABLE
        assert "is data, not a callable" in refusal(pickle.dumps([inner], protocol))

    def test_a_large_constant(self) -> None:
        constant = bytes(10_000_000)
        assert check_function(dill.dumps(lambda: constant)) is CALLABLE


class TestDataIsRefused:
    @pytest.mark.parametrize(
        "dumps", [*DILLS.values(), *PROTOCOLS.values(), *PURE.values()], ids=[*DILLS, *PROTOCOLS, *PURE]
    )
    @pytest.mark.parametrize("noun", data())
    def test_by_its_name(self, noun: str, dumps: Callable[[Any], bytes]) -> None:
        message = refusal(dumps(data()[noun]))
        assert message.startswith(f"payload is {noun.strip()}")
        assert "is data, not a callable" in message
        assert "pass data as an argument" in message

    def test_functions_inside_data_make_it_no_callable(self) -> None:
        functions = by_value()
        assert "payload is a dict" in refusal(dill.dumps(functions))
        assert "payload is a tuple" in refusal(dill.dumps(tuple(functions.values())))

    @pytest.mark.parametrize("dumps", [dill.dumps, cloudpickle.dumps])
    def test_code_is_not_yet_a_function(self, dumps: Callable[[Any], bytes]) -> None:
        assert "a code object" in refusal(dumps(a_function.__code__))

    def test_recursive_data(self) -> None:
        inner: list[Any] = []
        loop = (inner,)
        inner.append(loop)
        for protocol in range(2, 6):
            assert "payload is a tuple" in refusal(pickle.dumps(loop, protocol))


def a_function() -> None:
    """Lends its code to the tests."""


def a_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("f.py", "def f(): pass")
    return file.getvalue()


NOT_PICKLES = {
    "text": b"payload",
    "text that is base64": base64.b64decode("deadbeef"),
    "text that is base64 too": base64.b64decode("payload0"),
    "JSON": b'{"function": "len"}',
    "source": b"def f(x):\n    return x\n",
    "base64 within base64": base64.b64encode(dill.dumps(len)),
    "marshal": marshal.dumps(a_function.__code__),
    "zip": a_zip(),
    "pickle protocol 0": pickle.dumps(len, 0),
    "pickle protocol 1": pickle.dumps(len, 1),
    "zeros": bytes(100),
    "a lone STOP": b".",
}


class TestNoPicklesAreRefused:
    @pytest.mark.parametrize("raw", NOT_PICKLES.values(), ids=NOT_PICKLES)
    @pytest.mark.parametrize("check", [check_function, check_arguments])
    def test_anything_else(self, check: Callable[[bytes], object], raw: bytes) -> None:
        with pytest.raises(InvalidPayload, match=r"not a pickle of protocol 2 to 5; send .*dill\.dumps"):
            check(raw)

    @pytest.mark.parametrize("check", [check_function, check_arguments])
    def test_nothing(self, check: Callable[[bytes], object]) -> None:
        with pytest.raises(InvalidPayload, match="payload is empty; send"):
            check(b"")

    @pytest.mark.parametrize("protocol", [0, 1, 6, 255])
    @pytest.mark.parametrize("check", [check_function, check_arguments])
    def test_other_protocols(self, check: Callable[[bytes], object], protocol: int) -> None:
        with pytest.raises(InvalidPayload, match=f"claims pickle protocol {protocol}"):
            check(bytes([0x80, protocol]) + dill.dumps(len)[2:])

    def test_random_bytes(self) -> None:
        dice = random.Random(4)
        for _ in range(20_000):
            with pytest.raises(InvalidPayload):
                check_function(dice.randbytes(dice.randrange(60)))


#: Good payloads of several writers, to be spoilt.
GOOD: dict[str, Callable[[], bytes]] = {
    "dill": lambda: dill.dumps(by_value()["closure"]),
    "dill of data": lambda: dill.dumps(by_value()["closure over data"], recurse=True),
    "dill of a class": lambda: dill.dumps(by_value()["bound method"]),
    "dill 2": lambda: dill.dumps(by_value()["recursive function"], protocol=2),
    "cloudpickle": lambda: cloudpickle.dumps(by_value()["decorated function"]),
    "pickle 3": lambda: pickle.dumps(by_value()["partial of a builtin"], 3),
    "pickle 5": lambda: pickle.dumps(json.dumps, 5),
}


class TestSpoiltPicklesAreRefused:
    @pytest.mark.parametrize("write", GOOD.values(), ids=GOOD)
    def test_every_truncation(self, write: Callable[[], bytes]) -> None:
        raw = write()
        for size in range(len(raw)):
            with pytest.raises(InvalidPayload):
                check_function(raw[:size])

    def test_a_truncation_says_so(self) -> None:
        raw = pickle.dumps(functools.partial(len, "x" * 100), 2)
        assert "payload is a truncated pickle" in refusal(raw[:-1])
        assert "payload is a truncated pickle" in refusal(raw[: len(raw) // 2])
        assert "payload is a truncated pickle" in refusal(raw[:2])
        assert "payload is a truncated pickle" in refusal(raw[:1])

    @pytest.mark.parametrize("extra", [b".", b"\n", b"\0", b"N.", dill.dumps(len)])
    def test_bytes_after_the_end(self, extra: bytes) -> None:
        assert f"{len(extra)} more bytes after the end" in refusal(dill.dumps(len) + extra)

    def test_mutants_are_refused_or_accepted_and_nothing_else_happens(self) -> None:
        dice = random.Random(42)
        good = [write() for write in GOOD.values()]
        accepted = 0
        for number in range(20_000):
            mutant = bytearray(good[number % len(good)])
            for _ in range(dice.randint(1, 4)):
                mutant[dice.randrange(len(mutant))] = dice.randrange(256)
            try:
                check_function(bytes(mutant))
            except InvalidPayload:
                continue
            accepted += 1
        assert 0 < accepted < 20_000 * 0.6  # what is changed inside text or code looks as good as before

    @given(st.binary(max_size=200))
    @settings(max_examples=500)
    def test_any_bytes(self, raw: bytes) -> None:
        for candidate in (raw, b"\x80\x04" + raw, b"\x80\x04" + raw + b".", b"\x80\x02(" + raw + b"t."):
            with contextlib.suppress(InvalidPayload):
                check_function(candidate)
            with contextlib.suppress(InvalidPayload):
                check_arguments(candidate)

    @given(
        st.lists(st.sampled_from([bytes([ord(op.code)]) for op in pickletools.opcodes] + [b"\0", b"\1"]), max_size=60)
    )
    @settings(max_examples=500)
    def test_any_opcodes(self, opcodes: list[bytes]) -> None:
        with contextlib.suppress(InvalidPayload):
            check_function(b"\x80\x04" + b"".join(opcodes) + b".")

    @given(st.lists(st.sampled_from(b"()]}N0123\x85\x86\x87\x88\x8f\x90\x91\x94absuteldR\x81\x92\x93("), max_size=40))
    @settings(max_examples=1000)
    def test_what_is_accepted_keeps_the_discipline_of_the_stack(self, opcodes: list[int]) -> None:
        raw = b"\x80\x04" + b"cos\nsystem\n" + bytes(opcodes) + b"."
        try:
            check_function(raw)
        except InvalidPayload:
            return
        pickletools.dis(raw, out=io.StringIO())  # raises ValueError on what it finds wrong


#: A reference, to build on: it is `a.b`.
REF = b"ca\nb\n"

DAMAGED = {
    "nothing at the end": (b"", "not one object"),
    "two objects at the end": (REF + REF, "not one object"),
    "a MARK left open": (b"(" + REF, "not one object"),
    "a MARK left open below": (REF + b"(", "not one object"),
    "TUPLE without a MARK": (REF + b"t", "empty stack"),
    "POP_MARK without a MARK": (REF + b"1", "empty stack"),
    "POP without an object": (b"0" + REF, "empty stack"),
    "DUP without an object": (b"2", "empty stack"),
    "MEMOIZE without an object": (b"\x94" + REF, "empty stack"),
    "MEMOIZE of a MARK": (b"(\x94" + REF + b"t", "empty stack"),
    "BINPUT without an object": (b"q\0" + REF, "empty stack"),
    "REDUCE reaching below a MARK": (REF + b"()R", "empty stack"),
    "TUPLE2 reaching below a MARK": (REF + b"(N\x86", "empty stack"),
    "APPENDS to nothing": (b"(Ne", "empty stack"),
    "BINGET of what is not there": (b"h\0", "memo number 0 was never set"),
    "LONG_BINGET of what is not there": (REF + b"q\0j\xff\xff\xff\xff", "memo number 4294967295 was never set"),
    "LONG_BINPUT far away": (REF + b"r\xff\xff\xff\xff", "memo number 4294967295 is out of reach"),
    "SETITEMS with half a pair": (b"}(Nu0" + REF, "a key has no value"),
    "APPEND to a dict": (b"}Na0" + REF, "a dict is filled as if it were a list"),
    "APPENDS to a str": (b"\x8c\x01a(Ne0" + REF, "a str is filled as if it were a list"),
    "SETITEM of a tuple": (b")NNs0" + REF, "a tuple is filled as if it were a dict"),
    "SETITEMS of a list": (b"](NNu0" + REF, "a list is filled as if it were a dict"),
    "ADDITEMS to a frozenset": (b"(\x91(N\x90", "a frozenset is filled as if it were a set"),
    "REDUCE of an int": (b"K\1)R", "an int is called"),
    "REDUCE with a list": (REF + b"]R", "called with a list"),
    "NEWOBJ of a str": (b"\x8c\x01a)\x81", "a str is called"),
    "NEWOBJ with None": (REF + b"N\x81", "called with None"),
    "NEWOBJ_EX with a list for keywords": (REF + b")]\x92", "a list stands for keyword arguments"),
    "BUILD of a list": (b"]}b", "a list is given attributes"),
    "STACK_GLOBAL of an int": (b"\x8c\x02osK\1\x93", "a name is not text"),
    "STACK_GLOBAL of bytes": (b"C\x02osC\x06system\x93", "a name is not text"),
    "STACK_GLOBAL of no UTF-8": (b"\x8c\x01\xff\x8c\x01a\x93", "a text is not UTF-8"),
    "STACK_GLOBAL of a surrogate": (b"\x8c\x03\xed\xa0\x80\x8c\x01a\x93", "a name is not UTF-8"),
    "STACK_GLOBAL of a novel": (b"X\xe9\x03\0\0" + b"a" * 1001 + b"\x8c\x01a\x93", "a name is too long"),
    "GLOBAL of no UTF-8": (b"c\xff\na\n", "a name is not UTF-8"),
    "GLOBAL without a newline": (b"cos\nsystem", "a name has no end"),
    "GLOBAL of a novel": (b"c" + b"a" * 1001 + b"\nb\n", "a name has no end"),
    "a type that goes by no text": (b"cdill._dill\n_load_type\nK\1\x85R", "a name is not text"),
    "a second header": (b"\x80\x04" + REF, "0x80 is no opcode"),
    "INT": (b"I1\n", "0x49 is no opcode"),
    "LONG with a million digits": (b"L" + b"9" * 10**6 + b"L\n", "0x4c is no opcode"),
    "FLOAT": (b"F1e999\n", "0x46 is no opcode"),
    "STRING": (b"S'\\x'\n", "0x53 is no opcode"),
    "UNICODE": (b"V\\ud\n", "0x56 is no opcode"),
    "GET of no number": (REF + b"gx\n", "0x67 is no opcode"),
    "INST": (b"(ios\nsystem\n", "0x69 is no opcode"),
    "a byte that is no opcode": (b"\xff", "0xff is no opcode"),
    "EXT1": (b"\x82\x01", "copyreg extension code"),
    "EXT2": (b"\x83\x01\0", "copyreg extension code"),
    "EXT4": (b"\x84\x01\0\0\0", "copyreg extension code"),
    "PERSID": (b"Pa\n", "persistent id"),
    "BINPERSID": (b"\x8c\x01aQ", "persistent id"),
    "NEXT_BUFFER": (b"\x97", "leaves its buffers out"),
    "READONLY_BUFFER": (REF + b"\x98", "leaves its buffers out"),
}

WELL_FORMED = {
    "a reference by GLOBAL": (REF, UNKNOWN),
    "a reference by STACK_GLOBAL": (b"\x8c\x01a\x8c\x01b\x93", UNKNOWN),
    "an instance by REDUCE": (REF + b")R", UNKNOWN),
    "an instance by NEWOBJ": (REF + b")\x81}b", UNKNOWN),
    "an instance by NEWOBJ_EX": (REF + b")}\x92", UNKNOWN),
    "an instance with items": (REF + b")R(NNu(NeNaNNs(N\x90", UNKNOWN),
    "an instance called with an instance": (REF + REF + b"R", UNKNOWN),
    "a type called": (b"cdill._dill\n_load_type\n\x8c\x03int\x85R)R", UNKNOWN),
    "a method": (b"cdill._dill\n_load_type\n\x8c\x0aMethodType\x85R" + REF + b"N\x86R", CALLABLE),
    "a function": (b"cdill._dill\n_create_function\n)R", CALLABLE),
    "a function that was remembered": (b"cdill._dill\n_create_function\n)Rq\x050h\x05", CALLABLE),
    "a function among rubbish": (b"cdill._dill\n_create_function\n)R(NNN1(0)0N200", CALLABLE),
    "a function with attributes": (b"cdill._dill\n_create_function\n)R}b", CALLABLE),
    "a function of another library": (b"cjoblib.externals.cloudpickle\n_make_function\n)R", UNKNOWN),
    "a text with a lone surrogate": (b"\x8c\x03\xed\xa0\x800" + REF, UNKNOWN),
    "a memo number that leaves a gap": (REF + b"r\0\x10\0\0", UNKNOWN),
}


class TestOpcodes:
    @pytest.mark.parametrize(("body", "why"), DAMAGED.values(), ids=DAMAGED)
    def test_damaged(self, body: bytes, why: str) -> None:
        assert why in refusal(b"\x80\x04" + body + b".")

    @pytest.mark.parametrize(("body", "kind"), WELL_FORMED.values(), ids=WELL_FORMED)
    def test_well_formed(self, body: bytes, kind: FunctionKind) -> None:
        assert check_function(b"\x80\x04" + body + b".") is kind


LYING = {
    "LONG1": b"\x8a\xff",
    "LONG4": b"\x8b\xff\xff\xff\x7f",
    "LONG4 below zero": b"\x8b\xff\xff\xff\xff",
    "SHORT_BINUNICODE": b"\x8c\xff",
    "BINUNICODE": b"X\xff\xff\xff\xff",
    "BINUNICODE8": b"\x8d" + b"\xff" * 8,
    "BINUNICODE8 of a terabyte": b"\x8d\0\0\0\0\0\1\0\0",
    "SHORT_BINBYTES": b"C\xff",
    "BINBYTES": b"B\xff\xff\xff\x7f",
    "BINBYTES8": b"\x8e\xff\xff\xff\xff\0\0\0\0",
    "BYTEARRAY8": b"\x96\xff\xff\xff\xff\0\0\0\0",
    "FRAME": b"\x95\xff\xff\xff\xff\0\0\0\0",
    "FRAME that is nearly right": b"\x95\x03\0\0\0\0\0\0\0N",
    "BININT": b"J\0\0",
    "BINFLOAT": b"G\0\0",
}

BOMBS = {
    "constants": b"N",
    "duplicates": b"N" + b"2",
    "marks": b"(",
    "empty tuples": b")",
    "nested tuples": b")" + b"\x85",
    "nested lists": b"]",
    "memo": b"N" + b"\x94",
    "references": REF,
    "calls": REF + b")R",
    "numbers": b"K\1",
    "texts": b"\x8c\x03\xed\xa0\x80",
}


NESTED = {
    "tuples": (b")" + b"\x85" * 190_000, "a tuple"),
    "doubled tuples": (b")" + b"2\x86" * 90_000, "a tuple"),
    "lists": (b"](" * 60_000 + b"N" + b"e" * 60_000, "a list"),
    "dicts": (b"}N" * 60_000 + b"N" + b"s" * 60_000, "a dict"),
    "calls": (REF * 60_000 + b")" + b"R\x85" * 60_000, "a tuple"),
}


class TestAbuse:
    @pytest.mark.parametrize("body", LYING.values(), ids=LYING)
    def test_a_length_that_lies_costs_nothing(self, body: bytes) -> None:
        tracemalloc.start()
        try:
            assert "truncated" in refusal(b"\x80\x04" + body + b".")
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("unit", BOMBS.values(), ids=BOMBS)
    def test_a_bomb_of_opcodes_stops_at_the_cap(self, unit: bytes) -> None:
        message = refusal(b"\x80\x04" + unit * (10_000_000 // len(unit)) + b".")
        assert message.startswith("payload is too complex, it takes more than 200000 opcodes")
        assert "pass data as an argument" in message

    def test_large_data_inside_a_function_is_too_complex(self) -> None:
        numbers = list(range(200_000))
        assert "too complex" in refusal(dill.dumps(lambda: numbers))

    def test_the_cap_is_exact(self) -> None:
        raw = dill.dumps(by_value()["closure"])
        opcodes = sum(1 for _ in pickletools.genops(raw))
        assert check_function(raw, max_opcodes=opcodes) is CALLABLE
        assert "too complex" in refusal(raw, max_opcodes=opcodes - 1)

    @pytest.mark.parametrize(("body", "noun"), NESTED.values(), ids=NESTED)
    def test_depth_is_no_problem(self, body: bytes, noun: str) -> None:
        assert f"payload is {noun}, which is data" in refusal(b"\x80\x04" + body + b".")


class TestArguments:
    @pytest.mark.parametrize("dumps", [*DILLS.values(), *CLOUDPICKLES.values(), *PROTOCOLS.values()])
    def test_accepted(self, dumps: Callable[[Any], bytes]) -> None:
        check_arguments(dumps(((1, "a", [2.5]), {"key": None})))
        check_arguments(dumps(((), {})))

    @pytest.mark.parametrize(
        "raw", [b"\x80", b"\x80\x04", b"\x80\x04.", dill.dumps(((), {}))[:-1], dill.dumps(1) + b"\n"]
    )
    def test_refused(self, raw: bytes) -> None:
        with pytest.raises(
            InvalidPayload, match=r"truncated pickle, or has bytes after its end; send .*\(args, kwargs\)"
        ):
            check_arguments(raw)

    def test_what_is_in_between_is_left_to_a_worker(self) -> None:
        check_arguments(dill.dumps("no arguments at all"))
        check_arguments(b"\x80\x04 rubbish .")


def test_nothing_is_imported_loaded_or_run(tmp_path: Any) -> None:
    (tmp_path / "landmine.py").write_text("raise SystemExit('imported')\n")
    landmine = b"\x80\x04clandmine\nexplode\n)R."
    shell = b"\x80\x04cos\nsystem\n\x8c\x0etouch exploded\x85R."
    by_dill = dill.dumps(by_value()["closure over data"])
    script = textwrap.dedent(
        """
        import sys
        from everythingfaas.pickles import check_arguments, check_function

        check_function(b"\\x80\\x04cos\\nsystem\\n.")  # whatever is loaded late is loaded now
        events = []
        loaded = set(sys.modules)
        sys.addaudithook(lambda event, args: events.append(event))
        for raw in {payloads!r}:
            check_function(raw)
            check_arguments(raw)
        seen = list(events)
        print(seen, sorted(set(sys.modules) - loaded))
        """
    ).format(payloads=[landmine, shell, by_dill])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(["."] + [path for path in sys.path if path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[] []", "")
    assert not (tmp_path / "exploded").exists()


def test_the_module_loads_no_pickles_and_no_picklers() -> None:
    script = (
        "import sys, everythingfaas.pickles; print(sorted({'dill', 'cloudpickle', 'pickletools'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
