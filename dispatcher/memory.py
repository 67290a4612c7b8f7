"""A store without a database: the same moves by the same table, for tests and simulation of all above it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.policies import as_cancelled, is_loss, share_out
from dispatcher.store import (
    DEFAULT_POLICY,
    Begin,
    Claimed,
    Ended,
    Exchange,
    Exchanged,
    Policy,
    Registration,
    Released,
    Unmatched,
)
from everythingfaas.failures import TaskCancelled, WorkerFailure, dump
from everythingfaas.pythons import Minor, matches
from everythingfaas.status import Event, State, check_move


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
    state: State = State.QUEUED
    attempt: int = 0
    starts: int = 0
    deaths: int = 0
    failures: int = 0
    begun: bool = False
    begun_attempt: int = 0
    requirements: str = ""
    queued_at: float = 0.0
    cancel_requested: bool = False
    result: bytes | None = None
    history: list[tuple[Event, int]] = field(default_factory=list)


class MemoryStore:
    """A `TaskStore` without a database: the same moves, by the same table."""

    def __init__(self, dispatcher: str = "memory", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.tasks: dict[str, MemoryTask] = {}
        self.functions: dict[str, bytes] = {}
        self.epoch = 0
        self.generation = 1
        self._dispatcher = dispatcher
        self._slots = 0
        self._given: dict[str, None] = {}
        self._queue: deque[str] = deque()

    def submit(self, task: MemoryTask) -> None:
        task.queued_at = self._clock()
        self.tasks[task.task] = task
        self._queue.append(task.task)

    def cancel(self, task: str) -> None:
        """As the web does: at once while it is queued, on request when it runs."""
        row = self.tasks[task]
        if row.state is State.QUEUED:
            self._move(row, Event.WITHDRAW)
        elif row.state is State.RUNNING:
            row.cancel_requested = True

    def register(self, *, mode: str, slots: int) -> Registration:
        self.epoch += 1
        former, self._slots = self._slots, slots
        return Registration(self._dispatcher, self.epoch, self.generation, self._held(), former)

    def exchange(self, exchange: Exchange) -> Exchanged:
        answer = Exchanged()
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
            row = self.tasks.get(key[0])
            if row is not None and row.state is State.RUNNING and row.attempt == key[1]:
                answer.adopted.append(self._claimed(row))
            else:
                answer.refused.append(key)
        if exchange.look:
            answer.cancelled = [
                (row.task, row.attempt)
                for row in self.tasks.values()
                if row.cancel_requested and row.state is State.RUNNING
            ]
            self._look_for_unmatched(exchange.pythons, answer)
        for unmatched in exchange.unmatched:
            self._reject(unmatched)
        if exchange.recall:
            answer.held = self._held()
        self._claim(exchange, answer)
        return answer

    def close(self) -> None:
        """Nothing is held open."""

    def _held(self) -> list[Claimed]:
        return [self._claimed(self.tasks[task]) for task in self._given]

    def _claim(self, exchange: Exchange, answer: Exchanged) -> None:
        ready = [self.tasks[task] for task in self._queue if self.tasks[task].state is State.QUEUED]
        ready.sort(key=lambda row: -row.priority)
        able = [frozenset(python for python in exchange.room if matches(row.requirements, python)) for row in ready]
        share = share_out([pythons for pythons in able if pythons], exchange.room)
        if len(exchange.room) > 1:
            answer.left = share.left
        for row, pythons in zip(ready, able, strict=True):
            if not share.given[pythons]:
                continue
            share.given[pythons] -= 1
            self._move(row, Event.CLAIM)
            row.attempt += 1
            if row.policy.at_most_once:
                row.starts += 1
            self._given[row.task] = None
            answer.claimed.append(self._claimed(row))
        self._queue = deque(task for task in self._queue if self.tasks[task].state is State.QUEUED)

    def _look_for_unmatched(self, pythons: frozenset[Minor], answer: Exchanged) -> None:
        queued = {row.requirements for row in self.tasks.values() if row.state is State.QUEUED} if pythons else set()
        answer.pythons = pythons
        answer.unmatched = sorted(r for r in queued if not any(matches(r, python) for python in pythons))

    def _reject(self, unmatched: Unmatched) -> None:
        queued_before = self._clock() - unmatched.waited_s
        for row in self.tasks.values():
            is_there = row.state is State.QUEUED and row.requirements == unmatched.requirements
            if is_there and row.queued_at <= queued_before:
                self._move(row, Event.REJECT)
                row.result = dump(WorkerFailure(unmatched.message))

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

    def _begin(self, begin: Begin) -> None:
        row = self.tasks[begin.task]
        if row.state is State.RUNNING and row.attempt == begin.attempt and row.begun_attempt != row.attempt:
            self._count_begin(row)

    def _count_begin(self, row: MemoryTask) -> None:
        row.begun, row.begun_attempt = True, row.attempt
        if not row.policy.at_most_once:
            row.starts += 1

    def _end(self, ended: Ended, event: Event) -> bool:
        row = self.tasks[ended.task]
        if row.state is not State.RUNNING or row.attempt != ended.attempt:
            return False
        if ended.begun and row.begun_attempt != row.attempt:
            self._count_begin(row)
        row.deaths += ended.died
        row.failures += ended.raised
        self._move(row, event)
        self._given.pop(row.task, None)
        return True

    def _release(self, released: Released) -> None:
        row = self.tasks[released.task]
        # What somebody has asked to end is not begun once more.
        event = Event.CANCEL if row.cancel_requested else Event.REQUEUE
        if released.ended is not None:
            if self._end(released.ended, event):
                self._reopened(row)
            return
        if row.state is not State.RUNNING or row.attempt != released.attempt:
            return
        if row.policy.at_most_once and event is Event.REQUEUE:
            row.starts -= 1
        self._move(row, event)
        self._given.pop(row.task, None)
        self._reopened(row)

    def _reopened(self, row: MemoryTask) -> None:
        if row.state is State.QUEUED:
            self._queue.append(row.task)
        else:
            row.result = dump(TaskCancelled("cancelled"))

    def _move(self, row: MemoryTask, event: Event) -> None:
        row.state = check_move(row.state, event)
        row.history.append((event, row.attempt))
