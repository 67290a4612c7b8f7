"""What is believed of what a proxy says, and of whom."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest

from faas_project.proxy import BehindProxy

PROXY, CLIENT, LIAR = "10.0.0.2", "192.0.2.7", "198.51.100.66"


def seen(peer: str | None, *headers: tuple[str, str], kind: str = "http") -> dict[str, Any]:
    """The scope that gets through."""
    found: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.update(scope)

    scope: dict[str, Any] = {
        "type": kind,
        "scheme": "http" if kind == "http" else "ws",
        "client": None if peer is None else [peer, 5000],
        "headers": [(b"host", b"faas.example.org"), *((n.encode(), v.encode("latin1")) for n, v in headers)],
    }
    networks = [ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("fd00::/8")]
    asyncio.run(BehindProxy(app, networks)(scope, None, None))  # type: ignore[arg-type]  # neither is used
    return found


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"{LIAR}, {CLIENT}"], CLIENT),
        (PROXY, [LIAR, CLIENT], CLIENT),
        (PROXY, [f"{LIAR}, {CLIENT}, 10.0.0.3"], CLIENT),  # through another proxy of ours
        (PROXY, [f"{LIAR}, nonsense"], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, [], PROXY),
        (PROXY, ["10.0.0.3, 10.0.0.4"], "10.0.0.3"),
        (PROXY, ["2001:db8::1"], "2001:db8::1"),
        (f"::ffff:{PROXY}", [CLIENT], CLIENT),
        ("fd00::2", [CLIENT], CLIENT),
        (LIAR, [CLIENT], LIAR),
        (LIAR, [f"{CLIENT}, {PROXY}"], LIAR),
    ],
)
def test_who_it_comes_from(peer: str, said: list[str], client: str):
    assert seen(peer, *(("x-forwarded-for", text) for text in said))["client"][0] == client


def test_by_which_scheme():
    https = ("x-forwarded-proto", "https")
    assert seen(PROXY, https)["scheme"] == "https"
    assert seen(PROXY, https, kind="websocket")["scheme"] == "wss"
    assert seen(PROXY, ("x-forwarded-proto", "http"))["scheme"] == "http"
    assert seen(PROXY)["scheme"] == "http"
    assert seen(LIAR, https)["scheme"] == "http"
    assert seen(None, https)["scheme"] == "http"


@pytest.mark.parametrize("peer", [PROXY, LIAR])
def test_nobody_behind_it_reads_what_was_said(peer: str):
    names = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded", "x-real-ip")
    assert seen(peer, *((name, "x") for name in names))["headers"] == [(b"host", b"faas.example.org")]
