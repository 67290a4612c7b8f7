"""Clients of a service that dies again and again: they repeat what was not answered, and write down what they see."""

from __future__ import annotations

import itertools
import json
import math
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import requests

from tests.chaos.chores import chore
from tests.live import serialize

#: So many tasks are on their way at any time: enough for all slots while the web is away for some seconds.
OUTSTANDING = 700
SUBMITTERS = 3
WATCHERS = 2
#: Between two looks of one watcher: the service has more to do than to answer us.
LOOK_EACH_S = 0.015
_RANK = {"QUEUED": 0, "RUNNING": 1, "COMPLETED": 2, "FAILED": 2}
_SHORTEST_S, _LONGEST_S = 0.001, 2.0


@dataclass
class Sent:
    """A task that was accepted."""

    number: int
    task: UUID
    at_most_once: bool
    status: str = "QUEUED"  #: as seen last
    result: str = ""  #: as seen when it had ended


@dataclass
class Seen:
    """What all clients together have to tell."""

    accepted: list[Sent] = field(default_factory=list)
    repeated: int = 0  #: requests that were sent again
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Clients:
    """Submit and watch, in threads, from `start` until `stop`."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self.seen = Seen()
        self._url = url
        self._folder = folder
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._silent = threading.Event()
        self._open: list[dict[UUID, Sent]] = [{} for _ in range(WATCHERS)]
        self._functions = (self._register({}), self._register({"on_worker_lost": "fail"}))
        self._threads = [threading.Thread(target=self._submit, daemon=True) for _ in range(SUBMITTERS)]
        self._watching = [threading.Thread(target=self._watch, args=(n,), daemon=True) for n in range(WATCHERS)]

    def start(self) -> None:
        for thread in (*self._threads, *self._watching):
            thread.start()

    def stop_submitting(self) -> None:
        """What was begun to be submitted is, whatever it takes."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        if any(thread.is_alive() for thread in self._threads):
            self.seen.wrong.append("a request was not answered within 60 s")

    def stop_watching(self) -> None:
        self._silent.set()
        for thread in self._watching:
            thread.join(60)

    def finally_seen(self, sent: Sent) -> tuple[str, str]:
        """Status and result of a task, from a service that is well."""
        answer = requests.get(f"{self._url}/result/{sent.task}", timeout=10).json()
        return answer["status"], answer["result"]

    # --- submitting

    def _register(self, policy: dict[str, Any]) -> str:
        body = {"name": "chore", "payload": serialize(chore), "policy": policy}
        while True:
            try:
                answer = requests.post(f"{self._url}/register_function", json=body, timeout=5)
            except requests.RequestException:
                time.sleep(0.1)
                continue
            assert answer.status_code == 201, answer.text
            return str(answer.json()["function_id"])

    def _submit(self) -> None:
        http = requests.Session()
        while not self._over.is_set():
            if sum(map(len, self._open)) >= OUTSTANDING:
                time.sleep(0.01)
                continue
            with self._lock:
                number = next(self._numbers)
                at_most_once = self._random.random() < 0.1
                duration_s = math.exp(self._random.uniform(math.log(_SHORTEST_S), math.log(_LONGEST_S)))
            payload = serialize(((str(self._folder), number, duration_s), {}))
            body = {"function_id": self._functions[at_most_once], "payload": payload}
            sent = self._post(http, number, body, at_most_once)
            if sent is not None:
                self.seen.accepted.append(sent)
                self._open[number % WATCHERS][sent.task] = sent

    def _post(self, http: requests.Session, number: int, body: dict[str, Any], at_most_once: bool) -> Sent | None:
        while True:
            try:
                answer = http.post(
                    f"{self._url}/execute_function", json=body, headers={"Idempotency-Key": f"n{number}"}, timeout=3
                )
            except requests.RequestException:
                self.seen.repeated += 1
                time.sleep(0.05)
                continue
            if answer.status_code == 201:
                return Sent(number, UUID(answer.json()["task_id"]), at_most_once)
            if answer.status_code != 503:
                self.seen.wrong.append(f"POST /execute_function answered {answer.status_code}: {answer.text[:200]}")
                return None
            self.seen.repeated += 1
            time.sleep(0.1)

    # --- watching

    def _watch(self, shard: int) -> None:
        """Each task is watched by one thread, on one connection: so what it sees has an order."""
        http = requests.Session()
        tasks = self._open[shard]
        chance = random.Random(shard)
        with (self._folder / f"seen-{shard}.jsonl").open("w") as log:
            while not self._silent.is_set():
                if not tasks:
                    time.sleep(0.01)
                    continue
                # The oldest ones have most to tell.
                among = list(tasks.values())[:40]  # copied at once: other threads add to it
                self._look(http, chance.choice(among), tasks, log)
                time.sleep(LOOK_EACH_S)

    def _look(self, http: requests.Session, sent: Sent, tasks: dict[UUID, Sent], log: TextIO) -> None:
        try:
            answer = http.get(f"{self._url}/result/{sent.task}", timeout=3)
        except requests.RequestException:
            time.sleep(0.02)
            return
        if answer.status_code == 503:
            time.sleep(0.02)
            return
        if answer.status_code != 200:
            self.seen.wrong.append(f"GET /result answered {answer.status_code} for {sent.task}: {answer.text[:200]}")
            tasks.pop(sent.task)
            return
        body = answer.json()
        status = body["status"]
        self.seen.statuses[status] += 1
        log.write(json.dumps([time.time(), str(sent.task), status]) + "\n")
        if _RANK[status] < _RANK[sent.status]:
            self.seen.wrong.append(f"the status of {sent.task} went back from {sent.status} to {status}")
        sent.status = status
        if _RANK[status] == 2:
            sent.result = body["result"]
            tasks.pop(sent.task)


__all__ = ["Clients", "Seen", "Sent"]
