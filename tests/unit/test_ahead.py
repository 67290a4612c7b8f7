"""A session whose slots are given jobs ahead of time, and whose pool is further on than it has heard."""

from __future__ import annotations

from everythingfaas.status import Outcome
from everythingfaas.wire.messages import Attempt, Blob, Bye, Function, Job, Kill, Run, Welcome
from worker.events import SlotBegun, SlotDone, SlotReady, SlotReturned
from worker.session import Identity, KillSlot, RetractJobs, Send, StartJob, Stop, WorkerSession

SHORT, LONG = "5" * 64, "1" * 64


def session(slots: int) -> WorkerSession:
    """One that knows a short and a long function, with all of its slots free."""
    made = WorkerSession(Identity("w", "w", "host", 1, (3, 11), "0.4", slots), now=0.0)
    made.start(now=0.0)
    made.receive(Welcome("d", 1, 1, 1, 0, 1.0, 1e9, 300.0, 1 << 26), now=0.0)
    for function, run_s in ((SHORT, 1e-4), (LONG, 1.0)):
        made.receive(Function(function, Blob(b"bytes")), now=0.0)
        made._lines.ran(function, run_s)
    for slot in range(slots):
        made.slot_event(SlotReady(slot), now=0.0)
    return made


def a_job(task: str, function: str = SHORT, *, deadline_s: float | None = None) -> Job:
    return Job(task, 1, function, Blob(b""), "owner", deadline_s)


def started(actions: list[object]) -> dict[str, int]:
    return {action.job.task: action.slot for action in actions if isinstance(action, StartJob)}


def test_a_slot_that_was_given_something_meanwhile_is_not_free() -> None:
    worker = session(2)
    places = started(worker.receive(Run(1, (a_job("short"), a_job("long", LONG))), now=0.0))
    for task, slot in places.items():
        worker.slot_event(SlotBegun(slot, task, 1), now=0.0)
    worker.receive(Run(2, (a_job("waits", LONG), a_job("in line", deadline_s=1.0))), now=0.001)
    # All of it in one turn of the pool; what the first two cause is done before the others are heard.
    given = started(worker.slot_event(SlotDone(places["long"], "long", 1, Outcome.RETURNED), now=0.002))
    given |= started(worker.slot_event(SlotReady(places["long"]), now=0.002))
    assert given == {"waits": places["long"], "in line": places["short"]}
    worker.slot_event(SlotDone(places["short"], "short", 1, Outcome.RETURNED, elapsed_s=1e-4), now=0.002)
    worker.slot_event(SlotReady(places["short"]), now=0.002)
    assert started(worker.receive(Run(3, (a_job("next", LONG),)), now=0.002)) == {}
    worker.slot_event(SlotBegun(places["short"], "in line", 1), now=0.003)
    assert KillSlot(places["short"], "in line", 1, Outcome.DEADLINE) in worker.expire(now=2.0)
    worker.slot_event(SlotDone(places["short"], "in line", 1, Outcome.DEADLINE), now=2.0)
    worker.slot_event(SlotReady(places["short"]), now=2.0)
    assert started(worker.receive(Run(4, (a_job("after"),)), now=2.0)) == {"after": places["short"]}


def test_what_gets_in_line_while_another_one_comes_back_is_taken_back_as_well() -> None:
    worker = session(1)
    worker.receive(Run(1, (a_job("a"), a_job("b"))), now=0.0)
    worker.slot_event(SlotBegun(0, "a", 1), now=0.0)
    assert worker.receive(Kill((Attempt("b", 1),), Outcome.CANCELLED), now=0.001) == [RetractJobs(0)]
    assert started(worker.receive(Run(2, (a_job("e"),)), now=0.001)) == {"e": 0}
    worker.slot_event(SlotReturned(0, "b", 1), now=0.001)
    assert RetractJobs(0) in worker.expire(now=0.1)
    worker.slot_event(SlotReturned(0, "e", 1), now=0.1)
    assert RetractJobs(0) not in worker.expire(now=0.2)


def test_a_draining_worker_leaves_when_its_last_run_comes_back() -> None:
    worker = session(1)
    worker.receive(Run(1, (a_job("a"),)), now=0.0)
    worker.slot_event(SlotBegun(0, "a", 1), now=0.0)
    worker.drain(now=0.0)
    actions = worker.slot_event(SlotReturned(0, "a", 1), now=0.0)
    assert any(isinstance(action, Send) and isinstance(action.message, Bye) for action in actions)
    assert any(isinstance(action, Stop) for action in actions)


def test_what_was_dropped_in_line_and_begins_all_the_same_is_killed() -> None:
    worker = session(1)
    worker.receive(Run(1, (a_job("a"), a_job("b"))), now=0.0)
    worker.slot_event(SlotBegun(0, "a", 1), now=0.0)
    assert worker._drop_everything() == [KillSlot(0, "a", 1, Outcome.LOST)]
    worker.slot_event(SlotDone(0, "a", 1, Outcome.RETURNED), now=0.0)
    assert worker.slot_event(SlotBegun(0, "b", 1), now=0.0) == [KillSlot(0, "b", 1, Outcome.LOST)]


def test_whoever_stops_kills_what_begins_in_line_meanwhile() -> None:
    worker = session(1)
    worker.receive(Run(1, (a_job("a"), a_job("b"))), now=0.0)
    worker.slot_event(SlotBegun(0, "a", 1), now=0.0)
    assert worker.kill_all() == [KillSlot(0, "a", 1, Outcome.STOPPED)]
    worker.slot_event(SlotDone(0, "a", 1, Outcome.RETURNED), now=0.0)
    assert worker.slot_event(SlotBegun(0, "b", 1), now=0.0) == [KillSlot(0, "b", 1, Outcome.STOPPED)]
