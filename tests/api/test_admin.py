"""The admin shows functions and tasks, changes nothing, and reads no bytes of clients."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from api import admin
from tests.api.conftest import Workshop


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
