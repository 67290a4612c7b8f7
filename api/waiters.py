"""Clients that wait for a task to end: long polls.

However many wait, they cost one subscription (`api.mirror.DONE`), one query now and then, and a future each:
no thread, no connection and no timer of the database's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from api.errors import TooMany
from api.mirror import announced
from api.moves import TaskView
from everythingfaas.errors import StoreUnavailable

log = logging.getLogger("api.waiters")

#: How often the rows of all that wait are looked at, in seconds: without a subscription, and with one, where it is
#: only for announcements that were lost.
LOOK_S = 1.0
LOOK_ALTHOUGH_TOLD_S = 5.0


class Waiters:
    """Who waits for which task, woken by announcements or by a look at the rows."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        read: Callable[[list[UUID]], Awaitable[dict[UUID, TaskView]]],
        is_told: Callable[[], bool],
    ) -> None:
        """`read` reads rows; `is_told` says whether announcements come in at the moment."""
        self._loop = loop
        self._read = read
        self._is_told = is_told
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None
        self.closed = False

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def wait(self, task: UUID) -> asyncio.Future[None]:
        """Done when `task` may have ended: then look. Cancel it to wait no longer.

        Call this first and look at the task after it, so that no end falls between the two.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        if self.closed:
            future.set_result(None)
            return future
        key = task.bytes
        self._waiting.setdefault(key, set()).add(future)
        future.add_done_callback(lambda done: self._forget(key, done))
        self._look_later()
        return future

    def told(self, message: bytes) -> None:
        """An announcement came in."""
        if self._waiting:
            for key in announced(message):
                self._wake(key)

    def look(self) -> None:
        """Looks at the rows of all that wait, now: announcements may have been missed."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._waiting and self._look is None:
            self._look = self._loop.create_task(self._look_at_all())

    async def close(self) -> None:
        """Wakes all that wait, and lets nobody wait from here on."""
        self.closed = True
        for key in list(self._waiting):
            self._wake(key)
        if self._alarm is not None:
            self._alarm.cancel()
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])

    def _wake(self, key: bytes) -> None:
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(None)

    def _forget(self, key: bytes, future: asyncio.Future[None]) -> None:
        if (others := self._waiting.get(key)) is not None:
            others.discard(future)
            if not others:
                del self._waiting[key]

    def _look_later(self) -> None:
        if self._alarm is None and self._look is None:
            self._alarm = self._loop.call_later(LOOK_ALTHOUGH_TOLD_S if self._is_told() else LOOK_S, self.look)

    async def _look_at_all(self) -> None:
        tasks = [UUID(bytes=key) for key in self._waiting]
        try:
            views = await self._read(tasks)
        except (StoreUnavailable, TooMany) as exc:
            log.warning("nobody can be told what became of %d tasks: %s", len(tasks), exc)
        else:
            for task in tasks:
                view = views.get(task)
                if view is None or view.state.is_terminal:
                    self._wake(task.bytes)
        finally:
            self._look = None
            if self._waiting and not self.closed:
                self._look_later()
