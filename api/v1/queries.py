"""What the API reads. Every answer takes a fixed number of queries; payloads, results and code are never loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import BooleanField, Prefetch, QuerySet
from django.db.models.expressions import RawSQL

from api.access.caller import Sees
from api.dialect import dialect_of
from api.errors import NotFound
from api.models import FIRST_USER, Attempt, Dispatcher, Function, Payload, Task
from api.moves.common import is_in
from everythingfaas.status import State


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, newest first: at most `limit`, all of them older than `before`."""

    limit: int
    before: UUID | int | None = None

    def of(self, rows: QuerySet[Any]) -> tuple[list[Any], Any]:
        """The rows of this page, and the id before which the next one begins; None if there is none."""
        if self.before is not None:
            rows = rows.filter(id__lt=self.before)
        found = list(rows.order_by("-id")[: self.limit + 1])
        return found[: self.limit], found[self.limit - 1].id if len(found) > self.limit else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks a list is of."""

    states: Sequence[State] = ()
    function: UUID | None = None
    since: datetime | None = None


def seen(rows: QuerySet[Any], sees: Sees) -> QuerySet[Any]:
    """Those of `rows` whose owners are seen."""
    if sees is None:
        return rows
    if len(sees) > 1:
        return rows.filter(owner__in=sorted(sees))
    (owner,) = sees
    rows = rows.filter(owner=owner)
    # Repeated, so that SQLite uses the index that has this condition.
    return rows.filter(owner__gt=FIRST_USER) if rows.model is Task and owner > FIRST_USER else rows


def task(sees: Sees, task_id: UUID) -> Task:
    """A task with its attempts. Two queries.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    attempts = Prefetch("attempts", Attempt.objects.order_by("attempt"))
    found = _tasks(sees).filter(id=task_id).prefetch_related(attempts).first()
    if found is None:
        raise NotFound(f"there is no task {str(task_id)!r}", field="task_id")
    return found


def repeats(task: Task) -> list[UUID]:
    """The tasks that repeat `task`. One query."""
    return list(Task.objects.filter(retry_of=task.id, owner=task.owner_id).order_by("id").values_list("id", flat=True))


def tasks(sees: Sees, wanted: Wanted, page: Page) -> tuple[list[Task], UUID | None]:
    """A page of tasks. One query."""
    rows = _tasks(sees)
    if wanted.states:
        # As text, not as a parameter: SQLite uses an index with a condition only for one that repeats it.
        condition = is_in(set(wanted.states))
        rows = rows.filter(RawSQL(condition, (), output_field=BooleanField()))  # noqa: S611  # numbers of ours
    if wanted.function is not None:
        rows = rows.filter(function=wanted.function)
    if wanted.since is not None:
        rows = rows.filter(id__gte=first_id(wanted.since))
    return page.of(rows)


def first_id(since: datetime) -> UUID:
    """The smallest id of a task that was accepted at `since`: ids are UUIDv7, which begin with the time."""
    milliseconds = min(max(0, int(since.timestamp() * 1000)), (1 << 48) - 1)
    return UUID(int=milliseconds << 80)


def _tasks(sees: Sees) -> QuerySet[Task]:
    rows = seen(Task.objects.all(), sees).select_related("owner", "function", "queue")
    return rows.defer("function__source")


def function(sees: Sees, function_id: UUID) -> Function:
    """A function. One query.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    found = _functions(sees).filter(id=function_id).first()
    if found is None:
        raise NotFound(f"there is no function {str(function_id)!r}", field="function_id")
    return found


def functions(sees: Sees, name: str | None, page: Page) -> tuple[list[Function], UUID | None]:
    """A page of functions. One query."""
    rows = _functions(sees).defer("source")
    return page.of(rows if name is None else rows.filter(name=name))


def _functions(sees: Sees) -> QuerySet[Function]:
    rows = seen(Function.objects.all(), sees).select_related("owner", "queue", "blob")
    return rows.defer("blob__data")


def workers(sees: Sees) -> dict[str, list[Any]]:
    """All dispatchers, and their workers as the last snapshot had them; of what those run, what is seen. Who holds a
    lease, the database's clock says. One query, and one more where not everything is seen."""
    with connection.cursor() as cursor:
        now = dialect_of(cursor).now
    holds_lease = RawSQL(f"lease_until >= {now}", (), output_field=BooleanField())  # noqa: S611  # a constant of ours
    dispatchers = list(Dispatcher.objects.annotate(holds_lease=holds_lease).order_by("started", "id"))
    found = [
        {**worker, "id": worker["worker"], "dispatcher": dispatcher.id, "holds_lease": dispatcher.holds_lease}
        for dispatcher in dispatchers
        for worker in json.loads(dispatcher.snapshot) or ()  # an empty object before the first renewal
    ]
    if sees is not None:
        mine = _those_of(sees, [UUID(task) for worker in found for task in worker["running"]])
        for worker in found:
            worker["running"] = [task for task in worker["running"] if UUID(task) in mine]
    return {"workers": found, "dispatchers": dispatchers}


def _those_of(sees: frozenset[int], tasks: list[UUID]) -> set[UUID]:
    """Those of `tasks` whose owners are seen."""
    if not tasks:
        return set()
    with connection.cursor() as cursor:
        dialect = dialect_of(cursor)
        among = dialect.among("uuid", tasks)
        cursor.execute(f"SELECT id, owner_id FROM api_task WHERE id {among.sql}", among.params)  # noqa: S608
        return {dialect.uuid(task) for task, owner in cursor.fetchall() if owner in sees}


def original(sees: Sees, task_id: UUID) -> Payload:
    """The arguments of a task, to be sent once more, and with them the task. One query.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    found = Payload.objects.filter(task=task_id).select_related("task").first()
    if found is None or not (sees is None or found.task.owner_id in sees):
        raise NotFound(f"there is no task {str(task_id)!r}", field="task_id")
    return found
