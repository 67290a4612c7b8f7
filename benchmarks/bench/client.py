"""A small keep-alive HTTP/1.1 client on asyncio, and the REST contract on top of it.

Measured and measuring share the machine, so what the client costs is part of every figure. It is a plain
`asyncio.Protocol` that parses what the service sends and no more: some 40 µs a request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bench.functions import registration

TERMINAL = ("COMPLETED", "FAILED")


class Refused(Exception):
    """The service answered with another status than the benchmark needs."""


class Answer(NamedTuple):
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._buffer = bytearray()

    async def request(self, head: bytes, body: bytes = b"") -> Answer:
        """`head` ends with its empty line.

        Raises:
            OSError: no connection, or it was lost before the answer was complete.
        """
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            self._buffer.clear()
            transport, _ = await loop.create_connection(lambda: self, self._host, self._port)
            self._transport = transport
        self._answer = loop.create_future()
        self._transport.write(head + body)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        found = parse(self._buffer)
        if found is not None and self._answer is not None and not self._answer.done():
            self._buffer.clear()
            self._answer.set_result(found)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(f"the connection was lost: {exc}"))


def parse(data: bytes | bytearray) -> Answer | None:
    """The answer in `data`, or None while a part of it is missing."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    status = int(data[9:12])
    headers = bytes(data[:end]).lower()
    body = end + 4
    at = headers.find(b"\r\ncontent-length:")
    if at >= 0:
        length = int(headers[at + 17 :].split(b"\r\n", 1)[0])
        return Answer(status, bytes(data[body : body + length])) if len(data) >= body + length else None
    if b"\r\ntransfer-encoding: chunked" in headers:
        return _chunked(status, data, body)
    return Answer(status, b"")


def _chunked(status: int, data: bytes | bytearray, at: int) -> Answer | None:
    body = b""
    while (line := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:line].split(b";")[0], 16)
        at = line + 2 + size + 2
        if len(data) < at:
            return None
        if size == 0:
            return Answer(status, body)
        body += data[line + 2 : line + 2 + size]
    return None


class Client:
    """As many connections to one service as there are requests at the same time."""

    def __init__(self, url: str, *, token: str = "") -> None:
        self._credential = f"Authorization: Bearer {token}\r\n" if token else ""
        parts = urlsplit(url)
        self.url = url
        self._host, self._port, self._prefix = parts.hostname or "127.0.0.1", parts.port or 80, parts.path.rstrip("/")
        self._free: list[Connection] = []

    async def get(self, path: str) -> Answer:
        return await self._ask("GET", path, b"")

    async def post(self, path: str, body: bytes) -> Answer:
        return await self._ask("POST", path, body)

    async def register(self, function: Callable[..., Any]) -> str:
        answer = await self.post("/register_function", registration(function))
        return str(expect(answer, 201)["function_id"])

    async def submit(self, body: bytes) -> str:
        """`body` comes from `functions.call`. Returns the id of the task."""
        return str(expect(await self.post("/execute_function", body), 201)["task_id"])

    async def finished(self, task: str, *, poll_s: float) -> str:
        """Asks each `poll_s` seconds until the task has ended; returns its status."""
        while True:
            status = str(expect(await self.get(f"/result/{task}"), 200)["status"])
            if status in TERMINAL:
                return status
            await asyncio.sleep(poll_s)

    async def waited(self, task: str) -> str:
        """Asks with `?wait=`, once if nothing lasts long; returns the task's status."""
        while True:
            status = str(expect(await self.get(f"/result/{task}?wait=30"), 200)["status"])
            if status in TERMINAL:
                return status

    def close(self) -> None:
        for connection in self._free:
            connection.close()
        self._free.clear()

    async def _ask(self, method: str, path: str, body: bytes) -> Answer:
        connection = self._free.pop() if self._free else Connection(self._host, self._port)
        answer = await connection.request(self._head(method, path, len(body)), body)
        self._free.append(connection)  # one that failed is dropped
        return answer

    def _head(self, method: str, path: str, length: int) -> bytes:
        head = (
            f"{method} {self._prefix}{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAccept: application/json\r\n"
        )
        head += self._credential
        if method == "POST":
            head += f"Content-Type: application/json\r\nContent-Length: {length}\r\n"
        return (head + "\r\n").encode()


def expect(answer: Answer, status: int) -> Any:
    """The body of an answer that must have this status."""
    if answer.status != status:
        raise Refused(f"{answer.status} instead of {status}: {answer.body[:300].decode(errors='replace')}")
    return answer.json()
