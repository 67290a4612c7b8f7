"""A cursor for the few transactions that everything waits for.

On PostgreSQL each statement is a way to the server and back, on which the thread gives up the interpreter and has to
get it back from whoever took it: for a group commit of ten statements, that is most of what it takes. So here

- statements whose rows nobody asks for travel with the next one whose rows somebody does (psycopg's pipeline mode);
- the server parses and plans a statement once for each connection, not each time.

SQLite has no such way, and its cursor is the plain one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper


@contextmanager
def pipelined_cursor() -> Iterator[CursorWrapper]:
    """A cursor for a transaction that is open already. When the block ends, everything is done, or raises.

    A mistake in a statement may be told only by a later one, or by the end of the block. `rowcount` says nothing:
    ask for rows (RETURNING). Savepoints do not belong here, for what fails in one fails the rest as well.
    """
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            yield cursor
        return
    import psycopg  # takes 8 MB, which who has SQLite does without

    connection.ensure_connection()
    raw: Any = connection.connection
    raw.prepare_threshold = 0
    # Not Django's cursor, which writes the parameters into the statement, so that each one is another.
    with (
        connection.wrap_database_errors,
        CursorWrapper(psycopg.Cursor(raw), connection) as cursor,
        raw.pipeline(),
    ):
        yield cursor
