"""The ASGI application: the guard, and behind it a router before the two handlers.

    server ──▶ Guard ──▶ Router ──▶ LeanHandler    views that derive from LeanView
                            ├─────▶ PoolHandler    everything else
                            ├─────▶ LiveConsumer   the WebSocket of pages
                            └─────▶ FollowConsumer that of clients, with the results of batches

With FAAS_TLS=yes `faas_project.proxy` stands before the guard.

The URLconf is the one table of what there is, and the class of a view says which handler runs it. While tokens are on
the router asks the gate (`api.access.gate`) before it hands anything on, so no view can be forgotten.
"""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.urls import Resolver404, ResolverMatch, URLResolver, get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faas_project.settings")
django.setup()

# What follows reads the settings, and the apps, as it is imported.
from api.batches.consumer import FollowConsumer  # noqa: E402
from api.consumers import LiveConsumer  # noqa: E402
from api.lean import LeanView, Receive, Scope, Send  # noqa: E402
from api.services import services, stop_services  # noqa: E402
from everythingfaas.errors import ConfigurationError  # noqa: E402
from faas_project.guard import App, Guard  # noqa: E402
from faas_project.handlers import LeanHandler, PoolHandler  # noqa: E402
from faas_project.proxy import BehindProxy  # noqa: E402

#: Where the WebSockets are: that of pages, and that of results.
LIVE = "/live"
FOLLOW = "/api/v1/follow"


class Router:
    """Resolves the path, and hands the request to the handler that runs its view."""

    def __init__(self, lean: LeanHandler, pool: PoolHandler, *, urlconf: str | None = None) -> None:
        self._lean = lean
        self._pool = pool
        self._sockets: dict[str, App] = {LIVE: LiveConsumer.as_asgi(), FOLLOW: FollowConsumer.as_asgi()}
        self._resolver: URLResolver = get_resolver(urlconf)
        self._tokens = settings.FAAS.tokens
        self._fixed: dict[str, ResolverMatch] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                handler = self.handler_for(scope)
                if self._tokens and (gate := services().gate) is not None:
                    found = scope.get("faas.match")
                    await gate.admit(scope, found)
                    send = gate.watched(scope, found, send)
                await handler(scope, receive, send)
            case "websocket":
                if self._tokens and (gate := services().gate) is not None:
                    await gate.admit_socket(scope)
                await self.socket_for(scope)(scope, receive, send)
            case "lifespan":
                await live(receive, send)

    def handler_for(self, scope: Scope) -> App:
        """Who runs this request. What there is no view for is the pool's to answer, as for any page."""
        path = path_of(scope)
        found = self._fixed.get(path)
        if found is None:
            try:
                found = self._resolver.resolve(path)
            except Resolver404:
                return self._pool
            if not is_lean(found):
                scope["faas.match"] = found
                return self._pool
            if not found.kwargs:  # of such paths there are as many as the URLconf has lines
                self._fixed[path] = found
        scope["faas.match"] = found
        return self._lean

    def socket_for(self, scope: Scope) -> App:
        return self._sockets.get(path_of(scope), refuse_websocket)


def check_settings() -> None:
    """Raises ConfigurationError: settings of Django's that are not ours would show the insides to whoever asks."""
    if settings.DEBUG and settings.FAAS.tokens:
        raise ConfigurationError("DEBUG is on in Django's settings: expected False where tokens are on")


def path_of(scope: Scope) -> str:
    """The path below what a proxy has taken off."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    return path.removeprefix(prefix) if prefix else path


def is_lean(match: ResolverMatch) -> bool:
    view = getattr(match.func, "cls", None)
    return isinstance(view, type) and issubclass(view, LeanView)


async def refuse_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """There is none there."""
    await receive()
    await send({"type": "websocket.close", "code": 1000})


async def live(receive: Receive, send: Send) -> None:
    """For servers that say when they start and stop. Nothing depends on it: see `services`."""
    while True:
        if (await receive())["type"] == "lifespan.startup":
            services()
            await send({"type": "lifespan.startup.complete"})
        else:
            await stop_services()
            await send({"type": "lifespan.shutdown.complete"})
            return


def guarded(app: App) -> App:
    faas = settings.FAAS
    guard = Guard(
        app,
        hosts=faas.allowed_hosts,
        own_hosts=faas.own_hosts,
        max_body_bytes=faas.max_body_bytes,
        forms=("/admin/", "/login/", "/logout/"),
        packed=("/api/v1/batches",),
    )
    return BehindProxy(guard, faas.proxy_networks) if faas.tls else guard


check_settings()
_limit = settings.FAAS.max_body_bytes
application = guarded(Router(LeanHandler(max_body_bytes=_limit), PoolHandler(max_body_bytes=_limit)))
