"""Feeds, step by step: the database is real, and a test decides when a question to it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import pytest
from django.db import connection
from django.db.backends.utils import CursorWrapper

from api import moves
from api.batches import statements
from api.batches.feed import Feed, Feeds, Place
from api.batches.statements import Part
from api.errors import InvalidRequest
from api.models import new_id
from tests.api.conftest import NOW, Workshop, committed, ended
from tests.web import on_sqlite

pytestmark = on_sqlite

T = TypeVar("T")


class Database:
    """Answers questions on a thread; from the moment that it is held, only one after the other when told to."""

    def __init__(self) -> None:
        self.gate: asyncio.Semaphore | None = None
        self.asked = 0

    async def __call__(self, question: Callable[[CursorWrapper], T], /) -> T:
        self.asked += 1
        if self.gate is not None:
            await self.gate.acquire()
        return await asyncio.to_thread(_answer, question)


def _answer(question: Callable[[CursorWrapper], T]) -> T:
    try:
        with connection.cursor() as cursor:
            return question(cursor)
    finally:
        connection.close()


def add(workshop: Workshop, n: int, to: UUID | None = None) -> statements.Added:
    identifier = new_id()
    batch = identifier if to is None else to
    tasks = [workshop.submission(batch=batch) for _ in range(n)]
    part = Part(identifier, batch, to is None, "", workshop.owner, NOW, tasks)
    with committed() as cursor:
        (added,) = statements.add(cursor, [part])
    assert added is not None
    return added


def finish(workshop: Workshop, n: int) -> bytes:
    """Ends so many of what is queued, and returns what is announced."""
    claimed = workshop.claim(limit=n)
    with committed() as cursor:
        moves.end(cursor, [ended(task) for task in claimed])
    return b"".join(task.task.bytes for task in claimed)


def run(test: Callable[[Feeds, Database], Awaitable[None]]) -> None:
    async def main() -> None:
        database = Database()
        feeds = Feeds(asyncio.get_running_loop(), ask=database, is_told=lambda: True)
        try:
            await asyncio.wait_for(test(feeds, database), 20)
        finally:
            await feeds.close()

    connection.close()
    asyncio.run(main())


async def settled(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110  # there is no event for what a test waits for
        await asyncio.sleep(0.001)


def numbers(feed: Feed) -> list[int]:
    return [number for number, _ in feed.ended(feed.place(Place()), 1_000)]


def test_a_batch_that_grows_while_its_feed_is_opened_is_told_of_everything(workshop: Workshop):
    """Once, a look at that moment took the feed for one that nobody had read for long, and forgot it."""
    first = add(workshop, 2)

    async def test(feeds: Feeds, database: Database) -> None:
        database.gate = asyncio.Semaphore(0)
        joining = asyncio.ensure_future(feeds.join(first.batch))
        for answers in range(4):  # at each point of the opening
            more = await asyncio.to_thread(add, workshop, 1, first.batch)
            feeds.added(more.batch, more.first, more.tasks)
            feeds.grew(first.batch)
            feeds.look()
            await settled(lambda answers=answers: database.asked > answers or joining.done())
            database.gate.release()
        database.gate.release()
        for _ in range(100):
            database.gate.release()
        feed = await joining
        await settled(lambda: feed.size == 6)
        feeds.told(await asyncio.to_thread(finish, workshop, 6))
        await settled(lambda: feed.end == 6)
        assert sorted(numbers(feed)) == list(range(6))
        assert await feeds.join(first.batch) is feed

    run(test)


def test_an_end_that_is_announced_before_its_task_is_known_is_kept(workshop: Workshop):
    first = add(workshop, 1)

    async def test(feeds: Feeds, database: Database) -> None:
        feed = await feeds.join(first.batch)
        more = await asyncio.to_thread(add, workshop, 1, first.batch)
        feeds.told(await asyncio.to_thread(finish, workshop, 2))
        assert numbers(feed) == [0]
        feeds.added(more.batch, more.first, more.tasks)
        assert numbers(feed) == [0, 1]

    run(test)


def test_what_ends_while_a_feed_is_opened_stands_behind_what_had_ended(workshop: Workshop):
    first = add(workshop, 4)
    head = finish(workshop, 2)

    async def test(feeds: Feeds, database: Database) -> None:
        database.gate = asyncio.Semaphore(2)  # the members are read, their states are not
        joining = asyncio.ensure_future(feeds.join(first.batch))
        await settled(lambda: database.asked == 3)
        feeds.told(statements.split(first.tasks)[3])
        feeds.told(head)
        database.gate.release()
        feed = await joining
        assert numbers(feed) == [0, 1, 3]
        place = feed.place(Place("of another process", 7, 1))
        assert [number for number, _ in feed.ended(place, 10)] == [1, 3]

    run(test)


def test_what_redis_loses_a_look_finds(workshop: Workshop):
    first = add(workshop, 3)

    async def test(feeds: Feeds, database: Database) -> None:
        feed = await feeds.join(first.batch)
        more = asyncio.ensure_future(feed.more())
        await asyncio.to_thread(finish, workshop, 2)
        feeds.look()
        await more
        assert numbers(feed) == [0, 1]

    run(test)


def test_cursors_are_places(workshop: Workshop):
    first = add(workshop, 5)

    async def test(feeds: Feeds, database: Database) -> None:
        feed = await feeds.join(first.batch)
        ids = statements.split(first.tasks)
        for number in (1, 0, 3):
            feeds.told(ids[number])
        start = feed.place(Place())
        two = feed.passed(start, 2)
        assert (two.at, two.low) == (2, 0), "more is behind it"
        all_of_them = feed.passed(two, 1)
        assert (all_of_them.at, all_of_them.low) == (3, 2), "0 and 1 are passed on, and 2 is pending"
        assert Place.read(str(all_of_them)) == all_of_them
        assert feed.place(all_of_them) == all_of_them
        assert feed.place(Place(feed.name, 99, 0)).at == 0, "of a feed of the same name there is no such place"

    run(test)
    for junk in ("x", "a.b.c", "a.1", "a.-1.0", "a.1.-2", "a.1.2.3"):
        with pytest.raises(InvalidRequest):
            Place.read(junk)
