"""Behind a proxy that ends TLS: who a request comes from, and by which scheme, is what that proxy says.

Plain ASGI around everything else. From here on the scope speaks of the client, and holds none of the headers that
speak of it: so nothing behind can believe them, whoever has sent them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

from api.lean import Receive, Scope, Send
from faas_project.guard import App

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_FOR, _PROTO = b"x-forwarded-for", b"x-forwarded-proto"
_OTHERS = frozenset({b"forwarded", b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip"})


class BehindProxy:
    """An ASGI application around another one.

    Args:
        networks: where proxies are. What others say is thrown away.
    """

    def __init__(self, app: App, networks: Iterable[Network]) -> None:
        self._app = app
        self._networks = tuple(networks)
        self._trusts = lru_cache(1_000)(self._is_proxy)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            self._read(scope)
        await self._app(scope, receive, send)

    def _read(self, scope: Scope) -> None:
        said: list[str] = []
        scheme = b""
        kept = []
        for name, value in scope["headers"]:
            if name == _FOR:
                said += value.decode("latin1").split(",")
            elif name == _PROTO:
                scheme = value
            elif name not in _OTHERS:
                kept.append((name, value))
        scope["headers"] = kept
        peer = scope.get("client")
        if peer is None or not self._trusts(peer[0]):
            return
        if scheme == b"https":
            scope["scheme"] = "https" if scope["type"] == "http" else "wss"
        client = self._client(peer[0], said)
        if client != peer[0]:
            scope["client"] = [client, 0]

    def _client(self, peer: str, said: list[str]) -> str:
        """Each proxy has added whom it was asked by: the last of them who is none. What stands before is anybody's."""
        client = peer
        for text in reversed(said):
            if not self._trusts(client):
                break
            try:
                client = str(ipaddress.ip_address(text.strip()))
            except ValueError:
                break
        return client

    def _is_proxy(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
