"""Other dispatchers on the same database: which of them are dead."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.store import LEASE_S

#: Another dispatcher is dead when its lease is seen to be out for so long: its workers come to us in that time.
TAKE_OVER_S = 5.0


class Neighbours:
    """Whose lease is out, and since when we see that.

    A lease that is out says that its dispatcher is dead only where it could have been renewed. After a time in which
    this process did not run, or did not reach the store, the others may have fared the same: they get as long as a
    lease lasts before anything is taken from them.
    """

    def __init__(self, *, now: float) -> None:
        self._lapsed: dict[str, float] = {}
        self._trusts_at = now + LEASE_S

    def trusts(self, now: float) -> bool:
        """Whether a lease that is out says anything."""
        return now >= self._trusts_at

    def doubt(self, now: float) -> None:
        """This process has not run, or not reached the store."""
        self._lapsed.clear()
        self._trusts_at = max(self._trusts_at, now + LEASE_S)

    def dead(self, lapsed: Iterable[str], now: float) -> list[str]:
        """Those of `lapsed`, whose leases are out now, that must be dead."""
        self._lapsed = {dispatcher: self._lapsed.get(dispatcher, now) for dispatcher in lapsed}
        if not self.trusts(now):
            return []
        return [dispatcher for dispatcher, since in self._lapsed.items() if now >= since + TAKE_OVER_S]
