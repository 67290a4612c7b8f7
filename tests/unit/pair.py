"""A scheduler and worker sessions with a list between them, for tests of both as a pair.

The store is the one in memory, slots are entries in a dictionary, time is a number. Links can lose, double,
delay and reorder what is on them, workers and the dispatcher can be killed and started anew.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dispatcher.books import Send as ToWorker
from dispatcher.memory import MemoryStore, MemoryTask
from dispatcher.scheduler import Scheduler
from dispatcher.store import Exchange, Policy
from everythingfaas.pythons import Minor, matches
from everythingfaas.status import Outcome
from everythingfaas.wire.frames import Encoder, dispatcher_decoder, worker_decoder
from everythingfaas.wire.messages import FromDispatcher, FromWorker
from worker.events import SlotBegun, SlotDone, SlotJob, SlotReady, SlotReturned
from worker.session import Ask, Identity, KillSlot, Reconnect, RetractJobs, Send, StartJob, Stop, WorkerSession


@dataclass
class FakeWorker:
    peer: bytes
    session: WorkerSession
    python: Minor
    jobs: dict[int, list[SlotJob]] = field(default_factory=dict)  #: the first one of each slot runs
    inbox: list[FromDispatcher] = field(default_factory=list)
    outbox: list[FromWorker] = field(default_factory=list)
    stopped: str | None = None

    @property
    def running(self) -> dict[int, SlotJob]:
        return {slot: line[0] for slot, line in self.jobs.items()}


class Pair:
    """The whole of it. `step…` methods do one thing, `settle` lets everything come to rest."""

    def __init__(
        self,
        *,
        workers: int = 1,
        slots: int = 2,
        task_deadline_s: float | None = None,
        pulls: bool = False,
        pythons: Sequence[Minor] = ((3, 11),),
    ) -> None:
        """The workers have `pythons` in turn."""
        self.now = 1000.0
        self.store = MemoryStore(clock=lambda: self.now)
        self.store.functions["f"] = b"function"
        self.begins: Counter[tuple[str, int]] = Counter()
        self.workers: list[FakeWorker] = []
        self.slots = slots
        self.pulls = pulls
        self.task_deadline_s = task_deadline_s
        self._names = itertools.count()
        self._pythons = itertools.cycle(pythons)
        self._tasks = itertools.count()
        self._encoder, self._at_dispatcher, self._at_worker = Encoder(), dispatcher_decoder(), worker_decoder()
        self.exchange: Exchange | None = None
        self.last_sends: list[ToWorker] = []
        self.start_dispatcher()
        for _ in range(workers):
            self.start_worker()

    # --- parts

    def start_dispatcher(self) -> None:
        """A dispatcher process starts: all that the former one had in memory is gone."""
        registration = self.store.register(mode="pull" if self.pulls else "push", slots=self.slots)
        self.scheduler = Scheduler(registration, now=self.now, task_deadline_s=self.task_deadline_s, pulls=self.pulls)
        self.exchange = None

    def start_worker(self, python: Minor | None = None) -> FakeWorker:
        name = f"w{next(self._names)}"
        python = python or next(self._pythons)
        identity = Identity(name, name, "host", 1, python, "0.4", self.slots, f"secret of {name}", self.pulls)
        worker = FakeWorker(name.encode(), WorkerSession(identity, now=self.now), python)
        self.workers.append(worker)
        self._perform(worker, worker.session.start(now=self.now))
        for slot in range(self.slots):
            self._perform(worker, worker.session.slot_event(SlotReady(slot), now=self.now))
        return worker

    def kill_worker(self, index: int) -> None:
        del self.workers[index]

    def submit(self, *, policy: Policy | None = None, function: str = "f", requirements: str = "") -> str:
        task = f"t{next(self._tasks)}"
        self.store.submit(MemoryTask(task, function, policy=policy or Policy(), requirements=requirements))
        self.scheduler.ring()
        return task

    # --- single steps

    def step_store(self, *, commit: bool = True, answer: bool = True) -> None:
        """One turn with the store. Without `answer` the commit happened and its word got lost."""
        if self.exchange is None:
            self.exchange = self.scheduler.exchange()
        if self.exchange is None or not commit:
            return
        answered = self.store.exchange(self.exchange)
        if not answer:
            self.scheduler.recall()
            return
        self.exchange = None
        self._send(self.scheduler.exchanged(answered, now=self.now))

    def step_to_dispatcher(self, worker: FakeWorker, index: int = 0, *, keep: bool = False) -> None:
        if worker.outbox:
            index %= len(worker.outbox)
            message = worker.outbox[index] if keep else worker.outbox.pop(index)
            message = self._at_dispatcher.decode(self._encoder.encode(message))
            self._send(self.scheduler.receive(worker.peer, message, now=self.now))

    def step_to_worker(self, worker: FakeWorker, index: int = 0, *, keep: bool = False) -> None:
        if worker.inbox:
            index %= len(worker.inbox)
            message = worker.inbox[index] if keep else worker.inbox.pop(index)
            message = self._at_worker.decode(self._encoder.encode(message))
            self._perform(worker, worker.session.receive(message, now=self.now))
            self._flush(worker)

    def step_slot(
        self,
        worker: FakeWorker,
        outcome: Outcome = Outcome.RETURNED,
        slot: int | None = None,
        *,
        exit_signal: int | None = None,
    ) -> None:
        """What runs in a slot ends by itself."""
        if not worker.jobs:
            return
        slot = slot if slot is not None else min(worker.jobs)
        self._finish(worker, slot, outcome, exit_signal)
        self._flush(worker)

    def step_time(self, seconds: float) -> None:
        self.now += seconds
        self._send(self.scheduler.expire(now=self.now))
        for worker in list(self.workers):
            self._perform(worker, worker.session.expire(now=self.now))
            self._flush(worker)

    # --- all at once

    def settle(self, *, seconds: float = 60.0, finish: bool = True, until_over: bool = False) -> None:
        """Delivers everything and lets time pass, for so long or until every task has ended."""
        end = self.now + seconds
        while self.now < end and not (finish and until_over and self._is_over()):
            self.exchange_all()
            while any(w.inbox or w.outbox for w in self.workers) or (finish and any(w.jobs for w in self.workers)):
                for worker in list(self.workers):
                    self.step_to_dispatcher(worker)
                    self.step_to_worker(worker)
                    if finish:
                        self.step_slot(worker)
                self.exchange_all()
            deadlines = [self.scheduler.next_deadline(), *(w.session.next_deadline() for w in self.workers)]
            self.step_time(max(0.001, min(deadlines) - self.now))

    def _is_over(self) -> bool:
        return (
            all(task.state.is_terminal for task in self.store.tasks.values())
            and self.scheduler.is_idle
            and not any(worker.session._held for worker in self.workers)
        )

    def exchange_all(self) -> None:
        for _ in range(100):
            self.step_store()
            if self.exchange is None and not self.scheduler._next and not self.scheduler._work:
                return
            if self.exchange is None and not self.scheduler._appetite() and not self.scheduler._next:
                return

    # --- plumbing

    def _send(self, sends: list[ToWorker]) -> None:
        self.last_sends = sends
        peers = {worker.peer: worker for worker in self.workers}
        for send in sends:
            if send.peer in peers:
                peers[send.peer].inbox.append(send.message)

    def _flush(self, worker: FakeWorker) -> None:
        self._perform(worker, worker.session.flush(now=self.now))

    def _perform(self, worker: FakeWorker, actions: list[object]) -> None:
        for action in actions:
            match action:
                case Send() | Ask():
                    worker.outbox.append(action.message)
                case StartJob():
                    line = worker.jobs.setdefault(action.slot, [])
                    line.append(action.job)
                    if len(line) == 1:
                        self._begin(worker, action.slot)
                case RetractJobs():
                    self._return(worker, action.slot)
                case KillSlot():
                    running = worker.jobs.get(action.slot, [None])[0]
                    if running is not None and (running.task, running.attempt) == (action.task, action.attempt):
                        self._finish(worker, action.slot, action.outcome)
                case Reconnect():
                    worker.peer = f"{worker.peer.decode().partition('+')[0]}+{next(self._names)}".encode()
                    worker.inbox.clear()
                    worker.outbox.clear()
                case Stop():
                    worker.stopped = action.reason

    def _begin(self, worker: FakeWorker, slot: int) -> None:
        job = worker.jobs[slot][0]
        self.begins[job.task, job.attempt] += 1
        requirements = self.store.tasks[job.task].requirements
        assert matches(requirements, worker.python), f"{requirements} on {worker.python}"
        self._perform(worker, worker.session.slot_event(SlotBegun(slot, job.task, job.attempt), now=self.now))

    def _return(self, worker: FakeWorker, slot: int) -> None:
        """What is in line there does not begin there."""
        line = worker.jobs.get(slot, [])
        while len(line) > 1:
            job = line.pop()
            self._perform(worker, worker.session.slot_event(SlotReturned(slot, job.task, job.attempt), now=self.now))

    def _finish(self, worker: FakeWorker, slot: int, outcome: Outcome, exit_signal: int | None = None) -> None:
        if outcome not in {Outcome.RETURNED, Outcome.RAISED}:
            self._return(worker, slot)  # the process has ended
        job, *left = worker.jobs.pop(slot)
        if left:
            worker.jobs[slot] = left
        result = f"{job.task}/{job.attempt}".encode() if outcome is Outcome.RETURNED else b""
        code = 3 if outcome is Outcome.DIED and exit_signal is None else None
        done = SlotDone(
            slot,
            job.task,
            job.attempt,
            outcome,
            result,
            elapsed_s=0.001,
            exit_code=code,
            exit_signal=exit_signal,
        )
        self._perform(worker, worker.session.slot_event(done, now=self.now))
        if left:
            self._begin(worker, slot)
        else:
            self._perform(worker, worker.session.slot_event(SlotReady(slot), now=self.now))
