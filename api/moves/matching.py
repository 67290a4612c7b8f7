"""Queues and the workers that match them: what stands at the heads, and what nobody can run."""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from api.dialect import dialect_of
from api.moves import common
from api.moves.records import Closed, Report
from api.moves.running import head
from everythingfaas import failures
from everythingfaas.status import Event, Outcome, State


def queues(cursor: CursorWrapper) -> dict[int, str]:
    """The requirements of all queues, by their ids. There are few."""
    cursor.execute("SELECT id, requirements FROM api_queue")
    return dict(cursor.fetchall())


def heads(cursor: CursorWrapper, ids: Sequence[int], limit: int, now: float) -> list[int]:
    """The queues of the first `limit` tasks in each of these queues, in the order in which tasks are claimed."""
    each = " UNION ALL ".join(
        f"SELECT * FROM ({head('id, priority, queue_id', queue)} LIMIT %s) AS queue_{i}" for i, queue in enumerate(ids)
    )
    cursor.execute(f"SELECT queue_id FROM ({each}) AS heads ORDER BY priority DESC, id", [now, limit] * len(ids))
    return [queue for (queue,) in cursor.fetchall()]


def queues_with_tasks(cursor: CursorWrapper, ids: Sequence[int]) -> list[int]:
    """Those of these queues in which a task stands."""
    if not ids:
        return []
    cursor.execute(
        " UNION ALL ".join(
            f"SELECT {queue:d} WHERE EXISTS (SELECT 1 FROM api_task WHERE queue_id = {queue:d} AND"
            f" {common.before(Event.CLAIM)})"
            for queue in ids
        )
    )
    return [queue for (queue,) in cursor.fetchall()]


def snapshots(cursor: CursorWrapper, *, but: UUID | None = None) -> list[str]:
    """What dispatchers that are believed alive have written down of their workers, in JSON; not that of `but`."""
    dialect = dialect_of(cursor)
    cursor.execute(f"SELECT id, snapshot FROM api_dispatcher WHERE lease_until >= {dialect.now}")
    return [snapshot for dispatcher, snapshot in cursor.fetchall() if dialect.uuid(dispatcher) != but]


def reject_unmatched(
    cursor: CursorWrapper, queue: int, reason: str, *, queued_before: float, now: float, limit: int
) -> list[Closed]:
    """Fail tasks of a queue that no worker matches, those of them that have stood there since `queued_before`.

    Each gets an attempt that says so, with the number that it would have had.
    """
    dialect = dialect_of(cursor)
    cursor.execute(
        f"SELECT id, state FROM api_task WHERE queue_id = {queue:d} AND {common.before(Event.CLAIM)}"
        f" AND coalesce(run_after, created) <= %s ORDER BY priority DESC, id LIMIT %s {dialect.skip_locked}",
        [queued_before, limit],
    )
    states = {dialect.uuid(task): State(state) for task, state in cursor.fetchall()}
    result = failures.dump(failures.WorkerFailure(reason)) if states else b""
    closed = common.close(cursor, states, Event.REJECT, result, f"WorkerFailure: {reason}", now)
    report = Report(Outcome.UNMATCHED, ended=now, error_type="WorkerFailure", message=reason)
    rows = [common.attempt_row(task.task, task.attempt + 1, None, report) for task in closed]
    dialect.insert(cursor, "api_attempt", common.ATTEMPT, rows)
    return closed
