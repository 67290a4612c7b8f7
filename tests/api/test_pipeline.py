"""The cursor of the hot transactions: what is asked for comes at once, what is not, with it, and no mistake is lost."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.backends.utils import CursorWrapper

from api.dialect import Columns, dialect_of
from api.models import Blob
from api.pipeline import pipelined_cursor

_BLOB: Columns = {"sha256": "text", "size": "int", "data": "bytes", "created": "float"}
pytestmark = pytest.mark.usefixtures("database")


def insert(cursor: CursorWrapper, *rows: tuple[str, bytes]) -> None:
    dialect_of(cursor).insert(cursor, "api_blob", _BLOB, [(name, len(data), data, 0.5) for name, data in rows])


def test_rows_come_when_they_are_asked_for() -> None:
    with transaction.atomic(), pipelined_cursor() as cursor:
        insert(cursor, ("a", b"1"))
        insert(cursor, ("b", b"2"))
        cursor.execute("SELECT sha256 FROM api_blob ORDER BY sha256")
        assert [name for (name,) in cursor.fetchall()] == ["a", "b"]
        insert(cursor, ("c", b"3"))
    assert Blob.objects.count() == 3


@pytest.mark.parametrize("data", [b"", b"\0\\x00'\"{},", bytes(range(256)), bytes(3_000_000)], ids=len)
def test_bytes_arrive_as_they_are(data: bytes) -> None:
    with transaction.atomic(), pipelined_cursor() as cursor:
        insert(cursor, ("a", data), ("b", data))
    assert [bytes(blob.data) for blob in Blob.objects.all()] == [data, data]


def in_one(*rows: tuple[str, bytes], fails: bool = False) -> None:
    with transaction.atomic(), pipelined_cursor() as cursor:
        for row in rows:
            insert(cursor, row)
        if fails:
            raise ZeroDivisionError


def test_a_mistake_that_nobody_asked_about_is_raised_all_the_same() -> None:
    with pytest.raises(IntegrityError):
        in_one(("a", b"1"), ("a", b"1"))
    in_one(("b", b"2"))  # the connection can be used again
    assert [blob.pk for blob in Blob.objects.all()] == ["b"]


def test_what_the_block_raises_undoes_it() -> None:
    with pytest.raises(ZeroDivisionError):
        in_one(("a", b"1"), fails=True)
    assert not Blob.objects.exists()


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_postgresql_prepares_each_statement_once() -> None:
    for name in "abc":
        with transaction.atomic(), pipelined_cursor() as cursor:
            insert(cursor, (name, b""))
    with connection.cursor() as plain:
        plain.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT INTO api_blob%'")
        assert plain.fetchone() == (1,)
