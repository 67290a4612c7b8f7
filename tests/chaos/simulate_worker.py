"""A simulated worker: the product's `WorkerSession`, in a loop like that of `worker.loop`, and slots."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from everythingfaas.status import Outcome
from everythingfaas.wire.messages import FromDispatcher, FromWorker
from tests.chaos.simulate_process import Process
from tests.chaos.simulate_world import NEVER_S, Behaviour, World
from worker.events import PoolEvent, SlotBegun, SlotDone, SlotJob, SlotReady, SlotReturned
from worker.session import Ask, Identity, KillSlot, Reconnect, RetractJobs, Send, StartJob, Stop, WorkerSession

if TYPE_CHECKING:
    from tests.chaos.simulate_dispatcher import DispatcherProcess


#: How long runs say that they have taken, so that some are sent ahead of time. Most of them take longer.
ELAPSED_S = 0.0004
#: How many leave nothing behind in their process.
WELL = 0.95


@dataclass
class Running:
    """What is in a slot."""

    job: SlotJob
    begun: bool = False
    told: bool = False  #: the session has heard of the begin
    killed: bool = False


class WorkerProcess(Process):
    """A session, its loop, its sockets and its slots."""

    def __init__(
        self, world: World, name: str, mode: str, urls: list[DispatcherProcess], slots: int, *, local: bool = False
    ) -> None:
        super().__init__(world, name)
        self.mode = mode
        self.urls = urls
        self.slots = slots
        self.is_local = local
        self.session: WorkerSession
        self.running: dict[int, Running] = {}
        self.lines: dict[int, list[SlotJob]] = {}  #: what slots were sent ahead of time
        self.peer = b""
        self._turn = world.random.randrange(len(urls))
        self._inbox: deque[FromDispatcher] = deque()
        self._events: deque[PoolEvent] = deque()
        self._over = False
        world.workers.append(self)

    @property
    def dispatcher(self) -> DispatcherProcess:
        return self.urls[self._turn % len(self.urls)]

    def start(self) -> None:
        world = self.world
        if self.alive:
            return
        self.alive, self.suspended_until, self._over = True, 0.0, False
        self._timer_at = float("inf")
        self._inbox.clear()
        self._events.clear()
        self.running.clear()
        self.lines.clear()
        worker = f"{self.name}.{world.number()}"
        self._connect()
        identity = Identity(worker, worker, "host", 1, (3, 11), "0.4", self.slots, worker, self.mode == "pull")
        self.session = WorkerSession(identity, now=world.now)
        world.say(self.name, f"starts as {worker}")
        self._perform(self.session.start(now=world.now))
        for slot in range(self.slots):
            self._events.append(SlotReady(slot))
        self.turn()

    def crash(self, back_s: float | None) -> None:
        """Dies with all that runs in its slots."""
        if not self.alive:
            return
        self.world.say(self.name, f"dies, back in {back_s}")
        self.alive = False
        self.life += 1
        self.world.peers.pop(self.peer, None)
        self.running.clear()
        self.lines.clear()
        if self.is_local:
            self.world.workers.remove(self)
        if back_s is not None:
            self.later(back_s, self.start)

    def drain(self) -> None:
        if self.runs:
            self.world.say(self.name, "drains")
            self._perform(self.session.drain(now=self.world.now))
            self.turn()

    def _connect(self) -> None:
        self.world.peers.pop(self.peer, None)
        self.peer = f"{self.name}/{self.world.number()}".encode()
        self.world.peers[self.peer] = self
        self._inbox.clear()

    def deliver(self, peer: bytes, message: FromDispatcher) -> None:
        if self.alive and peer == self.peer:
            self._inbox.append(message)
            self.wake()

    def next_deadline(self) -> float:
        return self.session.next_deadline()

    def turn(self) -> None:
        """As `worker.loop.WorkerLoop` has it."""
        session, now = self.session, self.world.now
        life = self.life
        while self._inbox:
            message = self._inbox.popleft()
            self.world.say(self.name, f"<- {message}")
            self._perform(session.receive(message, now=now))
        while self._events:
            self._perform(session.slot_event(self._events.popleft(), now=now))
        self._perform(session.expire(now=now))
        self._perform(session.flush(now=now))
        if self._over and self.life == life:
            self.crash(0.5)
        elif self.life == life:
            self.set_timer()

    def _perform(self, actions: list[Any]) -> None:
        for action in actions:
            match action:
                case Send() | Ask():
                    self._send(action.message)
                case StartJob():
                    self._start_job(action.slot, action.job)
                case RetractJobs():
                    self._return_line(action.slot)
                case KillSlot():
                    self._return_line(action.slot)
                    running = self.running.get(action.slot)
                    if running is not None and (running.job.task, running.job.attempt) == (action.task, action.attempt):
                        self.world.observer.killed(self.world, self, running.job, action.outcome)
                        self.kill_slot(action.slot, action.outcome)
                case Reconnect():
                    if not self.is_local:
                        self._turn += 1
                        self._connect()
                case Stop():
                    self.world.say(self.name, f"stops: {action.reason}")
                    self._over = True

    def _send(self, message: FromWorker) -> None:
        world, dispatcher, peer = self.world, self.dispatcher, self.peer
        if self.is_local:
            world.at(0.0, lambda: dispatcher.deliver(peer, message))
        elif not world.is_cut(self.name, dispatcher.name, towards=True):
            for delay in world.delays():
                world.at(delay, lambda: self._arrive(dispatcher, peer, message, 20))

    def _arrive(self, dispatcher: DispatcherProcess, peer: bytes, message: FromWorker, tries: int) -> None:
        if dispatcher.alive:
            dispatcher.deliver(peer, message)
        elif tries and self.peer == peer:  # it waits in our socket
            self.world.at(0.25, lambda: self._arrive(dispatcher, peer, message, tries - 1))

    # --- the slots

    def _start_job(self, slot: int, job: SlotJob) -> None:
        if slot in self.running:
            running = self.running[slot]
            if running.killed:
                self._event(SlotReturned(slot, job.task, job.attempt))
            else:
                self.lines.setdefault(slot, []).append(job)
            return
        running = self.running[slot] = Running(job)
        self.later(self.world.random.random() * 0.003, lambda: self._begin(slot, running))

    def _return_line(self, slot: int) -> None:
        """What is in line, and has not begun, comes back; the last one first."""
        for job in reversed(self.lines.pop(slot, [])):
            self._event(SlotReturned(slot, job.task, job.attempt))

    def _next_in_line(self, slot: int) -> None:
        """The process goes on by itself, whatever its supervisor is at."""
        line = self.lines.get(slot)
        if not line:
            self.later(0.001, lambda: self._event(SlotReady(slot)))
            return
        job = line.pop(0)
        running = self.running[slot] = Running(job, told=True)
        self._events.append(SlotBegun(slot, job.task, job.attempt))
        self.later(self.world.random.random() * 0.0005, lambda: self._begin(slot, running))

    def _begin(self, slot: int, running: Running) -> None:
        if running.killed or self.running.get(slot) is not running:
            return
        running.begun = True
        job, world = running.job, self.world
        behaviour = world.behaviours[job.task]
        world.say(self.name, f"begins {job.task}/{job.attempt} in slot {slot}: {behaviour}")
        world.observer.begun(world, self, job)
        if world.strikes() and not self.is_local:
            self.crash(world.random.random())
            return
        if not running.told:
            self._event(SlotBegun(slot, job.task, job.attempt))
        duration_s = min(behaviour.duration_s, world.longest_s) if behaviour.duration_s < NEVER_S else NEVER_S
        self.later(duration_s, lambda: self._end(slot, running, behaviour))

    def _end(self, slot: int, running: Running, behaviour: Behaviour) -> None:
        if self.running.get(slot) is not running or running.killed:
            return
        if behaviour.kills_dispatcher and self.dispatcher.alive:
            self.dispatcher.crash(0.1 + self.world.random.random())
        if behaviour.kills_worker:
            self.crash(0.1 + self.world.random.random() if not self.is_local else None)
            return
        if self.alive:
            self._done(slot, running, behaviour.outcome)

    def kill_slot(self, slot: int, outcome: Outcome) -> None:
        running = self.running.get(slot)
        if running is not None and not running.killed:
            running.killed = True
            self._return_line(slot)
            self.later(0.002, lambda: self._done(slot, running, outcome))

    def _done(self, slot: int, running: Running, outcome: Outcome) -> None:
        if self.running.pop(slot, None) is not running:
            return
        if self.world.strikes() and not self.is_local:
            self.crash(self.world.random.random())
            return
        job = running.job
        result = f"{job.task}/{job.attempt}".encode() if outcome in (Outcome.RETURNED, Outcome.RAISED) else b""
        signal = 9 if outcome is Outcome.DIED else None
        is_well = outcome in (Outcome.RETURNED, Outcome.RAISED) and self.world.random.random() < WELL
        self._events.append(
            SlotDone(slot, job.task, job.attempt, outcome, result, elapsed_s=ELAPSED_S, exit_signal=signal)
        )
        if not is_well:
            self._return_line(slot)
        self._next_in_line(slot)
        self.wake()

    def _event(self, event: PoolEvent) -> None:
        self._events.append(event)
        self.wake()
