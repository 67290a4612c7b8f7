"""Group commit: what is answered is committed, what is refused never will be, and one row's fault is its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections

from api import tally
from api.errors import TooMany
from api.models import Task
from api.moves import Accepted
from api.writer import Writer
from everythingfaas.errors import StoreUnavailable
from everythingfaas.status import State
from tests.api.conftest import Workshop
from tests.web import on_sqlite


def commits(test: Callable[[Writer, list[list[Accepted]]], Any], **options: Any) -> Any:
    """Runs the coroutine function `test` with a writer, and the list of what each of its commits has accepted."""

    async def main() -> Any:
        groups: list[list[Accepted]] = []
        writer = Writer(asyncio.get_running_loop(), tally.Tally("test"), groups.append, **options)
        try:
            return await test(writer, groups)
        finally:
            await asyncio.wait_for(writer.close(), 30)

    return asyncio.run(main())


@contextmanager
def locked() -> Iterator[None]:
    """SQLite's write lock, held by somebody who knows nothing of ours."""
    other = sqlite3.connect(connections.settings["default"]["NAME"], isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def queued() -> int:
    with connection.cursor() as cursor:
        return tally.totals(cursor)[State.QUEUED]


def test_what_arrives_together_is_one_commit(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        submissions = [workshop.submission() for _ in range(100)]
        accepted = await asyncio.gather(*map(writer.submit, submissions))
        assert [a.id for a in accepted] == [s.id for s in submissions]
        assert len(groups) == 1
        await writer.submit(workshop.submission())
        assert len(groups) == 2

    commits(test)
    assert Task.objects.count() == queued() == 101


def test_what_arrives_during_a_commit_is_the_next_one(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        async def client() -> None:
            for _ in range(20):
                await writer.submit(workshop.submission())

        await asyncio.gather(*(client() for _ in range(10)))
        assert sum(map(len, groups)) == 200
        assert len(groups) < 200

    commits(test)
    assert Task.objects.count() == 200


def test_large_rows_are_spread_over_commits(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        writer.turn_bytes = 10_000
        await asyncio.gather(*(writer.submit(workshop.submission(payload=bytes(4_000))) for _ in range(10)))
        assert [len(group) for group in groups] == [2] * 5
        await writer.submit(workshop.submission(payload=bytes(50_000)))

    commits(test)


def test_commits_are_told_before_anybody_is_answered(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        accepted = writer.submit(workshop.submission())
        accepted.add_done_callback(lambda _: groups.append([]))
        await accepted
        await asyncio.sleep(0)
        assert [len(group) for group in groups] == [1, 0]

    commits(test)


def test_keys_are_told_apart_and_told_to_nobody(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        first = await writer.submit(workshop.submission(idempotency_key="k", body_hash="a"))
        again = await writer.submit(workshop.submission(idempotency_key="k", body_hash="a"))
        other = await writer.submit(workshop.submission(idempotency_key="k", body_hash="b"))
        assert (again.id, again.duplicate, other.conflict) == (first.id, True, True)
        assert groups == [[first]]

    commits(test)
    assert Task.objects.count() == queued() == 1


@on_sqlite
def test_rows_wait_for_a_lock_and_are_written_after_it(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        with locked():
            accepted = [writer.submit(workshop.submission()) for _ in range(5)]
            await asyncio.sleep(0.3)
            accepted += [writer.submit(workshop.submission()) for _ in range(5)]
            await asyncio.sleep(0.1)
            assert not any(future.done() for future in accepted)
        await asyncio.wait_for(asyncio.gather(*accepted), 10)
        assert [len(group) for group in groups] == [10]  # those that came while it waited as well

    commits(test)
    assert Task.objects.count() == 10


@on_sqlite
def test_whose_patience_ends_is_never_written(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        with locked():
            early = [writer.submit(workshop.submission()) for _ in range(5)]
            await asyncio.sleep(0.15)
            late = writer.submit(workshop.submission())
            outcomes = await asyncio.gather(*early, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 5
            assert not late.done()
        await late

    commits(test, patience_s=0.3)
    assert Task.objects.count() == queued() == 1


@on_sqlite
def test_the_lock_passes_from_patience_to_writing_exactly_once(workshop: Workshop):
    """The lock is let go of at the very moment at which patience ends: each is accepted or refused, never both."""

    async def test(writer: Writer, groups: list[list[Accepted]]) -> set[Any]:
        accepted = set()
        for _ in range(15):
            submission = workshop.submission()
            with locked():
                future = writer.submit(submission)
                await asyncio.sleep(0.098)
            (outcome,) = await asyncio.gather(future, return_exceptions=True)
            if isinstance(outcome, Accepted):
                accepted.add(submission.id)
        return accepted

    accepted = commits(test, patience_s=0.1)
    assert set(Task.objects.values_list("id", flat=True)) == accepted


@on_sqlite
def test_stopping_refuses_what_still_waits(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        with locked():
            accepted = writer.submit(workshop.submission())
            await asyncio.sleep(0.1)
            writer.abandon()
            with pytest.raises(StoreUnavailable):
                await accepted
            with pytest.raises(StoreUnavailable):
                writer.submit(workshop.submission())

    commits(test)
    assert not Task.objects.exists()


def test_closing_writes_what_was_handed_in(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        accepted = [writer.submit(workshop.submission()) for _ in range(50)]
        await writer.close()
        assert all(future.done() for future in accepted)

    commits(test)
    assert Task.objects.count() == 50


@on_sqlite
def test_too_much_that_waits_is_refused_at_once(workshop: Workshop):
    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        writer.max_items, writer.max_bytes = 10, 1_000_000
        with locked():
            writer.submit(workshop.submission())
            await asyncio.sleep(0.1)
            accepted = [writer.submit(workshop.submission()) for _ in range(9)]
            with pytest.raises(TooMany):
                writer.submit(workshop.submission())
            writer.max_items = 100
            with pytest.raises(TooMany):
                writer.submit(workshop.submission(payload=bytes(1_000_000)))
        await asyncio.gather(*accepted)
        await writer.submit(workshop.submission(payload=bytes(2_000_000)))  # alone, it may

    commits(test)


def test_a_bad_row_costs_the_others_nothing(workshop: Workshop):
    taken = workshop.submit()[0]

    async def test(writer: Writer, groups: list[list[Accepted]]) -> list[Any]:
        rows = [workshop.submission() for _ in range(5)]
        rows.insert(2, workshop.submission(id=taken))
        return await asyncio.gather(*map(writer.submit, rows), return_exceptions=True)

    outcomes = commits(test)
    assert [isinstance(outcome, Accepted) for outcome in outcomes] == [True, True, False, True, True, True]
    assert isinstance(outcomes[2], DatabaseError)
    assert Task.objects.count() == 6
    assert queued() == 5  # the one of the workshop was not counted


def test_a_bad_row_alone(workshop: Workshop):
    taken = workshop.submit()[0]

    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        with pytest.raises(DatabaseError):
            await writer.submit(workshop.submission(id=taken))
        assert await writer.submit(workshop.submission())

    commits(test)


def test_without_a_database_everybody_is_refused_and_then_it_is_back(workshop: Workshop):
    reachable = connections.settings["default"].copy()
    settings = connections.settings["default"]

    async def test(writer: Writer, groups: list[list[Accepted]]) -> None:
        settings.update(NAME="/nowhere/db.sqlite3", HOST="/nowhere", OPTIONS={})
        rows = [workshop.submission() for _ in range(5)]
        outcomes = await asyncio.gather(*map(writer.submit, rows), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 5
        settings.clear()
        settings.update(reachable)
        assert await writer.submit(workshop.submission())

    try:
        commits(test)
    finally:
        settings.clear()
        settings.update(reachable)
    assert Task.objects.count() == 1
