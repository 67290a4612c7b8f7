"""What the tests of the database layer share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from api import moves
from api.models import LOCAL_USER, new_id
from api.pipeline import pipelined_cursor
from everythingfaas.status import Event, Outcome, State

T = TypeVar("T")

NOW = 1_800_000_000.0


@contextmanager
def committed() -> Iterator[CursorWrapper]:
    """A cursor in a transaction that commits at the end, as writers and dispatchers have it."""
    with transaction.atomic(), pipelined_cursor() as cursor:
        yield cursor


def in_parallel(functions: Sequence[Callable[[], T]]) -> list[T]:
    """Run all at the same time, each on a thread and a connection of its own, and return what they return."""
    barrier = threading.Barrier(len(functions))
    outcomes: list[Any] = [None] * len(functions)

    def run(i: int) -> None:
        try:
            connection.ensure_connection()
            barrier.wait(10)
            outcomes[i] = functions[i]()
        except BaseException as error:  # noqa: BLE001 -- raised again below
            outcomes[i] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


class Workshop:
    """Makes tasks and brings them into any state, by the moves that lead there."""

    def __init__(self) -> None:
        self.owner: int = get_user_model().objects.get(username=LOCAL_USER).pk
        self.dispatcher = new_id()
        with committed() as cursor:
            self.function = moves.register(cursor, self.owner, "double", b"function", created=NOW)
            moves.register_dispatcher(cursor, self.dispatcher, "local", 4, "here", 1, lease_s=60)

    def another_owner(self) -> int:
        number: int = get_user_model().objects.create(username="another").pk
        return number

    def submission(self, **fields: Any) -> moves.Submission:
        defaults: dict[str, Any] = {
            "id": new_id(),
            "owner": self.owner,
            "function": self.function,
            "payload": b"arguments",
            "created": NOW,
        }
        return moves.Submission(**(defaults | fields))

    def submit(self, n: int = 1, **fields: Any) -> list[UUID]:
        with committed() as cursor:
            return [a.id for a in moves.submit(cursor, [self.submission(**fields) for _ in range(n)])]

    def claim(self, limit: int = 100, max_bytes: int = 1 << 30, queues: Sequence[int] = (1,)) -> list[moves.Claimed]:
        with committed() as cursor:
            return moves.claim(cursor, self.dispatcher, queues, limit, max_bytes, NOW)

    def running(self, **fields: Any) -> moves.Claimed:
        """A task that is given out, the only one that is queued."""
        self.submit(**fields)
        (claimed,) = self.claim()
        return claimed

    def task_in(self, state: State) -> UUID:
        """A new task in `state`."""
        if state in {State.WAITING, State.QUEUED}:
            (task,) = self.submit(run_after=NOW + 60 if state is State.WAITING else None, expires_at=NOW + 120)
            return task
        claimed = self.running()
        ends = {State.COMPLETED: Event.COMPLETE, State.FAILED: Event.FAIL, State.CANCELLED: Event.CANCEL}
        if state in ends:
            with committed() as cursor:
                moves.end(cursor, [ended(claimed, ends[state])])
        return claimed.task

    def row(self, task: UUID) -> dict[str, Any]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM api_task WHERE id = %s", [task])
            assert cursor.description is not None
            names = [column[0] for column in cursor.description]
            (values,) = cursor.fetchall()
        return dict(zip(names, values, strict=True))

    def state(self, task: UUID) -> State:
        return State(self.row(task)["state"])


def report(outcome: Outcome = Outcome.RETURNED, **fields: Any) -> moves.Report:
    return moves.Report(outcome, **({"ended": NOW + 3, "began": NOW + 2, "worker": "w1", "slot": 0} | fields))


def ended(claimed: Any, event: Event = Event.COMPLETE, **fields: Any) -> moves.Ended:
    defaults: dict[str, Any] = {
        "task": claimed.task,
        "attempt": claimed.attempt,
        "event": event,
        "result": event.value.encode(),
        "report": report(),
    }
    return moves.Ended(**(defaults | fields))


def released(claimed: Any, event: Event = Event.REQUEUE, **fields: Any) -> moves.Released:
    defaults: dict[str, Any] = {
        "task": claimed.task,
        "attempt": claimed.attempt,
        "event": event,
        "report": report(Outcome.LOST),
        "run_after": NOW + 60 if event is Event.POSTPONE else None,
    }
    return moves.Released(**(defaults | fields))


@pytest.fixture
def workshop(database: str) -> Workshop:
    return Workshop()


@pytest.fixture
def stopwatch() -> Callable[[str], Any]:
    """Prints how long a block took: for people who look, not for a machine to judge."""

    @contextmanager
    def measure(what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        print(f"{what}: {(time.perf_counter() - began) * 1e3:.1f} ms")

    return measure
