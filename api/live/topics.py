"""What a page can ask to be told of, and how that is read from the database.

    overview                          counts, the last minutes, queue, workers, newest tasks and failures
    workers                           the workers alone
    tasks?state=…&function=…&upto=…   a page of a list of tasks
    task:{id}                         one task with its attempts
    log:{id}                          what a running task prints: see `api.live.output`

A topic's content is a set of named parts, and an update tells the parts that have changed. All topics that are due are
read by one `Sight`, on one thread, so that what several of them need is read once.
"""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from api.live import details, lists, workers
from api.live.history import History
from api.live.rows import Names, TaskRow, tasks
from api.tally import totals
from everythingfaas.status import State

#: Lines of the lists in the overview.
NEWEST = 10
FAILURES = 8

OVERVIEW = "overview"
WORKERS = "workers"
TASKS = "tasks?"
TASK = "task:"
LOG = "log:"

Parts = dict[str, Any]


class Memory:
    """What a thread that looks remembers from one look to the next."""

    def __init__(self) -> None:
        self.names = Names()
        self.history = History()


class Sight:
    """One look at the database."""

    def __init__(self, cursor: CursorWrapper, memory: Memory, now: float) -> None:
        self._cursor = cursor
        self._memory = memory
        self._now = now

    def of(self, topic: str) -> Parts:
        """The parts of `topic`, which `check` has let through."""
        if topic == OVERVIEW:
            return self._overview()
        if topic == WORKERS:
            return {"workers": self._workers}
        if topic.startswith(TASKS):
            return self._list(filter_of(topic))
        return self._task(UUID(topic.removeprefix(TASK)))

    @functools.cached_property
    def _held(self) -> list[TaskRow]:
        return tasks(self._cursor, self._memory.names, lists.held(self._cursor))

    @functools.cached_property
    def _running(self) -> list[TaskRow]:
        return [task for task in self._held if task.state == "running"]

    @functools.cached_property
    def _workers(self) -> list[workers.Worker]:
        return workers.read(self._cursor, self._running)

    def _overview(self) -> Parts:
        cursor, names = self._cursor, self._memory.names
        counts = totals(cursor)
        # Counters say what is given out, and the rows which of that runs.
        queued = max(0, counts[State.QUEUED] + len(self._held) - len(self._running))
        return {
            "counts": {state.name.lower(): count for state, count in counts.items()}
            | {"queued": queued, "running": len(self._running)},
            "queue": {"depth": queued, "oldest": lists.oldest_queued(cursor) if queued else None},
            "minutes": self._memory.history.read(cursor, self._now),
            "workers": self._workers,
            "newest": lists.read(cursor, names, lists.Filter(), NEWEST).tasks,
            "failures": lists.read(cursor, names, lists.Filter(state="failed"), FAILURES).tasks,
        }

    def _list(self, wanted: lists.Filter) -> Parts:
        page = lists.read(self._cursor, self._memory.names, wanted)
        found: Parts = {f"row:{task.id}": task for task in page.tasks}
        return found | {"order": [task.id for task in page.tasks], "next": page.next}

    def _task(self, task: UUID) -> Parts:
        found = details.read(self._cursor, self._memory.names, task)
        return {"task": found, "attempts": [] if found is None else details.attempts(self._cursor, task)}


def check(topic: str) -> None:
    """Raises ValueError: there is no such topic."""
    if topic in (OVERVIEW, WORKERS):
        return
    if topic.startswith(TASKS):
        filter_of(topic)
    elif topic.startswith(TASK):
        UUID(topic.removeprefix(TASK))
    else:
        UUID(topic.removeprefix(LOG) if topic.startswith(LOG) else "")


def topic_of(wanted: lists.Filter) -> str:
    """The topic that is the list of `wanted`."""
    fields = {"state": wanted.state, "function": wanted.function, "upto": wanted.upto}
    return TASKS + "&".join(f"{name}={value}" for name, value in fields.items() if value)


def filter_of(topic: str) -> lists.Filter:
    """Raises ValueError: what stands behind the question mark says nothing."""
    fields = dict(parse_qsl(topic.removeprefix(TASKS), strict_parsing=topic != TASKS))
    wanted = lists.Filter(
        state=fields.pop("state", ""),
        function=UUID(fields.pop("function")) if "function" in fields else None,
        upto=UUID(fields.pop("upto")) if "upto" in fields else None,
    )
    if fields or (wanted.state and wanted.state not in lists.STATES):
        raise ValueError(topic)
    return wanted
