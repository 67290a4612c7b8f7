"""Writes what running tasks print to Redis, for the pages that watch them, on a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from uuid import UUID

from api import mirror
from api.redis_commands import Command, RedisUnavailable
from api.redis_sync import SyncLink
from dispatcher.store import Printed

log = logging.getLogger("dispatcher.log")

#: So many bytes may wait for a slow Redis; what comes then is dropped.
MAX_BYTES = 4 * 1024 * 1024
#: And be written in one go.
BATCH_BYTES = 512 * 1024


class LogWriter:
    """Takes output from the dispatcher's loop, and never holds it up."""

    #: After a failure nothing is tried for so many seconds.
    rest_s = 1.0

    def __init__(self, redis_url: str) -> None:
        self._link = SyncLink(redis_url)
        self._items: deque[Printed] = deque()
        self._bytes = 0
        self._awake = threading.Condition()  # around the two above
        self._closing = False
        self._rests_until = 0.0
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, printed: list[Printed]) -> None:
        with self._awake:
            for item in printed:
                if self._bytes < MAX_BYTES:
                    self._items.append(item)
                    self._bytes += _size(item)
            self._awake.notify()

    def close(self) -> None:
        with self._awake:
            self._closing = True
            self._awake.notify()
        self._thread.join(2.0)

    def _run(self) -> None:
        while items := self._take():
            if time.monotonic() >= self._rests_until:
                self._write(items)
        self._link.close()

    def _take(self) -> list[Printed]:
        """What waits; nothing once it is closed and everything is written."""
        taken: list[Printed] = []
        size = 0
        with self._awake:
            while not self._items and not self._closing:
                self._awake.wait()
            while self._items and size < BATCH_BYTES:
                taken.append(self._items.popleft())
                size += _size(taken[-1])
            self._bytes -= size
        return taken

    def _write(self, items: list[Printed]) -> None:
        commands: list[Command] = []
        for item in items:
            task = UUID(item.task)
            if item.data or item.dropped:
                commands += mirror.printed(task, item.attempt, item.data, item.dropped)
            if item.last:
                commands.append(mirror.printed_last(task))
        commands.append(mirror.announce_printed({UUID(item.task) for item in items}))
        try:
            refused = [reply for reply in self._link.call(commands) if isinstance(reply, Exception)]
        except RedisUnavailable as exc:
            self._rests_until = time.monotonic() + self.rest_s
            log.warning("output is not shown live: %s", exc)
        else:
            if refused:
                log.warning("Redis refused %d of %d commands: %s", len(refused), len(commands), refused[0])


def _size(item: Printed) -> int:
    return len(item.data) + 256
