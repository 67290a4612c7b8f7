"""Views that are asked hundreds of times a second: coroutines that never block, run where the request came in.

They are views of Django REST framework, and stand in the one URLconf with the others, but its dispatch is passed by:
no negotiation, no authentication, no permissions. What it would check for them, they must check themselves.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from rest_framework.views import APIView

from api.codec import encode
from api.errors import JSON, MethodNotAllowed

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


_HANDLERS = {"GET": "get", "HEAD": "get", "POST": "post"}


class LeanRequest(ASGIRequest):
    """A request whose body is here already, and that can tell when its client has gone."""

    scope: Scope  #: which views may write to

    def __init__(self, scope: Scope, body: bytes, receive: Receive) -> None:
        super().__init__(scope, io.BytesIO(body))
        self._body = body
        self._receive = receive

    async def gone(self) -> None:
        """Returns when the client has closed the connection. For views that wait."""
        while (await self._receive())["type"] != "http.disconnect":
            continue


class LeanView(APIView):
    """A view for `faas_project.handlers.LeanHandler`, which runs whatever derives from this."""

    http_method_names = ["get", "head", "post"]  # noqa: RUF012  # as the base class has it

    async def dispatch(self, request: LeanRequest, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        """Called on a new view: there is no `setup` before it, for all that there is to know is passed on."""
        handler = getattr(self, _HANDLERS.get(request.method or "", ""), None)
        if handler is None:
            raise MethodNotAllowed(request.method or "", self.allowed_methods)
        response: HttpResponse = await handler(request, *args, **kwargs)
        return response


def answer(status: int, content: Any) -> HttpResponse:
    return HttpResponse(encode(content), content_type=JSON, status=status)
