"""What a page can ask to be told of, and how that is read from the database.

    overview                          counts, the last minutes, queue, workers, newest tasks and failures
    workers                           the workers alone
    tasks?state=…&function=…&upto=…   a page of a list of tasks
    task:{id}                         one task with its attempts
    log:{id}                          what a running task prints: see `api.live.output`

What of it somebody is shown depends on whose tasks they see, which is no part of the name: see `Sight.of`.
A topic's content is a set of named parts, and an update tells the parts that have changed. All topics that are due are
read by one `Sight`, on one thread, so that what several of them need is read once.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from django.db.backends.utils import CursorWrapper

from api.access.caller import Sees
from api.live import details, lists, workers
from api.live.history import History
from api.live.rows import COLUMNS, Names, TaskRow, tasks
from api.tally import totals
from everythingfaas.status import State

#: Lines of the lists in the overview.
NEWEST = 10
FAILURES = 8

#: Of so many sets of owners the last minutes are remembered.
KEPT_HISTORIES = 100
#: Where a row of `COLUMNS` has its owner.
OWNER = len(COLUMNS.split(",")) - 1

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
        self._histories: OrderedDict[Sees, History] = OrderedDict()

    def history_of(self, sees: Sees) -> History:
        """That of those whose tasks are seen."""
        history = self._histories.pop(sees, None) or History(sees)
        self._histories[sees] = history
        if len(self._histories) > KEPT_HISTORIES:
            self._histories.popitem(last=False)
        return history


class Sight:
    """One look at the database."""

    def __init__(self, cursor: CursorWrapper, memory: Memory, now: float) -> None:
        self._cursor = cursor
        self._memory = memory
        self._now = now

    def of(self, topic: str, sees: Sees = None) -> Parts:
        """The parts of `topic`, which `check` has let through, as far as they are of those in `sees`."""
        if topic == OVERVIEW:
            return self._overview(sees)
        if topic == WORKERS:
            return {"workers": self._workers(sees)}
        if topic.startswith(TASKS):
            return self._list(filter_of(topic), sees)
        return self._task(UUID(topic.removeprefix(TASK)), sees)

    @functools.cached_property
    def _held(self) -> list[lists.Row]:
        return lists.held(self._cursor)

    def _held_by(self, sees: Sees) -> list[TaskRow]:
        held = self._held if sees is None else [row for row in self._held if row[OWNER] in sees]
        return tasks(self._cursor, self._memory.names, held)

    @functools.cached_property
    def _snapshots(self) -> list[workers.Snapshot]:
        return workers.snapshots(self._cursor)

    def _workers(self, sees: Sees, held: list[TaskRow] | None = None) -> list[workers.Worker]:
        """All workers, and what they run for those in `sees`."""
        held = self._held_by(sees) if held is None else held
        return workers.read(self._snapshots, [task for task in held if task.state == "running"])

    def _overview(self, sees: Sees) -> Parts:
        cursor, names = self._cursor, self._memory.names
        held = self._held_by(sees)
        running = sum(task.state == "running" for task in held)
        counts = totals(cursor, sees)
        # Counters say what is given out, and the rows which of that runs.
        queued = max(0, counts[State.QUEUED] + len(held) - running)
        # By owner, the oldest would have to be searched for.
        oldest = lists.oldest_queued(cursor) if queued and sees is None else None
        return {
            "counts": {state.name.lower(): count for state, count in counts.items()}
            | {"queued": queued, "running": running},
            "queue": {"depth": queued, "oldest": oldest},
            "minutes": self._memory.history_of(sees).read(cursor, self._now),
            "workers": self._workers(sees, held),
            "newest": lists.read(cursor, names, lists.Filter(sees=sees), NEWEST).tasks,
            "failures": lists.read(cursor, names, lists.Filter(state="failed", sees=sees), FAILURES).tasks,
        }

    def _list(self, wanted: lists.Filter, sees: Sees) -> Parts:
        page = lists.read(self._cursor, self._memory.names, msgspec.structs.replace(wanted, sees=sees))
        found: Parts = {f"row:{task.id}": task for task in page.tasks}
        return found | {"order": [task.id for task in page.tasks], "next": page.next}

    def _task(self, task: UUID, sees: Sees) -> Parts:
        found = details.read(self._cursor, self._memory.names, task, sees)
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
