"""The ASGI application in this process, for what cannot be seen from outside."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from api.services import services


class Call:
    """One request to an ASGI application. Its client stays until it says `leave`."""

    def __init__(
        self,
        app: Any,
        method: str,
        path: str,
        *body: bytes,
        headers: dict[str, str] | None = None,
        kind: str = "http",
        root_path: str = "",
    ) -> None:
        path, _, query = path.partition("?")
        given = {"host": "127.0.0.1:8000", "content-type": "application/json"} | (headers or {})
        scope = {
            "type": kind,
            "method": method,
            "path": path,
            "root_path": root_path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode("latin1")) for name, value in given.items()],
        }
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Any] = []
        chunks = body or (b"",)
        for i, chunk in enumerate(chunks, 1):
            self._messages.put_nowait({"type": "http.request", "body": chunk, "more_body": i < len(chunks)})
        self.task = asyncio.create_task(app(scope, self._messages.get, self._send))

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> Any:
        """The JSON of the answer."""
        await asyncio.wait_for(self.task, 30)
        return json.loads(self.body)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


async def serving(test: Any) -> None:
    """Runs the coroutine function `test`, and closes the services that it started."""
    try:
        await test()
    finally:
        await services().close()


def run(test: Any) -> None:
    asyncio.run(serving(test))


async def until(condition: Any, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what it looks at tells nobody
            await asyncio.sleep(0.005)
