"""A sign of life for health checks: a file that a process touches for as long as it does what it is there for."""

from __future__ import annotations

import logging
import math
from pathlib import Path

log = logging.getLogger("faas.alive")

#: The file is touched at most this often. Whoever looks at it should allow for some of these.
EVERY_S = 2.0


class SignOfLife:
    """Touches a file, if there is one to touch.

    Args:
        path: the file; None: nobody looks.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next = -math.inf if path is not None else math.inf

    def give(self, now: float) -> None:
        """Says that all is well. Costs a comparison, and every two seconds a system call or two."""
        if now < self._next or self._path is None:
            return
        self._next = now + EVERY_S
        try:
            self._path.touch()
        except OSError as exc:  # whoever looks at it will see; tasks need no health check
            log.warning("%s cannot be touched: %s", self._path, exc)
