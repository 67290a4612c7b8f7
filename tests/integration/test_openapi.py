"""The description of the API: complete, true of what is answered, and shown without anything from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.urls import URLPattern, get_resolver
from drf_spectacular.validation import validate_schema
from rest_framework.views import APIView

from api import openapi
from everythingfaas.serialize import serialize
from tests.described import as_described
from tests.live import Appliance, running


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with running(tmp_path_factory.mktemp("openapi"), "--workers", "1") as appliance:
        yield appliance


@pytest.fixture(scope="module")
def schema(live: Appliance) -> dict[str, Any]:
    answer = live.get("/api/schema/")
    assert answer.headers["Content-Type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def test_it_is_valid(schema: dict[str, Any]) -> None:
    validate_schema(schema)
    assert schema["openapi"].startswith("3.1")


def test_nothing_about_it_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    openapi.document.cache_clear()
    openapi.document()
    assert capsys.readouterr().err == ""  # where drf-spectacular warns


def test_every_path_is_described(schema: dict[str, Any]) -> None:
    def routes(patterns: list[Any], prefix: str = "/") -> Iterator[str]:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLPattern):
                if not issubclass(getattr(pattern.callback, "cls", object), APIView):
                    continue  # a page
                yield re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)
            else:
                yield from routes(pattern.url_patterns, route)

    ours = set(routes(get_resolver().url_patterns))
    once = {route for route in ours if route == "/" or not route.endswith("/")}
    assert set(schema["paths"]) == once - {"/api/schema"}


def test_every_refusal_has_our_form(schema: dict[str, Any]) -> None:
    for path, methods in schema["paths"].items():
        for said in methods.values():
            for status, response in said["responses"].items():
                if int(status) >= 400 and path != "/readyz":
                    reference = response["content"]["application/json"]["schema"]["$ref"]
                    assert reference == "#/components/schemas/Error", (path, status)


class Checked:
    """A client that holds each answer against the description."""

    def __init__(self, live: Appliance, schema: dict[str, Any]) -> None:
        self.live, self.schema = live, schema
        self.seen: set[tuple[str, str, int]] = set()

    def __call__(self, method: str, path: str, *, query: str = "", body: Any = None, **names: Any) -> Any:
        url = self.live.url + path.format(**names) + query
        answer = self.live.http.request(method, url, json=body, timeout=30)
        content = answer.json()
        as_described(self.schema, method, path, answer.status_code, content)
        self.seen.add((method, path, answer.status_code))
        return content


def test_every_answer_is_as_described(live: Appliance, schema: dict[str, Any]) -> None:
    call = Checked(live, schema)
    policy = {"retries": 1, "backoff_s": 3600, "retry_on": ["ValueError"]}
    body = {"name": "f", "payload": serialize(lambda seconds: __import__("time").sleep(seconds)), "policy": policy}
    function = call("POST", "/register_function", body=body)["function_id"]
    execute = {"function_id": function, "payload": serialize(((30,), {})), "policy": {"retries": 0}}
    runs = call("POST", "/execute_function", body=execute)["task_id"]
    waits = call("POST", "/execute_function", body=execute)["task_id"]
    while call("GET", "/status/{task_id}", task_id=runs)["status"] != "RUNNING":
        time.sleep(0.01)
    call("GET", "/result/{task_id}", task_id=runs)
    call("POST", "/api/v1/tasks/{task_id}/retry", task_id=waits)  # 409
    call("POST", "/api/v1/tasks/{task_id}/cancel", task_id=waits)
    call("POST", "/api/v1/tasks/{task_id}/cancel", task_id=runs)
    call("POST", "/api/v1/tasks/{task_id}/cancel", task_id=runs, query="?wait=10")
    call("GET", "/result/{task_id}", task_id=runs, query="?wait=10")
    again = call("POST", "/api/v1/tasks/{task_id}/retry", task_id=runs)["id"]
    call("POST", "/api/v1/tasks/{task_id}/cancel", task_id=again, query="?wait=10")
    raises = call("POST", "/execute_function", body={**execute, "payload": serialize((("x",), {}))})["task_id"]
    call("GET", "/result/{task_id}", task_id=raises, query="?wait=10")
    attempts = call("GET", "/api/v1/tasks/{task_id}", task_id=raises)["attempts"]
    assert [attempt["error_type"] for attempt in attempts] == ["TypeError"]
    assert len(call("GET", "/api/v1/tasks", query="?limit=3")["tasks"]) == 3
    call("GET", "/api/v1/functions")
    call("POST", "/api/v1/tickets")
    call("GET", "/api/v1/functions/{function_id}", function_id=function)
    call("PATCH", "/api/v1/functions/{function_id}", function_id=function, body={"policy": {"priority": 1}})
    while not call("GET", "/api/v1/workers")["workers"]:
        time.sleep(0.1)
    for path in ("/", "/healthz", "/readyz"):
        call("GET", path)
    source = {"name": "s", "source": "def f(x):\n    return [x]", "entrypoint": "f", "reuse": True}
    assert call("POST", "/api/v1/functions", body=source) == call("POST", "/api/v1/functions", body=source)
    invoke = "/api/v1/functions/{function_id}/invoke"
    assert call("POST", invoke, function_id="s", query="?wait=10", body={"args": [1]})["result"] == [1]
    later = call("POST", invoke, function_id=function, body={"args": [0.5]})["task_id"]
    call("GET", "/api/v1/tasks/{task_id}/result", task_id=later)
    assert call("GET", "/api/v1/tasks/{task_id}/result", task_id=later, query="?wait=10")["result"] is None
    assert call("GET", "/api/v1/tasks/{task_id}/result", task_id=raises)["error"]["type"] == "TypeError"
    tasks = [{"args": ["x"]}, {"args": [30], "policy": {"priority": -1}}]
    batch = call("POST", "/api/v1/batches", body={"function_id": function, "tasks": tasks, "name": "b"})["batch_id"]
    more = {"function_id": function, "tasks": tasks[1:]}
    call("POST", "/api/v1/batches/{batch}/tasks", batch=batch, body=more)
    assert call("GET", "/api/v1/batches/{batch}/results", batch="b", query="?wait=10")["results"][0]["error"]
    call("GET", "/api/v1/batches")
    call("GET", "/api/v1/batches/{batch}", batch=batch)
    call("GET", "/api/v1/batches/{batch}/tasks", batch=batch)
    call("POST", "/api/v1/batches/{batch}/cancel", batch=batch)

    # And as they are refused.
    nobody: dict[str, Any] = {"task_id": "0" * 32, "function_id": "0" * 32, "batch": "0" * 32}
    for path, methods in schema["paths"].items():
        for method, said in methods.items():
            if "404" in said["responses"] and path != "/execute_function" and not _of_tokens(path):
                bodies: dict[str, Any] = {"patch": {"policy": {}}}
                if path.startswith("/api/v1/batches"):
                    bodies["post"] = {"tasks": [], "function_id": "0" * 32}
                call(method.upper(), path, body=bodies.get(method), **nobody)
    call("POST", "/execute_function", body={**execute, "function_id": "0" * 32})
    call("POST", "/execute_function", body={**execute, "policy": {"retries": -1}})
    call("POST", "/register_function", body={"name": "f"})
    call("GET", "/api/v1/tasks", query="?limit=0")
    call("GET", "/api/v1/functions", query="?before=x")
    call("PATCH", "/api/v1/functions/{function_id}", function_id=function, body={})

    # Of tokens there are none here; what is said of them where there are some: tests/api/test_v1_tokens.py.
    call("GET", "/api/v1/tokens")

    described = {
        (method.upper(), path, int(status))
        for path, methods in schema["paths"].items()
        if not _of_tokens(path)
        for method, said in methods.items()
        for status in said["responses"]
    }
    successes = {one for one in described if one[2] < 400}
    assert successes <= call.seen
    assert {(one[0], one[1]) for one in described if one[2] == 404} == {(o[0], o[1]) for o in call.seen if o[2] == 404}


def _of_tokens(path: str) -> bool:
    return path.startswith("/api/v1/tokens")


def test_every_operation_says_who_is_let_in(schema: dict[str, Any]) -> None:
    """As the gate asks it, which the attack table tries with each scope."""
    schemes = schema["components"]["securitySchemes"]
    assert (schemes["token"]["type"], schemes["token"]["scheme"], schemes["session"]["in"]) == (
        "http",
        "bearer",
        "cookie",
    )
    for path, methods in schema["paths"].items():
        for method, said in methods.items():
            ways = said["security"]
            if path in ("/healthz", "/readyz"):
                assert ways == []
                continue
            assert {} in ways  # no tokens are asked for here
            scopes = {scope for way in ways for scope in way.get("token", ())}
            wanted = {"read"} if method == "get" or path.endswith("/tickets") else {"submit"}
            assert scopes == wanted | ({"worker"} if path.endswith("/workers") else set()), (method, path)
            assert {"session": []} | ({} if method == "get" else {"csrf": []}) in ways
            assert {name for way in ways for name in way} <= schemes.keys()


def test_the_page_takes_everything_from_here(live: Appliance) -> None:
    page = live.get("/api/docs/")
    assert (
        page.headers["Content-Security-Policy"]
        == live.get("/", headers={"Accept": "text/html"}).headers["Content-Security-Policy"]
    )
    sources = re.findall(r'(?:src|href|data-schema)="([^"]+)"', page.text)
    assert len(sources) >= 6
    for source in sources:
        assert source.startswith("/")
        assert live.get(source).status_code == 200, source
    assert "<style" not in page.text
    assert not re.search(r"<script(?![^>]* src=)", page.text)


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed, and CI=true: apt-get install chromium")
        pytest.skip("chromium is not installed (apt-get install chromium)")
    return found


@pytest.mark.slow
def test_a_browser_shows_it_and_refuses_nothing(live: Appliance, tmp_path: Path, schema: dict[str, Any]) -> None:
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    options += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=10000", "--dump-dom"]
    # The address opens one operation, so that its parameters and answers are drawn as well.
    address = f"{live.url}/api/docs/#/tasks/cancel_task"
    shown = subprocess.run([_chromium(), *options, address], capture_output=True, text=True, timeout=90)
    operations = sum(len(methods) for methods in schema["paths"].values())
    assert shown.stdout.count('class="opblock-summary-path"') == operations
    assert "it runs, and the kill is on its way" in shown.stdout
    assert "Content Security Policy" not in shown.stderr, shown.stderr
    assert "ERROR:CONSOLE" not in shown.stderr, shown.stderr
