"""Many callers, one thread: whatever has arrived while it was busy is its next turn.

A `Group` stands between the event loop, where requests come in one by one, and a thread that is faster when
it does many at once. Its batches form by themselves: of one when idle, of hundreds under load.

    ask(item) ──▶ deque ──▶ thread: _work(): take() what is there, do it ──▶ loop: one call answers them all

Where a turn is dear, its first item waits a little for those that are expected (`gather_share`); a lone one never does.

Items wait in the order in which they came, and being taken out of the deque, under the lock, decides what
becomes of one: the thread takes it and its caller gets what came of it, however long that lasts; or its time
is up first, and its caller is told that nothing was done. There is no third way.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from django.db import InterfaceError, OperationalError, connection

from api.errors import TooMany
from everythingfaas.errors import StoreUnavailable

log = logging.getLogger("api.group")

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: What the database's drivers raise where the fault is not in the statement.
BROKEN = (OperationalError, InterfaceError)
NOTHING_DONE = "the database cannot be reached or written now; nothing was accepted"
#: How long a caller waits for its item to be taken, in seconds.
PATIENCE_S = 10.0
#: After so many seconds without work, the connection is tried before it is used.
IDLE_S = 5.0


def disk_is_full(exc: Exception) -> bool:
    """Whether SQLite has found no room. Then nothing is written, even if it was COMMIT that needed it."""
    return getattr(exc.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def one_line(exc: Exception) -> str:
    """What `exc` says, as the log wants it: drivers say it in several lines."""
    return " ".join(str(exc).split())


class Waiting(Generic[Item, Answer]):
    """An item, and who waits for its answer."""

    __slots__ = ("deadline", "future", "item", "size")

    def __init__(self, item: Item, future: asyncio.Future[Answer], deadline: float, size: int) -> None:
        self.item = item
        self.future = future
        self.deadline = deadline
        self.size = size


class Group(ABC, Generic[Item, Answer]):
    """Asked on one event loop, works on one thread of its own, which has one connection to the database."""

    #: At most so many items, and so many bytes of them, wait; who comes then is told to come again.
    max_items = 10_000
    max_bytes = 256 * 1024**2
    #: At most so many items, and so many bytes, are one turn. The first is taken whatever its size.
    turn_items = 1_000
    turn_bytes = 32 * 1024**2
    #: Who has been answered may come again at once. So the first who waits for the next turn waits for as many as are
    #: known of: for this share of what the last turn took, and so many seconds at most. Else two groups of callers
    #: may take turns for ever, each waiting for the other's turn and then for its own.
    gather_share = 0.0
    gather_max_s = 0.005

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, *, patience_s: float = PATIENCE_S) -> None:
        self._loop = loop
        self._patience_s = patience_s
        self._waiting: deque[Waiting[Item, Answer]] = deque()
        self._bytes = 0
        self._wanted = 0  # the thread rests until so many wait
        self._stopping = False
        self._lock = threading.Lock()  # around the four above
        self._expected = 0  # how many may wait soon; this and what follows belong to the thread
        self._turn_s = 0.0
        self._turn_ended_at = 0.0
        self._awake = threading.Event()
        self._open = 0  # asked and not yet answered; on the loop only
        self._quiet: list[asyncio.Future[None]] = []
        self._alarm: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # On the loop

    def ask(self, item: Item, size: int = 0) -> asyncio.Future[Answer]:
        """What comes of `item`.

        Raises:
            StoreUnavailable: from the future: nothing was done. At once: this process is stopping.
            TooMany: at once: too much waits already.
        """
        if self._stopping:
            raise StoreUnavailable("this process is stopping; nothing was accepted")
        if len(self._waiting) >= self.max_items or (self._bytes + size > self.max_bytes and self._waiting):
            raise TooMany("too many requests wait for the database already")
        waiting = Waiting(item, self._loop.create_future(), time.monotonic() + self._patience_s, size)
        with self._lock:
            self._waiting.append(waiting)
            self._bytes += size
            wake = 0 < self._wanted <= len(self._waiting)
            if wake:
                self._wanted = 0
        self._open += 1
        if wake:
            # At the end of this turn of the loop, so that what else arrives in it joins in.
            self._loop.call_soon(self._awake.set)
        if self._alarm is None:
            self._alarm = self._loop.call_later(self._patience_s, self._expire)
        return waiting.future

    async def flush(self) -> None:
        """Returns once everything that was asked so far is answered."""
        if self._open:
            quiet = self._loop.create_future()
            self._quiet.append(quiet)
            await quiet

    async def close(self) -> None:
        """Answers what was asked, asks for no more, and ends the thread."""
        with self._lock:
            self._stopping = True
        self._awake.set()  # nobody else comes
        await self.flush()
        self._awake.set()
        await asyncio.to_thread(self._thread.join)

    def abandon(self) -> None:
        """Tells those whose turn has not come that it will not."""
        self._stopping = True
        self._give_up(math.inf)

    def _expire(self) -> None:
        now = time.monotonic()
        head = self._give_up(now)
        self._alarm = None if head is None else self._loop.call_later(head - now, self._expire)

    def _give_up(self, now: float) -> float | None:
        """Tells those whose patience has ended. Returns until when the next one waits."""
        late: list[Waiting[Item, Answer]] = []
        with self._lock:
            while self._waiting and self._waiting[0].deadline <= now:
                late.append(self._pop())
            head = self._waiting[0].deadline if self._waiting else None
        if late:
            log.warning("%s: %d gave up waiting for the database", self._thread.name, len(late))
            self._answer(late, [StoreUnavailable(NOTHING_DONE) for _ in late])
        return head

    def _answer(self, asked: Sequence[Waiting[Item, Answer]], answers: Sequence[Answer | Exception]) -> None:
        for waiting, answer in zip(asked, answers, strict=True):
            if not waiting.future.done():  # its caller may be gone
                if isinstance(answer, Exception):
                    waiting.future.set_exception(answer)
                else:
                    waiting.future.set_result(answer)
        self._open -= len(asked)
        if not self._open:
            for quiet in self._quiet:
                quiet.set_result(None)
            self._quiet.clear()

    # On the thread

    @abstractmethod
    def _work(self, taken: list[Waiting[Item, Answer]]) -> Sequence[Answer | Exception]:
        """Fills `taken` with `take()` when it is about to begin, does it, and returns an answer for each.

        May raise what comes: those in `taken` are told, or those who wait if it did not come so far.
        """

    def take(self) -> list[Waiting[Item, Answer]]:
        """The items of this turn. From here on their callers wait for what comes of them."""
        taken: list[Waiting[Item, Answer]] = []
        size = 0
        with self._lock:
            while self._waiting and len(taken) < self.turn_items:
                size += self._waiting[0].size
                if taken and size > self.turn_bytes:
                    break
                taken.append(self._pop())
        return taken

    def _pop(self) -> Waiting[Item, Answer]:
        waiting = self._waiting.popleft()
        self._bytes -= waiting.size
        return waiting

    def _run(self) -> None:
        try:
            while self._rest():
                self._turn()
        except RuntimeError as exc:
            if not self._loop.is_closed():
                raise
            log.debug("%s: its loop is gone: %s", self._thread.name, exc)
        finally:
            connection.close()

    def _rest(self) -> bool:
        """Returns when there is something to do: False if there never will be."""
        while True:
            with self._lock:
                wait_s = self._gathers_for()
                self._wanted = 0
                if wait_s <= 0:
                    return True
                if self._stopping:
                    return False
                self._wanted = self._expected if self._waiting else 1
            if not self._awake.wait(min(wait_s, IDLE_S)) and wait_s > IDLE_S:
                self._awake.wait()
                self._drop_if_broken()
            self._awake.clear()

    def _gathers_for(self) -> float:
        """How many seconds those who wait would wait for others to join in; infinite while nobody waits."""
        if not self._waiting:
            return math.inf
        gather_s = min(self.gather_share * self._turn_s, self.gather_max_s)
        is_full = len(self._waiting) >= self._expected or self._bytes >= self.turn_bytes
        if is_full or not gather_s or self._stopping:
            return 0.0
        first_at = self._waiting[0].deadline - self._patience_s
        return max(first_at, self._turn_ended_at) + gather_s - time.monotonic()

    def _turn(self) -> None:
        taken: list[Waiting[Item, Answer]] = []
        answers: Sequence[Answer | Exception]
        began = time.monotonic()
        try:
            answers = self._work(taken)
        except BROKEN as exc:
            log.warning("%s: the database cannot be used: %s", self._thread.name, one_line(exc))
            connection.close()  # the next turn begins with a new one
            taken = taken or self.take()
            answers = [StoreUnavailable(NOTHING_DONE) for _ in taken]
        except Exception as exc:
            log.exception("%s: unexpected", self._thread.name)
            taken = taken or self.take()
            answers = [exc] * len(taken)
        self._turn_ended_at = time.monotonic()
        self._turn_s = self._turn_ended_at - began
        self._expected = min(len(taken) + len(self._waiting), self.turn_items)
        if taken:
            self._loop.call_soon_threadsafe(self._answer, taken, answers)

    def _drop_if_broken(self) -> None:
        """After a rest: servers restart and networks drop connections, and nobody should hear of that."""
        if connection.connection is not None and not connection.is_usable():
            connection.close()
