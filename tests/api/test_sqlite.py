"""The SQLite backend: who may write when, between threads, connections and processes."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from api.models import Queue
from faas_project.sqlite.base import DatabaseWrapper
from faas_project.sqlite.lock import WriteLock

from ..conftest import Database
from .conftest import in_parallel

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def path(backend: Database, database: str) -> Path:
    return Path(os.path.realpath(backend.settings["NAME"]))


def is_locked(path: Path) -> bool:
    with open(f"{path}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def pragma(name: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {name}")
        return cursor.fetchone()[0]


def test_commits_reach_the_disk(path: Path) -> None:
    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL
    assert pragma("foreign_keys") == 1


class TestTheLockIsHeld:
    def test_from_begin_to_commit(self, path: Path) -> None:
        with transaction.atomic():
            assert is_locked(path)
            with transaction.atomic():
                Queue.objects.create(requirements="x")
            assert is_locked(path)
        assert not is_locked(path)

    def test_until_a_rollback(self, path: Path) -> None:
        with transaction.atomic():
            transaction.set_rollback(True)
            assert is_locked(path)
        assert not is_locked(path)

    def test_until_the_connection_is_closed(self, path: Path) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1 UNION SELECT 2")  # a cursor that somebody still holds
            connection.close()
            assert not is_locked(path)
        Queue.objects.create(requirements="x")

    def test_not_after_a_begin_that_failed(self, path: Path) -> None:
        connection.ensure_connection()
        connection.connection.execute("BEGIN")
        atomic = transaction.atomic()
        with pytest.raises(OperationalError):
            atomic.__enter__()
        assert not is_locked(path)
        connection.close()

    def test_not_for_reading(self, path: Path) -> None:
        with transaction.atomic():
            Queue.objects.create(requirements="x")
            assert in_parallel([Queue.objects.count]) == [1]

    def test_by_a_single_statement(self, path: Path) -> None:
        """One that writes outside a transaction waits for its turn as well."""
        seen = []

        def write() -> None:
            Queue.objects.create(requirements="x")
            Queue.objects.bulk_create([Queue(requirements="y")])
            seen.append(Queue.objects.count())

        thread = threading.Thread(target=lambda: in_parallel([write]))
        with transaction.atomic():
            thread.start()
            thread.join(0.2)
            assert thread.is_alive()
            assert not seen
        thread.join(10)
        assert seen == [3]
        assert not is_locked(path)


def test_a_thread_does_not_wait_for_itself(path: Path, backend: Database) -> None:
    other = connections.create_connection("default")
    try:
        with transaction.atomic(), pytest.raises(OperationalError, match="another connection"):
            other.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    finally:
        other.close()
    assert not is_locked(path)


def test_a_lock_that_cannot_be_opened_says_why(path: Path, tmp_path: Path) -> None:
    lock = WriteLock(str(tmp_path / "missing" / "db"))
    with pytest.raises(OperationalError, match="missing"):
        lock.acquire()
    lock.close()


def test_a_new_file_may_be_opened_by_many_at_once(path: Path, tmp_path: Path) -> None:
    def open_it(name: str) -> str:
        wrapper = DatabaseWrapper({**connection.settings_dict, "NAME": tmp_path / name}, "new")
        with wrapper.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            (mode,) = cursor.fetchone()
        wrapper.close()
        return str(mode)

    for i in range(10):
        assert in_parallel([functools.partial(open_it, f"{i}.sqlite3")] * 4) == ["wal"] * 4


def test_a_database_in_memory_needs_no_lock(path: Path) -> None:
    memory = DatabaseWrapper({**connection.settings_dict, "NAME": ":memory:"}, "memory")
    with memory.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a)")
        cursor.execute("INSERT INTO t VALUES (1)")
    assert memory.write_lock is None
    memory._close()
    memory.connection = None


WRITER = """
import sqlite3, sys, time
from faas_project.sqlite.lock import WriteLock

path, seconds = sys.argv[1], float(sys.argv[2])
lock = WriteLock(path)
connection = sqlite3.connect(path, isolation_level=None, timeout=0)
print(flush=True)
sys.stdin.read(1)
until, n, longest = time.monotonic() + seconds, 0, 0.0
while time.monotonic() < until:
    began = time.monotonic()
    lock.acquire()
    longest = max(longest, time.monotonic() - began)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE api_instance SET generation = generation + 1")
    connection.execute("COMMIT")
    lock.release()
    n += 1
print(n, longest)
"""


@pytest.fixture
def writers(path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-c", WRITER, str(path), "1"]
    root = Path(__file__).resolve().parents[2]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(3)
    ]
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_processes_take_turns(path: Path, writers: list[subprocess.Popen[str]]) -> None:
    """Without the lock, one of them writes and the others wait; and nobody is told that the database is locked."""
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("x")
        writer.stdin.flush()
    answers = [writer.communicate(timeout=30)[0].split() for writer in writers]

    counts = [int(count) for count, _ in answers]
    print("commits", counts, "longest wait", max(float(longest) for _, longest in answers))
    with connection.cursor() as cursor:
        cursor.execute("SELECT generation FROM api_instance")
        assert cursor.fetchone()[0] == 1 + sum(counts)
    assert min(counts) > max(counts) / 4


def test_a_process_that_dies_holds_up_nobody(path: Path) -> None:
    script = f"""
import os, sqlite3
from faas_project.sqlite.lock import WriteLock
WriteLock({str(path)!r}).acquire()
sqlite3.connect({str(path)!r}, isolation_level=None).execute("BEGIN IMMEDIATE")
os.kill(os.getpid(), 9)
"""
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root).returncode == -9
    Queue.objects.create(requirements="x")
