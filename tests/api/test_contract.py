"""The contract's calls as they succeed, from request to row and from row to answer."""

from __future__ import annotations

import codecs
import time
import uuid

import dill
import pytest
import requests

from api import moves
from api.models import Function, Payload, Task
from everythingfaas.failures import TaskCancelled, dump
from everythingfaas.serialize import encode
from everythingfaas.status import Event
from tests.api.conftest import Workshop, committed, ended
from tests.live import serialize, until
from tests.web import Web, on_sqlite

pytestmark = on_sqlite


@pytest.fixture
def running(web: Web, workshop: Workshop) -> moves.Claimed:
    """A task that was submitted over HTTP and is claimed."""
    web.submit()
    (claimed,) = workshop.claim()
    return claimed


def finish(claimed: moves.Claimed, event: Event = Event.COMPLETE, result: bytes = b"result") -> None:
    with committed() as cursor:
        assert moves.end(cursor, [ended(claimed, event, result=result)])


@pytest.mark.parametrize("slash", ["", "/"])
def test_register_twice_gives_two_functions(web: Web, slash):
    body = {"name": "double", "payload": serialize(lambda x: 2 * x), "and": {"other": "keys"}}
    answers = [web.post("/register_function" + slash, json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    ids = {uuid.UUID(answer.json()["function_id"]) for answer in answers}
    assert ids == set(Function.objects.filter(name="double").values_list("id", flat=True))
    assert len(ids) == 2


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("newlines", [True, False])
def test_an_executed_task_is_a_row(web: Web, slash, newlines):
    payload = serialize((("x" * 100,), {}))
    body = {"function_id": web.register(), "payload": payload if newlines else payload.replace("\n", ""), "else": 1}
    answer = web.post("/execute_function" + slash, json=body)
    assert answer.status_code == 201
    task = Task.objects.get(id=answer.json()["task_id"])
    assert str(task.function_id) == body["function_id"]
    assert Payload.objects.get(task=task).data == codecs.decode(payload.encode(), "base64")


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_task_that_waits(web: Web, slash):
    task = web.submit()
    assert web.get(f"/status/{task}{slash}").json() == {"task_id": task, "status": "QUEUED"}
    assert web.get(f"/result/{task}{slash}").json() == {"task_id": task, "status": "QUEUED", "result": ""}
    assert web.get(f"/status/{task.upper()}").json()["task_id"] == task


def test_a_task_that_is_given_out_is_queued_until_it_has_begun(web: Web, running: moves.Claimed):
    assert web.get(f"/status/{running.task}").json()["status"] == "QUEUED"
    with committed() as cursor:
        moves.begin(cursor, [moves.Begun(running.task, running.attempt, time.time())])
    assert web.get(f"/status/{running.task}").json()["status"] == "RUNNING"
    assert web.get(f"/result/{running.task}").json()["result"] == ""


@pytest.mark.parametrize(("event", "status"), [(Event.COMPLETE, "COMPLETED"), (Event.FAIL, "FAILED")])
def test_a_task_that_has_ended(web: Web, running: moves.Claimed, event, status):
    finish(running, event, result=dill.dumps("x" * 100))
    answer = web.get(f"/result/{running.task}").json()
    assert answer["status"] == web.get(f"/status/{running.task}").json()["status"] == status
    assert answer["result"] == encode(dill.dumps("x" * 100))
    assert all(len(line) <= 76 for line in answer["result"].splitlines())


def test_a_cancelled_task_reads_failed(web: Web):
    task = web.submit()
    with committed() as cursor:
        moves.withdraw(cursor, [uuid.UUID(task)], time.time())
    answer = web.get(f"/result/{task}").json()
    assert answer["status"] == "FAILED"
    assert codecs.decode(answer["result"].encode(), "base64") == dump(TaskCancelled("cancelled while it waited"))


def test_a_large_result(web: Web, running: moves.Claimed):
    finish(running, result=bytes(1_000_000))
    assert web.get(f"/result/{running.task}").json()["result"] == encode(bytes(1_000_000))


def test_head_is_get_without_a_body(web: Web):
    answer = web.http.head(f"{web.url}/status/{web.submit()}", timeout=30)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0


def test_the_same_key_and_body_is_the_same_task(web: Web):
    function, key = web.register(), {"Idempotency-Key": "once"}
    first, second = (web.execute(function, 1, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert Task.objects.count() == 1


def test_the_same_key_with_another_body_is_a_conflict(web: Web):
    function, key = web.register(), {"Idempotency-Key": "k" * 200}
    assert web.execute(function, 1, headers=key).status_code == 201
    others = [web.execute(function, 2, headers=key), web.execute(web.register(), 1, headers=key)]
    assert [answer.status_code for answer in others] == [409, 409]
    assert others[0].json()["error"]["code"] == "idempotency_conflict"
    assert Task.objects.count() == 1


def test_no_key_means_each_request_is_a_task(web: Web):
    function = web.register()
    assert web.execute(function, 1).json() != web.execute(function, 1).json()


@pytest.mark.parametrize("accept", ["application/json", "*/*", None, "application/json, text/html;q=0.5"])
def test_programs_are_greeted_in_json(web: Web, accept):
    answer = web.get("/", headers={"Accept": accept})
    assert answer.headers["Content-Type"] == "application/json"
    assert "EverythingFaaS" in answer.json()["message"]


def test_browsers_get_the_page(web: Web):
    web.submit()
    answer = web.get("/", headers={"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"})
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "'unsafe" not in answer.headers["Content-Security-Policy"]
    for part in ("EverythingFaaS", '<b id="tile-queued">1</b>', "local mode", f"{web.url}/register_function"):
        assert part in answer.text.replace("{url}", web.url)
    for file in ("api/page.css", "api/page.js"):
        assert f"/static/{file}" in answer.text
        assert web.get(f"/static/{file}").status_code == 200


def test_headers_say_little_and_allow_nothing_to_others(web: Web):
    for answer in (web.get("/healthz"), web.get("/"), web.get("/nothing"), web.get("/status/x")):
        assert answer.headers["Server"] == "everythingfaas"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_healthz_and_readyz(web: Web, workshop: Workshop):
    until(lambda: web.get("/readyz").json()["checks"]["redis"] == "ok", what="the web process finds Redis")
    assert web.get("/healthz").json() == {"status": "ok"}
    ready = web.get("/readyz")
    assert ready.json() == {
        "status": "ok",
        "checks": {"database": "ok", "dispatcher": "ok", "redis": "ok", "disk": "ok"},
    }
    assert ready.status_code == 200
    with committed() as cursor:
        moves.renew_lease(cursor, workshop.dispatcher, 1, -1.0, "{}")
    unready = web.get("/readyz")
    assert (unready.status_code, unready.json()["checks"]["dispatcher"]) == (503, "none is alive")


def test_without_redis_readyz_reads_degraded(web_alone: Web, workshop: Workshop):
    answer = web_alone.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["checks"]["redis"] == "down"


def test_a_body_up_to_the_limit_and_one_beyond(web: Web):
    function, limit = web.register(), 16 * 1024**2
    for size, status in ((limit - 1_000_000, 201), (limit + 1_000, 413), (4 * limit, 413)):
        raw = b"\x80\x04" + bytes(3 * size // 4 - 200) + b"."
        body = {"function_id": function, "payload": codecs.encode(raw, "base64").decode().replace("\n", "")}
        assert web.post("/execute_function", json=body).status_code == status
    assert Task.objects.count() == 1


def test_a_body_without_a_length_is_counted(web: Web):
    def chunks():
        for _ in range(20):
            yield bytes(1024**2)

    answer = web.post("/execute_function", data=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/healthz", "/static/api/page.css", "/admin/login/"])
def test_pages_of_others_are_kept_out(web: Web, path, headers):
    answer = requests.get(web.url + path, headers=headers, timeout=30)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"


def test_our_own_pages_are_let_in(web: Web):
    for origin in (web.url, f"http://localhost:{web.port}"):
        assert web.get("/healthz", headers={"Origin": origin}).status_code == 200
