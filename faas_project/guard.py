"""What stands before every view: closed to the pages of others, to other content than JSON, and to too much of it.

Where no token is asked for, any page that somebody has open in a browser could talk to a service on loopback. It
gets through here only if

- it asked for a host by a name of ours: a page whose own name was rebound to 127.0.0.1 did not;
- it says that it comes from one of our own pages, or says nothing, as clients that are no browsers do;
- it sends JSON, which a page of somebody else's cannot without asking first, and no answer here ever permits it.

Plain ASGI around the whole application, so that no handler and no view can forget it. What a handler lets
escape is answered here as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from django.http.request import split_domain_port, validate_host

from api.errors import JSON, MSGPACK, ApiError, Forbidden, InvalidRequest, NotJson, TooLarge, answer_to
from api.lean import Message, Receive, Scope, Send

App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Names that this machine always has for itself.
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Guard:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: App,
        *,
        hosts: Iterable[str],
        max_body_bytes: int,
        own_hosts: Iterable[str] = (),
        forms: tuple[str, ...] = (),
        packed: tuple[str, ...] = (),
    ) -> None:
        """`hosts` are the names that were given to us, on any port; `own_hosts` this machine's beside those of
        loopback, of whose other ports others may have pages. Below the paths `forms`, which must have protection
        of their own, bodies may be of any type; below `packed` msgpack as well, which a page of somebody else's cannot
        send without asking first either."""
        self._app = app
        self._named = [host.lower() for host in hosts]
        self._hosts = [*LOOPBACK, *(host.lower() for host in own_hosts), *self._named]
        self._max_body_bytes = max_body_bytes
        self._forms = forms
        self._packed = packed
        self._known: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, watched_send)
        except Exception as exc:  # noqa: BLE001  # `answer_to` logs what nobody expected
            error = answer_to(exc)
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1011 if started else 1008})
            elif started:
                await send({"type": "http.response.body", "body": b""})  # all that is left is to end it
            else:
                await answer(send, error)

    def _check(self, scope: Scope) -> None:
        host = origin = content_type = b""
        length = 0
        has_body = False
        for name, value in scope["headers"]:
            if name == b"host":
                if host:
                    raise InvalidRequest("more than one Host header")
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"content-type":
                content_type = value
            elif name == b"content-length":
                if not value.isdigit():
                    raise InvalidRequest("Content-Length is not a number")
                length = int(value[:20])
                has_body = length > 0
            elif name == b"transfer-encoding":
                has_body = True
        if host not in self._known:
            self._check_host(host)
        if origin:
            self._check_origin(origin.decode("latin1"), host.decode("latin1"))
        if length > self._max_body_bytes:
            raise TooLarge(self._max_body_bytes)
        if (
            scope["type"] == "http"
            and scope["method"].upper() in _WITH_BODY  # Django takes "post" for "POST"
            and (content_type or has_body)
            and content_type != b"application/json"
        ):
            self._check_type(scope, content_type.decode("latin1"))

    def _check_host(self, host: bytes) -> None:
        name, _ = split_domain_port(host.decode("latin1"))
        if not validate_host(name, self._hosts):
            raise Forbidden("the Host of this request is no name of this service; FAAS_ALLOWED_HOSTS adds names")
        if len(self._known) > 1_000:  # names are few, but ports may follow them
            self._known.clear()
        self._known.add(host)

    def _check_origin(self, origin: str, host: str) -> None:
        """An origin of ours has a name that was given to us, or one of this machine's and the port that was asked."""
        scheme, _, authority = origin.partition("://")
        name, port = split_domain_port(authority)
        if scheme not in ("http", "https") or not (
            validate_host(name, self._named)
            or (validate_host(name, self._hosts) and port == split_domain_port(host)[1])
        ):
            raise Forbidden("the Origin of this request is a page of somebody else's")

    def _check_type(self, scope: Scope, content_type: str) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        kind = content_type.partition(";")[0].strip().lower()
        if kind != JSON and not path.startswith(self._forms) and (kind != MSGPACK or not path.startswith(self._packed)):
            raise NotJson(f"send {JSON}")


async def answer(send: Send, error: ApiError) -> None:
    """Sends `error` as the whole response."""
    for message in messages_of(error):
        await send(message)


def messages_of(error: ApiError) -> tuple[Message, Message]:
    body = error.body()
    headers = {"Content-Type": JSON, "Content-Length": str(len(body)), **error.headers}
    raw = [(name.encode("ascii"), value.encode("latin1")) for name, value in headers.items()]
    return (
        {"type": "http.response.start", "status": error.status, "headers": raw},
        {"type": "http.response.body", "body": body},
    )
