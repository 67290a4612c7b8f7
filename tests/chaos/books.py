"""The database under chaos, as the test reads it: past the product, with triggers that note each change of state."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from tests.conftest import _cluster, _postgresql_binaries
from tests.live import ROOT

_TABLE = """
CREATE TABLE chaos_audit (
    seq {serial}, task {uuid} NOT NULL, what text NOT NULL, former integer, state integer, attempt integer)"""

_SQLITE = """
CREATE TRIGGER chaos_moved AFTER UPDATE ON api_task WHEN old.state <> new.state OR old.attempt <> new.attempt BEGIN
    INSERT INTO chaos_audit (task, what, former, state, attempt)
    VALUES (new.id, 'moved', old.state, new.state, new.attempt);
END;
CREATE TRIGGER chaos_stored AFTER INSERT ON api_result BEGIN
    INSERT INTO chaos_audit (task, what) VALUES (new.task_id, 'stored');
END;
CREATE TRIGGER chaos_changed AFTER UPDATE ON api_result BEGIN
    INSERT INTO chaos_audit (task, what) VALUES (new.task_id, 'changed');
END;
CREATE TRIGGER chaos_deleted AFTER DELETE ON api_task BEGIN
    INSERT INTO chaos_audit (task, what) VALUES (old.id, 'deleted');
END;
"""

_POSTGRESQL = """
CREATE FUNCTION chaos_moved() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF old.state <> new.state OR old.attempt <> new.attempt THEN
        INSERT INTO chaos_audit (task, what, former, state, attempt)
        VALUES (new.id, 'moved', old.state, new.state, new.attempt);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION chaos_stored() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_audit (task, what)
    VALUES (new.task_id, CASE tg_op WHEN 'INSERT' THEN 'stored' ELSE 'changed' END);
    RETURN NULL;
END $$;
CREATE FUNCTION chaos_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_audit (task, what) VALUES (old.id, 'deleted');
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_moved AFTER UPDATE ON api_task FOR EACH ROW EXECUTE FUNCTION chaos_moved();
CREATE TRIGGER chaos_stored AFTER INSERT OR UPDATE ON api_result FOR EACH ROW EXECUTE FUNCTION chaos_stored();
CREATE TRIGGER chaos_deleted AFTER DELETE ON api_task FOR EACH ROW EXECUTE FUNCTION chaos_deleted();
"""


class TaskRow(NamedTuple):
    task: UUID
    state: int
    attempt: int
    starts: int
    deaths: int
    at_most_once: bool
    max_attempts: int


class AttemptRow(NamedTuple):
    task: UUID
    attempt: int
    worker: str | None
    began: float | None
    outcome: int


class Change(NamedTuple):
    task: UUID
    what: str
    former: int | None
    state: int | None
    attempt: int | None


class Books:
    """Reads what the product has written.

    Args:
        url: as FAAS_DATABASE_URL has it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._is_sqlite = url.startswith("sqlite")

    def prepare(self, data_dir: Path) -> None:
        """Migrates, and adds the triggers."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("FAAS_")}
        environ |= {"FAAS_DATABASE_URL": self.url, "FAAS_DATA_DIR": str(data_dir)}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=ROOT, env=environ, check=True)
        if self._is_sqlite:
            with self._connect() as connection:
                connection.executescript(_TABLE.format(serial="integer PRIMARY KEY", uuid="text") + ";" + _SQLITE)
        else:
            with self._connect() as connection:
                connection.execute(_TABLE.format(serial="bigserial PRIMARY KEY", uuid="uuid"))
                connection.execute(_POSTGRESQL)

    def tasks(self) -> dict[UUID, TaskRow]:
        rows = self._query("SELECT id, state, attempt, starts, deaths, at_most_once, max_attempts FROM api_task")
        return {(row := TaskRow(_uuid(task), *rest)).task: row for task, *rest in rows}

    def attempts(self) -> list[AttemptRow]:
        rows = self._query("SELECT task_id, attempt, worker, began, outcome FROM api_attempt")
        return [AttemptRow(_uuid(task), *rest) for task, *rest in rows]

    def results(self) -> dict[UUID, bytes]:
        return {_uuid(task): bytes(data) for task, data in self._query("SELECT task_id, data FROM api_result")}

    def changes(self) -> list[Change]:
        rows = self._query("SELECT task, what, former, state, attempt FROM chaos_audit ORDER BY seq")
        return [Change(_uuid(task), *rest) for task, *rest in rows]

    def unfinished(self) -> int:
        return int(self._query("SELECT count(*) FROM api_task WHERE state < 4")[0][0])

    def _query(self, statement: str) -> list[Any]:
        with self._connect() as connection:
            return list(connection.execute(statement).fetchall())

    @contextmanager
    def _connect(self) -> Iterator[Any]:
        if self._is_sqlite:
            connection: Any = sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30)
        else:
            connection = psycopg.connect(self.url.replace("postgres://", "postgresql://", 1), autocommit=True)
        try:
            yield connection
        finally:
            connection.close()


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of this kind, until the block ends."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'db.sqlite3'}"
        return
    binaries = _postgresql_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL is not installed: apt-get install postgresql")
    # In a folder of its own: the server runs as somebody else, who may not enter ours.
    with tempfile.TemporaryDirectory(prefix="faas-pg-") as place, _cluster(binaries, Path(place)):
        yield f"postgres://faas@/postgres?host={place}"
