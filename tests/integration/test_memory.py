"""Memory limits of runs, in a pool of real processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from everythingfaas.status import Outcome
from tests.integration.test_pool import Driver, make_job, start_pool
from worker import memory
from worker.events import SlotBegun, SlotDone, SlotReady


@pytest.fixture(scope="module")
def slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = start_pool(tmp_path_factory.mktemp("memory"))
    yield driver
    driver.pool.close()


def hold(mib: int, seconds: float) -> int:
    import time

    data = bytearray(mib * 1024 * 1024)
    time.sleep(seconds)
    return len(data)


def test_a_run_that_outgrows_its_limit_is_killed_and_says_by_how_much(slots: Driver) -> None:
    done = slots.run(hold, 200, 60, memory_limit_mb=100)
    assert (done.outcome, done.exit_signal) == (Outcome.MEMORY, 9)
    assert done.error is not None
    used = float(done.error.message.split(" used ")[1].split(" MiB")[0])
    assert 100 < used < 260  # it may have been seen while it grew
    assert done.error.message.endswith("its limit is 100 MiB")
    assert done.elapsed_s < 5
    assert slots.value(lambda: "the slot is back") == "the slot is back"


def test_only_runs_with_a_limit_are_looked_at(slots: Driver) -> None:
    slots.until(lambda _: slots.pool.next_deadline() is None)  # after the last one there was one look more
    slots.pool.run(make_job(hold, 1, 0.3), 0, time.monotonic())
    slots.until(lambda events: any(isinstance(event, SlotBegun) for event in events))
    assert slots.pool.next_deadline() is None
    slots.pool.run(make_job(hold, 1, 0.3, memory_limit_mb=1000), 1, time.monotonic())
    slots.until(lambda events: any(isinstance(event, SlotBegun) and event.slot == 1 for event in events))
    due = slots.pool.next_deadline()
    assert due is not None
    assert 0 < due - time.monotonic() <= memory.LOOK_S
    ended = slots.until(lambda events: {SlotReady(0), SlotReady(1)} <= set(events))
    assert [event.outcome for event in ended if isinstance(event, SlotDone)] == [Outcome.RETURNED] * 2
    slots.until(lambda _: slots.pool.next_deadline() is None, patience_s=1)


def test_a_limit_is_that_of_one_run_and_not_of_its_slot(slots: Driver) -> None:
    assert slots.run(hold, 200, 60, memory_limit_mb=100).outcome is Outcome.MEMORY
    assert slots.run(hold, 200, 0.3).outcome is Outcome.RETURNED


def test_this_very_process_has_a_size() -> None:
    assert memory.excess(os.getpid(), 1 << 20) == ""
    assert "its limit is 1 MiB" in memory.excess(os.getpid(), 1)


def test_what_is_gone_uses_nothing() -> None:
    assert memory.excess(2**22 + 1, 1) == ""
