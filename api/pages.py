"""What the front page says."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import connection
from rest_framework.request import Request

from api.tally import totals
from everythingfaas import __version__

NAME = "EverythingFaaS"


def greeting() -> dict[str, Any]:
    """For programs."""
    return {
        "message": f"{NAME}: send a Python function, run it here, fetch its result",
        "version": __version__,
        "endpoints": ["/register_function", "/execute_function", "/status/{task_id}", "/result/{task_id}"],
    }


def dashboard(request: Request) -> dict[str, Any]:
    """For people: the context of ``dashboard.html``."""
    with connection.cursor() as cursor:
        counts = totals(cursor)
    return {
        "name": NAME,
        "version": __version__,
        "mode": settings.FAAS.mode,
        "url": request.build_absolute_uri("/").rstrip("/"),
        "counts": [(state.name.lower(), count) for state, count in counts.items()],
    }
