"""Drives flows with httpx: on a thread, or on an event loop."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx

from everythingfaas import __version__
from everythingfaas.client.config import Endpoint
from everythingfaas.client.flows import Call, Flow, Pause, Reply, Verbs
from everythingfaas.errors import Unreachable

T = TypeVar("T")

CONNECT_S = 10.0


class _Link:
    """What the two have in common."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def headers(self) -> dict[str, str]:
        """Those that every request has."""
        said = {"User-Agent": f"everythingfaas/{__version__}"}
        if self.endpoint.token:
            said["Authorization"] = f"Bearer {self.endpoint.token}"
        return said

    def _options(self) -> dict[str, Any]:
        return {
            "base_url": self.endpoint.url,
            "headers": self.headers(),
            # Reading the certificates of the system takes longer than a request, and http needs none.
            "verify": ssl.create_default_context() if self.endpoint.url.startswith("https:") else False,
            # A proxy for the world is none for this machine.
            "trust_env": not is_loopback(self.endpoint.url),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30),
        }

    def _unreachable(self, exc: Exception) -> Unreachable:
        what = " ".join(str(exc).split()) or type(exc).__name__
        return Unreachable(f"no service answers at {self.endpoint.url}: {what}; is it running, and is FAAS_URL right?")


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _arguments(call: Call) -> dict[str, Any]:
    return {
        "method": call.method,
        "url": call.path,
        "params": call.query,
        "content": call.body,
        "headers": call.headers,
        "timeout": httpx.Timeout(call.timeout_s, connect=CONNECT_S),
    }


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, response.headers, response.content)


class Link(_Link):
    """For threads: any number of them at the same time."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._http = httpx.Client(**self._options())

    def run(self, flow: Flow[T]) -> T:
        """Does what `flow` says, until its end."""
        answer: Reply | Unreachable | None = None
        try:
            while True:
                step = flow.send(answer)
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    answer = None
                else:
                    answer = self._send(step)
        except StopIteration as end:
            value: T = end.value
            return value

    def close(self) -> None:
        self._http.close()

    def _send(self, call: Call) -> Reply | Unreachable:
        try:
            return _reply(self._http.request(**_arguments(call)))
        except (httpx.TransportError, httpx.DecodingError) as exc:
            return self._unreachable(exc)


class Connection(NamedTuple):
    """A link, and what is remembered of the service."""

    link: Link
    verbs: Verbs


class AsyncLink(_Link):
    """For one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._http = httpx.AsyncClient(**self._options())

    async def run(self, flow: Flow[T]) -> T:
        """Does what `flow` says, until its end."""
        answer: Reply | Unreachable | None = None
        try:
            while True:
                step = flow.send(answer)
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    answer = None
                else:
                    answer = await self._send(step)
        except StopIteration as end:
            value: T = end.value
            return value

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, call: Call) -> Reply | Unreachable:
        try:
            return _reply(await self._http.request(**_arguments(call)))
        except (httpx.TransportError, httpx.DecodingError) as exc:
            return self._unreachable(exc)
