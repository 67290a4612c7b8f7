"""Plain data between pickles and JSON, without loading a pickle."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal
from typing import Any

import dill
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everythingfaas.plain import MAX_VALUES, NotPlain, dump_call, to_json

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)  # fmt: skip


@given(_JSON, st.sampled_from(range(2, pickle.HIGHEST_PROTOCOL + 1)))
def test_what_was_json_is_json_again(value: Any, protocol: int):
    assert json.loads(to_json(pickle.dumps(value, protocol))) == value


@given(_JSON)
def test_as_a_slot_writes_it(value: Any):
    assert json.loads(to_json(dill.dumps(value, recurse=True))) == value


@given(st.lists(_JSON, max_size=3), st.dictionaries(st.text("abc"), _JSON, max_size=3))
def test_a_call_is_what_a_slot_reads(args: list[Any], kwargs: dict[str, Any]):
    assert dill.loads(dump_call(args, kwargs)) == (tuple(args), kwargs)


@pytest.mark.parametrize(
    ("value", "text"),
    [((1, (2, 3)), "[1,[2,3]]"), ({7}, "[7]"), (frozenset({7}), "[7]"), (b"\0\1", '"AAE="'), ({1: 2}, '{"1":2}')],
)
def test_what_json_has_no_word_for_but_a_form(value: Any, text: str):
    assert to_json(pickle.dumps(value, 4)).decode() == text


def test_what_is_there_twice_is_written_twice():
    once = [1, 2]
    assert to_json(pickle.dumps([once, once], 4)) == b"[[1,2],[1,2]]"


def _itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _laughs() -> Any:
    value: Any = ["lol"]
    for _ in range(40):
        value = [value] * 10
    return value


def _deep() -> Any:
    value: Any = 1
    for _ in range(250):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Decimal(1), "plain data"),
        (ValueError("x"), "plain data"),
        (1 + 2j, "plain data"),
        (print, "plain data"),
        (bytearray(b"x"), "plain data"),
        (_itself(), "contains itself"),
        (_laughs(), "too many values"),
        (_deep(), "too deeply"),
        ({(1, 2): 3}, "no form in JSON"),
        (list(range(MAX_VALUES + 1)), "too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_form(value: Any, why: str):
    with pytest.raises(NotPlain, match=why):
        to_json(pickle.dumps(value, 4))


def test_nothing_in_it_is_called():
    harmful = b"\x80\x04cposix\nsystem\n\x8c\x04trueq\x85R."
    with pytest.raises(NotPlain):
        to_json(harmful)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_pickle(raw: bytes):
    for junk in (raw, b"\x80\x04" + raw, b"\x80\x04" + raw + b"."):
        try:
            to_json(junk)
        except NotPlain:
            continue
