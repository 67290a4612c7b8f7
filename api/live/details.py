"""One task with all there is to say of it, but no bytes of clients."""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from uuid import UUID

from django.db.backends.utils import CursorWrapper
from msgspec import Struct

from api import moves
from api.access.caller import Sees
from api.dialect import dialect_of
from api.live import rows
from api.live.rows import COLUMNS, Names, TaskRow
from api.waiting import connected_pythons, why_queued
from everythingfaas.status import Outcome, State

#: Of so many attempts, the newest, a page tells.
ATTEMPTS = 50


class Details(Struct, frozen=True):
    row: TaskRow
    waits_for: str | None  #: why it is queued and does not run, if it does not just wait for its turn
    error: str | None
    deaths: int
    failures: int
    max_attempts: int
    deadline_s: float | None
    priority: int
    run_after: float | None
    expires_at: float | None
    cancel_requested_at: float | None
    retry_of: UUID | None
    payload_size: int
    result_size: int | None


class AttemptRow(Struct, frozen=True):
    attempt: int
    worker: str | None
    slot: int | None
    began: float | None
    ended: float
    outcome: str
    exit_code: int | None
    exit_signal: int | None
    error_type: str | None
    message: str | None
    traceback: str | None
    output: int  #: bytes of it that are stored
    dropped: int  #: and that are not


def read(cursor: CursorWrapper, names: Names, task: UUID, sees: Sees) -> Details | None:
    cursor.execute(
        f"SELECT {COLUMNS}, deaths, failures, max_attempts, deadline_s, priority, run_after, expires_at, retry_of,"
        " payload_size, result_size, queue_id FROM api_task WHERE id = %s",
        [task],
    )
    found = cursor.fetchone()
    narrow = len(COLUMNS.split(","))
    if found is None or not (sees is None or found[narrow - 1] in sees):
        return None
    (row,) = rows.tasks(cursor, names, [found[:narrow]])
    (
        deaths, failures, most, deadline_s, priority, run_after, expires_at, retry_of, payload, result, queue
    ) = found[narrow:]  # fmt: skip
    return Details(
        row=row,
        waits_for=_waits_for(cursor, queue) if State(found[2]) is State.QUEUED else None,
        error=found[10],
        deaths=deaths,
        failures=failures,
        max_attempts=most,
        deadline_s=deadline_s,
        priority=priority,
        run_after=run_after,
        expires_at=expires_at,
        cancel_requested_at=found[11],
        retry_of=None if retry_of is None else dialect_of(cursor).uuid(retry_of),
        payload_size=payload,
        result_size=result,
    )


def _waits_for(cursor: CursorWrapper, queue: int) -> str | None:
    cursor.execute("SELECT requirements FROM api_queue WHERE id = %s", [queue])
    return why_queued(cursor.fetchone()[0], connected_pythons(moves.snapshots(cursor)))


def attempts(cursor: CursorWrapper, task: UUID) -> list[AttemptRow]:
    """The attempts that ended, the newest first."""
    cursor.execute(
        "SELECT attempt, worker, slot, began, ended, outcome, exit_code, exit_signal, error_type, message, traceback,"
        " coalesce(length(output_head), 0) + coalesce(length(output_tail), 0), output_dropped"
        " FROM api_attempt WHERE task_id = %s ORDER BY attempt DESC LIMIT %s",
        [task, ATTEMPTS],
    )
    return [
        AttemptRow(
            number, worker, slot, began, ended, Outcome(outcome).name.lower(), exit_code, exit_signal,
            error_type, message, traceback, output, dropped,
        )
        for (
            number, worker, slot, began, ended, outcome, exit_code, exit_signal, error_type, message, traceback, output,
            dropped,
        ) in cursor.fetchall()
    ]  # fmt: skip
