"""Policies: what may be said, what goes before what, and what of it becomes of a task."""

from __future__ import annotations

import json
from functools import partial

import msgspec
import pytest

from api import policy
from api.errors import InvalidRequest
from api.models import Function, Task
from api.v1.serializers import PolicySerializer
from tests.live import serialize, until
from tests.web import Web, on_sqlite


def columns(function: dict | None = None, task: dict | None = None) -> policy.Columns:
    return policy.columns(
        None if function is None else policy.changed(None, function),
        None if task is None else json.dumps(task).encode(),
    )


NOTHING = policy.Columns(None, 3, False, 0, None, None)


def test_nothing_said_is_what_a_submission_is_anyway() -> None:
    assert columns() == columns({}) == columns(task={}) == NOTHING
    assert policy.columns(None, b"null") == NOTHING


def test_what_a_task_says_goes_before_what_its_function_says() -> None:
    function = {"deadline_s": 5, "retries": 2, "priority": 1}
    assert columns(function) == NOTHING._replace(deadline_s=5, priority=1, text='{"retries":2}')
    assert columns(function, {"deadline_s": 7, "backoff_s": 0}).deadline_s == 7
    assert json.loads(columns(function, {"backoff_s": 0}).text or "") == {"retries": 2, "backoff_s": 0}
    assert columns(function, {"deadline_s": None, "retries": None, "priority": None}) == NOTHING


def test_all_of_it() -> None:
    every = {
        "deadline_s": 1.5,
        "max_attempts": 4,
        "on_worker_lost": "retry",
        "retries": 1,
        "backoff_s": 0.5,
        "retry_on": ["OSError", "my.Error"],
        "priority": -3,
        "expires_s": 60,
        "fresh_process": True,
        "memory_limit_mb": 100,
    }
    given = columns(task=every)
    assert given[:5] == (1.5, 4, False, -3, 60)
    names = ("retries", "backoff_s", "retry_on", "fresh_process", "memory_limit_mb")
    assert json.loads(given.text or "") == {name: every[name] for name in names}
    assert columns(task={"on_worker_lost": "fail"}).at_most_once


def test_a_change_keeps_the_rest_and_null_takes_away() -> None:
    stored = policy.changed(None, {"retries": 2, "priority": 5})
    assert stored == '{"priority":5,"retries":2}'
    assert policy.changed(stored, {"retries": None, "backoff_s": 3}) == '{"backoff_s":3.0,"priority":5}'
    assert policy.changed(stored, {"retries": None, "priority": None}) is None
    assert policy.changed(stored, None) is None
    assert policy.changed(stored, {}) == stored


def nested(depth: int) -> list:
    return [nested(depth - 1)] if depth else []


WRONG = [
    (nested(400), "policy"),
    ({"deadline_s": nested(400)}, "policy.deadline_s"),
    ({"deadline_s": 0}, "policy.deadline_s"),
    ({"deadline_s": -1}, "policy.deadline_s"),
    ({"deadline_s": "5"}, "policy.deadline_s"),
    ({"deadline_s": True}, "policy.deadline_s"),
    ({"deadline_s": 1e300}, "policy.deadline_s"),
    ({"max_attempts": 0}, "policy.max_attempts"),
    ({"max_attempts": 1001}, "policy.max_attempts"),
    ({"max_attempts": 1.5}, "policy.max_attempts"),
    ({"on_worker_lost": "explode"}, "policy.on_worker_lost"),
    ({"on_worker_lost": "fail", "retries": 1}, "policy.on_worker_lost"),
    ({"retries": -1}, "policy.retries"),
    ({"backoff_s": -1}, "policy.backoff_s"),
    ({"backoff_s": 3601}, "policy.backoff_s"),
    ({"retry_on": "OSError"}, "policy.retry_on"),
    ({"retry_on": []}, "policy.retry_on"),
    ({"retry_on": [""]}, "policy.retry_on"),
    ({"retry_on": ["x" * 256]}, "policy.retry_on"),
    ({"retry_on": [1]}, "policy.retry_on"),
    ({"retry_on": ["x"] * 51}, "policy.retry_on"),
    ({"priority": 40000}, "policy.priority"),
    ({"expires_s": 0}, "policy.expires_s"),
    ({"fresh_process": "yes"}, "policy.fresh_process"),
    ({"fresh_process": 1}, "policy.fresh_process"),
    ({"memory_limit_mb": 0}, "policy.memory_limit_mb"),
    ({"memory_limit_mb": 0.5}, "policy.memory_limit_mb"),
    ({"colour": "red"}, "policy.colour"),
    ([], "policy"),
    ("fast", "policy"),
    (5, "policy"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG)
def test_what_is_no_policy_is_refused_and_the_field_named(wrong: object, field: str) -> None:
    for check in (lambda said: policy.columns(None, json.dumps(said).encode()), partial(policy.changed, None)):
        with pytest.raises(InvalidRequest) as caught:
            check(wrong)
        assert caught.value.field == field
        assert "$" not in caught.value.message


def test_a_task_may_not_contradict_its_function() -> None:
    with pytest.raises(InvalidRequest) as caught:
        columns({"retries": 2}, {"on_worker_lost": "fail"})
    assert caught.value.field == "policy.on_worker_lost"
    assert columns({"retries": 2}, {"on_worker_lost": "fail", "retries": 0}).at_most_once


def test_the_description_has_the_very_same_keys() -> None:
    assert (
        list(PolicySerializer().fields)
        == list(policy.DEFAULTS)
        == [f.name for f in msgspec.structs.fields(policy.Policy)]
    )
    assert PolicySerializer(data=policy.DEFAULTS).is_valid(raise_exception=True)


def register(web: Web, **policy_: object) -> str:
    body = {"name": "f", "payload": serialize(len), "policy": policy_}
    return str(web.post("/register_function", json=body).json()["function_id"])


@on_sqlite
def test_a_policy_becomes_columns(web: Web) -> None:
    function = register(web, retries=2, expires_s=60)
    task = Task.objects.get(id=web.execute(function, 1, policy={"priority": 4, "deadline_s": 9}).json()["task_id"])
    assert (task.priority, task.deadline_s, task.policy) == (4, 9.0, '{"retries":2}')
    assert task.expires_at is not None
    assert (task.expires_at - task.created).total_seconds() == pytest.approx(60, abs=1e-3)


@on_sqlite
@pytest.mark.parametrize("policy_", [None, {}])
def test_none_is_none(web: Web, policy_: object) -> None:
    body = {"name": "f", "payload": serialize(len), "policy": policy_}
    function = web.post("/register_function", json=body).json()["function_id"]
    task = Task.objects.get(id=web.execute(function, 1, policy=policy_).json()["task_id"])
    assert Function.objects.get().policy is None
    assert (task.policy, task.expires_at, task.max_attempts) == (None, None, 3)


@on_sqlite
@pytest.mark.parametrize(("wrong", "field"), [WRONG[0], WRONG[1], WRONG[2], WRONG[11], WRONG[-4], WRONG[-1]])
def test_a_wrong_one_is_refused_and_nothing_stored(web: Web, wrong: object, field: str) -> None:
    function = web.register()
    refused = [
        web.post("/register_function", json={"name": "f", "payload": serialize(len), "policy": wrong}),
        web.execute(function, 1, policy=wrong),
        web.http.patch(f"{web.url}/api/v1/functions/{function}", json={"policy": wrong}),
    ]
    assert [(answer.status_code, answer.json()["error"]["field"]) for answer in refused] == [(400, field)] * 3
    assert (Function.objects.count(), Task.objects.count()) == (1, 0)
    assert Function.objects.get().policy is None


@on_sqlite
def test_a_change_holds_for_the_next_task(web: Web) -> None:
    function = register(web, retries=2)

    def retries() -> object:
        task = web.execute(function, 1).json()["task_id"]
        return web.get(f"/api/v1/tasks/{task}").json()["policy"]["retries"]

    assert retries() == 2
    for change, expected in (({"retries": 5}, 5), ({"priority": 1}, 5), ({"retries": None}, 0)):
        answer = web.http.patch(f"{web.url}/api/v1/functions/{function}", json={"policy": change})
        assert answer.status_code == 200
        assert answer.json()["policy"]["retries"] == expected
        assert retries() == expected  # at once, through this process
    assert (
        web.http.patch(f"{web.url}/api/v1/functions/{function}/", json={"policy": None}).json()["policy"]
        == policy.DEFAULTS
    )
    assert web.http.patch(f"{web.url}/api/v1/functions/{function}", json={}).json()["error"]["field"] == "policy"
    assert web.http.patch(f"{web.url}/api/v1/functions/nonsense", json={"policy": {}}).status_code == 404


@on_sqlite
def test_a_change_through_another_process_holds_in_a_moment(web: Web) -> None:
    function = register(web)
    assert web.execute(function, 1).status_code == 201  # known here from now on
    Function.objects.update(policy='{"priority":9}')
    until(lambda: Task.objects.get(id=web.execute(function, 1).json()["task_id"]).priority == 9, timeout_s=5)


@on_sqlite
def test_the_same_key_with_another_policy_is_a_conflict(web: Web) -> None:
    function, key = web.register(), {"Idempotency-Key": "k"}
    said = [
        web.execute(function, 1, policy=policy_, headers=key).status_code
        for policy_ in ({"retries": 1}, {"retries": 1}, {"retries": 2}, None)
    ]
    assert said == [201, 201, 409, 409]
