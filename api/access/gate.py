"""The check before every view and socket while tokens are on: who is this, and may they do that?

On the event loop. Who is found is kept for two seconds, so that a token costs a hash and a look into a dictionary; what
is revoked is forgotten in all web processes at once, by a message of Redis, and without Redis within that time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, parse_cookie
from django.middleware.csrf import CsrfViewMiddleware
from django.urls import ResolverMatch

from api.access import tokens
from api.access.audit import Audit
from api.access.caller import KEY, READ, SUBMIT, Caller, needed
from api.access.quotas import Rates
from api.errors import ApiError, Forbidden, Unauthorized
from api.lean import Message, Scope, Send
from api.mirror import ACCESS
from api.reader import Reader
from api.redis_link import Subscription
from everythingfaas.errors import StoreUnavailable

log = logging.getLogger("api.access")

#: For so many seconds what was found holds, and what is revoked may work on where nobody can be told.
KEPT_S = 2.0
#: So many are kept, among them those that are not let in.
KEPT = 10_000
#: What the server answers to a client that offers subprotocols, and how clients put in what they come with.
PROTOCOL = "faas.live"
_TOKEN, _TICKET = "faas.token.", "faas.ticket."

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class LoginFirst(ApiError):
    """A browser is shown the page to log in by."""

    status = 302
    code = "unauthorized"

    def __init__(self, path: str) -> None:
        super().__init__("log in first", headers={"Location": f"/login/?next={quote(path, safe='')}"})


class Gate:
    """Everybody who is let into this process."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, reader: Reader, subscription: Subscription, audit: Audit
    ) -> None:
        self._loop = loop
        self._reader = reader
        self._audit = audit
        self._rates = Rates(loop.time)
        self._kept: OrderedDict[str, tuple[Caller | None, float]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[Caller | None]] = {}
        self._watched: dict[str, list[Callable[[], None]]] = {}
        self._look: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        subscription.listen(ACCESS, self._told)

    async def admit(self, scope: Scope, match: ResolverMatch | None) -> None:
        """Leaves the caller in `scope`, unless nobody is asked for.

        Raises:
            Unauthorized: there is nothing that lets them in.
            LoginFirst: the same, to a browser.
            Forbidden: what they have does not suffice.
            TooMany: they have asked too often.
        """
        method = scope["method"].upper()
        if match is None:  # there is nothing there, which is nobody's business
            needs: frozenset[str] | None = frozenset({READ, SUBMIT})
        else:
            needs = needed(match, method)
        if needs is None:
            return
        caller, is_session = await self._from_headers(scope)
        if caller is None:
            raise LoginFirst(_full_path(scope)) if _is_browser(scope) else Unauthorized
        if not caller.has_one_of(needs):
            raise Forbidden(f"this needs a token with the scope {' or '.join(sorted(needs))}")
        if is_session and method not in _SAFE and match is not None and getattr(match.func, "csrf_exempt", False):
            _check_csrf(scope)
        self._rates.take(caller)
        self._audit.used(caller)
        scope[KEY] = caller

    def watched(self, scope: Scope, match: ResolverMatch | None, send: Send) -> Send:
        """`send`, by which it is seen, and recorded, that a request has changed something."""
        caller: Caller | None = scope.get(KEY)
        method = scope["method"].upper()
        if caller is None or method in _SAFE:
            return send

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                name = match.url_name if match is not None else None
                self._audit.answered(caller, scope, f"{method} {name or ''}".strip())
            await send(message)

        return sent

    async def admit_socket(self, scope: Scope) -> None:
        """The same for a WebSocket, which comes with a token or ticket as a subprotocol, or a session.

        Raises:
            Unauthorized: there is nothing that lets them in.
            Forbidden: what they have does not suffice.
        """
        caller: Caller | None = None
        for offered in scope.get("subprotocols", ()):
            if offered.startswith(_TOKEN):
                caller = await self.find(tokens.of_token(offered.removeprefix(_TOKEN)))
            elif offered.startswith(_TICKET):
                caller = await self._from_ticket(offered.removeprefix(_TICKET))
            else:
                continue
            break
        else:
            caller, _ = await self._from_headers(scope)
        if caller is None:
            raise Unauthorized
        if not caller.has_one_of(frozenset({READ})):
            raise Forbidden(f"this needs a token with the scope {READ}")
        self._audit.used(caller)
        scope[KEY] = caller

    async def find(self, credential: str) -> Caller | None:
        """Who has `credential`, as of two seconds ago at the most.

        Raises:
            StoreUnavailable: nobody knows.
        """
        kept = self._kept.get(credential)
        if kept is not None and self._loop.time() < kept[1]:
            return kept[0]
        # Of many requests that come with the same one asks.
        asked = self._asked.get(credential)
        if asked is None:
            asked = self._asked[credential] = self._loop.create_task(self._ask(credential))
        return await asyncio.shield(asked)

    async def _ask(self, credential: str) -> Caller | None:
        until = self._loop.time() + KEPT_S  # from before the look: what is revoked behind it counts from there
        try:
            caller = await self._reader.call(lambda _: tokens.find(credential))
        finally:
            if self._asked.get(credential) is asyncio.current_task():
                del self._asked[credential]
                fresh = True
            else:
                fresh = False  # something has changed meanwhile
        if fresh:
            self._kept[credential] = caller, until
            self._kept.move_to_end(credential)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return caller

    # --- sockets

    def watch(self, credential: str, on_gone: Callable[[], None]) -> None:
        """Calls `on_gone` when `credential` lets nobody in any more, until `unwatch`."""
        self._watched.setdefault(credential, []).append(on_gone)
        if self._look is None:
            self._look = self._loop.create_task(self._look_at_watched())

    def unwatch(self, credential: str, on_gone: Callable[[], None]) -> None:
        watching = self._watched.get(credential, [])
        if on_gone in watching:
            watching.remove(on_gone)
        if not watching:
            self._watched.pop(credential, None)

    async def close(self) -> None:
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])

    async def _look_at_watched(self) -> None:
        """Asks, as long as sockets are open, whether they may stay."""
        while self._watched:
            try:
                async with asyncio.timeout(KEPT_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            for credential in list(self._watched):
                self._kept.pop(credential, None)  # or what is kept would be kept twice as long
                try:
                    caller = await self.find(credential)
                except StoreUnavailable:
                    break  # pages go stale by themselves
                if caller is None or not caller.has_one_of(frozenset({READ})):
                    for on_gone in self._watched.pop(credential, []):
                        on_gone()
        self._look = None

    # --- what requests come with

    def _told(self, message: bytes) -> None:
        del message
        self._kept.clear()
        self._asked.clear()
        self._changed.set()

    async def _from_ticket(self, ticket: str) -> Caller | None:
        credential = await self._reader.call(lambda _: tokens.redeem(ticket))
        return await self.find(credential) if credential else None

    async def _from_headers(self, scope: Scope) -> tuple[Caller | None, bool]:
        """Whoever is let in, and whether a session did. A header goes before a cookie, and is not mended by one."""
        header: bytes | None = None
        cookie = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                if header is not None:
                    return None, False
                header = value
            elif name == b"cookie":
                cookie = value
        if header is not None:
            kind, _, secret = header.partition(b" ")
            if kind.lower() != b"bearer":
                return None, False
            return await self.find(tokens.of_token(secret.strip().decode("latin1"))), False
        if not cookie:
            return None, False
        key = parse_cookie(cookie.decode("latin1")).get(settings.SESSION_COOKIE_NAME, "")
        return (await self.find(tokens.of_session(key)) if key else None), True


class _Csrf(CsrfViewMiddleware):
    """Django's check, which says why instead of making a page of it."""

    def _reject(self, request: Any, reason: str) -> Any:
        return reason


def _nothing(request: Any) -> HttpResponse:
    return HttpResponse()


def _check_csrf(scope: Scope) -> None:
    """A session is a cookie, which a browser sends whoever has asked it to: so pages of ours say that it was them."""
    request = ASGIRequest(scope, BytesIO())
    check = _Csrf(_nothing)
    check.process_request(request)
    reason = check.process_view(request, _nothing, (), {})
    if reason is not None:
        raise Forbidden(f"with a session, the header X-CSRFToken has to come along: {reason}")


def _is_browser(scope: Scope) -> bool:
    """Whether a person waits for a page."""
    if scope["method"].upper() not in ("GET", "HEAD"):
        return False
    names = {name for name, _ in scope["headers"]}
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return b"text/html" in accept and b"authorization" not in names


def _full_path(scope: Scope) -> str:
    query = scope.get("query_string", b"").decode("latin1")
    path: str = scope["path"]
    return f"{path}?{query}" if query else path
