"""When a dispatcher takes over what another one had given out: two schedulers on one store in memory."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from dispatcher.memory import MemoryData, MemoryStore, MemoryTask
from dispatcher.neighbours import TAKE_OVER_S
from dispatcher.scheduler import Scheduler
from dispatcher.store import LEASE_S, Policy
from everythingfaas.status import Outcome, State
from everythingfaas.wire.messages import (
    Attempt,
    Begun,
    Blob,
    Heartbeat,
    Hello,
    Kill,
    Report,
    Result,
    ResultAck,
    Run,
)


class Site:
    """A store, and time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = 5000.0
        self.data = MemoryData(lambda: self.clock)
        self.data.functions["f"] = b"function"
        self.dispatchers: list[Dispatcher] = []

    def submit(self, n: int = 1, policy: Policy | None = None) -> list[str]:
        tasks = [f"t{len(self.data.tasks) + i}" for i in range(n)]
        for task in tasks:
            MemoryStore(data=self.data).submit(MemoryTask(task, "f", policy=policy or Policy()))
        return tasks

    def pass_time(self, seconds: float, *turning: Dispatcher, until: Callable[[], bool] = lambda: False) -> float:
        """Lets these dispatchers run, and returns how long it took."""
        began = self.now
        while self.now < began + seconds and not until():
            self.now += 0.25
            self.clock += 0.25
            for dispatcher in turning:
                dispatcher.turn()
        return self.now - began


class Dispatcher:
    """A scheduler, with its turns and a worker or none."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.name = name
        self.is_cut_off = False
        self.sent: list[object] = []
        site.dispatchers.append(self)
        self.start()

    def start(self) -> None:
        self.store = MemoryStore(self.name, data=self.site.data)
        self.core = Scheduler(self.store.register(mode="push", slots=0), now=self.site.now)
        self._under_way = None

    def turn(self) -> None:
        now = self.site.now
        self._keep(self.core.expire(now=now))
        for _ in range(5):
            self._under_way = self._under_way or self.core.exchange()
            if self._under_way is None:
                return
            if self.is_cut_off:
                self._under_way.trusts_leases = False
                self._was_cut_off = True
                return
            answer, self._under_way = self.store.exchange(self._under_way), None
            if getattr(self, "_was_cut_off", False):
                self._was_cut_off = False
                self.core.recall()
            self._keep(self.core.exchanged(answer, now=now))

    def hello(self, worker: str, slots: int, held: tuple[Attempt, ...] = (), number: int = 1) -> None:
        hello = Hello(1, worker, worker, "host", 1, (3, 11), "0.4", slots, 0, held, number)
        self._keep(self.core.receive(worker.encode(), hello, now=self.site.now))
        self.hear(worker, Heartbeat(held))

    def hear(self, worker: str, message: Heartbeat | Result | Begun) -> None:
        if isinstance(message, Heartbeat):  # it has seen our Welcome
            (welcomed,) = [w.welcomed for w in self.core.workers if w.peer == worker.encode()]
            message = replace(message, seen=max(message.seen, welcomed))
        self._keep(self.core.receive(worker.encode(), message, now=self.site.now))
        self.turn()

    def _keep(self, sends: list[object]) -> None:
        self.sent += [send.message for send in sends]  # type: ignore[attr-defined]


def states(site: Site) -> list[State]:
    return [row.state for row in site.data.tasks.values()]


def test_the_dead_are_taken_over_when_their_lease_was_out_for_a_while() -> None:
    site = Site()
    dead, alive = Dispatcher(site, "dead"), Dispatcher(site, "alive")
    dead.hello("w", 2)
    site.submit(2)
    dead.core.ring()
    dead.turn()
    assert states(site) == [State.RUNNING] * 2
    took = site.pass_time(60, alive, until=lambda: State.RUNNING not in states(site))
    assert LEASE_S + TAKE_OVER_S <= took <= LEASE_S + TAKE_OVER_S + 2.5
    assert [(row.starts, row.deaths) for row in site.data.tasks.values()] == [(1, 1)] * 2
    assert list(site.data.dispatchers) == ["alive"]


def test_the_living_are_not_taken_over() -> None:
    site = Site()
    first, second = Dispatcher(site, "first"), Dispatcher(site, "second")
    first.hello("w", 1)
    (task,) = site.submit()
    first.core.ring()
    for _ in range(60):
        site.pass_time(1, first, second)
        first.hear("w", Heartbeat((Attempt(task, 1),)))
    assert (states(site), site.data.tasks[task].dispatcher) == ([State.RUNNING], "first")


def test_nobody_is_dead_because_the_store_was_away() -> None:
    """For as long as a lease after it has come back: the other one may just not have had its turn."""
    site = Site()
    first, second = Dispatcher(site, "first"), Dispatcher(site, "second")
    first.hello("w", 1)
    (task,) = site.submit()
    first.core.ring()
    for _ in range(12):
        site.pass_time(1, first, second)
        first.hear("w", Heartbeat((Attempt(task, 1),)))
    second.is_cut_off = True
    site.pass_time(30, second)
    second.is_cut_off = False
    site.pass_time(LEASE_S - 1, second)
    assert site.data.tasks[task].dispatcher == "first"
    site.pass_time(TAKE_OVER_S, second)
    assert site.data.tasks[task].dispatcher == "second"


def test_nobody_is_dead_because_we_did_not_run() -> None:
    """A laptop was closed: all leases are out, and whoever runs first must not take the others over."""
    site = Site()
    first, second = Dispatcher(site, "first"), Dispatcher(site, "second")
    first.hello("w", 1)
    (task,) = site.submit()
    first.core.ring()
    for _ in range(12):
        site.pass_time(1, first, second)
        first.hear("w", Heartbeat((Attempt(task, 1),)))
    site.now += 3600
    site.clock += 3600
    site.pass_time(LEASE_S - 1, second)
    assert site.data.tasks[task].dispatcher == "first"
    first.turn()
    site.pass_time(1, first, second)
    assert not first.core.lease_lost
    assert states(site) == [State.RUNNING]


def test_one_that_was_taken_over_notices() -> None:
    site = Site()
    first, second = Dispatcher(site, "first"), Dispatcher(site, "second")
    site.pass_time(30, second)
    first.turn()
    assert first.core.lease_lost
    assert not second.core.lease_lost


def test_a_worker_brings_what_it_runs_from_the_dead() -> None:
    site = Site()
    dead, alive = Dispatcher(site, "dead"), Dispatcher(site, "alive")
    dead.hello("w", 1)
    (task,) = site.submit(policy=Policy(at_most_once=True))
    dead.core.ring()
    dead.turn()
    site.pass_time(6, alive)
    held = (Attempt(task, 1),)
    alive.hello("w", 1, held)
    for _ in range(30):
        site.pass_time(0.5, alive)
        alive.hear("w", Heartbeat(held))
    assert not any(isinstance(message, Kill) for message in alive.sent)
    alive.hear("w", Result((Report(task, 1, Outcome.RETURNED, Blob(b"value"), True, 1.0, 0.0, 0),)))
    assert ResultAck(held) in alive.sent
    assert site.data.tasks[task].result == b"value"


def test_what_another_one_has_taken_is_still_wanted_from_its_worker() -> None:
    """The worker has gone there and come back, with the result. The other one is dead in the end."""
    site = Site()
    first, second = Dispatcher(site, "first"), Dispatcher(site, "second")
    first.hello("w", 1)
    (task,) = site.submit()
    first.core.ring()
    first.turn()
    site.data.tasks[task].dispatcher = "second"
    done = Result((Report(task, 1, Outcome.RETURNED, Blob(b"value"), True, 1.0, 0.0, 0),))
    first.hear("w", done)
    assert not any(isinstance(message, ResultAck) for message in first.sent)
    for _ in range(60):
        site.pass_time(0.5, first)
        first.hear("w", Heartbeat((Attempt(task, 1),)))
        first.hear("w", done)
    assert site.data.tasks[task].result == b"value"
    assert ResultAck((Attempt(task, 1),)) in first.sent
    assert second.name not in site.data.dispatchers


def test_what_kills_worker_and_dispatcher_at_once_runs_three_times() -> None:
    """Before anybody could record that it had begun."""
    site = Site()
    (task,) = site.submit(policy=Policy(max_attempts=100))
    runs = 0
    for life in range(12):
        dispatcher = Dispatcher(site, "d")
        site.pass_time(6, dispatcher)  # nobody comes back
        dispatcher.hello(f"w{life}", 2)
        runs += sum(isinstance(message, Run) for message in dispatcher.sent)
        if site.data.tasks[task].state.is_terminal:
            break
    assert (site.data.tasks[task].state, site.data.tasks[task].deaths, runs) == (State.FAILED, 3, 3)


def test_the_slots_of_workers_that_come_back_are_not_counted_twice() -> None:
    """What was on the way to one that comes back was in no slot."""
    site = Site()
    dispatcher = Dispatcher(site, "d")
    dispatcher.hello("w", 2)
    tasks = site.submit(3)
    dispatcher.core.ring()
    dispatcher.turn()
    claimed = [task for task in tasks if site.data.tasks[task].attempt]
    assert len(claimed) == 2
    dispatcher.start()
    dispatcher.hello("w", 2, (Attempt(claimed[0], 1),))
    for _ in range(12):
        site.pass_time(0.5, dispatcher)
        dispatcher.hear("w", Heartbeat((Attempt(claimed[0], 1),), seen=2**63 - 1))
    row = site.data.tasks[claimed[1]]
    assert (row.deaths, row.starts) == (0, 0)


def test_what_an_earlier_run_claimed_after_we_had_registered_is_given_back() -> None:
    """Its last commit was under way when it died."""
    site = Site()
    dispatcher = Dispatcher(site, "d")
    dispatcher.hello("w", 1)
    (task,) = site.submit()
    dispatcher.core.ring()
    last = dispatcher.core.exchange()
    assert last is not None
    former = dispatcher.store
    dispatcher.start()
    former.exchange(last)
    assert site.data.tasks[task].state is State.RUNNING
    site.pass_time(10, dispatcher)
    row = site.data.tasks[task]
    assert (row.state, row.attempt, row.starts) == (State.QUEUED, 1, 0)
