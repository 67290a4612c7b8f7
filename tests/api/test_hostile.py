"""What hostile clients send: bodies too large, too slow or too deep, and text that a page must not take for its own."""

from __future__ import annotations

import codecs
import json
import pickle
import re
import socket as sockets
import time
from typing import Any

import psutil
import pytest

from api.models import Attempt
from everythingfaas import descriptors
from everythingfaas.status import Event, Outcome
from tests.access import METHODS, People, Person, call, closed_paths
from tests.api.conftest import Workshop, committed, ended, report
from tests.live import serialize
from tests.web import Web, on_sqlite

pytestmark = on_sqlite

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}"
LIMIT = 16 * 1024**2


@pytest.fixture
def person(people: People) -> Person:
    return people.person("mallory")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"name":' + b"[" * 5_000_000,
        b"\xff\xfe",
        b'{"name": "\\ud800"}',
        b"1e999999",
    ],
    ids=["arrays", "objects", "five million", "no text", "half a character", "a number"],
)
def test_no_json_is_deep_or_odd_enough_for_a_5xx(person: Person, body: bytes):
    for path in ("/register_function", "/execute_function", "/api/v1/tickets"):
        answer = person.call("POST", path, data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (201, 400) if "tickets" in path else answer.status_code == 400, answer.text


def test_no_method_on_no_path_is_a_5xx(person: Person):
    for path in closed_paths():
        for method in METHODS:
            for body in (b"", b"{}", *((b"[]", b'"x"', b"{" * 1000) if method in ("POST", "PUT", "PATCH") else ())):
                headers = {"Content-Type": "application/json"} if body else {"Accept": "text/html"}
                answer = person.call(method, path, data=body, headers=headers)
                assert answer.status_code < 500, (method, path, body[:10], answer.text)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_too_large_a_body_is_not_read(closed_web: Web, headers: dict[str, str]):
    with sockets.create_connection(("127.0.0.1", closed_web.port), timeout=20) as client:
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = ["POST /execute_function HTTP/1.1", f"Host: 127.0.0.1:{closed_web.port}", *lines]
        client.sendall("\r\n".join([*head, f"Content-Length: {LIMIT + 1}", "", ""]).encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_slow_bodies_hold_up_nobody_else(closed_web: Web, person: Person):
    """They cost a connection each, and their time is limited."""
    slow = [sockets.create_connection(("127.0.0.1", closed_web.port)) for _ in range(100)]
    head = f"POST /execute_function HTTP/1.1\r\nHost: 127.0.0.1:{closed_web.port}\r\nContent-Length: 1000\r\n\r\n{{"
    for client in slow:
        client.sendall(head.encode())
    began = time.monotonic()
    assert person.submit()
    assert time.monotonic() - began < 3.0
    for client in slow:
        client.close()


def test_what_clients_name_and_print_is_text_on_every_page(person: Person, workshop: Workshop):
    """In names of functions, errors, tracebacks and output. The policy for pages would stop a script as well."""
    body = {"name": SCRIPT, "payload": serialize(len)}
    function = person.post("/register_function", body).json()["function_id"]
    task = person.execute(function).json()["task_id"]
    (claimed,) = workshop.claim()
    failed = report(Outcome.RAISED, error_type=SCRIPT, message=SCRIPT, traceback=SCRIPT, output_head=SCRIPT.encode())
    with committed() as cursor:
        from api import moves

        moves.end(cursor, [ended(claimed, Event.FAIL, report=failed, error=SCRIPT)])
    assert Attempt.objects.count() == 1
    pages = (
        "/",
        "/tasks/",
        f"/tasks/{task}/",
        "/functions/",
        f"/functions/{function}/",
        f"/tasks/?function={function}",
    )
    for path in (*pages, f"/functions/?q={SCRIPT}", "/workers/"):
        answer = person.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 200, path
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "<script>alert" not in answer.text, path
        assert "<img" not in answer.text, path
        assert "\\\"'`" not in re.sub(r'<script id="view".*?</script>', "", answer.text, flags=re.DOTALL)
    for path in (
        f"/tasks/{task}/output?attempt=1",
        f"/api/v1/tasks/{task}",
        f"/api/v1/functions/{function}",
        "/nothing",
    ):
        answer = person.get(path)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    download = person.get(f"/tasks/{task}/output?attempt=1&download=1")
    assert download.headers["Content-Type"] == "application/octet-stream"
    assert download.headers["Content-Disposition"].startswith("attachment")


def test_what_is_not_there_is_told_as_data(person: Person):
    answer = person.get(f"/status/{SCRIPT}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/json")
    assert json.loads(answer.text)["error"]["code"] == "not_found"


def test_the_page_to_log_in_by_shows_no_markup_of_others(closed_web: Web):
    answer = call(closed_web, "GET", "/login/", params={"next": SCRIPT})
    assert "<script>alert" not in answer.text
    assert "<img" not in answer.text


def laughs() -> bytes:
    """Sixty lists, each of which holds the one before twice: whoever writes it out never ends."""
    inner: list[Any] = []
    for _ in range(60):
        inner = [inner, inner]
    return pickle.dumps(((inner,), {}))


BOMBS = {
    "ten million opcodes": b"\x80\x04" + b"N0" * 5_000_000 + b"N.",
    "ten million marks": b"\x80\x04" + b"(" * 10_000_000 + b".",
    "a length that lies": b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"x.",
    "a memo far away": b"\x80\x04Nr\xff\xff\xff\x7f.",
    "a tower of lists": b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "laughs": laughs(),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_pickles_that_are_bombs_go_off_nowhere(closed_web: Web, person: Person, bomb: str):
    """They are walked through up to a bound, and never built; what is accepted is for a slot to fail at."""
    payload = codecs.encode(BOMBS[bomb], "base64").decode()
    function = person.register()
    before = psutil.Process(closed_web.process.pid).memory_info().rss
    for path, body in (
        ("/register_function", {"name": "f", "payload": payload}),
        ("/execute_function", {"function_id": function, "payload": payload}),
    ):
        began = time.monotonic()
        answer = person.post(path, body)
        # Of arguments, little more is looked at than that they begin and end as a pickle does.
        assert answer.status_code == 400 or (answer.status_code, path) == (201, "/execute_function"), answer.text
        assert time.monotonic() - began < 5.0
    assert psutil.Process(closed_web.process.pid).memory_info().rss - before < 500 * 1024**2


def test_idle_connections_hold_up_nobody(closed_web: Web, person: Person):
    if descriptors.allow_more() < 4096:
        pytest.skip("this process may open too few files: ulimit -Hn 4096")
    idle: list[Any] = [sockets.create_connection(("127.0.0.1", closed_web.port)) for _ in range(1000)]
    assert person.get("/api/v1/tasks").status_code == 200
    for client in idle:
        client.close()
