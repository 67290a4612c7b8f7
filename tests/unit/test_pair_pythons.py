"""Scheduler and workers of several Pythons: who runs what, and what becomes of what nobody can run."""

from __future__ import annotations

import pickle
import signal
from collections import Counter
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.policies import share_out
from dispatcher.store import Policy
from everythingfaas.pythons import Minor
from everythingfaas.status import Event, Outcome, State
from tests.unit.pair import Pair

OLD, NEW = (3, 11), (3, 12)


def running(pair: Pair) -> dict[Minor, list[str]]:
    return {worker.python: sorted(job.task for job in worker.running.values()) for worker in pair.workers}


def failure(pair: Pair, task: str) -> str:
    row = pair.store.tasks[task]
    assert row.state is State.FAILED, row
    return str(pickle.loads(row.result or b""))


def crash(pair: Pair, number: int = signal.SIGSEGV) -> None:
    """The function that runs kills its process."""
    pair.settle(seconds=0.5, finish=False)
    assert pair.workers[0].jobs
    pair.step_slot(pair.workers[0], Outcome.DIED, exit_signal=number)
    pair.settle(seconds=0.5, finish=False)


def test_each_worker_gets_what_it_can_run() -> None:
    pair = Pair(workers=2, slots=2, pythons=[OLD, NEW])
    old = [pair.submit(requirements="python=3.11") for _ in range(3)]
    new = [pair.submit(requirements="python=3.12") for _ in range(3)]
    pair.settle(seconds=0.5, finish=False)
    assert running(pair) == {OLD: old[:2], NEW: new[:2]}
    pair.settle(seconds=2)
    assert Counter(row.state for row in pair.store.tasks.values()) == {State.COMPLETED: 6}
    assert set(pair.begins.values()) == {1}


def test_what_nobody_can_run_stands_in_nobodys_way() -> None:
    pair = Pair(slots=1, pythons=[OLD])
    foreign = [pair.submit(requirements="python=3.12") for _ in range(50)]
    task = pair.submit(requirements="python=3.11")
    pair.settle(seconds=0.1)
    assert pair.store.tasks[task].state is State.COMPLETED
    assert {pair.store.tasks[t].state for t in foreign} == {State.QUEUED}
    assert {pair.store.tasks[t].attempt for t in foreign} == {0}


def test_what_any_may_run_leaves_room_for_what_only_one_may() -> None:
    pair = Pair(workers=2, slots=1, pythons=[OLD, NEW])
    pair.settle(seconds=0.5)
    either, only = pair.submit(), pair.submit(requirements="python=3.11")
    pair.settle(seconds=0.1, finish=False)
    assert running(pair) == {OLD: [only], NEW: [either]}


def test_a_full_worker_of_one_python_is_served_as_soon_as_it_has_room() -> None:
    pair = Pair(workers=2, slots=1, pythons=[OLD, NEW])
    old = [pair.submit(requirements="python=3.11") for _ in range(3)]
    pair.settle(seconds=0.1, finish=False)
    for n in range(3):  # nothing rings, and no time passes in which somebody would look
        assert running(pair) == {OLD: [old[n]], NEW: []}
        pair.step_slot(pair.workers[0])
        for _ in range(10):
            pair.step_to_dispatcher(pair.workers[0])
            pair.exchange_all()
            pair.step_to_worker(pair.workers[0])
    assert {pair.store.tasks[task].state for task in old} == {State.COMPLETED}


def test_a_new_workers_python_is_asked_for_at_once() -> None:
    pair = Pair(slots=1, pythons=[OLD])
    task = pair.submit(requirements="python=3.12")
    pair.settle(seconds=5)
    assert pair.store.tasks[task].state is State.QUEUED
    pair.start_worker(NEW)
    pair.settle(seconds=0.1)
    assert pair.store.tasks[task].state is State.COMPLETED


def test_what_no_connected_worker_can_run_fails_after_a_minute() -> None:
    pair = Pair(slots=1, pythons=[OLD])
    task = pair.submit(requirements="python=3.12,3.13", policy=Policy(max_attempts=1))
    pair.settle(seconds=58)
    assert pair.store.tasks[task].state is State.QUEUED
    later = pair.submit(requirements="python=3.12,3.13")
    pair.settle(seconds=5)
    said = failure(pair, task)
    assert "written by Python 3.12 or 3.13" in said
    assert "connected workers have 3.11" in said
    assert "start a worker with Python 3.12 or 3.13, or register the function again from Python 3.11" in said
    assert pair.store.tasks[task].history == [(Event.REJECT, 0)]
    assert pair.store.tasks[later].state is State.QUEUED, "its own minute is not over"
    pair.settle(seconds=60)
    assert pair.store.tasks[later].state is State.FAILED


def test_without_any_worker_a_task_waits() -> None:
    pair = Pair(workers=0)
    task = pair.submit(requirements="python=3.12")
    pair.settle(seconds=600)
    assert pair.store.tasks[task].state is State.QUEUED
    pair.start_worker(OLD)
    pair.settle(seconds=55)
    assert pair.store.tasks[task].state is State.QUEUED, "the time without workers does not count"
    pair.start_worker(NEW)
    pair.settle(seconds=1)
    assert pair.store.tasks[task].state is State.COMPLETED


def test_a_worker_that_comes_back_in_time_saves_what_waits_for_it() -> None:
    pair = Pair(workers=2, slots=1, pythons=[OLD, NEW])
    pair.settle(seconds=1)
    pair.kill_worker(1)
    task = pair.submit(requirements="python=3.12")
    pair.settle(seconds=40)
    pair.start_worker(NEW)
    pair.settle(seconds=1, finish=False)
    pair.kill_worker(1)
    pair.settle(seconds=40)
    assert pair.store.tasks[task].state is State.QUEUED, "the minute begins anew"


def test_requirements_that_nobody_understands_are_met_by_nobody() -> None:
    pair = Pair(slots=1)
    task = pair.submit(requirements="python=3.11;gpu=1")
    pair.settle(seconds=70)
    assert "understands the requirements 'python=3.11;gpu=1'" in failure(pair, task)


def test_a_crash_in_the_first_run_on_a_python_is_not_tried_again() -> None:
    for number, requirements in product(
        (signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGBUS), ("python=3.11,3.12", "python=unknown")
    ):
        pair = Pair(slots=1)
        task = pair.submit(requirements=requirements)
        crash(pair, number)
        assert "probably written by another Python than the worker's 3.11" in failure(pair, task)
        assert pair.store.tasks[task].starts == 1


def test_other_deaths_follow_the_policy() -> None:
    for number, requirements in (
        (signal.SIGKILL, "python=3.11,3.12"),
        (signal.SIGSEGV, "python=3.11"),
        (signal.SIGSEGV, ""),
    ):
        pair = Pair(slots=1)
        task = pair.submit(requirements=requirements)
        crash(pair, number)
        assert pair.store.tasks[task].state is State.RUNNING
        assert pair.store.tasks[task].attempt == 2


def test_a_function_that_has_run_on_a_python_may_crash_there_like_any_other() -> None:
    pair = Pair(slots=1)
    pair.submit(requirements="python=3.11,3.12")
    pair.settle(seconds=1)
    task = pair.submit(requirements="python=3.11,3.12")
    crash(pair)
    assert pair.store.tasks[task].attempt == 2
    other = Pair(slots=1, pythons=[NEW])
    task = other.submit(requirements="python=3.11,3.12")
    crash(other)
    assert "worker's 3.12" in failure(other, task)


PYTHONS = [(3, n) for n in range(10, 13)]
ABLE = st.frozensets(st.sampled_from(PYTHONS), min_size=1)


@given(st.lists(ABLE, max_size=7), st.dictionaries(st.sampled_from(PYTHONS), st.integers(0, 3)))
def test_a_share_gives_all_places_away_and_to_the_first(able: list[frozenset[Minor]], room: dict[Minor, int]) -> None:
    order = [frozenset(pythons & room.keys()) for pythons in able]
    share = share_out(order, room)
    taken: list[frozenset[Minor]] = []
    for pythons in order:
        fits = bool(pythons) and _placed([*taken, pythons], room)
        if fits:
            taken.append(pythons)
    assert share.given == Counter(taken)
    left = Counter(order) - Counter(taken)
    assert share.left == frozenset().union(*left)


def _placed(tasks: list[frozenset[Minor]], room: dict[Minor, int]) -> bool:
    """Whether there is a place for each, found by trying."""
    if not tasks:
        return True
    return any(_placed(tasks[1:], room | {python: room[python] - 1}) for python in tasks[0] if room.get(python, 0) > 0)
