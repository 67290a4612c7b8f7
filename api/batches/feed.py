"""Who has ended, of the batches that somebody follows: the results of a batch as a stream with cursors.

One `Feed` for each followed batch, whoever follows it in this process. It knows the tasks that have not ended, and
lists those that have, in the order in which it hears of them:

    opened: rows ──▶ pending {id: number} ──told of an end──▶ the list of numbers and ids ──▶ readers, each at its place

A cursor is a place in that list, `feed.place.low`. `low` says that all tasks of lower numbers have been passed on. It
serves where the feed is not known, because this is another process, or nobody has read it for a while: then it starts
from there, and some of what was passed on before comes again, never less.

Nothing is missed between two steps: a task is pending before its row is looked at, and an end that is announced before
this process knows of the task is remembered for a while. What Redis loses, a look at the rows finds.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from api.batches import statements
from api.batches.statements import ID_BYTES
from api.errors import InvalidRequest, TooMany
from api.mirror import announced
from everythingfaas.errors import StoreUnavailable

log = logging.getLogger("api.batches")

T = TypeVar("T")

#: How often the rows of what has not ended are looked at, in seconds: without word from Redis, and with it, where it is
#: only for announcements that were lost.
LOOK_S = 1.0
LOOK_ALTHOUGH_TOLD_S = 5.0
#: For so many seconds a feed that nobody reads is kept.
KEPT_S = 60.0
#: And at least so many seconds of a hundred are left to others by looks at the rows.
SHARE = 20
#: So many ends of tasks that nobody knows of yet are remembered.
KEPT_UNKNOWN = 20_000
#: While more than so many are pending, what has ended waits so many seconds for what else does.
MANY = 100
GATHER_S = 0.02
#: So many rows are asked for in one turn of the reader.
STEP = 5_000


class Ask(Protocol):
    """Runs a question with a cursor."""

    def __call__(self, question: Callable[[CursorWrapper], T], /) -> Awaitable[T]: ...


class Place(NamedTuple):
    """A cursor."""

    feed: str = ""
    at: int = 0
    low: int = 0

    @classmethod
    def read(cls, text: str) -> Place:
        """Raises InvalidRequest."""
        if not text:
            return cls()
        try:
            feed, at, low = text.split(".")
            place = cls(feed, int(at), int(low))
        except ValueError:
            place = cls("", -1)
        if place.at < 0 or place.low < 0:
            raise InvalidRequest("after must be a cursor as an answer before had it", field="after")
        return place

    def __str__(self) -> str:
        return f"{self.feed}.{self.at}.{self.low}"


class Feed:
    """One batch. On the loop."""

    def __init__(self, batch: UUID) -> None:
        self.batch = batch
        self.name = secrets.token_urlsafe(6)
        self.size = 0  #: tasks that it knows of
        self.readers = 0
        self.idle_since = 0.0  #: since it has had no reader; only where it is open
        self.pending: dict[bytes, int] = {}
        # Twenty bytes for each that has ended: there may be a million.
        self._numbers = array("I")
        self._ids = bytearray()
        self._sorted = 0  # so many of them are in order: those that had ended when it was opened
        self._late: list[bytes] | None = []  # told while it is being opened
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def end(self) -> int:
        """The place behind the last that has ended."""
        return len(self._numbers)

    def place(self, cursor: Place) -> Place:
        """Where one goes on who comes with `cursor`."""
        if cursor.feed == self.name and cursor.at <= self.end:
            return cursor
        low = min(cursor.low, self.size)
        return Place(self.name, bisect_left(self._numbers, low, 0, self._sorted), low)

    def ended(self, place: Place, most: int) -> list[tuple[int, bytes]]:
        """The tasks from there on, with their numbers."""
        last = min(place.at + most, self.end)
        ids = statements.split(bytes(self._ids[place.at * ID_BYTES : last * ID_BYTES]))
        return list(zip(self._numbers[place.at : last], ids, strict=True))

    def passed(self, place: Place, count: int) -> Place:
        """The place of a reader that has got so many more."""
        at, low = place.at + count, place.low
        if at == self.end:  # so what it has not got is pending
            low = max(low, next(iter(self.pending.values()), self.size))
        return Place(self.name, at, low)

    def grown(self, first: int, ids: list[bytes]) -> None:
        """It has these tasks as well, from number `first` on."""
        self.pending.update(zip(ids, range(first, first + len(ids)), strict=True))
        self.size = first + len(ids)

    def told(self, task: bytes) -> None:
        """It has ended. Call `wake` afterwards."""
        if self._late is None:
            self.found(task)
        else:
            self._late.append(task)

    def found(self, task: bytes) -> None:
        """The same, by its row."""
        number = self.pending.pop(task, None)
        if number is not None:
            self._numbers.append(number)
            self._ids += task

    def opened(self) -> None:
        """All that had ended when it was opened is found, in order."""
        self._sorted = self.end
        late, self._late = self._late or (), None
        for task in late:
            self.found(task)

    def wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def more(self) -> None:
        """Returns when there may be more. Where very many are pending, a little later, so that pages are larger."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)
        if len(self.pending) > MANY:
            await asyncio.sleep(GATHER_S)


class Feeds:
    """All feeds of this process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        ask: Ask,
        is_told: Callable[[], bool],
    ) -> None:
        """`is_told` says whether announcements come in at the moment."""
        self._loop = loop
        self._ask = ask
        self._is_told = is_told
        self._feeds: dict[UUID, Feed] = {}
        self._opening: dict[UUID, asyncio.Task[Feed]] = {}
        self._grown: set[UUID] = set()  # of those that are being opened: while they were
        self._of: dict[bytes, Feed] = {}  # whose a pending task is
        self._unknown: OrderedDict[bytes, None] = OrderedDict()
        self._alarm: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None
        self._look_again = False
        self._took_s = 0.0
        self.closed = False

    async def join(self, batch: UUID) -> Feed:
        """The feed of `batch`, for one more reader; `leave` it. Raises StoreUnavailable."""
        feed = self._feeds.get(batch)
        if feed is None or batch in self._opening:
            opening = self._opening.get(batch)
            if opening is None:
                opening = self._opening[batch] = self._loop.create_task(self._open(batch))
            feed = await asyncio.shield(opening)
        elif not feed.readers and self._loop.time() - feed.idle_since > LOOK_S:
            self._loop.call_soon(self.look)  # nobody has, meanwhile
        feed.readers += 1
        self._look_later()
        return feed

    def leave(self, feed: Feed) -> None:
        feed.readers -= 1
        feed.idle_since = self._loop.time()

    def told(self, message: bytes) -> None:
        """An announcement came in."""
        if not self._feeds and not self._opening:
            return
        woken: set[Feed] = set()
        for task in announced(message):
            feed = self._of.pop(task, None)
            if feed is None:
                self._unknown[task] = None
            else:
                feed.told(task)
                woken.add(feed)
        while len(self._unknown) > KEPT_UNKNOWN:
            self._unknown.popitem(last=False)
        for feed in woken:
            feed.wake()

    def added(self, batch: UUID, first: int, ids: bytes) -> None:
        """Tasks of `batch` are committed, from number `first` on."""
        feed = self._feeds.get(batch)
        if feed is None:
            return
        if first > feed.size:  # other processes have added some as well
            self.grew(batch)
        elif first == feed.size and ids:
            self._grow(feed, first, statements.split(ids))

    def grew(self, batch: UUID) -> None:
        """Somebody has added tasks to `batch`."""
        if batch in self._opening:
            self._grown.add(batch)
        elif batch in self._feeds:
            self.look()

    def look(self) -> None:
        """Looks at the rows of all that is pending, now: announcements may have been missed."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._look_again = self._look is not None
        if self._feeds and self._look is None and not self.closed:
            self._look = self._loop.create_task(self._look_at_all())

    async def close(self) -> None:
        """Wakes all that wait, and lets nobody wait from here on."""
        self.closed = True
        for feed in self._feeds.values():
            feed.wake()
        if self._alarm is not None:
            self._alarm.cancel()
        tasks = [task for task in (self._look, *self._opening.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _grow(self, feed: Feed, first: int, ids: list[bytes]) -> None:
        feed.grown(first, ids)
        self._of.update(dict.fromkeys(ids, feed))
        news = [task for task in ids if task in self._unknown]
        for task in news:
            del self._unknown[task], self._of[task]
            feed.told(task)
        if news:
            feed.wake()

    async def _open(self, batch: UUID) -> Feed:
        feed = self._feeds[batch] = Feed(batch)  # at once: it may grow meanwhile
        try:
            # Pending first, and looked at afterwards, so that no end falls between the two.
            await self._read_members(feed)
            await self._read_states(feed)
            feed.opened()
        except BaseException:
            self._forget(feed)
            raise
        finally:
            del self._opening[batch]
            feed.idle_since = self._loop.time()
            if batch in self._grown:
                self._grown.remove(batch)
                self._loop.call_soon(self.look)
        return feed

    async def _read_members(self, feed: Feed) -> None:
        """Tasks that it does not know of yet."""
        while True:
            first = feed.size
            ids = await self._ask(partial(statements.members, batch=feed.batch, first=first, count=STEP))
            if not ids:
                return
            if first == feed.size:  # or somebody else has been quicker
                self._grow(feed, first, statements.split(ids))

    async def _read_states(self, feed: Feed) -> None:
        """Ends that nobody has told."""
        pending = list(feed.pending)
        for at in range(0, len(pending), STEP):
            part = pending[at : at + STEP]
            states = await self._ask(partial(statements.states, tasks=[UUID(bytes=task) for task in part]))
            for task in part:
                state = states.get(UUID(bytes=task))
                if state is None or state.is_terminal:
                    self._of.pop(task, None)
                    feed.found(task)
            feed.wake()

    def _look_later(self) -> None:
        if self._alarm is None and self._look is None and not self.closed:
            every_s = LOOK_ALTHOUGH_TOLD_S if self._is_told() else LOOK_S
            self._alarm = self._loop.call_later(max(every_s, SHARE * self._took_s), self.look)

    async def _look_at_all(self) -> None:
        began = self._loop.time()
        try:
            for feed in list(self._feeds.values()):
                if feed.batch in self._opening:
                    continue  # it is looked at already, and has no reader yet
                idle_s = 0.0 if feed.readers else began - feed.idle_since
                if idle_s < 2 * LOOK_ALTHOUGH_TOLD_S:
                    await self._read_members(feed)
                    await self._read_states(feed)
                elif idle_s > KEPT_S:
                    self._forget(feed)
        except (StoreUnavailable, TooMany) as exc:
            log.warning("nobody can be told what has ended: %s", exc)
        finally:
            self._look = None
            self._took_s = self._loop.time() - began
            if self._look_again:
                self.look()
            elif self._feeds:
                self._look_later()

    def _forget(self, feed: Feed) -> None:
        if self._feeds.get(feed.batch) is feed:
            del self._feeds[feed.batch]
        for task in feed.pending:
            self._of.pop(task, None)
