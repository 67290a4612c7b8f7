"""What dispatchers write: attempts that are given out, begin, end and come back."""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from api.dialect import Columns, Dialect, dialect_of
from api.moves import common
from api.moves.records import Begun, Claimed, Closed, Ended, Released, Reopened, Report
from everythingfaas import failures
from everythingfaas.status import Event, Outcome, State, check_move

_BEGUN: Columns = {"task": "uuid", "attempt": "int", "started": "float", "worker": "text"}
_ENDED: Columns = {
    "task": "uuid",
    "attempt": "int",
    "state": "small",
    "began": "float",
    "finished": "float",
    "worker": "text",
    "error": "text",
    "result_size": "int",
    "deaths": "small",
    "failures": "small",
}
_RELEASED: Columns = {
    "task": "uuid",
    "attempt": "int",
    "state": "small",
    "began": "float",
    "unstarted": "bool",
    "run_after": "float",
    "worker": "text",
    "deaths": "small",
    "failures": "small",
}

# Said of a row before it is updated: was this attempt's begin written already? If not, and a report says
# when it was, it is now. The claim of an at-most-once task has counted the start, so that one is not counted again.
_NEWLY_BEGUN = "v.began IS NOT NULL AND api_task.begun <> api_task.attempt"
_BEGIN = """
            started = coalesce(api_task.started, v.began),
            begun = CASE WHEN v.began IS NULL THEN api_task.begun ELSE api_task.attempt END"""

_CANCELLED = "cancelled"
_EXPIRED = "expired before it began"
_EXPIRED_NOW = f"expires_at <= %s AND started IS NULL AND {common.before(Event.REJECT)}"


def claim(
    cursor: CursorWrapper, dispatcher: UUID, queues: Sequence[int], limit: int, max_bytes: int, now: float
) -> list[Claimed]:
    """Give out attempts of at most `limit` tasks in `queues`, and of at most `max_bytes` of arguments.

    The first task is given out whatever its size. In order of priority, then of age. Claims that run at the
    same time share the tasks out among them without waiting for each other.
    """
    if not queues or limit < 1:
        return []
    dialect = dialect_of(cursor)
    cursor.execute(claim_statement(dialect, queues), [*[now, limit] * len(queues), limit, dispatcher, max_bytes])
    claimed = [
        Claimed(
            task=dialect.uuid(task),
            attempt=attempt,
            owner=owner,
            function=dialect.uuid(function),
            blob=blob,
            payload=bytes(payload),
            codec=codec,
            queue=queue,
            priority=priority,
            created=created,
            run_after=run_after,
            started=started,
            deadline_s=deadline_s,
            at_most_once=bool(at_most_once),
            max_attempts=max_attempts,
            policy=policy,
            starts=starts,
            deaths=deaths,
            failures=failed,
        )
        for (
            task, attempt, owner, function, queue, priority, created, run_after, started, deadline_s, at_most_once,
            max_attempts, policy, starts, deaths, failed, payload, codec, blob,
        ) in cursor.fetchall()
    ]  # fmt: skip
    # RETURNING promises no order.
    claimed.sort(key=lambda task: (-task.priority, task.task))
    return claimed


def claim_statement(dialect: Dialect, queues: Sequence[int]) -> str:
    """The statement of `claim`.

    The head of each queue is read from the claim index, in its order and no further than `limit`. On
    PostgreSQL the rows are locked as they are read, in a step of its own (MATERIALIZED): the planner may
    run a plain sub-select several times, and each time lock and claim other rows.
    """
    heads = " UNION ALL ".join(
        f"SELECT * FROM ({head('id, priority, payload_size', queue)} LIMIT %s {dialect.skip_locked}) AS queue_{i}"
        for i, queue in enumerate(queues)
    )
    return f"""
        WITH heads AS MATERIALIZED ({heads}),
        candidates AS (SELECT * FROM heads ORDER BY priority DESC, id LIMIT %s),
        measured AS (
            SELECT id, sum(payload_size) OVER w AS bytes, row_number() OVER w AS place
            FROM candidates WINDOW w AS (ORDER BY priority DESC, id ROWS UNBOUNDED PRECEDING)
        )
        UPDATE api_task SET
            state = {common.target(Event.CLAIM):d},
            attempt = attempt + 1,
            dispatcher_id = %s,
            starts = starts + CASE WHEN at_most_once THEN 1 ELSE 0 END
        WHERE id IN (SELECT id FROM measured WHERE bytes <= %s OR place = 1)
        RETURNING id, attempt, owner_id, function_id, queue_id, priority, created, run_after, started, deadline_s,
            at_most_once, max_attempts, policy, starts, deaths, failures,
            (SELECT p.data FROM api_payload p WHERE p.task_id = api_task.id),
            (SELECT p.codec FROM api_payload p WHERE p.task_id = api_task.id),
            (SELECT f.blob_id FROM api_function f WHERE f.id = api_task.function_id)"""


def head(columns: str, queue: int) -> str:
    """What is claimed next from `queue`; takes `now` as its parameter."""
    return (
        f"SELECT {columns} FROM api_task WHERE queue_id = {queue:d} AND {common.before(Event.CLAIM)}"
        " AND (expires_at IS NULL OR expires_at > %s OR started IS NOT NULL) ORDER BY priority DESC, id"
    )


def has_work(cursor: CursorWrapper, queues: Sequence[int], now: float) -> bool:
    """Would a claim of these queues find anything?"""
    if not queues:
        return False
    cursor.execute(
        "SELECT " + " OR ".join(f"({head('1', queue)} LIMIT 1) IS NOT NULL" for queue in queues), [now] * len(queues)
    )
    return bool(cursor.fetchone()[0])


def next_due(cursor: CursorWrapper) -> float | None:
    """When the next waiting task is due."""
    cursor.execute(f"SELECT min(run_after) FROM api_task WHERE {common.before(Event.PROMOTE)}")
    due: float | None = cursor.fetchone()[0]
    return due


def begin(cursor: CursorWrapper, begun: Sequence[Begun], dispatcher: UUID | None = None) -> set[UUID]:
    """Write that slots have begun. Returns the tasks that still are in that attempt and had not begun in it.

    Here and below, `dispatcher` is who says so: it changes what is in its own books alone.
    """
    rows = {(b.task, b.attempt): (b.task, b.attempt, b.started, common.text(b.worker, 128)) for b in reversed(begun)}
    if not rows:
        return set()
    dialect = dialect_of(cursor)
    changed = common.change(
        cursor,
        _BEGUN,
        list(rows.values()),
        [Event.BEGIN],
        changes=f"""
            state = {common.target(Event.BEGIN):d},
            started = coalesce(api_task.started, v.started),
            begun = api_task.attempt,
            worker = coalesce(v.worker, api_task.worker),
            starts = api_task.starts + CASE WHEN api_task.at_most_once THEN 0 ELSE 1 END""",
        condition="api_task.begun <> api_task.attempt",
        dispatcher=dispatcher,
        returning="api_task.id",
    )
    return {dialect.uuid(task) for (task,) in changed}


def end(cursor: CursorWrapper, ended: Sequence[Ended], dispatcher: UUID | None = None) -> list[Closed]:
    """End tasks with the results of their attempts. What is late or a duplicate changes nothing.

    Results and attempts are written for the tasks that are returned, and for no other.
    """
    first = {(e.task, e.attempt): e for e in reversed(ended)}
    if not first:
        return []
    dialect = dialect_of(cursor)
    changed = common.change(
        cursor,
        _ENDED,
        [_ended_row(e) for e in first.values()],
        [Event.COMPLETE, Event.FAIL, Event.CANCEL],
        changes=f"""
            state = v.state,
            finished = v.finished,
            worker = coalesce(v.worker, api_task.worker),
            error = v.error,
            result_size = v.result_size,
            deaths = api_task.deaths + v.deaths,
            failures = api_task.failures + v.failures,
            {_BEGIN},
            starts = api_task.starts + CASE WHEN {_NEWLY_BEGUN} AND NOT api_task.at_most_once THEN 1 ELSE 0 END""",
        dispatcher=dispatcher,
        returning=f"{common.CLOSED}, api_task.dispatcher_id",
    )
    closed, results, attempts = [], [], []
    for row in changed:
        task = common.closed(dialect, row, State.RUNNING)
        this = first[task.task, task.attempt]
        closed.append(task)
        results.append((task.task, this.codec, this.result))
        attempts.append(common.attempt_row(task.task, task.attempt, _uuid_or_none(dialect, row[-1]), this.report))
    dialect.insert(cursor, "api_result", common.RESULT, results)
    dialect.insert(cursor, "api_attempt", common.ATTEMPT, attempts)
    return closed


def _ended_row(e: Ended) -> tuple[Any, ...]:
    return (
        e.task,
        e.attempt,
        check_move(State.RUNNING, e.event).value,
        e.report.began,
        e.report.ended,
        common.text(e.report.worker, 128),
        common.text(e.error, common.SUMMARY_BYTES),
        len(e.result),
        e.deaths,
        e.failures,
    )


def release(
    cursor: CursorWrapper, released: Sequence[Released], now: float, dispatcher: UUID | None = None
) -> tuple[list[Reopened], list[Closed]]:
    """Give attempts back: their tasks are queued again, or wait.

    Tasks that somebody has asked to cancel meanwhile are not begun once more, but end here as cancelled; they
    are the second part of the answer.
    """
    first = {(r.task, r.attempt): r for r in reversed(released)}
    if not first:
        return [], []
    dialect = dialect_of(cursor)
    changed = common.change(
        cursor,
        _RELEASED,
        [_released_row(r) for r in first.values()],
        [Event.REQUEUE, Event.POSTPONE],
        changes=f"""
            state = v.state,
            run_after = coalesce(v.run_after, api_task.run_after),
            worker = coalesce(v.worker, api_task.worker),
            deaths = api_task.deaths + v.deaths,
            failures = api_task.failures + v.failures,
            {_BEGIN},
            starts = api_task.starts + CASE
                WHEN {_NEWLY_BEGUN} AND NOT api_task.at_most_once THEN 1
                WHEN v.unstarted AND api_task.begun <> api_task.attempt AND api_task.at_most_once THEN -1
                ELSE 0 END""",
        condition="api_task.cancel_requested_at IS NULL",
        dispatcher=dispatcher,
        returning="api_task.id, api_task.attempt, api_task.owner_id, api_task.state, api_task.dispatcher_id",
    )
    reopened, attempts = [], []
    for id_, attempt, owner, state, holder in changed:
        task = dialect.uuid(id_)
        reopened.append(Reopened(task, owner, State(state)))
        this = first.pop((task, attempt))
        if this.report is not None:
            attempts.append(common.attempt_row(task, attempt, _uuid_or_none(dialect, holder), this.report))
    dialect.insert(cursor, "api_attempt", common.ATTEMPT, attempts)
    # What is left was late, or is to be cancelled; the next statement tells which.
    return reopened, end(cursor, [_as_cancelled(left, now) for left in first.values()], dispatcher)


def _released_row(r: Released) -> tuple[Any, ...]:
    if r.report is None and not r.unstarted:
        raise ValueError("an attempt that may have begun needs a report")
    if (r.event is Event.POSTPONE) != (r.run_after is not None):
        raise ValueError("run_after belongs to POSTPONE, and POSTPONE needs it")
    return (
        r.task,
        r.attempt,
        check_move(State.RUNNING, r.event).value,
        None if r.report is None else r.report.began,
        r.unstarted,
        r.run_after,
        None if r.report is None else common.text(r.report.worker, 128),
        r.deaths,
        r.failures,
    )


def _as_cancelled(r: Released, now: float) -> Ended:
    return Ended(
        task=r.task,
        attempt=r.attempt,
        event=Event.CANCEL,
        result=failures.dump(failures.TaskCancelled(_CANCELLED)),
        report=r.report or Report(Outcome.CANCELLED, ended=now),
        error=_CANCELLED,
        deaths=r.deaths,
        failures=r.failures,
    )


def promote(cursor: CursorWrapper, now: float, limit: int) -> list[Reopened]:
    """Queue waiting tasks that are due, the longest overdue first."""
    dialect = dialect_of(cursor)
    cursor.execute(
        f"""
        WITH due AS MATERIALIZED (
            SELECT id FROM api_task WHERE {common.before(Event.PROMOTE)} AND run_after <= %s
            ORDER BY run_after LIMIT %s {dialect.skip_locked}
        )
        UPDATE api_task SET state = {common.target(Event.PROMOTE):d}
        WHERE id IN (SELECT id FROM due) RETURNING id, owner_id, state""",
        [now, limit],
    )
    return [Reopened(dialect.uuid(task), owner, State(state)) for task, owner, state in cursor.fetchall()]


def reject(cursor: CursorWrapper, ids: Iterable[UUID], reason: str, now: float) -> list[Closed]:
    """Fail tasks that have no attempt running, with a `WorkerFailure` that gives the reason."""
    return _reject(cursor, common.lock(cursor, ids, common.before(Event.REJECT)), reason, now)


def has_expired(cursor: CursorWrapper, now: float) -> bool:
    """Would `reject_expired` find anything?"""
    cursor.execute(f"SELECT EXISTS (SELECT 1 FROM api_task WHERE {_EXPIRED_NOW})", [now])
    return bool(cursor.fetchone()[0])


def reject_expired(cursor: CursorWrapper, now: float, limit: int) -> list[Closed]:
    """Fail tasks whose time ran out before they began.

    One that has begun once and is queued again has kept its date, and goes on.
    """
    dialect = dialect_of(cursor)
    cursor.execute(
        f"SELECT id, state FROM api_task WHERE {_EXPIRED_NOW} ORDER BY expires_at LIMIT %s {dialect.skip_locked}",
        [now, limit],
    )
    states = {dialect.uuid(task): State(state) for task, state in cursor.fetchall()}
    return _reject(cursor, states, _EXPIRED, now)


def _reject(cursor: CursorWrapper, states: dict[UUID, State], reason: str, now: float) -> list[Closed]:
    result = failures.dump(failures.WorkerFailure(reason)) if states else b""
    return common.close(cursor, states, Event.REJECT, result, reason, now)


def _uuid_or_none(dialect: Dialect, value: Any) -> UUID | None:
    return None if value is None else dialect.uuid(value)
