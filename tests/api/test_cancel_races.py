"""A cancel against everything else that may happen to a task at the same time, on both databases."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from api import moves
from api.models import Result, Task, new_id
from everythingfaas.status import Event, State
from tests.api.conftest import NOW, Workshop, committed, ended, in_parallel, released

N = 40


def cancel_each(tasks: list[UUID]) -> tuple[set[UUID], set[UUID]]:
    """What has ended by it, and what was marked."""
    closed: set[UUID] = set()
    marked: set[UUID] = set()
    for task in tasks:
        with committed() as cursor:
            now_closed, now_marked = moves.cancel(cursor, [task], NOW)
        closed |= {item.task for item in now_closed}
        marked |= set(now_marked)
    return closed, marked


def test_of_a_claim_and_a_cancel_one_is_first_and_both_know(workshop: Workshop) -> None:
    tasks = workshop.submit(N)

    def claim_all() -> set[UUID]:
        claimed: set[UUID] = set()
        for _ in range(N):
            claimed |= {item.task for item in workshop.claim(limit=3)}
        return claimed

    claimed, (closed, marked) = in_parallel([claim_all, partial(cancel_each, tasks[::-1])])  # they meet half way

    assert closed | marked == set(tasks)
    assert claimed == marked
    with committed() as cursor:
        assert {task for task, _ in moves.cancel_requests(cursor, workshop.dispatcher)} == marked


def test_of_an_end_and_a_cancel_the_first_counts(workshop: Workshop) -> None:
    workshop.submit(N)
    claimed = workshop.claim()

    def end_all() -> set[UUID]:
        completed = set()
        for item in claimed:
            with committed() as cursor:
                completed |= {task.task for task in moves.end(cursor, [ended(item)])}
        return completed

    completed, (closed, marked) = in_parallel([end_all, partial(cancel_each, [item.task for item in claimed][::-1])])

    # Not one was killed before its completion, so that came first, whether or not a cancel was asked for meanwhile.
    assert len(completed) == N
    assert not closed
    assert set(Task.objects.values_list("state", flat=True)) == {State.COMPLETED}
    assert set(Task.objects.exclude(cancel_requested_at=None).values_list("id", flat=True)) == marked


def test_a_cancel_between_two_attempts_is_never_too_early_or_too_late(workshop: Workshop) -> None:
    """The task waits to be retried, is promoted, claimed and released, over and over."""
    tasks = workshop.submit(N)

    def go_round() -> None:
        for _ in range(12):
            claimed = workshop.claim()
            with committed() as cursor:
                moves.release(cursor, [released(item, Event.POSTPONE, run_after=NOW - 1) for item in claimed], NOW)
                moves.promote(cursor, NOW, 1000)

    _, (closed, marked) = in_parallel([go_round, partial(cancel_each, tasks)])

    assert closed | marked == set(tasks)
    with committed() as cursor:
        moves.release(cursor, [released(item) for item in moves.held(cursor, workshop.dispatcher)], NOW)
    assert set(Task.objects.values_list("state", flat=True)) == {State.CANCELLED}
    assert Result.objects.count() == N


def test_an_adopted_attempt_is_still_to_be_cancelled(workshop: Workshop) -> None:
    """Another dispatcher takes over what a lost one ran, while all of it is called off."""
    tasks = workshop.submit(N)
    claimed = workshop.claim()
    heir = new_id()
    with committed() as cursor:
        moves.register_dispatcher(cursor, heir, "push", 4, "there", 2, lease_s=60)
        moves.forget_dispatcher(cursor, workshop.dispatcher, 1)  # its lease ends, as it holds something

    def adopt_all() -> None:
        for item in claimed:
            with committed() as cursor:
                assert len(moves.adopt(cursor, heir, [(item.task, item.attempt)])) == 1

    _, (closed, marked) = in_parallel([adopt_all, partial(cancel_each, tasks[::-1])])

    assert (closed, marked) == (set(), set(tasks))
    with committed() as cursor:
        assert {task for task, _ in moves.cancel_requests(cursor, heir)} == set(tasks)
        assert all(item.cancel_requested for item in moves.held(cursor, heir))


def test_two_cancels_are_one(workshop: Workshop) -> None:
    queued = workshop.submit(N)
    one, other = in_parallel([partial(cancel_each, queued), partial(cancel_each, queued)])
    assert one[0] | other[0] == set(queued)
    assert not one[0] & other[0]
    assert not one[1] | other[1]
    assert Result.objects.count() == N


def test_a_task_that_expires_while_it_is_cancelled_ends_once(workshop: Workshop) -> None:
    tasks = workshop.submit(N, expires_at=NOW - 1)

    def expire() -> set[UUID]:
        rejected: set[UUID] = set()
        for _ in range(N):
            with committed() as cursor:
                rejected |= {item.task for item in moves.reject_expired(cursor, NOW, 2)}
        return rejected

    rejected, (closed, _) = in_parallel([expire, partial(cancel_each, tasks[::-1])])
    assert rejected | closed == set(tasks)
    assert not rejected & closed
