"""How the databases mean to run the statements: through indexes, whatever else the table holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.db import connection

from api import moves
from api.models import new_id
from api.v1 import queries
from everythingfaas.status import Event, State

from .conftest import NOW, Workshop, committed, ended, released

Plan = str


@contextmanager
def explained() -> Iterator[list[Plan]]:
    """Collects the plans of the statements on tasks that run inside."""
    plans: list[Plan] = []
    explain = "EXPLAIN " if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN "

    def record(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if "api_task" in sql and not many and not sql.startswith("COPY"):
            execute(explain + sql, params, many, context)
            plans.append("\n".join(str(row[-1]) for row in context["cursor"].cursor.fetchall()))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(record):
        yield plans


@pytest.fixture
def crowd(workshop: Workshop) -> list[moves.Claimed]:
    """Fifty tasks that run, among thousands in every other state."""
    with committed() as cursor:
        moves.submit(cursor, [workshop.submission() for _ in range(6000)])
        for state in (State.COMPLETED, State.FAILED):
            cursor.execute(
                "UPDATE api_task SET state = %s WHERE id IN (SELECT id FROM api_task WHERE state = %s LIMIT 2000)",
                [state.value, State.QUEUED.value],
            )
        moves.submit(cursor, [workshop.submission(run_after=NOW + i, expires_at=NOW + 9999) for i in range(1, 1000)])
        moves.submit(cursor, [workshop.submission(idempotency_key=f"key {i}") for i in range(50)])
    claimed = workshop.claim(50)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return claimed


def assert_reads_no_more_than_it_needs(plan: Plan) -> None:
    if connection.vendor == "postgresql":
        assert "Seq Scan on api_task" not in plan, plan
    else:
        scans = [line for line in plan.splitlines() if line.startswith("SCAN api_task")]
        # An index with a condition may be read from its beginning.
        assert all("USING INDEX task_" in line or "USING COVERING INDEX task_" in line for line in scans), plan


@pytest.mark.parametrize("limit", [1, 500])
def test_a_claim_reads_the_head_of_the_claim_index(workshop: Workshop, crowd: list[moves.Claimed], limit: int) -> None:
    with committed() as cursor:
        other = moves.queue_for(cursor, "other")
        for queues in ([1], [1, other]):
            with explained() as plans:
                moves.claim(cursor, workshop.dispatcher, queues, limit, 1 << 20, NOW)
            (plan,) = plans
            assert_reads_no_more_than_it_needs(plan)
            if connection.vendor == "postgresql":
                assert plan.count("Index Scan using task_claim on api_task") == len(queues), plan
                # In the order of the index: nothing is sorted before it is limited.
                heads = plan.split("LockRows")[1:]
                assert all("Sort" not in head.split("Index Scan")[0] for head in heads), plan
            else:
                assert plan.count("SEARCH api_task USING INDEX task_claim (queue_id=?)") == len(queues), plan


def test_no_statement_reads_the_whole_table(workshop: Workshop, crowd: list[moves.Claimed]) -> None:
    tasks = [c.task for c in crowd]
    one, *rest = crowd
    begun = [moves.Begun(c.task, c.attempt, NOW) for c in crowd]
    again = [workshop.submission(idempotency_key=f"key {i}") for i in range(50)]
    statements: list[Callable[[Any], Any]] = [
        lambda cursor: moves.has_work(cursor, [1], NOW),
        moves.next_due,
        partial(moves.has_expired, now=NOW),
        partial(moves.reject_expired, now=NOW + 1, limit=10),
        partial(moves.promote, now=NOW + 1, limit=10),
        partial(moves.read, ids=tasks),
        partial(moves.begin, begun=begun),
        partial(moves.request_cancel, ids=tasks[:1], now=NOW),
        partial(moves.cancel_requests, dispatcher=workshop.dispatcher),
        partial(moves.held, dispatcher=workshop.dispatcher),
        partial(moves.adopt, dispatcher=workshop.dispatcher, attempts=[(c.task, c.attempt) for c in crowd]),
        moves.lapsed_dispatchers,
        partial(moves.forget_dispatcher, dispatcher=new_id()),
        partial(moves.release, released=[released(one)], now=NOW),
        partial(moves.end, ended=[ended(c, Event.COMPLETE) for c in rest]),
        partial(moves.cancel, ids=tasks, now=NOW),
        partial(moves.withdraw, ids=tasks, now=NOW),
        partial(moves.submit, submissions=again),
    ]
    with committed() as cursor:
        for statement in statements:
            with explained() as plans:
                statement(cursor)
            assert plans, statement
            for plan in plans:
                assert_reads_no_more_than_it_needs(plan)


def test_lists_read_a_page_and_not_the_table(workshop: Workshop, crowd: list[moves.Claimed]) -> None:
    task = crowd[0].task
    page = queries.Page(50, task)
    wanted = [
        queries.Wanted(),
        queries.Wanted([State.FAILED]),
        queries.Wanted([State.WAITING]),
        queries.Wanted([State.RUNNING, State.COMPLETED]),
        queries.Wanted(function=workshop.function),
    ]
    for which in wanted:
        with explained() as plans:
            found, _ = queries.tasks(frozenset({workshop.owner}), which, page)
        (plan,) = plans
        assert len(found) == 50 or which.states
        if connection.vendor == "postgresql":
            assert "Seq Scan on api_task" not in plan, plan
        else:
            assert "SEARCH api_task" in plan, plan
            assert (which.states == [State.FAILED]) == ("INDEX task_failed" in plan), plan
    with explained() as plans:
        assert queries.repeats(queries.task(frozenset({workshop.owner}), task)) == []
    assert_reads_no_more_than_it_needs("\n".join(plans))
    assert "task_retries" in plans[-1]


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_batches_find_their_rows_by_id_whatever_the_planner_believes(workshop: Workshop) -> None:
    """With statistics from a time when nothing ran, the index of what runs looks free to read."""
    workshop.submit(3000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE api_task")
    claimed = workshop.claim(1000)
    with explained() as plans, committed() as cursor:
        moves.begin(cursor, [moves.Begun(c.task, c.attempt, NOW) for c in claimed])
        moves.end(cursor, [ended(c) for c in claimed])
    for plan in plans:
        assert "task_held" not in plan, plan
        assert "LockRows" in plan, plan
