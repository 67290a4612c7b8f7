"""One contract for every store of the dispatcher: the one in memory, and Django's on both databases."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import dill
import pytest
from django.core.management import call_command
from django.db import connection, transaction
from msgspec.structs import replace

from api import moves
from api.models import Dispatcher, new_id
from dispatcher.django_store import Announcer, DjangoStore
from dispatcher.memory import MemoryData, MemoryStore, MemoryTask
from dispatcher.policies import verdict
from dispatcher.store import Begin, Claimed, Ended, Exchange, Exchanged, Policy, Released, Taken, TaskStore, Unmatched
from everythingfaas.pythons import Minor
from everythingfaas.status import Event, Outcome, State
from everythingfaas.wire.messages import Blob, Error, Report
from tests.conftest import Database, using

CODE = b"the function's bytes"
FUNCTION = hashlib.sha256(CODE).hexdigest()


@dataclass
class Row:
    state: State
    attempt: int
    starts: int
    deaths: int
    failures: int
    result: bytes | None


class Memory:
    """A store, and hands that reach behind it."""

    def __init__(self, data: MemoryData | None = None) -> None:
        self.dispatcher = str(uuid4())
        self.data = data or MemoryData()
        self.store: TaskStore = self.again()
        self.memory = MemoryStore(data=self.data)  # the web's
        self.memory.functions[FUNCTION] = CODE

    def again(self) -> TaskStore:
        return MemoryStore(self.dispatcher, data=self.data)

    def beside(self) -> Memory:
        """Another dispatcher."""
        return Memory(self.data)

    def move_lease(self, seconds: float) -> None:
        """As if it had been written so much later."""
        self.data.dispatchers[self.dispatcher].lease_until += seconds

    def rows(self) -> set[str]:
        """The dispatchers that have one."""
        return set(self.data.dispatchers)

    def restored(self) -> None:
        self.data.restored()

    def submit(
        self, payload: bytes = b"", *, policy: Policy | None = None, priority: int = 0, requirements: str = ""
    ) -> str:
        row = MemoryTask(str(new_id()), FUNCTION, payload, policy=policy or Policy(), priority=priority)
        row.requirements = requirements
        self.memory.submit(row)
        return row.task

    def cancel(self, task: str) -> None:
        self.memory.cancel(task)

    def row(self, task: str) -> Row:
        row = self.memory.tasks[task]
        return Row(row.state, row.attempt, row.starts, row.deaths, row.failures, row.result)


class Django:
    """The same, for the store on the database that "default" stands for."""

    def __init__(self) -> None:
        self.id = uuid4()
        self.dispatcher = str(self.id)
        self.store: TaskStore = self.again()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT id FROM auth_user WHERE username = 'local'")
            self.owner = cursor.fetchone()[0]
            self.function = moves.register(cursor, self.owner, "function", CODE, created=time.time())

    def again(self) -> TaskStore:
        # No Redis listens there: mirrors and announcements are tested elsewhere, and must not be needed here.
        return DjangoStore(self.id, Announcer("redis://127.0.0.1:1/0"), writer=f"test:{self.id.hex}")

    def beside(self) -> Django:
        return Django()

    def move_lease(self, seconds: float) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("UPDATE api_dispatcher SET lease_until = lease_until + %s WHERE id = %s", [seconds, self.id])

    def rows(self) -> set[str]:
        return {str(id_) for id_ in Dispatcher.objects.values_list("id", flat=True)}

    def restored(self) -> None:
        call_command("after_restore", stdout=io.StringIO())

    def submit(
        self, payload: bytes = b"", *, policy: Policy | None = None, priority: int = 0, requirements: str = ""
    ) -> str:
        policy = policy or Policy()
        task = new_id()
        with transaction.atomic(), connection.cursor() as cursor:
            queue = moves.queue_for(cursor, requirements)
        submission = moves.Submission(
            task,
            self.owner,
            self.function,
            payload,
            time.time(),
            queue=queue,
            priority=priority,
            at_most_once=policy.at_most_once,
            max_attempts=policy.max_attempts,
        )
        with transaction.atomic(), connection.cursor() as cursor:
            moves.submit(cursor, [submission])
        return str(task)

    def cancel(self, task: str) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            moves.cancel(cursor, [_uuid(task)], time.time())

    def row(self, task: str) -> Row:
        with connection.cursor() as cursor:
            view = moves.read(cursor, [_uuid(task)])[_uuid(task)]
            counts = "SELECT attempt, starts, deaths, failures FROM api_task WHERE id = %s"
            cursor.execute(counts, [_uuid(task).hex if connection.vendor == "sqlite" else _uuid(task)])
            return Row(view.state, *cursor.fetchone(), view.result)


def _uuid(text: str) -> Any:
    from uuid import UUID

    return UUID(text)


Hands = Memory | Django


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def hands(request: pytest.FixtureRequest) -> Iterator[Hands]:
    if request.param == "memory":
        yield Memory()
        return
    with using(request.getfixturevalue(f"{request.param}_database")):
        yield Django()


def claim(hands: Hands, limit: int = 1) -> list[Claimed]:
    return hands.store.exchange(Exchange(room={(3, 11): limit})).claimed


def report(claimed: Claimed, outcome: Outcome = Outcome.RETURNED, *, begun: bool = True) -> Report:
    error = Error("ValueError", "wrong", "Traceback") if outcome is Outcome.RAISED else None
    code = 3 if outcome is Outcome.DIED else None
    result = b"result" if outcome in (Outcome.RETURNED, Outcome.RAISED) else b""
    return Report(claimed.task, claimed.attempt, outcome, Blob(result), begun, 0.1, 0.0, 0, error, code)


def end(hands: Hands, claimed: Claimed, outcome: Outcome = Outcome.RETURNED, **kwargs: Any) -> int:
    """Ends an attempt as the scheduler would. Returns how many were too late."""
    decision = verdict(claimed, report(claimed, outcome, **kwargs), worker="w", cancelled=False)
    exchange = Exchange(ended=[decision]) if isinstance(decision, Ended) else Exchange(released=[decision])
    return hands.store.exchange(exchange).stale


def test_a_claimed_task_carries_all_that_running_it_needs(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    task = hands.submit(b"arguments", policy=Policy(max_attempts=7))
    (claimed,) = claim(hands)
    assert (claimed.task, claimed.attempt, claimed.function, claimed.payload) == (task, 1, FUNCTION, b"arguments")
    assert claimed.policy == Policy(max_attempts=7)
    assert hands.row(task) == Row(State.RUNNING, 1, 0, 0, 0, None)


def test_claims_keep_order_priority_and_limit(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    first, second, urgent = hands.submit(), hands.submit(), hands.submit(priority=5)
    assert [item.task for item in claim(hands, 2)] == [urgent, first]
    assert [item.task for item in claim(hands, 2)] == [second]
    assert claim(hands, 2) == []


def test_a_result_ends_the_task_once(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    task = hands.submit()
    (claimed,) = claim(hands)
    assert end(hands, claimed) == 0
    assert hands.row(task) == Row(State.COMPLETED, 1, 1, 0, 0, b"result")
    assert end(hands, claimed, Outcome.RAISED) == 1
    assert hands.row(task) == Row(State.COMPLETED, 1, 1, 0, 0, b"result")


def test_a_stale_attempt_changes_nothing(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    task = hands.submit()
    (old,) = claim(hands)
    end(hands, old, Outcome.DIED)
    (new,) = claim(hands)
    assert (new.attempt, new.starts, new.deaths) == (2, 1, 1)
    assert end(hands, old) == 1
    hands.store.exchange(Exchange(begun=[Begin(task, old.attempt, 0.0)]))
    assert hands.row(task) == Row(State.RUNNING, 2, 1, 1, 0, None)
    assert end(hands, new) == 0
    assert hands.row(task).state is State.COMPLETED


def test_a_begin_counts_one_start_however_often_it_is_told(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    task = hands.submit()
    (claimed,) = claim(hands)
    for _ in range(2):
        hands.store.exchange(Exchange(begun=[Begin(task, 1, 0.0)]))
    assert hands.row(task).starts == 1
    end(hands, replace(claimed, begun=True))
    assert hands.row(task).starts == 1


def test_what_may_start_once_counts_its_start_with_the_claim(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    task = hands.submit(policy=Policy(at_most_once=True))
    (claimed,) = claim(hands)
    assert hands.row(task).starts == 1
    hands.store.exchange(Exchange(released=[Released(None, task, claimed.attempt)]))
    assert hands.row(task) == Row(State.QUEUED, 1, 0, 0, 0, None)
    (claimed,) = claim(hands)
    end(hands, claimed, Outcome.LOST)
    assert (hands.row(task).state, hands.row(task).starts) == (State.FAILED, 1)


def test_what_never_began_goes_back_as_if_never_given_out(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    task = hands.submit()
    (claimed,) = claim(hands)
    end(hands, claimed, Outcome.LOST, begun=False)
    assert hands.row(task) == Row(State.QUEUED, 1, 0, 0, 0, None)


def test_one_exchange_ends_and_claims(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    first, second = hands.submit(), hands.submit()
    (claimed,) = claim(hands)
    decision = verdict(claimed, report(claimed), worker="w", cancelled=False)
    assert isinstance(decision, Ended)
    answer = hands.store.exchange(Exchange(ended=[decision], room={(3, 11): 5}))
    assert [item.task for item in answer.claimed] == [second]
    assert hands.row(first).state is State.COMPLETED


def test_a_cancel_of_what_runs_is_told_at_the_next_look(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    running, queued = hands.submit(), hands.submit()
    (claimed,) = claim(hands)
    hands.cancel(running)
    hands.cancel(queued)
    assert hands.row(queued).state is State.CANCELLED
    assert hands.store.exchange(Exchange(look=True, room={(3, 11): 1})).cancelled == [(running, claimed.attempt)]
    end(hands, claimed, Outcome.CANCELLED)
    assert hands.row(running).state is State.CANCELLED


@pytest.mark.parametrize("outcome", [Outcome.RAISED, Outcome.DIED, Outcome.LOST])
@pytest.mark.parametrize("begun", [True, False])
def test_what_is_to_be_cancelled_is_not_begun_again(hands: Hands, outcome: Outcome, begun: bool) -> None:
    hands.store.register(mode="local", slots=1)
    task = hands.submit()
    (claimed,) = claim(hands)
    hands.cancel(task)
    given_back = verdict(
        replace(claimed, policy=Policy(retries=1)),
        report(claimed, outcome, begun=begun),
        worker="w",
        cancelled=False,  # nobody has looked since
    )
    assert isinstance(given_back, Released)
    hands.store.exchange(Exchange(released=[given_back]))
    row = hands.row(task)
    assert row.state is State.CANCELLED
    assert row.result is not None
    assert type(dill.loads(row.result)).__name__ == "TaskCancelled"
    assert claim(hands) == []


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.LOST, State.CANCELLED),
        (Outcome.DIED, State.CANCELLED),
        (Outcome.RETURNED, State.COMPLETED),
        (Outcome.RAISED, State.FAILED),
        (Outcome.DEADLINE, State.FAILED),
    ],
)
def test_a_loss_is_no_completion_that_comes_before_a_cancel(hands: Hands, outcome: Outcome, state: State) -> None:
    """The last attempt ends before the dispatcher has heard of the cancel."""
    hands.store.register(mode="local", slots=1)
    task, other = hands.submit(policy=Policy(max_attempts=1)), hands.submit(policy=Policy(max_attempts=1))
    claimed = claim(hands, 2)
    hands.cancel(task)
    decisions = [verdict(item, report(item, outcome), worker="w", cancelled=False) for item in claimed]
    ends = [decision for decision in decisions if isinstance(decision, Ended)]
    assert hands.store.exchange(Exchange(ended=ends)).stale == 0
    assert hands.row(task).state is state
    assert hands.row(other).state is (State.COMPLETED if outcome is Outcome.RETURNED else State.FAILED)
    cancelled = b"TaskCancelled" in (hands.row(task).result or b"")
    assert cancelled is (state is State.CANCELLED)


def test_what_is_to_be_cancelled_is_known_after_a_restart(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    tasks = [hands.submit(), hands.submit()]
    claim(hands, 2)
    hands.cancel(tasks[0])
    hands.store = hands.again()
    held = {item.task: item.cancelled for item in hands.store.register(mode="local", slots=1).held}
    assert held == {tasks[0]: True, tasks[1]: False}


def test_a_dispatcher_that_starts_again_finds_what_it_held(hands: Hands) -> None:
    first = hands.store.register(mode="local", slots=3)
    tasks = [hands.submit() for _ in range(3)]
    claim(hands, 2)
    hands.store.exchange(Exchange(begun=[Begin(tasks[0], 1, 0.0)]))
    hands.store = hands.again()
    second = hands.store.register(mode="local", slots=1)
    assert second.epoch == first.epoch + 1
    assert [(item.task, item.attempt, item.begun) for item in second.held] == [
        (tasks[0], 1, True),
        (tasks[1], 1, False),
    ]


def test_attempts_of_a_returning_worker_are_adopted_or_refused(hands: Hands) -> None:
    hands.store.register(mode="push", slots=1)
    task, other = hands.submit(), hands.submit()
    claim(hands)
    answer = hands.store.exchange(Exchange(adopt=[(task, 1), (task, 7), (other, 1), ("no id", 1), (task, 1 << 40)]))
    assert [(item.task, item.attempt) for item in answer.adopted] == [(task, 1)]
    assert sorted(answer.refused) == sorted([(task, 7), (other, 1), ("no id", 1), (task, 1 << 40)])


def test_recall_lists_what_a_lost_answer_had_claimed(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    task = hands.submit()
    claim(hands)
    held = hands.store.exchange(Exchange(recall=True)).held
    assert held is not None
    assert [(item.task, item.attempt) for item in held] == [(task, 1)]


def test_functions_are_fetched_by_hash(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    answer = hands.store.exchange(Exchange(functions={FUNCTION, "0" * 64}))
    assert answer.functions == {FUNCTION: CODE}


def test_an_end_is_a_move_of_the_table(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    outcomes = {
        Outcome.RETURNED: State.COMPLETED,
        Outcome.RAISED: State.FAILED,
        Outcome.DEADLINE: State.FAILED,
        Outcome.CANCELLED: State.CANCELLED,
        Outcome.DIED: State.QUEUED,
        Outcome.LOST: State.QUEUED,
        Outcome.STOPPED: State.QUEUED,
    }
    for outcome, state in outcomes.items():
        task = hands.submit(priority=1)
        (claimed,) = claim(hands)
        assert claimed.task == task
        end(hands, claimed, outcome)
        assert hands.row(task).state is state
        hands.cancel(task)


def test_the_summary_of_a_failure_is_one_line(hands: Hands) -> None:
    claimed = Claimed(str(new_id()), 1, "1", FUNCTION, b"")
    decision = verdict(claimed, report(claimed, Outcome.RAISED), worker="w", cancelled=False)
    assert isinstance(decision, Ended)
    assert (decision.event, decision.summary) == (Event.FAIL, "ValueError: wrong")


# --- several dispatchers


LOOK = Exchange(look=True)
GONE = -1000.0


def two(hands: Hands, *, slots: int = 3) -> tuple[Hands, Hands]:
    """A dispatcher with an attempt that has begun and one that has not, and another one."""
    other = hands.beside()
    hands.store.register(mode="push", slots=0)
    other.store.register(mode="push", slots=0)
    tasks = [hands.submit(), hands.submit()]
    claim(hands, 2)
    hands.store.exchange(Exchange(renew=True, slots=slots, begun=[Begin(tasks[0], 1, 0.0)]))
    return hands, other


def take_over(hands: Hands, former: Hands, *, trusts_leases: bool = True) -> list[Taken]:
    return hands.store.exchange(Exchange(take_over=[former.dispatcher], trusts_leases=trusts_leases)).taken


def test_two_dispatchers_share_the_queue(hands: Hands) -> None:
    other = hands.beside()
    for each in (hands, other):
        each.store.register(mode="push", slots=1)
    tasks = [hands.submit() for _ in range(4)]
    claimed = [item.task for each in (hands, other, hands, other) for item in claim(each)]
    assert claimed == tasks
    for each, mine in ((hands, tasks[0::2]), (other, tasks[1::2])):
        held = each.store.exchange(Exchange(recall=True)).held
        assert held is not None
        assert [item.task for item in held] == mine


def test_nothing_is_taken_from_the_living(hands: Hands) -> None:
    first, second = two(hands)
    assert second.store.exchange(LOOK).lapsed == []
    assert [taken.held for taken in take_over(second, first)] in ([], [[]])
    first.move_lease(GONE)
    assert second.store.exchange(LOOK).lapsed == [first.dispatcher]
    assert first.store.exchange(LOOK).lapsed == []
    assert not first.store.exchange(Exchange(renew=True)).lease_lost  # late, and yet before anybody else
    assert [taken.held for taken in take_over(second, first)] in ([], [[]])


def test_nothing_is_taken_while_leases_are_not_trusted(hands: Hands) -> None:
    first, second = two(hands)
    (held, *_) = first.store.exchange(Exchange(recall=True)).held or []
    first.move_lease(GONE)
    assert take_over(second, first, trusts_leases=False) == []
    answer = second.store.exchange(Exchange(adopt=[(held.task, held.attempt)]))
    assert (answer.adopted, answer.refused) == ([], [])


def test_what_the_dead_had_given_out_is_taken_over(hands: Hands) -> None:
    first, second = two(hands)
    first.move_lease(GONE)
    (taken,) = take_over(second, first)
    assert ([item.begun for item in taken.held], taken.slots) == ([True, False], 3)
    assert second.store.exchange(Exchange(recall=True)).held == taken.held
    assert hands.rows() == {second.dispatcher}
    assert second.store.exchange(LOOK).lapsed == []
    assert [again.held for again in take_over(second, first)] in ([], [[]])


def test_one_that_comes_back_late_changes_nothing_and_learns_why(hands: Hands) -> None:
    first, second = two(hands)
    begun, unbegun = first.store.exchange(Exchange(recall=True)).held or []
    first.move_lease(GONE)
    take_over(second, first)
    answer = first.store.exchange(
        Exchange(
            ended=[ended_well(begun)],
            released=[Released(None, unbegun.task, 1)],
            begun=[Begin(unbegun.task, 1, 0.0)],
            renew=True,
            room={(3, 11): 1},
        )
    )
    assert (answer.stale, answer.lease_lost, answer.claimed) == (1, True, [])
    assert sorted(answer.elsewhere) == sorted([(begun.task, 1), (unbegun.task, 1)])
    assert [hands.row(item.task) for item in (begun, unbegun)] == [
        Row(State.RUNNING, 1, 1, 0, 0, None),
        Row(State.RUNNING, 1, 0, 0, 0, None),
    ]
    assert second.store.exchange(Exchange(ended=[ended_well(begun)])).stale == 0
    assert first.store.exchange(Exchange(ended=[ended_well(begun)])).elsewhere == []


def ended_well(claimed: Claimed) -> Ended:
    decision = verdict(claimed, report(claimed), worker="w", cancelled=False)
    assert isinstance(decision, Ended)
    return decision


def test_a_lease_from_before_the_clock_was_set_back_is_none(hands: Hands) -> None:
    first, second = two(hands)
    first.move_lease(3600.0)
    assert second.store.exchange(LOOK).lapsed == [first.dispatcher]
    assert len(take_over(second, first)[0].held) == 2


def test_a_worker_brings_its_attempts_from_a_dead_dispatcher(hands: Hands) -> None:
    first, second = two(hands)
    keys = [(item.task, item.attempt) for item in first.store.exchange(Exchange(recall=True)).held or []]
    adopt = Exchange(adopt=[*keys, (keys[0][0], 2)], trusts_leases=True)
    answer = second.store.exchange(adopt)
    assert (answer.adopted, answer.refused) == ([], [(keys[0][0], 2)])
    first.move_lease(GONE)
    answer = second.store.exchange(adopt)
    assert sorted((item.task, item.attempt) for item in answer.adopted) == sorted(keys)
    assert answer.refused == [(keys[0][0], 2)]


def test_what_is_claimed_without_a_row_is_found(hands: Hands) -> None:
    """By one that was taken over while it was suspended, and has not noticed yet."""
    first, second = two(hands)
    first.move_lease(GONE)
    take_over(second, first)
    task = hands.submit()
    assert [item.task for item in claim(first)] == [task]
    assert second.store.exchange(LOOK).lapsed == [first.dispatcher]
    (taken,) = take_over(second, first)
    assert [item.task for item in taken.held] == [task]


def test_epochs_never_come_again(hands: Hands) -> None:
    first, second = two(hands)
    epochs = [first.again().register(mode="push", slots=0).epoch for _ in range(3)]
    first.move_lease(GONE)
    take_over(second, first)
    hands.store = hands.again()
    registration = hands.store.register(mode="push", slots=0)
    assert registration.held == []
    # As long as it restarts less than once a second: here it did, three times.
    assert registration.epoch > epochs[0] - 3
    assert epochs == [epochs[0], epochs[0] + 1, epochs[0] + 2]


def test_slots_of_workers_are_remembered(hands: Hands) -> None:
    first, _ = two(hands, slots=5)
    assert first.again().register(mode="push", slots=0).slots == 5
    assert first.again().register(mode="push", slots=0).slots == 5  # nobody has said otherwise yet


def test_a_restore_is_noticed(hands: Hands) -> None:
    before = hands.store.register(mode="push", slots=1)
    hands.restored()
    assert hands.store.exchange(Exchange(renew=True)).lease_lost
    assert hands.again().register(mode="push", slots=1).generation == before.generation + 1


def test_who_leaves_is_not_waited_for(hands: Hands) -> None:
    first, second = two(hands)
    first.store.close()
    assert second.store.exchange(LOOK).lapsed == [first.dispatcher]
    second.store.close()
    assert hands.rows() == {first.dispatcher}


def test_a_retry_waits_for_its_time(hands: Hands) -> None:
    hands.store.register(mode="local", slots=1)
    policy = Policy(retries=1)
    tasks = [hands.submit(), hands.submit()]
    for claimed, delay_s in zip(claim(hands, 2), (0.0, 3600.0), strict=True):
        given_back = verdict(
            replace(claimed, policy=policy), report(claimed, Outcome.RAISED), worker="w", cancelled=False
        )
        assert isinstance(given_back, Released)
        hands.store.exchange(Exchange(released=[replace(given_back, delay_s=delay_s)]))
    assert claim(hands, 2) == []
    assert [item.task for item in hands.store.exchange(Exchange(look=True, room={(3, 11): 2})).claimed] == tasks[:1]
    assert [hands.row(task).state for task in tasks] == [State.RUNNING, State.WAITING]
    hands.cancel(tasks[1])
    assert hands.row(tasks[1]).state is State.CANCELLED


# --- queues and Pythons


OLD, NEW = (3, 11), (3, 12)


def claimed_by(hands: Hands, **room: int) -> list[str]:
    """What is claimed for so many places of each Python, as `py311=1`."""
    return [item.task for item in claim_for(hands, **room).claimed]


def claim_for(hands: Hands, **room: int) -> Exchanged:
    return hands.store.exchange(Exchange(room={(3, int(name[3:])): n for name, n in room.items()}))


def test_a_claim_finds_what_its_workers_can_run_and_nothing_else(hands: Hands) -> None:
    requirements = ["", "python=3.11", "python=3.12", "python=3.11,3.12", "python=unknown", "python=3.11;gpu=1"]
    tasks = [hands.submit(requirements=text) for text in requirements]
    hands.store.register(mode="push", slots=1)
    answer = claim_for(hands, py312=9)
    assert [item.task for item in answer.claimed] == [tasks[0], tasks[2], tasks[3], tasks[4]]
    assert [item.requirements for item in answer.claimed] == ["", "python=3.12", "python=3.11,3.12", "python=unknown"]
    assert claimed_by(hands, py311=9) == [tasks[1]]
    assert claimed_by(hands, py310=9, py311=9, py312=9) == []


def test_a_queue_made_after_the_start_is_found_by_the_claim_that_is_rung_for(hands: Hands) -> None:
    hands.store.register(mode="push", slots=1)
    known, new = hands.submit(), hands.submit(requirements="python=3.12")
    answer = claim_for(hands, py312=5)
    claimed = [item.task for item in answer.claimed]
    if answer.more:  # there is another turn at once
        claimed += claimed_by(hands, py312=5)
    assert claimed == [known, new]
    assert not claim_for(hands, py312=5).more


def test_workers_of_several_pythons_share_a_claim(hands: Hands) -> None:
    either = [hands.submit() for _ in range(2)]
    only = [hands.submit(requirements="python=3.11") for _ in range(3)]
    urgent = hands.submit(requirements="python=3.11,3.12", priority=5)
    hands.store.register(mode="push", slots=1)
    answer = claim_for(hands, py311=2, py312=2)
    assert [item.task for item in answer.claimed] == [urgent, *either, only[0]]
    assert answer.left == {OLD}
    answer = claim_for(hands, py311=1, py312=1)
    assert [item.task for item in answer.claimed] == [only[1]]
    assert answer.left == {OLD}
    answer = claim_for(hands, py311=2, py312=1)
    assert [item.task for item in answer.claimed] == [only[2]]
    assert answer.left == frozenset()


def test_however_many_wait_for_one_python_the_other_has_its_turn(hands: Hands) -> None:
    old = [hands.submit(requirements="python=3.11") for _ in range(9)]
    new = hands.submit(requirements="python=3.12")
    hands.store.register(mode="push", slots=1)
    assert claimed_by(hands, py311=1, py312=2) == [old[0], new]


def test_what_is_held_tells_its_requirements(hands: Hands) -> None:
    hands.store.register(mode="push", slots=1)
    task = hands.submit(requirements="python=3.11,3.12")
    while not claimed_by(hands, py311=1):
        pass
    held = hands.store.exchange(Exchange(recall=True)).held
    assert held is not None
    assert [item.requirements for item in held] == ["python=3.11,3.12"]
    adopted = hands.store.exchange(Exchange(adopt=[(task, 1)])).adopted
    assert [item.requirements for item in adopted] == ["python=3.11,3.12"]


def test_a_look_names_what_no_connected_worker_matches(hands: Hands) -> None:
    hands.store.register(mode="push", slots=1)
    for requirements in ("", "python=3.11", "python=3.12", "python=3.12,3.13", "python=unknown"):
        hands.submit(requirements=requirements)

    def unmatched(*pythons: Minor) -> list[str] | None:
        return hands.store.exchange(Exchange(look=True, pythons=frozenset(pythons))).unmatched

    assert unmatched() == []
    assert unmatched(OLD) == ["python=3.12", "python=3.12,3.13"]
    assert unmatched(OLD, NEW) == []
    while claimed_by(hands, py312=9):
        pass
    assert unmatched(OLD) == []


def test_what_waits_in_vain_is_failed_with_the_reason(hands: Hands) -> None:
    hands.store.register(mode="push", slots=1)
    task, other = hands.submit(requirements="python=3.12"), hands.submit(requirements="python=3.11")
    hands.store.exchange(Exchange(look=True, pythons=frozenset({OLD})))
    hands.store.exchange(Exchange(unmatched=[Unmatched("python=3.12", 3600.0, "not so long")]))
    assert hands.row(task).state is State.QUEUED
    for _ in range(2):
        hands.store.exchange(Exchange(unmatched=[Unmatched("python=3.12", 0.0, "no worker can run it")]))
    row = hands.row(task)
    assert (row.state, row.attempt, row.starts) == (State.FAILED, 0, 0)
    assert repr(dill.loads(row.result or b"")) == "WorkerFailure('no worker can run it')"
    assert hands.row(other).state is State.QUEUED


def test_another_dispatchers_workers_match_as_well(backend: Database) -> None:
    with using(backend):
        ours, theirs = Django(), Django()
        for hands in (ours, theirs):
            hands.store.register(mode="push", slots=1)
        ours.submit(requirements="python=3.12")
        look = Exchange(look=True, pythons=frozenset({OLD}))
        assert ours.store.exchange(look).unmatched == ["python=3.12"]
        for draining, expected in ((True, ["python=3.12"]), (False, [])):
            snapshot = [{"python": "3.12", "draining": draining}]
            theirs.store.exchange(Exchange(renew=True, snapshot=snapshot))
            assert ours.store.exchange(look).unmatched == expected
        theirs.store.close()
        answer = ours.store.exchange(look)
        assert (answer.unmatched, answer.pythons) == (["python=3.12"], {OLD})


def test_a_rejected_task_has_an_attempt_that_says_why(backend: Database) -> None:
    with using(backend):
        hands = Django()
        hands.store.register(mode="push", slots=1)
        task = hands.submit(requirements="python=3.12")
        hands.store.exchange(Exchange(look=True, pythons=frozenset({OLD})))
        hands.store.exchange(Exchange(unmatched=[Unmatched("python=3.12", 0.0, "no worker can run it")]))
        with connection.cursor() as cursor:
            cursor.execute("SELECT attempt, outcome, message, began FROM api_attempt")
            assert cursor.fetchall() == [(1, Outcome.UNMATCHED.value, "no worker can run it", None)]
            assert moves.read(cursor, [_uuid(task)])[_uuid(task)].error == "WorkerFailure: no worker can run it"
