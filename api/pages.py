"""What pages say first. From then on they are kept true by `api.live`."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from rest_framework.request import Request

from api.access.caller import caller_of, sees_of
from api.live.topics import OVERVIEW, Memory, Parts, Sight
from api.models import LOCAL_USER
from everythingfaas import __version__
from everythingfaas.status import State

NAME = "EverythingFaaS"


def greeting() -> dict[str, Any]:
    """For programs."""
    return {
        "message": f"{NAME}: send a Python function, run it here, fetch its result",
        "version": __version__,
        "endpoints": ["/register_function", "/execute_function", "/status/{task_id}", "/result/{task_id}"],
    }


def framed(request: HttpRequest | Request, here: str, title: str, **more: Any) -> dict[str, Any]:
    """The context of a page within ``frame.html``. `view` is what its script is given."""
    return {
        "here": here,
        "title": title,
        "version": __version__,
        "mode": settings.FAAS.mode,
        "url": request.build_absolute_uri("/").rstrip("/"),
        "who": caller_of(request).name if settings.FAAS.tokens else LOCAL_USER,
        "tokens": settings.FAAS.tokens,
        **more,
    }


def look(request: HttpRequest | Request, topic: str) -> Parts:
    """What there is of a topic now, for whoever asks."""
    with connection.cursor() as cursor:
        return Sight(cursor, Memory(), time.time()).of(topic, sees_of(request))


def dashboard(request: HttpRequest | Request) -> dict[str, Any]:
    """For people: the context of ``dashboard.html``."""
    parts = look(request, OVERVIEW)
    counts: dict[str, int] = parts["counts"]
    empty = not any(counts[state.name.lower()] for state in State)
    view = {"topic": OVERVIEW, "parts": as_json(parts)}
    return framed(request, "overview", "Overview", view=view, counts=counts, empty=empty)


def as_json(parts: Parts) -> Any:
    """`parts` as plain values, as they travel."""
    return msgspec.to_builtins(parts)
