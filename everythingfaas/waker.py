"""Waking a loop that waits in a poller."""

from __future__ import annotations

import contextlib
import os
import weakref


class Waker:
    """Wakes a poller from another thread, or from a signal handler."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Closed with the last who could still wake, and not before: the number may be another file's by then.
        weakref.finalize(self, os.close, self._fd)

    def fileno(self) -> int:
        return self._fd

    def wake(self) -> None:
        os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
