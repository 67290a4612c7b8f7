"""What requests say beside their bodies, read alike by all calls."""

from __future__ import annotations

import math

from django.http import HttpRequest

from api.errors import InvalidRequest

MAX_KEY_CHARS = 200


def idempotency_key(request: HttpRequest) -> str | None:
    """What the client calls this request, if it wants to be able to send it twice."""
    key: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidRequest(f"Idempotency-Key must have 1 to {MAX_KEY_CHARS} characters", field="Idempotency-Key")
    return key


def wait_s(request: HttpRequest) -> float:
    """``?wait=30``: how long the client would wait for an end."""
    if not request.META["QUERY_STRING"]:
        return 0.0
    text = request.GET.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise InvalidRequest("wait must be a number of seconds, 0 or more", field="wait")
    return seconds
