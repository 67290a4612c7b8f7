"""The world in which the simulation runs the product's cores: time, network, store, processes, functions.

Everything that decides is the product's own: `Scheduler`, `WorkerSession`, the policies, `MemoryStore`. What stands
here takes the place of the thin shells around them (`dispatcher.loop`, `worker.loop`, the pool of slots, ZeroMQ and
the database's connection), and goes wrong in all the ways in which those can. Time is a number, chance comes from one
`random.Random(seed)`: a seed is a run, again and again.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dispatcher.memory import MemoryData, MemoryStore, MemoryTask
from dispatcher.scheduler import LOST_AFTER_S, Scheduler
from dispatcher.scheduler import Send as ToWorker
from dispatcher.store import Exchange, Exchanged
from everythingfaas.status import Outcome
from everythingfaas.wire.messages import FromDispatcher, FromWorker
from worker.events import PoolEvent, SlotBegun, SlotDone, SlotJob, SlotReady
from worker.session import Ask, Identity, KillSlot, Reconnect, Send, StartJob, Stop, WorkerSession

#: Waits between tries of a failing store, as `dispatcher.loop.StoreThread` has them.
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
#: And of a dispatcher that cannot register.
START_RETRY_S = 1.0
#: How long a function runs that does not end.
NEVER_S = 1e6
#: So many events in a millisecond are a loop without end.
BUSY = 5000


@dataclass(frozen=True)
class Parts:
    """What a world is made of: the product's, or what a negative control has in its place."""

    scheduler: type[Scheduler] = Scheduler
    store: type[MemoryStore] = MemoryStore


@dataclass(frozen=True)
class Behaviour:
    """What a function does in each of its attempts."""

    duration_s: float
    outcome: Outcome = Outcome.RETURNED
    kills_worker: bool = False
    kills_dispatcher: bool = False


@dataclass
class Trouble:
    """How likely it is that something goes wrong by itself. All of it ends when the world heals."""

    drop: float = 0.0
    double: float = 0.0
    late: float = 0.0
    unsent: float = 0.0
    lose_answer: float = 0.0
    slow_commit: float = 0.0
    die: float = 0.0  #: at a step: before and after a commit, a turn, a begin and an end


class World:
    """Time, and all that there is."""

    def __init__(self, seed: int, parts: Parts, observer: Observer, trace: Callable[[str], None] | None = None) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.highest_offset = 0.0
        self.clock_offset = 0.0  # of the store's clock, which may step; those of processes do not
        self.parts = parts
        self.observer = observer
        self.trace = trace
        self.data = MemoryData(lambda: self.now + self.clock_offset)
        self.data.functions["f"] = b"function"
        self.behaviours: dict[str, Behaviour] = {}
        self.trouble = Trouble()
        self.longest_s = NEVER_S  # that a function may run
        self.store_down_until = 0.0
        self.bells_lost_until = 0.0
        self.cuts: dict[tuple[str, str, bool], float] = {}  # (worker, dispatcher, towards the dispatcher): until
        self.dispatchers: list[DispatcherProcess] = []
        self.workers: list[WorkerProcess] = []
        self.peers: dict[bytes, WorkerProcess] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    # --- time

    def at(self, delay_s: float, what: Callable[[], None]) -> None:
        self.at_time(self.now + delay_s, what)

    def at_time(self, when: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, what))

    def run(self, until: float, is_over: Callable[[], bool] | None = None) -> bool:
        """Lets time pass. True if `is_over` has become true, which is asked once a second."""
        ask_at = self.now
        since, turns = self.now, 0
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
            since, turns = (since, turns + 1) if self.now < since + 0.001 else (self.now, 0)
            assert turns < BUSY, "somebody is in a busy loop"
            if is_over is not None and self.now >= ask_at:
                if is_over():
                    return True
                ask_at = self.now + 1.0
        self.now = until
        return False

    def number(self) -> int:
        self._number += 1
        return self._number

    def say(self, who: str, what: object) -> None:
        if self.trace is not None:
            self.trace(f"{self.now - 1000.0:9.4f} {who:6} {what}")

    # --- the web's part

    def submit(self, task: MemoryTask, behaviour: Behaviour) -> bool:
        """Accepts a task, if the store is there."""
        if self.now < self.store_down_until:
            return False
        self.behaviours[task.task] = behaviour
        self.parts.store(data=self.data).submit(task)
        self.say("web", f"accepts {task.task}: {behaviour} {task.policy}")
        self._bell(DispatcherProcess.ring)
        return True

    def cancel(self, task: str) -> None:
        if self.now >= self.store_down_until:
            self.say("web", f"cancels {task}")
            self.parts.store(data=self.data).cancel(task)
            self._bell(DispatcherProcess.look)

    def _bell(self, tell: Callable[[DispatcherProcess], None]) -> None:
        if self.now < self.bells_lost_until:
            return
        for dispatcher in self.dispatchers:
            self.at(0.001, lambda dispatcher=dispatcher: tell(dispatcher))

    # --- the network's

    def delays(self) -> list[float]:
        """When copies of a message arrive: none, one or two."""
        trouble, chance = self.trouble, self.random.random
        if chance() < trouble.drop:
            return []
        found = [self._delay()]
        if chance() < trouble.double:
            found.append(self._delay())
        return found

    def _delay(self) -> float:
        chance = self.random.random
        return chance() * 8.0 if chance() < self.trouble.late else 0.0002 + chance() * 0.003

    def strikes(self) -> bool:
        """Whether somebody dies at this very step."""
        return self.trouble.die > 0.0 and self.random.random() < self.trouble.die

    def is_cut(self, worker: str, dispatcher: str, towards: bool) -> bool:
        return self.now < self.cuts.get((worker, dispatcher, towards), 0.0)


class Observer:
    """Is told what happens, and checks it."""

    def begun(self, world: World, worker: WorkerProcess, job: SlotJob) -> None: ...
    def killed(self, world: World, worker: WorkerProcess, job: SlotJob, outcome: Outcome) -> None: ...
    def sends(self, world: World, dispatcher: DispatcherProcess, sends: list[ToWorker]) -> None: ...
    def before(self, world: World, dispatcher: str) -> None: ...
    def committed(self, world: World, dispatcher: str, exchange: Exchange, answer: Exchanged) -> None: ...
    def registered(self, world: World, dispatcher: str) -> None: ...
    def left(self, world: World, dispatcher: str) -> None: ...


class Process:
    """Something that takes turns, and may be suspended or dead."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 0  # of which an event speaks: one of an earlier life happens to nobody
        self.alive = False
        self.suspended_until = 0.0
        self._timer_at = float("inf")

    @property
    def runs(self) -> bool:
        return self.alive and self.world.now >= self.suspended_until

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Does `what` then, if this life still lasts."""
        life = self.life
        self.world.at(delay_s, lambda: what() if self.life == life else None)

    def suspend(self, seconds: float) -> None:
        self.world.say(self.name, f"is suspended for {seconds:.1f} s")
        self.suspended_until = self.world.now + seconds
        self.later(seconds, self.go_on)

    def go_on(self) -> None:
        if self.runs:
            self.turn()

    def wake(self) -> None:
        if self.runs:
            self.turn()

    def turn(self) -> None:
        raise NotImplementedError

    def next_deadline(self) -> float:
        raise NotImplementedError

    def set_timer(self) -> None:
        due = self.next_deadline()
        if due < self._timer_at:
            self._timer_at = due
            life = self.life
            self.world.at_time(max(self.world.now, due), lambda: self._timer(life, due))

    def _timer(self, life: int, due: float) -> None:
        if life != self.life or due != self._timer_at:
            return
        self._timer_at = float("inf")
        if not self.runs:
            return
        if self.next_deadline() <= self.world.now:
            self.turn()
        else:
            self.set_timer()


class DispatcherProcess(Process):
    """A scheduler, its loop and its thread for the store."""

    def __init__(self, world: World, name: str, mode: str, slots: int = 0) -> None:
        super().__init__(world, name)
        self.mode = mode
        self.slots = slots
        self.is_gone = False  # nobody starts it again
        self.core: Scheduler
        self.local: WorkerProcess | None = None
        self.stopping = False
        self._inbox: deque[tuple[bytes, FromWorker]] = deque()
        self._store: MemoryStore
        self._doubtful = False
        self._answer: Exchanged | None = None
        self._cut_off_until = 0.0
        self._rung = self._asked_to_look = False

    def start(self) -> None:
        world = self.world
        if self.alive or self.is_gone:
            return
        if self._is_cut_off:
            self.later(START_RETRY_S, self.start)
            return
        self._store = world.parts.store(self.name, data=world.data)
        registration = self._store.register(mode=self.mode, slots=self.slots)
        world.observer.registered(world, self.name)
        world.say(
            self.name, f"starts, epoch {registration.epoch}, held {[(c.task, c.attempt) for c in registration.held]}"
        )
        self.alive = True
        self.suspended_until = 0.0
        self._timer_at = float("inf")
        self._inbox.clear()
        self._answer, self._doubtful, self.stopping = None, False, False
        is_local = self.mode == "local"
        self.core = world.parts.scheduler(
            registration,
            now=world.now,
            grace_s=0.0 if is_local else LOST_AFTER_S,
            pulls=self.mode == "pull",
            chance=world.random.random,
        )
        if is_local:
            self.local = WorkerProcess(world, f"{self.name}.w{world.number()}", "push", [self], self.slots, local=True)
            self.local.start()
        self.turn()

    def crash(self, back_s: float | None) -> None:
        """Dies, and is started again by its supervisor after so long."""
        if not self.alive:
            return
        self.world.say(self.name, f"dies, back in {back_s}")
        self.alive = False
        self.life += 1
        if self.local is not None:
            self.local.crash(None)
            self.local = None
        if back_s is not None:
            self.later(back_s, self.start)

    def stop(self, back_s: float) -> None:
        """Is told to stop: claims nothing more, and leaves when all that it has heard is written."""
        if self.runs:
            self.world.say(self.name, "is told to stop")
            self.core.stop()
            self.stopping = True
            self.later(4.0, lambda: self._leave(back_s))
            self.turn()

    def _leave(self, back_s: float) -> None:
        if not self._is_cut_off:
            self._store.close()
            self.world.observer.left(self.world, self.name)
        self.crash(back_s)

    def cut_off(self, seconds: float) -> None:
        """From the store."""
        self._cut_off_until = self.world.now + seconds

    def heal(self) -> None:
        self._cut_off_until = 0.0

    @property
    def _is_cut_off(self) -> bool:
        return self.world.now < max(self._cut_off_until, self.world.store_down_until)

    def ring(self) -> None:
        self._rung = True
        self.wake()

    def look(self) -> None:
        self._asked_to_look = True
        self.wake()

    def deliver(self, peer: bytes, message: FromWorker) -> None:
        self._inbox.append((peer, message))
        self.wake()

    def next_deadline(self) -> float:
        return self.core.next_deadline()

    def turn(self) -> None:
        """As `dispatcher.loop.Loop` has it."""
        core, now = self.core, self.world.now
        sends: list[ToWorker] = []
        while self._inbox:
            peer, message = self._inbox.popleft()
            self.world.say(self.name, f"<- {peer.decode()} {message}")
            sends += core.receive(peer, message, now=now)
        if self._answer is not None:
            answer, self._answer = self._answer, None
            if self._doubtful:
                self._doubtful = False
                core.recall()
            sends += core.exchanged(answer, now=now)
        if self._rung:
            self._rung = False
            core.ring()
        if self._asked_to_look:
            self._asked_to_look = False
            core.look()
        sends += core.expire(now=now)
        self.world.observer.sends(self.world, self, sends)
        core.unsent([send for send in sends if not self._send(send)])
        if self.world.strikes():
            self.crash(self.world.random.random())
            return
        exchange = core.exchange()
        if exchange is not None:
            self._ask(exchange)
        if core.lease_lost:
            self.world.say(self.name, "has lost its lease")
            self.crash(0.2 + self.world.random.random())
            return
        self.set_timer()

    def _send(self, send: ToWorker) -> bool:
        world = self.world
        worker = world.peers.get(send.peer)
        if worker is None or not worker.alive or world.random.random() < world.trouble.unsent:
            return world.random.random() < 0.5  # known at once, or not
        if worker.is_local:
            world.at(0.0, lambda: worker.deliver(send.peer, send.message))
            return True
        if not world.is_cut(worker.name, self.name, towards=False):
            for delay in world.delays():
                world.at(delay, lambda: worker.deliver(send.peer, send.message))
        return True

    # --- its thread for the store

    def _ask(self, exchange: Exchange) -> None:
        slow = self.world.random.random() < self.world.trouble.slow_commit
        delay = self.world.random.random() * (6.0 if slow else 0.004)
        self._try(exchange, self._store, delay, RETRY_FIRST_S)

    def _try(self, exchange: Exchange, store: MemoryStore, delay: float, wait_s: float) -> None:
        """A commit that is under way while its process dies happens, or does not."""
        life, certain = self.life, self.world.random.random() < 0.5
        self.world.at(delay, lambda: self._commit(life, certain, exchange, store, wait_s))

    def _commit(self, life: int, certain: bool, exchange: Exchange, store: MemoryStore, wait_s: float) -> None:
        world = self.world
        if life != self.life and not certain:
            return
        if self._is_cut_off:
            if life == self.life:
                self._failed(exchange, store, wait_s)
            return
        world.observer.before(world, self.name)
        answer = store.exchange(exchange)
        if world.trace is not None:
            world.say(self.name, f"commits {_brief(exchange)} -> {_brief(answer)}")
        world.observer.committed(world, self.name, exchange, answer)
        if life != self.life:
            return
        if world.strikes():
            self.crash(world.random.random())
            return
        if world.random.random() < world.trouble.lose_answer:
            self._failed(exchange, store, wait_s)
            return
        self.later(world.random.random() * 0.002, lambda: self._answered(answer))

    def _failed(self, exchange: Exchange, store: MemoryStore, wait_s: float) -> None:
        self._doubtful = True
        exchange.trusts_leases = False
        self._try(exchange, store, wait_s, min(wait_s * 2, RETRY_MAX_S))

    def _answered(self, answer: Exchanged) -> None:
        self._answer = answer
        self.wake()


@dataclass
class Running:
    """What is in a slot."""

    job: SlotJob
    begun: bool = False
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
                case KillSlot():
                    if action.slot in self.running:
                        self.world.observer.killed(self.world, self, self.running[action.slot].job, action.outcome)
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
        assert slot not in self.running, "two runs in one slot"
        running = self.running[slot] = Running(job)
        self.later(self.world.random.random() * 0.003, lambda: self._begin(slot, running))

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
        self._events.append(SlotDone(slot, job.task, job.attempt, outcome, result, elapsed_s=0.01, exit_signal=signal))
        self.later(0.001, lambda: self._event(SlotReady(slot)))
        self.wake()

    def _event(self, event: PoolEvent) -> None:
        self._events.append(event)
        self.wake()


def _brief(exchange: Exchange | Exchanged) -> str:
    """What is in it."""
    shown = ((name, getattr(exchange, name)) for name in exchange.__slots__)
    return " ".join(f"{name}={value}" for name, value in shown if value)
