"""The router and the two handlers, in this process."""

from __future__ import annotations

import asyncio
import threading

import pytest
from django.conf import settings
from django.core import signals
from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import URLPattern, URLResolver, get_resolver, path

from api.lean import LeanView
from api.services import services
from faas_project.asgi import LeanHandler, PoolHandler, Router, application, guarded, is_lean
from tests.asgi import Call, run, until
from tests.web import on_sqlite

LEAN = {"ExecuteFunction", "TaskStatus", "TaskResult", "Health", "Ready", "TaskCancel", "TaskRetry"}
LEAN |= {"BatchList", "BatchDetail", "BatchTasks", "BatchResults", "BatchCancel", "Invoke", "Result"}


def patterns(resolver: URLResolver, prefix: str = ""):
    for entry in resolver.url_patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLPattern):
            yield route, entry
        else:
            yield from patterns(entry, route)


def router() -> Router:
    return application._app


ROUTES = list(patterns(get_resolver()))


@pytest.mark.parametrize(("route", "entry"), ROUTES, ids=[route for route, _ in ROUTES])
def test_the_class_of_a_view_decides_who_runs_it(route, entry):
    view = getattr(entry.callback, "cls", None)
    lean = isinstance(view, type) and issubclass(view, LeanView)
    assert lean == (getattr(view, "__name__", "") in LEAN)
    if "admin" in route or "(" in route:
        return  # patterns that no path can be made of by hand
    scope = {"type": "http", "path": "/" + route.replace("<str:task_id>", "x").replace("<path:path>", "x")}
    for _ in range(2):  # the second time it may be remembered
        assert router().handler_for(scope) is (router()._lean if lean else router()._pool)
        assert "faas.match" in scope or "<uuid" in route  # for the gate, whoever runs it


@pytest.mark.parametrize("route", ["/nothing", "/admin/", "/static/x", "/status/", "/status/a/b"])
def test_everything_else_is_the_pools(route):
    assert router().handler_for({"type": "http", "path": route}) is router()._pool


def test_a_prefix_of_the_server_is_taken_off():
    scope = {"type": "http", "path": "/faas/healthz", "root_path": "/faas"}
    assert router().handler_for(scope) is router()._lean


@on_sqlite
def test_lean_requests_use_no_thread_and_no_signal(database):
    heard = []
    signals.request_started.connect(heard.append)

    async def test():
        services()
        threads = threading.active_count()
        call = Call(application, "GET", "/healthz")
        assert await call.answer() == {"status": "ok"}
        assert call.headers["content-length"] == str(len(call.body))
        assert threading.active_count() == threads

    try:
        run(test)
        assert not heard
    finally:
        signals.request_started.disconnect(heard.append)


@on_sqlite
def test_a_client_that_goes_away_is_forgotten(database, workshop):
    (task,) = workshop.submit()

    async def test():
        call = Call(application, "GET", f"/result/{task}?wait=30")
        await until(lambda: len(services().waiters) == 1)
        call.leave()
        await asyncio.wait_for(call.task, 5)
        assert not call.sent
        assert len(services().waiters) == 0

    run(test)


@on_sqlite
def test_a_client_that_leaves_before_its_body_has_come_gets_nothing(database):
    async def test():
        for path_ in ("/execute_function", "/register_function"):
            call = Call(application, "POST", path_)
            call._messages.get_nowait()
            call.leave()
            await asyncio.wait_for(call.task, 5)
            assert not call.sent

    run(test)


@on_sqlite
def test_bodies_come_in_parts_and_are_counted(database):
    async def test():
        for path_ in ("/execute_function", "/register_function"):
            call = Call(application, "POST", path_, b'{"name": "f",', b' "payload": 1}')
            assert (await call.answer())["error"]["code"] == "invalid_request"
            call = Call(application, "POST", path_, *[bytes(1024**2)] * 17)
            assert (await call.answer())["error"]["code"] == "too_large"
            assert call.status == 413

    run(test)


class Broken(LeanView):
    async def get(self, request):
        raise ZeroDivisionError("a secret")


def where(request):
    connection.ensure_connection()
    Views.threads.append(threading.current_thread().name)
    Views.connections.append(id(connection.connection))
    return HttpResponse(b"{}")


def stream(request):
    def parts():
        for part in (b"[1", b",2", b"]"):
            Views.threads.append(threading.current_thread().name)
            yield part

    return StreamingHttpResponse(parts())


class Views:
    threads: list[str] = []  # noqa: RUF012
    connections: list[int] = []  # noqa: RUF012


def broken(request):
    raise ZeroDivisionError("a secret")


urlpatterns = [
    path("where", where),
    path("stream", stream),
    path("broken", broken),
    path("broken-lean", Broken.as_view()),
]
handler500 = "api.errors.server_error"


@pytest.mark.parametrize("route", ["/broken", "/broken-lean"])
def test_what_nobody_expected_is_a_500_that_tells_nothing(pool, route, caplog):
    app = guarded(Router(LeanHandler(max_body_bytes=1000), pool, urlconf=__name__))

    async def test():
        call = Call(app, "GET", route)
        assert (await call.answer())["error"]["code"] == "internal_error"
        assert call.status == 500
        assert b"secret" not in call.body

    asyncio.run(test())
    assert "a secret" in caplog.text


@pytest.fixture
def pool(database):
    Views.threads.clear()
    Views.connections.clear()
    former, settings.ROOT_URLCONF = settings.ROOT_URLCONF, __name__
    handler = PoolHandler(max_body_bytes=1000, threads=1)
    yield handler
    handler._threads.submit(lambda: connection.close()).result()  # looked up on that thread
    handler._threads.shutdown()
    settings.ROOT_URLCONF = former


def test_a_pool_request_is_one_thread_with_a_connection_that_stays(pool):
    heard = []

    def listener(signal, **_):
        heard.append((signal, threading.current_thread().name))

    for signal in (signals.request_started, signals.request_finished):
        signal.connect(listener)

    async def test():
        for _ in range(3):
            assert await Call(pool, "GET", "/where").answer() == {}

    try:
        asyncio.run(test())
    finally:
        for signal in (signals.request_started, signals.request_finished):
            signal.disconnect(listener)
    (thread,) = set(Views.threads)
    assert thread.startswith("pool")
    assert len(set(Views.connections)) == 1
    assert heard == [(signals.request_started, thread), (signals.request_finished, thread)] * 3


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_connection_that_broke_is_not_used_again(pool):
    async def test():
        await Call(pool, "GET", "/where").answer()
        pool._threads.submit(lambda: setattr(connection, "errors_occurred", True)).result()
        pool._threads.submit(lambda: connection.connection.close()).result()
        assert await Call(pool, "GET", "/where").answer() == {}

    asyncio.run(test())


def test_a_stream_is_made_on_the_thread_of_its_request(pool):
    async def test():
        call = Call(pool, "GET", "/stream")
        assert await call.answer() == [1, 2]
        assert len(call.sent) == 5

    asyncio.run(test())
    assert len(set(Views.threads)) == 1


def test_websockets_are_refused_politely():
    async def test():
        call = Call(application, "GET", "/other", kind="websocket")
        await call.task
        assert call.sent == [{"type": "websocket.close", "code": 1000}]
        call = Call(application, "GET", "/live", kind="websocket", headers={"origin": "http://evil.example"})
        await call.task
        assert call.sent == [{"type": "websocket.close", "code": 1008}]

    asyncio.run(test())


@on_sqlite
def test_a_server_may_say_when_it_starts_and_stops(database):
    async def test():
        messages: asyncio.Queue = asyncio.Queue()
        sent: asyncio.Queue = asyncio.Queue()
        task = asyncio.create_task(application({"type": "lifespan"}, messages.get, sent.put))
        for phase in ("startup", "shutdown"):
            messages.put_nowait({"type": f"lifespan.{phase}"})
            assert (await sent.get())["type"] == f"lifespan.{phase}.complete"
        await task

    asyncio.run(test())


def test_is_lean_knows_functions():
    assert not is_lean(get_resolver().resolve("/static/x"))
