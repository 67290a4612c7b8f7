"""Which slot gets the next job, and what each has been given: part of a worker's session, without I/O.

A slot runs one job, and may have more in line behind it: only such as are believed to be over in a moment, so that
what waits there would not begin earlier elsewhere. If that turns out to be wrong, it is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from everythingfaas.wire.messages import Job

#: Jobs that are believed to last so long together are sent to a slot ahead of time, so that it need not wait for its
#: supervisor between them,
AHEAD_S = 0.002
#: but no more than so many, and none with more bytes of arguments;
AHEAD_MAX = 16
AHEAD_BYTES = 16 * 1024
#: and what has not begun after so long behind another one is taken back, for another slot to begin.
RETRACT_S = 0.005
#: Weight of the newest run in the running mean of how long a function runs, which is kept of so many functions.
RUN_WEIGHT = 0.2
RUNS_MAX = 10_000

Key = tuple[str, int]


class Lines:
    """The slots of one worker, as its session knows them."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._idle: list[int] = []
        self.running: dict[int, Key] = {}  #: what each slot is at, by slot
        self._behind: dict[int, dict[Key, float]] = {slot: {} for slot in range(slots)}  # and how long it may take
        self._work_s = dict.fromkeys(range(slots), 0.0)  # how long all that a slot has may take
        self._asked: set[int] = set()  # slots whose lines have been asked for
        self._owners: dict[int, str] = {}
        self._run_s: dict[str, float] = {}

    @property
    def is_full(self) -> bool:
        """Something runs in each slot. While processes start, what waits is about to begin."""
        return len(self.running) >= self._slots

    @property
    def has_behind(self) -> bool:
        return any(self._behind.values())

    def behind(self) -> Iterator[int]:
        """The slots that have something in line which was not asked for yet."""
        return (slot for slot, line in self._behind.items() if line and slot not in self._asked)

    def ready(self, slot: int) -> None:
        """The slot was free when its pool said so. If it has been given something since, it is not, and the end of that
        is followed by another word."""
        if slot in self.running or self._behind[slot]:
            return
        self._work_s[slot] = 0.0
        self._asked.discard(slot)
        if slot not in self._idle:
            self._idle.append(slot)

    def place(self, key: Key, job: Job) -> int | None:
        """Gives `job` to a slot: a free one if there is one, else into a line. None if it has to wait."""
        expected_s = self._run_s.get(job.function, math.inf)
        if self._idle:
            slot = self._pick(job.owner)
            self.running[slot] = key
            self._work_s[slot] = expected_s
            self._owners[slot] = job.owner
            return slot
        if expected_s > AHEAD_S or job.fresh or job.memory_limit_mb is not None or len(job.payload.data) > AHEAD_BYTES:
            return None
        best = min(self.running, key=self._work_s.__getitem__, default=None)
        if best is None or not self._takes(best, job.owner, expected_s):
            return None
        self._behind[best][key] = expected_s
        self._asked.discard(best)
        self._work_s[best] += expected_s
        return best

    def begun(self, slot: int, key: Key) -> None:
        self._behind[slot].pop(key, None)
        self.running[slot] = key

    def done(self, slot: int, key: Key) -> None:
        """What the slot was at has ended, or has not begun after all."""
        self._behind[slot].pop(key, None)
        if self.running.get(slot) == key:
            del self.running[slot]
            if self._work_s[slot] < math.inf:
                self._work_s[slot] = sum(self._behind[slot].values())

    def returned(self, slot: int, key: Key) -> None:
        """It does not begin in this slot, and neither does another one before the slot is free."""
        if self._behind[slot].pop(key, None) is None:
            self.done(slot, key)
        self.hold_up(slot)

    def hold_up(self, slot: int) -> None:
        """What the slot is at lasts longer than was believed, or its process ends: nothing is to wait for it."""
        self._work_s[slot] = math.inf

    def ask_back(self, slot: int) -> None:
        """Its line is asked for."""
        self.hold_up(slot)
        self._asked.add(slot)

    def ran(self, function: str, elapsed_s: float) -> None:
        known = self._run_s.pop(function, None)
        self._run_s[function] = elapsed_s if known is None else known + RUN_WEIGHT * (elapsed_s - known)
        if len(self._run_s) > RUNS_MAX:
            del self._run_s[next(iter(self._run_s))]

    def clear(self) -> None:
        """Nothing that was given out counts any more."""
        self.running.clear()
        self._asked.clear()
        for line in self._behind.values():
            line.clear()

    def _takes(self, slot: int, owner: str, expected_s: float) -> bool:
        return (
            self._work_s[slot] + expected_s <= AHEAD_S
            and len(self._behind[slot]) < AHEAD_MAX
            and self._owners.get(slot) == owner
        )

    def _pick(self, owner: str) -> int:
        """An idle slot, best one that has served this owner: another one needs a new process first."""
        for index in range(len(self._idle) - 1, -1, -1):
            if self._owners.get(self._idle[index], owner) == owner:
                return self._idle.pop(index)
        return self._idle.pop()
