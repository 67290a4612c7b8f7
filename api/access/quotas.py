"""Limits of a user: 429 with the time to come again by.

Requests are counted in each web process by itself; tasks and bytes are asked of the database now and then, with what
this process has accepted since: so a user may go over by what other processes accept within that time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from django.db.backends.utils import CursorWrapper

from api.access.caller import Caller
from api.errors import TooMany
from api.reader import Reader
from api.tally import totals
from everythingfaas.status import State

#: What a user may send at once, in seconds of their rate.
BURST_S = 2.0
#: For so many seconds the number of waiting tasks, and the size of what is stored, hold.
QUEUED_KEPT_S = 1.0
STORED_KEPT_S = 10.0


class Rates:
    """A bucket for each user, that fills with time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[int, tuple[float, float]] = {}

    def take(self, caller: Caller) -> None:
        """One request. Raises TooMany."""
        rate = caller.limits.requests_per_s
        if rate is None:
            return
        now = self._clock()
        most = max(1.0, rate * BURST_S)
        level, at = self._buckets.get(caller.user, (most, now))
        level = min(most, level + (now - at) * rate)
        if level < 1.0:
            self._buckets[caller.user] = level, now
            wait_s = math.ceil((1.0 - level) / rate) if rate > 0 else 3600
            raise TooMany(f"more than {rate:g} requests a second of {caller.name}", retry_after=min(wait_s, 3600))
        self._buckets[caller.user] = level - 1.0, now


@dataclass
class _Known:
    value: int
    until: float


class Ledger:
    """How much each user has, for those who have a limit."""

    def __init__(self, reader: Reader, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._clock = clock
        self._queued: dict[int, _Known] = {}
        self._stored: dict[int, _Known] = {}

    async def check(self, caller: Caller, size: int, tasks: int = 1) -> None:
        """Room for so many more tasks, of `size` bytes together. Raises TooMany."""
        limits = caller.limits
        if limits.queued is not None:
            known = await self._known(self._queued, caller.user, _queued, QUEUED_KEPT_S)
            if known.value + tasks > limits.queued:
                room = max(0, limits.queued - known.value)
                more = f"; there is room for {room} more" if tasks > 1 else ""
                raise TooMany(f"{caller.name} may have {limits.queued} tasks that wait{more}")
            known.value += tasks
        if limits.stored_bytes is not None:
            known = await self._known(self._stored, caller.user, stored, STORED_KEPT_S)
            check_stored(caller, known.value + size)
            known.value += size

    async def _known(
        self, kept: dict[int, _Known], user: int, ask: Callable[[CursorWrapper, int], int], kept_s: float
    ) -> _Known:
        now = self._clock()
        known = kept.get(user)
        if known is None or known.until < now:
            known = kept[user] = _Known(await self._reader.call(lambda cursor: ask(cursor, user)), now + kept_s)
        return known


def check_stored(caller: Caller, size: int) -> None:
    """Raises TooMany: so many bytes are more than there may be."""
    most = caller.limits.stored_bytes
    if most is not None and size > most:
        raise TooMany(f"{caller.name} may store {most} bytes; an administrator can raise that", retry_after=60)


def _queued(cursor: CursorWrapper, user: int) -> int:
    found = totals(cursor, {user})
    return max(0, found[State.QUEUED] + found[State.WAITING])


def stored(cursor: CursorWrapper, user: int) -> int:
    """The bytes of a user's functions, arguments and results."""
    cursor.execute(
        "SELECT (SELECT coalesce(sum(payload_size), 0) + coalesce(sum(result_size), 0) FROM api_task"
        " WHERE owner_id = %s), (SELECT coalesce(sum(b.size), 0) FROM api_function f"
        " JOIN api_blob b ON b.sha256 = f.blob_id WHERE f.owner_id = %s)",
        [user, user],
    )
    tasks, functions = cursor.fetchone()
    return int(tasks) + int(functions)
