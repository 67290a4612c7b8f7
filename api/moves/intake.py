"""What web processes write and read: functions and tasks that come in, and tasks that are called off."""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import OperationalError
from django.db.backends.utils import CursorWrapper

from api.dialect import Columns, dialect_of
from api.models import ANY_QUEUE, new_id
from api.moves import common
from api.moves.records import Accepted, Closed, FunctionView, Submission, TaskView
from everythingfaas import failures
from everythingfaas.status import Event, State, sources

_TASK: Columns = {
    "id": "uuid",
    "owner_id": "int",
    "function_id": "uuid",
    "queue_id": "small",
    "batch": "uuid",
    "state": "small",
    "priority": "small",
    "attempt": "int",
    "begun": "int",
    "starts": "small",
    "deaths": "small",
    "failures": "small",
    "run_after": "float",
    "expires_at": "float",
    "deadline_s": "float",
    "at_most_once": "bool",
    "max_attempts": "small",
    "policy": "text",
    "created": "float",
    "retry_of": "uuid",
    "idempotency_key": "text",
    "body_hash": "text",
    "payload_size": "int",
}
_PAYLOAD: Columns = {"task_id": "uuid", "codec": "small", "data": "bytes"}

_CANCELLED = "cancelled while it waited"


def submit(cursor: CursorWrapper, submissions: Sequence[Submission], *, again: bool = False) -> list[Accepted]:
    """Accept tasks, in order.

    Of those with the same owner and idempotency key one is stored, ever: the first. Tell `again` if the same
    submissions may be stored already, because a commit was cut off from its answer: tasks are then known by
    their ids as well.
    """
    accepted = [Accepted(submission.id, _first_state(submission)) for submission in submissions]
    guarded = [i for i, submission in enumerate(submissions) if again or submission.idempotency_key is not None]
    stored: Sequence[Submission] = submissions
    if guarded:
        known = _insert_guarded(cursor, [submissions[i] for i in guarded])
        for i in guarded:
            accepted[i] = known.get(submissions[i].id, accepted[i])
        stored = [s for s, a in zip(submissions, accepted, strict=True) if not (a.duplicate or a.conflict)]
    unguarded = submissions if not guarded else [s for s in stored if not again and s.idempotency_key is None]
    dialect = dialect_of(cursor)
    dialect.insert(cursor, "api_task", _TASK, [_task_row(submission) for submission in unguarded])
    dialect.insert(cursor, "api_payload", _PAYLOAD, [(s.id, s.codec, s.payload) for s in stored])
    return accepted


def _first_state(submission: Submission) -> State:
    if submission.run_after is not None and submission.run_after > submission.created:
        return State.WAITING
    return State.QUEUED


def _task_row(s: Submission) -> tuple[Any, ...]:
    return (
        s.id,
        s.owner,
        s.function,
        s.queue,
        s.batch,
        _first_state(s).value,
        s.priority,
        0,
        0,
        0,
        0,
        0,
        s.run_after,
        s.expires_at,
        s.deadline_s,
        s.at_most_once,
        s.max_attempts,
        s.policy,
        s.created,
        s.retry_of,
        s.idempotency_key,
        s.body_hash,
        len(s.payload),
    )


def _insert_guarded(cursor: CursorWrapper, submissions: Sequence[Submission]) -> dict[UUID, Accepted]:
    """Insert those that are new, and say of the others, by the ids that they came with, what there is instead.

    The unique index decides, so it does not matter who else submits the same at the same time: on PostgreSQL
    the statement waits for the other's commit, and then sees its row.
    """
    dialect = dialect_of(cursor)
    # By owner and key, so that two batches that meet do not wait for each other. The sort is stable: of equal
    # keys the first one in the batch is stored.
    ordered = sorted(submissions, key=lambda s: (s.owner, s.idempotency_key or ""))
    source = dialect.rows(_TASK, [_task_row(submission) for submission in ordered])
    cursor.execute(
        f"INSERT INTO api_task ({', '.join(_TASK)}) SELECT {', '.join(_TASK)} FROM {source.sql}"
        " WHERE true ON CONFLICT DO NOTHING RETURNING id",
        source.params,
    )
    inserted = {dialect.uuid(task) for (task,) in cursor.fetchall()}
    # A batch may hold the same id twice only by mistake, and then is refused whole by the payloads' key.
    return _existing(cursor, [submission for submission in ordered if submission.id not in inserted])


def _existing(cursor: CursorWrapper, submissions: Sequence[Submission]) -> dict[UUID, Accepted]:
    """What is stored under the ids or keys of `submissions`, by the ids that these came with."""
    if not submissions:
        return {}
    dialect = dialect_of(cursor)
    source = dialect.rows(
        {"given": "uuid", "owner": "int", "key": "text"}, [(s.id, s.owner, s.idempotency_key) for s in submissions]
    )
    cursor.execute(
        "SELECT v.given, t.id, t.state, t.body_hash"
        f" FROM {source.sql} JOIN api_task t ON t.owner_id = v.owner AND t.idempotency_key = v.key",
        source.params,
    )
    rows = cursor.fetchall()
    among = dialect.among("uuid", [s.id for s in submissions])
    cursor.execute(f"SELECT id, id, state, body_hash FROM api_task WHERE id {among.sql}", among.params)
    found = {dialect.uuid(given): row for given, *row in [*rows, *cursor.fetchall()]}
    known = {}
    for submission in submissions:
        if submission.id not in found:
            raise OperationalError("the task that this key stood for was deleted this very moment: submit again")
        task, state, body_hash = found[submission.id]
        same = body_hash == submission.body_hash
        known[submission.id] = Accepted(dialect.uuid(task), State(state), duplicate=same, conflict=not same)
    return known


def read(cursor: CursorWrapper, ids: Iterable[UUID]) -> dict[UUID, TaskView]:
    """Tasks by id, those of them that exist, with their results."""
    dialect = dialect_of(cursor)
    among = dialect.among("uuid", ids)
    cursor.execute(
        "SELECT t.id, t.owner_id, t.state, t.attempt, r.data, r.codec, t.error, t.created, t.started, t.finished"
        f" FROM api_task t LEFT JOIN api_result r ON r.task_id = t.id WHERE t.id {among.sql}",
        among.params,
    )
    views = (
        TaskView(
            id=dialect.uuid(task),
            owner=owner,
            state=State(state),
            begun=started is not None,
            attempt=attempt,
            result=None if result is None else bytes(result),
            codec=codec or 0,
            error=error,
            created=created,
            started=started,
            finished=finished,
        )
        for task, owner, state, attempt, result, codec, error, created, started, finished in cursor.fetchall()
    )
    return {view.id: view for view in views}


def functions(cursor: CursorWrapper, ids: Iterable[UUID]) -> dict[UUID, FunctionView]:
    """Functions by id, those of them that exist."""
    dialect = dialect_of(cursor)
    among = dialect.among("uuid", ids)
    cursor.execute(
        "SELECT id, owner_id, name, blob_id, queue_id, pythons, policy, dill_version"
        f" FROM api_function WHERE id {among.sql}",
        among.params,
    )
    views = (FunctionView(dialect.uuid(function), *rest) for function, *rest in cursor.fetchall())
    return {view.id: view for view in views}


def blobs(cursor: CursorWrapper, hashes: Iterable[str]) -> dict[str, bytes]:
    """The bytes of functions by their hashes, those of them that exist."""
    among = dialect_of(cursor).among("text", hashes)
    cursor.execute(f"SELECT sha256, data FROM api_blob WHERE sha256 {among.sql}", among.params)
    return {sha256: bytes(data) for sha256, data in cursor.fetchall()}


def queue_for(cursor: CursorWrapper, requirements: str) -> int:
    """The queue for these requirements, made if there is none yet. The empty text is `ANY_QUEUE`."""
    # Looked up first: an insert that finds its row there would still use up a number, and there are 32,767.
    for _ in range(2):
        cursor.execute("SELECT id FROM api_queue WHERE requirements = %s", [requirements])
        row = cursor.fetchone()
        if row is not None:
            return int(row[0])
        cursor.execute("INSERT INTO api_queue (requirements) VALUES (%s) ON CONFLICT DO NOTHING", [requirements])
    cursor.execute("SELECT id FROM api_queue WHERE requirements = %s", [requirements])
    return int(cursor.fetchone()[0])


def register(
    cursor: CursorWrapper,
    owner: int,
    name: str,
    payload: bytes,
    *,
    created: float,
    queue: int = ANY_QUEUE,
    source: str | None = None,
    pythons: str = "",
    dill_version: str = "",
    policy: str | None = None,
) -> UUID:
    """Store a function, and its bytes if nobody has stored the same yet."""
    function, sha256 = new_id(), hashlib.sha256(payload).hexdigest()
    cursor.execute(
        "INSERT INTO api_blob (sha256, size, data, created) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [sha256, len(payload), payload, created],
    )
    cursor.execute(
        "INSERT INTO api_function"
        " (id, owner_id, name, blob_id, queue_id, source, pythons, dill_version, policy, created)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            function,
            owner,
            common.text(name, 255),
            sha256,
            queue,
            common.text(source, 1 << 20),
            pythons,
            dill_version,
            policy,
            created,
        ],
    )
    return function


def cancel(cursor: CursorWrapper, ids: Iterable[UUID], now: float) -> tuple[list[Closed], list[UUID]]:
    """Call tasks off, wherever they are: what has not begun ends here, what runs is marked to be killed.

    Returns what has ended, and what runs. What ended before is in neither. No task slips through between the
    two: all are looked at in one moment, and held until the commit.
    """
    withdrawable, running = sources(Event.WITHDRAW), sources(Event.CANCEL)
    states = common.lock(cursor, ids, common.is_in((*withdrawable, *running)))
    ended = _withdraw(cursor, {task: state for task, state in states.items() if state in withdrawable}, now)
    return ended, _mark(cursor, [task for task, state in states.items() if state in running], now)


def withdraw(cursor: CursorWrapper, ids: Iterable[UUID], now: float) -> list[Closed]:
    """End those tasks that are with no dispatcher, as cancelled."""
    return _withdraw(cursor, common.lock(cursor, ids, common.before(Event.WITHDRAW)), now)


def request_cancel(cursor: CursorWrapper, ids: Iterable[UUID], now: float) -> list[UUID]:
    """Mark those tasks that a dispatcher has, for it to kill. The first mark's time stays."""
    return _mark(cursor, list(common.lock(cursor, ids, common.before(Event.CANCEL))), now)


def _withdraw(cursor: CursorWrapper, states: dict[UUID, State], now: float) -> list[Closed]:
    result = failures.dump(failures.TaskCancelled(_CANCELLED)) if states else b""
    return common.close(cursor, states, Event.WITHDRAW, result, _CANCELLED, now)


def _mark(cursor: CursorWrapper, ids: list[UUID], now: float) -> list[UUID]:
    if ids:
        among = dialect_of(cursor).among("uuid", ids)
        cursor.execute(
            "UPDATE api_task SET cancel_requested_at = coalesce(cancel_requested_at, %s)"
            f" WHERE id {among.sql} AND {common.before(Event.CANCEL)}",
            [now, *among.params],
        )
    return ids
