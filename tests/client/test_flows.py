"""What is said again and what is not: flows, driven by a list instead of a network."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from everythingfaas.client import answers, flows
from everythingfaas.client.flows import Call, Flow, Pause, Reply, Verbs, ask, parts
from everythingfaas.client.payloads import dump_call
from everythingfaas.errors import Refused, Unreachable
from everythingfaas.serialize import encode

GONE = Unreachable("nobody")


def reply(content: Any = None, status: int = 200, **headers: str) -> Reply:
    return Reply(status, headers, msgspec.json.encode(content))


def error(status: int, code: str = "x", **headers: str) -> Reply:
    return reply({"error": {"code": code, "message": "no", "field": "f"}}, status, **headers)


def drive(flow: Flow[Any], *told: Reply | Unreachable) -> tuple[Any, list[Call], list[float]]:
    """What comes of `flow` when its calls are answered so, what it called, and how long it rested."""
    calls: list[Call] = []
    pauses: list[float] = []
    left = list(told)
    answer: Any = None
    try:
        while True:
            step = flow.send(answer)
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                answer = None
            else:
                calls.append(step)
                answer = left.pop(0)
    except StopIteration as end:
        assert not left
        return end.value, calls, pauses


CALL = Call("GET", "/")
ONCE = Call("POST", "/", is_repeatable=False)


def test_an_answer_is_an_answer():
    value, calls, pauses = drive(ask(CALL), reply(1))
    assert (value.body, len(calls), pauses) == (b"1", 1, [])


def test_who_does_not_answer_is_asked_again_after_ever_longer_rests():
    value, calls, pauses = drive(ask(CALL), *[GONE] * 5, reply(1))
    assert value.status == 200
    assert calls == [CALL] * 6
    assert len(pauses) == 5
    assert pauses[0] < 0.06
    assert pauses[4] > 0.3


@pytest.mark.parametrize("status", [429, 503])
def test_what_was_not_done_is_said_again_when_it_is_told_to_be(status: int):
    _, calls, pauses = drive(ask(ONCE), error(status, **{"retry-after": "3"}), reply(1))
    assert len(calls) == 2
    assert pauses == [3.0]


@pytest.mark.parametrize("first", [GONE, error(502), error(504), error(500)])
def test_what_may_have_been_done_is_said_again_only_if_that_does_no_harm(first: Any):
    assert len(drive(ask(CALL), first, reply(1))[1]) == 2
    with pytest.raises((Refused, Unreachable)):
        drive(ask(ONCE), first)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415])
def test_what_is_refused_is_not_said_again(status: int):
    with pytest.raises(Refused) as raised:
        drive(ask(CALL), error(status, "why"))
    assert (raised.value.status, raised.value.code, raised.value.field) == (status, "why", "f")


def test_patience_ends():
    with pytest.raises(Unreachable):
        drive(ask(CALL, patience_s=1), *[GONE] * 6)
    with pytest.raises(Refused, match="no"):
        drive(ask(CALL, patience_s=1), error(503, **{"retry-after": "2"}))


def test_whoever_else_answers_is_not_believed():
    with pytest.raises(Refused, match="is it one"):
        drive(Verbs().workers(), Reply(200, {"content-type": "text/html"}, b"<html>"))
    with pytest.raises(Refused, match="answered 404"):
        drive(Verbs().workers(), Reply(404, {}, b"<html>"))


def test_a_function_is_registered_once():
    verbs = Verbs()
    identifier = "01a20fef-51f8-7e2c-a3b8-e2c52eb4e4ae"
    registered, executed = reply({"function_id": identifier}), reply({"task_id": identifier})
    _, calls, _ = drive(verbs.submit(len, ("x",), {}), registered, executed)
    assert [call.path for call in calls] == ["/api/v1/functions", "/execute_function"]
    _, calls, _ = drive(verbs.submit(len, ("y",), {}), executed)
    assert [call.path for call in calls] == ["/execute_function"]


def test_the_same_submit_carries_the_same_key_each_time():
    verbs = Verbs()
    identifier = "01a20fef-51f8-7e2c-a3b8-e2c52eb4e4ae"
    _, calls, _ = drive(verbs.submit(identifier, (), {}), GONE, error(503), reply({"task_id": identifier}))
    assert len({call.headers["Idempotency-Key"] for call in calls}) == 1
    _, others, _ = drive(verbs.submit(identifier, (), {}), reply({"task_id": identifier}))
    assert others[0].headers != calls[0].headers


def test_a_result_is_waited_for_until_it_is_there():
    task = "01a20fef-51f8-7e2c-a3b8-e2c52eb4e4ae"
    not_yet = reply({"task_id": task, "status": "RUNNING", "result": ""})
    there = reply({"task_id": task, "status": "COMPLETED", "result": encode(dump_call((1,), {}))})
    value, calls, _ = drive(Verbs().result(task), not_yet, not_yet, there)
    assert value == ((1,), {})
    assert [call.query["wait"] for call in calls] == ["30"] * 3
    with pytest.raises(TimeoutError, match="RUNNING after 40"):
        drive(Verbs().result(task, 40), not_yet, not_yet)


def test_large_batches_go_in_parts():
    assert parts([]) == []
    assert [len(part) for part in parts([b"x"] * 4_500)] == [2_000, 2_000, 500]
    big = bytes(flows.PART_BYTES)
    assert parts([b"a", big, b"b", b"c"]) == [[b"a"], [big], [b"b", b"c"]]
    identifier = "01a20fef-51f8-7e2c-a3b8-e2c52eb4e4ae"

    def added(first: int, n: int) -> Reply:
        return reply({"batch_id": identifier, "first": first, "task_ids": [identifier] * n})

    whole, calls, _ = drive(
        Verbs().submit_many(identifier, [(1,)] * 4_500), added(0, 2_000), added(2_000, 2_000), added(4_000, 500)
    )
    assert isinstance(whole, answers.Added)
    assert len(whole.task_ids) == 4_500
    assert [call.path for call in calls] == ["/api/v1/batches"] + [f"/api/v1/batches/{identifier}/tasks"] * 2
