"""Group commit: tasks become rows, and whatever has arrived while the last commit was written is the next one.

A commit costs a disk its rest, whether it holds one row or a hundred. So requests hand their row to one
thread and wait; 201 is answered after the commit that holds it, 503 means that no commit holds it and none
will. Three things make that true:

- Rows are taken inside the transaction, after it has got the write lock. A row whose caller's patience ended
  before that was never written (see `api.group`).
- One bad row must not cost the others: the batch is then written again row by row, each in a savepoint.
- A connection that is lost *at* COMMIT leaves the outcome open, and it is found out: see `_settle`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeAlias, TypeGuard

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from api import moves
from api.errors import OutcomeUnknown
from api.group import BROKEN, PATIENCE_S, Group, Waiting, disk_is_full, one_line
from api.moves import Accepted, Submission
from api.pipeline import pipelined_cursor
from api.tally import Tally

log = logging.getLogger("api.writer")

Rows: TypeAlias = Sequence[Waiting[Submission, Accepted]]
Answers: TypeAlias = Sequence[Accepted | Exception]
Submit: TypeAlias = Callable[[CursorWrapper, list[Submission]], Answers]
OpenCursor: TypeAlias = Callable[[], AbstractContextManager[CursorWrapper]]

#: What a row takes beside its payload, roughly.
ROW_BYTES = 500
#: How long the outcome of a lost COMMIT is looked for, and how often.
SETTLE_S = 10.0
SETTLE_EVERY_S = 0.2
UNKNOWN = "the database was lost while it committed; whether task {} was accepted will be known when it is back"


class Writer(Group[Submission, Accepted]):
    """Accepts tasks for callers on the event loop."""

    gather_share = 0.25

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tally: Tally,
        on_commit: Callable[[list[Accepted]], None],
        *,
        patience_s: float = PATIENCE_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        """`on_commit` is called on the loop with what a commit has newly accepted, before anybody is answered."""
        self._tally = tally
        self._on_commit = on_commit
        self._settle_s = settle_s
        self._at_commit = False
        super().__init__("writer", loop, patience_s=patience_s)

    def submit(self, submission: Submission) -> asyncio.Future[Accepted]:
        """Done when `submission` is committed, or told apart from an earlier one by its idempotency key.

        Raises:
            StoreUnavailable: it is not accepted, and never will be.
            OutcomeUnknown: the database was lost at the worst moment, and did not come back in time.
            TooMany: at once: too much waits to be written.
        """
        return self.ask(submission, ROW_BYTES + len(submission.payload))

    def _answer(self, asked: Rows, answers: Answers) -> None:
        if new := [answer for answer in answers if _is_new(answer)]:
            self._on_commit(new)
        super()._answer(asked, answers)

    # On the thread

    def _work(self, taken: list[Waiting[Submission, Accepted]]) -> Answers:
        try:
            try:
                return self._transact(taken, moves.submit, pipelined_cursor)
            except Exception as exc:
                if isinstance(exc, BROKEN) or len(taken) < 2:
                    raise
                log.warning("one of %d rows cannot be written: %r", len(taken), exc)
                return self._transact(taken, _one_by_one, connection.cursor)
        except BROKEN as exc:
            if not self._at_commit or disk_is_full(exc):
                raise
            log.warning("the database was lost while it committed %d rows: %s", len(taken), one_line(exc))
            return self._settle(taken)

    def _transact(self, taken: list[Waiting[Submission, Accepted]], submit: Submit, cursor_for: OpenCursor) -> Answers:
        """All of one batch in one transaction. Takes it first, unless this is another try."""
        self._at_commit = False
        try:
            with transaction.atomic():
                with cursor_for() as cursor:
                    if not taken:
                        taken.extend(self.take())
                    answers = submit(cursor, [waiting.item for waiting in taken])
                    self._count(taken, answers)
                    self._tally.flush(cursor)
                self._at_commit = True
        except Exception:
            self._tally.rolled_back()  # another try counts again what is new to it
            raise
        self._tally.committed()
        return answers

    def _count(self, taken: Rows, answers: Answers) -> None:
        moves_of = Counter(
            (waiting.item.owner, answer.state)
            for waiting, answer in zip(taken, answers, strict=True)
            if _is_new(answer)
        )
        for (owner, state), n in moves_of.items():
            self._tally.moved(owner, None, state, n)

    def _settle(self, taken: list[Waiting[Submission, Accepted]]) -> Answers:
        """The outcome of a COMMIT that nobody has confirmed: found out by submitting the same rows again.

        If the lost transaction is still open on the server's side, that waits for it to end; and rows that are
        there already come back as duplicates of themselves.
        """
        patience = time.monotonic() + self._settle_s
        while True:
            connection.close()
            try:
                return self._transact(taken, partial(moves.submit, again=True), pipelined_cursor)
            except BROKEN as exc:
                log.warning("the outcome of a commit is not known yet: %s", one_line(exc))
            if time.monotonic() > patience:
                return [OutcomeUnknown(UNKNOWN.format(waiting.item.id)) for waiting in taken]
            time.sleep(SETTLE_EVERY_S)


def _is_new(answer: Accepted | Exception) -> TypeGuard[Accepted]:
    return isinstance(answer, Accepted) and not (answer.duplicate or answer.conflict)


def _one_by_one(cursor: CursorWrapper, submissions: list[Submission]) -> list[Accepted | Exception]:
    """As `moves.submit`, in a savepoint for each row: who cannot be written costs the others nothing."""
    answers: list[Accepted | Exception] = []
    for submission in submissions:
        try:
            with transaction.atomic():
                answers += moves.submit(cursor, [submission])
        except BROKEN:
            raise
        except Exception as exc:
            log.exception("the row of task %s cannot be written", submission.id)
            answers.append(exc)
    return answers
