"""Which Python a function was pickled by, told from its bytes."""

from __future__ import annotations

import functools
import operator
import pickle
import sys
import time
import types
from collections import Counter

import cloudpickle
import dill
import pytest

from everythingfaas import pythons
from everythingfaas.pickles import PickledCode, read_function
from everythingfaas.pythons import ANY, KNOWN, Origin, allowed, is_certain, matches, mismatch, names, origin_of, told
from tests.functions import Pickled, pickled

HERE = sys.version_info[:2]


def origin(raw: bytes) -> Origin:
    return origin_of(read_function(raw)[1])


@pytest.mark.parametrize("function", pickled(), ids=lambda function: function.path)
def test_a_function_may_come_from_where_it_does(function: Pickled) -> None:
    assert function.origin.has_code
    assert function.python in function.origin.minors


def test_how_often_others_are_ruled_out() -> None:
    fits = Counter(
        (names([function.python]), names([minor])) for function in pickled() for minor in function.origin.minors
    )
    assert Counter(function.python for function in pickled()) == {(3, minor): 75 for minor in range(10, 14)}
    # Of 75 functions by the first version, so many may be by the second as well. What is not here never was.
    assert fits == {
        ("3.10", "3.8"): 13,
        ("3.10", "3.9"): 15,
        ("3.10", "3.10"): 75,
        ("3.11", "3.11"): 75,
        ("3.11", "3.12"): 21,
        ("3.12", "3.11"): 18,
        ("3.12", "3.12"): 75,
        ("3.13", "3.13"): 75,
    }


@pytest.mark.parametrize("function", [len, operator.add, functools.partial(pow, 2), operator.itemgetter(1)], ids=repr)
@pytest.mark.parametrize("dumps", [dill.dumps, cloudpickle.dumps])
def test_what_has_no_code_runs_anywhere(function, dumps):
    found = origin(dumps(function))
    assert found == Origin(False, frozenset())
    assert (found.text, found.requirements) == ("", ANY)
    assert all(matches(found.requirements, minor) for minor in KNOWN)


def test_all_code_counts_wherever_it_is() -> None:
    def outer(x):
        class Inner:
            def method(self):
                with x:
                    return [lambda y=z: y for z in x]

        return Inner

    for function in (
        outer,
        functools.partial(outer, 1),
        types.MethodType(outer, 3),
        functools.wraps(outer)(lambda: outer),
    ):
        _, codes = read_function(dill.dumps(function, recurse=True))
        assert len(codes) >= 3
        assert HERE in origin_of(codes).minors
    foreign = next(f for f in pickled() if f.python != HERE and len(f.origin.minors) == 1 and f.name == "nested")
    both = read_function(dill.dumps(outer, recurse=True))[1] + read_function(foreign.raw)[1]
    assert origin_of(both).text == pythons.UNKNOWN


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_can_be_read(protocol: int) -> None:
    found = origin(dill.dumps(lambda x: [2 * y for y in x], protocol=protocol, recurse=True))
    assert HERE in found.minors
    assert (3, 9) not in found.minors


def code(*instructions: int, new: bool = True, **counts: int) -> PickledCode:
    given = {"constants": 1, "names": 0, "variables": 0, "cells": 0} | counts
    return PickledCode(bytes(instructions), new, new or None, **given)


def test_a_version_newer_than_the_tables_is_known_by_how_it_begins() -> None:
    assert origin_of([code(128, 0, 82, 0, 35, 0)]).text == "3.14"
    assert origin_of([code(34, 0, 31, 0, 128, 0, 82, 0)]).text == "3.14"


def test_code_that_no_table_knows_may_be_tried_by_any_worker() -> None:
    for strange in (code(), code(200, 0), code(151, 1, 83, 0), code(151), code(1, 0, 1, 0)):
        found = origin_of([strange])
        assert (found.text, found.requirements) == ("unknown", "python=unknown")
        assert matches(found.requirements, HERE)
        assert not is_certain(found.requirements)
    assert origin_of([None]).text == "unknown"


@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        ("constant", code(151, 0, 100, 1, 83, 0)),
        ("name", code(151, 0, 101, 0, 83, 0)),
        ("variable", code(151, 0, 124, 0, 83, 0)),
        ("jump", code(151, 0, 110, 1, 83, 0)),
        ("cache", code(151, 0, 122, 0, 0, 1, 83, 0)),
        ("operator", code(151, 0, 122, 26, 0, 0, 83, 0)),
        ("comparison", code(151, 0, 107, 6, 0, 0, 0, 0, 83, 0)),
        ("end", code(151, 0, 100, 0)),
        ("begin", code(100, 0, 83, 0)),
    ],
)
def test_each_of_these_is_wrong_in_python_3_11(what: str, wrong: PickledCode) -> None:
    assert (3, 11) in origin_of([code(151, 0, 100, 0, 83, 0)]).minors
    assert (3, 11) not in origin_of([wrong]).minors, what


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        ([code(151, 0, *[100, 0] * 5_000_000, 83, 0)], "3.11,3.12"),
        ([code(151, 0, *[100, 0] * 50, 83, 0)] * 10_000, "3.11,3.12"),
        ([code(*[1, 0] * 5_000_000)], "unknown"),
        ([code(*[144, 0] * 1_000, 151, 0, 83, 0)] * 5_000, "3.11,3.12"),
    ],
    ids=["long", "many", "a long head", "many heads"],
)
def test_the_walk_is_quick_whatever_comes(codes: list[PickledCode], text: str) -> None:
    began = time.process_time()
    assert origin_of(codes).text == text
    assert time.process_time() - began < 0.5


def test_a_large_payload_is_quick() -> None:
    data = b"x" * 10_000_000
    raw = dill.dumps(lambda: data, recurse=True)
    assert len(raw) > 10_000_000
    began = time.process_time()
    assert HERE in origin(raw).minors
    assert time.process_time() - began < 0.5


def test_nothing_is_loaded() -> None:
    class Trap:
        def __reduce__(self):
            return exec, ("raise SystemExit",)

    def function(x=Trap()):  # noqa: B008
        return x

    assert HERE in origin(dill.dumps(function, recurse=True)).minors


def test_what_a_client_says() -> None:
    assert told("3.11") == Origin(True, frozenset({(3, 11)}))
    assert told("3.9").requirements == "python=3.9"
    for wrong in ("", "3", "3.011", "3.11 ", "4.1", "3.11.2", "3.100", "three"):
        with pytest.raises(ValueError, match="no version of Python"):
            told(wrong)


def test_requirements_are_canonical_and_understood() -> None:
    several = Origin(True, frozenset({(3, 11), (3, 9), (3, 10)}))
    assert several.requirements == "python=3.9,3.10,3.11"
    assert allowed(several.requirements) == several.minors
    assert allowed("") is allowed("python=unknown") is None
    for strange in ("gpu=1", "python=3.11;gpu=1", "python=", "python=3.x", "Python=3.11"):
        assert allowed(strange) == frozenset()
    certain = {text: is_certain(text) for text in ("", "python=3.11", "python=3.11,3.12", "python=unknown", "gpu=1")}
    assert certain == {"": True, "python=3.11": True, "python=3.11,3.12": False, "python=unknown": False, "gpu=1": True}


def test_a_mismatch_names_the_versions_and_the_remedy() -> None:
    assert mismatch("python=3.8,3.9,3.10", [(3, 13), (3, 12)]) == (
        "no connected worker can run it: the function was written by Python 3.8, 3.9 or 3.10, and the connected workers"
        " have 3.12, 3.13; start a worker with Python 3.10, or register the function again from Python 3.12 or 3.13"
    )
    assert mismatch("python=3.9", [(3, 13)]).endswith("workers have 3.13; register the function again from Python 3.13")
    assert "gpu=1" in mismatch("gpu=1", [(3, 13)])


def test_every_function_of_the_standard_library_fits_its_own_table() -> None:
    """A sample of it, compiled here."""
    seen = 0
    for module in (dill._dill, cloudpickle.cloudpickle, functools, operator, types, pickle):
        for function in vars(module).values():
            if isinstance(function, types.FunctionType):
                c = function.__code__
                counts = {"constants": len(c.co_consts), "names": len(c.co_names), "variables": len(c.co_varnames)}
                cells = len(c.co_cellvars) + len(c.co_freevars)
                assert HERE in origin_of([PickledCode(c.co_code, True, True, cells=cells, **counts)]).minors, function
                seen += 1
    assert seen > 100
