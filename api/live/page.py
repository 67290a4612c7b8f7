"""A page that somebody has open: which topics it shows, and how far it has kept up."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from api.access.caller import Sees

#: A page may have so many messages on the way that it has not acknowledged. One that does not keep up gets no more,
#: and the whole of what it shows once it does: what it missed is dropped and not kept.
WINDOW = 8
#: A page that has acknowledged nothing for so many seconds, though it was sent something, is gone.
GONE_S = 30.0
#: Topics of one page.
MAX_TOPICS = 8


class Page:
    """The sending side of one socket. On the loop only.

    The hub offers, a task of the consumer's takes and sends. So neither a socket that does not take anything nor a
    browser that does not read holds anybody up, and never more than `WINDOW` messages wait for one.
    """

    def __init__(self, sees: Sees = None) -> None:
        self.sees = sees  #: whose tasks it is shown
        self.topics: set[str] = set()
        self.behind: set[str] = set()  #: topics of which it has missed something
        self.closing = False
        self._out: deque[str] = deque()
        self._awake = asyncio.Event()
        self._sent = 0
        self._acknowledged = 0
        self._heard_at = time.monotonic()

    @property
    def keeps_up(self) -> bool:
        return self._sent - self._acknowledged < WINDOW

    @property
    def is_gone(self) -> bool:
        return self._sent > self._acknowledged and time.monotonic() > self._heard_at + GONE_S

    def offer(self, topic: str, message: str) -> None:
        """Sends `message`, unless the page has not even taken the ones before."""
        if not self.keeps_up:
            self.behind.add(topic)
            return
        if self._sent == self._acknowledged:
            self._heard_at = time.monotonic()  # from now on it has something to acknowledge
        self._sent += 1
        self.tell(message)

    def tell(self, message: str) -> None:
        """Sends what need not be acknowledged: short, and seldom."""
        self._out.append(message)
        self._awake.set()

    def acknowledged(self, number: int) -> None:
        """The page has shown so many messages in all."""
        self._acknowledged = min(max(self._acknowledged, number), self._sent)
        self._heard_at = time.monotonic()

    def close(self) -> None:
        self.closing = True
        self._awake.set()

    async def next(self) -> str | None:
        """What is to be sent now; None: the socket is to be closed."""
        while not self._out and not self.closing:
            self._awake.clear()
            await self._awake.wait()
        return None if self.closing else self._out.popleft()
