"""Seeded simulation of dispatchers, workers and their store: `python -m tests.chaos.simulate --seeds 5000`.

A seed is a run: `--seed N --trace` shows what happened in it. See `simulate_world` for what is real in it,
`simulate_checks` for what has to hold, and `docs/reliability.md` for what came of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from dispatcher.memory import MemoryTask
from dispatcher.store import Policy
from everythingfaas.errors import IllegalMove
from everythingfaas.status import Outcome
from tests.chaos.simulate_checks import HEAL_S, Checks, Violation, check, leftovers
from tests.chaos.simulate_dispatcher import DispatcherProcess
from tests.chaos.simulate_worker import WorkerProcess
from tests.chaos.simulate_world import NEVER_S, Behaviour, Parts, Trouble, World

#: The product's own parts.
REAL = Parts()
#: Which dispatchers there are, and what kinds of workers.
SITES = (
    (("push", "push"), ("push",) * 3),
    (("pull", "pull"), ("pull",) * 3),
    (("push", "pull"), ("push", "pull", "pull")),
    (("push", "local"), ("push", "push")),
    (("local", "pull"), ("pull", "pull")),
    (("push", "push", "pull"), ("push", "push", "pull")),
)
POLICIES = (
    Policy(),
    Policy(),
    Policy(at_most_once=True),
    Policy(max_attempts=1),
    Policy(retries=2, backoff_s=0.2),
    Policy(max_attempts=10),
)
CHAOS_S = 22.0
TASKS = 36


@dataclass
class Outline:
    """What came of a run."""

    seed: int
    violation: str = ""
    counts: Counter[str] = field(default_factory=Counter)


def simulate(seed: int, parts: Parts = REAL, trace: Callable[[str], None] | None = None) -> Outline:
    """One run."""
    checks = Checks()
    world = World(seed, parts, checks, trace)
    outline = Outline(seed, counts=checks.counts)
    try:
        _run(world, checks)
    except (Violation, IllegalMove, AssertionError, KeyError) as exc:
        outline.violation = f"{world.now - 1000.0:.4f} s: {type(exc).__name__}: {exc}"
    outline.counts["tasks"] = len(world.data.tasks)
    outline.counts["faults"] = checks.counts["faults"]
    return outline


def _run(world: World, checks: Checks) -> None:
    _build(world)
    _fill(world, checks)
    world.trouble = _trouble(world.random)
    Nemesis(world, checks).start()
    world.run(1000.0 + CHAOS_S)
    _heal(world)
    healed_at = world.now
    data = world.data
    ended = world.run(healed_at + HEAL_S, lambda: not data.given and not data.open)
    rest = [
        f"{row.task} {row.state.name} at {row.dispatcher}" for row in data.tasks.values() if not row.state.is_terminal
    ]
    check(ended, f"I2: {HEAL_S:g} s after the last fault there are {', '.join(rest)}")
    checks.counts["healing, ms"] += int((world.now - healed_at) * 1000)
    checks.counts["longest healing, ms"] = int((world.now - healed_at) * 1000)
    # Whoever is to be forgotten has to be found dead first.
    world.run(world.now + 40.0, lambda: not leftovers(world))
    checks.at_the_end(world)


def _build(world: World) -> None:
    chance = world.random
    modes, kinds = SITES[chance.randrange(len(SITES))]
    slots = chance.randint(1, 3)
    for n, mode in enumerate(modes):
        world.dispatchers.append(DispatcherProcess(world, f"d{n}", mode, slots if mode == "local" else 0))
    for n, kind in enumerate(kinds):
        urls = [dispatcher for dispatcher in world.dispatchers if dispatcher.mode == kind]
        WorkerProcess(world, f"w{n}", kind, urls, slots)
    for process in [*world.dispatchers, *world.workers]:
        world.at(chance.random() * 0.5, process.start)


def _fill(world: World, checks: Checks) -> None:
    """Tasks come one by one, and many at a time."""
    chance = world.random
    left = TASKS + chance.randrange(8)
    longest_s = chance.choice((0.5, 4.0, 8.0, 12.0))
    while left > 0:
        many = min(left, chance.choice((1, 1, 1, 2, 10)))
        left -= many
        short = many > 2
        when = chance.random() * CHAOS_S * 0.95
        for _ in range(many):
            task = MemoryTask(
                f"t{world.number()}", "f", policy=chance.choice(POLICIES), priority=chance.choice((0, 0, 0, 1))
            )
            behaviour = _behaviour(chance, 0.02 if short else longest_s)
            if behaviour.duration_s == NEVER_S:
                task.deadline_s = 0.5 + chance.random()
            if chance.random() < 0.03:
                task.expires_at = world.data.clock() + when + chance.random() * 5
            world.at(when, lambda task=task, behaviour=behaviour: _submit(world, checks, task, behaviour))


def _submit(world: World, checks: Checks, task: MemoryTask, behaviour: Behaviour) -> None:
    if world.submit(task, behaviour):
        checks.accepted.append(task.task)
        if world.random.random() < 0.05:
            world.at(world.random.random() * 4, lambda: world.cancel(task.task))


def _behaviour(chance: random.Random, longest_s: float) -> Behaviour:
    duration = chance.random() * 0.02 if chance.random() < 0.4 else chance.random() * longest_s
    what = chance.random()
    if what < 0.08:
        return Behaviour(duration, Outcome.RAISED)
    if what < 0.13:
        return Behaviour(duration, Outcome.DIED)
    if what < 0.15:
        return Behaviour(NEVER_S)
    if what < 0.165:
        return Behaviour(min(duration, 0.1), kills_worker=True)
    if what < 0.17:
        return Behaviour(min(duration, 0.01), kills_worker=True, kills_dispatcher=True)
    return Behaviour(duration)


def _trouble(chance: random.Random) -> Trouble:
    level = chance.choice((0.0, 0.3, 1.0, 1.0, 3.0))
    return Trouble(
        drop=0.03 * level, double=0.03 * level, late=0.02 * level, unsent=0.01 * level, lose_answer=0.02 * level,
        slow_commit=0.004 * level, die=chance.choice((0.0, 0.0, 0.002, 0.01)),
    )  # fmt: skip


def _heal(world: World) -> None:
    """Every fault ends, and who is dead and not gone for good is there again."""
    world.say("world", "heals")
    world.trouble = Trouble()
    world.longest_s = 1.0  # how long the work that is left takes says nothing about how well it is recovered
    # What is to be retried at a time waits for that time, and an hour is more than anybody wants to wait.
    world.clock_offset = world.highest_offset
    world.store_down_until = world.bells_lost_until = 0.0
    world.cuts.clear()
    modes = {worker.mode for worker in world.workers if not worker.is_local}
    for dispatcher in world.dispatchers:
        dispatcher.heal()
        others = [d for d in world.dispatchers if d is not dispatcher and not d.is_gone and d.mode in modes]
        if dispatcher.is_gone and not others:
            dispatcher.is_gone = False
        if not dispatcher.is_gone:
            dispatcher.start()
    for worker in list(world.workers):
        if all(dispatcher.is_gone for dispatcher in worker.urls):
            continue
        if not worker.is_local:
            worker.start()
    for process in [*world.dispatchers, *world.workers]:
        if process.alive and process.suspended_until > world.now:
            process.suspended_until = world.now
            process.go_on()


class Nemesis:
    """Does harm, at random."""

    def __init__(self, world: World, checks: Checks) -> None:
        self.world = world
        self._chance = world.random
        self._counts = checks.counts
        self._until = world.now + CHAOS_S
        self._every_s = self._chance.choice((0.4, 1.0, 1.0, 2.0, 5.0))
        harms = (
            (4, self._crash_dispatcher), (4, self._crash_worker), (4, self._crash_slot), (2, self._suspend_dispatcher),
            (3, self._suspend_worker), (1, self._suspend_everything), (2, self._store_down), (2, self._cut_off),
            (2, self._step_clock), (2, self._lose_bells), (4, self._cut_link), (2, self._drain), (1, self._stop),
            (2, self._lose_dispatcher),
        )  # fmt: skip
        # Each run has harms of its own: what hides among all of them together shows where there are few.
        weights = [(weight * self._chance.choice((0, 0, 1, 1, 4)), harm) for weight, harm in harms]
        self._harms = [harm for weight, harm in weights for _ in range(weight)] or [self._crash_dispatcher]

    def start(self) -> None:
        self.world.at(self._chance.expovariate(1 / self._every_s), self._strike)

    def _strike(self) -> None:
        if self.world.now >= self._until:
            return
        self._counts["faults"] += 1
        self._chance.choice(self._harms)()
        self.start()

    def _dispatcher(self) -> DispatcherProcess:
        return self._chance.choice(self.world.dispatchers)

    def _worker(self) -> WorkerProcess | None:
        workers = [worker for worker in self.world.workers if not worker.is_local]
        return self._chance.choice(workers) if workers else None

    def _seconds(self, most: float) -> float:
        return most * self._chance.random() ** 2

    def _crash_dispatcher(self) -> None:
        back_s = self._chance.choice((0.001, self._seconds(8), 10 + self._seconds(20)))
        self._dispatcher().crash(back_s)

    def _lose_dispatcher(self) -> None:
        """For good, if there is another one for its workers."""
        dispatcher = self._dispatcher()
        others = [d for d in self.world.dispatchers if d is not dispatcher and d.mode == dispatcher.mode]
        if others and not any(d.is_gone for d in self.world.dispatchers):
            dispatcher.crash(None)
            dispatcher.is_gone = True

    def _crash_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            worker.crash(0.05 + self._seconds(8))

    def _crash_slot(self) -> None:
        busy = [(worker, slot) for worker in self.world.workers for slot in worker.running]
        if busy:
            worker, slot = self._chance.choice(busy)
            worker.kill_slot(slot, Outcome.DIED)

    def _suspend_dispatcher(self) -> None:
        self._suspend(self._dispatcher(), self._seconds(20))

    def _suspend_worker(self) -> None:
        worker = self._worker()
        if worker is not None:
            self._suspend(worker, self._seconds(20) if self._chance.random() < 0.3 else 4.5 + self._seconds(8))

    def _suspend(self, process: DispatcherProcess | WorkerProcess, seconds: float) -> None:
        if process.runs:
            process.suspend(seconds)
            if isinstance(process, DispatcherProcess) and process.local is not None:
                process.local.suspend(seconds)

    def _suspend_everything(self) -> None:
        """A laptop is closed."""
        seconds = 2 + self._seconds(15)
        for process in [*self.world.dispatchers, *self.world.workers]:
            self._suspend(process, seconds)

    def _store_down(self) -> None:
        self.world.store_down_until = self.world.now + self._seconds(15)
        self.world.say("store", f"is down until {self.world.store_down_until - 1000:.1f}")

    def _cut_off(self) -> None:
        self._dispatcher().cut_off(self._seconds(20))

    def _step_clock(self) -> None:
        step = self._chance.choice((-3600.0, -30.0, -1.0, 1.0, 15.0, 3600.0))
        self.world.clock_offset += step
        self.world.highest_offset = max(self.world.highest_offset, self.world.clock_offset)
        self.world.say("store", f"has its clock stepped by {step}")

    def _lose_bells(self) -> None:
        self.world.bells_lost_until = self.world.now + self._seconds(20)

    def _cut_link(self) -> None:
        worker = self._worker()
        if worker is None:
            return
        dispatcher, until = self._chance.choice(worker.urls), self.world.now + self._seconds(15)
        for towards in self._chance.choice(((True,), (False,), (True, False))):
            self.world.cuts[worker.name, dispatcher.name, towards] = until
            self.world.say("link", f"{worker.name} - {dispatcher.name}, {towards=}, is cut until {until - 1000:.1f}")

    def _drain(self) -> None:
        worker = self._worker()
        if worker is not None and worker.runs:
            worker.drain()

    def _stop(self) -> None:
        self._dispatcher().stop(self._seconds(10))


# --- many


def simulate_many(seeds: Iterable[int], parts: Parts = REAL, processes: int | None = None) -> list[Outline]:
    """The outlines of all seeds, in their order."""
    if processes == 1:
        return [simulate(seed, parts) for seed in seeds]
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(simulate, seeds, chunksize=20))


def summary(outlines: list[Outline], seconds: float) -> str:
    total: Counter[str] = Counter()
    for outline in outlines:
        total += outline.counts
    longest = max((o.counts["longest healing, ms"] for o in outlines), default=0)
    bad = sum(bool(outline.violation) for outline in outlines)
    return (
        f"{len(outlines)} seeds, {total['tasks']} tasks, {total['executions']} executions, {total['faults']} faults,"
        f" {total['adopted']} attempts adopted, {total['taken over']} taken from a dead dispatcher,"
        f" {total['leases lost']} leases lost, {total['stale']} late results dropped;"
        f" COMPLETED {total['COMPLETED']}, FAILED {total['FAILED']}, CANCELLED {total['CANCELLED']};"
        f" all ended {total['healing, ms'] / 1000 / max(1, len(outlines)):.1f} s after the last fault on average,"
        f" {longest / 1000:.1f} s at the longest; {bad} seeds with a violation; {seconds:.0f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulates dispatchers and workers in the face of faults.")
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="say what happens")
    options = parser.parse_args()
    if options.seed is not None:
        outline = simulate(options.seed, trace=print if options.trace else None)
        print(outline.violation or "no violation", dict(outline.counts))
        return bool(outline.violation)
    began = time.monotonic()
    outlines = simulate_many(range(options.first, options.first + options.seeds))
    for outline in outlines:
        if outline.violation:
            print(f"seed {outline.seed}: {outline.violation}")
            print(f"    python -m tests.chaos.simulate --seed {outline.seed} --trace")
    print(summary(outlines, time.monotonic() - began))
    return any(outline.violation for outline in outlines)


if __name__ == "__main__":
    sys.exit(main())
