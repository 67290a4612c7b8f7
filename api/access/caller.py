"""Who calls, and what a view needs of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

from django.conf import settings
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.urls import ResolverMatch
from msgspec import Struct

from api.errors import Unauthorized
from api.models import LOCAL_USER

READ, SUBMIT, WORKER, ADMIN = SCOPES = ("read", "submit", "worker", "admin")
#: Members of a group whose name begins so see each other's objects, and may do with them what their scopes allow.
SHARED = "shared:"
#: Where the gate leaves the caller.
KEY = "faas.caller"

#: Whose objects somebody sees; None: everybody's.
Sees: TypeAlias = frozenset[int] | None

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Limits(Struct, frozen=True):
    """What a user may use; None: as much as they like."""

    queued: int | None = None
    stored_bytes: int | None = None
    requests_per_s: float | None = None


class Caller(Struct, frozen=True):
    """Whoever sent a request."""

    user: int
    name: str
    scopes: frozenset[str]
    sees: Sees
    #: By which they are known: what is revoked ends with it. Empty: no token is asked for.
    credential: str = ""
    #: The token's number; None: a session.
    token: int | None = None
    #: How the audit log names the credential.
    by: str = ""
    limits: Limits = Limits()

    #: As Django REST framework and templates want to know it.
    is_authenticated: ClassVar[bool] = True

    def may_see(self, owner: int) -> bool:
        return self.sees is None or owner in self.sees

    def has_one_of(self, needed: frozenset[str]) -> bool:
        return ADMIN in self.scopes or not needed.isdisjoint(self.scopes)


def public(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view that asks nobody who they are."""

    @functools.wraps(view)
    def shown(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    shown.needs = {}  # type: ignore[attr-defined]  # read by `needed`
    return shown


def needed(match: ResolverMatch, method: str) -> frozenset[str] | None:
    """The scopes one of which a request needs; None: it is for everybody.

    A view says so in `needs`, by method. Where it says nothing, looking needs `read` and anything else `submit`; an
    empty table says that it is public. So a new view is closed until it says otherwise.
    """
    return _needed(match.func, method)


@functools.lru_cache(1_000)  # as many as there are views and methods; what is sent as a method may be anything
def _needed(func: Callable[..., Any], method: str) -> frozenset[str] | None:
    view = getattr(func, "cls", func)
    table: Mapping[str, Iterable[str]] | None = getattr(view, "needs", None)
    if table is not None and not table:
        return None
    method = "GET" if method == "HEAD" else method
    if table is not None and method in table:
        return frozenset(table[method])
    return frozenset({READ if method in _SAFE else SUBMIT})


@functools.cache
def local_owner() -> int:
    """Whose everything is while no tokens are asked for."""
    return get_user_model().objects.values_list("pk", flat=True).get(username=LOCAL_USER)


def everybody(user: int) -> Caller:
    """Who calls while no tokens are asked for: the user `local`."""
    return Caller(user=user, name=LOCAL_USER, scopes=frozenset(SCOPES), sees=frozenset({user}))


def caller_of(request: HttpRequest | Any) -> Caller:
    """Who sent `request`. For views on a thread.

    Raises:
        Unauthorized: tokens are on, and nobody has looked for one.
    """
    caller: Caller | None = getattr(request, "scope", {}).get(KEY)
    if caller is not None:
        return caller
    if settings.FAAS.tokens:
        raise Unauthorized
    return everybody(local_owner())


def sees_of(request: HttpRequest | Any) -> Sees:
    """Whose objects a page shows: with tokens off all that there are, and that without asking."""
    return caller_of(request).sees if settings.FAAS.tokens else None
