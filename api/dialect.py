"""What SQLite and PostgreSQL say differently; `api.moves` and `api.tally` are written once on top of it.

The one idea is that a list of tuples becomes a source of rows named `v`, so that one statement speaks of a whole
batch, and tells which rows it has changed. On SQLite the tuples travel as one JSON document, on PostgreSQL as one
array for each column; either way the text of the statement does not depend on how many there are.
"""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

import abc
import functools
import operator
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import msgspec
from django.db.backends.utils import CursorWrapper

Kind = Literal["uuid", "small", "int", "big", "float", "bool", "text", "bytes"]
#: The columns of a batch: their names, in the order of the tuples, and what they hold.
Columns = Mapping[str, Kind]
Row = tuple[Any, ...]

# With this a UUID may be a parameter on both databases. Django's own fields convert before it comes to that.
sqlite3.register_adapter(UUID, operator.attrgetter("hex"))


@dataclass(frozen=True, slots=True)
class Source:
    """SQL that stands for given rows, and its parameters."""

    sql: str
    params: list[Any]


class Dialect(abc.ABC):
    """The differences."""

    #: The database's clock, in seconds since 1970.
    now: str
    #: Ends a SELECT whose rows the transaction means to change.
    for_update: str
    #: The same, for whoever takes what is free and leaves to others what they have.
    skip_locked: str

    @abc.abstractmethod
    def rows(self, columns: Columns, rows: Sequence[Row]) -> Source:
        """`rows` as what stands after FROM, named `v`."""

    @abc.abstractmethod
    def update(self, columns: Columns, rows: Sequence[Row], *, where: str, changes: str, returning: str) -> Source:
        """UPDATE the tasks that the column `task` of `rows` names, where each fulfils the condition.

        The condition must not begin with an index of its own: say `state + 0`, or the planner, who knows little
        of a table that changes all the time, may look through everything in that state for each of the rows.
        """

    @abc.abstractmethod
    def among(self, kind: Kind, values: Iterable[Any]) -> Source:
        """The right side of `column <sql>`: is one of `values`."""

    @abc.abstractmethod
    def insert(self, cursor: CursorWrapper, table: str, columns: Columns, rows: Sequence[Row]) -> None:
        """Insert `rows` as fast as the database can; none of them may be there yet."""

    @abc.abstractmethod
    def uuid(self, value: Any) -> UUID:
        """A UUID as it comes from a plain cursor."""


class SQLite(Dialect):
    now = "((julianday('now') - 2440587.5) * 86400.0)"
    # A transaction that writes has the whole database to itself.
    for_update = ""
    skip_locked = ""

    def rows(self, columns: Columns, rows: Sequence[Row]) -> Source:
        fields = ", ".join(f"json_extract(value, '$[{i}]') AS {name}" for i, name in enumerate(columns))
        return Source(f"(SELECT {fields} FROM json_each(%s)) AS v", [self._document(rows)])

    def update(self, columns: Columns, rows: Sequence[Row], *, where: str, changes: str, returning: str) -> Source:
        source = self.rows(columns, rows)
        return Source(
            f"UPDATE api_task SET {changes} FROM {source.sql}"
            f" WHERE api_task.id = v.task AND {where} RETURNING {returning}",
            source.params,
        )

    def among(self, kind: Kind, values: Iterable[Any]) -> Source:
        return Source("IN (SELECT value FROM json_each(%s))", [self._document(values)])

    def insert(self, cursor: CursorWrapper, table: str, columns: Columns, rows: Sequence[Row]) -> None:
        if rows:
            values = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})", rows)

    def uuid(self, value: Any) -> UUID:
        return _uuid(value)

    @staticmethod
    def _document(values: Iterable[Any]) -> str:
        return _encoder.encode(values if isinstance(values, list) else list(values)).decode()


#: Making a UUID of text takes a microsecond, which is a lot here; the ids that come are mostly those that have
#: come a moment ago.
_uuid = functools.lru_cache(maxsize=16384)(UUID)
#: UUIDs in JSON as Django stores them: without hyphens.
_encoder = msgspec.json.Encoder(uuid_format="hex")

_POSTGRESQL_TYPES: dict[Kind, str] = {
    "uuid": "uuid",
    "small": "smallint",
    "int": "integer",
    "big": "bigint",
    "float": "double precision",
    "bool": "boolean",
    "text": "text",
    "bytes": "bytea",
}
#: Bytes travel as they are, where the cursor leaves that to the driver.
_FORMATS: dict[Kind, str] = {"bytes": "%b"}


class PostgreSQL(Dialect):
    now = "extract(epoch FROM clock_timestamp())::double precision"
    for_update = "FOR UPDATE"
    skip_locked = "FOR UPDATE SKIP LOCKED"

    def rows(self, columns: Columns, rows: Sequence[Row]) -> Source:
        arrays = [_array(kind, values) for kind, values in zip(columns.values(), zip(*rows, strict=True), strict=True)]
        casts = ", ".join(f"{_FORMATS.get(kind, '%s')}::{_POSTGRESQL_TYPES[kind]}[]" for kind in columns.values())
        return Source(f"unnest({casts}) AS v ({', '.join(columns)})", arrays)

    def update(self, columns: Columns, rows: Sequence[Row], *, where: str, changes: str, returning: str) -> Source:
        # The rows are locked one after the other, in the order of their ids, before any is changed: so two
        # statements that have tasks in common never wait for each other in a circle. From then on the condition
        # holds until the commit, also for a row that another transaction changed while this one waited for it.
        source = self.rows(columns, sorted(rows, key=operator.itemgetter(list(columns).index("task"))))
        return Source(
            f"WITH v AS MATERIALIZED (SELECT v.* FROM {source.sql} CROSS JOIN LATERAL"
            f" (SELECT FROM api_task WHERE api_task.id = v.task AND {where} FOR NO KEY UPDATE) AS locked)"
            f" UPDATE api_task SET {changes} FROM v WHERE api_task.id = v.task RETURNING {returning}",
            source.params,
        )

    def among(self, kind: Kind, values: Iterable[Any]) -> Source:
        return Source(f"= ANY(%s::{_POSTGRESQL_TYPES[kind]}[])", [_array(kind, values)])

    def insert(self, cursor: CursorWrapper, table: str, columns: Columns, rows: Sequence[Row]) -> None:
        if not rows:
            return
        names = ", ".join(columns)
        source = self.rows(columns, rows)
        cursor.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM {source.sql}", source.params)

    def uuid(self, value: Any) -> UUID:
        uuid: UUID = value
        return uuid


def _array(kind: Kind, values: Iterable[Any]) -> Any:
    """An array as PostgreSQL reads it. Written by hand where nothing needs an escape: that is much faster."""
    if kind in {"text", "bytes"}:
        return list(values)
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


_DIALECTS: dict[str, Dialect] = {"sqlite": SQLite(), "postgresql": PostgreSQL()}


def dialect_of(cursor: CursorWrapper) -> Dialect:
    """The dialect of the database that `cursor` speaks to."""
    return _DIALECTS[cursor.db.vendor]
