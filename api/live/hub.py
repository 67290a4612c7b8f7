"""What is shown on all open pages, kept true: read once, encoded once, sent to all.

    Redis: bell, done, news ──▶ changed() ─┐   at most five times a second
    one second without Redis ──────────────┴──▶ look: all topics that pages show, on one thread
                                                     │ parts that differ from the last ones
                                                     ▼
                                           one message for each topic ──▶ every page that shows it

While no page is open nothing is listened to and nothing is read. What changes without being announced (a lease, a
promotion, another process without Redis) is found by a slow look. Looks that find nothing new send nothing.

Channel layers would not help here: every process reads the same database, so nothing has to be sent from one to the
other but that there is something new, and that is on Redis' channels already. So a group is the pages of one process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from django.db import connection

from api.access.caller import Sees
from api.group import BROKEN, one_line
from api.live.output import Logs
from api.live.page import MAX_TOPICS, Page
from api.live.topics import LOG, Memory, Sight, check
from api.redis_link import RedisLink, Subscription

log = logging.getLogger("api.live")

#: Updates are so many seconds apart, or more.
EVERY_S = 0.2
#: And so many times as far apart as reading takes, so that what is slow to read does not take the machine.
SHARE = 5
#: Without a word from Redis the database is looked at this often: while there is none, and while there is one.
LOOK_S = 1.0
LOOK_ALTHOUGH_TOLD_S = 2.0

_encode = msgspec.json.Encoder().encode
#: What is shown, and to whom: pages that see the same owners' tasks are shown the same.
Key = tuple[str, Sees]
Encoded = dict[str, bytes]


class Topic:
    """What pages show of one topic."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pages: set[Page] = set()
        self.parts: Encoded | None = None  # None: not read yet
        self._whole = ""

    def update(self, parts: Encoded) -> str | None:
        """Takes the new parts, and returns the message for those that had the old ones, if they differ."""
        old, self.parts = self.parts or {}, parts
        changed = {name: part for name, part in parts.items() if old.get(name) != part}
        gone = [name for name in old if name not in parts]
        if not changed and not gone:
            return None
        self._whole = ""
        return self._message(changed, gone, full=False)

    def whole(self) -> str:
        """The message that tells everything."""
        if not self._whole:
            self._whole = self._message(self.parts or {}, [], full=True)
        return self._whole

    def _message(self, parts: Encoded, gone: list[str], *, full: bool) -> str:
        raw = {name: msgspec.Raw(part) for name, part in parts.items()}
        return _encode({"topic": self.name, "full": full, "parts": raw, "gone": gone}).decode()


class Hub:
    """The pages of this process. On the loop, but for `_read_all`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, link: RedisLink, subscription: Subscription, channels: Iterable[str]
    ) -> None:
        """`channels`: on these it is told that something has changed."""
        self._loop = loop
        self._link = link
        self._subscription = subscription
        self._channels = tuple(channels)
        self._pages: set[Page] = set()
        self._topics: dict[Key, Topic] = {}
        self._logs = Logs(loop, link, subscription)
        self._thread: ThreadPoolExecutor | None = None
        self._memory = Memory()  # the thread's
        self._alarm: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None
        self._looked_at = -EVERY_S
        self._took_s = 0.0
        self._dirty = False
        self._stale_since: float | None = None
        self.looks = 0
        self.closed = False

    def __len__(self) -> int:
        return len(self._pages)

    # --- pages

    def join(self, page: Page) -> None:
        """A page was opened."""
        if self.closed:
            page.close()
            return
        self._pages.add(page)
        if len(self._pages) == 1:
            for channel in self._channels:
                self._subscription.listen(channel, self._told)
            self._subscription.listen_to_changes(self.changed)
        page.tell(self._state())

    def leave(self, page: Page) -> None:
        self._pages.discard(page)
        for name in list(page.topics):
            self.unsubscribe(page, name)
        if not self._pages:
            for channel in self._channels:
                self._subscription.ignore(channel, self._told)
            self._subscription.ignore_changes(self.changed)
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None

    def subscribe(self, page: Page, name: str) -> None:
        """`page` shows this topic from here on, and is told the whole of it first.

        Raises:
            ValueError: there is no such topic, or the page has too many.
        """
        check(name)
        if name in page.topics:
            return
        if len(page.topics) >= MAX_TOPICS:
            raise ValueError(f"a page shows {MAX_TOPICS} topics at most")
        page.topics.add(name)
        if name.startswith(LOG):
            self._logs.join(page, name)
            return
        topic = self._topics.setdefault((name, page.sees), Topic(name))
        topic.pages.add(page)
        if topic.parts is not None:
            page.offer(name, topic.whole())
        self.changed()

    def unsubscribe(self, page: Page, name: str) -> None:
        page.topics.discard(name)
        page.behind.discard(name)
        if name.startswith(LOG):
            self._logs.leave(page, name)
        elif (topic := self._topics.get((name, page.sees))) is not None:
            topic.pages.discard(page)
            if not topic.pages:
                del self._topics[name, page.sees]

    def caught_up(self, page: Page) -> None:
        """The page has acknowledged: what it has missed is told as a whole."""
        for name in list(page.behind):
            if not page.keeps_up:
                return
            page.behind.discard(name)
            if name.startswith(LOG):
                self._logs.tell_whole(page, name)
            elif (topic := self._topics.get((name, page.sees))) is not None and topic.parts is not None:
                page.offer(name, topic.whole())

    async def close(self) -> None:
        """Closes all pages: their browsers connect to whoever comes next. May be called again."""
        self.closed = True
        for page in list(self._pages):
            page.close()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])
            self._look = None
        await self._logs.close()
        if self._thread is not None:
            self._thread.submit(connection.close)
            self._thread.shutdown(wait=False)
            self._thread = None

    # --- looks

    def changed(self) -> None:
        """Something that is shown may have changed."""
        self._dirty = True
        if self._look is None and self._pages and not self.closed:
            self._look_at(self._looked_at + self._pause_s)

    @property
    def _pause_s(self) -> float:
        return max(EVERY_S, SHARE * self._took_s)

    def _told(self, message: bytes) -> None:
        del message
        if not self._dirty:
            self.changed()

    def _look_at(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(when, self._begin)

    def _begin(self) -> None:
        self._alarm = None
        self._dirty = False
        for page in [page for page in self._pages if page.is_gone]:
            page.close()
        self._looked_at = self._loop.time()
        self._look = self._loop.create_task(self._look_once())

    async def _look_once(self) -> None:
        keys = list(self._topics)
        try:
            if keys:
                self.looks += 1
                began = self._loop.time()
                read = await self._loop.run_in_executor(self._executor(), self._read_all, keys)
                self._took_s = self._loop.time() - began
                self._is_stale(None)
                for key, parts in read.items():
                    self._show(key, parts)
        except BROKEN as exc:
            log.warning("pages are stale, the database cannot be read: %s", one_line(exc))
            self._is_stale(time.time())
        except Exception:
            log.exception("pages are stale")
            self._is_stale(time.time())
        finally:
            self._look = None
            if self._pages and not self.closed:
                told = self._subscription.connected and self._stale_since is None
                pause_s = 0.0 if self._dirty else LOOK_ALTHOUGH_TOLD_S if told else LOOK_S
                self._look_at(self._looked_at + max(pause_s, self._pause_s))

    def _show(self, key: Key, parts: Encoded) -> None:
        name, topic = key[0], self._topics.get(key)
        if topic is None:
            return  # nobody shows it any more
        new = topic.parts is None
        message = topic.update(parts)
        if message is None:
            return
        for page in topic.pages:
            if name not in page.behind:
                page.offer(name, topic.whole() if new else message)

    def _is_stale(self, since: float | None) -> None:
        if since is not None and self._stale_since is not None:
            return
        if since != self._stale_since:
            self._stale_since = since
            for page in self._pages:
                page.tell(self._state())

    def _state(self) -> str:
        return _encode({"stale": self._stale_since, "now": time.time()}).decode()

    def _executor(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "live")
        return self._thread

    # --- on the thread

    def _read_all(self, keys: list[Key]) -> dict[Key, Encoded]:
        try:
            with connection.cursor() as cursor:
                sight = Sight(cursor, self._memory, time.time())
                return {(name, sees): _encoded(sight.of(name, sees)) for name, sees in keys}
        except BROKEN:
            connection.close()
            raise


def _encoded(parts: dict[str, Any]) -> Encoded:
    return {name: _encode(part) for name, part in parts.items()}
