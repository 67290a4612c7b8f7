"""Which slot a job goes to, and what gets in line behind what."""

from __future__ import annotations

from everythingfaas.wire.messages import Blob, Job
from worker.lines import AHEAD_BYTES, AHEAD_MAX, AHEAD_S, Lines


def a_job(function: str = "short", *, owner: str = "ann", size: int = 10, **options: object) -> Job:
    return Job("t", 1, function, Blob(bytes(size)), owner, None, **options)  # type: ignore[arg-type]


def lines_that_know(*, slots: int = 2, run_s: float = AHEAD_S / 4) -> Lines:
    lines = Lines(slots)
    for slot in range(slots):
        lines.ready(slot)
    lines.ran("short", run_s)
    lines.ran("long", 1.0)
    return lines


def placed(lines: Lines, *jobs: Job) -> list[int | None]:
    """As a session does it: what goes to a free slot begins at once."""
    slots = []
    for job in jobs:
        key = (f"t{id(job)}", 1)
        slot = lines.place(key, job)
        slots.append(slot)
    return slots


def test_free_slots_come_first_and_then_the_line_with_the_least_work() -> None:
    lines = lines_that_know()
    assert sorted(placed(lines, a_job(), a_job()), key=str) == [0, 1]
    assert sorted(placed(lines, a_job(), a_job()), key=str) == [0, 1]


def test_a_line_is_no_longer_than_what_is_over_in_a_moment() -> None:
    lines = lines_that_know(slots=1)
    assert placed(lines, *[a_job() for _ in range(6)]) == [0, 0, 0, 0, None, None]


def test_a_line_has_so_many_at_most() -> None:
    lines = lines_that_know(slots=1, run_s=1e-7)
    assert placed(lines, *[a_job() for _ in range(AHEAD_MAX + 3)]) == [0] * (AHEAD_MAX + 1) + [None, None]


def test_nothing_gets_in_line_behind_what_is_long_or_not_known() -> None:
    for function in ("long", "unknown"):
        lines = lines_that_know(slots=1)
        assert placed(lines, a_job(function), a_job()) == [0, None]


def test_what_is_long_not_known_large_or_needs_a_process_of_its_own_waits_for_a_free_slot() -> None:
    for job in (
        a_job("long"),
        a_job("unknown"),
        a_job(size=AHEAD_BYTES + 1),
        a_job(fresh=True),
        a_job(memory_limit_mb=100),
        a_job(owner="bob"),
    ):
        lines = lines_that_know(slots=1)
        assert placed(lines, a_job(), job) == [0, None]


def test_who_holds_up_others_gets_nobody_behind_until_it_is_done() -> None:
    lines = lines_that_know(slots=1)
    lines.place(("a", 1), a_job())
    lines.place(("b", 1), a_job())
    assert list(lines.behind()) == [0]
    lines.ask_back(0)
    assert list(lines.behind()) == []
    lines.returned(0, ("b", 1))
    assert placed(lines, a_job()) == [None]
    lines.done(0, ("a", 1))
    lines.ready(0)
    assert placed(lines, a_job(), a_job()) == [0, 0]


def test_nothing_is_sent_again_to_a_slot_that_has_returned_something() -> None:
    lines = lines_that_know(slots=1)
    lines.place(("a", 1), a_job())
    lines.place(("b", 1), a_job())
    lines.returned(0, ("b", 1))
    assert placed(lines, a_job()) == [None]
    lines.returned(0, ("a", 1))
    assert placed(lines, a_job()) == [None]
    lines.ready(0)
    assert placed(lines, a_job()) == [0]


def test_one_that_began_although_it_was_to_come_back_is_what_runs() -> None:
    lines = lines_that_know(slots=1)
    lines.place(("a", 1), a_job())
    lines.place(("b", 1), a_job())
    lines.ask_back(0)
    lines.done(0, ("a", 1))
    lines.begun(0, ("b", 1))
    assert lines.running == {0: ("b", 1)}
    assert lines.is_full
    assert placed(lines, a_job()) == [None]
