"""The world in which the simulation runs the product's cores: time, network, chance, and the web's part.

Everything that decides is the product's own: `Scheduler`, `WorkerSession`, the policies, `MemoryStore`. What stands
here, in `simulate_dispatcher` and in `simulate_worker` takes the place of the thin shells around them
(`dispatcher.loop`, `worker.loop`, the pool of slots, ZeroMQ and the database's connection), and goes wrong in all the
ways in which those can. Time is a number, chance comes from one `random.Random(seed)`: a seed is a run, again and
again.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.books import Send as ToWorker
from dispatcher.memory import MemoryData, MemoryStore, MemoryTask
from dispatcher.scheduler import Scheduler
from dispatcher.store import Exchange, Exchanged
from everythingfaas.status import Outcome
from worker.events import SlotJob

if TYPE_CHECKING:
    from tests.chaos.simulate_dispatcher import DispatcherProcess
    from tests.chaos.simulate_worker import WorkerProcess

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
        self._bell(lambda dispatcher: dispatcher.ring())
        return True

    def cancel(self, task: str) -> None:
        if self.now >= self.store_down_until:
            self.say("web", f"cancels {task}")
            self.parts.store(data=self.data).cancel(task)
            self._bell(lambda dispatcher: dispatcher.look())

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
