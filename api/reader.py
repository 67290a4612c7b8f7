"""What the lean views ask of the database: answered in groups by one thread with one connection.

Status and result lookups that arrive together are one query, and so are lookups of functions. These change
seldom, and are kept for a moment once found.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID

from django.db import connection
from django.db.backends.utils import CursorWrapper

from api import moves
from api.group import BROKEN, Group, Waiting
from api.moves import FunctionView, TaskView

T = TypeVar("T")

#: How many functions are kept. Their bytes are not, so each takes less than a kilobyte.
KEPT_FUNCTIONS = 10_000
#: And for how many seconds: a policy that was changed through another web process holds here then.
KEPT_S = 2.0


class _Task(NamedTuple):
    id: UUID


class _Function(NamedTuple):
    id: UUID


class _Question(NamedTuple):
    ask: Callable[[CursorWrapper], Any]


_Item = _Task | _Function | _Question


class Reader(Group[_Item, Any]):
    """Reads rows for callers on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__("reader", loop)
        self._functions: OrderedDict[UUID, tuple[FunctionView, float]] = OrderedDict()

    def task(self, task_id: UUID) -> asyncio.Future[TaskView | None]:
        return self.ask(_Task(task_id))

    async def function(self, function_id: UUID) -> FunctionView | None:
        kept = self._functions.get(function_id)
        now = self._loop.time()
        if kept is not None and now < kept[1]:
            self._functions.move_to_end(function_id)
            return kept[0]
        found = cast("FunctionView | None", await self.ask(_Function(function_id)))
        if found is not None:
            self._functions[function_id] = found, now + KEPT_S
            if len(self._functions) > KEPT_FUNCTIONS:
                self._functions.popitem(last=False)
        return found

    def forget(self, function_id: UUID) -> None:
        """It has changed: read it again."""
        self._functions.pop(function_id, None)

    def call(self, question: Callable[[CursorWrapper], T]) -> asyncio.Future[T]:
        """What `question` returns, run with a cursor between the lookups: it should be quick."""
        return self.ask(_Question(question))

    def _work(self, taken: list[Waiting[_Item, Any]]) -> Sequence[Any]:
        with connection.cursor() as cursor:
            taken.extend(self.take())
            tasks: dict[UUID, TaskView] = {}
            functions: dict[UUID, FunctionView] = {}
            if ids := {waiting.item.id for waiting in taken if isinstance(waiting.item, _Task)}:
                tasks = moves.read(cursor, ids)
            if ids := {waiting.item.id for waiting in taken if isinstance(waiting.item, _Function)}:
                functions = moves.functions(cursor, ids)
            answers: list[Any] = []
            for waiting in taken:
                match waiting.item:
                    case _Task(task_id):
                        answers.append(tasks.get(task_id))
                    case _Function(function_id):
                        answers.append(functions.get(function_id))
                    case _Question(ask):
                        answers.append(_answer(ask, cursor))
            return answers


def _answer(ask: Callable[[CursorWrapper], Any], cursor: CursorWrapper) -> Any:
    try:
        return ask(cursor)
    except BROKEN:
        raise
    except Exception as exc:  # noqa: BLE001  # whoever asked gets it
        return exc
