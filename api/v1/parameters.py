"""What stands behind the question mark. Whatever cannot be read is the client's mistake, and said to be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.http import QueryDict
from django.utils.dateparse import parse_datetime

from api.errors import InvalidRequest
from api.v1.queries import Page, Wanted
from everythingfaas.status import State

PAGE = 50
MAX_PAGE = 200
#: Numbers of more digits are no 64-bit numbers, and so of no row.
_MAX_DIGITS = 18


def page(query: QueryDict, before: Callable[[QueryDict, str], Any] | None = None) -> Page:
    """``limit=…&before=…``. `before` reads the latter, where ids are no UUIDs."""
    text = query.get("limit", str(PAGE))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_PAGE):
        raise InvalidRequest(f"limit must be a number from 1 to {MAX_PAGE}", field="limit")
    return Page(int(text), (before or _uuid)(query, "before"))


def number(query: QueryDict, name: str) -> int | None:
    """The number `name`, if it is there."""
    text = query.get(name)
    found = None if text is None else integer(text)
    if text is not None and found is None:
        raise InvalidRequest(f"{name} must be a number", field=name)
    return found


def integer(text: str) -> int | None:
    """The number of a row in `text`; None: it is the number of none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def wanted(query: QueryDict) -> Wanted:
    """``state=RUNNING,QUEUED&function=…&since=…``"""
    return Wanted(_states(query), _uuid(query, "function"), _since(query))


def _states(query: QueryDict) -> list[State]:
    names = [name for text in query.getlist("state") for name in text.split(",")]
    unknown = [name for name in names if name not in State.__members__]
    if unknown:
        known = ", ".join(State.__members__)
        raise InvalidRequest(f"there is no state {unknown[0][:64]!r}; the states are {known}", field="state")
    return [State[name] for name in names]


def _uuid(query: QueryDict, name: str) -> UUID | None:
    text = query.get(name)
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise InvalidRequest(f"{name} must be an id", field=name) from None


def _since(query: QueryDict) -> datetime | None:
    text = query.get("since")
    if text is None:
        return None
    try:
        # A plus in a query that nobody has escaped arrives as a blank.
        moment = parse_datetime(text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text)
        moment = moment or datetime.fromtimestamp(float(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            "since must be a time as 2026-01-31T12:00:00Z, or seconds since 1970", field="since"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
