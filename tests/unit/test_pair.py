"""Scheduler and worker session as a pair: the rules of delivery, whatever is lost on the way."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dispatcher.scheduler import Scheduler
from dispatcher.store import Policy, Registration
from everythingfaas.status import Event, Outcome, State
from everythingfaas.wire.messages import Attempt, Function, Refuse, Run
from tests.unit.pair import Pair
from worker.events import Output, SlotDone
from worker.session import FunctionCache


def states(pair: Pair) -> Counter[State]:
    return Counter(task.state for task in pair.store.tasks.values())


def test_a_task_goes_through() -> None:
    pair = Pair()
    task = pair.submit()
    pair.settle(seconds=1)
    row = pair.store.tasks[task]
    assert (row.state, row.attempt, row.starts, row.result) == (State.COMPLETED, 1, 1, b"t0/1")
    assert [event for event, _ in row.history] == [Event.CLAIM, Event.COMPLETE]


def test_no_more_is_given_out_than_slots_when_tasks_are_long() -> None:
    pair = Pair(slots=2)
    for _ in range(5):
        pair.submit()
    pair.settle(seconds=1, finish=False)
    assert states(pair) == {State.RUNNING: 2, State.QUEUED: 3}


def test_short_tasks_are_sent_ahead() -> None:
    pair = Pair(slots=2)
    for _ in range(200):
        pair.submit()
    pair.settle(seconds=2)
    for _ in range(50):
        pair.submit()
    pair.settle(seconds=0.1, finish=False)
    assert states(pair)[State.RUNNING] > 2
    assert len(pair.workers[0].running) == 2


def test_what_was_sent_ahead_goes_back_when_it_waits_behind_a_long_task() -> None:
    pair = Pair(slots=2)
    for _ in range(200):
        pair.submit()
    pair.settle(seconds=2)
    for _ in range(50):
        pair.submit()
    pair.settle(seconds=1, finish=False)  # suddenly they are long
    assert states(pair) == {State.COMPLETED: 200, State.RUNNING: 2, State.QUEUED: 48}
    other = pair.start_worker()
    pair.settle(seconds=0.1, finish=False)
    assert len(other.running) == 2
    pair.settle(seconds=2)
    assert states(pair) == {State.COMPLETED: 250}
    assert {task.starts for task in pair.store.tasks.values()} == {1}


def test_a_lost_worker_costs_what_was_begun_one_start_and_the_rest_nothing() -> None:
    pair = Pair(slots=1)
    for _ in range(100):
        pair.submit()
    pair.settle(seconds=2)
    first, second = pair.submit(), pair.submit()
    pair.settle(seconds=0.5, finish=False)
    pair.kill_worker(0)
    pair.settle(seconds=6)
    assert states(pair)[State.QUEUED] == 2
    pair.start_worker()
    pair.settle(seconds=2)
    assert pair.store.tasks[first].starts == 2
    assert pair.store.tasks[first].deaths == 1
    assert pair.store.tasks[second].starts == 1
    assert pair.store.tasks[second].deaths == 0
    assert states(pair) == {State.COMPLETED: 102}


def test_a_task_that_may_start_once_fails_when_its_worker_is_lost() -> None:
    pair = Pair(slots=1)
    task = pair.submit(policy=Policy(at_most_once=True))
    pair.settle(seconds=0.5, finish=False)
    pair.kill_worker(0)
    pair.start_worker()
    pair.settle(seconds=10)
    row = pair.store.tasks[task]
    assert (row.state, row.starts, sum(pair.begins.values())) == (State.FAILED, 1, 1)
    assert "worker lost" in str(pickle.loads(row.result or b""))


def test_tasks_that_may_start_once_are_never_sent_ahead() -> None:
    pair = Pair(slots=2)
    for _ in range(100):
        pair.submit()
    pair.settle(seconds=2)
    for _ in range(10):
        pair.submit(policy=Policy(at_most_once=True))
    pair.settle(seconds=0.5, finish=False)
    assert states(pair)[State.RUNNING] == 2
    pair.settle(seconds=2)
    assert states(pair) == {State.COMPLETED: 110}


def test_poison_fails_after_three_deaths_whatever_its_policy() -> None:
    pair = Pair(slots=1)
    task = pair.submit(policy=Policy(max_attempts=100))
    for _ in range(5):
        pair.settle(seconds=0.5, finish=False)
        pair.step_slot(pair.workers[0], Outcome.DIED)
    pair.settle(seconds=1)
    row = pair.store.tasks[task]
    assert (row.state, row.deaths, sum(pair.begins.values())) == (State.FAILED, 3, 3)
    assert "exit code 3" in str(pickle.loads(row.result or b""))


def test_a_begin_that_was_told_counts_as_a_start() -> None:
    pair = Pair(slots=1)
    task = pair.submit(policy=Policy(max_attempts=1))
    pair.settle(seconds=1, finish=False)
    pair.step_slot(pair.workers[0], Outcome.DIED)
    pair.settle(seconds=2)
    row = pair.store.tasks[task]
    assert (row.state, row.starts, sum(pair.begins.values())) == (State.FAILED, 1, 1)


def test_a_worker_is_told_to_kill_what_is_no_longer_its_own() -> None:
    pair = Pair(slots=1)
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    pair.store.tasks[task].attempt += 1  # somebody else has it by now
    pair.start_dispatcher()
    pair.settle(seconds=3, finish=False)
    assert [job.attempt for job in pair.workers[0].running.values()] != [1]


def test_after_a_death_the_retry_gets_a_new_process() -> None:
    pair = Pair(slots=1)
    pair.submit()
    pair.settle(seconds=0.5, finish=False)
    assert not pair.workers[0].running[0].fresh
    pair.step_slot(pair.workers[0], Outcome.DIED)
    pair.settle(seconds=0.5, finish=False)
    assert pair.workers[0].running[0].fresh


def test_a_deadline_kills_and_is_not_tried_again() -> None:
    pair = Pair(task_deadline_s=2.0)
    task = pair.submit()
    pair.settle(seconds=3, finish=False)
    row = pair.store.tasks[task]
    assert (row.state, row.starts) == (State.FAILED, 1)
    assert "exceeded deadline of 2 s" in str(pickle.loads(row.result or b""))
    assert not pair.workers[0].jobs


def test_a_function_that_raised_is_retried_only_if_asked() -> None:
    pair = Pair(slots=1)
    once, thrice = pair.submit(), pair.submit(policy=Policy(retries=2, backoff_s=0.1))
    for _ in range(6):
        pair.settle(seconds=2, finish=False)
        pair.step_slot(pair.workers[0], Outcome.RAISED)
    pair.settle(seconds=1)
    assert [pair.store.tasks[task].failures for task in (once, thrice)] == [1, 3]
    assert states(pair) == {State.FAILED: 2}


def test_a_running_task_is_cancelled_by_killing_it() -> None:
    pair = Pair()
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    pair.store.cancel(task)
    pair.settle(seconds=2, finish=False)
    assert pair.store.tasks[task].state is State.CANCELLED
    assert not pair.workers[0].jobs


def test_a_completion_that_is_first_wins_over_a_cancel() -> None:
    pair = Pair()
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    pair.store.cancel(task)
    pair.step_slot(pair.workers[0])
    pair.settle(seconds=2)
    assert pair.store.tasks[task].state is State.COMPLETED


def test_a_ring_tells_of_a_cancel_before_the_next_look() -> None:
    pair = Pair()
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    pair.store.cancel(task)
    before = pair.now
    pair.scheduler.look()
    pair.exchange_all()
    while pair.workers[0].inbox or pair.workers[0].outbox:
        pair.step_to_worker(pair.workers[0])
        pair.step_to_dispatcher(pair.workers[0])
    pair.exchange_all()
    assert (pair.store.tasks[task].state, pair.now) == (State.CANCELLED, before)


def test_a_retry_of_what_is_to_be_cancelled_is_none() -> None:
    """The worker, or the dispatcher, is lost before anybody has told it of the cancel."""
    for lose in (lambda pair: pair.kill_worker(0), lambda pair: pair.start_dispatcher()):
        pair = Pair(slots=1)
        task = pair.submit()
        pair.settle(seconds=0.5, finish=False)
        pair.store.cancel(task)
        lose(pair)
        pair.start_worker()
        pair.settle(seconds=400, finish=False)
        assert pair.store.tasks[task].state is State.CANCELLED
        assert pair.begins == {(task, 1): 1}


def test_a_worker_that_is_lost_while_it_kills_has_cancelled() -> None:
    pair = Pair(slots=1)
    task = pair.submit(policy=Policy(max_attempts=1))
    pair.settle(seconds=0.5, finish=False)
    pair.store.cancel(task)
    pair.step_time(1.0)
    pair.exchange_all()  # the kill is on its way, and never arrives
    pair.kill_worker(0)
    pair.start_worker()
    pair.settle(seconds=20)
    assert pair.store.tasks[task].state is State.CANCELLED


def test_a_new_dispatcher_knows_what_is_to_be_cancelled() -> None:
    """Even where the loss of its last attempt would have made the task fail."""
    pair = Pair(slots=1)
    task = pair.submit(policy=Policy(max_attempts=1))
    pair.settle(seconds=0.5, finish=False)
    pair.store.cancel(task)
    pair.kill_worker(0)
    pair.start_dispatcher()
    pair.settle(seconds=20)
    assert pair.store.tasks[task].state is State.CANCELLED


def test_a_result_is_kept_until_its_commit_is_acknowledged() -> None:
    pair = Pair(slots=1)
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    worker = pair.workers[0]
    pair.step_slot(worker)
    worker.outbox.clear()  # lost on the way
    pair.settle(seconds=4)
    assert pair.store.tasks[task].state is State.COMPLETED
    assert not worker.session._held


def test_an_old_hello_that_comes_once_more_kills_nothing() -> None:
    """To a dispatcher that has started anew, which takes it for the worker's latest word."""
    pair = Pair(slots=1)
    (worker,) = pair.workers
    hello = worker.outbox[0]
    pair.settle(seconds=0.5)
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    pair.start_dispatcher()
    worker.outbox.insert(0, hello)
    pair.settle(seconds=20, finish=False)
    assert pair.begins == {(task, 1): 1}
    assert worker.jobs
    pair.settle(seconds=2)
    row = pair.store.tasks[task]
    assert (row.state, row.attempt, row.deaths) == (State.COMPLETED, 1, 0)


def test_a_worker_without_a_dispatcher_does_not_spin() -> None:
    """Whatever waits to be sent, or given back, until there is one."""
    pair = Pair(slots=1)
    for _ in range(100):
        pair.submit()
    pair.settle(seconds=2)
    for _ in range(20):
        pair.submit()
    pair.exchange_all()
    (worker,) = pair.workers
    while worker.inbox:
        pair.step_to_worker(worker)
    pair._perform(worker, worker.session.receive(Refuse("unknown worker", again=True), now=pair.now))
    pair.step_slot(worker)
    assert worker.session._queue
    assert worker.session._unsent
    for _ in range(20):
        due = worker.session.next_deadline()
        assert due > pair.now
        pair.now = due
        pair._perform(worker, worker.session.expire(now=pair.now))
        pair._flush(worker)
    assert not worker.session.is_registered


def test_a_dispatcher_killed_during_a_task_finds_it_again() -> None:
    pair = Pair(slots=1)
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    pair.start_dispatcher()
    pair.settle(seconds=3, finish=False)
    assert pair.begins == {(task, 1): 1}
    pair.settle(seconds=2)
    row = pair.store.tasks[task]
    assert (row.state, row.attempt, row.starts) == (State.COMPLETED, 1, 1)


def test_a_restored_database_kills_what_workers_hold() -> None:
    pair = Pair(slots=1)
    pair.submit()
    pair.settle(seconds=0.5, finish=False)
    pair.store.data.generation += 1
    pair.start_dispatcher()
    pair.settle(seconds=1, finish=False)
    assert pair.store.data.generation == pair.workers[0].session._generation
    pair.settle(seconds=10)
    assert states(pair) == {State.COMPLETED: 1}


def test_a_worker_of_another_protocol_is_refused_with_a_reason() -> None:
    pair = Pair(workers=0)
    worker = pair.start_worker()
    hello = worker.outbox.pop()
    pair._send(pair.scheduler.receive(worker.peer, type(hello)(99, *_fields(hello)[1:]), now=pair.now))
    pair.step_to_worker(worker)
    assert worker.stopped == "this dispatcher speaks protocol 1, you speak 99"


def test_an_unknown_worker_is_told_to_register_again() -> None:
    pair = Pair(slots=1)
    pair.settle(seconds=1)
    pair.start_dispatcher()
    pair.settle(seconds=2)
    assert len(pair.scheduler.workers) == 1


def test_a_missing_function_fails_its_tasks() -> None:
    pair = Pair()
    task = pair.submit(function="nowhere")
    pair.settle(seconds=2)
    assert pair.store.tasks[task].state is State.FAILED
    assert "not in the store" in str(pickle.loads(pair.store.tasks[task].result or b""))


def test_a_suspended_laptop_loses_nobody() -> None:
    pair = Pair(slots=1)
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    pair.now += 3600.0
    pair.settle(seconds=5, finish=False)
    assert pair.begins == {(task, 1): 1}
    assert len(pair.scheduler.workers) == 1


def test_draining_gives_back_what_has_not_begun() -> None:
    pair = Pair(slots=1)
    for _ in range(100):
        pair.submit()
    pair.settle(seconds=2)
    for _ in range(5):
        pair.submit()
    pair.settle(seconds=0.2, finish=False)
    worker = pair.workers[0]
    assert not pair.scheduler.is_being_left
    pair._perform(worker, worker.session.drain(now=pair.now))
    pair.settle(seconds=0.2, finish=False)
    assert pair.scheduler.is_being_left
    pair.settle(seconds=1)
    assert not pair.scheduler.is_being_left
    assert worker.stopped == "drained"
    assert states(pair) == {State.COMPLETED: 101, State.QUEUED: 4}


STEPS = st.lists(
    st.tuples(st.sampled_from("sssddddwwwwxxxffftttlkKDcCeu"), st.integers(0, 7)), min_size=5, max_size=120
)


OLD, NEW = (3, 11), (3, 12)
#: What the tasks of the test below require, in turn.
MIXED = ("", "python=3.11", "python=3.11,3.12", "python=3.12", "python=unknown", "", "python=3.11", "python=3.12")


@pytest.mark.parametrize("pulls", [False, True], ids=["push", "pull"])
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, requirements=st.sampled_from([("",), MIXED]))
def test_whatever_is_lost_every_task_ends_once(
    pulls: bool, steps: list[tuple[str, int]], requirements: tuple[str, ...]
) -> None:
    pair = Pair(workers=2, slots=2, pulls=pulls, pythons=[OLD] if len(requirements) == 1 else [OLD, NEW])
    policies = [Policy(), Policy(at_most_once=True), Policy(retries=1, backoff_s=0.1), Policy(max_attempts=1)]
    results: dict[str, bytes] = {}
    for what, n in steps:
        _one_step(pair, what, n, policies, requirements)
        _check(pair, results)
    for python in {OLD, NEW} - {worker.python for worker in pair.workers}:
        pair.start_worker(python)
    pair.settle(seconds=400, until_over=True)
    _check(pair, results)
    assert all(state.is_terminal for state in states(pair)), states(pair)
    assert not pair.scheduler._assignments
    assert not any(worker.session._held for worker in pair.workers)


def test_a_pulling_worker_gets_nothing_that_it_has_not_asked_for() -> None:
    pair = Pair(slots=2, pulls=True)
    pair.settle(seconds=1)
    (worker,) = pair.scheduler.workers
    assert worker.credit
    first = pair.submit()
    pair.exchange_all()
    assert worker.credit == 0  # the question is answered, and the next one on its way
    second = pair.submit()
    pair.exchange_all()
    assert [pair.store.tasks[task].state for task in (first, second)] == [State.RUNNING, State.QUEUED]
    pair.settle(seconds=1)
    assert states(pair) == {State.COMPLETED: 2}


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_a_lost_question_or_answer_is_noticed_by_heartbeats(lost: str) -> None:
    pair = Pair(slots=1, pulls=True)
    worker = pair.workers[0]
    pair.settle(seconds=0.1)
    if lost == "question":
        pair.submit()
        pair.exchange_all()
        pair.step_to_worker(worker)
        worker.outbox.clear()
    else:
        pair.submit()
        pair.exchange_all()
        worker.inbox.clear()
    pair.settle(seconds=6)
    pair.submit()
    pair.settle(seconds=4)
    assert states(pair) == {State.COMPLETED: 2}


def test_a_worker_that_pulls_is_refused_by_a_dispatcher_that_pushes() -> None:
    pair = Pair(workers=0)
    pair.pulls = True
    worker = pair.start_worker()
    pair.step_to_dispatcher(worker)
    pair.step_to_worker(worker)
    assert worker.stopped == "this dispatcher serves push workers; start a push worker, not a pull one"


def test_a_worker_on_a_new_connection_is_the_same_worker() -> None:
    pair = Pair(slots=1)
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    worker = pair.workers[0]
    before = worker.peer
    for _ in range(12):  # the worker hears nothing, the dispatcher everything
        worker.inbox.clear()
        pair.step_time(0.5)
        while worker.outbox and worker.peer == before:
            pair.step_to_dispatcher(worker)
    pair.settle(seconds=1, finish=False)
    assert worker.peer != before
    assert [w.peer for w in pair.scheduler.workers] == [worker.peer]
    assert pair.begins == {(task, 1): 1}
    pair.settle(seconds=1)
    assert states(pair) == {State.COMPLETED: 1}


def test_who_takes_another_workers_name_is_refused_and_counted() -> None:
    pair = Pair(slots=1)
    pair.settle(seconds=0.5)
    (worker,) = pair.scheduler.workers
    impostor = replace(worker.hello, secret="guessed", number=99)
    (send,) = pair.scheduler.receive(b"elsewhere", impostor, now=pair.now)
    assert isinstance(send.message, Refuse)
    assert not send.message.again
    assert pair.scheduler.workers == [worker]
    assert pair.scheduler.impostors == 1


def test_what_cannot_be_sent_goes_back_to_the_queue() -> None:
    pair = Pair(slots=1, workers=2)
    pair.settle(seconds=0.5)
    task = pair.submit()
    pair.step_store()
    sends = [send for send in pair.last_sends if isinstance(send.message, Run)]
    pair.scheduler.unsent(sends)
    for worker in pair.workers:
        worker.inbox.clear()
    pair.settle(seconds=1)
    row = pair.store.tasks[task]
    assert (row.state, row.attempt, row.starts) == (State.COMPLETED, 2, 1)


def test_nothing_more_is_given_to_who_cannot_be_sent_to_until_it_speaks() -> None:
    pair = Pair(slots=1)
    pair.settle(seconds=0.5)
    task = pair.submit()
    pair.step_store()
    pair.scheduler.unsent([send for send in pair.last_sends if isinstance(send.message, Run)])
    pair.workers[0].inbox.clear()
    for _ in range(5):
        pair.scheduler.ring()
        pair.exchange_all()
    assert pair.store.tasks[task].attempt == 1
    pair.settle(seconds=3)
    assert (pair.store.tasks[task].state, pair.store.tasks[task].attempt) == (State.COMPLETED, 2)


@pytest.mark.parametrize("pulls", [False, True], ids=["push", "pull"])
def test_a_worker_that_hears_nothing_is_lost_though_it_speaks(pulls: bool) -> None:
    pair = Pair(slots=1, workers=2, pulls=pulls)
    pair.settle(seconds=0.5)
    deaf, other = pair.workers
    tasks = [pair.submit() for _ in range(2)]
    pair.settle(seconds=0.5, finish=False)
    assert deaf.jobs
    assert other.jobs
    queued = pair.submit()
    until = pair.now + 11
    while pair.now < until:
        pair.step_slot(other)
        deaf.inbox.clear()
        pair.step_time(0.1)
        deaf.inbox.clear()
        for worker in (deaf, other):
            while worker.outbox:
                pair.step_to_dispatcher(worker)
        while other.inbox:
            pair.step_to_worker(other)
        pair.exchange_all()
    assert [pair.store.tasks[task].state for task in [*tasks, queued]] == [State.COMPLETED] * 3
    assert sorted(pair.store.tasks[task].deaths for task in tasks) == [0, 1]
    assert [worker.load for worker in pair.scheduler.workers if not worker.confirmed] in ([], [0])


def test_a_worker_that_drains_alone_leaves_in_the_end() -> None:
    pair = Pair(slots=1)
    pair.submit()
    pair.settle(seconds=0.5, finish=False)
    worker = pair.workers[0]
    worker.session.drain(now=pair.now)
    for _ in range(310):
        worker.inbox.clear()
        pair.step_time(1)
        if worker.stopped:
            break
    assert worker.stopped == "drained"
    assert not worker.jobs


def test_an_attempt_that_is_asked_for_goes_to_the_connection_that_its_worker_has_by_then() -> None:
    pair = Pair(slots=1)
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    (hello,) = [worker.hello for worker in pair.scheduler.workers]
    other = Scheduler(Registration("other", 1, 1, []), now=pair.now)
    other.receive(b"first", replace(hello, held=(Attempt(task, 1),)), now=pair.now)
    asked = other.exchange()
    assert asked is not None
    assert asked.adopt == [(task, 1)]
    for second in range(1, 7):
        other.expire(now=pair.now + second)
    assert not other.workers
    other.receive(b"second", replace(hello, held=(Attempt(task, 1),), number=9), now=pair.now + 7)
    other.exchanged(pair.store.exchange(asked), now=pair.now + 7)
    (worker,) = other.workers
    assert list(worker.assigned) == [(task, 1)]


@pytest.mark.parametrize("pulls", [False, True], ids=["push", "pull"])
@pytest.mark.parametrize("fetched", ["before the run arrives", "after it"])
def test_a_function_travels_once_to_each_worker(pulls: bool, fetched: str) -> None:
    pair = Pair(slots=2, workers=2, pulls=pulls)
    pair.settle(seconds=0.5)
    arrived: Counter[bytes] = Counter()
    for _ in range(5):
        for _ in range(8):
            pair.submit()
        for _ in range(20):
            if fetched == "before the run arrives":
                pair.exchange_all()
            else:
                pair.step_store()
            for worker in pair.workers:
                # The way of tasks in pull is not that of functions: they overtake each other.
                worker.inbox.sort(key=lambda message: isinstance(message, Function))
                arrived[worker.peer] += sum(isinstance(message, Function) for message in worker.inbox)
                while worker.inbox:
                    pair.step_to_worker(worker)
                while worker.outbox:
                    pair.step_to_dispatcher(worker)
                for slot in list(worker.jobs):
                    pair.step_slot(worker, slot=slot)
                pair.step_time(0.01)
    assert states(pair) == {State.COMPLETED: 40}
    assert set(arrived.values()) == {1}


def test_a_function_that_the_worker_has_dropped_is_asked_for_at_once() -> None:
    pair = Pair(slots=1)
    pair.store.functions["g"] = b"another"
    worker = pair.workers[0]
    worker.session._functions = FunctionCache(limit=1)  # room for the last one alone
    for function in ("f", "g", "f", "g"):
        pair.submit(function=function)
        pair.settle(seconds=0.5)
    assert states(pair) == {State.COMPLETED: 4}


def test_results_with_much_output_travel_in_portions() -> None:
    pair = Pair(slots=150)
    tasks = [pair.submit() for _ in range(150)]
    pair.settle(seconds=0.5, finish=False)
    (worker,) = pair.workers
    for slot, job in list(worker.running.items()):
        output = Output(bytes(32 * 1024), bytes(32 * 1024))
        done = SlotDone(slot, job.task, job.attempt, Outcome.RETURNED, b"", output=output)
        pair._perform(worker, worker.session.slot_event(done, now=pair.now))
    worker.jobs.clear()
    pair._flush(worker)
    pair.settle(seconds=1)
    assert states(pair) == {State.COMPLETED: len(tasks)}


def test_a_worker_that_was_stopped_begins_nothing_from_before() -> None:
    pair = Pair(slots=1, workers=2)
    pair.settle(seconds=0.5)
    task = pair.submit()
    pair.exchange_all()
    (stopped,) = [worker for worker in pair.workers if any(isinstance(message, Run) for message in worker.inbox)]
    pair.workers.remove(stopped)
    pair.settle(seconds=6)
    assert pair.store.tasks[task].state is State.COMPLETED
    pair.workers.append(stopped)
    while stopped.inbox:
        pair.step_to_worker(stopped)
    pair.settle(seconds=1)
    assert pair.begins[task, 1] == 0
    assert len(pair.scheduler.workers) == 2


def test_a_result_over_the_dispatchers_limit_fails_at_the_worker() -> None:
    pair = Pair(slots=1)
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    worker = pair.workers[0]
    [job] = worker.jobs.pop(0)
    done = SlotDone(0, job.task, job.attempt, Outcome.RETURNED, bytes(64 * 1024 * 1024 + 1))
    pair._perform(worker, worker.session.slot_event(done, now=pair.now))
    pair.settle(seconds=1)
    row = pair.store.tasks[task]
    assert row.state is State.FAILED
    assert "at most 67108864 are kept" in str(pickle.loads(row.result or b""))


def _one_step(pair: Pair, what: str, n: int, policies: list[Policy], requirements: tuple[str, ...]) -> None:
    worker = pair.workers[n % len(pair.workers)] if pair.workers else None
    match what:
        case "s":
            pair.submit(policy=policies[n % len(policies)], requirements=requirements[n % len(requirements)])
        case "x":
            pair.step_store()
        case "e":
            pair.step_store(answer=n % 2 == 0)
        case "t":
            pair.step_time((0.0, 0.01, 0.03, 0.5, 1.0, 2.5, 6.0, 30.0)[n])
        case "D":
            pair.start_dispatcher()
        case "c" if pair.store.tasks:
            pair.store.cancel(sorted(pair.store.tasks)[n % len(pair.store.tasks)])
        case "u":
            pair.start_worker()
        case _ if worker is None:
            return
        case "d":
            pair.step_to_dispatcher(worker, n)
        case "w":
            pair.step_to_worker(worker, n)
        case "f":
            outcomes = (Outcome.RETURNED, Outcome.RETURNED, Outcome.RAISED, Outcome.DIED)
            pair.step_slot(worker, outcomes[n % 4])
        case "l":
            del worker.inbox[:1], worker.outbox[: n % 2]
        case "k":
            pair.step_to_dispatcher(worker, n, keep=True)
        case "K":
            pair.step_to_worker(worker, n, keep=True)
        case "C":
            pair.workers.remove(worker)


def _check(pair: Pair, results: dict[str, bytes]) -> None:
    assert max(pair.begins.values(), default=0) <= 1, "an attempt was begun twice"
    starts: Counter[str] = Counter(task for task, _ in pair.begins)
    for row in pair.store.tasks.values():
        if row.policy.at_most_once:
            assert starts[row.task] <= 1, "a task that may start once was begun again"
        assert row.starts <= row.policy.max_attempts + row.policy.retries
        assert row.deaths <= 3
        assert not row.cancel_requested or row.state is State.RUNNING or row.state.is_terminal, "a cancel was forgotten"
        terminal = [event for event, _ in row.history if event in (Event.COMPLETE, Event.FAIL, Event.CANCEL)]
        assert len(terminal) <= 1
        if row.state is State.COMPLETED:
            assert row.result == f"{row.task}/{row.attempt}".encode(), "the result of another attempt"
        if row.result is not None:
            assert results.setdefault(row.task, row.result) == row.result, "a result changed"


def _fields(struct: object) -> list[object]:
    return [getattr(struct, name) for name in struct.__struct_fields__]
