"""The admin shows functions and tasks, cancels and runs again, edits nothing, and reads no bytes of clients."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from api import admin, moves
from api.models import Task, new_id
from api.tally import totals
from everythingfaas.status import State
from tests.api.conftest import NOW, Workshop, committed


@pytest.fixture
def client(workshop: Workshop) -> Client:
    workshop.submit(3)
    client = Client(headers={"host": "localhost"})
    client.force_login(get_user_model().objects.create_superuser("root"))
    return client


@pytest.mark.parametrize("model", ["task", "function"])
def test_lists_load_no_bytes(client: Client, model: str):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        answer = client.get(f"/admin/api/{model}/")
    assert answer.status_code == 200
    assert not [query for query in queries if "api_payload" in query["sql"] or '"api_blob"."data"' in query["sql"]]


@pytest.mark.parametrize("model", ["task", "function"])
def test_more_rows_take_no_more_queries(client: Client, workshop: Workshop, model: str):
    with CaptureQueriesContext(connection) as few:
        client.get(f"/admin/api/{model}/")
    for i in range(20):
        workshop.submit()
        with committed() as cursor:
            moves.register(cursor, workshop.owner, f"function {i}", b"bytes %d" % i, created=NOW)
    with CaptureQueriesContext(connection) as many:
        answer = client.get(f"/admin/api/{model}/")
    assert answer.content.count(b'name="_selected_action"') == (23 if model == "task" else 0)
    assert len(many) == len(few) <= 9


def test_tasks_are_cancelled_after_one_question(client: Client, workshop: Workshop):
    workshop.claim()  # the fixture's
    done = workshop.task_in(State.COMPLETED)
    running = workshop.running().task
    (queued,) = workshop.submit()
    choice = {"action": "cancel", "_selected_action": [str(running), str(queued), str(done)]}
    asked = client.post("/admin/api/task/", choice)
    assert b"Cancel 3 tasks?" in asked.content
    assert workshop.state(queued) is State.QUEUED
    answer = client.post("/admin/api/task/", choice | {"confirmed": "yes"}, follow=True)
    assert b"1 cancelled, 1 being ended, 1 had ended before." in answer.content
    assert workshop.state(queued) is State.CANCELLED
    assert workshop.row(running)["cancel_requested_at"] is not None
    assert workshop.state(done) is State.COMPLETED
    with connection.cursor() as cursor:
        assert totals(cursor)[State.CANCELLED] == 1


def test_tasks_are_run_again(client: Client, workshop: Workshop):
    workshop.claim()  # the fixture's
    done = workshop.task_in(State.FAILED)
    answer = client.post("/admin/api/task/", {"action": "run_again", "_selected_action": [str(done)]}, follow=True)
    assert b"1 submitted anew." in answer.content
    again = Task.objects.get(retry_of=done)
    assert (again.state, again.function_id, bytes(again.payload.data)) == (
        State.QUEUED,
        workshop.function,
        b"arguments",
    )


def test_who_may_only_look_has_no_actions(client: Client, workshop: Workshop):
    (task,) = workshop.submit()
    viewer = get_user_model().objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_task"))
    client.force_login(viewer)
    assert b'value="cancel"' not in client.get("/admin/api/task/").content
    client.post("/admin/api/task/", {"action": "cancel", "_selected_action": [str(task)], "confirmed": "yes"})
    assert workshop.state(task) is State.QUEUED


def test_so_many_at_once(client: Client, workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admin, "MOST", 2)
    tasks = workshop.submit(3)
    choice = {"action": "run_again", "_selected_action": [str(task) for task in tasks]}
    assert b"At most 2 tasks at once" in client.post("/admin/api/task/", choice, follow=True).content
    assert not Task.objects.filter(retry_of__isnull=False).exists()


@pytest.mark.parametrize("query", ["accepted=hour", "q=nonsense", "accepted=odd"])
def test_lists_can_be_narrowed(client: Client, query: str):
    assert client.get(f"/admin/api/task/?{query}").status_code == 200


def test_a_task_is_found_by_its_id(client: Client, workshop: Workshop):
    (task,) = workshop.submit()
    assert client.get(f"/admin/api/task/?q={task}").content.count(b'name="_selected_action"') == 1


def test_the_ids_of_an_hour_begin_where_it_does():
    before = time.time() - 0.002
    made = new_id()
    assert admin._first_id(before) <= made < admin._first_id(time.time() + 0.002)


def test_the_live_page_is_for_staff(client: Client, workshop: Workshop):
    assert b'id="overview"' in client.get("/admin/live/").content
    assert Client(headers={"host": "localhost"}).get("/admin/live/").status_code == 302


def test_a_list_is_counted_up_to_a_bound(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admin, "FURTHEST", 2)
    assert b"2 tasks" in client.get("/admin/api/task/").content


def test_nothing_can_be_changed(client: Client, workshop: Workshop):
    (task,) = workshop.submit()
    for model, pk in (("task", task), ("function", workshop.function)):
        assert client.get(f"/admin/api/{model}/add/").status_code == 403
        assert client.get(f"/admin/api/{model}/{pk}/change/").status_code == 200
        assert client.post(f"/admin/api/{model}/{pk}/change/", {"name": "x"}).status_code == 403
        assert client.post(f"/admin/api/{model}/{pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_task_can_be_looked_for_by_its_state(client: Client):
    assert client.get("/admin/api/task/?state__exact=2").status_code == 200


def test_nobody_gets_in_without_a_password(workshop: Workshop):
    assert Client(headers={"host": "localhost"}).get("/admin/api/task/").status_code == 302
