"""What a registration makes of a function's Python, and why a task waits for one."""

from __future__ import annotations

import json
import sys
import threading
import uuid

import dill
import pytest
from django.conf import settings
from django.db import connection

from api import functions, moves
from api.access.caller import everybody, local_owner
from api.live import details
from api.live.rows import Names
from api.models import ANY_QUEUE, Function, Queue, Task
from api.waiting import why_waiting
from everythingfaas.pythons import matches
from everythingfaas.serialize import encode
from tests.api.conftest import Workshop, committed
from tests.live import serialize
from tests.web import Web, on_sqlite

HERE = sys.version_info[:2]


def register(web: Web, **more: object) -> Function:
    body = {"name": "f", "payload": serialize(lambda x: [2 * y for y in x]), **more}
    answer = web.post("/register_function", json=body)
    assert answer.status_code == 201, answer.text
    return Function.objects.get(id=answer.json()["function_id"])


@on_sqlite
def test_a_function_stands_in_the_queue_of_its_python(web: Web) -> None:
    function = register(web)
    assert function.queue.requirements == f"python={function.pythons}"
    assert matches(function.queue.requirements, HERE)
    assert not matches(function.queue.requirements, (3, 9))
    answer = web.execute(str(function.id), [1])
    assert Task.objects.get(id=answer.json()["task_id"]).queue == function.queue


@on_sqlite
def test_a_function_without_code_stands_in_everybodys_queue(web: Web) -> None:
    function = Function.objects.get(id=web.register(len))
    assert (function.pythons, function.queue_id) == ("", ANY_QUEUE)


@on_sqlite
def test_a_client_that_says_its_python_is_believed(web: Web) -> None:
    function = register(web, python="3.9")
    assert (function.pythons, function.queue.requirements) == ("3.9", "python=3.9")
    assert register(web, python=None).pythons == register(web).pythons != ""


@on_sqlite
@pytest.mark.parametrize("python", ["", "3", "3.", "3.11.7", "4.0", "3.011", " 3.11", "3.100", "three", 3.11, ["3.11"]])
def test_a_python_that_is_none_is_refused(web: Web, python: object) -> None:
    answer = web.post("/register_function", json={"name": "f", "payload": serialize(len), "python": python})
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "python"
    assert not Function.objects.exists()


def test_registrations_at_the_same_time_share_the_new_queue(database: str) -> None:
    payload = encode(dill.dumps(lambda x: x))
    start = threading.Barrier(4)
    made: list[uuid.UUID | Exception] = []

    def run() -> None:
        start.wait(10)
        try:
            made.append(functions.register(caller, "f", payload, python="3.9"))
        except Exception as exc:  # noqa: BLE001  # the test shows it
            made.append(exc)
        finally:
            connection.close()

    caller = everybody(local_owner())
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    queue = Queue.objects.get(requirements="python=3.9")
    assert set(Function.objects.values_list("id", "queue")) == {(function, queue.pk) for function in made}
    assert len(made) == 4


def test_why_a_task_waits(workshop: Workshop) -> None:
    with committed() as cursor:
        (task,) = workshop.submit(queue=moves.queue_for(cursor, "python=3.12"))
        (other,) = workshop.submit()
    row = Task.objects.get(id=task)
    assert why_waiting(row) == "no worker is connected"
    for workers, reason in (
        ([("3.11", False), ("3.12", True)], "written by Python 3.12, and the connected workers have 3.11;"),
        ([("3.11", False), ("3.12", False)], None),
    ):
        snapshot = json.dumps([{"python": python, "draining": draining} for python, draining in workers])
        with committed() as cursor:
            assert moves.renew_lease(cursor, workshop.dispatcher, 1, 10.0, snapshot)
        said = why_waiting(row)
        assert said is None if reason is None else said is not None and reason in said
        with connection.cursor() as cursor:
            shown = details.read(cursor, Names(), task, None)
        assert shown is not None
        assert shown.waits_for == said
        assert reason is None or f"fails when it has waited for {settings.FAAS.unmatched_s:g} s" in (said or "")
        assert why_waiting(Task.objects.get(id=other)) is None
    workshop.claim()
    assert why_waiting(Task.objects.get(id=other), frozenset()) is None, "it runs"
