"""Calls tasks off: in groups, on a thread of its own, as `api.writer` accepts them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias
from uuid import UUID

from django.db import connection, transaction

from api import moves
from api.group import Group, Waiting
from api.moves import Closed
from api.tally import Tally

#: The task as it has ended here; True: it runs, and is marked to be killed; False: it had ended before.
Cancelled: TypeAlias = Closed | bool


class Canceller(Group[UUID, Cancelled]):
    """Cancels tasks for callers on the event loop. Asking twice is asking once."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tally: Tally, on_commit: Callable[[list[Closed], bool], None]
    ) -> None:
        """`on_commit` is called on the loop with what a commit has ended, and whether it has marked what runs,
        before anybody is answered."""
        self._tally = tally
        self._on_commit = on_commit
        super().__init__("canceller", loop)

    def cancel(self, task: UUID) -> asyncio.Future[Cancelled]:
        """Done when the task has ended, or its dispatcher can find out that it is to end.

        Raises:
            StoreUnavailable: that is not known, and may be asked again.
            TooMany: at once: too much waits to be written.
        """
        return self.ask(task)

    def _answer(self, asked: Sequence[Waiting[UUID, Cancelled]], answers: Sequence[Cancelled | Exception]) -> None:
        ended = {answer.task: answer for answer in answers if isinstance(answer, Closed)}
        running = any(answer is True for answer in answers)
        if ended or running:
            self._on_commit(list(ended.values()), running)
        super()._answer(asked, answers)

    # On the thread

    def _work(self, taken: list[Waiting[UUID, Cancelled]]) -> Sequence[Cancelled]:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                taken.extend(self.take())
                closed, marked = moves.cancel(cursor, {waiting.item for waiting in taken}, time.time())
                for task in closed:
                    self._tally.moved(task.owner, task.was, task.state)
                    self._tally.finished(task.owner, task.state, None, None, task.finished)
                self._tally.flush(cursor)
        except Exception:
            self._tally.rolled_back()
            raise
        self._tally.committed()
        ended = {task.task: task for task in closed}
        running = set(marked)
        return [ended.get(waiting.item, waiting.item in running) for waiting in taken]
