"""The one WebSocket of a page. It decodes, tells the hub, and sends what the hub offers.

    page ──▶ {"subscribe": ["overview"]}, {"unsubscribe": […]}, {"ack": 12}, {"ping": 3}
    page ◀── {"topic", "full", "parts", "gone"}, {"stale": null | since, "now"}, {"pong": 3}, {"refused": "…"}

A Channels consumer, without a channel layer: see `api.live.hub` for why. `dispatch` is replaced, because that of
Channels hops to a thread for each message to look after database connections, and none is used here.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer

from api.access.caller import KEY, Caller
from api.access.gate import PROTOCOL
from api.live.hub import Hub
from api.live.page import MAX_TOPICS, Page
from api.live.topics import LOG, check
from api.services import services

#: Messages of pages are shorter; what is cut is no JSON.
MAX_CHARS = 4096
#: Closing code that says "come again": the service restarts. One for private use, as Daphne sends no 1012.
RESTART = 4012


#: Closing code of a socket whose token or session has ended.
NOT_LET_IN = 4001


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """What a page may say."""

    subscribe: list[str] = []
    unsubscribe: list[str] = []
    ack: int = 0
    ping: int | None = None


_decode = msgspec.json.Decoder(Said).decode


class LiveConsumer(AsyncConsumer):  # type: ignore[misc]  # Channels has no types
    """One socket."""

    hub: Hub
    page: Page
    caller: Caller | None = None  #: None while no tokens are asked for
    code = RESTART
    sender: asyncio.Task[None]

    async def dispatch(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "websocket.connect":
                await self.connected()
            case "websocket.receive":
                await self.received(message.get("text") or "")
            case "websocket.disconnect":
                self.hub.leave(self.page)
                self._unwatch()
                self.sender.cancel()
                raise StopConsumer

    async def connected(self) -> None:
        self.hub = services().live
        self.caller = self.scope.get(KEY)
        self.page = Page(None if self.caller is None else self.caller.sees)
        protocol = PROTOCOL if PROTOCOL in self.scope.get("subprotocols", ()) else None
        await self.base_send({"type": "websocket.accept", "subprotocol": protocol})
        if self.caller is not None and (gate := services().gate) is not None:
            gate.watch(self.caller.credential, self._put_out)
        self.hub.join(self.page)
        self.sender = asyncio.create_task(self._send_all())

    async def received(self, text: str) -> None:
        try:
            said = _decode(text[:MAX_CHARS])
            if self.caller is not None:
                await self._check(said.subscribe)
            self._heed(said)
        except (msgspec.DecodeError, ValueError) as exc:
            self.page.tell(msgspec.json.encode({"refused": str(exc)}).decode())

    async def _check(self, topics: list[str]) -> None:
        """Raises ValueError: the output of a task that is somebody else's. All other topics are read by who looks."""
        assert self.caller is not None
        for name in topics[:MAX_TOPICS]:
            check(name)
            if name.startswith(LOG):
                task = UUID(name.removeprefix(LOG))
                if not await services().sees_task(self.caller, task):
                    raise ValueError(f"there is no task {task}")

    def _put_out(self) -> None:
        """What it came in by lets nobody in any more."""
        self.code = NOT_LET_IN
        self.page.close()

    def _unwatch(self) -> None:
        if self.caller is not None and (gate := services().gate) is not None:
            gate.unwatch(self.caller.credential, self._put_out)

    def _heed(self, said: Said) -> None:
        for name in said.unsubscribe:
            self.hub.unsubscribe(self.page, name)
        for name in said.subscribe:
            self.hub.subscribe(self.page, name)
        if said.ack:
            self.page.acknowledged(said.ack)
            self.hub.caught_up(self.page)
        if said.ping is not None:
            self.page.tell(f'{{"pong":{said.ping}}}')

    async def _send_all(self) -> None:
        while (text := await self.page.next()) is not None:
            await self.base_send({"type": "websocket.send", "text": text})
        await self.base_send({"type": "websocket.close", "code": self.code})
