"""The one WebSocket of a page. It decodes, tells the hub, and sends what the hub offers.

    page ──▶ {"subscribe": ["overview"]}, {"unsubscribe": […]}, {"ack": 12}, {"ping": 3}
    page ◀── {"topic", "full", "parts", "gone"}, {"stale": null | since, "now"}, {"pong": 3}, {"refused": "…"}

A Channels consumer, without a channel layer: see `api.live.hub` for why. `dispatch` is replaced, because that of
Channels hops to a thread for each message to look after database connections, and none is used here.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer

from api.live.hub import Hub
from api.live.page import Page
from api.services import services

#: Messages of pages are shorter; what is cut is no JSON.
MAX_CHARS = 4096
#: Closing code that says "come again": the service restarts. One for private use, as Daphne sends no 1012.
RESTART = 4012


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
    sender: asyncio.Task[None]

    async def dispatch(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "websocket.connect":
                await self.connected()
            case "websocket.receive":
                await self.received(message.get("text") or "")
            case "websocket.disconnect":
                self.hub.leave(self.page)
                self.sender.cancel()
                raise StopConsumer

    async def connected(self) -> None:
        self.hub = services().live
        self.page = Page()
        await self.base_send({"type": "websocket.accept"})
        self.hub.join(self.page)
        self.sender = asyncio.create_task(self._send_all())

    async def received(self, text: str) -> None:
        try:
            self._heed(_decode(text[:MAX_CHARS]))
        except (msgspec.DecodeError, ValueError) as exc:
            self.page.tell(msgspec.json.encode({"refused": str(exc)}).decode())

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
        await self.base_send({"type": "websocket.close", "code": RESTART})
