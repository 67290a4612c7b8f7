"""Redis for the event loop: one connection that pipelines by itself, and one that listens.

What several requests ask within one turn of the loop leaves as one write, and the replies come back in the
order of the questions: that is all a pipeline is, and it makes a call some ten times cheaper than a round
trip of its own.

Redis is a help and never a need here. So nothing waits for it: a call fails at once while there is no
connection, and a connection that does not answer in time is dropped with everything that waits on it, while
somebody tries to connect again in the background.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, cast

import hiredis

from api.redis_commands import NOTHING, TIMEOUT_S, Address, Command, RedisUnavailable, pack

log = logging.getLogger("api.redis")

#: How long connecting and the greeting may take together.
CONNECT_S = 2.0
#: How long to wait before connecting again: doubled each time, up to the second.
BACKOFF_S = (0.05, 2.0)


class _Connection(asyncio.Protocol):
    """One connection: commands out, in one write for each turn of the loop, and replies in."""

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lost: asyncio.Future[str] = loop.create_future()  #: done, with the reason, when it has ended
        self._loop = loop
        self._reader = hiredis.Reader(notEnoughData=NOTHING)
        self._out: list[bytes] = []
        #: Who waits for the next replies, in order, and until when; None: nobody does.
        self._replies: deque[tuple[asyncio.Future[Any] | None, float]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._on_message: Callable[[Any], None] | None = None

    def call(self, command: Command) -> asyncio.Future[Any]:
        """The reply to `command`; fails with RedisUnavailable or hiredis.ReplyError."""
        future = self._loop.create_future()
        self._queue(command, future)
        return future

    def send(self, commands: Iterable[Command]) -> None:
        """Sends, and looks at the replies only to log what was refused."""
        for command in commands:
            self._queue(command, None)

    def receive(self, on_message: Callable[[Any], None]) -> None:
        """From here on whatever comes is a message, and nothing can be asked."""
        self._on_message = on_message

    def subscribe(self, *channels: str) -> None:
        self._transport.write(pack(("SUBSCRIBE", *channels)))

    def unsubscribe(self, *channels: str) -> None:
        self._transport.write(pack(("UNSUBSCRIBE", *channels)))

    def drop(self, reason: str) -> None:
        self._transport.abort()
        self._end(reason)

    def _queue(self, command: Command, future: asyncio.Future[Any] | None) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(pack(command))
        self._replies.append((future, self._loop.time() + TIMEOUT_S))
        if self._alarm is None:
            self._alarm = self._loop.call_later(TIMEOUT_S, self._check)

    def _flush(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _check(self) -> None:
        self._alarm = None
        if self._replies:
            deadline = self._replies[0][1]
            if deadline <= self._loop.time():
                self.drop(f"no answer in {TIMEOUT_S:g} s")
            else:
                self._alarm = self._loop.call_at(deadline, self._check)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not NOTHING:
                if self._on_message is not None:
                    self._on_message(reply)
                elif self._replies:
                    self._replied(reply)
                else:
                    self.drop("an answer that nobody asked for")
                    return
        except hiredis.ProtocolError as exc:
            self.drop(f"not the protocol of Redis: {exc}")

    def _replied(self, reply: Any) -> None:
        future, _ = self._replies.popleft()
        if future is None:
            if isinstance(reply, Exception):
                log.warning("Redis refused a command: %s", reply)
        elif not future.done():
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc or "closed by the server"))

    def _end(self, reason: str) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._replies:
            future, _ = self._replies.popleft()
            if future is not None and not future.done():
                future.set_exception(RedisUnavailable(reason))
        if not self.lost.done():
            self.lost.set_result(reason)


class _Keeper:
    """Keeps one connection: whenever it is lost, tries to connect again until it is closed."""

    _name: ClassVar[str]

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self._address = Address.parse(url)
        self._loop = loop
        self._connection: _Connection | None = None
        self._task = loop.create_task(self._keep())

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._connection is not None:
            self._connection.drop("closed here")
            self._connection = None

    async def _keep(self) -> None:
        pause, longest = BACKOFF_S
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    connection = await self._connect()
            except (OSError, RedisUnavailable, hiredis.HiredisError) as exc:  # a TimeoutError is an OSError
                if pause == BACKOFF_S[0]:
                    log.warning("%s: Redis cannot be reached: %s", self._name, exc or "no answer")
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            log.info("%s: connected to Redis", self._name)
            pause = BACKOFF_S[0]
            self._connection = connection
            self._connected(connection)
            reason = await connection.lost
            self._connection = None
            log.warning("%s: lost Redis: %s", self._name, reason)
            self._disconnected()

    async def _connect(self) -> _Connection:
        address = self._address
        made: tuple[Any, _Connection]
        if address.path:
            made = await self._loop.create_unix_connection(lambda: _Connection(self._loop), address.path)
        else:
            tls = ssl.create_default_context() if address.tls else None
            made = await self._loop.create_connection(
                lambda: _Connection(self._loop), address.host, address.port, ssl=tls
            )
        connection = made[1]
        try:
            await asyncio.gather(*(connection.call(command) for command in address.greeting()))
        except BaseException:
            connection.drop("not let in")
            raise
        return connection

    def _connected(self, connection: _Connection) -> None:
        """Called each time that there is a connection."""

    def _disconnected(self) -> None:
        """Called each time that it was lost."""


class RedisLink(_Keeper):
    """The connection for commands."""

    _name = "link"

    async def call(self, command: Command) -> Any:
        """The reply to `command`.

        Raises:
            RedisUnavailable: nobody is connected, or no reply came in time. It may have been done all the same.
            hiredis.ReplyError: the server refused it.
        """
        if self._connection is None:
            raise RedisUnavailable("not connected")
        return await self._connection.call(command)

    def send(self, commands: Sequence[Command]) -> None:
        """Sends `commands` if there is a connection. Nobody hears what came of them."""
        if self._connection is not None:
            self._connection.send(commands)


class Subscription(_Keeper):
    """The connection that listens to channels. While it is lost, what is said there is missed."""

    _name = "subscription"

    def __init__(
        self,
        url: str,
        loop: asyncio.AbstractEventLoop,
        channel: str,
        *,
        on_message: Callable[[bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called whenever it begins to listen, for messages may have been missed, and when it ceases."""
        self._listeners: dict[str, list[Callable[[bytes], None]]] = {channel: [on_message]}
        self._on_change = [on_change]
        super().__init__(url, loop)

    def listen(self, channel: str, on_message: Callable[[bytes], None]) -> None:
        """Calls `on_message` for whatever is said on `channel`, until `ignore`."""
        listeners = self._listeners.setdefault(channel, [])
        listeners.append(on_message)
        if len(listeners) == 1 and self._connection is not None:
            self._connection.subscribe(channel)

    def ignore(self, channel: str, on_message: Callable[[bytes], None]) -> None:
        """The end of `listen` with the same arguments."""
        listeners = self._listeners[channel]
        listeners.remove(on_message)
        if not listeners:
            del self._listeners[channel]
            if self._connection is not None:
                self._connection.unsubscribe(channel)

    def listen_to_changes(self, on_change: Callable[[], None]) -> None:
        """As the constructor's `on_change`, until `ignore_changes`."""
        self._on_change.append(on_change)

    def ignore_changes(self, on_change: Callable[[], None]) -> None:
        self._on_change.remove(on_change)

    def _connected(self, connection: _Connection) -> None:
        connection.receive(self._received)
        connection.subscribe(*self._listeners)

    def _disconnected(self) -> None:
        self._changed()

    def _changed(self) -> None:
        for on_change in list(self._on_change):
            on_change()

    def _received(self, message: Any) -> None:
        match message:
            case [b"message", bytes(channel), bytes(payload)]:
                for on_message in list(self._listeners.get(channel.decode(), ())):
                    on_message(payload)
            case [b"subscribe", *_]:
                self._changed()
            case Exception():
                log.warning("subscription: Redis refused it: %s", message)
