"""`POST /api/v1/tasks/{id}/cancel` at every point of a task's way. The tests move tasks as a dispatcher would."""

from __future__ import annotations

import codecs
import time
from uuid import uuid4

import dill
import pytest

from api import moves
from api.models import Counter, Task
from everythingfaas.failures import TaskCancelled, dump
from everythingfaas.status import Event, State
from tests.api.conftest import Workshop, committed, ended, released
from tests.api.test_long_polls import subscribed, waiting
from tests.live import until
from tests.redis_fixture import Valkey
from tests.web import Answer, Web, on_sqlite

pytestmark = on_sqlite


def cancel(web: Web, task: object, query: str = "") -> tuple[int, dict]:
    answer = web.post(f"/api/v1/tasks/{task}/cancel{query}")
    return answer.status_code, answer.json()


@pytest.mark.parametrize("slash", ["", "/"])
def test_what_is_queued_ends_at_once(web: Web, slash):
    task = web.submit()
    answer = web.post(f"/api/v1/tasks/{task}/cancel{slash}", json={})
    assert (answer.status_code, answer.json()["state"]) == (200, "CANCELLED")
    assert answer.json()["error"] == "cancelled while it waited"
    result = web.get(f"/result/{task}").json()
    assert result["status"] == "FAILED"
    assert type(dill.loads(codecs.decode(result["result"].encode(), "base64"))).__name__ == "TaskCancelled"
    assert sum(Counter.objects.filter(state=State.CANCELLED).values_list("count", flat=True)) == 1
    assert sum(Counter.objects.filter(state=State.QUEUED).values_list("count", flat=True)) == 0


def test_what_waits_for_its_next_attempt_ends_at_once(web: Web, workshop: Workshop):
    task = web.submit()
    (claimed,) = workshop.claim()
    with committed() as cursor:
        later = time.time() + 3600
        moves.release(cursor, [released(claimed, Event.POSTPONE, run_after=later)], time.time())
    assert web.get(f"/api/v1/tasks/{task}").json()["state"] == "WAITING"
    assert web.get(f"/status/{task}").json()["status"] == "RUNNING"
    status, body = cancel(web, task)
    assert (status, body["state"], len(body["attempts"])) == (200, "CANCELLED", 1)
    assert web.get(f"/status/{task}").json()["status"] == "FAILED"


def test_what_runs_is_marked_and_its_dispatcher_told_at_once(web: Web, workshop: Workshop, valkey: Valkey):
    task = web.submit()
    (claimed,) = workshop.claim()
    with valkey.client() as client, client.pubsub() as bell:
        bell.subscribe("faas:bell")
        assert bell.get_message(timeout=5)["type"] == "subscribe"
        status, body = cancel(web, task)
        assert (status, body["state"]) == (202, "RUNNING")
        assert body["cancel_requested_at"] is not None
        assert bell.get_message(timeout=5)["data"] == b"cancel"
        with committed() as cursor:
            assert moves.cancel_requests(cursor, workshop.dispatcher) == [(claimed.task, claimed.attempt)]
        again = cancel(web, task)[1]  # the first one's time stays, and the bell rings again: it may have been missed
        assert again["cancel_requested_at"] == body["cancel_requested_at"]
        assert bell.get_message(timeout=5)["data"] == b"cancel"


def test_who_waits_for_the_kill_is_told_of_it(web: Web, workshop: Workshop, valkey: Valkey):
    until(lambda: subscribed(valkey))
    task = web.submit()
    (claimed,) = workshop.claim()
    answer = Answer(web, "POST", f"/api/v1/tasks/{task}/cancel?wait=30", {})
    until(lambda: Task.objects.get(id=task).cancel_requested_at)
    with committed() as cursor:
        moves.end(cursor, [ended(claimed, Event.CANCEL, result=dump(TaskCancelled("the task was cancelled")))])
    with valkey.client() as client:
        client.publish("faas:done", claimed.task.bytes)
    assert answer.wait(5) == 200
    assert answer.body["state"] == "CANCELLED"


def test_a_wait_that_is_over_tells_how_it_is(web: Web, workshop: Workshop):
    task = web.submit()
    workshop.claim()
    assert cancel(web, task, "?wait=0.05")[0] == 202
    assert cancel(web, task, "?wait=x")[1]["error"]["field"] == "wait"


def test_a_completion_that_was_first_stays(web: Web, workshop: Workshop):
    task = web.submit()
    (claimed,) = workshop.claim()
    with committed() as cursor:
        moves.end(cursor, [ended(claimed)])
    before = Task.objects.get(id=task)
    for _ in range(2):
        status, body = cancel(web, task)
        assert (status, body["state"], body["cancel_requested_at"]) == (200, "COMPLETED", None)
    after = Task.objects.get(id=task)
    assert (after.finished, after.error, after.result_size) == (before.finished, before.error, before.result_size)


def test_cancelling_twice_is_cancelling_once(web: Web):
    task = web.submit()
    assert cancel(web, task) == cancel(web, task)


@pytest.mark.parametrize("task", [uuid4(), "nonsense"])
def test_what_there_is_not_cannot_be_cancelled(web: Web, task):
    status, body = cancel(web, task)
    assert (status, body["error"]["code"], body["error"]["field"]) == (404, "not_found", "task_id")


def test_what_is_somebody_elses_cannot_be_cancelled(web: Web, workshop: Workshop):
    (task,) = workshop.submit(owner=workshop.another_owner())
    assert cancel(web, task)[0] == 404
    assert workshop.state(task) is State.QUEUED


def test_it_is_not_to_be_read(web: Web):
    answer = web.get(f"/api/v1/tasks/{uuid4()}/cancel")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_a_long_poll_is_woken(web: Web):
    _woken(web)


def test_a_long_poll_is_woken_without_redis(web_alone: Web):
    _woken(web_alone)


def _woken(web: Web) -> None:
    task = web.submit()
    answer = Answer(web, "GET", f"/result/{task}?wait=30")
    waiting(web, 1)
    began = time.monotonic()
    assert cancel(web, task)[0] == 200
    assert answer.wait(5) == 200
    assert answer.body["status"] == "FAILED"
    assert time.monotonic() - began < 0.9  # sooner than the look that takes a second


def test_many_at_once(web: Web, workshop: Workshop):
    tasks = [web.submit() for _ in range(30)]
    workshop.claim(limit=10)
    answers = [Answer(web, "POST", f"/api/v1/tasks/{task}/cancel", {}) for task in tasks]
    assert sorted(answer.wait() for answer in answers) == [200] * 20 + [202] * 10
    assert Task.objects.filter(state=State.CANCELLED).count() == 20
