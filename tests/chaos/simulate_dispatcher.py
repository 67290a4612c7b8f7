"""A simulated dispatcher: the product's `Scheduler` and a store, in a loop like that of `dispatcher.loop`."""

from __future__ import annotations

from collections import deque

from dispatcher.books import Send as ToWorker
from dispatcher.memory import MemoryStore
from dispatcher.scheduler import LOST_AFTER_S, Scheduler
from dispatcher.store import Exchange, Exchanged
from everythingfaas.wire.messages import FromWorker
from tests.chaos.simulate_process import Process
from tests.chaos.simulate_worker import WorkerProcess
from tests.chaos.simulate_world import World

#: Waits between tries of a failing store, as `dispatcher.loop.StoreThread` has them.
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
#: And of a dispatcher that cannot register.
START_RETRY_S = 1.0


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


def _brief(exchange: Exchange | Exchanged) -> str:
    """What is in it."""
    shown = ((name, getattr(exchange, name)) for name in exchange.__slots__)
    return " ".join(f"{name}={value}" for name, value in shown if value)
