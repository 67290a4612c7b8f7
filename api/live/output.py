"""What running tasks print, passed on from Redis to the pages that watch them.

A dispatcher appends to a capped stream for each task and says on one channel that it has (`api.mirror`). That channel
is listened to while somebody watches; a stream is read when it was spoken of, at most a few times a second, and what is
read is encoded once for all who watch. A page that opens, or has missed something, is sent the whole stream.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any
from uuid import UUID

import hiredis
import msgspec

from api.live.page import Page
from api.live.topics import LOG
from api.mirror import LOG_CHANNEL, log_key
from api.redis_commands import RedisUnavailable
from api.redis_link import RedisLink, Subscription

log = logging.getLogger("api.live")

#: A stream is read again after so many seconds at the earliest.
EVERY_S = 0.2

_encode = msgspec.json.Encoder().encode


class Chunk(msgspec.Struct, frozen=True):
    attempt: int
    data: str  #: base64: what is printed may be anything
    dropped: int  #: bytes left out behind it


class _Watched:
    def __init__(self, name: str) -> None:
        self.name = name
        self.task = UUID(name.removeprefix(LOG))
        self.pages: set[Page] = set()
        self.new: set[Page] = set()  # to be told the whole
        self.last = "0-0"  #: id of the last entry that the pages have
        self.alarm: asyncio.TimerHandle | None = None
        self.reading: asyncio.Task[None] | None = None
        self.read_at = 0.0
        self.dirty = False


class Logs:
    """The watched tasks of this process. On the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, link: RedisLink, subscription: Subscription) -> None:
        self._loop = loop
        self._link = link
        self._subscription = subscription
        self._watched: dict[str, _Watched] = {}

    def join(self, page: Page, name: str) -> None:
        if not self._watched:
            self._subscription.listen(LOG_CHANNEL, self._told)
            self._subscription.listen_to_changes(self._look_at_all)
        watched = self._watched.setdefault(name, _Watched(name))
        watched.pages.add(page)
        watched.new.add(page)
        self._soon(watched)

    def leave(self, page: Page, name: str) -> None:
        watched = self._watched.get(name)
        if watched is None:
            return
        watched.pages.discard(page)
        watched.new.discard(page)
        if watched.pages:
            return
        del self._watched[name]
        if watched.alarm is not None:
            watched.alarm.cancel()
        if not self._watched:
            self._subscription.ignore(LOG_CHANNEL, self._told)
            self._subscription.ignore_changes(self._look_at_all)

    def tell_whole(self, page: Page, name: str) -> None:
        if (watched := self._watched.get(name)) is not None and page in watched.pages:
            watched.new.add(page)
            self._soon(watched)

    async def close(self) -> None:
        for watched in self._watched.values():
            if watched.alarm is not None:
                watched.alarm.cancel()
            if watched.reading is not None:
                watched.reading.cancel()
                await asyncio.wait([watched.reading])

    def _told(self, message: bytes) -> None:
        for at in range(0, len(message), 16):
            watched = self._watched.get(f"{LOG}{UUID(bytes=message[at : at + 16])}")
            if watched is not None:
                self._soon(watched)

    def _look_at_all(self) -> None:
        for watched in self._watched.values():
            self._soon(watched)

    def _soon(self, watched: _Watched) -> None:
        watched.dirty = True
        if watched.alarm is None and watched.reading is None:
            watched.alarm = self._loop.call_at(watched.read_at + EVERY_S, self._begin, watched)

    def _begin(self, watched: _Watched) -> None:
        watched.alarm = None
        watched.dirty = False
        watched.read_at = self._loop.time()
        watched.reading = self._loop.create_task(self._read(watched))

    async def _read(self, watched: _Watched) -> None:
        try:
            await self._pass_on(watched)
        except (RedisUnavailable, hiredis.ReplyError) as exc:
            log.debug("no output of %s: %s", watched.task, exc)
        finally:
            watched.reading = None
            if watched.dirty and watched.name in self._watched:
                self._soon(watched)

    async def _pass_on(self, watched: _Watched) -> None:
        new, watched.new = watched.new, set()
        old = {page for page in watched.pages - new if watched.name not in page.behind}
        since = "-" if new else f"({watched.last}"
        try:
            entries = await self._link.call(("XRANGE", log_key(watched.task), since, "+"))
        except (RedisUnavailable, hiredis.ReplyError):
            watched.new |= new & watched.pages
            raise
        if new:
            self._tell(watched, new, entries, full=True)
            last = _order(watched.last)
            entries = [entry for entry in entries if _order(entry[0].decode()) > last]
        if entries:
            self._tell(watched, old, entries, full=False)
            watched.last = entries[-1][0].decode()

    def _tell(self, watched: _Watched, pages: set[Page], entries: list[Any], *, full: bool) -> None:
        if present := pages & watched.pages:
            message = _message(watched.name, entries, full=full)
            for page in present:
                page.offer(watched.name, message)


def _order(entry: str) -> tuple[int, int]:
    """The id of an entry as numbers."""
    at, _, number = entry.partition("-")
    return int(at), int(number)


def _message(name: str, entries: list[Any], *, full: bool) -> str:
    chunks = []
    for _, fields in entries:
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        data = base64.b64encode(found.get(b"data", b"")).decode()
        chunks.append(Chunk(int(found.get(b"attempt", 0)), data, int(found.get(b"dropped", 0))))
    return _encode({"topic": name, "full": full, "parts": {"chunks": chunks}, "gone": []}).decode()
