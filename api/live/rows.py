"""Tasks as pages show them: a few columns, and one word for the state.

The words are those of people who wait for a result. A task that is given out to a worker but has not begun in a slot
reads `queued` here, as it does at the contract's endpoints: what nobody runs yet is waited for.
"""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.backends.utils import CursorWrapper
from msgspec import Struct

from api.dialect import dialect_of
from everythingfaas.status import State

#: Of an error, lists show as much.
ERROR_CHARS = 200
#: Names of functions that are kept. Functions never change.
KEPT_NAMES = 10_000

COLUMNS = (
    "id, function_id, state, attempt, begun, starts, created, started, finished, worker, error, cancel_requested_at,"
    " owner_id"
)


class TaskRow(Struct, frozen=True):
    """A line of a list."""

    id: UUID
    function: UUID
    name: str
    state: str
    attempt: int
    starts: int
    created: float
    started: float | None
    finished: float | None
    worker: str | None
    error: str | None
    cancelling: bool


class Names:
    """The names of functions, remembered. For one thread."""

    def __init__(self) -> None:
        self._names: dict[UUID, str] = {}

    def of(self, cursor: CursorWrapper, functions: Iterable[UUID]) -> dict[UUID, str]:
        wanted = set(functions)
        missing = wanted - self._names.keys()
        if missing:
            if len(self._names) + len(missing) > KEPT_NAMES:
                self._names.clear()
                missing = wanted
            dialect = dialect_of(cursor)
            among = dialect.among("uuid", missing)
            cursor.execute(f"SELECT id, name FROM api_function WHERE id {among.sql}", among.params)
            self._names |= {dialect.uuid(function): name for function, name in cursor.fetchall()}
        return {function: self._names.get(function, "") for function in wanted}


def tasks(cursor: CursorWrapper, names: Names, rows: Sequence[Sequence[Any]]) -> list[TaskRow]:
    """The tasks in `rows` of `COLUMNS`."""
    uuid = dialect_of(cursor).uuid
    found = names.of(cursor, (uuid(row[1]) for row in rows))
    return [
        TaskRow(
            id=uuid(task),
            function=uuid(function),
            name=found[uuid(function)],
            state=word(State(state), begun=begun == attempt),
            attempt=attempt,
            starts=starts,
            created=created,
            started=started,
            finished=finished,
            worker=worker,
            error=None if error is None else error[:ERROR_CHARS],
            cancelling=cancel_requested_at is not None and not State(state).is_terminal,
        )
        for (
            task, function, state, attempt, begun, starts, created, started, finished, worker, error,
            cancel_requested_at, _,
        ) in rows
    ]  # fmt: skip


def word(state: State, *, begun: bool) -> str:
    """`begun`: a slot has begun the attempt that is given out."""
    if state is State.RUNNING and not begun:
        return "queued"
    return state.name.lower()
