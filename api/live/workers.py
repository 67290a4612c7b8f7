"""The workers, as the dispatchers' rows tell of them, with what each runs."""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from django.db.backends.utils import CursorWrapper
from msgspec import Struct

from api.dialect import dialect_of
from api.live.rows import TaskRow


class Running(Struct, frozen=True):
    """What a slot runs."""

    id: str
    name: str
    started: float | None


class Worker(Struct, frozen=True):
    name: str
    host: str
    pid: int
    python: str
    slots: int
    draining: bool
    mode: str  #: of its dispatcher
    running: list[Running]


#: The mode of a dispatcher, and its description of its workers.
Snapshot: TypeAlias = tuple[str, str]


def snapshots(cursor: CursorWrapper) -> list[Snapshot]:
    """Those of all dispatchers whose lease holds."""
    cursor.execute(f"SELECT mode, snapshot FROM api_dispatcher WHERE lease_until >= {dialect_of(cursor).now}")
    found: list[Snapshot] = cursor.fetchall()
    return found


def read(snapshots: Sequence[Snapshot], running: Sequence[TaskRow]) -> list[Worker]:
    """The workers in `snapshots`. `running`: what is being run, anywhere."""
    by_worker: dict[str, list[Running]] = {}
    for task in running:
        by_worker.setdefault(task.worker or "", []).append(Running(str(task.id), task.name, task.started))
    return sorted(
        (
            Worker(
                name=worker["name"],
                host=worker["host"],
                pid=worker["pid"],
                python=worker["python"],
                slots=worker["slots"],
                draining=worker["draining"],
                mode=mode,
                running=sorted(by_worker.get(worker["name"], ()), key=lambda item: item.started or 0.0),
            )
            for mode, snapshot in snapshots
            for worker in _workers(snapshot)
        ),
        key=lambda worker: (worker.name, worker.pid),
    )


def _workers(snapshot: str) -> list[dict[str, Any]]:
    """Those in a dispatcher's snapshot, which is an empty object until its first renewal."""
    found = json.loads(snapshot)
    return found if isinstance(found, list) else []
