"""Jobs that are sent to a slot ahead of time, with real processes: each begins once, or comes back unbegun."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dill
import pytest

from everythingfaas.status import Outcome
from tests.integration.test_pool import Driver, is_dead, make_job, start_pool
from tests.live import until
from worker.events import OutputChunk, PoolEvent, SlotBegun, SlotDone, SlotReady, SlotReturned


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[Driver]:
    driver = start_pool(tmp_path, 1)
    yield driver
    driver.pool.close()


def line_up(driver: Driver, *functions: Callable[..., Any], slot: int = 0) -> None:
    """Gives a slot jobs named a, b, c, …"""
    for name, function in zip("abcdefgh", functions, strict=False):
        driver.pool.run(make_job(function, task=name), slot, time.monotonic())
    driver.pool.flush()


def is_free(events: list[PoolEvent]) -> bool:
    return SlotReady(0) in events


def begun(events: list[PoolEvent]) -> list[str]:
    return [event.task for event in events if isinstance(event, SlotBegun)]


def returned(events: list[PoolEvent]) -> list[str]:
    return [event.task for event in events if isinstance(event, SlotReturned)]


def results(events: list[PoolEvent]) -> dict[str, Any]:
    return {
        event.task: dill.loads(event.result) if event.outcome is Outcome.RETURNED else event.outcome
        for event in events
        if isinstance(event, SlotDone)
    }


def printed(events: list[PoolEvent]) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}
    for event in events:
        if isinstance(event, OutputChunk):
            parts[event.task] = parts.get(event.task, b"") + event.data
    return parts


def blocks(path: Path) -> Callable[[], str]:
    """A function that makes one file when it has begun, and ends when there is another one. (Of what it prints nothing
    is heard while others are in line behind it.)"""
    name = str(path)

    def function() -> str:
        import os
        import time

        open(f"{name}.here", "w").close()
        while not os.path.exists(name):
            time.sleep(0.001)
        return "unblocked"

    return function


def begins(path: Path) -> None:
    until(lambda: path.with_name(f"{path.name}.here").exists())


def test_a_line_runs_in_order_in_one_process(slots: Driver) -> None:
    line_up(slots, *(lambda n=n: (n, os.getpid()) for n in range(8)))
    seen = slots.until(is_free)
    pid = slots.pool.pid(0)
    assert results(seen) == {name: (n, pid) for n, name in enumerate("abcdefgh")}
    assert begun(seen) == list("abcdefgh")
    assert all(0.0 <= event.elapsed_s < 5.0 for event in seen if isinstance(event, SlotDone))


def test_what_is_taken_back_does_not_begin(slots: Driver, tmp_path: Path) -> None:
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    line_up(slots, blocks(gate), *[lambda name=str(mark): open(name, "w").close()] * 3)
    begins(gate)
    slots.pool.retract(0)
    seen = slots.until(lambda events: len(returned(events)) == 3)
    assert returned(seen) == ["d", "c", "b"]  # so that each may go to the head of the queue
    gate.touch()
    seen = slots.until(is_free)
    assert results(seen) == {"a": "unblocked"}
    assert slots.value(lambda: 1) == 1
    assert not mark.exists()


def test_one_that_is_killed_takes_none_with_it(slots: Driver, tmp_path: Path) -> None:
    line_up(slots, blocks(tmp_path / "never"), lambda: 1, lambda: 2)
    begins(tmp_path / "never")
    slots.pool.kill(0, "a", 1, Outcome.CANCELLED, time.monotonic())
    seen = slots.until(is_free)
    assert results(seen) == {"a": Outcome.CANCELLED}
    assert returned(seen) == ["c", "b"]


def test_who_was_to_be_killed_and_has_ended_is_not_mixed_up_with_the_next(slots: Driver, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    line_up(slots, lambda: "first", blocks(gate))
    begins(gate)  # the second one runs, and the pool has not heard that the first one has ended
    slots.pool.kill(0, "a", 1, Outcome.CANCELLED, time.monotonic())
    gate.touch()
    seen = slots.until(is_free)
    assert results(seen) == {"a": "first", "b": "unblocked"}


@pytest.mark.parametrize(
    "end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os.close(3), lambda: os.close(4)]
)
def test_a_death_is_nobody_elses(slots: Driver, end: Callable[[], None]) -> None:
    line_up(slots, end, lambda: 1, lambda: 2)
    seen = slots.until(is_free)
    assert begun(seen) == ["a"]
    assert returned(seen) == ["c", "b"]
    line_up(slots, lambda: 1)
    assert results(slots.until(is_free)) == {"a": 1}


def test_answers_that_lie_unread_when_a_process_dies_are_heard(slots: Driver, tmp_path: Path) -> None:
    """The supervisor was busy meanwhile, and learns of the death by sending another job."""
    gone = tmp_path / "gone"

    def crash(name: str = str(gone)) -> None:
        import os

        os.write(1, b"last words")
        open(name, "w").close()
        os._exit(3)

    line_up(slots, lambda: 1, lambda: b"x" * 100_000, crash)
    until(lambda: gone.exists())
    pid = slots.pool.pid(0)
    assert pid is not None
    until(lambda: is_dead(pid))
    slots.pool.run(make_job(lambda: 2, task="d"), 0, time.monotonic())
    seen = slots.until(is_free)
    assert results(seen) == {"a": 1, "b": b"x" * 100_000, "c": Outcome.DIED}
    assert begun(seen) == ["a", "b", "c"]
    assert printed(seen) == {"c": b"last words"}
    assert returned(seen) == ["d"]


def test_nothing_begins_in_a_process_that_is_not_as_it_was(slots: Driver) -> None:
    def spoil() -> None:
        import os

        os.environ["SPOILED"] = "yes"

    line_up(slots, spoil, lambda: 1)
    seen = slots.until(is_free)
    assert results(seen) == {"a": None}
    assert returned(seen) == ["b"]


def test_output_belongs_to_its_run(slots: Driver) -> None:
    def noisy(n: int) -> Callable[[], int]:
        def function() -> int:
            import os

            os.write(1, b"%d" % n * 3)
            print(n)
            return n

        return function

    line_up(slots, noisy(1), lambda: 0, noisy(2), noisy(3), lambda: 0, lambda: 0, noisy(4))
    seen = slots.until(is_free)
    assert printed(seen) == {"a": b"1111\n", "c": b"2222\n", "d": b"3333\n", "g": b"4444\n"}
    assert begun(seen) == list("abcdefg")


def test_more_output_than_a_pipe_holds_from_one_with_others_in_line(slots: Driver) -> None:
    line_up(slots, lambda: print("x" * 300_000), lambda: print("y"))
    slots.pool.process(time.monotonic())
    slots.pool.retract(0)  # as the session does when one lasts
    seen = slots.until(is_free)
    assert len(printed(seen)["a"]) == 300_001
    assert printed(seen).get("b", b"y\n") == b"y\n"


def test_another_owner_does_not_get_in_line(slots: Driver, tmp_path: Path) -> None:
    slots.pool.run(make_job(blocks(tmp_path / "gate"), task="a"), 0, time.monotonic())
    slots.pool.run(make_job(lambda: 1, task="b", owner="bob"), 0, time.monotonic())
    seen = slots.until(lambda events: bool(returned(events)))
    assert returned(seen) == ["b"]
    (tmp_path / "gate").touch()
    assert results(slots.until(is_free)) == {"a": "unblocked"}


def test_who_takes_the_tickets_of_others_spoils_them_but_begins_none_twice(slots: Driver) -> None:
    def thief() -> None:
        import os

        os.read(4, 16)
        os._exit(1)

    line_up(slots, thief, lambda: 1, lambda: 2, lambda: 3)
    seen = slots.until(is_free)
    assert results(seen) == {"a": Outcome.DIED, "b": Outcome.DIED, "c": Outcome.DIED}
    assert returned(seen) == ["d"]


def test_who_fills_the_pipe_of_tickets_is_ended(slots: Driver) -> None:
    def stuff() -> None:
        import os

        pipe = os.open("/proc/self/fd/4", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(pipe, bytes(4096))
        except BlockingIOError:
            pass
        print("stuffed", flush=True)
        while True:
            pass

    slots.pool.run(make_job(stuff, task="a"), 0, time.monotonic())
    slots.until(lambda events: printed(events).get("a"))
    line_up(slots, lambda: 1)
    seen = slots.until(is_free)
    assert results(seen)["a"] is Outcome.DIED


def test_each_job_ends_once_whatever_is_taken_back_and_killed(tmp_path: Path) -> None:
    """A thousand jobs over two slots, with jobs taken back, killed and dying at random. Each notes its begin itself."""
    chance = random.Random(7)
    notes = tmp_path / "notes"
    notes.touch()

    def job(n: int, path: str, dies: bool) -> int:
        import os

        note = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(note, b"%d\n" % n)
        os.close(note)
        if dies:
            os._exit(1)
        if n % 3 == 0:
            print(n, flush=True)
        return n

    function = dill.dumps(job, recurse=True)
    driver = start_pool(tmp_path, 2)
    waiting = deque(range(1000))
    dies = {n for n in waiting if chance.random() < 0.01}
    lines: dict[int, list[int]] = {0: [], 1: []}
    ends: Counter[int] = Counter()
    outcomes: dict[int, Outcome] = {}
    output: dict[int, bytes] = {}
    try:
        idle = {0, 1}
        while sum(ends.values()) < 1000:
            for slot in (0, 1):
                while waiting and (slot in idle or 0 < len(lines[slot]) < 6):
                    n = waiting.popleft()
                    idle.discard(slot)
                    lines[slot].append(n)
                    made = make_job(function, n, str(notes), n in dies, task=str(n))
                    driver.pool.run(made, slot, time.monotonic())
                if lines[slot] and chance.random() < 0.1:
                    driver.pool.retract(slot)
                if lines[slot] and chance.random() < 0.02:
                    driver.pool.kill(slot, str(lines[slot][0]), 1, Outcome.CANCELLED, time.monotonic())
            for event in driver.until(bool):
                match event:
                    case SlotReady():
                        assert lines[event.slot] == []
                        idle.add(event.slot)
                    case SlotReturned():
                        lines[event.slot].remove(int(event.task))
                        waiting.appendleft(int(event.task))
                    case SlotDone():
                        lines[event.slot].remove(int(event.task))
                        ends[int(event.task)] += 1
                        outcomes[int(event.task)] = event.outcome
                    case OutputChunk():
                        output[int(event.task)] = output.get(int(event.task), b"") + event.data
    finally:
        driver.pool.close()
    begins = Counter(int(line) for line in notes.read_text().split())
    assert set(ends) == set(range(1000))
    assert max(ends.values()) == 1
    assert max(begins.values()) == 1
    assert all(outcomes[n] in (Outcome.DIED, Outcome.CANCELLED) for n in dies)
    assert all(n in dies for n, outcome in outcomes.items() if outcome is Outcome.DIED)
    assert all(output.get(n, b"%d\n" % n) == b"%d\n" % n for n in range(1000))
    assert all(n in output for n, outcome in outcomes.items() if outcome is Outcome.RETURNED and n % 3 == 0)
