"""How requests are run: two handlers, in place of the one that Django has for ASGI.

Django's own gives each request a thread pool, up to four hops to it, two tasks and a temporary file. Our views
are of two kinds, and neither needs that:

    lean    async views that never block: run where the request came in, on the event loop. They touch no ORM;
            what they need of the database, threads with connections of their own do for all of them in groups.
    pool    everything else (Django REST framework, admin, pages): the whole synchronous request, with its
            middleware, in one hop to one of a few threads that live as long as the process. So a connection to the
            database lives on, as it does under a WSGI server.

Both read the whole body first, and neither reads more than the limit.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.http import FileResponse, HttpResponse, HttpResponseBadRequest
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from api.errors import TooLarge, answer_to, response_to
from api.lean import LeanRequest, LeanView, Message, Receive, Scope, Send

#: Threads of the pool handler, each with a connection to the database.
POOL_THREADS = 4


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body of a request.

    Raises:
        TooLarge: it is larger than `limit`. The rest is not read.
        RequestAborted: the client is gone.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise TooLarge(limit)
        return body
    chunks: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise TooLarge(limit)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
    raise RequestAborted


LeanChain: TypeAlias = Callable[[LeanRequest], Awaitable[HttpResponse]]


class LeanHandler(ASGIHandler):
    """Runs an async view where it is: no thread, no task, no signal.

    `settings.MIDDLEWARE` does not apply: its members want threads, sessions and cookies. `request_started` and
    `request_finished` are not sent: what listens to them looks after the database connections of the thread that
    a request runs on, and this one has none.
    """

    def __init__(self, *, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        super().__init__()

    def load_middleware(self, is_async: bool = True) -> None:
        """The whole chain: the view, then errors, then headers."""
        self._middleware_chain = _with_headers(_with_errors(_call_view))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`scope["faas.match"]` is the view, as the router has resolved it."""
        try:
            body = await read_body(receive, self._max_body_bytes)
        except RequestAborted:
            return
        request = LeanRequest(scope, body, receive)
        request.resolver_match = scope["faas.match"]
        try:
            response = await self._middleware_chain(request)
        except RequestAborted:
            return
        await self.send_response(response, send)


async def _call_view(request: LeanRequest) -> HttpResponse:
    match = request.resolver_match
    assert match is not None
    view: LeanView = match.func.cls(**match.func.initkwargs)  # type: ignore[attr-defined]  # as `as_view` has set them
    return await view.dispatch(request, *match.args, **match.kwargs)


def _with_errors(chain: LeanChain) -> LeanChain:
    """Whatever a view raises becomes its answer."""

    async def middleware(request: LeanRequest) -> HttpResponse:
        try:
            return await chain(request)
        except RequestAborted:
            raise
        except Exception as exc:  # noqa: BLE001  # `answer_to` logs what nobody expected
            return response_to(answer_to(exc))

    return middleware


def _with_headers(chain: LeanChain) -> LeanChain:
    """What Django's own middleware would add that means anything beside JSON."""

    async def middleware(request: LeanRequest) -> HttpResponse:
        response = await chain(request)
        response.headers["Content-Length"] = str(len(response.content))
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    return middleware


class PoolHandler(BaseHandler):
    """Runs a whole synchronous request on one thread of its own few.

    What a WSGI server does, behind ASGI: signals, middleware, view and `close()` all happen on that thread, so that
    `close_old_connections` looks after the connection that the request has used, and the next one uses it again.
    """

    def __init__(self, *, max_body_bytes: int, threads: int = POOL_THREADS) -> None:
        super().__init__()
        self._max_body_bytes = max_body_bytes
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pool")
        self.load_middleware()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(receive, self._max_body_bytes)
        except RequestAborted:
            return
        loop = asyncio.get_running_loop()

        def send_now(message: Message) -> None:
            asyncio.run_coroutine_threadsafe(send(message), loop).result()  # type: ignore[arg-type]

        for message in await loop.run_in_executor(self._threads, self._serve, scope, body, send_now):
            await send(message)

    def _serve(self, scope: Scope, body: bytes, send_now: Callable[[Message], None]) -> list[Message]:
        """The messages of the response; those of a stream are sent from here, as it may touch the database."""
        set_script_prefix(get_script_prefix(scope))
        signals.request_started.send(sender=self.__class__, scope=scope)
        try:
            response = self.get_response(ASGIRequest(scope, io.BytesIO(body)))
        except UnicodeDecodeError:
            response = HttpResponseBadRequest()
        response._handler_class = self.__class__  # type: ignore[attr-defined]  # noqa: SLF001  # as Django's handlers do
        try:
            start = _start(response)
            if isinstance(response, HttpResponse):
                return [start, {"type": "http.response.body", "body": response.content}]
            send_now(start)
            if isinstance(response, FileResponse):
                response.block_size = ASGIHandler.chunk_size
            for chunk in response:
                send_now({"type": "http.response.body", "body": chunk, "more_body": True})
            return [{"type": "http.response.body"}]
        finally:
            response.close()


def _start(response: HttpResponseBase) -> Message:
    headers = [(name.encode("ascii"), value.encode("latin1")) for name, value in response.items()]
    headers += [(b"Set-Cookie", morsel.OutputString().encode("ascii")) for morsel in response.cookies.values()]
    return {"type": "http.response.start", "status": response.status_code, "headers": headers}
