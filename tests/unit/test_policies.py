"""What follows when an attempt ends: the pure functions."""

from __future__ import annotations

import doctest

import dill
import pytest

from dispatcher import policies
from dispatcher.policies import backoff, verdict
from dispatcher.store import Claimed, Ended, Policy, Released
from everythingfaas.status import Event, Outcome
from everythingfaas.wire.messages import Blob, Error, Report


def ended(policy: Policy, outcome: Outcome, error: Error | None = None, *, failures: int = 0, chance: float = 0.0):
    task = Claimed("t", 1, "1", "f", b"", policy, failures=failures)
    report = Report("t", 1, outcome, Blob(b"result"), True, 0.1, 0.0, 0, error)
    return verdict(task, report, worker="w", cancelled=False, chance=chance)


def raised(name: str, policy: Policy, **kwargs):
    return ended(policy, Outcome.RAISED, Error(name, "wrong", ""), **kwargs)


def test_the_examples_hold() -> None:
    assert doctest.testmod(policies).failed == 0


@pytest.mark.parametrize(
    ("name", "retry_on", "is_retried"),
    [
        ("ValueError", (), True),
        ("ValueError", ("ValueError",), True),
        ("ValueError", ("OSError", "ValueError"), True),
        ("ValueError", ("OSError",), False),
        ("requests.exceptions.Timeout", ("requests.exceptions.Timeout",), True),
        ("requests.exceptions.Timeout", ("Timeout",), True),
        ("requests.exceptions.Timeout", ("exceptions.Timeout",), False),
        ("requests.exceptions.Timeout", ("other.Timeout",), False),
        ("Outer.Inner", ("Inner",), True),
    ],
)
def test_only_what_is_named_is_tried_again(name: str, retry_on: tuple[str, ...], is_retried: bool) -> None:
    decision = raised(name, Policy(retries=3, retry_on=retry_on))
    assert isinstance(decision, Released) is is_retried
    if not is_retried:
        assert isinstance(decision, Ended)
        assert (decision.event, decision.result) == (Event.FAIL, b"result")


def test_names_alone_ask_for_no_retry() -> None:
    assert isinstance(raised("ValueError", Policy(retry_on=("ValueError",))), Ended)


def test_chance_lengthens_a_wait_and_never_shortens_it() -> None:
    policy = Policy(retries=5, backoff_s=2.0)
    delays = [raised("E", policy, failures=2, chance=chance).delay_s for chance in (0.0, 0.5, 1.0)]
    assert delays == [8.0, 10.0, 12.0]
    assert backoff(Policy(backoff_s=0.0), 3, 1.0) == 0.0


def test_retries_are_counted() -> None:
    assert isinstance(raised("E", Policy(retries=2), failures=1), Released)
    assert isinstance(raised("E", Policy(retries=2), failures=2), Ended)


def test_how_much_memory_was_used_is_told() -> None:
    error = Error("WorkerFailure", "process killed because it used 80.1 MiB of memory, and its limit is 64 MiB", "")
    decision = ended(Policy(max_attempts=1, memory_limit_mb=64), Outcome.MEMORY, error)
    assert isinstance(decision, Ended)
    assert "used 80.1 MiB of memory, and its limit is 64 MiB" in str(dill.loads(decision.result))
    assert decision.summary.startswith("WorkerFailure: process killed because it used 80.1 MiB")
    assert decision.died


def test_what_the_worker_ended_says_why_and_not_by_which_signal() -> None:
    error = Error("WorkerFailure", "the function closed its descriptors", "")
    decision = ended(Policy(max_attempts=1), Outcome.DIED, error)
    assert isinstance(decision, Ended)
    assert "the function closed its descriptors; that was attempt 1 of 1" in str(dill.loads(decision.result))
