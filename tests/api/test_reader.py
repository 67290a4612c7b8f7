"""Group read: lookups that arrive together are one query, and functions are looked up once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from api import reader as module
from api.models import Function, Task, new_id
from api.reader import Reader
from everythingfaas.errors import StoreUnavailable
from everythingfaas.status import State
from tests.api.conftest import Workshop


def reading(test: Callable[[Reader], Any]) -> Any:
    async def main() -> Any:
        reader = Reader(asyncio.get_running_loop())
        try:
            return await test(reader)
        finally:
            await asyncio.wait_for(reader.close(), 30)

    return asyncio.run(main())


def counted(queries: list[str]) -> Callable[..., Any]:
    """For `execute_wrapper`: keeps the statements that a connection runs."""

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        queries.append(sql)
        return execute(sql, params, many, context)

    return wrapper


async def count_queries(reader: Reader) -> list[str]:
    queries: list[str] = []
    await reader.call(lambda _: connection.execute_wrappers.append(counted(queries)))
    return queries


def test_lookups_that_arrive_together_are_one_query(workshop: Workshop):
    tasks = workshop.submit(50)
    nobody = new_id()

    async def test(reader: Reader) -> None:
        queries = await count_queries(reader)
        views = await asyncio.gather(*(reader.task(task) for task in [*tasks, nobody, *tasks]))
        assert len(queries) == 1
        assert [view and view.id for view in views] == [*tasks, None, *tasks]
        assert views[0].state is State.QUEUED

    reading(test)


def test_a_function_is_looked_up_once_and_a_missing_one_each_time(workshop: Workshop):
    nothing = new_id()

    async def test(reader: Reader) -> None:
        queries = await count_queries(reader)
        for _ in range(3):
            found = await reader.function(workshop.function)
            assert found is not None
            assert (found.owner, found.name) == (workshop.owner, "double")
        assert len(queries) == 1
        for _ in range(3):
            assert await reader.function(nothing) is None
        assert len(queries) == 4

    reading(test)


def test_only_so_many_functions_are_kept(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "KEPT_FUNCTIONS", 1)
    first = Function.objects.get()
    second = Function.objects.create(owner_id=first.owner_id, name="other", blob_id=first.blob_id)

    async def test(reader: Reader) -> None:
        queries = await count_queries(reader)
        for function in (first, second, first):
            await reader.function(function.id)
        assert len(queries) == 3

    reading(test)


def test_a_question_gets_a_cursor(workshop: Workshop):
    workshop.submit(3)

    async def test(reader: Reader) -> int:
        def ask(cursor: Any) -> int:
            cursor.execute("SELECT count(*) FROM api_task")
            return int(cursor.fetchone()[0])

        return await reader.call(ask)

    assert reading(test) == Task.objects.count() == 3


def test_a_question_that_raises_is_its_own_affair(workshop: Workshop):
    async def test(reader: Reader) -> None:
        def ask(cursor: Any) -> None:
            raise ZeroDivisionError

        asked, found = reader.call(ask), reader.task(workshop.submission().id)
        with pytest.raises(ZeroDivisionError):
            await asked
        assert await found is None

    reading(test)


def test_a_reader_that_stops_refuses(workshop: Workshop):
    async def test(reader: Reader) -> None:
        await reader.close()
        with pytest.raises(StoreUnavailable):
            await reader.task(new_id())

    reading(test)
