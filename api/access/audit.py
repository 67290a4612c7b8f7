"""The record of who did what, from where: one row for each thing, but for submits, which are counted.

On the event loop nothing waits for it: rows go to a thread, a few together. What a request of a page or the admin does
is written by its own thread. Whatever changes something and says nothing of it is written all the same, by the name of
its path: so no view can be forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone
from msgspec import Struct

from api.access.caller import Caller
from api.access.records import DONE, Entry, address_of, recorded
from api.errors import TooMany
from api.group import Group, Waiting
from api.models import AuditEntry, Token
from everythingfaas.errors import StoreUnavailable

log = logging.getLogger("api.audit")

#: What is counted is written so many seconds apart.
EVERY_S = 5.0
#: When a token was last used is written when it was written so many seconds ago.
USED_EVERY_S = 60.0


class _Count(Struct):
    entry: Entry
    number: int = 0


class _Batch(Struct, frozen=True):
    entries: list[tuple[Entry, int]]
    used: list[int]


class Audit(Group[_Batch, None]):
    """What happens on the event loop of a web process. With tokens off nothing is recorded."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__("audit", loop)
        self._counts: dict[tuple[str, str, str], _Count] = {}
        self._used: set[int] = set()
        self._used_at: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, caller: Caller, scope: MutableMapping[str, Any], action: str, target: str = "") -> None:
        """Somebody has done something."""
        recorded(scope)
        if caller.credential:
            self._write(_Batch([(Entry(caller.name, caller.by, address_of(scope), action, target), 1)], []))

    def answered(self, caller: Caller, scope: MutableMapping[str, Any], otherwise: str) -> None:
        """A request that changes something was answered with success. `otherwise`: what it is called if it did not
        say so."""
        action, target = scope.get(DONE, (otherwise, scope["path"]))
        if action:
            self.note(caller, scope, action, target)

    def count(self, caller: Caller, scope: MutableMapping[str, Any], action: str, number: int = 1) -> None:
        """Somebody has done what is done too often for a row each, so many times."""
        recorded(scope)
        if caller.credential:
            address = address_of(scope)
            key = (caller.credential, address, action)
            count = self._counts.get(key)
            if count is None:
                count = self._counts[key] = _Count(Entry(caller.name, caller.by, address, action))
                self._later()
            count.number += number

    def used(self, caller: Caller) -> None:
        """A token has let somebody in."""
        if caller.token is not None:
            now = self._loop.time()
            if now >= self._used_at.get(caller.token, 0.0):
                self._used_at[caller.token] = now + USED_EVERY_S
                self._used.add(caller.token)
                self._later()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        await super().close()

    def _later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(EVERY_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        counts, self._counts = self._counts, {}
        used, self._used = self._used, set()
        self._write(_Batch([(count.entry, count.number) for count in counts.values()], sorted(used)))

    def _write(self, batch: _Batch) -> None:
        try:
            self.ask(batch).add_done_callback(lambda done: _complain(batch, done.exception()))
        except (StoreUnavailable, TooMany) as exc:
            _complain(batch, exc)

    def _work(self, taken: list[Waiting[_Batch, None]]) -> Sequence[None]:
        with transaction.atomic():
            taken.extend(self.take())
            now = timezone.now()
            AuditEntry.objects.bulk_create(
                AuditEntry(at=now, count=n, **entry.fields()) for waiting in taken for entry, n in waiting.item.entries
            )
            if used := {token for waiting in taken for token in waiting.item.used}:
                Token.objects.filter(pk__in=used).update(last_used=now)
        return [None] * len(taken)


def _complain(batch: _Batch, exc: BaseException | None) -> None:
    """What cannot be written is at least in the log."""
    if exc is not None:
        log.warning("not recorded (%s): %s", exc, batch.entries)
