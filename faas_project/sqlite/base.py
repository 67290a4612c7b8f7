"""Django's SQLite backend with write transactions that are durable, begin at once and take fair turns.

Set `ENGINE` to `faas_project.sqlite`; nothing else needs to be set. What differs from Django's own:

- Transactions begin IMMEDIATE, so that none fails half-way because another one wrote meanwhile.
- Before they begin they take the lock that all our processes share (`WriteLock`); a single statement that
  writes outside a transaction does so as well. Reading takes no lock: the log is a WAL.
- A commit has reached the disk when it returns (`synchronous=FULL`).

A process that does not know our lock (`sqlite3 db.sqlite3`, a backup) meets SQLite's own: BEGIN then waits for
as long as the option `timeout` says and raises OperationalError.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from typing import Any

from django.db.backends.sqlite3 import base

from faas_project.sqlite.lock import WriteLock

_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    # Pages go back into the database each 16 MB, not each 4: the busiest ones are then copied less often.
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -32768",
    "PRAGMA temp_store = MEMORY",
)
_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "REPLAC"})


@functools.lru_cache(maxsize=1024)
def _converted(query: str) -> str:
    return base.FORMAT_QMARK_REGEX.sub("?", query).replace("%%", "%")


class _Cursor(base.SQLiteCursorWrapper):
    """A cursor that takes the write lock around a statement that is a transaction of its own."""

    def __init__(self, lock: WriteLock, connection: Any) -> None:
        super().__init__(connection)
        self._lock = lock

    def execute(self, query: str, params: Any = None) -> Any:
        if self._needs_lock(query):
            return self._locked(super().execute, query, params)
        return super().execute(query, params)

    def executemany(self, query: str, param_list: Iterable[Any]) -> Any:
        if self._needs_lock(query):
            return self._locked(super().executemany, query, param_list)
        return super().executemany(query, param_list)

    def convert_query(self, query: str, *, param_names: list[str] | None = None) -> str:
        """The same few statements come again and again, and Django rewrites each with regular expressions."""
        if param_names is None:
            return _converted(query)
        return super().convert_query(query, param_names=param_names)

    def _needs_lock(self, query: str) -> bool:
        return not self.connection.in_transaction and query.lstrip()[:6].upper() in _WRITES

    def _locked(self, execute: Any, *args: Any) -> Any:
        self._lock.acquire()
        try:
            return execute(*args)
        finally:
            self._lock.release()


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection. `transaction_mode` and `init_command` may still be set, and come last.

    The hooks that are overridden are Django's private ones (the stubs do not know them), unchanged since 1.8;
    the tests of this package say so if that ends.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.write_lock: WriteLock | None = None
        self.transaction_mode: str | None
        self.init_commands: list[str]
        self._last_commands: list[str] = []

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()
        self.transaction_mode = self.transaction_mode or "IMMEDIATE"
        self._last_commands, self.init_commands = self.init_commands, []
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        # Without a lock: what is in memory alone, and so shared with nobody, and has no path to put one beside.
        if not self.is_in_memory_db():
            self.write_lock = WriteLock(os.path.realpath(conn_params["database"]))
            self._use_wal(connection, self.write_lock)
        for command in (*_PRAGMAS, *self._last_commands):
            connection.execute(command)
        return connection

    @staticmethod
    def _use_wal(connection: Any, lock: WriteLock) -> None:
        # A property of the file, so this is true but for the first time. Then all who start at once would want
        # to set it, and SQLite does not let them wait for each other, but tells them that the file is locked.
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            lock.acquire()
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            finally:
                lock.release()

    def create_cursor(self, name: str | None = None) -> Any:
        if self.write_lock is None:
            return super().create_cursor(name)
        return self.connection.cursor(factory=functools.partial(_Cursor, self.write_lock))

    def _start_transaction_under_autocommit(self) -> None:
        if self.write_lock is not None:
            self.write_lock.acquire()
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._release()
            raise

    def _commit(self) -> None:
        super()._commit()  # type: ignore[misc]
        self._release()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]
        finally:
            self._release()

    def _close(self) -> None:
        try:
            # Closing alone does not end a transaction as long as anything, a traceback for one, holds a cursor.
            if self.connection is not None and self.connection.in_transaction:
                super()._rollback()  # type: ignore[misc]
            super()._close()  # type: ignore[misc]
        finally:
            if self.write_lock is not None:
                self.write_lock.close()
                self.write_lock = None

    def _release(self) -> None:
        if self.write_lock is not None:
            self.write_lock.release()
