"""Decisions, as pure functions: which worker, how many tasks ahead, and what follows when an attempt ends."""

from __future__ import annotations

import itertools
import math
import signal
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from dispatcher.store import Claimed, Ended, Policy, Released
from everythingfaas.failures import TaskCancelled, WorkerFailure, dump
from everythingfaas.pythons import Minor, allowed, names
from everythingfaas.status import Event, Outcome
from everythingfaas.wire.messages import Report

#: So many deaths of its own process, and a task is poison: FAILED, whatever its policy allows.
MAX_DEATHS = 3
#: Work that a worker gets beyond its slots lasts at least so long: it covers the way to the database and back,
PREFETCH_S = 0.005
#: where that takes longer, so many turns with the store: one that ends tasks, one that claims, one for the way.
PREFETCH_TURNS = 3
#: And is never more than so many tasks for each slot.
PREFETCH_MAX = 128
#: Of tasks that are shorter than this each slot gets at least the next one.
NEXT_S = 0.25
#: A task that is shorter will have ended in a moment.
SHORT_S = 0.02
#: While short tasks are given out, a turn with the store waits so long for each of them after the last one,
GATHER_S = 0.00025
#: and never longer than this.
GATHER_MAX_S = 0.005
_LOSSES = (Outcome.DIED, Outcome.MEMORY, Outcome.LOST, Outcome.STOPPED)
#: The longest wait before a retry.
BACKOFF_MAX_S = 3600.0
#: What becomes of an interpreter that runs another one's code.
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL})


class Load(Protocol):
    """What choosing a worker looks at."""

    @property
    def slots(self) -> int: ...
    @property
    def load(self) -> int: ...
    @property
    def takes(self) -> bool: ...


L = TypeVar("L", bound=Load)


class Share(NamedTuple):
    """What `share_out` gives out."""

    given: Counter[frozenset[Minor]]  #: how many tasks, by the Pythons that may run them
    left: frozenset[Minor]  #: the Pythons that could run more, had their workers room


def choose(workers: Iterable[L]) -> L | None:
    """The worker with the smallest share of its slots taken, or None where none takes anything.

    What was claimed was claimed for somebody: it goes out even if less room is left than was then, since going
    back to the queue and out again would cost it more than waiting a little longer in line.

    >>> choose([])
    """
    return min((worker for worker in workers if worker.takes), key=lambda w: w.load / w.slots, default=None)


def prefetch(slots: int, run_s: float, turn_s: float = 0.0) -> int:
    """How many tasks a worker gets beyond its slots when tasks run for `run_s` on average, and a turn with the store
    takes `turn_s`.

    Short tasks travel many at a time, so that no slot waits for a commit. A long one is not sent ahead, where it
    would wait behind another although a slot elsewhere is free; and if what was sent ahead waits behind a task that
    is longer than the average, the worker gives it back (`worker.session.STALL_S`).

    >>> prefetch(4, 0.5), prefetch(4, 0.2), prefetch(4, 0.001), prefetch(4, 0.001, turn_s=0.01)
    (0, 4, 20, 140)
    """
    ahead_s = max(PREFETCH_S, GATHER_MAX_S + PREFETCH_TURNS * turn_s)
    wanted = int(slots * ahead_s / max(run_s, 1e-6))
    if run_s < NEXT_S:
        wanted = max(wanted, slots)
    return min(wanted, slots * PREFETCH_MAX)


def share_out(order: Iterable[frozenset[Minor]], room: Mapping[Minor, int]) -> Share:
    """How many queued tasks to give out to workers of several Pythons.

    Args:
        order: for each task, the first one first, the Pythons that may run it, of those that there is room for.
        room: how many tasks the workers of each Python take.

    A task is given out if a place for it is left, whichever of the earlier ones stands where: that is so as long as
    no set of Pythons has more tasks that only they may run than places. (So what any may run does not take the
    place of what only one may.) Who comes first is served first, and no place stays empty that somebody could have.

    >>> old, new = (3, 11), (3, 12)
    >>> share = share_out([frozenset({old, new}), frozenset({old}), frozenset({old})], {old: 1, new: 1})
    >>> dict(share.given) == {frozenset({old, new}): 1, frozenset({old}): 1}, share.left
    (True, frozenset({(3, 11)}))
    """
    teams = [frozenset(team) for n in range(1, len(room) + 1) for team in itertools.combinations(room, n)]
    places = {team: sum(room[python] for python in team) for team in teams}
    given: Counter[frozenset[Minor]] = Counter()
    refused: set[frozenset[Minor]] = set()
    for able in order:
        wider = [team for team in teams if able <= team]
        if not able or able in refused or not all(places[team] for team in wider):
            refused.add(able)
            continue
        given[able] += 1
        for team in wider:
            places[team] -= 1
    return Share(given, frozenset().union(*refused))


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


def verdict(
    task: Claimed,
    report: Report,
    *,
    worker: str,
    cancelled: bool,
    chance: float = 0.0,
    foreign: Minor | None = None,
) -> Ended | Released:
    """What becomes of `task` after an attempt that ended as `report` says.

    Args:
        worker: its name, for the record.
        cancelled: somebody has asked to end the task.
        chance: from 0 to 1, a different one each time: spreads retries that would come all at once.
        foreign: the Python that ran it, if the function may be another one's and has never ended well there.
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
        if task.failures < task.policy.retries and not task.policy.at_most_once and _is_retried(task.policy, report):
            return Released(
                ended(Event.POSTPONE, b"", _summary(report)),
                task.task,
                task.attempt,
                backoff(task.policy, task.failures, chance),
            )
        return ended(Event.FAIL, report.result.data, _summary(report))
    if not report.begun:
        return Released(None, task.task, task.attempt)
    what = describe(outcome, report)
    if foreign is not None and outcome is Outcome.DIED and report.exit_signal in CRASHES:
        return give_up(f"{what}; {_written_elsewhere(task, foreign)}")
    if task.policy.at_most_once:
        return give_up(f"{what}; it may have had effects, and its policy allows one start only")
    if task.deaths + 1 >= MAX_DEATHS:
        return give_up(f"{what}; its process died {task.deaths + 1} times")
    if starts >= task.policy.max_attempts:
        return give_up(f"{what}; that was attempt {starts} of {task.policy.max_attempts}")
    return Released(ended(Event.REQUEUE, b"", f"WorkerFailure: {what}"), task.task, task.attempt)


def is_loss(ended: Ended) -> bool:
    """Whether the task fails because of what happened to its attempt, and not by what the function did."""
    return ended.event is Event.FAIL and ended.outcome in _LOSSES


def as_cancelled(ended: Ended) -> Ended:
    """The same end of a task that somebody has asked to cancel, of which the dispatcher had not heard yet."""
    result = dump(TaskCancelled("the task was cancelled"))
    return replace(ended, event=Event.CANCEL, result=result, summary="TaskCancelled")


def backoff(policy: Policy, failures: int, chance: float) -> float:
    """How long a retry waits after `failures` earlier ones: the back-off, doubled for each, and up to half as much
    again by chance.

    >>> policy = Policy(backoff_s=2.0)
    >>> backoff(policy, 0, 0.0), backoff(policy, 3, 0.0), backoff(policy, 3, 1.0), backoff(policy, 99, 0.0)
    (2.0, 16.0, 24.0, 3600.0)
    """
    return min(policy.backoff_s * 2.0 ** min(failures, 64), BACKOFF_MAX_S) * (1.0 + chance / 2.0)


def _is_retried(policy: Policy, report: Report) -> bool:
    """Whether what was raised is named by `retry_on`, with or without its module."""
    if not policy.retry_on:
        return True
    name = report.error.type_name if report.error else ""
    return name in policy.retry_on or name.rpartition(".")[2] in policy.retry_on


def _written_elsewhere(task: Claimed, python: Minor) -> str:
    here = names([python])
    maybe = names(allowed(task.requirements) or (), ", ")
    return (
        f"the function was probably written by another Python than the worker's {here}"
        f" (by its code {f'one of {maybe}' if maybe else 'none that we know'}): register it again from Python {here},"
        " or say with `python` which one wrote it, and have a worker of that"
    )


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
        return report.error.message if report.error else "process killed for using more memory than it may"
    if report.error is not None:  # the worker ended the process, and says why: the signal would tell less
        return report.error.message
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
