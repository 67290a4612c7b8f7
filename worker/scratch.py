"""The folder below which the slots of one worker keep their temporary files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
import threading
from collections.abc import Iterator

from everythingfaas.slot.scratch import remove_tree

PREFIX = "faas-slots-"


class Scratch:
    """A fresh folder, which lasts until it is closed. One whose owner was killed is removed by the next worker that
    starts on this machine: who holds the lock on it is alive.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix=PREFIX)
        try:
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError:
            remove_tree(self.path)
            raise
        # Whoever was killed may have left much, and nobody has to wait for that.
        threading.Thread(target=_remove_ownerless, args=(os.path.dirname(self.path),), daemon=True).start()

    def clear(self) -> None:
        """Removes what the slots have left there, when all of them are gone."""
        with contextlib.suppress(OSError):
            for entry in os.listdir(self.path):
                remove_tree(os.path.join(self.path, entry))

    def close(self) -> None:
        remove_tree(self.path)
        os.close(self._lock)


def _remove_ownerless(parent: str) -> None:
    for path in _folders_of_ours(parent):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(path)
            finally:
                os.close(lock)


def _folders_of_ours(parent: str) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                    yield entry.path
