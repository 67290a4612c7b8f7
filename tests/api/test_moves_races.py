"""Several connections at once: whatever the order, each task moves as if they had come one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from uuid import UUID

import pytest
from django.db import OperationalError, connection

from api import moves
from api.models import Attempt, Result, Task, new_id
from everythingfaas.status import Event, State

from .conftest import NOW, Workshop, committed, ended, in_parallel, released


def claim_all(limit: int, queues: tuple[int, ...] = (1,)) -> list[moves.Claimed]:
    """What one dispatcher claims until there is nothing left."""
    dispatcher, claimed = new_id(), []
    while True:
        with committed() as cursor:
            batch = moves.claim(cursor, dispatcher, queues, limit, 1 << 20, NOW)
        if not batch:
            return claimed
        claimed += batch


@pytest.mark.parametrize("limits", [(1, 1, 1, 1), (7, 13, 5, 64), (500, 500)], ids=str)
def test_claimers_share_everything_out(workshop: Workshop, limits: tuple[int, ...]) -> None:
    with committed() as cursor:
        other = moves.queue_for(cursor, "other")
    tasks = workshop.submit(150) + workshop.submit(50, priority=1) + workshop.submit(50, queue=other)

    shares = in_parallel([partial(claim_all, limit, (1, other)) for limit in limits])

    # On PostgreSQL a claimer may find nothing because the others hold all that is left; then they get it.
    claimed = [c for share in shares for c in share]
    assert Counter(c.task for c in claimed) == Counter(tasks)
    assert {c.attempt for c in claimed} == {1}


def test_a_task_is_claimed_or_withdrawn(workshop: Workshop) -> None:
    tasks = workshop.submit(200)

    def withdraw() -> list[UUID]:
        withdrawn = []
        for i in range(0, len(tasks), 10):
            with committed() as cursor:
                withdrawn += [c.task for c in moves.withdraw(cursor, reversed(tasks[i : i + 10]), NOW)]
        return withdrawn

    claimed, withdrawn = in_parallel([lambda: [c.task for c in claim_all(3)], withdraw])

    assert sorted(claimed + withdrawn) == tasks
    assert Result.objects.count() == len(withdrawn)
    states = dict(Task.objects.values_list("id", "state"))
    assert {task for task in tasks if states[task] == State.CANCELLED} == set(withdrawn)


def test_of_two_ends_one_counts(workshop: Workshop) -> None:
    workshop.submit(100)
    claimed = workshop.claim()

    def end(event: Event, size: int) -> list[moves.Closed]:
        closed = []
        for i in range(0, len(claimed), size):
            with committed() as cursor:
                # Backwards, so that without an order of their own the two would wait for each other.
                closed += moves.end(cursor, [ended(c, event) for c in reversed(claimed[i : i + size])])
        return closed

    shares = in_parallel([partial(end, Event.COMPLETE, 7), partial(end, Event.FAIL, 9), partial(end, Event.CANCEL, 11)])

    closed = [c for share in shares for c in share]
    assert Counter(c.task for c in closed) == Counter(c.task for c in claimed)
    stored = {result.task_id: bytes(result.data) for result in Result.objects.all()}
    names = {State.COMPLETED: b"complete", State.FAILED: b"fail", State.CANCELLED: b"cancel"}
    assert stored == {c.task: names[c.state] for c in closed}
    assert Attempt.objects.count() == len(claimed)


def test_a_request_to_cancel_is_never_lost(workshop: Workshop) -> None:
    """While attempts come back and are given out again, each task is withdrawn, or marked and then ended."""
    tasks = workshop.submit(60)

    def bounce() -> None:
        for _ in range(15):
            claimed = workshop.claim()
            with committed() as cursor:
                moves.release(cursor, [released(c) for c in claimed], NOW)

    def cancel() -> list[UUID]:
        touched = []
        for i in range(0, len(tasks), 4):
            with committed() as cursor:
                closed, marked = moves.cancel(cursor, tasks[i : i + 4], NOW)
                touched += [c.task for c in closed] + marked
        return touched

    _, touched = in_parallel([bounce, cancel])

    assert sorted(touched) == tasks
    with committed() as cursor:
        moves.release(cursor, [released(h) for h in moves.held(cursor, workshop.dispatcher)], NOW)
    assert set(Task.objects.values_list("state", flat=True)) == {State.CANCELLED}
    assert Result.objects.count() == len(tasks)


def test_of_an_end_and_a_release_one_counts(workshop: Workshop) -> None:
    workshop.submit(100)
    claimed = workshop.claim()

    def each(move: Callable[[moves.Claimed], int]) -> int:
        return sum(move(c) for c in claimed)

    def end(c: moves.Claimed) -> int:
        with committed() as cursor:
            return len(moves.end(cursor, [ended(c)]))

    def release(c: moves.Claimed) -> int:
        with committed() as cursor:
            return len(moves.release(cursor, [released(c)], NOW)[0])

    completed, requeued = in_parallel([partial(each, end), partial(each, release)])

    assert completed + requeued == len(claimed)
    assert Task.objects.filter(state=State.COMPLETED).count() == completed
    assert Task.objects.filter(state=State.QUEUED, starts=1).count() == requeued
    assert Attempt.objects.count() == len(claimed)


def test_of_equal_keys_one_is_stored(workshop: Workshop) -> None:
    keys = [f"key {i}" for i in range(40)]

    def submit(step: int) -> dict[str, moves.Accepted]:
        accepted = {}
        for i in range(0, len(keys), 8):
            some = keys[i : i + 8][::step]
            batch = [workshop.submission(idempotency_key=key, body_hash="h") for key in some]
            with committed() as cursor:
                accepted.update(zip(some, moves.submit(cursor, batch), strict=True))
        return accepted

    answers = in_parallel([partial(submit, step) for step in (1, -1, 1, -1)])

    for key in keys:
        given = [answer[key] for answer in answers]
        assert len({a.id for a in given}) == 1
        assert sorted(a.duplicate for a in given) == [False, True, True, True]
    assert sorted(Task.objects.values_list("id", flat=True)) == sorted({a[key].id for a in answers for key in keys})
    assert len(claim_all(100)) == len(keys)


def test_what_is_due_or_expired_moves_once(workshop: Workshop) -> None:
    workshop.submit(100, run_after=NOW + 1, expires_at=NOW + 2)

    def promote() -> int:
        with committed() as cursor:
            return len(moves.promote(cursor, NOW + 3, 30))

    def reject() -> int:
        with committed() as cursor:
            return len(moves.reject_expired(cursor, NOW + 3, 30))

    in_parallel([promote, reject, promote, reject])
    while reject():
        pass

    assert Result.objects.count() == 100
    assert set(Task.objects.values_list("state", flat=True)) == {State.FAILED}


def test_a_queue_is_made_once(workshop: Workshop) -> None:
    def make() -> int:
        with committed() as cursor:
            return moves.queue_for(cursor, "python=3.13")

    assert len(set(in_parallel([make] * 4))) == 1


def test_equal_functions_come_in_at_once(workshop: Workshop) -> None:
    def register() -> UUID:
        with committed() as cursor:
            return moves.register(cursor, workshop.owner, "f", b"the same", created=NOW)

    assert len(set(in_parallel([register] * 4))) == 4


def test_who_is_fenced_cannot_renew_until_it_is_done(workshop: Workshop) -> None:
    """The one who recovers, and the one who comes back just then: the second sees what the first has done."""
    dispatcher = new_id()
    with committed() as cursor:
        moves.register_dispatcher(cursor, dispatcher, "push", 1, "there", 1, lease_s=-1)
        workshop.submit(5)
        moves.claim(cursor, dispatcher, [1], 5, 1 << 20, NOW)

    def recover() -> bool:
        with committed() as cursor:
            if fenced := moves.fence_dispatcher(cursor, dispatcher):
                held = moves.held(cursor, dispatcher)
                moves.release(cursor, [released(h, report=None, unstarted=True) for h in held], NOW)
            return fenced

    def come_back() -> bool:
        with committed() as cursor:
            return moves.renew_lease(cursor, dispatcher, 1, 60, "{}")

    fenced, renewed = in_parallel([recover, come_back])
    assert fenced is not renewed
    assert Task.objects.filter(state=State.QUEUED).count() == (5 if fenced else 0)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_writer_that_knows_no_lock_of_ours_is_waited_for_and_then_given_up(workshop: Workshop) -> None:
    import sqlite3

    connection.ensure_connection()
    stranger = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    connection.connection.execute("PRAGMA busy_timeout = 50")
    try:
        with pytest.raises(OperationalError, match="locked"), committed():
            pass
    finally:
        stranger.execute("ROLLBACK")
        stranger.close()
    workshop.submit()
