"""What people do to many tasks at once: from a thread that may wait, in a transaction of its own.

For the admin. Single tasks and programs go through the event loop, where everything is grouped.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from api import mirror, moves
from api.models import ANY_QUEUE, Task, new_id
from api.redis_commands import Command, RedisUnavailable
from api.redis_sync import SyncLink
from api.tally import Tally

#: So many tasks are run again in one transaction: their arguments are read for it.
AGAIN_BATCH = 50

#: One writer of counters for all threads, so one of them at a time.
_lock = threading.Lock()
_tally: Tally | None = None


class Cancelled(NamedTuple):
    ended: int  #: had not begun, and never will
    asked: int  #: run, and are being ended


def cancel(ids: Collection[UUID]) -> Cancelled:
    """Calls tasks off. Those that have ended are left alone."""
    with _counted() as (cursor, tally):
        closed, marked = moves.cancel(cursor, ids, time.time())
        for task in closed:
            tally.moved(task.owner, task.was, task.state)
            tally.finished(task.owner, task.state, None, None, task.finished)
    _tell([*mirror.announce(task.task for task in closed), *mirror.ring(mirror.CANCEL)])
    return Cancelled(len(closed), len(marked))


def run_again(ids: Sequence[UUID]) -> list[UUID]:
    """Submits new tasks like these, with the same arguments and policy. Returns their ids."""
    made: list[UUID] = []
    for at in range(0, len(ids), AGAIN_BATCH):
        former = Task.objects.select_related("function", "payload").defer("function__source", "error")
        again = [_like(task) for task in former.filter(id__in=ids[at : at + AGAIN_BATCH])]
        with _counted() as (cursor, tally):
            accepted = moves.submit(cursor, again)
            for submission, task in zip(again, accepted, strict=True):
                tally.moved(submission.owner, None, task.state)
        made += [task.id for task in accepted]
        _tell([*mirror.ring(), *mirror.queued([task.id for task in accepted])])
    return made


def _like(task: Task) -> moves.Submission:
    return moves.Submission(
        id=new_id(),
        owner=task.owner_id,
        function=task.function_id,
        payload=bytes(task.payload.data),
        created=time.time(),
        queue=task.function.queue_id or ANY_QUEUE,
        priority=task.priority,
        deadline_s=task.deadline_s,
        at_most_once=task.at_most_once,
        max_attempts=task.max_attempts,
        policy=task.policy,
        retry_of=task.id,
        codec=task.payload.codec,
    )


@contextmanager
def _counted() -> Iterator[tuple[CursorWrapper, Tally]]:
    """A transaction, and the counters that are written with it."""
    global _tally
    with _lock:
        if _tally is None:
            _tally = Tally(f"bulk:{socket.gethostname()}:{settings.FAAS.port}"[:64])
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                yield cursor, _tally
                _tally.flush(cursor)
        except BaseException:
            _tally.rolled_back()
            raise
        _tally.committed()


def _tell(commands: list[Command]) -> None:
    """Tells whoever waits, if Redis is there; else they find out by themselves, within a second."""
    link = SyncLink(settings.FAAS.redis_address)
    try:
        link.call(commands)
    except RedisUnavailable:
        return
    finally:
        link.close()
