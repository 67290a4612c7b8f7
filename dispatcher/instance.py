"""Which of the dispatchers that have run in this data folder this process continues."""

from __future__ import annotations

import fcntl
import os
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4


def take_identity(folder: Path) -> tuple[UUID, int]:
    """The id of a dispatcher that ran here before and does not now, else a new one, and an open descriptor.

    The lock on the descriptor says that the id is in use; it ends with the process, however that ends. So a
    restarted dispatcher takes over its own row at once, and a second one beside it gets a row of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = folder / f"dispatcher-{number}.id"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        text = os.pread(fd, 64, 0).decode("ascii", "replace").strip()
        if len(text) == 32:
            return UUID(text), fd
        identity = uuid4()
        os.ftruncate(fd, 0)
        os.pwrite(fd, identity.hex.encode(), 0)
        os.fsync(fd)
        return identity, fd
    raise AssertionError("count() does not end")
