"""The hub in this process: nothing for nobody, and once for all."""

from __future__ import annotations

import asyncio
import re
from uuid import UUID

import pytest
from django.db import connection

from api.live import lists
from api.live.lists import Filter
from api.live.page import GONE_S, WINDOW, Page
from api.live.rows import Names
from api.live.topics import Memory, Sight, check, filter_of, topic_of
from api.services import services
from everythingfaas.status import State
from tests.api.conftest import NOW, Workshop, committed
from tests.asgi import run, until

#: Tasks that nobody has claimed: how they are submitted.
WAITING: dict[str, dict[str, float]] = {"queued": {"priority": 0}, "waiting": {"run_after": NOW + 60}}


def submit(workshop: Workshop) -> None:
    """On a thread of its own, which leaves no connection behind."""
    workshop.submit()
    connection.close()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_nothing_is_read_while_no_page_is_open(workshop: Workshop):
    async def test() -> None:
        hub = services().live
        hub.changed()
        await asyncio.sleep(0)
        assert hub.looks == 0
        assert hub._thread is None
        page = Page()
        hub.join(page)
        hub.subscribe(page, "overview")
        await until(lambda: page.topics and len(page._out) == 2)
        hub.leave(page)
        looks = hub.looks
        hub.changed()
        assert hub._alarm is None
        assert hub.looks == looks
        assert not hub._topics

    run(test)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_an_update_is_encoded_once_for_all_pages(workshop: Workshop):
    async def test() -> None:
        hub = services().live
        pages = [Page() for _ in range(20)]
        for page in pages:
            hub.join(page)
            hub.subscribe(page, "tasks?")
        await until(lambda: all(len(page._out) == 2 for page in pages))
        await asyncio.to_thread(submit, workshop)
        hub.changed()
        await until(lambda: all(len(page._out) == 3 for page in pages))
        assert len({id(page._out[2]) for page in pages}) == 1

    run(test)


def test_a_page_keeps_no_more_than_its_window():
    page = Page()
    for _ in range(1000):
        page.offer("tasks?", "message")
    assert len(page._out) == WINDOW
    assert page.behind == {"tasks?"}
    page.acknowledged(WINDOW)
    assert page.keeps_up


def test_a_page_that_never_acknowledges_is_gone(monkeypatch: pytest.MonkeyPatch):
    page = Page()
    assert not page.is_gone
    page.offer("tasks?", "message")
    page._heard_at -= GONE_S + 1
    assert page.is_gone
    page.acknowledged(10_000)  # more than there were
    assert not page.is_gone
    assert page._acknowledged == 1


@pytest.mark.parametrize("state", ["", *lists.STATES])
def test_pages_of_a_list_hold_every_task_once_and_in_order(workshop: Workshop, state: str):
    ended = ("completed", "failed", "cancelled")
    tasks = {word: [workshop.task_in(State[word.upper()]) for _ in range(3)] for word in ended}
    running = [workshop.running() for _ in range(3)]
    tasks["running"] = [item.task for item in running]
    # Given out, but not begun: that reads queued still.
    tasks["queued"] = [workshop.running().task]
    tasks |= {word: tasks.get(word, []) + workshop.submit(2, **more) for word, more in WAITING.items()}
    with committed() as cursor:
        from api import moves

        moves.begin(cursor, [moves.Begun(item.task, item.attempt, 1.0, "w1") for item in running])
    expected = sorted((task for word, found in tasks.items() if state in ("", word) for task in found), reverse=True)
    seen: list[UUID] = []
    wanted: Filter | None = Filter(state)
    with committed() as cursor:
        while wanted is not None:
            found = lists.read(cursor, Names(), wanted, limit=2)
            assert len(found.tasks) <= 2
            assert {task.state for task in found.tasks} <= ({state} if state else set(lists.STATES))
            seen += [task.id for task in found.tasks]
            wanted = None if found.next is None else Filter(state, upto=found.next)
    assert seen == expected


def test_a_list_looks_through_so_many_and_says_where_it_ended(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "SCAN", 4)
    (old,) = workshop.submit()
    newer = workshop.submit(6)
    with committed() as cursor:
        cursor.execute("UPDATE api_task SET state = 4 WHERE id = %s", [old])
        first = lists.read(cursor, Names(), Filter("completed"))
        assert first == ([], newer[1])
        second = lists.read(cursor, Names(), Filter("completed", upto=first.next))
        assert [task.id for task in second.tasks] == [old]
        assert second.next is None


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_lists_walk_along_indexes(workshop: Workshop):
    statements: list[str] = []
    with committed() as cursor:
        cursor.db.force_debug_cursor = True
        cursor.db.queries_log.clear()
        try:
            with cursor.db.cursor() as watched:
                workshop.submit()
                sight = Sight(watched, Memory(), 1_800_000_000.0)
                for topic in ("overview", "workers", "tasks?", *(f"tasks?state={word}" for word in lists.STATES)):
                    sight.of(topic)
            statements = [query["sql"] for query in cursor.db.queries_log if "FROM api_task" in query["sql"]]
        finally:
            cursor.db.force_debug_cursor = False
        for statement in statements:
            if statement.startswith("SELECT"):
                cursor.execute(f"EXPLAIN QUERY PLAN {statement}")
                plan = " ".join(row[3] for row in cursor.fetchall())
                assert "SCAN api_task" not in re.sub(r"SCAN api_task USING (COVERING )?INDEX", "", plan), (
                    statement,
                    plan,
                )
                # What a bounded look has found may be sorted.
                assert "TEMP B-TREE" not in plan or "SCAN newest" in plan, (statement, plan)
    assert len(statements) > 5


@pytest.mark.parametrize(
    "topic", ["tasks?", "tasks?state=failed", f"tasks?state=queued&function={UUID(int=5)}&upto={UUID(int=7)}"]
)
def test_a_list_is_its_topic(topic: str):
    assert topic_of(filter_of(topic)) == topic


@pytest.mark.parametrize("topic", ["", "task:", "log:x", "tasks", "tasks?upto=1", "tasks?a=1", "tasks?state", "task:1"])
def test_what_is_no_topic_is_refused(topic: str):
    with pytest.raises(ValueError, match=r".*"):
        check(topic)
