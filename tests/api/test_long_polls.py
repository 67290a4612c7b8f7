"""Waiting for results: woken at once with Redis, within a second without, and never at the cost of a thread."""

from __future__ import annotations

import time
from uuid import UUID

import pytest

from api import moves
from api.mirror import SyncMirror
from everythingfaas.status import Event
from tests.api.conftest import Workshop, committed, ended
from tests.live import until
from tests.redis_fixture import Valkey
from tests.web import Answer, Web, on_sqlite

pytestmark = on_sqlite


def finish(workshop: Workshop, mirror: SyncMirror | None = None) -> None:
    """Ends all that is queued, as a dispatcher does: commit, then mirror, then announce."""
    claimed = workshop.claim()
    with committed() as cursor:
        moves.end(cursor, [ended(task) for task in claimed])
    if mirror is not None:
        mirror.ended([(task.task, task.attempt, "COMPLETED", Event.COMPLETE.value.encode()) for task in claimed])


@pytest.fixture
def mirror(valkey: Valkey):
    mirror = SyncMirror(valkey.url)
    yield mirror
    mirror.close()


def subscribed(valkey: Valkey) -> bool:
    with valkey.client() as client:
        return bool(client.pubsub_numsub("faas:done")[0][1])


def waiting(web: Web, n: int) -> None:
    """Returns when the web process has `n` connections that wait."""
    port = f":{web.port:04X} "

    def established() -> int:
        with open("/proc/net/tcp") as table:
            return sum(line.split()[2].endswith(port.strip()) and line.split()[3] == "01" for line in table)

    until(lambda: established() >= n, what=f"{n} connections")
    assert web.get("/healthz").ok  # what they have sent was read before this


def test_a_result_wakes_who_waits_for_it(web: Web, workshop: Workshop, valkey: Valkey, mirror: SyncMirror):
    until(lambda: subscribed(valkey))
    task = web.submit()
    answer = Answer(web, "GET", f"/result/{task}?wait=30")
    waiting(web, 1)
    finish(workshop, mirror)
    ended_at = time.monotonic()
    assert answer.wait() == 200
    assert time.monotonic() - ended_at < 0.5
    assert answer.body["status"] == "COMPLETED"
    assert answer.body["result"]


def test_200_wait_on_one_subscription_and_no_thread(web: Web, workshop: Workshop, valkey: Valkey, mirror: SyncMirror):
    until(lambda: subscribed(valkey))
    function = web.register()
    tasks = [web.execute(function, i).json()["task_id"] for i in range(200)]
    threads = web.threads()
    with valkey.client() as client:
        subscriptions = client.pubsub_numsub("faas:done")[0][1]  # other web processes of the tests may have one, too
        answers = [Answer(web, "GET", f"/result/{task}?wait=30") for task in tasks]
        waiting(web, 200)
        assert web.threads() == threads
        assert client.pubsub_numsub("faas:done")[0][1] == subscriptions
        finish(workshop, mirror)
        finish(workshop, mirror)
    assert [answer.wait() for answer in answers] == [200] * 200
    assert {answer.body["status"] for answer in answers} == {"COMPLETED"}
    assert [answer.body["task_id"] for answer in answers] == tasks


def test_without_redis_the_rows_are_looked_at(web_alone: Web, workshop: Workshop):
    task = web_alone.submit()
    answers = [Answer(web_alone, "GET", f"/result/{task}?wait=30") for _ in range(50)]
    waiting(web_alone, 50)
    finish(workshop)
    ended_at = time.monotonic()
    assert [answer.wait() for answer in answers] == [200] * 50
    assert time.monotonic() - ended_at < 2.5
    assert {answer.body["status"] for answer in answers} == {"COMPLETED"}


def test_redis_dies_while_somebody_waits(web: Web, workshop: Workshop, valkey: Valkey):
    until(lambda: subscribed(valkey))
    answer = Answer(web, "GET", f"/result/{web.submit()}?wait=30")
    waiting(web, 1)
    valkey.kill()
    finish(workshop)
    assert answer.wait(5) == 200
    assert answer.body["status"] == "COMPLETED"


def test_a_lost_announcement_costs_seconds_and_not_the_answer(web: Web, workshop: Workshop, valkey: Valkey):
    until(lambda: subscribed(valkey))
    answer = Answer(web, "GET", f"/result/{web.submit()}?wait=30")
    waiting(web, 1)
    finish(workshop)  # and nobody is told
    assert answer.wait(10) == 200
    assert answer.body["status"] == "COMPLETED"


def test_a_wait_ends_with_the_state_as_it_is(web: Web):
    task = web.submit()
    began = time.monotonic()
    answer = web.get(f"/result/{task}?wait=0.3")
    assert 0.3 <= time.monotonic() - began < 3
    assert answer.json() == {"task_id": task, "status": "QUEUED", "result": ""}


def test_nobody_waits_for_what_has_ended_or_never_was(web: Web, workshop: Workshop):
    task = web.submit()
    finish(workshop)
    began = time.monotonic()
    assert web.get(f"/result/{task}?wait=30").json()["status"] == "COMPLETED"
    assert web.get("/result/01890a5d-ac96-774b-bcce-b302099a8057?wait=30").status_code == 404
    assert time.monotonic() - began < 5


def test_a_terminal_mirror_is_believed_and_another_is_not(
    web: Web, workshop: Workshop, valkey: Valkey, mirror: SyncMirror
):
    until(lambda: web.get("/readyz").json()["checks"]["redis"] == "ok")
    first, second = UUID(web.submit()), UUID(web.submit())
    mirror.ended([(first, 1, "FAILED", b"from the mirror")])
    mirror.begun([(second, 1)])
    assert web.get(f"/result/{first}").json()["status"] == "FAILED"
    assert web.get(f"/status/{second}").json()["status"] == "QUEUED"


def test_submitting_rings_the_bell_and_mirrors(web: Web, valkey: Valkey):
    until(lambda: web.get("/readyz").json()["checks"]["redis"] == "ok")
    with valkey.client() as client, client.pubsub() as ears:
        ears.subscribe("faas:bell")
        until(lambda: ears.get_message(timeout=1))  # that it listens
        task = web.submit()
        assert until(lambda: ears.get_message(timeout=1))["type"] == "message"
        assert client.hgetall(f"faas:task:{task}") == {b"attempt": b"0", b"rank": b"0", b"state": b"QUEUED"}
        assert 0 < client.ttl(f"faas:task:{task}") <= 3600
