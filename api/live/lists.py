"""Lists of tasks, newest first, a page at a time, by state and function.

None of them counts or sorts the table. What stands in a partial index is read from there: failed, queued and running
tasks. For the rest the newest tasks are looked through up to a bound, and the list says how far it has looked, so
that the next page goes on from there.
"""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db.backends.utils import CursorWrapper
from msgspec import Struct

from api.access.caller import Sees
from api.dialect import dialect_of
from api.live import rows
from api.live.rows import COLUMNS, Names, TaskRow
from api.models import FIRST_USER
from everythingfaas.status import State

#: Rows of a page.
PAGE = 50
#: So many of the newest tasks are looked through for one page.
SCAN = 5_000
#: So many attempts of one dispatcher are looked at, and so many different priorities.
HELD = 500
PRIORITIES = 16

#: The words to filter by.
STATES = ("queued", "running", "completed", "failed", "cancelled", "waiting")

Row = Sequence[Any]


class Filter(Struct, frozen=True):
    """Which tasks. `upto` is the newest one that may be among them: where the page begins."""

    state: str = ""
    function: UUID | None = None
    upto: UUID | None = None
    #: Whose tasks. Not in the name of a topic: who looks is known.
    sees: Sees = None


class Page(NamedTuple):
    tasks: list[TaskRow]
    next: UUID | None  #: `upto` of the page that follows; None: there is none


def read(cursor: CursorWrapper, names: Names, wanted: Filter, limit: int = PAGE) -> Page:
    """One page of the tasks that fit."""
    if wanted.sees is not None:
        return _scanned(cursor, names, wanted, limit)
    if wanted.state == "running" or (wanted.state == "queued" and wanted.function is None):
        found = _given_out(cursor, wanted)
        if wanted.state == "queued":
            found += _queued(cursor, wanted, limit + 1)
        found.sort(key=lambda row: str(row[0]), reverse=True)
        return _page(cursor, names, found, limit)
    if wanted.function is None and wanted.state in ("", "failed"):
        return _page(cursor, names, _newest(cursor, wanted, limit + 1), limit)
    return _scanned(cursor, names, wanted, limit)


def _page(cursor: CursorWrapper, names: Names, found: Sequence[Row], limit: int) -> Page:
    following = dialect_of(cursor).uuid(found[limit][0]) if len(found) > limit else None
    return Page(rows.tasks(cursor, names, found[:limit]), following)


def _newest(cursor: CursorWrapper, wanted: Filter, limit: int) -> list[Row]:
    where, params = _where(wanted.upto, *(["state = 5"] if wanted.state == "failed" else []))
    cursor.execute(f"SELECT {COLUMNS} FROM api_task{where} ORDER BY id DESC LIMIT %s", [*params, limit])
    found: list[Row] = cursor.fetchall()
    return found


def _scanned(cursor: CursorWrapper, names: Names, wanted: Filter, limit: int) -> Page:
    """The bounded look through the newest tasks."""
    found: list[Row] = []
    beyond: list[UUID] = []
    conditions, values = _fits(wanted)
    for owner in [None] if wanted.sees is None else sorted(wanted.sees):
        narrowing = ["state = 5"] if wanted.state == "failed" and owner is None else []
        inner, params = _where(wanted.upto, *narrowing, *_owned_by(owner))
        cursor.execute(
            f"SELECT {COLUMNS} FROM (SELECT {COLUMNS} FROM api_task{inner} ORDER BY id DESC LIMIT %s) AS newest"
            f"{conditions} ORDER BY id DESC LIMIT %s",
            [*params, SCAN, *values, limit + 1],
        )
        rows_of_owner = cursor.fetchall()
        found += rows_of_owner
        if len(rows_of_owner) <= limit:
            cursor.execute(f"SELECT id FROM api_task{inner} ORDER BY id DESC LIMIT 1 OFFSET %s", [*params, SCAN])
            beyond += [dialect_of(cursor).uuid(row[0]) for row in cursor.fetchall()]
    if wanted.sees is not None and len(wanted.sees) > 1:
        found.sort(key=lambda row: str(row[0]), reverse=True)
    page = _page(cursor, names, found, limit)
    if beyond and (page.next is None or page.next < max(beyond)):
        # What an owner has beyond the bound comes before what would follow: the next page begins there.
        first = max(beyond)
        return Page([task for task in page.tasks if task.id > first], first)
    return page


def _owned_by(owner: int | None) -> list[str]:
    """The condition on the owner. Its second half is that of the index, which SQLite uses only where it is repeated."""
    if owner is None:
        return []
    return [f"owner_id = {owner:d}", *([f"owner_id > {FIRST_USER}"] if owner > FIRST_USER else [])]


def _fits(wanted: Filter) -> tuple[str, list[Any]]:
    """What remains to be compared among the newest tasks."""
    conditions: list[str] = []
    values: list[Any] = []
    if wanted.state in ("queued", "running"):  # as people say it: see `api.live.rows`
        begun = "state = 3 AND begun = attempt"
        conditions.append(begun if wanted.state == "running" else f"(state = 2 OR (state = 3 AND NOT ({begun})))")
    elif wanted.state:
        conditions.append("state = %s")
        values.append(State[wanted.state.upper()].value)
    if wanted.function is not None:
        conditions.append("function_id = %s")
        values.append(wanted.function)
    return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values


def _where(upto: UUID | None, *conditions: str) -> tuple[str, list[Any]]:
    every = [*conditions, *([] if upto is None else ["id <= %s"])]
    return (f" WHERE {' AND '.join(every)}" if every else ""), ([] if upto is None else [upto])


def _given_out(cursor: CursorWrapper, wanted: Filter) -> list[Row]:
    """Tasks in dispatchers' books: those that a slot has begun, or those that none has."""
    uuid = dialect_of(cursor).uuid
    begun = wanted.state == "running"
    return [
        row
        for row in held(cursor)
        if (row[4] == row[3]) is begun
        and (wanted.upto is None or uuid(row[0]) <= wanted.upto)
        and (wanted.function is None or uuid(row[1]) == wanted.function)
    ]


def held(cursor: CursorWrapper) -> list[Row]:
    """All that is given out, in rows of `COLUMNS`."""
    cursor.execute("SELECT id FROM api_dispatcher")
    found: list[Row] = []
    for (dispatcher,) in cursor.fetchall():
        cursor.execute(
            f"SELECT {COLUMNS} FROM api_task WHERE state = 3 AND dispatcher_id = %s LIMIT %s", [dispatcher, HELD]
        )
        found += cursor.fetchall()
    return found


def _queued(cursor: CursorWrapper, wanted: Filter, limit: int) -> list[Row]:
    found: list[Row] = []
    for queue, priority in _heads(cursor):
        where, params = _where(wanted.upto, "state = 2", "queue_id = %s", "priority = %s")
        cursor.execute(
            f"SELECT {COLUMNS} FROM api_task{where} ORDER BY id DESC LIMIT %s", [queue, priority, *params, limit]
        )
        found += cursor.fetchall()
    return found


def oldest_queued(cursor: CursorWrapper) -> float | None:
    """When the task that has been queued longest was accepted."""
    oldest: list[float] = []
    for queue, priority in _heads(cursor):
        cursor.execute(
            "SELECT created FROM api_task WHERE state = 2 AND queue_id = %s AND priority = %s ORDER BY id LIMIT 1",
            [queue, priority],
        )
        oldest += [created for (created,) in cursor.fetchall()]
    return min(oldest, default=None)


def _heads(cursor: CursorWrapper) -> list[tuple[int, int]]:
    """The queues and priorities that queued tasks have: a jump along the index of claims for each."""
    cursor.execute("SELECT id FROM api_queue")
    found: list[tuple[int, int]] = []
    for (queue,) in cursor.fetchall():
        below = 1 << 15
        while len(found) < PRIORITIES:
            cursor.execute(
                "SELECT priority FROM api_task WHERE state = 2 AND queue_id = %s AND priority < %s"
                " ORDER BY priority DESC LIMIT 1",
                [queue, below],
            )
            row = cursor.fetchone()
            if row is None:
                break
            below = int(row[0])
            found.append((queue, below))
    return found
