"""Calls off many tasks at once: those of one request in one transaction, on a thread of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

from django.db import connection, transaction

from api import moves
from api.group import Group, Waiting
from api.moves import Closed
from api.tally import Tally


class Wanted(NamedTuple):
    tasks: list[UUID]
    #: Those that run as well.
    running: bool


class CalledOff(NamedTuple):
    ended: list[Closed]
    #: These run, and are to be killed.
    running: list[UUID]


class BatchCanceller(Group[Wanted, CalledOff]):
    """Cancels lists of tasks for callers on the event loop. Asking twice is asking once."""

    turn_items = 1

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tally: Tally, on_commit: Callable[[list[Closed], bool], None]
    ) -> None:
        """`on_commit` is called as that of `api.canceller.Canceller`."""
        self._tally = tally
        self._on_commit = on_commit
        super().__init__("batch-canceller", loop)

    def cancel(self, tasks: list[UUID], *, running: bool) -> asyncio.Future[CalledOff]:
        """Ends those that wait. Those that are with a dispatcher are marked to be killed, or left alone.

        Raises:
            StoreUnavailable: what has become of it is not known, and may be asked again.
            TooMany: at once: too much waits to be written.
        """
        return self.ask(Wanted(tasks, running))

    def _answer(self, asked: Sequence[Waiting[Wanted, CalledOff]], answers: Sequence[CalledOff | Exception]) -> None:
        for answer in answers:
            if isinstance(answer, CalledOff) and (answer.ended or answer.running):
                self._on_commit(answer.ended, bool(answer.running))
        super()._answer(asked, answers)

    # On the thread

    def _work(self, taken: list[Waiting[Wanted, CalledOff]]) -> list[CalledOff]:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                taken.extend(self.take())
                now = time.time()
                answers = []
                for wanted in (waiting.item for waiting in taken):
                    if wanted.running:
                        answers.append(CalledOff(*moves.cancel(cursor, wanted.tasks, now)))
                    else:
                        answers.append(CalledOff(moves.withdraw(cursor, wanted.tasks, now), []))
                for task in (task for answer in answers for task in answer.ended):
                    self._tally.moved(task.owner, task.was, task.state)
                    self._tally.finished(task.owner, task.state, None, None, task.finished)
                self._tally.flush(cursor)
        except Exception:
            self._tally.rolled_back()
            raise
        self._tally.committed()
        return answers
