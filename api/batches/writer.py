"""Commits batches, each whole or not at all, on a thread of its own: as `api.writer` does single tasks.

Parts that arrive while the last commit was written are one transaction. If one cannot be written, they are written
again one by one; if the database is lost at COMMIT, what has become of them is found out by sending them once more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from django.db import connection, transaction

from api.batches import statements
from api.batches.statements import Added, Part
from api.errors import OutcomeUnknown
from api.group import BROKEN, NOTHING_DONE, PATIENCE_S, Group, Waiting, one_line
from api.pipeline import pipelined_cursor
from api.tally import Tally
from api.writer import ROW_BYTES, SETTLE_EVERY_S, SETTLE_S
from everythingfaas.errors import StoreUnavailable
from everythingfaas.status import State

log = logging.getLogger("api.batches")

Answer: TypeAlias = Added | None
_UNKNOWN = (
    "the database was lost while it committed; send the batch again with the same Idempotency-Key when it is back"
)


class BatchWriter(Group[Part, Answer]):
    """Accepts batches for callers on the event loop."""

    turn_items = 100

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tally: Tally,
        on_commit: Callable[[list[Added]], None],
        *,
        patience_s: float = PATIENCE_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        """`on_commit` is called on the loop with what a commit has newly accepted, before anybody is answered."""
        self._tally = tally
        self._on_commit = on_commit
        self._settle_s = settle_s
        self._at_commit = False
        super().__init__("batches", loop, patience_s=patience_s)

    def submit(self, part: Part) -> asyncio.Future[Answer]:
        """Done when `part` is committed, or told apart from an earlier one; None: there is no batch that it belongs to.

        Raises:
            StoreUnavailable: it is not accepted, and never will be.
            OutcomeUnknown: the database was lost at the worst moment, and did not come back in time.
            TooMany: at once: too much waits to be written.
        """
        return self.ask(part, sum(ROW_BYTES + len(task.payload) for task in part.tasks))

    def _answer(self, asked: Sequence[Waiting[Part, Answer]], answers: Sequence[Answer | Exception]) -> None:
        if new := [answer for answer in answers if isinstance(answer, Added) and answer.is_new]:
            self._on_commit(new)
        super()._answer(asked, answers)

    # On the thread

    def _work(self, taken: list[Waiting[Part, Answer]]) -> Sequence[Answer | Exception]:
        try:
            try:
                return self._transact(taken)
            except Exception as exc:
                if isinstance(exc, BROKEN) or len(taken) < 2:
                    raise
                log.warning("one of %d batches cannot be written: %r", len(taken), exc)
                return self._one_by_one(taken)
        except BROKEN as exc:
            if not self._at_commit:
                raise
            log.warning("the database was lost while it committed %d batches: %s", len(taken), one_line(exc))
            return self._settle(taken)

    def _transact(self, taken: list[Waiting[Part, Answer]]) -> list[Answer]:
        """In one transaction. Takes what there is first, unless this is another try."""
        self._at_commit = False
        try:
            with transaction.atomic():
                with pipelined_cursor() as cursor:
                    if not taken:
                        taken.extend(self.take())
                    answers = statements.add(cursor, [waiting.item for waiting in taken])
                    for waiting, answer in zip(taken, answers, strict=True):
                        if answer is not None and answer.is_new:
                            self._count(waiting.item)
                    self._tally.flush(cursor)
                self._at_commit = True
        except Exception:
            self._tally.rolled_back()  # another try counts again what is new to it
            raise
        self._tally.committed()
        return answers

    def _count(self, part: Part) -> None:
        if part.tasks:
            self._tally.moved(part.owner, None, State.QUEUED, len(part.tasks))

    def _one_by_one(self, taken: list[Waiting[Part, Answer]]) -> list[Answer | Exception]:
        answers: list[Answer | Exception] = []
        for waiting in taken:
            try:
                answers += self._transact([waiting])
            except BROKEN as exc:  # of this one: those before are committed
                connection.close()
                answers += self._settle([waiting]) if self._at_commit else [StoreUnavailable(NOTHING_DONE)]
                log.warning("the database cannot be used: %s", one_line(exc))
            except Exception as exc:
                log.exception("batch %s cannot be written", waiting.item.batch)
                answers.append(exc)
        return answers

    def _settle(self, taken: list[Waiting[Part, Answer]]) -> list[Answer | Exception]:
        patience = time.monotonic() + self._settle_s
        while True:
            connection.close()
            try:
                return list(self._transact(taken))
            except BROKEN as exc:
                log.warning("the outcome of a commit is not known yet: %s", one_line(exc))
            if time.monotonic() > patience:
                return [OutcomeUnknown(_UNKNOWN) for _ in taken]
            time.sleep(SETTLE_EVERY_S)
