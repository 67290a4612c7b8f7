"""Output on its way to those who watch: small batches, and little of much."""

from __future__ import annotations

import pytest

from dispatcher.store import Printed
from everythingfaas.wire.messages import Log, LogEntry
from tests.unit.pair import Pair
from worker.events import OutputChunk
from worker.output import AFTER_S, ALL_BYTES, EVERY_S, RUN_BYTES, OutputRelay

KEY = ("task", 1)


@pytest.fixture
def relay() -> OutputRelay:
    relay = OutputRelay()
    relay.begun(KEY, 0.0)
    return relay


def test_what_a_run_prints_is_told_in_order(relay: OutputRelay):
    relay.printed(KEY, b"one ")
    relay.printed(KEY, b"two")
    assert relay.next_deadline() == AFTER_S
    assert relay.flush(AFTER_S) == Log((LogEntry("task", 1, b"one two"),))
    assert relay.next_deadline() is None


def test_a_short_run_tells_nothing(relay: OutputRelay):
    relay.printed(KEY, b"hello")
    assert relay.flush(AFTER_S / 2) is None
    relay.ended(KEY)
    assert relay.next_deadline() is None
    assert relay.flush(1.0) is None


def test_the_rest_of_a_run_that_was_told_of_is_told(relay: OutputRelay):
    relay.printed(KEY, b"one ")
    relay.flush(AFTER_S)
    relay.printed(KEY, b"two")
    relay.ended(KEY)
    assert relay.flush(AFTER_S) is None  # not yet
    assert relay.next_deadline() == AFTER_S + EVERY_S
    assert relay.flush(AFTER_S + EVERY_S) == Log((LogEntry("task", 1, b"two"),))


def test_a_gigabyte_costs_little(relay: OutputRelay):
    chunk = bytes(64 * 1024)
    for _ in range(16 * 1024):
        relay.printed(KEY, chunk)
    log = relay.flush(1.0)
    assert log is not None
    (entry,) = log.entries
    assert len(entry.data) == RUN_BYTES
    assert entry.dropped == 1024**3 - RUN_BYTES


def test_all_runs_together_have_a_limit():
    relay = OutputRelay()
    runs = 2 * ALL_BYTES // RUN_BYTES
    for i in range(runs):
        relay.begun((str(i), 1), 0.0)
        relay.printed((str(i), 1), bytes(RUN_BYTES))
    log = relay.flush(1.0)
    assert log is not None
    assert sum(len(entry.data) for entry in log.entries) == ALL_BYTES
    assert sum(entry.dropped for entry in log.entries) == ALL_BYTES


def test_what_was_left_out_is_told_once(relay: OutputRelay):
    relay.printed(KEY, bytes(RUN_BYTES + 1))
    first = relay.flush(1.0)
    relay.printed(KEY, b"more")
    second = relay.flush(2.0)
    assert first is not None
    assert second is not None
    assert [entry.dropped for entry in (*first.entries, *second.entries)] == [1, 0]


def test_what_nobody_has_begun_is_not_told():
    relay = OutputRelay()
    relay.printed(KEY, b"hello")
    assert relay.next_deadline() is None
    assert relay.flush(1.0) is None


def test_dropped_runs_tell_nothing(relay: OutputRelay):
    relay.printed(KEY, b"hello")
    relay.clear()
    assert relay.flush(1.0) is None


def test_output_goes_from_a_slot_to_who_passes_it_on():
    pair = Pair(slots=1)
    task = pair.submit()
    pair.settle(seconds=0.5, finish=False)
    (worker,) = pair.workers
    worker.session.slot_event(OutputChunk(0, task, 1, b"hello"), now=pair.now)
    worker.session.slot_event(OutputChunk(0, "another", 1, b"of nobody's"), now=pair.now)
    pair.settle(seconds=0.5, finish=False)
    assert pair.scheduler.printed() == [Printed(task, 1, b"hello")]
    pair.settle(seconds=0.5)
    assert pair.scheduler.printed() == [Printed(task, 1, b"", last=True)]
    assert pair.scheduler.printed() == []


def test_what_a_worker_says_of_others_tasks_is_dropped():
    pair = Pair(slots=1)
    pair.settle(seconds=0.5)
    (worker,) = pair.workers
    pair.scheduler.receive(worker.peer, Log((LogEntry("another", 1, b"hello"),)), now=pair.now)
    assert pair.scheduler.printed() == []
