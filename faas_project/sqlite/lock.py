"""The write lock that the processes of one SQLite database share."""

from __future__ import annotations

import fcntl
import os
import threading
from typing import ClassVar

from django.db import OperationalError


class WriteLock:
    """An advisory lock on `<database>.lock`, held by one connection at a time, in whichever process.

    SQLite lets writers that find it locked sleep and try again, so whoever has just committed comes first
    again and again: of two processes that write without a pause, one commits thousands of times and the
    other waits for seconds. The kernel wakes those who wait for a file lock at once, but the one that has let
    go may still be faster than the one that wakes up. So there is a turnstile before the lock,
    `<database>.turn`: whoever waits for the lock stands in it, and whoever comes back has to queue behind.

    The kernel drops both when a process dies. Each connection has descriptors, and so locks, of its own:
    threads of one process exclude each other as processes do. The files must not be removed while anybody
    may have them open, so nobody removes them.
    """

    #: Which thread holds the lock of which database in this process.
    _holders: ClassVar[dict[str, int]] = {}

    def __init__(self, database: str) -> None:
        self._database = database
        self._lock: int | None = None
        self._turn: int | None = None
        self.held = False

    def acquire(self) -> None:
        """Wait for the lock, for however long the others take.

        Raises:
            OperationalError: this thread holds it already through another connection, and would wait for
                ever; or the files cannot be opened.
        """
        if self._holders.get(self._database) == threading.get_ident():
            raise OperationalError("this thread already writes to this database through another connection")
        lock, turn = self._files()
        fcntl.flock(turn, fcntl.LOCK_EX)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            fcntl.flock(turn, fcntl.LOCK_UN)
        self.held = True
        self._holders[self._database] = threading.get_ident()

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        if self.held and self._lock is not None:
            self.held = False
            del self._holders[self._database]
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        self.release()
        for file in (self._lock, self._turn):
            if file is not None:
                os.close(file)
        self._lock = self._turn = None

    def _files(self) -> tuple[int, int]:
        if self._lock is None or self._turn is None:
            try:
                self._lock = os.open(f"{self._database}.lock", os.O_RDWR | os.O_CREAT, 0o666)
                self._turn = os.open(f"{self._database}.turn", os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise OperationalError(f"cannot open the lock beside the database: {error}") from error
        return self._lock, self._turn
