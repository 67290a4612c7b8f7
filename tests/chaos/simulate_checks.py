"""What has to hold, in the simulation. The cheap half is checked at each commit, begin and send; the rest at the end.

I1   what was accepted has a row, to the end
I2   every task has ended `HEAL_S` after the world has healed
I3   a task ends once: there is one terminal event in its history, and nothing after it
I4   a row that has ended does not change
I5   what is COMPLETED has the result of the very attempt that its row names
I6   there is a result if the task has ended, and only then, and it is of the kind that the state says
I7   starts <= max_attempts + retries, deaths <= 3, failures <= retries + 1
I8   the history is a path in the table of moves (the store raises otherwise), and each claim is one attempt more
I9   an attempt has one owner: it is begun once at the most; it changes from one dispatcher to another, or is given up
     by another one, only after the lease of the first is out (by books of our own); and a worker is never told that
     its attempt is lost while it is the current one
I10  a task that may start once is begun once at the most, over all its attempts
I11  the status at the contract's endpoints never goes back (mirrors in Redis are the real processes' part)
I12  in the end nothing is left: neither attempts nor results nor questions in workers and dispatchers, no busy slot,
     and no row of a dispatcher that is gone for good
I13  no attempt is RUNNING without a live dispatcher for a minute: here that follows from I2, as HEAL_S is less
R6   (the rule "terminal first, then seen") a result is acknowledged only after the commit, be it another dispatcher's
"""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

from dispatcher.books import Send
from dispatcher.memory import LEASE_MAX_S, MemoryTask
from dispatcher.store import LEASE_S, Exchange, Exchanged
from everythingfaas.status import Event, Outcome, State
from everythingfaas.wire.messages import ResultAck
from tests.chaos.simulate_dispatcher import DispatcherProcess
from tests.chaos.simulate_worker import WorkerProcess
from tests.chaos.simulate_world import Observer, World
from worker.events import SlotJob

#: How long it may take after the last fault.
HEAL_S = 55.0

_ENDS = frozenset({Event.COMPLETE, Event.FAIL, Event.CANCEL, Event.REJECT, Event.WITHDRAW})


class Violation(AssertionError):
    """Something that has to hold does not."""


class Checks(Observer):
    """Watches a world. Raises `Violation`."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.begins: Counter[tuple[str, int]] = Counter()
        self.begins_of_task: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._ended: dict[str, tuple[Any, ...]] = {}
        self._rank: dict[str, int] = {}
        self._attempt: dict[str, int] = {}
        self._leases: dict[str, float] = {}
        self._owners: dict[str, tuple[int, str]] = {}  # of tasks that are given out: attempt and dispatcher

    # --- as it happens

    def begun(self, world: World, worker: WorkerProcess, job: SlotJob) -> None:
        key = (job.task, job.attempt)
        self.begins[key] += 1
        self.begins_of_task[job.task] += 1
        self.counts["executions"] += 1
        check(self.begins[key] == 1, f"I9: attempt {key} was begun twice")
        row = world.data.tasks[job.task]
        if row.policy.at_most_once:
            check(self.begins_of_task[job.task] == 1, f"I10: {job.task} may start once, and was begun again")

    def sends(self, world: World, dispatcher: DispatcherProcess, sends: list[Send]) -> None:
        for send in sends:
            message = send.message
            if isinstance(message, ResultAck):
                for attempt in message.attempts:
                    row = world.data.tasks[attempt.task]
                    current = row.state is State.RUNNING and row.attempt == attempt.attempt
                    check(not current, f"R6: {attempt} is acknowledged and not committed")

    def killed(self, world: World, worker: WorkerProcess, job: SlotJob, outcome: Outcome) -> None:
        key = (job.task, job.attempt)
        row = world.data.tasks[job.task]
        if outcome is not Outcome.LOST or row.state is not State.RUNNING or row.attempt != job.attempt:
            return
        books = [d.core._assignments.get(key) for d in world.dispatchers if d.alive]
        # Else somebody has given it up, and is about to write that.
        check(any(a is not None and a.ending for a in books), f"I9: {key} is the current attempt, and killed as lost")

    def registered(self, world: World, dispatcher: str) -> None:
        self._leases[dispatcher] = world.data.clock() + LEASE_S

    def left(self, world: World, dispatcher: str) -> None:
        self._leases[dispatcher] = 0.0

    def before(self, world: World, dispatcher: str) -> None:
        tasks = world.data.tasks
        self._owners = {task: (tasks[task].attempt, tasks[task].dispatcher) for task in world.data.given}

    def committed(self, world: World, dispatcher: str, exchange: Exchange, answer: Exchanged) -> None:
        tasks, clock = world.data.tasks, world.data.clock()
        for name, (attempt, owner) in self._owners.items():
            row = tasks[name]
            has_it = row.state is State.RUNNING and row.attempt == attempt and row.dispatcher == owner
            if owner != dispatcher and not has_it:
                lease = self._leases.get(owner, 0.0)
                check(
                    not clock <= lease <= clock + LEASE_MAX_S,
                    f"I9: {dispatcher} took ({name}, {attempt}) from {owner}, whose lease is not out",
                )
                self.counts["taken over"] += 1
            elif owner != dispatcher:
                continue
            self.look_at(row)
        for item in answer.claimed:
            self.look_at(tasks[item.task])
        if exchange.renew and not answer.lease_lost:
            self._leases[dispatcher] = clock + LEASE_S
        self.counts["stale"] += answer.stale
        self.counts["adopted"] += len(answer.adopted)
        self.counts["leases lost"] += answer.lease_lost

    def look_at(self, row: MemoryTask) -> None:
        """What can be said of one row at any time."""
        before = self._ended.get(row.task)
        now = (row.state, row.attempt, row.result, row.starts, row.deaths, row.failures)
        if before is not None:
            check(before == now, f"I4: {row.task} has ended as {before} and is {now}")
            return
        policy = row.policy
        check(row.starts <= policy.max_attempts + policy.retries, f"I7: {row.task} has {row.starts} starts")
        check(row.deaths <= 3, f"I7: {row.task} has {row.deaths} deaths")
        check(row.failures <= policy.retries + 1, f"I7: {row.task} has {row.failures} failures")
        check(row.attempt >= self._attempt.get(row.task, 0), f"I8: {row.task} went back to attempt {row.attempt}")
        self._attempt[row.task] = row.attempt
        rank = 2 if row.state.is_terminal else int(row.begun)
        check(rank >= self._rank.get(row.task, 0), f"I11: the status of {row.task} went back")
        self._rank[row.task] = rank
        if row.state.is_terminal:
            self._ended[row.task] = now
            self._check_result(row)
        else:
            check(row.result is None, f"I6: {row.task} is {row.state.name} and has a result")

    def _check_result(self, row: MemoryTask) -> None:
        check(row.result is not None, f"I6: {row.task} is {row.state.name} without a result")
        result = row.result or b""
        if row.state is State.COMPLETED:
            check(
                result == f"{row.task}/{row.attempt}".encode(),
                f"I5: ({row.task}, {row.attempt}) has the result {result!r}",
            )
            return
        if row.state is State.FAILED and result == f"{row.task}/{row.attempt}".encode():
            return  # what this attempt raised
        try:
            kind = type(pickle.loads(result)).__name__
        except Exception:  # noqa: BLE001 -- whatever it is, it is no failure of ours
            kind = repr(result)
        wanted = "TaskCancelled" if row.state is State.CANCELLED else "WorkerFailure"
        check(kind == wanted, f"I6: {row.task} is {row.state.name} with {kind} as its result")

    # --- in the end

    def at_the_end(self, world: World) -> None:
        tasks = world.data.tasks
        for name in self.accepted:
            check(name in tasks, f"I1: {name} was accepted, and is not there")
        for row in tasks.values():
            check(
                row.state.is_terminal, f"I2: {row.task} is {row.state.name}, attempt {row.attempt} at {row.dispatcher}"
            )
            self.look_at(row)
            self.look_at(row)
            ends = [n for n, (event, _) in enumerate(row.history) if event in _ENDS]
            check(ends == [len(row.history) - 1], f"I3: the history of {row.task} is {row.history}")
            claims = [attempt for event, attempt in row.history if event is Event.CLAIM]
            check(claims == list(range(1, row.attempt + 1)), f"I8: the claims of {row.task} are {claims}")
            self.counts[row.state.name] += 1
        for left in leftovers(world):
            check(False, f"I12: {left}")


def leftovers(world: World) -> list[str]:
    """What there is although every task has ended."""
    found = []
    for worker in world.workers:
        if worker.alive:
            session = worker.session
            for what in ("_held", "_queue", "_wanting", "_unsent"):
                found += [f"{worker.name} has {what} {value}" for value in [getattr(session, what)] if value]
            if session._lines.running or session._lines.has_behind:
                found.append(f"{worker.name} believes that its slots have {session._lines.running}")
            if worker.running:
                found.append(f"{worker.name} runs {worker.running}")
    for dispatcher in world.dispatchers:
        if dispatcher.alive:
            core = dispatcher.core
            for what in ("_assignments", "_acks", "_early", "_adopting", "_orphans", "_shelf"):
                found += [f"{dispatcher.name} has {what} {value}" for value in [getattr(core, what)] if value]
            found += [f"{dispatcher.name} counts {w.load} at {w.peer!r}" for w in core.workers if w.load or w.assigned]
        elif dispatcher.is_gone and dispatcher.name in world.data.dispatchers:
            found.append(f"the row of {dispatcher.name} is there")
    return found


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)
