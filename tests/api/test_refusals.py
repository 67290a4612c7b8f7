"""What is answered when the database or the process has had enough: later, and not accepted."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from django.db import connections

from api.models import Task
from api.services import services
from faas_project.asgi import PoolHandler, application
from tests.api.conftest import Workshop
from tests.asgi import Call, run
from tests.live import serialize
from tests.web import on_sqlite


def execute(workshop: Workshop) -> Call:
    body = {"function_id": str(workshop.function), "payload": serialize(((1,), {}))}
    return Call(application, "POST", "/execute_function", json.dumps(body).encode())


async def assert_later(call: Call, status: int) -> None:
    content = await call.answer()
    assert call.status == status, content
    assert int(call.headers["retry-after"]) >= 1
    assert content["error"]["code"] == {429: "too_many", 503: "unavailable"}[status]


def test_a_full_queue_is_429(workshop: Workshop):
    async def test() -> None:
        services().writer.max_items = 0
        await assert_later(execute(workshop), 429)

    run(test)
    assert not Task.objects.exists()


@on_sqlite
def test_a_locked_database_is_503(workshop: Workshop):
    async def test() -> None:
        services().writer._patience_s = 0.2
        with closing(sqlite3.connect(connections.settings["default"]["NAME"], isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await assert_later(execute(workshop), 503)

    run(test)
    assert not Task.objects.exists()


def test_a_process_that_stops_is_503(workshop: Workshop):
    async def test() -> None:
        await services().close()
        await assert_later(execute(workshop), 503)

    run(test)
    assert not Task.objects.exists()


@pytest.fixture
def unreachable(workshop: Workshop) -> Any:
    """The database cannot be reached by whoever connects from now on."""
    settings = connections.settings["default"]
    reachable = settings.copy()
    settings.update(NAME="/nowhere/db.sqlite3", HOST="/nowhere", OPTIONS={})
    yield
    settings.clear()
    settings.update(reachable)


def test_an_unreachable_database_is_503_everywhere(workshop: Workshop, unreachable: None):
    async def test() -> None:
        await assert_later(execute(workshop), 503)
        await assert_later(Call(application, "GET", f"/status/{workshop.function}"), 503)
        await assert_later(Call(application, "GET", f"/result/{workshop.function}?wait=1"), 503)
        ready = Call(application, "GET", "/readyz")
        assert (await ready.answer())["checks"]["database"] == "unreachable"
        assert ready.status == 503
        assert await Call(application, "GET", "/healthz").answer() == {"status": "ok"}

    run(test)


def test_without_a_database_browsers_are_told_so_and_programs_greeted(database: str, unreachable: None):
    async def test() -> None:
        pool = PoolHandler(max_body_bytes=1000, threads=1)
        page = Call(pool, "GET", "/", headers={"accept": "text/html"})
        await page.task
        assert page.status == 503
        assert b"Traceback" not in page.body
        assert "EverythingFaaS" in (await Call(pool, "GET", "/").answer())["message"]

    run(test)
