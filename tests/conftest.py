"""Fixtures for tests that need a database: a real one, each test on SQLite and on PostgreSQL.

`database` makes the alias "default" stand for a migrated database in the state in which `migrate` leaves it, for
all threads of this process. Whoever uses it must not use pytest-django's `db` as well (nor `django_user_model`,
`client` and the like of it, which do): that wraps each test in a transaction that nobody else can see into.

PostgreSQL is a cluster of our own, from the binaries of this machine: without them those tests are skipped,
except where CI=true says that they must not be.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, connections, transaction

from everythingfaas import no_pickles

#: Of these packages no code opens a pickle, in none of all tests: see `everythingfaas.no_pickles`.
_SERVER = {"api", "dispatcher", "faas_project"}


# Whoever runs this by nohup, or in the background of a script, has it ignore what some of the tests send.
for _number in (signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


def _found(name: str) -> None:
    """Tests are clients as well, and open results; what ends them is a server that does, in the same process."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in _SERVER:
            no_pickles.end(f"{name} in {module}")
        frame = frame.f_back


no_pickles.forbid(_found)

#: Needs an engine for containers, and minutes: `make compose-test`, which names the folder, gets it all the same.
collect_ignore = ["compose"]

#: Tables whose rows come with the migrations, and stay.
_KEPT = {"django_migrations", "django_content_type", "auth_permission"}


@dataclass(frozen=True)
class Database:
    vendor: str
    url: str  #: as FAAS_DATABASE_URL has it
    settings: dict[str, Any]


def _point_default_at(settings: dict[str, Any]) -> None:
    """New connections called "default", in whatever thread, go to this database from now on."""
    connections["default"].close()
    del connections["default"]
    connections.settings["default"] = settings
    connections.configure_settings(connections.settings)


def _migrated(vendor: str, url: str, settings: dict[str, Any]) -> Database:
    _point_default_at(settings)
    call_command("migrate", verbosity=0)
    return Database(vendor, url, settings)


@pytest.fixture(scope="session")
def _databases(django_db_blocker: Any) -> Iterator[None]:
    """Lets tests at databases, and puts everything back at the end."""
    former = connections.settings["default"]
    with django_db_blocker.unblock():
        yield
        _point_default_at(former)


@pytest.fixture(scope="session")
def sqlite_database(_databases: None, tmp_path_factory: pytest.TempPathFactory) -> Database:
    path = tmp_path_factory.mktemp("sqlite") / "db.sqlite3"
    settings = {"ENGINE": "faas_project.sqlite", "NAME": path, "CONN_MAX_AGE": None, "OPTIONS": {"timeout": 30}}
    return _migrated("sqlite", f"sqlite:///{path}", settings)


@contextmanager
def postgresql(folder: Path) -> Iterator[_cluster]:
    """A server of PostgreSQL in this folder, whose path should be short. Skips the test where there is none."""
    binaries = _postgresql_binaries()
    if binaries is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is not installed, and CI=true: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with _cluster(binaries, folder) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgresql_database(_databases: None) -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="faas-pg-") as folder, postgresql(Path(folder)):
        settings = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "faas",
            "HOST": folder,
            "CONN_MAX_AGE": None,
            "OPTIONS": {"options": "-c jit=off -c random_page_cost=1.1"},
        }
        yield _migrated("postgresql", f"postgres://faas@/postgres?host={folder}", settings)
        connections["default"].close()


def _postgresql_binaries() -> Path | None:
    """The folder of the newest PostgreSQL here."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    on_path = shutil.which("postgres")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


class _cluster:  # noqa: N801 -- used as a function
    """A server of its own, on a Unix socket in `folder`, as durable as in production."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        # It refuses to run as root.
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._identity = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(folder, "postgres", "postgres")

        self._common: dict[str, Any] = {"cwd": folder, "env": {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}}
        self._data = folder / "data"

    def __enter__(self) -> _cluster:
        initdb = [self._binaries / "initdb", "-D", self._data, "-U", "faas", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **self._common, **self._identity)
        self.start()
        return self

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, "-k", self._folder, "-c", "listen_addresses="],
                stdout=log,
                stderr=log,
                **self._common,
                **self._identity,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is its "fast" shutdown; SIGQUIT the one after which it has to recover, as from a crash."""
        self._server.send_signal(how)
        self._server.wait(30)

    def _wait_until_ready(self) -> None:
        patience = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(host=str(self._folder), user="faas", dbname="postgres").close()
            except psycopg.OperationalError:
                if time.monotonic() > patience or self._server.poll() is not None:
                    pytest.fail(f"PostgreSQL does not start: {(self._folder / 'log').read_text()}")
                time.sleep(0.05)
            else:
                return

    def __exit__(self, *_: object) -> None:
        if self._server.poll() is None:
            self.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> Database:
    """The database behind `database`. Parametrise it indirectly to have one of the two alone."""
    chosen: Database = request.getfixturevalue(f"{request.param}_database")
    return chosen


@pytest.fixture
def database(backend: Database) -> Iterator[str]:
    """The alias of a database in the state in which `migrate` leaves it."""
    with using(backend):
        yield "default"


@contextmanager
def using(backend: Database) -> Iterator[None]:
    """Lets "default" stand for this database, in the state in which `migrate` leaves it."""
    if connections.settings["default"] is not backend.settings:
        _point_default_at(backend.settings)
    empty()
    yield
    assert not connection.in_atomic_block
    connection.close()


def empty() -> None:
    """Remove all rows but those that the migrations have made. Faster than TRUNCATE for tables this small."""
    tables = {model._meta.db_table for model in apps.get_models(include_auto_created=True)} - _KEPT
    first = {
        "api_queue": "id > 1",
        "api_instance": "id > 1",
        "auth_user": "username <> 'local'",
    }
    with transaction.atomic(), connection.cursor() as cursor:
        existing = set(connection.introspection.table_names(cursor))
        for table in sorted(tables & existing):
            cursor.execute(f"DELETE FROM {table} WHERE {first.get(table, 'true')}")
        cursor.execute("UPDATE api_instance SET generation = 1")
