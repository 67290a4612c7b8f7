"""Tasks, functions and workers as `/api/v1/` shows them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext

from api import moves
from api.access.caller import local_owner
from api.models import Dispatcher, Function, Task, new_id
from api.v1 import parameters, queries
from api.v1.serializers import FunctionPageSerializer, TaskDetailSerializer, TaskPageSerializer, WorkersSerializer
from everythingfaas.status import Event, Outcome, State
from tests.api.conftest import NOW, Workshop, committed, ended, released, report
from tests.live import serialize
from tests.web import Web, on_sqlite


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


@pytest.fixture
def told(workshop: Workshop) -> UUID:
    """A task that died once and raised then."""
    first = workshop.running(deadline_s=30.0, policy='{"retries":2,"memory_limit_mb":64}', priority=3)
    died = report(
        Outcome.DIED, began=NOW + 2, ended=NOW + 3, exit_signal=11, output_head=b"caf\xe9 \xff\n", output_dropped=12
    )
    with committed() as cursor:
        moves.release(cursor, [released(first, report=died, deaths=1)], NOW)
    (second,) = workshop.claim()
    raised = report(
        Outcome.RAISED,
        began=NOW + 4,
        ended=NOW + 10,
        worker="w2",
        slot=1,
        error_type="ValueError",
        message="wrong",
        traceback="Traceback …",
        output_head="ünï\n".encode(),
        output_tail=b"tail",
    )
    with committed() as cursor:
        moves.end(cursor, [ended(second, Event.FAIL, report=raised, error="ValueError: wrong", failures=1)])
    return first.task


def test_a_task_with_all_that_is_known(workshop: Workshop, told: UUID) -> None:
    body = json.loads(json.dumps(TaskDetailSerializer(queries.task(frozenset({workshop.owner}), told)).data))
    attempts = body.pop("attempts")
    assert body == {
        "id": str(told),
        "state": "FAILED",
        "owner": "local",
        "function": {"id": str(workshop.function), "name": "double"},
        "requirements": "",
        "batch": None,
        "attempt": 2,
        "starts": 2,
        "deaths": 1,
        "failures": 1,
        "created": iso(NOW),
        "started": iso(NOW + 2),
        "finished": iso(NOW + 10),
        "wait_s": 2.0,
        "run_s": 8.0,
        "run_after": None,
        "expires_at": None,
        "cancel_requested_at": None,
        "deadline_s": 30.0,
        "policy": {
            "deadline_s": 30.0,
            "max_attempts": 3,
            "on_worker_lost": "retry",
            "retries": 2,
            "backoff_s": 1.0,
            "retry_on": None,
            "priority": 3,
            "expires_s": None,
            "fresh_process": False,
            "memory_limit_mb": 64,
        },
        "dispatcher": str(workshop.dispatcher),
        "worker": "w2",
        "error": "ValueError: wrong",
        "retry_of": None,
        "waits_for": None,
        "retried_by": [],
        "payload_size": 9,
        "result_size": 4,
    }
    assert [(a["number"], a["outcome"], a["worker"], a["slot"], a["run_s"]) for a in attempts] == [
        (1, "DIED", "w1", 0, 1.0),
        (2, "RAISED", "w2", 1, 6.0),
    ]
    first, second = attempts
    assert (first["exit_signal"], first["exit_signal_name"], first["exit_code"]) == (11, "SIGSEGV", None)
    assert (first["output_head"], first["output_tail"], first["output_dropped"]) == ("caf\\xe9 \\xff\n", None, 12)
    assert (second["error_type"], second["message"], second["traceback"]) == ("ValueError", "wrong", "Traceback …")
    assert (second["output_head"], second["output_tail"]) == ("ünï\n", "tail")


def test_neither_arguments_nor_result_are_loaded(workshop: Workshop, told: UUID) -> None:
    with CaptureQueriesContext(
        connection,
    ) as asked:
        assert TaskDetailSerializer(queries.task(frozenset({workshop.owner}), told)).data
    assert len(asked) == 3
    said = " ".join(query["sql"] for query in asked)
    assert "api_payload" not in said
    assert "api_result" not in said
    assert '"source"' not in said


@pytest.mark.parametrize("n", [1, 30])
def test_lists_take_as_many_queries_however_long_they_are(workshop: Workshop, n: int) -> None:
    for _ in range(n):
        workshop.task_in(State.COMPLETED)
        with committed() as cursor:
            moves.register(cursor, workshop.owner, "other", b"code" * n, created=NOW)
            moves.register_dispatcher(cursor, new_id(), "push", 1, "there", 1, lease_s=60)
    page = queries.Page(200)
    with CaptureQueriesContext(connection) as asked:
        tasks, following = queries.tasks(frozenset({workshop.owner}), queries.Wanted(), page)
        assert len(TaskPageSerializer({"tasks": tasks, "next": following}).data["tasks"]) == n
    assert len(asked) == 1
    with CaptureQueriesContext(connection) as asked:
        functions, following = queries.functions(frozenset({workshop.owner}), None, page)
        assert len(FunctionPageSerializer({"functions": functions, "next": following}).data["functions"]) == n + 1
    assert len(asked) == 1
    assert '"data"' not in asked[0]["sql"]
    assert '"source"' not in asked[0]["sql"]
    with CaptureQueriesContext(connection) as asked:
        assert len(WorkersSerializer(queries.workers(None)).data["dispatchers"]) == n + 1
    assert len(asked) == 1


def test_pages_hold_each_task_once_newest_first(workshop: Workshop) -> None:
    tasks = workshop.submit(7)
    seen: list[UUID] = []
    before = None
    for expected in (3, 3, 1):
        found, before = queries.tasks(frozenset({workshop.owner}), queries.Wanted(), queries.Page(3, before))
        assert len(found) == expected
        seen += [task.id for task in found]
        workshop.submit()  # what comes meanwhile moves no page
    assert before is None
    assert seen == tasks[::-1]
    found, before = queries.tasks(frozenset({workshop.owner}), queries.Wanted(), queries.Page(10))
    assert (len(found), before) == (10, None)


def test_lists_of_what_is_wanted(workshop: Workshop) -> None:
    done, waits = workshop.task_in(State.COMPLETED), workshop.task_in(State.WAITING)
    queued = workshop.submit()[0]
    workshop.submit(owner=workshop.another_owner())
    with committed() as cursor:
        other = moves.register(cursor, workshop.owner, "other", b"code", created=NOW)
    (elsewhere,) = workshop.submit(function=other)

    def found(**wanted: object) -> list[UUID]:
        return [
            task.id
            for task in queries.tasks(frozenset({workshop.owner}), queries.Wanted(**wanted), queries.Page(50))[0]
        ]  # type: ignore[arg-type]

    assert found() == [elsewhere, queued, waits, done]
    assert found(states=[State.COMPLETED, State.WAITING]) == [waits, done]
    assert found(function=other) == [elsewhere]
    assert found(function=other, states=[State.FAILED]) == []
    when = datetime.fromtimestamp((queued.int >> 80) / 1000, UTC)
    assert set(found(since=when)) >= {elsewhere, queued}
    assert found(since=datetime(9000, 1, 1, tzinfo=UTC)) == []
    assert len(found(since=datetime(1900, 1, 1, tzinfo=UTC))) == 4


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("limit=²", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("before=x", "before"),
        ("function=x", "function"),
        ("state=running", "state"),
        ("state=", "state"),
        ("since=yesterday", "since"),
        ("since=nan", "since"),
        ("since=1e300", "since"),
        ("since=2026-13-01T00:00:00Z", "since"),
    ],
)
@on_sqlite
def test_what_cannot_be_read_is_said(web: Web, query: str, field: str) -> None:
    answer = web.get(f"/api/v1/tasks?{query}")
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00", "1769860800", "1769860800.0"]
)
def test_times_may_be_said_in_several_ways(text: str) -> None:
    assert parameters.wanted(QueryDict(f"since={text}")).since == datetime(2026, 1, 31, 12, tzinfo=UTC)


@on_sqlite
@pytest.mark.parametrize("slash", ["", "/"])
def test_over_http(web: Web, workshop: Workshop, slash: str) -> None:
    source = web.register()
    task = web.execute(source, 1).json()["task_id"]
    body = web.get(f"/api/v1/tasks/{task}{slash}").json()
    assert (body["state"], body["function"]) == ("QUEUED", {"id": source, "name": "function"})
    page = web.get(f"/api/v1/tasks{slash}?state=QUEUED,RUNNING&limit=1&function={source}").json()
    assert ([item["id"] for item in page["tasks"]], page["next"]) == ([task], None)
    functions = web.get(f"/api/v1/functions{slash}?limit=1").json()
    assert [item["id"] for item in functions["functions"]] == [source]
    following = web.get(f"/api/v1/functions{slash}?before={functions['next']}").json()
    assert [item["id"] for item in following["functions"]] == [str(workshop.function)]
    assert [item["name"] for item in web.get("/api/v1/functions?name=double").json()["functions"]] == ["double"]
    function = web.get(f"/api/v1/functions/{source}{slash}").json()
    assert (function["name"], function["size"], function["source"]) == ("function", function["size"], None)
    assert web.get(f"/api/v1/workers{slash}").json()["dispatchers"][0]["holds_lease"] is True


@on_sqlite
@pytest.mark.parametrize("path", ["tasks", "functions"])
def test_what_there_is_not_and_what_is_somebody_elses(web: Web, workshop: Workshop, path: str) -> None:
    other = workshop.another_owner()
    with committed() as cursor:
        foreign = moves.register(cursor, other, "foreign", b"code", created=NOW)
    ids = {"tasks": workshop.submit(owner=other)[0], "functions": foreign}
    for what in (uuid4(), "nonsense", ids[path]):
        answer = web.get(f"/api/v1/{path}/{what}")
        assert (answer.status_code, answer.json()["error"]["field"]) == (404, f"{path[:-1]}_id")
    assert str(ids[path]) not in web.get(f"/api/v1/{path}").text


def test_workers_are_those_of_the_snapshots(workshop: Workshop) -> None:
    worker = {
        "worker": "w" * 32,
        "name": "host:12",
        "host": "host",
        "pid": 12,
        "python": "3.11",
        "slots": 4,
        "running": [str(new_id())],
        "held": 2,
        "draining": False,
    }
    lapsed = new_id()
    with committed() as cursor:
        moves.register_dispatcher(cursor, lapsed, "push", 1, "there", 9, lease_s=-1)
        moves.renew_lease(cursor, lapsed, 1, -1, json.dumps([worker]))
        moves.renew_lease(cursor, workshop.dispatcher, 1, 60, json.dumps([worker | {"draining": True}]))
    body = WorkersSerializer(queries.workers(None)).data
    held = {str(d["id"]): d["holds_lease"] for d in body["dispatchers"]}
    assert held == {str(workshop.dispatcher): True, str(lapsed): False}
    assert {(w["id"], w["dispatcher"], w["holds_lease"], w["draining"], w["held"]) for w in body["workers"]} == {
        ("w" * 32, str(workshop.dispatcher), True, True, 2),
        ("w" * 32, str(lapsed), False, False, 2),
    }


@on_sqlite
def test_a_function_that_calls_are_made_of(web: Web) -> None:
    payload = serialize(len)
    answer = web.post("/register_function", json={"name": "f", "payload": payload, "policy": {"retries": 2}})
    function = web.get(f"/api/v1/functions/{answer.json()['function_id']}").json()
    row = Function.objects.get(id=function["id"])
    assert (function["sha256"], function["policy"]["retries"]) == (row.blob_id, 2)
    assert Task.objects.count() == 0
    assert Dispatcher.objects.count() == 0
    assert row.owner_id == local_owner()
