#!/usr/bin/env python
"""What happens while somebody else holds SQLite's write lock for 10 s: python benchmarks/locked.py

An appliance with a deadline of 2 s a task is at work when another process (a plain `sqlite3`, which knows nothing of
our own lock files) begins to write and does not end. Nothing can be committed meanwhile. What must be true:

    - a task that runs too long is killed on time, although its end cannot be written yet;
    - tasks that had begun end, and each runs once: no lease, no attempt and no worker is lost;
    - who submits is answered 201 once it is written, or 503 with Retry-After; nothing hangs;
    - reading goes on;
    - afterwards everything that was accepted ends as it should, and nothing that was refused exists.

Exit status 1 if one of them does not hold.
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from bench import appliance, proc
from bench.functions import call, marker, registration
from bench.report import machine, progress, save, table
from bench.stats import percentile

from everythingfaas.serialize import deserialize

WORKERS = 4
DEADLINE_S = 2.0
#: How late a kill may be.
SLACK_S = 1.0
#: How much longer than the lock an answer to a submit may take.
PATIENCE_S = 12.0
SUBMIT_EVERY_S = 0.25

#: Runs as a process of its own: says when it has the lock, and when it has let go.
_HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
print("released", flush=True)
"""


@dataclass
class Submission:
    """One call of `marker`, and what came of it."""

    name: str
    file: Path
    seconds: float
    status: int = 0
    retry_after: str | None = None
    task: str = ""
    took_s: float = 0.0
    ended: str = ""
    value: Any = None

    @property
    def runs(self) -> list[int]:
        """The processes in which it began."""
        return [int(line) for line in self.file.read_text().split()] if self.file.exists() else []


@dataclass
class Observation:
    """What was seen, and what of it was wrong."""

    facts: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.violations.append(what)


class Trial:
    def __init__(self, live: appliance.Appliance, folder: Path, hold_s: float) -> None:
        self.live = live
        self.hold_s = hold_s
        self.seen = Observation()
        self._folder = folder
        self._function = self._register()

    def run(self) -> Observation:
        self._until_ended([self._submit("warm", 0.0)])
        before = self._state()
        doomed = self._submit("doomed", 60.0)
        brief = [self._submit(f"brief-{i}", 1.0) for i in range(WORKERS - 1)]
        # Behind those, and so claimed but not begun, or not even claimed, when the lock comes.
        queued = [self._submit(f"queued-{i}", 0.1) for i in range(6)]
        _until(lambda: bool(doomed.runs) and all(task.runs for task in brief), "the first tasks have begun")
        began = time.monotonic() - (time.time() - doomed.file.stat().st_mtime)  # when it wrote its mark
        command = [sys.executable, "-c", _HOLDER, str(self.live.database), str(self.hold_s)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            locked = time.monotonic()
            progress(f"locked for {self.hold_s:g} s, {locked - began:.2f} s after the first tasks began")
            submitted, reads = self._during(doomed, brief, began, locked)
            assert holder.stdout.readline() == "released\n"
        released = time.monotonic()
        self._answers(submitted)
        accepted = [task for task in submitted if task.status == 201]
        self._until_ended([doomed, *brief, *queued, *accepted])
        self.seen.facts["all ended, s after the release"] = round(time.monotonic() - released, 2)
        time.sleep(2.0)  # for whatever should not, but might still be run
        self._judge(doomed, [*brief, *queued, *accepted], submitted)
        self._judge_state(before, self._state())
        self.seen.facts["GETs while locked"] = len(reads)
        self.seen.facts["GET p50 / max, ms"] = f"{percentile(reads, 0.5) * 1000:.1f} / {max(reads) * 1000:.1f}"
        self.seen.expect(max(reads) < 1.0, f"a GET took {max(reads):.2f} s while the lock was held")
        return self.seen

    # While the lock is held

    def _during(
        self, doomed: Submission, brief: Sequence[Submission], began: float, locked: float
    ) -> tuple[list[Submission], list[float]]:
        """Submits and reads until the lock is let go, and waits for the answers."""
        submitted: list[Submission] = []
        reads: list[float] = []
        threads: list[threading.Thread] = []
        watch = threading.Thread(target=self._watch, args=(doomed, brief, began))
        watch.start()
        while time.monotonic() < locked + self.hold_s - 2 * SUBMIT_EVERY_S:
            task = self._prepared(f"late-{len(submitted)}", 0.0)
            submitted.append(task)
            threads.append(threading.Thread(target=self._send, args=(task,)))
            threads[-1].start()
            at = time.monotonic()
            answer = requests.get(f"{self.live.url}/status/{doomed.task}", timeout=30)
            reads.append(time.monotonic() - at)
            self.seen.expect(answer.status_code == 200, f"GET /status answered {answer.status_code}")
            time.sleep(max(0.0, SUBMIT_EVERY_S - reads[-1]))
        for thread in [watch, *threads]:
            thread.join()
        return submitted, reads

    def _watch(self, doomed: Submission, brief: Sequence[Submission], began: float) -> None:
        """Notes when the process of the task that runs too long has gone."""
        pid = doomed.runs[0]
        while not proc.is_gone(pid) and time.monotonic() < began + self.hold_s:
            time.sleep(0.005)
        gone_s = time.monotonic() - began
        self.seen.facts[f"deadline of {DEADLINE_S:g} s: process gone after, s"] = round(gone_s, 3)
        self.seen.expect(proc.is_gone(pid) and gone_s <= DEADLINE_S + SLACK_S, f"killed only after {gone_s:.2f} s")
        self.seen.expect(gone_s >= DEADLINE_S - 0.05, f"killed too early, after {gone_s:.2f} s")
        self.seen.expect(all(task.runs for task in brief), "a task beside it has not begun")

    # Afterwards

    def _answers(self, submitted: Sequence[Submission]) -> None:
        facts, accepted = self.seen.facts, [task for task in submitted if task.status == 201]
        refused = [task for task in submitted if task.status == 503]
        facts["submits while locked"] = len(submitted)
        facts["201 / 503 / else"] = (
            f"{len(accepted)} / {len(refused)} / {len(submitted) - len(accepted) - len(refused)}"
        )
        facts["slowest answer, s"] = round(max(task.took_s for task in submitted), 2)
        for task in submitted:
            self.seen.expect(task.status in (201, 503), f"{task.name} was answered {task.status}")
            self.seen.expect(
                task.took_s < self.hold_s + PATIENCE_S, f"{task.name} was answered after {task.took_s:.1f} s"
            )
        for task in refused:
            self.seen.expect(task.retry_after is not None, f"{task.name}: 503 without Retry-After")

    def _judge(self, doomed: Submission, good: Sequence[Submission], submitted: Sequence[Submission]) -> None:
        self.seen.expect(doomed.ended == "FAILED", f"the task that ran too long ended {doomed.ended}")
        text = f"{type(doomed.value).__name__}: {doomed.value}"
        self.seen.facts["it failed with"] = text
        self.seen.expect("WorkerFailure" in text and "exceeded deadline" in text, f"it failed with {text}")
        for task in good:
            self.seen.expect(task.ended == "COMPLETED", f"{task.name} ended {task.ended}: {task.value!r}")
        for task in [doomed, *good]:
            self.seen.expect(len(task.runs) == 1, f"{task.name} began {len(task.runs)} times")
        refused = [task for task in submitted if task.status != 201]
        for task in refused:
            self.seen.expect(not task.runs, f"{task.name} was answered {task.status}, and was run")
        expected = 2 + len(good)  # the first one, and the one that ran too long
        rows = self._query("SELECT count(*) FROM api_task")[0][0]
        self.seen.facts["accepted / rows in the database"] = f"{expected} / {rows}"
        self.seen.expect(rows == expected, f"{expected} tasks were accepted, and the database has {rows}")

    def _judge_state(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        for name, value in before.items():
            self.seen.facts[name] = f"{value}, then {after[name]}"
            self.seen.expect(after[name] == value, f"{name}: {value} before, {after[name]} after")
        attempts = self._query("SELECT max(attempt) FROM api_task")[0][0]
        self.seen.facts["most attempts of one task"] = attempts
        self.seen.expect(attempts == 1, f"a task was given out {attempts} times: attempts were lost")

    def _state(self) -> dict[str, Any]:
        """What must not change."""
        dispatchers = self._query("SELECT epoch FROM api_dispatcher")
        return {
            "pid of the web": self.live.pid_of("web"),
            "pid of the dispatcher": self.live.pid_of("dispatcher"),
            "epoch of the dispatcher's lease": [row[0] for row in dispatchers],
        }

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self.live.database}?mode=ro", uri=True)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    # REST

    def _register(self) -> str:
        answer = self._post("/register_function", registration(marker()))
        answer.raise_for_status()
        return str(answer.json()["function_id"])

    def _prepared(self, name: str, seconds: float) -> Submission:
        return Submission(name, self._folder / name, seconds)

    def _submit(self, name: str, seconds: float) -> Submission:
        task = self._prepared(name, seconds)
        self._send(task)
        if task.status != 201:
            raise RuntimeError(f"{name} was answered {task.status}")
        return task

    def _send(self, task: Submission) -> None:
        began = time.monotonic()
        answer = self._post("/execute_function", call(self._function, str(task.file), task.seconds))
        task.took_s = time.monotonic() - began
        task.status = answer.status_code
        task.retry_after = answer.headers.get("Retry-After")
        if task.status == 201:
            task.task = answer.json()["task_id"]

    def _until_ended(self, tasks: Sequence[Submission]) -> None:
        patience = time.monotonic() + 60
        for task in tasks:
            while True:
                answer = requests.get(f"{self.live.url}/result/{task.task}?wait=10", timeout=90).json()
                if answer["status"] in ("COMPLETED", "FAILED"):
                    break
                if time.monotonic() > patience:
                    self.seen.expect(False, f"{task.name} still {answer['status']}")
                    return
            task.ended, task.value = answer["status"], deserialize(answer["result"])

    def _post(self, path: str, body: bytes) -> requests.Response:
        headers = {"Content-Type": "application/json"}
        return requests.post(self.live.url + path, data=body, headers=headers, timeout=90)


def _until(condition: Callable[[], bool], what: str) -> None:
    patience = time.monotonic() + 15
    while not condition():
        if time.monotonic() > patience:
            raise TimeoutError(f"not within 15 s: {what}")
        time.sleep(0.002)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hold", type=float, default=10.0, metavar="SECONDS", help="how long the lock is held")
    parser.add_argument("--folder", type=Path, help="where the data folder is made; default: the temporary folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen there")
    options = parser.parse_args()
    up = appliance.running("--task-deadline", str(DEADLINE_S), workers=WORKERS, folder=options.folder)
    with up as live:
        folder = live.data_dir.parent / "marks"
        folder.mkdir()
        seen = Trial(live, folder, options.hold).run()
    rows = [{"seen": name, "value": str(value)} for name, value in seen.facts.items()]
    print(table(f"SQLite's write lock held by another process for {options.hold:g} s", rows))
    print("\nVIOLATED\n  " + "\n  ".join(seen.violations) if seen.violations else "\nAll held.")
    about = {"benchmark": "locked", "options": vars(options), "machine": machine(options.folder)}
    save(options.json, {**about, "seen": seen.facts, "violations": seen.violations})
    return 1 if seen.violations else 0


if __name__ == "__main__":
    sys.exit(main())
