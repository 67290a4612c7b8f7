"""Random moves, against a model of the table that a reader can check by eye.

The model knows the rules and no SQL. After each step every row of the database must be what the model says, results
must be stored for what has ended and for nothing else, and the counters must be what is counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from api import moves, tally
from api.models import Attempt, Result
from everythingfaas.status import Event, Outcome, State

from ..conftest import empty
from .conftest import NOW, Workshop, committed

LATER = 100.0

#: Mostly the current attempt, sometimes the one before.
BACK = st.sampled_from([0, 0, 0, 1])
#: Which of the tasks: the number, counted among those that run, or (if it is negative) among all.
WHICH = st.integers(-6, 18)


@dataclass
class Expected:
    """A row of the table, as it should be."""

    state: State
    priority: int
    size: int
    at_most_once: bool
    run_after: float | None = None
    expires_at: float | None = None
    attempt: int = 0
    begun: int = 0
    starts: int = 0
    deaths: int = 0
    failures: int = 0
    started: float | None = None
    finished: float | None = None
    cancelled: bool = False
    reports: list[int] = field(default_factory=list)

    def begin(self, at: float) -> None:
        if self.begun != self.attempt:
            self.begun = self.attempt
            self.starts += not self.at_most_once
        self.started = at if self.started is None else self.started

    def end(self, state: State, at: float) -> None:
        self.state, self.finished = state, at


class Table(RuleBasedStateMachine):
    """One dispatcher, one web process, and a clock that only goes forward."""

    def __init__(self) -> None:
        super().__init__()
        empty()
        self.workshop = Workshop()
        self.tally = tally.Tally("model")
        self.rows: dict[UUID, Expected] = {}
        self.now = NOW

    def moved(self, *closed: moves.Closed) -> None:
        for task in closed:
            self.tally.moved(task.owner, task.was, task.state)

    def task(self, which: int) -> UUID:
        running = sorted(id_ for id_, row in self.rows.items() if row.state is State.RUNNING)
        candidates = running if running and which >= 0 else sorted(self.rows)
        return candidates[which % len(candidates)]

    @initialize(
        tasks=st.lists(st.tuples(st.booleans(), st.sampled_from([None, LATER])), min_size=2, max_size=6),
    )
    def begin_with_some_that_run(self, tasks: list[tuple[bool, float | None]]) -> None:
        for at_most_once, life in tasks:
            self.submit(0, 1, None, life, at_most_once)
        self.claim(len(tasks) - 1, 1000)

    @rule(
        priority=st.integers(-1, 1),
        size=st.sampled_from([1, 10, 100]),
        wait=st.sampled_from([None, 0.0, LATER]),
        life=st.sampled_from([None, LATER, 3 * LATER]),
        at_most_once=st.booleans(),
    )
    def submit(self, priority: int, size: int, wait: float | None, life: float | None, at_most_once: bool) -> None:
        run_after = None if wait is None else self.now + wait
        expires_at = None if life is None else self.now + life
        given = self.workshop.submission(
            created=self.now,
            priority=priority,
            payload=b"x" * size,
            run_after=run_after,
            expires_at=expires_at,
            at_most_once=at_most_once,
        )
        with committed() as cursor:
            (accepted,) = moves.submit(cursor, [given])
            self.tally.moved(given.owner, None, accepted.state)
            self.tally.flush(cursor)
        self.tally.committed()
        state = State.WAITING if wait else State.QUEUED
        assert accepted == moves.Accepted(given.id, state)
        self.rows[given.id] = Expected(state, priority, size, at_most_once, run_after, expires_at)

    @rule(limit=st.integers(1, 4), max_bytes=st.sampled_from([1, 20, 1000]))
    def claim(self, limit: int, max_bytes: int) -> None:
        with committed() as cursor:
            claimed = moves.claim(cursor, self.workshop.dispatcher, [1], limit, max_bytes, self.now)
            for task in claimed:
                self.tally.moved(task.owner, State.QUEUED, State.RUNNING)
            self.tally.flush(cursor)
        self.tally.committed()
        free = [id_ for id_, row in self.rows.items() if row.state is State.QUEUED and not self.is_over(row)]
        free.sort(key=lambda id_: (-self.rows[id_].priority, id_))
        expected, size = [], 0
        for id_ in free[:limit]:
            size += self.rows[id_].size
            if expected and size > max_bytes:
                break
            expected.append(id_)
        assert [task.task for task in claimed] == expected
        for task in claimed:
            row = self.rows[task.task]
            row.state = State.RUNNING
            row.attempt += 1
            row.starts += row.at_most_once
            assert (task.attempt, task.starts, task.deaths) == (row.attempt, row.starts, row.deaths)

    def is_over(self, row: Expected) -> bool:
        return row.started is None and row.expires_at is not None and row.expires_at <= self.now

    @rule(which=WHICH, back=BACK)
    def begin(self, which: int, back: int) -> None:
        task = self.task(which)
        row = self.rows[task]
        attempt = row.attempt - back
        with committed() as cursor:
            begun = moves.begin(cursor, [moves.Begun(task, attempt, self.now)])
        if self.is_current(row, attempt) and row.begun != attempt:
            assert begun == {task}
            row.begin(self.now)
        else:
            assert begun == set()

    def is_current(self, row: Expected, attempt: int) -> bool:
        return row.state is State.RUNNING and row.attempt == attempt

    def report(self, outcome: Outcome, began: bool) -> moves.Report:
        return moves.Report(outcome, ended=self.now, began=self.now if began else None)

    @rule(
        which=WHICH,
        back=BACK,
        event=st.sampled_from([Event.COMPLETE, Event.FAIL, Event.CANCEL]),
        began=st.booleans(),
    )
    def end(self, which: int, back: int, event: Event, began: bool) -> None:
        task = self.task(which)
        row = self.rows[task]
        attempt = row.attempt - back
        given = moves.Ended(task, attempt, event, b"r", self.report(Outcome.RAISED, began), None, failures=1)
        with committed() as cursor:
            closed = moves.end(cursor, [given, given])
            self.moved(*closed)
            self.tally.flush(cursor)
        self.tally.committed()
        if self.is_current(row, attempt):
            assert [c.task for c in closed] == [task]
            self.expect_end(row, closed[0].state, began, failures=1)
        else:
            assert closed == []

    def expect_end(self, row: Expected, state: State, began: bool, failures: int = 0) -> None:
        if began:
            row.begin(self.now)
        row.failures += failures
        row.reports.append(row.attempt)
        row.end(state, self.now)

    @rule(
        which=WHICH,
        back=BACK,
        later=st.booleans(),
        how=st.sampled_from(["unstarted", "lost", "begun"]),
    )
    def release(self, which: int, back: int, later: bool, how: str) -> None:
        task = self.task(which)
        row = self.rows[task]
        attempt = row.attempt - back
        run_after = self.now + LATER if later else None
        given = moves.Released(
            task,
            attempt,
            Event.POSTPONE if later else Event.REQUEUE,
            report=None if how == "unstarted" else self.report(Outcome.LOST, how == "begun"),
            unstarted=how == "unstarted",
            run_after=run_after,
            deaths=int(how == "begun"),
        )
        with committed() as cursor:
            reopened, closed = moves.release(cursor, [given], self.now)
            for item in reopened:
                self.tally.moved(item.owner, State.RUNNING, item.state)
            self.moved(*closed)
            self.tally.flush(cursor)
        self.tally.committed()
        if not self.is_current(row, attempt):
            assert (reopened, closed) == ([], [])
            return
        row.deaths += given.deaths
        if row.cancelled:
            assert [c.state for c in closed] == [State.CANCELLED]
            self.expect_end(row, State.CANCELLED, how == "begun")
            return
        if how == "begun":
            row.begin(self.now)
        if how == "unstarted":
            row.starts -= row.at_most_once and row.begun != row.attempt
        else:
            row.reports.append(row.attempt)
        row.state = State.WAITING if later else State.QUEUED
        row.run_after = run_after or row.run_after
        assert [item.state for item in reopened] == [row.state]

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        task = self.task(which)
        row = self.rows[task]
        with committed() as cursor:
            closed, marked = moves.cancel(cursor, [task], self.now)
            self.moved(*closed)
            self.tally.flush(cursor)
        self.tally.committed()
        assert marked == ([task] if row.state is State.RUNNING else [])
        assert [c.was for c in closed] == ([row.state] if row.state in {State.WAITING, State.QUEUED} else [])
        if marked:
            row.cancelled = True
        if closed:
            row.end(State.CANCELLED, self.now)

    @rule(by=st.sampled_from([1.0, LATER]))
    def time_passes(self, by: float) -> None:
        self.now += by
        with committed() as cursor:
            for item in moves.promote(cursor, self.now, 1000):
                self.tally.moved(item.owner, State.WAITING, item.state)
            expired = moves.reject_expired(cursor, self.now, 1000)
            self.moved(*expired)
            self.tally.flush(cursor)
        self.tally.committed()
        for row in self.rows.values():
            if row.state is State.WAITING and row.run_after is not None and row.run_after <= self.now:
                row.state = State.QUEUED
            if row.state in {State.WAITING, State.QUEUED} and self.is_over(row):
                row.end(State.FAILED, self.now)

    @invariant()
    def the_table_is_as_expected(self) -> None:
        columns = [name for name in Expected.__dataclass_fields__ if name not in {"size", "cancelled", "reports"}]
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, payload_size, cancel_requested_at IS NOT NULL, {', '.join(columns)} FROM api_task"
            )
            found = {UUID(str(id_)): values for id_, *values in cursor.fetchall()}
            expected: dict[UUID, Any] = {
                id_: [row.size, row.cancelled, *(getattr(row, name) for name in columns)]
                for id_, row in self.rows.items()
            }
            assert found == expected
            assert tally.totals(cursor) == {
                state: count for state in State for count in [sum(row.state is state for row in self.rows.values())]
            }
            held = {h.task: h.begun for h in moves.held(cursor, self.workshop.dispatcher)}
        running = {id_: row.begun == row.attempt for id_, row in self.rows.items() if row.state is State.RUNNING}
        assert held == running
        ended = {id_ for id_, row in self.rows.items() if row.state.is_terminal}
        assert set(Result.objects.values_list("task_id", flat=True)) == ended
        reports = Counter((id_, attempt) for id_, row in self.rows.items() for attempt in row.reports)
        assert Counter(Attempt.objects.values_list("task_id", "attempt")) == reports


def test_random_moves(database: str) -> None:
    run_state_machine_as_test(
        Table,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
