"""How many transactions that wrote something a database has committed.

SQLite keeps no such number, but its write-ahead log does: each commit ends with a frame whose header says how large
the database is then, and in all other frames that field is 0. A commit that wrote nothing leaves no frame, and costs
no sync. While the counter has a read transaction open, the log is not begun anew under it.

PostgreSQL's `pg_stat_database.xact_commit` counts transactions that only read as well. But a transaction gets a
number (xid) when it first writes, and not before: the difference of two numbers is what is looked for. Savepoints
that write are counted as well; here there are none.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psycopg


class LogRestarted(Exception):
    """SQLite has begun its log anew; count again."""


class CommitCounter(Protocol):
    def count(self) -> int:
        """Commits so far. Only the difference of two means anything."""


class SQLiteCommits:
    """Counts from its `__enter__` on. Do not hold it open for long: the log grows meanwhile."""

    def __init__(self, database: Path) -> None:
        self._log = Path(f"{database}-wal")
        self._reader = sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
        self._first = b""

    def __enter__(self) -> Self:
        self._reader.execute("BEGIN")
        self._reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        self._first = self._header()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._reader.close()

    def count(self) -> int:
        """Raises LogRestarted: the log was copied back completely before, which no reader can hold up."""
        header = self._header()
        if header != self._first or len(header) < 32:
            raise LogRestarted
        page_size = struct.unpack_from(">I", header, 8)[0]
        salts = header[16:24]
        commits = 0
        with self._log.open("rb", buffering=0) as file:
            at = 32
            while len(frame := os.pread(file.fileno(), 24, at)) == 24 and frame[8:16] == salts:
                commits += frame[4:8] != b"\0\0\0\0"
                at += 24 + page_size
        return commits

    def _header(self) -> bytes:
        with self._log.open("rb") as file:
            return file.read(32)


class PostgreSQLCommits:
    def __init__(self, conninfo: str) -> None:
        self._connection = psycopg.connect(conninfo, autocommit=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._connection.close()

    def count(self) -> int:
        row = self._connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
        assert row is not None
        return int(row[0])


@contextmanager
def counting(database: Path | str) -> Iterator[CommitCounter]:
    """A counter for the SQLite file, or for the PostgreSQL that the text tells how to reach."""
    counter = SQLiteCommits(database) if isinstance(database, Path) else PostgreSQLCommits(database)
    with counter:
        yield counter
