"""Decisions, as pure functions: which worker, how many tasks ahead, and what follows when an attempt ends."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable
from typing import Protocol, TypeVar

from dispatcher.store import Claimed, Ended, Released
from everythingfaas.failures import TaskCancelled, WorkerFailure, dump
from everythingfaas.status import Event, Outcome
from everythingfaas.wire.messages import Report

#: So many deaths of its own process, and a task is poison: FAILED, whatever its policy allows.
MAX_DEATHS = 3
#: Work that a worker gets beyond its slots lasts about this long: it covers the way to the database and back.
PREFETCH_S = 0.005
#: And is never more than so many tasks for each slot.
PREFETCH_MAX = 16
#: While short tasks are given out, a turn with the store waits so long for each of them after the last one,
GATHER_S = 0.00025
#: and never longer than this.
GATHER_MAX_S = 0.005
#: The longest wait before a retry.
BACKOFF_MAX_S = 3600.0


class Load(Protocol):
    """What choosing a worker looks at."""

    @property
    def slots(self) -> int: ...
    @property
    def load(self) -> int: ...
    @property
    def draining(self) -> bool: ...


L = TypeVar("L", bound=Load)


def choose(workers: Iterable[L]) -> L | None:
    """The worker with the smallest share of its slots taken, or None where none takes anything.

    What was claimed was claimed for somebody: it goes out even if less room is left than was then, since going
    back to the queue and out again would cost it more than waiting a little longer in line.

    >>> choose([])
    """
    return min((worker for worker in workers if not worker.draining), key=lambda w: w.load / w.slots, default=None)


def prefetch(slots: int, run_s: float) -> int:
    """How many tasks a worker gets beyond its slots when tasks run for `run_s` on average.

    Short tasks travel many at a time, so that no slot waits for a commit; a task that outlasts the way to
    the database is never sent ahead, where it would wait behind another although a slot elsewhere is free.

    >>> prefetch(4, 0.5), prefetch(4, 0.001), prefetch(4, 0.0001)
    (0, 20, 64)
    """
    return min(int(slots * PREFETCH_S / max(run_s, 1e-6)), slots * PREFETCH_MAX)


class Pace:
    """When the next turn with the store is due, after the last one.

    A transaction costs about the same with one end in it or with twenty, and all who write wait for it. So while short
    tasks are given out, which will have ended in a moment, the next turn waits for them: what ends is written together,
    and what is claimed with it lasts longer. Of a lone task neither claim nor end waits, for nothing else is given out.
    """

    def __init__(self) -> None:
        self.due = math.inf  #: what the next turn waits for; infinite if for nothing

    def answered(self, short: int, now: float) -> None:
        """A turn is over, and `short` attempts are at workers whose tasks are short."""
        self.due = now + min(short * GATHER_S, GATHER_MAX_S)

    def allows(self, short: int, now: float) -> bool:
        """Whether the next turn may be now, with so many of them left."""
        if short and now < self.due:
            return False
        self.due = math.inf
        return True


def verdict(task: Claimed, report: Report, *, worker: str, cancelled: bool) -> Ended | Released:
    """What becomes of `task` after an attempt that ended as `report` says.

    Args:
        worker: its name, for the record.
        cancelled: somebody has asked to end the task.
    """
    outcome = report.outcome
    starts = task.starts + (report.begun and not task.begun and not task.policy.at_most_once)
    died = report.begun and outcome in (Outcome.DIED, Outcome.MEMORY, Outcome.LOST)
    raised = outcome is Outcome.RAISED

    def ended(event: Event, result: bytes, summary: str = "") -> Ended:
        return Ended(
            task.task,
            task.attempt,
            event,
            outcome,
            result,
            begun=report.begun,
            elapsed_s=report.elapsed_s,
            ago_s=report.ago_s,
            died=died,
            raised=raised,
            summary=summary,
            worker=worker,
            slot=report.slot,
            exit_code=report.exit_code,
            exit_signal=report.exit_signal,
            error=report.error,
            head=report.head,
            tail=report.tail,
            dropped=report.dropped,
        )

    def give_up(message: str) -> Ended:
        return ended(Event.FAIL, dump(WorkerFailure(message)), f"WorkerFailure: {message}")

    if outcome is Outcome.RETURNED:
        return ended(Event.COMPLETE, report.result.data)
    if cancelled or outcome is Outcome.CANCELLED:
        return ended(Event.CANCEL, dump(TaskCancelled("the task was cancelled")), "TaskCancelled")
    if outcome is Outcome.DEADLINE:
        return give_up(
            f"function exceeded deadline of {task.deadline_s:g} s" if task.deadline_s else "exceeded deadline"
        )
    if raised:
        if task.failures < task.policy.retries and not task.policy.at_most_once:
            return Released(
                ended(Event.POSTPONE, b"", _summary(report)),
                task.task,
                task.attempt,
                min(task.policy.backoff_s * 2.0 ** min(task.failures, 64), BACKOFF_MAX_S),
            )
        return ended(Event.FAIL, report.result.data, _summary(report))
    if not report.begun:
        return Released(None, task.task, task.attempt)
    what = describe(outcome, report)
    if task.policy.at_most_once:
        return give_up(f"{what}; it may have had effects, and its policy allows one start only")
    if task.deaths + 1 >= MAX_DEATHS:
        return give_up(f"{what}; its process died {task.deaths + 1} times")
    if starts >= task.policy.max_attempts:
        return give_up(f"{what}; that was attempt {starts} of {task.policy.max_attempts}")
    return Released(ended(Event.REQUEUE, b"", f"WorkerFailure: {what}"), task.task, task.attempt)


def failed(task: Claimed, message: str) -> Ended:
    """The end of a task that cannot be run at all."""
    return Ended(
        task.task,
        task.attempt,
        Event.FAIL,
        Outcome.LOST,
        dump(WorkerFailure(message)),
        begun=False,
        elapsed_s=0.0,
        ago_s=0.0,
        summary=f"WorkerFailure: {message}",
    )


def describe(outcome: Outcome, report: Report) -> str:
    """How a process ended, in words."""
    if outcome is Outcome.STOPPED:
        return "its worker was stopped while the function ran"
    if outcome is Outcome.LOST:
        return "worker lost while the function ran"
    if outcome is Outcome.MEMORY:
        return "process killed for using more memory than it may"
    if report.exit_signal is not None:
        return f"process died of signal {report.exit_signal} ({signal_name(report.exit_signal)})"
    return f"process ended with exit code {report.exit_code} before the function returned"


def signal_name(number: int) -> str:
    """The name of a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _summary(report: Report) -> str:
    error = report.error
    return f"{error.type_name}: {error.message}"[:200] if error else ""
