"""What follows when users, tokens and quotas change, wherever that is: web processes are told, and it is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from api.access.caller import Caller
from api.access.records import Entry, address_of, record, recorded, tell_changed
from api.models import AuditEntry, Quota, Token

_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)

_VERBS = {1: "add", 2: "change", 3: "delete"}


def remember_request(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: what is recorded while a request is answered came from where that came from."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        token = _request.set(request)
        try:
            return get_response(request)
        finally:
            _request.reset(token)

    return middleware


def record_all(user: str, action: str, targets: Iterable[object]) -> None:
    """An entry for each of `targets`, of what somebody who is logged in has just done."""
    entries = [Entry(user, "session", _noted(), action, str(target)) for target in targets]
    AuditEntry.objects.bulk_create(AuditEntry(**entry.fields()) for entry in entries)


def record_of(caller: Caller, request: Any, action: str, target: str) -> None:
    """What `caller` has just done, which is not answered before it is written."""
    record(caller.name, caller.by, _noted(request), action, target)


def connect() -> None:
    """Called once, when the apps are ready."""
    users = get_user_model()
    for model in (Token, Quota, users):
        post_save.connect(_changed, sender=model)
        post_delete.connect(_changed, sender=model)
    post_delete.connect(_changed, sender=Session)
    m2m_changed.connect(_changed, sender=users.groups.through)
    post_save.connect(_in_the_admin, sender=LogEntry)
    user_logged_in.connect(_logged_in)
    user_logged_out.connect(_logged_out)
    user_login_failed.connect(_login_failed)


def here(request: HttpRequest | None = None) -> str:
    """The address that the present request came from."""
    request = request or _request.get()
    scope = getattr(request, "scope", None)
    return "" if scope is None else address_of(scope)


def _noted(request: Any = None) -> str:
    """The same, and that request is recorded."""
    request = request or _request.get()
    scope = getattr(request, "scope", None)
    if scope is None:
        return ""
    recorded(scope)
    return address_of(scope)


def _changed(sender: Any, **_: Any) -> None:
    transaction.on_commit(tell_changed)


def _in_the_admin(sender: Any, instance: LogEntry, **_: Any) -> None:
    action = f"admin-{_VERBS.get(instance.action_flag, 'act')}"
    model = instance.content_type.model if instance.content_type else ""
    record(instance.user.get_username(), "session", _noted(), action, f"{model} {instance.object_repr}")


def _logged_in(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    record(user.get_username(), "session", _noted(request), "login")


def _logged_out(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    if user is not None:
        record(user.get_username(), "session", _noted(request), "logout")


def _login_failed(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    record(str(credentials.get("username", "")), "", _noted(request), "login-failed")
