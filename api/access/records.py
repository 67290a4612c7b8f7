"""What is written of who did what, and told of it. For threads that may wait; light, for every process imports it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from django.conf import settings
from msgspec import Struct

from api import mirror
from api.models import AuditEntry
from api.redis_commands import RedisUnavailable
from api.redis_sync import SyncLink

#: Where a request leaves what it has done, as an action and a target; no action: that is recorded already.
DONE = "faas.done"


class Entry(Struct, frozen=True):
    """Who did what, from where."""

    user: str
    by: str
    address: str
    action: str
    target: str = ""

    def fields(self) -> dict[str, str]:
        """As they are stored."""
        return {
            "user": self.user[:150].replace("\0", ""),
            "by": self.by[:128],
            "address": self.address[:64].replace("\0", ""),
            "action": self.action[:32],
            "target": self.target[:255].replace("\0", ""),
        }


def done(request: Any, action: str, target: str = "") -> None:
    """What a request does: it is recorded when that is answered with success. From any thread."""
    if (scope := getattr(request, "scope", None)) is not None:
        scope[DONE] = (action, target)


def recorded(scope: MutableMapping[str, Any]) -> None:
    """What the request does is recorded already."""
    scope[DONE] = ("", "")


def record(user: str, by: str, address: str, action: str, target: str = "") -> None:
    """For threads that may wait."""
    AuditEntry.objects.create(**Entry(user, by, address, action, target).fields())


def address_of(scope: Any) -> str:
    """Where a request came from: behind a proxy of ours what that says, see `faas_project.proxy`."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def tell_changed() -> None:
    """Tells all web processes to look again who is let in. Without Redis they find out by themselves."""
    link = SyncLink(settings.FAAS.redis_address)
    try:
        link.call([mirror.tell_access()])
    except RedisUnavailable:
        return
    finally:
        link.close()
