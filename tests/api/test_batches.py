"""Batches: accepted whole or not at all, once; their results as a stream. The tests move tasks as dispatchers do."""

from __future__ import annotations

import base64
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import dill
import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from api import moves
from api.access import tokens
from api.batches.intake import MAX_TASKS
from api.mirror import SyncMirror
from api.models import Batch, BatchPart, Counter, Quota, Task
from everythingfaas.status import Event, Outcome, State
from tests.access import People
from tests.api.conftest import Workshop, committed, ended, report
from tests.api.test_long_polls import finish, mirror, subscribed, waiting  # noqa: F401
from tests.conftest import Database
from tests.live import serialize, until
from tests.redis_fixture import Valkey
from tests.web import Answer, Web, on_sqlite, web_process

pytestmark = on_sqlite

ARGUMENTS = dill.dumps(((), {}))
PACKED = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode


def order(function: str, n: int, **more: Any) -> dict[str, Any]:
    return {"function_id": function, "tasks": [{"payload": ARGUMENTS} for _ in range(n)], **more}


def submit(web: Web, n: int, *, to: str | None = None, **more: Any) -> dict[str, Any]:
    path = "/api/v1/batches" if to is None else f"/api/v1/batches/{to}/tasks"
    answer = web.post(path, data=pack(order(web.register(), n, **more)), headers=PACKED)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = unpack(answer.content)
    return made


def results(web: Web, batch: str, query: str = "") -> dict[str, Any]:
    answer = web.get(f"/api/v1/batches/{batch}/results{query}", headers=PACKED)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = unpack(answer.content)
    return page


def refused(web: Web, body: Any, *, packed: bool = True) -> dict[str, Any]:
    """The error; and nothing is stored."""
    if packed:
        answer = web.post("/api/v1/batches", data=pack(body), headers=PACKED)
    else:
        answer = web.post("/api/v1/batches", json=body)
    assert answer.status_code == 400, answer.text
    assert not Task.objects.exists()
    assert not Batch.objects.exists()
    error: dict[str, Any] = answer.json()["error"]
    return error


@contextmanager
def following(web: Web, batch: str, after: str = "", **headers: str) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{web.port}/api/v1/follow", compression=None, additional_headers=headers) as ws:
        ws.send(pack({"follow": batch, "after": after}))
        yield ws


def test_a_batch_is_accepted_in_its_order(web: Web, workshop: Workshop):
    made = submit(web, 5, name="sweep")
    assert made["first"] == 0
    rows = Task.objects.order_by("id")
    assert [str(row.id) for row in rows] == made["task_ids"]
    assert {str(row.batch) for row in rows} == {made["batch_id"]}
    assert {row.state for row in rows} == {State.QUEUED.value}
    assert [task.payload for task in workshop.claim()] == [ARGUMENTS] * 5
    assert sum(Counter.objects.filter(state=State.QUEUED).values_list("count", flat=True)) == 5


def test_the_same_in_json(web: Web, workshop: Workshop):
    function, other = web.register(), web.register(max)
    body = {
        "function_id": function,
        "tasks": [
            {"payload": serialize(((1,), {}))},
            {"args": [1, {"a": [None, 2.5]}], "kwargs": {"x": "ü"}, "function_id": other},
            {"kwargs": {}, "policy": {"priority": 7}},
        ],
    }
    answer = web.post("/api/v1/batches", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"/api/v1/batches/{answer.json()['batch_id']}"
    urgent, first, second = workshop.claim()
    assert (urgent.priority, pickle.loads(urgent.payload)) == (7, ((), {}))
    assert (str(first.function), pickle.loads(first.payload)) == (function, ((1,), {}))
    assert (str(second.function), pickle.loads(second.payload)) == (other, ((1, {"a": [None, 2.5]}), {"x": "ü"}))


def test_a_policy_holds_for_all_but_those_that_have_their_own(web: Web, workshop: Workshop):
    body = order(web.register(), 2, policy={"priority": 3, "deadline_s": 9})
    body["tasks"][1]["policy"] = {"max_attempts": 1}
    assert web.post("/api/v1/batches", data=pack(body), headers=PACKED).status_code == 201
    one, two = workshop.claim()
    assert (one.priority, one.deadline_s, one.max_attempts) == (3, 9, 3)
    assert (two.priority, two.deadline_s, two.max_attempts) == (0, None, 1)


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ({"payload": b""}, "tasks[2].payload"),
        ({"payload": b"no pickle"}, "tasks[2].payload"),
        ({"payload": ARGUMENTS[:-1]}, "tasks[2].payload"),
        ({"payload": 7}, "tasks[2].payload"),
        ({}, "tasks[2].payload"),
        ({"payload": ARGUMENTS, "function_id": str(uuid4())}, "tasks[2].function_id"),
        ({"payload": ARGUMENTS, "function_id": "x"}, "tasks[2].function_id"),
        ({"payload": ARGUMENTS, "policy": {"retries": -1}}, "tasks[2].policy.retries"),
        ({"payload": ARGUMENTS, "policy": {"rertries": 1}}, "tasks[2].policy.rertries"),
        (7, "tasks[2]"),
    ],
)
def test_the_bad_one_is_named_and_nothing_is_stored(web: Web, task: Any, field: str):
    body = order(web.register(), 4)
    body["tasks"][2] = task
    error = refused(web, body)
    assert error["field"] == field
    assert "tasks[2]" in error["message"]


@pytest.mark.parametrize(
    ("task", "field"),
    [
        ({"payload": "%%"}, "tasks[1].payload"),
        ({"payload": base64.b64encode(b"no pickle").decode()}, "tasks[1].payload"),
        ({"payload": 7}, "tasks[1].payload"),
        ({}, "tasks[1].payload"),
        ({"args": {}}, "tasks[1].args"),
        ({"kwargs": []}, "tasks[1].kwargs"),
        ("x", "tasks[1]"),
    ],
)
def test_the_bad_one_is_named_in_json(web: Web, task: Any, field: str):
    body = {"function_id": web.register(), "tasks": [{"args": []}, task]}
    assert refused(web, body, packed=False)["field"] == field


def test_what_is_no_batch(web: Web):
    function = web.register()
    assert refused(web, {"tasks": [{"payload": ARGUMENTS}]})["field"] == "tasks[0].function_id"
    assert refused(web, {"function_id": function})["field"] == "tasks"
    assert refused(web, order(function, MAX_TASKS + 1))["field"] == "tasks"
    assert refused(web, order(function, 1, name="x" * 256))["field"] == "name"
    assert refused(web, order(function, 1, policy={"x": 1}))["field"] == "tasks[0].policy.x"
    for body in (b"", b"\xc1", b"\x81", pack([]), pack(order(function, 1))[:-1]):
        answer = web.post("/api/v1/batches", data=body, headers=PACKED)
        assert answer.status_code == 400, (body, answer.text)
    assert web.post("/api/v1/batches", json=order(str(uuid4()), 0)).status_code == 404
    assert web.post("/execute_function", data=pack({}), headers=PACKED).status_code == 415
    assert not Task.objects.exists()


def test_a_batch_may_be_as_large_as_that(web: Web):
    made = submit(web, MAX_TASKS)
    assert len(made["task_ids"]) == len(set(made["task_ids"])) == Task.objects.count() == MAX_TASKS
    assert sorted(made["task_ids"]) == made["task_ids"]
    shown = web.get(f"/api/v1/batches/{made['batch_id']}").json()
    assert (shown["size"], shown["pending"], shown["states"]["QUEUED"]) == (MAX_TASKS,) * 3


def test_the_same_request_is_accepted_once(web: Web):
    body = pack(order(web.register(), 3))
    headers = {**PACKED, "Idempotency-Key": "one"}
    first, second = (web.post("/api/v1/batches", data=body, headers=headers) for _ in range(2))
    assert first.content == second.content
    assert Task.objects.count() == 3
    batch = unpack(first.content)["batch_id"]
    more = pack(order(web.register(), 2))
    headers = {**PACKED, "Idempotency-Key": "two"}
    first, second = (web.post(f"/api/v1/batches/{batch}/tasks", data=more, headers=headers) for _ in range(2))
    assert first.content == second.content
    assert unpack(first.content)["first"] == 3
    assert Task.objects.count() == 5
    assert BatchPart.objects.count() == 2
    assert sum(Counter.objects.filter(state=State.QUEUED).values_list("count", flat=True)) == 5


@pytest.mark.parametrize("again", ["another body", "another batch"])
def test_a_key_is_of_one_request(web: Web, again: str):
    batch = submit(web, 1)["batch_id"]
    body = pack(order(web.register(), 3))
    headers = {**PACKED, "Idempotency-Key": "one"}
    assert web.post(f"/api/v1/batches/{batch}/tasks", data=body, headers=headers).status_code == 201
    if again == "another body":
        body = pack(order(web.register(), 2))
    else:
        batch = submit(web, 0)["batch_id"]
    answer = web.post(f"/api/v1/batches/{batch}/tasks", data=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert Task.objects.count() == 4


def test_a_batch_grows_and_is_found_by_its_name(web: Web):
    old = submit(web, 1, name="sweep")
    made = submit(web, 0, name="sweep")
    batch = made["batch_id"]
    ids = [task for n in (2, 0, 3) for task in submit(web, n, to=batch)["task_ids"]]
    by_name = web.get("/api/v1/batches/sweep").json()
    assert (by_name["id"], by_name["size"]) == (batch, 5)
    tasks = web.get(f"/api/v1/batches/{batch}/tasks").json()
    assert tasks == {"first": 0, "task_ids": ids, "size": 5}
    assert web.get(f"/api/v1/batches/{batch}/tasks?first=1&limit=3").json()["task_ids"] == ids[1:4]
    assert web.get(f"/api/v1/batches/{batch}/tasks?first=4").json()["task_ids"] == ids[4:]
    listed = web.get("/api/v1/batches?name=sweep&limit=1").json()
    assert [found["id"] for found in listed["batches"]] == [batch]
    rest = web.get(f"/api/v1/batches?before={listed['next']}").json()
    assert ([found["id"] for found in rest["batches"]], rest["next"]) == ([old["batch_id"]], None)


def test_there_is_none(web: Web):
    for path in ("", "/tasks", "/results", "/cancel"):
        for batch in (str(uuid4()), "nothing"):
            answer = (web.post if path == "/cancel" else web.get)(f"/api/v1/batches/{batch}{path}")
            assert (answer.status_code, answer.json()["error"]["field"]) == (404, "batch"), path
    assert (
        web.post(f"/api/v1/batches/{uuid4()}/tasks", data=pack(order(web.register(), 1)), headers=PACKED).status_code
        == 404
    )
    assert not Task.objects.exists()
    assert not BatchPart.objects.exists()


def test_results_come_once_each(web: Web, workshop: Workshop, valkey: Valkey, mirror: SyncMirror):  # noqa: F811
    until(lambda: subscribed(valkey))
    made = submit(web, 5)
    batch = made["batch_id"]
    page = results(web, batch)
    assert (page["results"], page["pending"], page["size"]) == ([], 5, 5)
    claimed = workshop.claim()
    with committed() as cursor:
        failed = {
            "event": Event.FAIL,
            "result": b"exception",
            "report": report(Outcome.RAISED, error_type="ValueError", message="bad", traceback="Traceback …"),
        }
        moves.end(cursor, [ended(claimed[3]), ended(claimed[1], **failed)])
    mirror.ended([(claimed[at].task, 1, "COMPLETED", None) for at in (3, 1)])
    page = until(lambda: (found := results(web, batch, f"?after={page['cursor']}"))["results"] and found)
    assert page["pending"] == 3
    assert sorted(page["results"], key=lambda one: one["index"]) == [
        {
            "index": 1,
            "task_id": made["task_ids"][1],
            "state": "FAILED",
            "size": 9,
            "result": b"exception",
            "error": {"type": "ValueError", "message": "bad", "traceback": "Traceback …"},
        },
        {
            "index": 3,
            "task_id": made["task_ids"][3],
            "state": "COMPLETED",
            "size": 8,
            "result": Event.COMPLETE.value.encode(),
            "error": None,
        },
    ]
    assert results(web, batch, f"?after={page['cursor']}")["results"] == []
    assert len(results(web, batch)["results"]) == 2, "without a cursor from the start"
    in_json = web.get(f"/api/v1/batches/{batch}/results").json()["results"]
    assert {base64.b64decode(one["result"]) for one in in_json} == {b"exception", Event.COMPLETE.value.encode()}


def test_a_long_poll_is_woken(web: Web, workshop: Workshop, valkey: Valkey, mirror: SyncMirror):  # noqa: F811
    until(lambda: subscribed(valkey))
    batch = submit(web, 3)["batch_id"]
    answer = Answer(web, "GET", f"/api/v1/batches/{batch}/results?wait=30")
    waiting(web, 1)
    finish(workshop, mirror)
    ended_at = time.monotonic()
    assert answer.wait() == 200
    assert time.monotonic() - ended_at < 0.5
    assert len(answer.body["results"]) == 3
    began = time.monotonic()
    page = results(web, batch, f"?wait=30&after={answer.body['cursor']}")
    assert time.monotonic() - began < 1, "nothing is to come"
    assert (page["results"], page["pending"]) == ([], 0)


def test_without_redis_within_a_second(web_alone: Web, workshop: Workshop):
    batch = submit(web_alone, 3)["batch_id"]
    answer = Answer(web_alone, "GET", f"/api/v1/batches/{batch}/results?wait=30")
    waiting(web_alone, 1)
    finish(workshop)
    assert answer.wait(5) == 200
    assert len(answer.body["results"]) == 3


def test_what_is_cancelled_ends(web_alone: Web, workshop: Workshop):
    made = submit(web_alone, 4)
    batch, ids = made["batch_id"], made["task_ids"]
    workshop.claim(limit=1)
    answer = Answer(web_alone, "GET", f"/api/v1/batches/{batch}/results?wait=30")
    waiting(web_alone, 1)
    off = web_alone.post(f"/api/v1/batches/{batch}/cancel", json={"tasks": [ids[0], ids[2]], "running": False})
    assert off.json() == {"cancelled": [ids[2]], "being_cancelled": []}
    assert answer.wait(2) == 200, "those of this process need no Redis"
    assert [(one["task_id"], one["state"]) for one in answer.body["results"]] == [(ids[2], "CANCELLED")]
    off = web_alone.post(f"/api/v1/batches/{batch}/cancel").json()
    assert (sorted(off["cancelled"]), off["being_cancelled"]) == ([ids[1], ids[3]], [ids[0]])
    assert Task.objects.get(id=ids[0]).cancel_requested_at is not None
    assert web_alone.get(f"/api/v1/batches/{batch}").json()["states"]["CANCELLED"] == 3
    assert sum(Counter.objects.filter(state=State.CANCELLED).values_list("count", flat=True)) == 3


def test_only_its_own_tasks_are_cancelled(web: Web):
    other = web.submit()
    batch = submit(web, 1)["batch_id"]
    answer = web.post(f"/api/v1/batches/{batch}/cancel", json={"tasks": [other]})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "tasks[0]")
    assert not Task.objects.exclude(state=State.QUEUED.value).exists()


def test_a_cursor_of_another_process_goes_on(web: Web, workshop: Workshop, sqlite_database: Database, tmp_path: Path):
    made = submit(web, 6)
    batch, ids = made["batch_id"], made["task_ids"]
    claimed = workshop.claim()
    with committed() as cursor:
        moves.end(cursor, [ended(claimed[at]) for at in (0, 1, 4)])
    cursor_text = results(web, batch)["cursor"]
    with committed() as cursor:
        moves.end(cursor, [ended(claimed[2])])
    with web_process(tmp_path, database_url=sqlite_database.url) as other:
        page = results(other, batch, f"?after={cursor_text}")
        again = [one["task_id"] for one in page["results"]]
        assert again == [ids[2], ids[4]], "what is new, and what came out of order"
        assert page["pending"] == 2
        submit(other, 1, to=batch)
        workshop.claim()
        seen: set[str] = set(again)
        with committed() as cursor:
            moves.end(cursor, [ended(claimed[at]) for at in (3, 5)])
        place = page["cursor"]
        while len(seen) < 4:
            page = results(other, batch, f"?wait=5&after={place}")
            seen |= {one["task_id"] for one in page["results"]}
            place = page["cursor"]
        assert (page["pending"], page["size"]) == (1, 7)
    page = until(lambda: (found := results(web, batch, f"?after={cursor_text}"))["size"] == 7 and found)
    assert page["pending"] >= 1


def test_another_process_hears_at_once_that_a_batch_has_grown(
    web: Web,
    workshop: Workshop,
    valkey: Valkey,
    mirror: SyncMirror,  # noqa: F811
    sqlite_database: Database,
    tmp_path: Path,
):
    until(lambda: subscribed(valkey))
    batch = submit(web, 1)["batch_id"]
    with (
        web_process(tmp_path, database_url=sqlite_database.url, redis_url=valkey.url) as other,
        following(web, batch) as ws,
    ):
        assert unpack(ws.recv(5))["size"] == 1
        until(lambda: other.get("/readyz").json()["checks"]["redis"] == "ok")
        submit(other, 2, to=batch)
        began = time.monotonic()
        finish(workshop, mirror)
        seen = 0
        while seen < 3:
            page = unpack(ws.recv(10))
            seen += len(page["results"])
        assert time.monotonic() - began < 2


def test_a_socket_is_told(web: Web, workshop: Workshop, valkey: Valkey, mirror: SyncMirror):  # noqa: F811
    until(lambda: subscribed(valkey))
    made = submit(web, 2)
    batch = made["batch_id"]
    with following(web, batch) as ws:
        page = unpack(ws.recv(5))
        assert (page["batch"], page["results"], page["pending"]) == (batch, [], 2)
        submit(web, 1, to=batch)
        finish(workshop, mirror)
        seen = []
        while len(seen) < 3:
            page = unpack(ws.recv(5))
            seen += [one["index"] for one in page["results"]]
            ws.send(pack({"ack": page["number"]}))
        assert sorted(seen) == [0, 1, 2]
        place = page["cursor"]
        ws.send(pack({"unfollow": batch}))
    with following(web, batch, place) as ws:
        assert unpack(ws.recv(5))["results"] == []
        ws.send(b"nonsense")
        assert "refused" in unpack(ws.recv(5))
        ws.send(msgspec.json.encode({"follow": str(uuid4())}).decode())
        assert "there is no batch" in msgspec.json.decode(ws.recv(5))["refused"]
    with following(web, batch, "x") as ws:
        assert "cursor" in unpack(ws.recv(5))["refused"]


def test_a_socket_waits_for_acknowledgements(web: Web, workshop: Workshop, valkey: Valkey, mirror: SyncMirror):  # noqa: F811
    until(lambda: subscribed(valkey))
    made = submit(web, 8)
    batch = made["batch_id"]
    claimed = workshop.claim()
    with following(web, batch) as ws:
        pages = [unpack(ws.recv(5))]
        for at in range(3):
            with committed() as cursor:
                moves.end(cursor, [ended(claimed[at])])
            mirror.ended([(claimed[at].task, 1, "COMPLETED", None)])
            pages.append(unpack(ws.recv(5)))
        with committed() as cursor:
            moves.end(cursor, [ended(task) for task in claimed[3:]])
        mirror.ended([(task.task, 1, "COMPLETED", None) for task in claimed[3:]])
        with pytest.raises(TimeoutError):
            ws.recv(0.3)
        ws.send(pack({"ack": pages[-1]["number"]}))
        assert len(unpack(ws.recv(5))["results"]) == 5


def test_batches_belong_to_somebody(people: People, closed_web: Web):
    mine, other = people.person("mine"), people.person("other")
    function = mine.register()
    body = {"function_id": function, "tasks": [{"args": [1]}], "name": "sweep"}
    made = mine.post("/api/v1/batches", body)
    assert made.status_code == 201, made.text
    batch = made.json()["batch_id"]
    for path in ("", "/tasks", "/results"):
        assert mine.get(f"/api/v1/batches/{batch}{path}").status_code == 200
        assert other.get(f"/api/v1/batches/{batch}{path}").status_code == 404
        assert other.get(f"/api/v1/batches/sweep{path}").status_code == 404
    assert other.get("/api/v1/batches").json()["batches"] == []
    assert other.post(f"/api/v1/batches/{batch}/cancel").status_code == 404
    assert other.post(f"/api/v1/batches/{batch}/tasks", {"tasks": []}).status_code == 404
    assert other.post("/api/v1/batches", body).status_code == 404, "somebody else's function"
    reads = people.person("reads", "read")
    assert reads.post("/api/v1/batches", body).status_code == 403
    assert Task.objects.count() == 1


def test_those_who_share_see_a_batch_and_do_not_add_to_it(people: People, closed_web: Web):
    mine, mate = people.person("mine", shares="shared:lab"), people.person("mate", shares="shared:lab")
    function = mine.register()
    batch = mine.post("/api/v1/batches", {"function_id": function, "tasks": [{"args": [1]}]}).json()["batch_id"]
    assert mate.get(f"/api/v1/batches/{batch}").status_code == 200
    more = {"function_id": function, "tasks": [{"args": [1]}]}
    assert mate.post(f"/api/v1/batches/{batch}/tasks", more).status_code == 404
    assert mate.post(f"/api/v1/batches/{batch}/cancel").json()["cancelled"]


def test_quotas_are_of_the_whole_batch(people: People, closed_web: Web):
    person = people.person("limited")
    Quota.objects.create(user=person.user, queued_tasks=5)
    function = person.register()
    body = {"function_id": function, "tasks": [{"args": [1]}] * 4}
    assert person.post("/api/v1/batches", body).status_code == 201
    answer = person.post("/api/v1/batches", body)
    assert answer.status_code == 429
    assert "room for 1 more" in answer.json()["error"]["message"]
    assert Task.objects.count() == 4


def test_a_socket_needs_a_token_and_sees_what_it_may(people: People, closed_web: Web):
    mine, other = people.person("mine"), people.person("other")
    function = mine.register()
    batch = mine.post("/api/v1/batches", {"function_id": function, "tasks": [{"args": [1]}]}).json()["batch_id"]
    with pytest.raises(InvalidStatus), following(closed_web, batch):
        pass
    with following(closed_web, batch, **mine.headers) as ws:
        assert unpack(ws.recv(5))["pending"] == 1
        tokens.revoke(mine.row.name)
        with pytest.raises(ConnectionClosed):
            ws.recv(10)
    with following(closed_web, batch, **other.headers) as ws:
        assert "there is no batch" in unpack(ws.recv(5))["refused"]


def test_ids_are_uuids(web: Web):
    made = submit(web, 2)
    assert [UUID(task).version for task in made["task_ids"]] == [7, 7]
