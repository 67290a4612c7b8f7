"""Why a task that is queued does not run."""

from __future__ import annotations

import json
from collections.abc import Iterable

from django.conf import settings
from django.db import connection

from api import moves
from api.models import Task
from everythingfaas.pythons import Minor, matches, mismatch, parse_minor
from everythingfaas.status import State


def why_waiting(task: Task, pythons: frozenset[Minor] | None = None) -> str | None:
    """Why `task` waits, for people; None where it only waits for its turn, or does not wait at all.

    Args:
        pythons: those of the connected workers, `pythons_now`. Who asks for many tasks asks for them once.
    """
    if task.state != State.QUEUED.value:
        return None
    return why_queued(task.queue.requirements, pythons_now() if pythons is None else pythons)


def why_queued(requirements: str, pythons: frozenset[Minor]) -> str | None:
    """The same of a queued task with these requirements."""
    if not pythons:
        return "no worker is connected"
    if any(matches(requirements, python) for python in pythons):
        return None
    return f"{mismatch(requirements, pythons)}; it fails when it has waited for {settings.FAAS.unmatched_s:g} s"


def pythons_now() -> frozenset[Minor]:
    """The Pythons of all workers that are connected anywhere, as of some seconds ago."""
    with connection.cursor() as cursor:
        return connected_pythons(moves.snapshots(cursor))


def connected_pythons(snapshots: Iterable[str]) -> frozenset[Minor]:
    """The Pythons of the workers in what dispatchers have written down of them; of those that take tasks."""
    found: set[Minor] = set()
    for snapshot in snapshots:
        workers = json.loads(snapshot)
        if isinstance(workers, list):  # before the first renewal there is none
            found.update(parse_minor(worker["python"]) for worker in workers if not worker["draining"])
    return frozenset(found)
