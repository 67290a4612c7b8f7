"""`POST /api/v1/tasks/{id}/retry`: the same once more, as a task of its own."""

from __future__ import annotations

from uuid import uuid4

import pytest

from api import moves
from api.models import Payload, Task
from everythingfaas.status import Event, State
from tests.api.conftest import NOW, Workshop, committed, ended
from tests.web import Web, on_sqlite

pytestmark = on_sqlite


def retry(web: Web, task: object, **kwargs) -> tuple[int, dict]:
    answer = web.post(f"/api/v1/tasks/{task}/retry", **kwargs)
    return answer.status_code, answer.json()


@pytest.fixture
def failed(web: Web, workshop: Workshop) -> str:
    """A task that has failed, with a policy of its own."""
    function = web.register()
    policy = {
        "retries": 2,
        "priority": 7,
        "deadline_s": 5.5,
        "max_attempts": 9,
        "expires_s": 1e8,  # the workshop's clock is ahead
        "retry_on": ["OSError"],
    }
    task = web.execute(function, "arguments", policy=policy).json()["task_id"]
    (claimed,) = workshop.claim()
    with committed() as cursor:
        moves.end(cursor, [ended(claimed, Event.FAIL)])
    return task


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_retry_is_a_new_task_that_does_the_same(web: Web, failed: str, slash):
    answer = web.post(f"/api/v1/tasks/{failed}/retry{slash}")
    assert answer.status_code == 201
    body = answer.json()
    assert (body["state"], body["retry_of"], body["retried_by"]) == ("QUEUED", failed, [])
    former = web.get(f"/api/v1/tasks/{failed}").json()
    assert (former["state"], former["retried_by"]) == ("FAILED", [body["id"]])
    assert body["policy"] == former["policy"]
    assert body["function"] == former["function"]
    one, other = (Payload.objects.get(task=task) for task in (failed, body["id"]))
    assert (bytes(one.data), one.codec) == (bytes(other.data), other.codec)
    assert web.get(f"/status/{body['id']}").json()["status"] == "QUEUED"


def test_a_retry_is_claimed_as_any_task(web: Web, workshop: Workshop, failed: str):
    task = retry(web, failed)[1]["id"]
    (claimed,) = workshop.claim()
    assert (str(claimed.task), claimed.attempt, claimed.priority) == (task, 1, 7)


def test_what_was_cancelled_can_be_retried(web: Web):
    task = web.submit()
    web.post(f"/api/v1/tasks/{task}/cancel")
    assert retry(web, task)[0] == 201


@pytest.mark.parametrize("state", [State.WAITING, State.QUEUED, State.RUNNING])
def test_what_has_not_ended_cannot_be_retried(web: Web, workshop: Workshop, state):
    status, body = retry(web, workshop.task_in(state))
    assert (status, body["error"]["code"]) == (409, "not_ended")
    assert state.name in body["error"]["message"]
    assert Task.objects.count() == 1


def test_the_same_key_is_one_retry(web: Web, failed: str):
    assert retry(web, failed)[0] == 201
    headers = {"Idempotency-Key": "once"}
    first, second = retry(web, failed, headers=headers), retry(web, failed, headers=headers)
    assert first == second
    assert first[0] == 201
    assert Task.objects.filter(retry_of=failed).count() == 2


def test_a_key_that_stood_for_something_else_is_refused(web: Web, failed: str):
    key = {"Idempotency-Key": "key"}
    other = web.execute(web.register(), 1, headers=key).json()["task_id"]
    assert retry(web, failed, headers=key)[0] == 409
    assert retry(web, failed, headers={"Idempotency-Key": ""})[1]["error"]["field"] == "Idempotency-Key"
    assert not Task.objects.filter(retry_of=other).exists()


@pytest.mark.parametrize("task", [uuid4(), "nonsense"])
def test_what_there_is_not_cannot_be_retried(web: Web, task):
    assert retry(web, task)[0] == 404


def test_what_is_somebody_elses_cannot_be_retried(web: Web, workshop: Workshop):
    (task,) = workshop.submit(owner=workshop.another_owner())
    with committed() as cursor:
        moves.cancel(cursor, [task], NOW)
    assert retry(web, task)[0] == 404
