"""Log files that are rotated by size, written by the supervisor from its children's output.

Children write to a pipe and know nothing of files, so a log can be rotated under a program that never reopens
its own, and what a dying process says last is not lost in a buffer of its own.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MAX_BYTES = 5_000_000
FILES = 3


class RotatingLog:
    """``web.log`` is written to; ``web.log.1`` and ``web.log.2`` are older.

    A disk that is full, or a folder that is gone, costs lines of the log and nothing else.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, files: int = FILES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._fd: int | None = None
        self._size = 0
        self._within_line = False

    def write(self, data: bytes) -> None:
        """Append `data`; where the file becomes too large, the next line begins a new one."""
        with contextlib.suppress(OSError):
            self._open()
            if self._size and self._size + len(data) > self._max_bytes:
                end = data.find(b"\n") + 1 if self._within_line else 0
                # What has no end of line is written on, but not for ever.
                if end or not self._within_line or self._size > 2 * self._max_bytes:
                    self._append(data[:end])
                    self._rotate()
                    data = data[end:]
            self._append(data)

    def tail(self, lines: int) -> list[str]:
        """The last lines, for the eyes of a user whose process did not start."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines))
                return file.read().decode(errors="replace").splitlines()[-lines:]
        except OSError:
            return []

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        if self._fd is None:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._fd).st_size
            self._within_line = False

    def _append(self, data: bytes) -> None:
        assert self._fd is not None
        while data:
            written = os.write(self._fd, data)
            self._size += written
            self._within_line = not data.endswith(b"\n")
            data = data[written:]

    def _rotate(self) -> None:
        self.close()
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._files))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)
        self._open()
