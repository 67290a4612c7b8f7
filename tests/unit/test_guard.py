"""Who gets past the guard."""

from __future__ import annotations

import asyncio

import pytest

from faas_project.guard import Guard
from tests.asgi import Call


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def status(*, method="GET", path="/x", inner=app, root_path="", **headers) -> int:
    guard = Guard(inner, hosts=["faas.example", ".lab.example"], max_body_bytes=1000, forms=("/admin/",))

    async def main():
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        call = Call(
            guard, method, path, headers={"content-type": "", "host": "127.0.0.1:8000"} | given, root_path=root_path
        )
        await call.task
        return call.status

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8000", 200),
        ("127.0.0.1", 200),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("faas.example", 200),
        ("FAAS.example.", 200),
        ("a.lab.example:443", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1:8000@evil.example", 403),
        ("localhost:x", 403),
        ("evil.example:80/127.0.0.1", 403),
        ("", 403),
        ("\u00e9", 403),
    ],
)
def test_hosts(host, expected):
    assert status(host=host) == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:8000", 200),
        ("http://localhost:8000", 200),
        ("https://127.0.0.1:8000", 200),
        ("http://127.0.0.1:3000", 403),
        ("http://127.0.0.1", 403),
        ("https://faas.example", 200),
        ("https://faas.example:8443", 200),
        ("http://evil.example", 403),
        ("http://evil.example:8000", 403),
        ("http://faas.example.evil.example", 403),
        ("file://127.0.0.1:8000", 403),
        ("null", 403),
        ("x", 403),
        ("http://[", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_origins(origin, expected, method):
    assert status(method=method, origin=origin) == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "post"])
@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("text/plain; application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/json, text/plain", 415),
        ("", 415),
    ],
)
def test_content_types(method, content_type, expected):
    assert status(method=method, content_type=content_type, content_length="5") == expected
    assert status(method=method, content_type=content_type, transfer_encoding="chunked") == expected


def test_without_a_body_no_type_is_needed_and_forms_have_their_own_protection():
    assert status(method="POST", content_length="0") == 200
    assert status(method="GET", content_type="text/plain") == 200
    assert status(method="POST", path="/admin/login/", content_type="text/plain", content_length="5") == 200
    assert status(method="POST", path="/f/admin/", root_path="/f", content_type="text/plain") == 200
    assert status(method="POST", path="/administer", content_type="text/plain") == 415


@pytest.mark.parametrize(
    ("length", "expected"), [("1000", 200), ("1001", 413), ("9" * 5_000, 413), ("-1", 400), ("x", 400)]
)
def test_lengths(length, expected):
    assert status(method="POST", content_type="application/json", content_length=length) == expected


def test_two_hosts_are_none():
    guard = Guard(app, hosts=[], max_body_bytes=1000)

    async def twice(scope, receive, send):
        scope["headers"] *= 2
        await guard(scope, receive, send)

    async def run():
        call = Call(twice, "GET", "/")
        await call.task
        return call.status

    assert asyncio.run(run()) == 400


def test_what_escapes_is_answered_and_tells_nothing(caplog):
    async def broken(scope, receive, send):
        raise RuntimeError("a secret")

    assert status(inner=broken) == 500
    assert "a secret" in caplog.text


def test_what_escapes_after_the_answer_began_ends_it():
    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    async def main():
        call = Call(Guard(broken, hosts=[], max_body_bytes=1000), "GET", "/")
        await call.task
        assert [message["type"] for message in call.sent] == ["http.response.start", "http.response.body"]
        assert not call.sent[1].get("more_body")

    asyncio.run(main())
