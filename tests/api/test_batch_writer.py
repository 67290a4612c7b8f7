"""The thread that commits batches: whole, once, and whatever becomes of the database meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections

from api import moves, tally
from api.batches import statements
from api.batches.statements import Added, Part
from api.batches.writer import BatchWriter
from api.errors import OutcomeUnknown
from api.models import Batch, Task, new_id
from everythingfaas.errors import StoreUnavailable
from everythingfaas.status import Event, State
from tests.api.conftest import NOW, Workshop, committed, ended
from tests.api.test_writer import locked, queued
from tests.api.test_writer_lost_connections import Severing, drop_connections
from tests.web import on_sqlite

on_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


def part(workshop: Workshop, n: int, *, to: Part | None = None, **fields: Any) -> Part:
    identifier = new_id()
    batch = identifier if to is None else to.batch
    tasks = [workshop.submission(batch=batch) for _ in range(n)]
    return Part(identifier, batch, to is None, "", workshop.owner, NOW, tasks, **fields)


def commits(test: Callable[[BatchWriter, list[list[Added]]], Any], **options: Any) -> None:
    """Runs `test` with a writer, and the list of what each of its commits has accepted."""

    async def main() -> None:
        groups: list[list[Added]] = []
        writer = BatchWriter(asyncio.get_running_loop(), tally.Tally("test"), groups.append, **options)
        try:
            await test(writer, groups)
        finally:
            await asyncio.wait_for(writer.close(), 30)

    asyncio.run(main())


def test_parts_that_come_together_are_one_commit(workshop: Workshop):
    async def test(writer: BatchWriter, groups: list[list[Added]]) -> None:
        first = part(workshop, 3)
        parts = [first, part(workshop, 2, to=first), part(workshop, 0), part(workshop, 1, to=first)]
        added = await asyncio.gather(*map(writer.submit, parts))
        assert [one.first for one in added] == [0, 3, 0, 5]
        assert len(groups) == 1

    connection.close()
    commits(test)
    assert Task.objects.count() == queued() == 6
    assert sorted(Batch.objects.values_list("size", flat=True)) == [0, 6]


def test_one_that_cannot_be_written_costs_the_others_nothing(workshop: Workshop):
    async def test(writer: BatchWriter, groups: list[list[Added]]) -> None:
        good, bad, nowhere = part(workshop, 2), part(workshop, 2), part(workshop, 1, to=part(workshop, 0))
        bad.tasks[1] = bad.tasks[0]
        outcomes = await asyncio.gather(*map(writer.submit, [good, bad, nowhere]), return_exceptions=True)
        assert isinstance(outcomes[0], Added)
        assert isinstance(outcomes[1], Exception)
        assert outcomes[2] is None

    connection.close()
    commits(test)
    assert Task.objects.count() == queued() == 2
    assert Batch.objects.count() == 1


def test_the_statements_on_both(workshop: Workshop):
    first = part(workshop, 3, idempotency_key="k", body_hash="a")
    more = part(workshop, 2, to=first)
    again = part(workshop, 3, idempotency_key="k", body_hash="a")
    other = part(workshop, 3, idempotency_key="k", body_hash="b")
    with committed() as cursor:
        added = statements.add(cursor, [first, more])
        assert [one and one.is_new for one in added] == [True, True]
    with committed() as cursor:
        same, conflict = statements.add(cursor, [again, other])
        assert same == Added(first.batch, 0, added[0].tasks if added[0] else b"", is_new=False)
        assert conflict is not None
        assert conflict.conflict
    ids = [task.id for task in (*first.tasks, *more.tasks)]
    claimed = workshop.claim(limit=2)
    with committed() as cursor:
        moves_of = [ended(claimed[0]), ended(claimed[1], event=Event.FAIL, result=b"x" * 100)]
        moves.end(cursor, moves_of)
    with connection.cursor() as cursor:
        read = statements.split(statements.members(cursor, first.batch, 1, 3))
        assert read == [task.bytes for task in ids[1:4]]
        assert statements.count(cursor, ids) == {State.QUEUED: 3, State.COMPLETED: 1, State.FAILED: 1}
        assert statements.states(cursor, ids[:1]) == {ids[0]: State.COMPLETED}
        assert [one.task for one in statements.results(cursor, ids[:2], 10)] == ids[:1]
        assert [one.result for one in statements.results(cursor, ids[1::-1], 1000)] == [b"x" * 100, b"complete"]
        found = statements.find(cursor, first.batch)
        assert found is not None
        assert found.size == 5
        assert statements.find(cursor, new_id()) is None
        assert [one.id for one in statements.newest(cursor, None, None, None, 10)] == [first.batch]
        assert statements.newest(cursor, frozenset({workshop.owner}), "", first.batch, 10) == []
        assert statements.belonging(cursor, first.batch, [ids[0], new_id()]) == {ids[0]}


@on_sqlite
def test_a_locked_database_is_said_to_be(workshop: Workshop):
    async def test(writer: BatchWriter, groups: list[list[Added]]) -> None:
        with locked():
            one = writer.submit(part(workshop, 2))
            with pytest.raises(StoreUnavailable):
                await one

    connection.close()
    commits(test, patience_s=0.2)
    assert Task.objects.count() == 0


@on_postgresql
def test_a_connection_that_was_dropped_is_replaced(workshop: Workshop):
    async def test(writer: BatchWriter, groups: list[list[Added]]) -> None:
        await writer.submit(part(workshop, 1))
        await asyncio.to_thread(drop_connections)
        (outcome,) = await asyncio.gather(writer.submit(part(workshop, 1)), return_exceptions=True)
        assert isinstance(outcome, StoreUnavailable)
        assert await writer.submit(part(workshop, 1))

    connection.close()
    commits(test)
    assert Task.objects.count() == 2


@on_postgresql
@pytest.mark.parametrize("after", [False, True], ids=["before the server hears it", "after it has committed"])
def test_a_connection_lost_at_commit_ends_as_accepted_once(workshop: Workshop, after: bool):
    async def test(writer: BatchWriter, groups: list[list[Added]]) -> None:
        parts = [part(workshop, 3), part(workshop, 2, idempotency_key="k", body_hash="a")]
        added = await asyncio.gather(*map(writer.submit, parts))
        assert [one.batch for one in added] == [one.batch for one in parts]
        assert not any(one.conflict for one in added)

    severed(test, after=after, cuts=1)
    assert Task.objects.count() == queued() == 5


@on_postgresql
def test_an_outcome_that_cannot_be_found_out_is_said_so(workshop: Workshop):
    async def test(writer: BatchWriter, groups: list[list[Added]]) -> None:
        with pytest.raises(OutcomeUnknown):
            await writer.submit(part(workshop, 1))

    severed(test, after=True, cuts=100, settle_s=0.5)


def severed(test: Callable[[BatchWriter, list[list[Added]]], Any], *, after: bool, cuts: int, **options: Any) -> None:
    settings = connections.settings["default"]
    direct = settings["HOST"]
    proxy = Severing(Path(direct), after=after)
    proxy.cuts = cuts
    settings["HOST"] = proxy.folder
    try:
        commits(test, **options)
    finally:
        settings["HOST"] = direct
        proxy.close()
