"""What the statements have in common."""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from api.dialect import Columns, Dialect, dialect_of
from api.models import Codec
from api.moves.records import Closed, Report
from everythingfaas.status import Event, State, check_move, sources

#: Longest message or traceback that is stored, in bytes.
TEXT_BYTES = 8192
#: Longest summary of an error, in bytes: it stands in the row of the task.
SUMMARY_BYTES = 1024

RESULT: Columns = {"task_id": "uuid", "codec": "small", "data": "bytes"}
ATTEMPT: Columns = {
    "task_id": "uuid",
    "attempt": "int",
    "dispatcher": "uuid",
    "worker": "text",
    "slot": "int",
    "began": "float",
    "ended": "float",
    "outcome": "small",
    "exit_code": "int",
    "exit_signal": "small",
    "error_type": "text",
    "message": "text",
    "traceback": "text",
    "output_head": "bytes",
    "output_tail": "bytes",
    "output_dropped": "big",
}
#: What a statement that ends tasks returns, for `closed`.
CLOSED = ", ".join(
    f"api_task.{name}"
    for name in (
        "id", "owner_id", "function_id", "attempt", "state", "created", "run_after", "started", "finished", "error"
    )
)  # fmt: skip


def target(*events: Event) -> State:
    """The one state in which `events` end, wherever they happen."""
    (state,) = {check_move(source, event) for event in events for source in sources(event)}
    return state


def before(event: Event) -> str:
    """The SQL condition that `event` is legal in a task's state."""
    return is_in(sources(event))


def is_in(states: Iterable[State]) -> str:
    """The SQL condition that a task is in one of `states`.

    The numbers are part of the text, and written exactly as in the conditions of the partial indexes: SQLite
    uses such an index only for a statement that repeats its condition.
    """
    numbers = sorted(state.value for state in states)
    if len(numbers) == 1:
        return f"api_task.state = {numbers[0]}"
    return f"api_task.state IN ({', '.join(map(str, numbers))})"


def text(value: str | None, limit: int) -> str | None:
    """`value` so that both databases store it: no NUL, no lone surrogates, at most `limit` bytes."""
    if value is None or (len(value) <= limit and value.isascii() and "\0" not in value):
        return value
    encoded = value.replace("\0", "\\0").encode("utf-8", "backslashreplace")
    return encoded[:limit].decode("utf-8", "ignore")


def attempt_row(task: UUID, attempt: int, dispatcher: UUID | None, report: Report) -> tuple[Any, ...]:
    """The row of `Attempt` for `report`."""
    return (
        task,
        attempt,
        dispatcher,
        text(report.worker, 128),
        report.slot,
        report.began,
        report.ended,
        report.outcome.value,
        report.exit_code,
        report.exit_signal,
        text(report.error_type, 255),
        text(report.message, TEXT_BYTES),
        text(report.traceback, TEXT_BYTES),
        report.output_head,
        report.output_tail,
        report.output_dropped,
    )


def closed(dialect: Dialect, row: Sequence[Any], was: State) -> Closed:
    """A row of the columns in `CLOSED`."""
    task, owner, function, attempt, state, created, run_after, started, finished, error = row[:10]
    return Closed(
        dialect.uuid(task),
        owner,
        dialect.uuid(function),
        attempt,
        was,
        State(state),
        created,
        run_after,
        started,
        finished,
        error,
    )


def lock(cursor: CursorWrapper, ids: Iterable[UUID], condition: str) -> dict[UUID, State]:
    """The states of those of `ids` that fulfil `condition`; they stay so until the transaction ends."""
    dialect = dialect_of(cursor)
    among = dialect.among("uuid", ids)
    cursor.execute(
        f"SELECT id, state FROM api_task WHERE id {among.sql} AND {condition} ORDER BY id {dialect.for_update}",
        among.params,
    )
    return {dialect.uuid(task): State(state) for task, state in cursor.fetchall()}


def close(
    cursor: CursorWrapper, states: dict[UUID, State], event: Event, result: bytes, error: str | None, now: float
) -> list[Closed]:
    """End the tasks in `states`, all of them with `result`. They are locked, and `event` is legal in each."""
    if not states:
        return []
    dialect = dialect_of(cursor)
    among = dialect.among("uuid", states)
    cursor.execute(
        f"UPDATE api_task SET state = {target(event):d}, finished = %s, result_size = %s, error = %s"
        f" WHERE id {among.sql} AND {before(event)} RETURNING {CLOSED}",
        [now, len(result), text(error, SUMMARY_BYTES), *among.params],
    )
    ended = [closed(dialect, row, states[dialect.uuid(row[0])]) for row in cursor.fetchall()]
    dialect.insert(cursor, "api_result", RESULT, [(task.task, Codec.DILL.value, result) for task in ended])
    return ended


def change(
    cursor: CursorWrapper,
    columns: Columns,
    rows: Sequence[tuple[Any, ...]],
    events: Collection[Event],
    *,
    changes: str,
    returning: str,
    condition: str = "true",
    dispatcher: UUID | None = None,
) -> list[tuple[Any, ...]]:
    """Let `events` happen to those tasks of `rows` that still are in the attempt that their row speaks of.

    With a `dispatcher`, to those that are in its books: another one may have taken this very attempt over.
    """
    (states,) = {sources(event) for event in events}
    if dispatcher is not None:
        condition = f"{condition} AND api_task.dispatcher_id = '{dispatcher.hex}'"
    numbers = ", ".join(f"{state:d}" for state in states)
    statement = dialect_of(cursor).update(
        columns,
        rows,
        where=f"api_task.attempt = v.attempt AND api_task.state + 0 IN ({numbers}) AND {condition}",
        changes=changes,
        returning=returning,
    )
    cursor.execute(statement.sql, statement.params)
    changed: list[tuple[Any, ...]] = cursor.fetchall()
    return changed
