"""Whether this process can do its work: what `/readyz` says."""

from __future__ import annotations

import asyncio
import shutil
from typing import NamedTuple

from django.conf import settings
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.migrations.executor import MigrationExecutor

from api.dialect import dialect_of
from api.reader import Reader
from everythingfaas.errors import StoreUnavailable

#: A database that takes longer than this many seconds to say that it is there counts as gone.
PATIENCE_S = 2.0
#: Less than so many free bytes is little.
LOW_BYTES = 256 * 1024**2


class Readiness(NamedTuple):
    """`checks` says of each part either ok or what is wrong with it."""

    ready: bool
    checks: dict[str, str]

    @property
    def status(self) -> str:
        if not self.ready:
            return "unavailable"
        return "ok" if set(self.checks.values()) == {"ok"} else "degraded"


async def readiness(reader: Reader, *, redis_is_up: bool) -> Readiness:
    """Without the database or a dispatcher nothing is done; without Redis it is done slower."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            checks = await reader.call(_look)
    except (StoreUnavailable, TimeoutError):
        checks = {"database": "unreachable"}
    ready = set(checks.values()) == {"ok"}
    return Readiness(ready, {**checks, "redis": "ok" if redis_is_up else "down", "disk": _disk()})


def _disk() -> str:
    """Room in the data folder, where SQLite and the logs are: said before it is full, and every task is refused."""
    try:
        free = shutil.disk_usage(settings.FAAS.data_dir).free
    except OSError:
        return "ok"  # nothing is kept here
    return "ok" if free >= LOW_BYTES else f"{free // 1024**2} MB are free"


def _look(cursor: CursorWrapper) -> dict[str, str]:
    if not _is_migrated():
        return {"database": "not migrated: run manage.py migrate"}
    cursor.execute(f"SELECT count(*) FROM api_dispatcher WHERE lease_until > {dialect_of(cursor).now}")  # noqa: S608
    (alive,) = cursor.fetchone()
    return {"database": "ok", "dispatcher": "ok" if alive else "none is alive"}


_migrated = False


def _is_migrated() -> bool:
    global _migrated  # once it is, it stays so for as long as this code runs
    if not _migrated:
        executor = MigrationExecutor(connection)
        _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _migrated
