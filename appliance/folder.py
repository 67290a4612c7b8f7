"""The data folder as the launcher uses it: one instance at a time, process ids, logs, and the way to Redis.

DATA_DIR/
├── run/   up.lock, web.pid, dispatcher.pid, redis.pid, worker.pid, redis.sock, redis.url
├── log/   up.log, migrate.log, web.log, …
└── redis/ the append-only file
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from everythingfaas.errors import ConfigurationError

LOCK = "up.lock"


class DataFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path / "run"
        self.log = path / "log"
        self.redis = path / "redis"

    def prepare(self) -> None:
        """Make the folders, for us alone: they hold the secret key and everybody's results.

        Raises:
            ConfigurationError: the folder cannot be written.
        """
        try:
            for folder in (self.path, self.run, self.log, self.redis):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(13, os.strerror(13))
        except OSError as error:
            raise ConfigurationError(
                f"FAAS_DATA_DIR={self.path} cannot be written: {error.strerror}; choose another with --data-dir"
            ) from None

    def lock(self) -> int:
        """Make sure that nobody else runs on this folder, until every copy of the descriptor returned is closed.

        Front and supervisor both have one, so the folder is free when both are gone, however they went; the
        descriptor is closed in whatever they start.

        Raises:
            ConfigurationError: somebody does.
        """
        path = self.run / LOCK
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"FAAS_DATA_DIR={self.path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise ConfigurationError(
                f"the data folder {self.path} is in use by another `faas up` (process {holder or 'unknown'}): "
                "stop that one, or choose another folder with --data-dir (FAAS_DATA_DIR)"
            ) from None
        with contextlib.suppress(OSError):  # the disk is full: who comes next is told "unknown"
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        return fd

    def write_pid(self, name: str, pid: int) -> None:
        # Renamed into place, so that nobody ever reads half a number.
        path = self.run / f"{name}.pid"
        fresh = path.with_suffix(".pid.new")
        with contextlib.suppress(OSError):
            fresh.write_text(f"{pid}\n")
            os.replace(fresh, path)

    def remove_pid(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self.run / f"{name}.pid").unlink()

    def clear(self) -> None:
        """Remove what only a running appliance has. The lock stays: to unlink it would let two in at once."""
        with contextlib.suppress(OSError):
            for entry in self.run.iterdir():
                if entry.name != LOCK and not entry.is_dir():
                    entry.unlink()
