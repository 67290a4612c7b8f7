"""A short course of killing real processes, in the suite; `make chaos` does it for 90 s, on both databases."""

from __future__ import annotations

from pathlib import Path

import dill
import pytest

from api.models import new_id
from everythingfaas.status import Outcome, State
from tests.chaos import verdict
from tests.chaos.books import AttemptRow, Change, TaskRow
from tests.chaos.clients import Sent
from tests.chaos.processes import Course, run


@pytest.mark.slow
def test_what_is_accepted_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    report = run(tmp_path, Course("sqlite", ("push", "local"), 8, 5, 4, least_faults=4, least_tasks=20, least_lost=1))
    assert report.wrong == []


TASK = new_id()


def changes(*moves: tuple[State, State, int]) -> list[Change]:
    stored = [Change(TASK, "stored", None, None, None)] if moves and moves[-1][1].is_terminal else []
    return [Change(TASK, "moved", *move) for move in moves] + stored


GOOD = (
    (State.QUEUED, State.RUNNING, 1),
    (State.RUNNING, State.QUEUED, 1),
    (State.QUEUED, State.RUNNING, 2),
    (State.RUNNING, State.COMPLETED, 2),
)


@pytest.mark.parametrize(
    ("moves", "says"),
    [
        (GOOD, ""),
        ((*GOOD, (State.COMPLETED, State.FAILED, 2)), "a change after the end"),
        (((State.QUEUED, State.COMPLETED, 1),), "an illegal change"),
        ((*GOOD[:2], (State.QUEUED, State.RUNNING, 1)), "attempt 1 of"),
    ],
)
def test_the_verdict_sees_wrong_changes(moves: tuple[tuple[State, State, int], ...], says: str) -> None:
    found = list(verdict._wrong_changes(changes(*moves)))
    assert any(says in text for text in found) if says else not found


@pytest.mark.parametrize(
    ("token", "outcome", "worker", "starts", "says"),
    [
        ("8.2", Outcome.RETURNED, "host:8", ("7.1", "8.2"), ""),
        ("7.1", Outcome.RETURNED, "host:8", ("7.1", "8.2"), "stale"),
        ("8.1", Outcome.RETURNED, "host:8", ("8.1", "8.2"), "stale"),
        ("9.9", Outcome.RETURNED, "host:8", ("8.2",), "another task"),
        ("8.2", Outcome.LOST, "host:8", ("8.2",), "ended LOST"),
        ("8.2", Outcome.RETURNED, "host:8", ("8.1", "8.2", "8.3", "8.4"), "begun 4 times"),
    ],
)
def test_the_verdict_sees_wrong_results(
    token: str, outcome: Outcome, worker: str, starts: tuple[str, ...], says: str
) -> None:
    sent = Sent(1, TASK, at_most_once=False)
    row = TaskRow(TASK, State.COMPLETED, 2, 2, 0, False, 3)
    attempt = AttemptRow(TASK, 2, worker, 0.0, outcome)
    begun = [verdict._Start(start, int(start.partition(".")[0])) for start in starts]
    found = list(verdict._wrong_task(sent, row, begun, attempt, dill.dumps([1, token])))
    assert any(says in text for text in found) if says else not found


def test_the_verdict_sees_what_is_stuck_or_begun_twice() -> None:
    sent = Sent(1, TASK, at_most_once=True)
    row = TaskRow(TASK, State.RUNNING, 2, 2, 0, True, 3)
    begun = [verdict._Start("7.1", 7), verdict._Start("8.1", 8)]
    found = " ".join(verdict._wrong_task(sent, row, begun, None, None))
    assert "was begun 2 times, and may be 1 times" in found
    assert "stuck" in found
