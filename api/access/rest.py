"""Who calls, said to Django REST framework. The gate has looked already; this holds where somebody forgets the gate."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from api.access.caller import Caller, caller_of, needed


class ByCaller(BaseAuthentication):
    """The caller is both the user and the credential."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        match = request.resolver_match
        if match is not None and needed(match, request.method or "") is None:
            return None
        caller = caller_of(request._request)  # noqa: SLF001  # where the scope is
        return caller, caller

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class MayCall(BasePermission):
    """The caller has a scope that the view needs."""

    message = "this needs a token of another scope"

    def has_permission(self, request: Request, view: Any) -> bool:
        if not settings.FAAS.tokens or request.resolver_match is None:
            return True
        needs = needed(request.resolver_match, request.method or "")
        return needs is None or (isinstance(request.auth, Caller) and request.auth.has_one_of(needs))
