"""Negative controls: the product with one of its safeguards taken out. The simulation has to notice each of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from dispatcher.books import Send, Worker
from dispatcher.memory import MemoryStore
from dispatcher.neighbours import Neighbours
from dispatcher.scheduler import Scheduler
from dispatcher.store import Registration
from everythingfaas.status import State
from everythingfaas.wire.messages import Attempt, Hello, Report, ResultAck
from tests.chaos.simulate import Outline, simulate
from tests.chaos.simulate_world import Parts


class NoFence(MemoryStore):
    """Any attempt may write as long as one runs: numbers are not compared."""

    def _is_current(self, key: tuple[str, int]) -> bool:
        return key[0] in self.tasks and self.tasks[key[0]].state is State.RUNNING

    def _is_ours(self, task: str, attempt: int) -> bool:
        return self._is_current((task, attempt))


class LateResultsTaken(Scheduler):
    """A result is taken for whichever attempt of its task there is."""

    def _reports(self, worker: Worker, reports: Iterable[Report]) -> list[Send]:
        current = dict(self._assignments.keys())  # the number of the attempt, by task
        return super()._reports(worker, [replace(r, attempt=current.get(r.task, r.attempt)) for r in reports])


class LeasesWithoutEnd(MemoryStore):
    """A dispatcher that has a row is alive."""

    def _is_live(self, dispatcher: str) -> bool:
        return dispatcher in self.data.dispatchers


class LeasesIgnored(MemoryStore):
    """Nobody's lease counts."""

    def _is_live(self, dispatcher: str) -> bool:
        return False


class EarlyAcknowledgement(Scheduler):
    """A result is acknowledged when it is heard."""

    def _reports(self, worker: Worker, reports: Iterable[Report]) -> list[Send]:
        reports = tuple(reports)
        heard = ResultAck(tuple(Attempt(report.task, report.attempt) for report in reports))
        return [*super()._reports(worker, reports), Send(worker.peer, heard)]


class NoAdoption(Scheduler):
    """What a worker brings along, and we have not given out, is not asked for."""

    def _hello(self, peer: bytes, hello: Hello, now: float) -> list[Send]:
        sends = super()._hello(peer, hello, now)
        self._adopting.clear()
        self._next.adopt.clear()
        return sends


class Immortals(Neighbours):
    def dead(self, lapsed: Iterable[str], now: float) -> list[str]:
        return []


class NoTakeOver(Scheduler):
    """The dead are left alone with what they had given out."""

    def __init__(self, registration: Registration, *, now: float, **options: Any) -> None:
        super().__init__(registration, now=now, **options)
        self._neighbours = Immortals(now=now)


class NoMemory(Scheduler):
    """What an earlier run had given out is not known to the next."""

    def __init__(self, registration: Registration, **options: Any) -> None:
        super().__init__(replace(registration, held=[]), **options)


#: Each with the rules of which it has to break one.
CONTROLS: dict[str, tuple[Parts, tuple[str, ...]]] = {
    "no fence": (Parts(LateResultsTaken, NoFence), ("I3", "I4", "I5", "I7", "I8", "I9", "IllegalMove")),
    "no lease: it never ends": (Parts(store=LeasesWithoutEnd), ("I2", "I12")),
    "no lease: it is ignored": (Parts(store=LeasesIgnored), ("I9",)),
    "acknowledged before the commit": (Parts(scheduler=EarlyAcknowledgement), ("R6",)),
    "no adoption: of what workers bring": (Parts(scheduler=NoAdoption), ("I9", "R6")),
    "no adoption: of what the dead have left": (Parts(scheduler=NoTakeOver), ("I2", "I12")),
    "no adoption: of what one had before": (Parts(scheduler=NoMemory), ("I2", "I7", "I9", "I10")),
}
#: Within so many seeds.
SEEDS = 300


def first_violation(parts: Parts) -> Outline:
    """Of the first seed that has one; of the last one if none has."""
    for seed in range(SEEDS):
        outline = simulate(seed, parts)
        if outline.violation:
            break
    return outline


def main() -> int:
    outlines = {name: first_violation(parts) for name, (parts, _) in CONTROLS.items()}
    for name, outline in outlines.items():
        print(f"{name}: seed {outline.seed}, {outline.violation or 'NOT NOTICED'}")
    return not all(outline.violation for outline in outlines.values())


if __name__ == "__main__":
    sys.exit(main())
