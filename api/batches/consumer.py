"""The WebSocket of clients that wait for results: `/api/v1/follow`.

    client ──▶ {"follow": batch, "after": cursor}, {"unfollow": batch}, {"ack": number}
    client ◀── {"batch", "number", "results", "cursor", "pending", "size"}, {"refused": "…", "status", "batch"}

Text is JSON, binary is msgpack, and is answered alike. Pages go out as tasks end, whatever has ended since the last one
in the next; not more than a few that are not acknowledged, so a client that is slow holds up nobody but itself.

As that of pages it is a consumer without a channel layer, and without the thread that Channels has for each message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from msgspec import Struct

from api.access.caller import KEY
from api.access.gate import PROTOCOL
from api.batches.feed import Place
from api.batches.messages import TaskResult, encode_json, encode_packed
from api.batches.statements import BatchView
from api.consumers import NOT_LET_IN, RESTART
from api.errors import ApiError, InvalidRequest, TooMany, answer_to
from api.services import services

#: So many pages may be on their way.
WINDOW = 4
#: Servers limit what one message holds, ours to a mebibyte. A result that is larger than this is fetched by itself,
#: from `/api/v1/tasks/{id}/result`.
MESSAGE_BYTES = 512 * 1024
#: So many batches may be followed by one socket.
MAX_FOLLOWED = 100
#: Longer messages are none.
MAX_BYTES = 4096


class Said(Struct, forbid_unknown_fields=True):
    """What a client may say."""

    follow: str | None = None
    after: str = ""
    unfollow: str | None = None
    ack: int = 0


class Pushed(Struct, frozen=True):
    """A page, as `api.batches.messages.Page`."""

    batch: str
    number: int
    results: list[TaskResult]
    cursor: str
    pending: int
    size: int


_read_json = msgspec.json.Decoder(Said).decode
_read_packed = msgspec.msgpack.Decoder(Said).decode


class FollowConsumer(AsyncConsumer):  # type: ignore[misc]  # Channels has no types
    """One socket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.followed: dict[str, asyncio.Task[None]] = {}
        self.sent = self.acknowledged = 0
        self.may_send = asyncio.Event()
        self.watched: str | None = None

    async def dispatch(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "websocket.connect":
                await self.connected()
            case "websocket.receive":
                await self.received(message.get("text"), message.get("bytes"))
            case "websocket.disconnect":
                self.ended()
                raise StopConsumer

    async def connected(self) -> None:
        self.caller = await services().caller(self.scope)
        self.may_send.set()
        if (gate := services().gate) is not None and self.scope.get(KEY) is not None:
            self.watched = self.caller.credential
            gate.watch(self.watched, self._put_out)
        protocol = PROTOCOL if PROTOCOL in self.scope.get("subprotocols", ()) else None
        await self.base_send({"type": "websocket.accept", "subprotocol": protocol})

    async def received(self, text: str | None, data: bytes | None) -> None:
        packed = data is not None
        try:
            said = _read_packed((data or b"")[:MAX_BYTES]) if packed else _read_json((text or "")[:MAX_BYTES])
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            await self._tell({"refused": str(exc), "status": InvalidRequest.status}, packed)
            return
        if said.ack > self.acknowledged:
            self.acknowledged = min(said.ack, self.sent)
            self.may_send.set()
        if said.unfollow is not None and (following := self.followed.pop(said.unfollow, None)) is not None:
            following.cancel()
        if said.follow is not None and said.follow not in self.followed:
            if len(self.followed) >= MAX_FOLLOWED:
                await self._tell({"refused": f"at most {MAX_FOLLOWED} batches", "status": TooMany.status}, packed)
                return
            self.followed[said.follow] = asyncio.create_task(self._follow(said.follow, said.after, packed))

    def ended(self) -> None:
        for following in self.followed.values():
            following.cancel()
        if self.watched is not None and (gate := services().gate) is not None:
            gate.unwatch(self.watched, self._put_out)

    async def _follow(self, name: str, after: str, packed: bool) -> None:
        try:
            batch = await services().batches.find(self.caller, name)
            await self._push(batch, name, Place.read(after), packed)
        except Exception as exc:  # noqa: BLE001  # `answer_to` logs what nobody expected
            error: ApiError = answer_to(exc)
            await self._tell({"refused": error.message, "batch": name, "status": error.status}, packed)
        finally:
            self.followed.pop(name, None)

    async def _push(self, batch: BatchView, name: str, place: Place, packed: bool) -> None:
        """Sends pages until this process stops, or the client leaves."""
        batches = services().batches
        encode: Callable[[Any], bytes] = encode_packed if packed else encode_json
        feed = await batches.feeds.join(batch.id)
        try:
            place = feed.place(place)
            while not batches.feeds.closed:
                await self.may_send.wait()
                page, place = await batches.page(feed, place, max_bytes=MESSAGE_BYTES, most_each=MESSAGE_BYTES)
                self.sent += 1
                if self.sent - self.acknowledged >= WINDOW:
                    self.may_send.clear()
                pushed = Pushed(name, self.sent, page.results, page.cursor, page.pending, page.size)
                await self._send(encode(pushed), packed)
                while feed.end == place.at and not batches.feeds.closed:
                    await feed.more()
        finally:
            batches.feeds.leave(feed)
        await self.base_send({"type": "websocket.close", "code": RESTART})

    async def _tell(self, content: dict[str, str | int], packed: bool) -> None:
        await self._send(encode_packed(content) if packed else encode_json(content), packed)

    async def _send(self, encoded: bytes, packed: bool) -> None:
        form = {"bytes": encoded} if packed else {"text": encoded.decode()}
        await self.base_send({"type": "websocket.send", **form})

    def _put_out(self) -> None:
        """What it came in by lets nobody in any more."""
        for following in self.followed.values():
            following.cancel()
        self.closing = asyncio.ensure_future(self.base_send({"type": "websocket.close", "code": NOT_LET_IN}))
