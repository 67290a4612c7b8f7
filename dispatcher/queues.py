"""The queues, as far as this dispatcher has read them, and which of them its workers match."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.backends.utils import CursorWrapper

from api import moves
from everythingfaas.pythons import Minor, matches


class Queues:
    """Queues are made when functions are registered, and never change."""

    def __init__(self) -> None:
        self._requirements: dict[int, str] = {}
        self._matching: dict[frozenset[Minor], list[int]] = {}

    def read(self, cursor: CursorWrapper) -> bool:
        """Reads them again. True if there are others than before."""
        found = moves.queues(cursor)
        if found == self._requirements:
            return False
        self._requirements = found
        self._matching.clear()
        return True

    def requirements(self, cursor: CursorWrapper, queue: int) -> str:
        """Those of `queue`, which somebody else may have found first."""
        if queue not in self._requirements:
            self.read(cursor)
        return self._requirements[queue]

    def named(self, requirements: str) -> int | None:
        """The queue with these requirements."""
        return next((queue for queue, text in self._requirements.items() if text == requirements), None)

    def matched(self, pythons: Iterable[Minor]) -> list[int]:
        """The queues that a worker of any of these versions may serve."""
        key = frozenset(pythons)
        if key not in self._matching:
            self._matching[key] = [queue for queue in sorted(self._requirements) if self.able(queue, key)]
        return self._matching[key]

    def unmatched(self, pythons: Iterable[Minor]) -> list[int]:
        """The others."""
        matched = self.matched(pythons)
        return [queue for queue in sorted(self._requirements) if queue not in matched]

    def able(self, queue: int, pythons: Iterable[Minor]) -> frozenset[Minor]:
        """Which of these versions may serve `queue`."""
        return frozenset(python for python in pythons if matches(self._requirements[queue], python))
