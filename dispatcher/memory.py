"""A store without a database: the same moves by the same table, for tests and simulation of all above it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.policies import as_cancelled, is_loss, share_out
from dispatcher.store import (
    DEFAULT_POLICY,
    LEASE_S,
    Begin,
    Claimed,
    Ended,
    Exchange,
    Exchanged,
    Policy,
    Registration,
    Released,
    Taken,
    Unmatched,
)
from everythingfaas.failures import TaskCancelled, WorkerFailure, dump
from everythingfaas.pythons import Minor, matches
from everythingfaas.status import Event, State, check_move

#: A lease that ends later than this from now was written before the clock was set back, and is none.
LEASE_MAX_S = 60.0


@dataclass(slots=True)
class MemoryTask:
    """A task of the `MemoryStore`."""

    task: str
    function: str
    payload: bytes = b""
    owner: str = "1"
    policy: Policy = DEFAULT_POLICY
    deadline_s: float | None = None
    priority: int = 0
    expires_at: float | None = None
    state: State = State.QUEUED
    attempt: int = 0
    starts: int = 0
    deaths: int = 0
    failures: int = 0
    begun: bool = False
    begun_attempt: int = 0
    requirements: str = ""
    number: int = 0
    queued_at: float = 0.0
    run_after: float = 0.0
    dispatcher: str = ""
    cancel_requested: bool = False
    result: bytes | None = None
    history: list[tuple[Event, int]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, int]:
        return self.task, self.attempt


@dataclass(slots=True)
class MemoryDispatcher:
    """The row of a dispatcher."""

    epoch: int
    slots: int
    lease_until: float


class MemoryData:
    """What several stores share: all that would be in the database, and its clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.tasks: dict[str, MemoryTask] = {}
        self.functions: dict[str, bytes] = {}
        self.dispatchers: dict[str, MemoryDispatcher] = {}
        self.generation = 1
        self.epochs: dict[str, int] = {}  # the last ones: a row may be removed, and its epochs never come again
        self.given: dict[str, None] = {}  # tasks with an attempt, in the order of their claims
        self.open: dict[str, None] = {}  # tasks without one, to be claimed in the order of their numbers

    def is_live(self, dispatcher: str) -> bool:
        """Whether its lease is not out."""
        row = self.dispatchers.get(dispatcher)
        return row is not None and self.clock() <= row.lease_until <= self.clock() + LEASE_MAX_S

    def restored(self) -> None:
        """This database is not the one that processes knew."""
        self.generation += 1
        for name, row in self.dispatchers.items():
            row.epoch = self.epochs[name] = row.epoch + 1


class MemoryStore:
    """A `TaskStore` without a database: the same moves, by the same table.

    Args:
        dispatcher: whose store it is.
        data: shared with the stores of other dispatchers; else it is this one's alone, with `clock`.
    """

    def __init__(
        self,
        dispatcher: str = "memory",
        *,
        clock: Callable[[], float] = time.monotonic,
        data: MemoryData | None = None,
    ) -> None:
        self.data = data or MemoryData(clock)
        self.tasks = self.data.tasks
        self.functions = self.data.functions
        self.epoch = 0
        self._dispatcher = dispatcher

    # --- what the web does

    def submit(self, task: MemoryTask) -> None:
        task.number = len(self.tasks)
        task.queued_at = self.data.clock()
        self.tasks[task.task] = task
        self.data.open[task.task] = None

    def cancel(self, task: str) -> None:
        """As the web does: at once while it waits, on request when it runs."""
        row = self.tasks[task]
        if row.state in (State.QUEUED, State.WAITING):
            self._move(row, Event.WITHDRAW)
            row.result = dump(TaskCancelled("cancelled"))
        elif row.state is State.RUNNING:
            row.cancel_requested = True

    # --- what the dispatcher does

    def register(self, *, mode: str, slots: int) -> Registration:
        data, me = self.data, self._dispatcher
        former = data.dispatchers[me].slots if me in data.dispatchers else 0
        self.epoch = data.epochs[me] = data.epochs.get(me, 0) + 1
        data.dispatchers[me] = MemoryDispatcher(self.epoch, max(slots, former), data.clock() + LEASE_S)
        return Registration(me, self.epoch, data.generation, self._held(me), former)

    def exchange(self, exchange: Exchange) -> Exchanged:
        answer = Exchanged()
        if exchange.renew:
            answer.lease_lost = not self._renew(exchange.slots)
        for begin in exchange.begun:
            self._begin(begin)
        for ended in exchange.ended:
            if is_loss(ended) and self.tasks[ended.task].cancel_requested:
                ended = as_cancelled(ended)  # noqa: PLW2901
            if not self._end(ended, ended.event):
                answer.stale += 1
            else:
                self.tasks[ended.task].result = ended.result
        for released in exchange.released:
            self._release(released)
        answer.functions = {name: self.functions[name] for name in exchange.functions if name in self.functions}
        for key in exchange.adopt:
            self._adopt(key, answer)
        if exchange.look:
            self._look(exchange, answer)
        for unmatched in exchange.unmatched:
            self._reject(unmatched)
        if exchange.recall:
            answer.held = self._held(self._dispatcher)
        if not answer.lease_lost:
            answer.taken = [self._take_over(former) for former in exchange.take_over]
            self._claim(exchange, answer)
        return answer

    def close(self) -> None:
        """Gives up the lease."""
        row = self.data.dispatchers.get(self._dispatcher)
        if row is not None and row.epoch == self.epoch:
            row.lease_until = 0.0
            if not self._held(self._dispatcher):
                del self.data.dispatchers[self._dispatcher]

    # --- leases

    def _is_live(self, dispatcher: str) -> bool:
        return self.data.is_live(dispatcher)

    def _renew(self, slots: int | None) -> bool:
        row = self.data.dispatchers.get(self._dispatcher)
        if row is None or row.epoch != self.epoch:
            return False
        row.lease_until = self.data.clock() + LEASE_S
        row.slots = row.slots if slots is None else slots
        return True

    def _lapsed(self) -> list[str]:
        known = {*self.data.dispatchers, *(self.tasks[task].dispatcher for task in self.data.given)}
        return sorted(name for name in known - {self._dispatcher} if not self._is_live(name))

    def _take_over(self, former: str) -> Taken:
        if self._is_live(former):
            return Taken([], 0)
        row = self.data.dispatchers.pop(former, None)
        held = self._held(former)
        for item in held:
            self.tasks[item.task].dispatcher = self._dispatcher
        return Taken(held, 0 if row is None else row.slots)

    def _adopt(self, key: tuple[str, int], answer: Exchanged) -> None:
        row = self.tasks.get(key[0])
        if row is None or row.state is not State.RUNNING or row.attempt != key[1]:
            answer.refused.append(key)
        elif row.dispatcher == self._dispatcher or not self._is_live(row.dispatcher):
            row.dispatcher = self._dispatcher
            answer.adopted.append(self._claimed(row))

    def _held(self, dispatcher: str) -> list[Claimed]:
        rows = (self.tasks[task] for task in self.data.given)
        return [self._claimed(row) for row in rows if row.dispatcher == dispatcher]

    # --- looks

    def _look(self, exchange: Exchange, answer: Exchanged) -> None:
        answer.lapsed = self._lapsed()
        answer.cancelled = [
            row.key
            for row in (self.tasks[task] for task in self.data.given)
            if row.cancel_requested and row.dispatcher == self._dispatcher
        ]
        now = self.data.clock()
        waiting = [self.tasks[task] for task in self.data.open]
        for row in waiting:
            if row.state is State.WAITING and row.run_after <= now:
                self._move(row, Event.PROMOTE)
            if row.expires_at is not None and row.expires_at <= now and not row.begun:
                self._move(row, Event.REJECT)
                row.result = dump(WorkerFailure("expired before it began"))
        self._look_for_unmatched(exchange.pythons, answer)

    def _look_for_unmatched(self, pythons: frozenset[Minor], answer: Exchanged) -> None:
        queued = {row.requirements for row in self._queued()} if pythons else set()
        answer.pythons = pythons
        answer.unmatched = sorted(r for r in queued if not any(matches(r, python) for python in pythons))

    def _reject(self, unmatched: Unmatched) -> None:
        queued_before = self.data.clock() - unmatched.waited_s
        for row in self._queued():
            if row.requirements == unmatched.requirements and row.queued_at <= queued_before:
                self._move(row, Event.REJECT)
                row.result = dump(WorkerFailure(unmatched.message))

    # --- attempts

    def _queued(self) -> list[MemoryTask]:
        rows = (self.tasks[task] for task in self.data.open)
        return sorted((row for row in rows if row.state is State.QUEUED), key=lambda row: (-row.priority, row.number))

    def _claim(self, exchange: Exchange, answer: Exchanged) -> None:
        if not exchange.room:
            return
        now = self.data.clock()
        ready = [row for row in self._queued() if row.begun or row.expires_at is None or row.expires_at > now]
        able = [frozenset(python for python in exchange.room if matches(row.requirements, python)) for row in ready]
        share = share_out([pythons for pythons in able if pythons], exchange.room)
        if len(exchange.room) > 1:
            answer.left = share.left
        for row, pythons in zip(ready, able, strict=True):
            if not share.given[pythons]:
                continue
            share.given[pythons] -= 1
            row.attempt += 1
            self._move(row, Event.CLAIM)
            row.dispatcher = self._dispatcher
            if row.policy.at_most_once:
                row.starts += 1
            answer.claimed.append(self._claimed(row))

    def _claimed(self, row: MemoryTask) -> Claimed:
        return Claimed(
            row.task,
            row.attempt,
            row.owner,
            row.function,
            row.payload,
            row.policy,
            row.deadline_s,
            row.starts,
            row.deaths,
            row.failures,
            begun=row.begun_attempt == row.attempt,
            cancelled=row.cancel_requested,
            requirements=row.requirements,
        )

    def _is_ours(self, task: str, attempt: int) -> bool:
        """Whether this attempt is given out, and in our books."""
        row = self.tasks[task]
        return row.state is State.RUNNING and row.attempt == attempt and row.dispatcher == self._dispatcher

    def _begin(self, begin: Begin) -> None:
        row = self.tasks[begin.task]
        if self._is_ours(begin.task, begin.attempt) and row.begun_attempt != row.attempt:
            self._count_begin(row)

    def _count_begin(self, row: MemoryTask) -> None:
        row.begun, row.begun_attempt = True, row.attempt
        if not row.policy.at_most_once:
            row.starts += 1

    def _end(self, ended: Ended, event: Event) -> bool:
        row = self.tasks[ended.task]
        if not self._is_ours(ended.task, ended.attempt):
            return False
        if ended.begun and row.begun_attempt != row.attempt:
            self._count_begin(row)
        row.deaths += ended.died
        row.failures += ended.raised
        self._move(row, event)
        return True

    def _release(self, released: Released) -> None:
        row = self.tasks[released.task]
        if not self._is_ours(released.task, released.attempt):
            return
        event = Event.REQUEUE if released.ended is None else released.ended.event
        if row.cancel_requested:
            event = Event.CANCEL  # what somebody has asked to end is not begun once more
        if released.ended is not None:
            self._end(released.ended, event)
        else:
            if row.policy.at_most_once and event is Event.REQUEUE and row.begun_attempt != row.attempt:
                row.starts -= 1
            self._move(row, event)
        if event is Event.CANCEL:
            row.result = dump(TaskCancelled("cancelled"))
        row.run_after = row.queued_at = self.data.clock() + released.delay_s

    def _move(self, row: MemoryTask, event: Event) -> None:
        row.state = check_move(row.state, event)
        row.history.append((event, row.attempt))
        self.data.given.pop(row.task, None)
        self.data.open.pop(row.task, None)
        if row.state is State.RUNNING:
            self.data.given[row.task] = None
        elif not row.state.is_terminal:
            self.data.open[row.task] = None
