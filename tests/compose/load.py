"""A client that goes on whatever happens to the service, and then counts."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from tests.live import Appliance, serialize, until

#: Between two submits of one thread: the load of a busy day, not a benchmark.
PAUSE_S = 0.02
THREADS = 3


def twice_as_much() -> Any:
    """A function that is sent by value, as it is nobody's module's."""

    def twice(number: int, seconds: float) -> int:
        import time

        time.sleep(seconds)
        return 2 * number

    return twice


class Load:
    """Tasks that were accepted, with the numbers that they were given.

    Args:
        seconds: how long each task takes.
    """

    def __init__(self, client: Appliance, *, seconds: float = 0.05) -> None:
        self._url = client.url
        self._function = client.register(twice_as_much())
        self._seconds = seconds
        self._stopped = threading.Event()
        self._given_up: list[str] = []
        self.accepted: dict[str, int] = {}

    def submit(self, number: int, http: requests.Session) -> None:
        """As a careful client does: with a key, until the answer is clear."""
        payload = serialize(((number, self._seconds), {}))
        key = {"Idempotency-Key": uuid.uuid4().hex}
        body = {"function_id": self._function, "payload": payload}
        while not self._stopped.is_set():
            try:
                answer = http.post(f"{self._url}/execute_function", json=body, headers=key, timeout=5)
            except requests.RequestException:
                self._stopped.wait(0.1)
                continue
            if answer.status_code == 201:
                self.accepted[answer.json()["task_id"]] = number
                return
            if answer.status_code != 503:
                self._given_up.append(f"{answer.status_code} {answer.text}")
                return
            self._stopped.wait(0.1)

    def grows_by(self, count: int) -> None:
        """Waits until so many more are accepted."""
        wanted = len(self.accepted) + count
        until(lambda: len(self.accepted) >= wanted, timeout_s=60, what=f"{count} more tasks are accepted")

    def check(self) -> None:
        """Every task that was accepted has ended, once and as it should."""
        assert self._given_up == []
        client = Appliance(self._url)
        wrong = {}
        for task, number in self.accepted.items():
            ended = client.result(task, timeout_s=90)
            if ended != ("COMPLETED", 2 * number):
                wrong[task] = ended
        assert wrong == {}

    @contextmanager
    def going_on(self) -> Iterator[Load]:
        """Submits until the block ends."""
        threads = [threading.Thread(target=self._go_on, args=(index,)) for index in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def _go_on(self, index: int) -> None:
        number = index
        with requests.Session() as http:
            while not self._stopped.wait(PAUSE_S):
                self.submit(number, http)
                number += THREADS
