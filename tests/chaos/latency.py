"""How long a kill takes: from the moment that it is due until the next task has begun in the same slot.

    python -m tests.chaos.latency [--mode push] [--kills 200]

Half of the kills are cancellations, due when the request is sent; half are deadlines. The functions do not want to
end: they block signals, stop themselves, have children that do so too, or keep a core busy. The queue is never empty,
so the end has to be committed and the next task claimed within that time as well. Once with Redis, and once without,
where a dispatcher hears of a cancellation when it next looks, which it does once a second.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.chaos.stubborn import STUBBORN, begin
from tests.live import Appliance, running, serialize
from tests.web import NO_REDIS

MODES = ("local", "pull", "push")
SLOTS = 4
#: Some more than are counted: the last one in a slot has nobody behind it.
KILLS = 208
DEADLINE_S = 0.25
#: The 99th percentile that is promised, with Redis and without.
LIMITS_S = {True: 1.0, False: 2.5}


@dataclass(frozen=True)
class Row:
    """What one series of kills took, in seconds, in order."""

    mode: str
    redis: bool
    kind: str
    latencies_s: tuple[float, ...]

    def percentile(self, share: float) -> float:
        return self.latencies_s[min(len(self.latencies_s) - 1, int(share * len(self.latencies_s)))]

    @property
    def is_kept(self) -> bool:
        return self.percentile(0.99) < LIMITS_S[self.redis]

    def __str__(self) -> str:
        p50, p95, p99 = (1000 * self.percentile(share) for share in (0.5, 0.95, 0.99))
        return (
            f"{self.mode:6} {'with' if self.redis else 'without':7} {self.kind:9} {len(self.latencies_s):5}"
            f" {p50:7.0f} {p95:7.0f} {p99:7.0f} {1000 * self.latencies_s[-1]:7.0f}"
            f"  {'kept' if self.is_kept else 'NOT KEPT'}"
        )


HEAD = "mode   Redis   due by    kills     p50     p95     p99     max   (ms)"


class Course:
    """One series of tasks that do not end by themselves, through one appliance."""

    def __init__(self, appliance: Appliance, folder: Path, kills: int, seed: int) -> None:
        self._appliance = appliance
        self._starts = folder / "starts"
        self._starts.touch()
        self._random = random.Random(seed)
        self._kinds = ["cancel", "deadline"] * (kills // 2)
        self._random.shuffle(self._kinds)
        self._tasks: list[str] = []
        self._due: dict[int, float] = {}

    def run(self) -> dict[str, list[float]]:
        """The latencies by what the kill was due to."""
        self._submit_all()
        self._cancel_when_begun()
        slots = self._slots()
        starts = self._read_starts()
        in_slot: dict[int, list[int]] = defaultdict(list)
        for number in sorted(starts, key=starts.__getitem__):
            in_slot[slots[number]].append(number)
        latencies: dict[str, list[float]] = defaultdict(list)
        for numbers in in_slot.values():
            for number, following in itertools.pairwise(numbers):
                if number < len(self._kinds):
                    due = self._due.get(number, starts[number] + DEADLINE_S)
                    latencies[self._kinds[number]].append(starts[following] - due)
        return latencies

    def _submit_all(self) -> None:
        functions = {function: self._appliance.register(function) for function in (*STUBBORN, begin)}
        for number, kind in enumerate(self._kinds):
            policy = {"deadline_s": DEADLINE_S} if kind == "deadline" else {}
            self._submit(functions[self._random.choice(STUBBORN)], number, policy)
        for number in range(len(self._kinds), len(self._kinds) + 4 * SLOTS):
            self._submit(functions[begin], number, {})  # so that each slot has something after its last kill

    def _submit(self, function_id: str, number: int, policy: dict[str, Any]) -> None:
        payload = serialize(((str(self._starts), number), {}))
        body = {"function_id": function_id, "payload": payload, "policy": policy}
        answer = self._appliance.post("/execute_function", body)
        assert answer.status_code == 201, answer.text
        self._tasks.append(answer.json()["task_id"])

    def _cancel_when_begun(self) -> None:
        """Cancels each task that is to be cancelled some time after it has begun, until all have."""
        known: set[int] = set()
        cancellers = []
        patience = time.monotonic() + 60 + 2 * len(self._kinds)
        while len(known) < len(self._tasks):
            if time.monotonic() > patience:
                raise TimeoutError(f"{len(known)} of {len(self._tasks)} tasks have begun")
            for number in self._read_starts().keys() - known:
                known.add(number)
                if number < len(self._kinds) and self._kinds[number] == "cancel":
                    cancellers.append(threading.Timer(self._random.uniform(0.05, 0.4), self._cancel, [number]))
                    cancellers[-1].start()
            time.sleep(0.02)
        for canceller in cancellers:
            canceller.join()

    def _cancel(self, number: int) -> None:
        self._due[number] = time.monotonic()
        path = f"/api/v1/tasks/{self._tasks[number]}/cancel"
        answer = requests.post(self._appliance.url + path, json={}, timeout=30)
        assert answer.status_code in (200, 202), answer.text

    def _read_starts(self) -> dict[int, float]:
        lines = self._starts.read_text().splitlines()
        return {int(number): float(at) for number, at in (line.split() for line in lines)}

    def _slots(self) -> dict[int, int]:
        """In which slot each task has run; all have ended as they should."""
        slots = {}
        for number, task in enumerate(self._tasks):
            self._appliance.result(task)
            details = self._appliance.get(f"/api/v1/tasks/{task}").json()
            (attempt,) = details["attempts"]
            expected = ("COMPLETED", "RETURNED")
            if number < len(self._kinds):
                expected = ("CANCELLED", "CANCELLED") if self._kinds[number] == "cancel" else ("FAILED", "DEADLINE")
            assert (details["state"], attempt["outcome"]) == expected, details
            slots[number] = attempt["slot"]
        return slots


def measure(mode: str, *, redis: bool, kills: int, folder: Path, seed: int = 1) -> list[Row]:
    """Kills in an appliance of its own."""
    environ = {} if redis else {"FAAS_REDIS_URL": NO_REDIS}
    folder.mkdir(parents=True, exist_ok=True)
    with running(folder / "data", "--mode", mode, "--workers", str(SLOTS), **environ) as appliance:
        latencies = Course(appliance, folder, kills, seed).run()
    return [Row(mode, redis, kind, tuple(sorted(values))) for kind, values in sorted(latencies.items())]


def series(modes: tuple[str, ...], kills: int) -> Iterator[Row]:
    for mode in modes:
        for redis in (True, False):
            with tempfile.TemporaryDirectory(prefix="faas-latency-") as folder:
                yield from measure(mode, redis=redis, kills=kills, folder=Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.latency")
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--kills", type=int, default=KILLS)
    options = parser.parse_args()
    begun = time.monotonic()
    rows = []
    for row in series(tuple(options.mode or MODES), options.kills):
        if not rows:
            print(HEAD)
        rows.append(row)
        print(row, flush=True)
    wrong = sum(not row.is_kept for row in rows)
    kills = sum(len(row.latencies_s) for row in rows)
    print(f"latency: {kills} kills, {wrong} series over their limit, {time.monotonic() - begun:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
