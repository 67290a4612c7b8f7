"""The executor: bytes in, outcome out, never raises."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import dill
import pytest

from everythingfaas.errors import ProtocolError
from everythingfaas.slot.execute import Executed, Executor
from everythingfaas.slot.frames import (
    MAX_HEAD,
    MAX_MESSAGE,
    MAX_TRACEBACK,
    ErrorParts,
    Frame,
    FrameReader,
    Kind,
    done_head,
    parse_answer,
    prefixed,
)
from everythingfaas.status import Outcome


class NeedsTwo(Exception):
    """Pickles, and cannot be built again: its arguments are not those of its constructor."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


class HoldsGenerator(Exception):
    def __init__(self) -> None:
        super().__init__("held")
        self.generator = (x for x in ())


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class OwnError(Exception):
    pass


def execute(blob: bytes, payload: bytes, limit: int = 1 << 20) -> Executed:
    executor = Executor(max_result_bytes=limit)
    digest = hashlib.sha256(blob).digest()
    executor.learn(digest, blob)
    return executor.run(digest, payload)


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Executed:
    return execute(dill.dumps(function, recurse=True), dill.dumps((args, kwargs)))


def raising(exception: BaseException) -> Executed:
    def function() -> None:
        raise exception

    return execute_object(function)


def execute_object(function: Callable[..., Any]) -> Executed:
    """Calls `function` itself, not a copy that went through a pickle."""
    executor = Executor(max_result_bytes=1 << 20)
    executor._functions[b"f"] = function
    return executor.run(b"f", dill.dumps(((), {})))


def failure_of(ended: Executed) -> Any:
    assert ended.outcome is Outcome.RAISED
    assert ended.error is not None
    return dill.loads(ended.result)


@pytest.mark.parametrize("value", [None, True, 7, 2.5, "text", b"bytes", [1, (2,)], {"a": {1}}, 2**100])
def test_what_is_returned_comes_back(value):
    ended = call(lambda x: x, value)
    assert (ended.outcome, ended.error) == (Outcome.RETURNED, None)
    assert dill.loads(ended.result) == value


def test_functions_and_closures_come_back():
    ended = call(lambda n: lambda m: n + m, 3)
    assert dill.loads(ended.result)(4) == 7


def test_coroutine_functions_are_run_to_their_end():
    async def slow(x):
        await asyncio.sleep(0)
        return x * 2

    assert dill.loads(call(slow, 4).result) == 8


@pytest.mark.parametrize(
    "exception",
    [ValueError("x"), KeyError("k"), OSError(2, "gone"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()],
)
def test_an_exception_keeps_its_type_and_arguments(exception):
    ended = raising(exception)
    raised = failure_of(ended)
    assert type(raised) is type(exception)
    assert raised.args == exception.args
    assert ended.error.type_name == type(exception).__name__


def test_an_exception_of_a_class_that_travels_by_value_keeps_its_type():
    def function():
        class LocalError(Exception):
            pass

        raise LocalError("here")

    raised = failure_of(call(function))
    assert type(raised).__name__ == "LocalError"
    assert raised.args == ("here",)


@pytest.mark.parametrize(
    ("exception", "name", "text"),
    [
        (NeedsTwo("a", "b"), "NeedsTwo", "ab"),
        (HoldsGenerator(), "HoldsGenerator", "held"),
    ],
)
def test_an_exception_that_cannot_travel_becomes_a_function_failure(exception, name, text):
    ended = raising(exception)
    raised = failure_of(ended)
    assert type(raised).__name__ == "FunctionFailure"
    assert raised.type_name == f"{__name__}.{name}"
    assert raised.message == text
    assert name in raised.traceback


def test_an_exception_without_text_is_still_an_outcome():
    ended = raising(MuteError())
    assert ended.error.message == "<its text cannot be had>"


def test_texts_are_cut():
    ended = raising(OwnError("é" * 10_000))
    assert len(ended.error.message.encode()) <= MAX_MESSAGE
    assert len(ended.error.traceback.encode()) <= MAX_TRACEBACK


def test_the_traceback_begins_with_the_function():
    def function():
        return 1 / 0

    ended = call(function)
    assert "in function" in ended.error.traceback
    assert "slot/execute.py" not in ended.error.traceback


def test_endless_recursion_is_an_outcome():
    def function():
        return function()

    assert isinstance(failure_of(execute_object(function)), RecursionError)


@pytest.mark.parametrize("value", [lambda: (x for x in ()), lambda: sys._getframe()])
def test_a_result_that_does_not_pickle_fails_and_says_so(value):
    raised = failure_of(execute_object(value))
    assert type(raised).__name__ == "FunctionFailure"
    assert "cannot be pickled" in str(raised)


def test_a_result_that_exits_while_it_is_pickled_fails():
    class Leaver:
        def __reduce__(self):
            raise SystemExit(3)

    assert "cannot be pickled" in str(failure_of(execute_object(Leaver)))


def test_a_result_over_the_limit_fails_and_says_so():
    blob, payload = dill.dumps(lambda: b"x" * 1000), dill.dumps(((), {}))
    raised = failure_of(execute(blob, payload, limit=999))
    assert "at most 999" in str(raised)


@pytest.mark.parametrize("arguments", [3, "ab", (1, 2), ((), [], {}), ({}, ()), None, [1]])
def test_arguments_of_the_wrong_shape_are_a_type_error(arguments):
    raised = failure_of(execute(dill.dumps(len), dill.dumps(arguments)))
    assert isinstance(raised, TypeError)
    assert "((args, ...), {kwargs})" in str(raised)


def test_arguments_that_do_not_fit_are_a_type_error():
    assert isinstance(failure_of(call(lambda x: x)), TypeError)


def test_a_function_that_is_none_is_a_type_error():
    raised = failure_of(execute(dill.dumps(3), dill.dumps(((), {}))))
    assert isinstance(raised, TypeError)
    assert "cannot be called" in str(raised)


@pytest.mark.parametrize("blob", [b"junk", dill.dumps(len)[:-5], b""])
def test_bytes_that_do_not_load_are_an_outcome(blob):
    assert "function's payload cannot be loaded" in str(failure_of(execute(blob, dill.dumps(((), {})))))
    assert "task's payload cannot be loaded" in str(failure_of(execute(dill.dumps(len), blob)))


def test_a_child_that_comes_back_does_not_answer():
    reader, writer = os.pipe()

    def function():
        if os.fork() == 0:
            return "child"
        os.wait()
        return "parent"

    ended = execute_object(function)
    os.write(writer, b"x" if dill.loads(ended.result) == "parent" else b"y")
    os.close(writer)
    assert os.read(reader, 10) == b"x"  # one process came here
    os.close(reader)


def test_a_function_is_loaded_once():
    executor = Executor(max_result_bytes=1 << 20)

    def counting(calls=[]):  # noqa: B006 kept with the function
        calls.append(1)
        return len(calls)

    executor.learn(b"f", dill.dumps(counting, recurse=True))
    payload = dill.dumps(((), {}))
    assert [dill.loads(executor.run(b"f", payload).result) for _ in range(3)] == [1, 2, 3]
    executor.forget(b"f")
    executor.learn(b"f", dill.dumps(counting, recurse=True))
    assert dill.loads(executor.run(b"f", payload).result) == 1


# --- by reference


@pytest.fixture
def absent_module():
    """Pickles of functions of a module that is gone afterwards."""
    source = """
limit = 10
def by_reference(x): return x
uses_nothing = lambda x: x + 1
uses_builtin = lambda x: max(len(x), 3)
uses_global = lambda x: x + limit
def make():
    def nested(x):
        import os
        return [os.sep * n for n in range(x)]
    return nested
nested = make()
"""
    module = types.ModuleType("absent_module")
    sys.modules["absent_module"] = module
    exec(source, vars(module))
    names = ("by_reference", "uses_nothing", "uses_builtin", "uses_global", "nested")
    pickles = {name: dill.dumps(getattr(module, name)) for name in names}
    del sys.modules["absent_module"]
    return pickles


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [("uses_nothing", 1, 2), ("uses_builtin", "abcd", 4), ("nested", 2, ["", "/"])],
)
def test_a_function_of_a_missing_module_runs_if_it_uses_none_of_its_globals(absent_module, name, argument, expected):
    assert b"absent_module" in absent_module[name]
    assert dill.loads(execute(absent_module[name], dill.dumps(((argument,), {}))).result) == expected


@pytest.mark.parametrize("name", ["by_reference", "uses_global"])
def test_otherwise_the_error_says_what_to_do(absent_module, name):
    raised = failure_of(execute(absent_module[name], dill.dumps(((1,), {}))))
    assert isinstance(raised, ModuleNotFoundError)
    assert "absent_module" in str(raised)
    assert "recurse=True" in str(raised)


# --- frames


def test_frames_come_out_however_the_stream_is_cut():
    stream = prefixed(Kind.RUN, b"head", 4) + b"body" + prefixed(Kind.FORGET, b"") + prefixed(Kind.LEARN, b"h", 0)
    expected = [Frame(Kind.RUN, b"head", b"body"), Frame(Kind.FORGET, b"", b""), Frame(Kind.LEARN, b"h", b"")]
    for size in range(1, len(stream) + 1):
        reader = FrameReader(max_body=10)
        frames = [f for i in range(0, len(stream), size) for f in reader.feed(stream[i : i + size])]
        assert frames == expected
        assert reader.is_empty


@pytest.mark.parametrize(
    "junk", [b"x" * 15, prefixed(Kind.DONE, b"", 11), prefixed(Kind.DONE, b"x" * (MAX_HEAD + 1)), os.urandom(64)]
)
def test_junk_is_refused_at_its_first_bytes(junk):
    with pytest.raises(ProtocolError):
        FrameReader(max_body=10).feed(junk)


def test_an_answer_survives_the_way():
    error = ErrorParts("a.B", "é" * 5000, "t" * 20_000)
    answer = parse_answer(Frame(Kind.DONE, done_head(7, Outcome.RAISED, "threads", error), b"r"))
    assert (answer.run, answer.outcome, answer.left, answer.result) == (7, Outcome.RAISED, "threads", b"r")
    assert answer.error.type_name == "a.B"
    assert answer.error.message == "é" * 1024


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.RUN, done_head(1, Outcome.RETURNED, "", None), b""),
        Frame(Kind.DONE, done_head(1, Outcome.DEADLINE, "", None), b""),
        Frame(Kind.DONE, done_head(1, Outcome.RETURNED, "", None) + b"x", b""),
        Frame(Kind.DONE, b"", b""),
    ],
)
def test_an_answer_that_does_not_add_up_is_refused(frame):
    with pytest.raises(ProtocolError):
        parse_answer(frame)


def test_results_import_nothing(tmp_path, monkeypatch):
    """What came by value goes by value, even where there is another module of that name, which may do anything."""
    (tmp_path / "somewhere.py").write_text("raise RuntimeError('this was imported')")
    monkeypatch.syspath_prepend(tmp_path)

    def make() -> object:
        return type("Thing", (), {"__module__": "somewhere", "x": 3})()

    ended = call(make)
    assert ended.error is None
    assert dill.loads(ended.result).x == 3
