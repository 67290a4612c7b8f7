"""Making, finding and revoking what lets somebody in. For threads that may wait."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple

from django.contrib.auth import get_user, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError, transaction
from django.utils import timezone

from api.access.caller import ADMIN, READ, SCOPES, SHARED, SUBMIT, Caller, Limits, Sees
from api.models import Instance, Ticket, Token
from everythingfaas.errors import FaasError

#: What every token begins with, so that people and scanners of secrets know it when they see it.
BEGINNING = "faas_"
#: Of a token, so many characters are stored and shown.
PREFIX_CHARS = len(BEGINNING) + 6
#: A ticket that is not used within so many seconds opens nothing.
TICKET_S = 30
#: Nothing that expires does so later.
MAX_DAYS = 36_500
#: Who makes tokens over the API may have so many.
OF_A_USER = 1_000
#: Kinds of credentials: their first letters.
_TOKEN, _SESSION = "t:", "s:"
#: Who is made at the first start with tokens on.
FIRST_ADMINISTRATOR = "admin"


class NoSuchToken(FaasError):
    """There is no token of that name that is let in."""


class NotPossible(FaasError):
    """A token cannot be made so. `field` is what stands in the way."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def digest(secret: str) -> str:
    """How a secret is stored."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def of_token(secret: str) -> str:
    """The credential that is a token."""
    return _TOKEN + digest(secret)


def of_session(key: str) -> str:
    """The credential that is a session."""
    return _SESSION + key[:64]


def create(
    name: str,
    user: Any,
    scopes: Sequence[str],
    expires_days: float | None = None,
    *,
    not_after: datetime | None = None,
    at_most: int | None = None,
) -> tuple[Token, str]:
    """Makes a token for `user`. Returns it with its secret, which nobody can find out later.

    Args:
        not_after: it must expire by then, and does if nothing else is said.
        at_most: the user may have so many that are let in.

    Raises:
        NotPossible: the name is taken, there is no such scope, or the user is no administrator and it is for one.
    """
    if unknown := set(scopes) - set(SCOPES):
        raise NotPossible(f"there is no scope {min(unknown)!r}; the scopes are {', '.join(SCOPES)}", "scopes")
    if ADMIN in scopes and not user.is_superuser:
        raise NotPossible(
            f"{user.get_username()} is no administrator, and the scope admin is for those alone", "scopes"
        )
    if not name.strip() or not scopes:
        raise NotPossible("a token needs a name and a scope", "name" if scopes else "scopes")
    expires_at = _expiry(expires_days, not_after)
    secret = BEGINNING + secrets.token_urlsafe(32)
    try:
        with transaction.atomic():
            if at_most is not None and _live(user) >= at_most:
                raise NotPossible(f"{user.get_username()} has {at_most} tokens, the most there may be: revoke some")
            token = Token.objects.create(
                name=name[:100],
                user=user,
                sha256=digest(secret),
                prefix=secret[:PREFIX_CHARS],
                scopes=" ".join(scope for scope in SCOPES if scope in scopes),
                expires_at=expires_at,
            )
    except IntegrityError:
        raise NotPossible(
            f"{user.get_username()} has a token {name!r} already: revoke it, or choose another name", "name"
        ) from None
    return token, secret


def _live(user: Any) -> int:
    return Token.objects.filter(user=user, revoked_at=None).count()


def _expiry(days: float | None, not_after: datetime | None) -> datetime | None:
    if days is None:
        return not_after
    if not 0 <= days <= MAX_DAYS:
        raise NotPossible(f"a token expires within {MAX_DAYS} days, or never", "expires_days")
    expires_at = timezone.now() + timedelta(days=days)
    if not_after is not None and expires_at > not_after:
        raise NotPossible(
            f"what you came with expires at {not_after:%Y-%m-%d %H:%M} UTC, and what it makes no later", "expires_days"
        )
    return expires_at


def end_of(caller: Caller) -> datetime | None:
    """When the token that somebody came with expires; None: never, or it is a session."""
    if caller.token is None:
        return None
    return Token.objects.values_list("expires_at", flat=True).get(pk=caller.token)


def revoke(name: str, user: str = "") -> Token:
    """Lets nobody in with that token any more: at once where there is Redis, else within two seconds.

    Args:
        user: whose it is, where several have one of that name.

    Raises:
        NoSuchToken: there is none, it was revoked before, or there are several.
    """
    rows = Token.objects.filter(name=name, revoked_at=None).select_related("user")
    found = list(rows.filter(user__username=user) if user else rows)
    if not found:
        raise NoSuchToken(f"there is no token {name!r} that could be revoked")
    if len(found) > 1:
        users = ", ".join(sorted(token.user.get_username() for token in found))
        raise NoSuchToken(f"there are tokens {name!r} of {users}: say whose, with --user")
    revoke_one(found[0])
    return found[0]


def revoke_one(token: Token) -> None:
    """The same for a token that was found."""
    token.revoked_at = timezone.now()
    token.save(update_fields=["revoked_at"])


class First(NamedTuple):
    """What the first administrator comes in by."""

    name: str
    password: str
    token: str


def first_administrator() -> First | None:
    """Makes the first administrator, and returns what can be shown only now; None if there is one already."""
    users = get_user_model()
    with transaction.atomic():
        Instance.objects.select_for_update().get()  # of processes that start together one makes it
        if users.objects.filter(is_superuser=True).exists():
            return None
        password = secrets.token_urlsafe(18)
        name = FIRST_ADMINISTRATOR
        if users.objects.filter(username=name).exists():  # who is so called need not be one
            name = f"{name}-{secrets.token_hex(3)}"
        user = users.objects.create_superuser(name, password=password)
        _, secret = create(f"first-{name}", user, SCOPES)
    return First(name, password, secret)


def ticket_for(credential: str) -> str:
    """What opens one WebSocket for whoever has `credential`."""
    secret = secrets.token_urlsafe(32)
    now = timezone.now()
    Ticket.objects.filter(expires_at__lt=now).delete()
    expires_at = now + timedelta(seconds=TICKET_S)
    Ticket.objects.create(sha256=digest(secret), credential=credential, expires_at=expires_at)
    return secret


def redeem(ticket: str) -> str | None:
    """The credential that `ticket` stands for. It is used up: of several who try, one gets it."""
    found = Ticket.objects.filter(sha256=digest(ticket)).first()
    if found is None or not Ticket.objects.filter(sha256=found.sha256).delete()[0]:
        return None
    return found.credential if _is_later(found.expires_at) else None


def find(credential: str) -> Caller | None:
    """Who has `credential`; None: nobody is let in with it, or not any more."""
    secret = credential[len(_TOKEN) :]
    return _by_token(secret) if credential.startswith(_TOKEN) else _by_session(secret)


def _by_token(sha256: str) -> Caller | None:
    token = Token.objects.select_related("user").filter(sha256=sha256, revoked_at=None).first()
    if token is None or not token.user.is_active or not (token.expires_at is None or _is_later(token.expires_at)):
        return None
    scopes = frozenset(token.scopes.split())
    if ADMIN in scopes and not token.user.is_superuser:  # not any more
        scopes -= {ADMIN}
    return _caller(token.user, scopes, _TOKEN + sha256, token=token.pk, by=str(token))


def _by_session(key: str) -> Caller | None:
    session = SessionStore(session_key=key)
    user = get_user(SimpleNamespace(session=session))  # type: ignore[arg-type]  # it looks at nothing else
    if not user.is_active or user.pk is None:
        return None
    scopes = frozenset(SCOPES if user.is_superuser else (READ, SUBMIT))
    return _caller(user, scopes, _SESSION + key, token=None, by="session")


def _caller(user: Any, scopes: frozenset[str], credential: str, *, token: int | None, by: str) -> Caller:
    sees: Sees = None
    if not (user.is_superuser and ADMIN in scopes):
        sees = frozenset({user.pk, *_companions(user)})
    return Caller(
        user=user.pk,
        name=user.get_username(),
        scopes=scopes,
        sees=sees,
        credential=credential,
        token=token,
        by=by,
        limits=_limits(user),
    )


def _companions(user: Any) -> list[int]:
    """The members of the groups that `user` shares everything with."""
    groups = list(user.groups.filter(name__startswith=SHARED).values_list("pk", flat=True))
    if not groups:
        return []
    return list(get_user_model().objects.filter(groups__in=groups).values_list("pk", flat=True).distinct())


def _limits(user: Any) -> Limits:
    try:
        quota = user.faas_quota
    except ObjectDoesNotExist:
        return Limits()
    return Limits(quota.queued_tasks, quota.stored_bytes, quota.requests_per_s)


def _is_later(moment: datetime) -> bool:
    return moment > timezone.now()
