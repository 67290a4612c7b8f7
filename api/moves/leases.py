"""The dispatchers' own rows, and what they have in their books.

Leases are written and compared by the database's clock alone: no two machines need to agree on the time.
"""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from api.dialect import Dialect, dialect_of
from api.moves import common
from api.moves.records import Held
from everythingfaas.status import Event

#: A lease that ends later than this from now was written before the clock was set back, and is none.
LEASE_MAX_S = 60.0


def register_dispatcher(
    cursor: CursorWrapper,
    dispatcher: UUID,
    mode: str,
    slots: int,
    host: str,
    pid: int,
    lease_s: float,
    first_epoch: int = 1,
) -> int:
    """Enter a dispatcher, or take over the row that it left when it ran last. Returns its epoch.

    Its row may have been removed meanwhile. So that epochs, and what is numbered by them, never come again, the
    `first_epoch` of a new row is to be larger than any that an earlier one can have come to.
    """
    now = dialect_of(cursor).now
    cursor.execute(
        f"""
        INSERT INTO api_dispatcher (id, epoch, mode, slots, host, pid, lease_until, snapshot, started)
        VALUES (%s, %s, %s, %s, %s, %s, {now} + %s, '{{}}', {now})
        ON CONFLICT (id) DO UPDATE SET
            epoch = api_dispatcher.epoch + 1, mode = excluded.mode, slots = excluded.slots, host = excluded.host,
            pid = excluded.pid, lease_until = excluded.lease_until, snapshot = excluded.snapshot,
            started = excluded.started
        RETURNING epoch""",
        [dispatcher, first_epoch, mode, slots, common.text(host, 255), pid, lease_s],
    )
    return int(cursor.fetchone()[0])


def renew_lease(
    cursor: CursorWrapper, dispatcher: UUID, epoch: int, lease_s: float, snapshot: str, slots: int | None = None
) -> bool:
    """Prolong the lease, unless the row was taken over: then the dispatcher must drop what it holds.

    `slots` is how many its workers have by now: what somebody else has to know, should all of them be lost.
    """
    cursor.execute(
        f"UPDATE api_dispatcher SET lease_until = {dialect_of(cursor).now} + %s, snapshot = %s,"
        " slots = coalesce(%s, slots) WHERE id = %s AND epoch = %s RETURNING id",
        [lease_s, snapshot, slots, dispatcher, epoch],
    )
    return cursor.fetchone() is not None


def lapsed_dispatchers(cursor: CursorWrapper) -> list[UUID]:
    """Dispatchers that are believed dead: their lease is out, or tasks name them and they have no row."""
    dialect = dialect_of(cursor)
    cursor.execute(
        f"""
        SELECT id FROM api_dispatcher WHERE NOT {_is_live(dialect)}
        UNION
        SELECT dispatcher_id FROM api_task
        WHERE {common.before(Event.COMPLETE)}
            AND NOT EXISTS (SELECT 1 FROM api_dispatcher d WHERE d.id = api_task.dispatcher_id)"""
    )
    return sorted(dialect.uuid(dispatcher) for (dispatcher,) in cursor.fetchall())


def fence_dispatcher(cursor: CursorWrapper, dispatcher: UUID) -> bool:
    """Take the row of a dispatcher whose lease is out, so that it learns of it should it come back.

    Whoever is told so may end or release what it held, in the same transaction: until the commit it can
    neither renew its lease nor register again. Also true of one that has no row.
    """
    dialect = dialect_of(cursor)
    cursor.execute(
        f"UPDATE api_dispatcher SET epoch = epoch + 1 WHERE id = %s AND NOT {_is_live(dialect)} RETURNING id",
        [dispatcher],
    )
    if cursor.fetchone():
        return True
    cursor.execute("SELECT 1 FROM api_dispatcher WHERE id = %s", [dispatcher])
    return cursor.fetchone() is None


def slots_of(cursor: CursorWrapper, dispatcher: UUID) -> int:
    """How many slots a dispatcher had when it ran last; 0 if it never did."""
    cursor.execute("SELECT slots FROM api_dispatcher WHERE id = %s", [dispatcher])
    row = cursor.fetchone()
    return 0 if row is None else int(row[0])


def forget_dispatcher(cursor: CursorWrapper, dispatcher: UUID, epoch: int | None = None) -> bool:
    """Remove the row of a dispatcher that holds nothing any more and whose lease is out.

    A dispatcher that stops tells its `epoch`, and need not wait for that. If it does hold something, its lease
    ends now, and whoever looks for lapsed ones next finds it.
    """
    dialect = dialect_of(cursor)
    cursor.execute(
        "UPDATE api_dispatcher SET lease_until = 0 WHERE id = %s AND epoch = %s",
        [dispatcher, -1 if epoch is None else epoch],
    )
    cursor.execute(
        f"""
        DELETE FROM api_dispatcher
        WHERE id = %s AND NOT {_is_live(dialect)} AND NOT EXISTS (
            SELECT 1 FROM api_task
            WHERE api_task.dispatcher_id = api_dispatcher.id AND {common.before(Event.COMPLETE)})
        RETURNING id""",
        [dispatcher],
    )
    return cursor.fetchone() is not None


def adopt(
    cursor: CursorWrapper, dispatcher: UUID, attempts: Iterable[tuple[UUID, int]], *, from_lapsed: bool = True
) -> list[Held]:
    """Take over attempts that workers say they run, from dispatchers that have no row or, `from_lapsed`, whose lease
    is out.

    Returns those that are in this dispatcher's books now, the ones that were before among them.
    """
    wanted = [(task, attempt, dispatcher) for task, attempt in set(attempts)]
    if not wanted:
        return []
    dialect = dialect_of(cursor)
    is_kept = _is_live(dialect) if from_lapsed else "true"
    adopted = common.change(
        cursor,
        {"task": "uuid", "attempt": "int", "dispatcher": "uuid"},
        wanted,
        [Event.COMPLETE],
        changes="dispatcher_id = v.dispatcher",
        condition=f"""NOT EXISTS (
            SELECT 1 FROM api_dispatcher d
            WHERE d.id = api_task.dispatcher_id AND d.id <> v.dispatcher AND {is_kept})""",
        returning="api_task.id",
    )
    among = dialect.among("uuid", [dialect.uuid(task) for (task,) in adopted])
    return _held(cursor, f"id {among.sql}", among.params)


def take_over(cursor: CursorWrapper, dispatcher: UUID, former: UUID) -> tuple[list[Held], int]:
    """Enter all that a dispatcher whose lease is out, or that has no row, has in its books into those of another one,
    and remove its row. Returns what that was, and how many slots there were for it.

    Should it come back, what it writes of these attempts changes nothing, and with its next renewal it learns why.
    """
    if not fence_dispatcher(cursor, former):
        return [], 0
    dialect = dialect_of(cursor)
    slots = slots_of(cursor, former)
    cursor.execute(
        f"UPDATE api_task SET dispatcher_id = %s WHERE dispatcher_id = %s AND {common.before(Event.COMPLETE)}"
        " RETURNING id",
        [dispatcher, former],
    )
    taken = dialect.among("uuid", [dialect.uuid(task) for (task,) in cursor.fetchall()])
    forget_dispatcher(cursor, former)
    return _held(cursor, f"id {taken.sql}", taken.params), slots


def restored(cursor: CursorWrapper) -> int:
    """Say that this is not the database that processes knew: raise its generation, and fence all dispatchers."""
    cursor.execute("UPDATE api_dispatcher SET epoch = epoch + 1")
    cursor.execute("UPDATE api_instance SET generation = generation + 1 RETURNING generation")
    return int(cursor.fetchone()[0])


def _is_live(dialect: Dialect) -> str:
    """The SQL condition that a dispatcher's lease is not out."""
    return f"lease_until BETWEEN {dialect.now} AND {dialect.now} + {LEASE_MAX_S}"


def current(cursor: CursorWrapper, attempts: Collection[tuple[UUID, int]]) -> set[tuple[UUID, int]]:
    """Those of `attempts` that are given out, to whichever dispatcher: what is not has ended, or was given up."""
    if not attempts:
        return set()
    dialect = dialect_of(cursor)
    among = dialect.among("uuid", {task for task, _ in attempts})
    cursor.execute(
        f"SELECT id, attempt FROM api_task WHERE id {among.sql} AND {common.before(Event.COMPLETE)}", among.params
    )
    return set(attempts) & {(dialect.uuid(task), attempt) for task, attempt in cursor.fetchall()}


def held(cursor: CursorWrapper, dispatcher: UUID) -> list[Held]:
    """The attempts that a dispatcher has in its books, in the order in which claims give them out."""
    return _held(cursor, "dispatcher_id = %s", [dispatcher])


def _held(cursor: CursorWrapper, condition: str, params: Sequence[Any]) -> list[Held]:
    dialect = dialect_of(cursor)
    cursor.execute(
        f"""
        SELECT api_task.id, attempt, begun, owner_id, function_id, queue_id, priority, created, run_after, started,
            deadline_s, at_most_once, max_attempts, policy, starts, deaths, failures, cancel_requested_at, worker,
            (SELECT f.blob_id FROM api_function f WHERE f.id = api_task.function_id)
        FROM api_task WHERE {condition} AND {common.before(Event.COMPLETE)}
        ORDER BY priority DESC, id""",
        params,
    )
    return [
        Held(
            task=dialect.uuid(task),
            attempt=attempt,
            begun=begun == attempt,
            owner=owner,
            function=dialect.uuid(function),
            blob=blob,
            queue=queue,
            priority=priority,
            created=created,
            run_after=run_after,
            started=started,
            deadline_s=deadline_s,
            at_most_once=bool(at_most_once),
            max_attempts=max_attempts,
            policy=policy,
            starts=starts,
            deaths=deaths,
            failures=failures,
            cancel_requested=cancel_requested_at is not None,
            worker=worker,
        )
        for (
            task, attempt, begun, owner, function, queue, priority, created, run_after, started, deadline_s,
            at_most_once, max_attempts, policy, starts, deaths, failures, cancel_requested_at, worker, blob,
        ) in cursor.fetchall()
    ]  # fmt: skip


def cancel_requests(cursor: CursorWrapper, dispatcher: UUID) -> list[tuple[UUID, int]]:
    """The attempts in the dispatcher's books that somebody has asked to cancel."""
    dialect = dialect_of(cursor)
    cursor.execute(
        "SELECT id, attempt FROM api_task WHERE dispatcher_id = %s AND cancel_requested_at IS NOT NULL"
        f" AND {common.before(Event.COMPLETE)}",
        [dispatcher],
    )
    return [(dialect.uuid(task), attempt) for task, attempt in cursor.fetchall()]
