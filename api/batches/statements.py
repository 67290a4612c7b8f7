"""The statements of batches. As in `api.moves`: plain cursors, both databases, whole lists at once."""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import OperationalError
from django.db.backends.utils import CursorWrapper
from msgspec import Struct

from api import moves
from api.access.caller import Sees
from api.dialect import dialect_of
from api.moves import Submission
from everythingfaas.status import State

#: Bytes of an id in `BatchPart.tasks`.
ID_BYTES = 16


class Part(Struct, frozen=True):
    """Tasks to be accepted together, as a new batch or at the end of one."""

    id: UUID
    batch: UUID
    is_first: bool
    name: str
    owner: int
    created: float
    tasks: list[Submission]
    idempotency_key: str | None = None
    body_hash: str | None = None


class Added(Struct, frozen=True):
    """What became of a `Part`: as `api.moves.Accepted`, of all its tasks."""

    batch: UUID
    first: int
    tasks: bytes  #: their ids, 16 bytes each
    is_new: bool = True
    conflict: bool = False


class BatchView(Struct, frozen=True):
    id: UUID
    owner: int
    name: str
    created: float
    size: int


class Ended(Struct, frozen=True):
    """What one task ended with."""

    task: UUID
    state: State
    size: int  #: of the result
    result: bytes  #: empty where that is too large
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None


def add(cursor: CursorWrapper, parts: Sequence[Part]) -> list[Added | None]:
    """Accept parts, in order; None: there is no such batch. Each is stored once, whoever sends it how often.

    It may be repeated when a commit was cut off from its answer: a part that is there is known by its id as well.
    """
    added: list[Added | None] = []
    submissions: list[Submission] = []
    for part in parts:
        ids = b"".join([task.id.bytes for task in part.tasks])
        first = _store(cursor, part, ids)
        if first is None:
            added.append(_existing(cursor, part))
        elif first < 0:
            added.append(None)
        else:
            added.append(Added(part.batch, first, ids))
            submissions += part.tasks
    moves.submit(cursor, submissions)
    return added


def _store(cursor: CursorWrapper, part: Part, ids: bytes) -> int | None:
    """The number of its first task. None: it is there already. Below 0: there is no batch for it."""
    first = 0
    if not part.is_first:
        cursor.execute(
            f"SELECT size FROM api_batch WHERE id = %s AND owner_id = %s {dialect_of(cursor).for_update}",
            [part.batch, part.owner],
        )
        row = cursor.fetchone()
        if row is None:
            return -1
        first = int(row[0])
    cursor.execute(
        "INSERT INTO api_batchpart (id, batch_id, first, tasks, owner_id, idempotency_key, body_hash)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id",
        [part.id, part.batch, first, ids, part.owner, part.idempotency_key, part.body_hash],
    )
    if cursor.fetchone() is None:
        return None
    if part.is_first:
        cursor.execute(
            "INSERT INTO api_batch (id, owner_id, name, created, size) VALUES (%s, %s, %s, %s, %s)",
            [part.batch, part.owner, part.name, part.created, len(part.tasks)],
        )
    else:
        cursor.execute("UPDATE api_batch SET size = %s WHERE id = %s", [first + len(part.tasks), part.batch])
    return first


def _existing(cursor: CursorWrapper, part: Part) -> Added:
    cursor.execute(
        "SELECT batch_id, first, tasks, body_hash FROM api_batchpart"
        " WHERE id = %s OR (owner_id = %s AND idempotency_key = %s)",
        [part.id, part.owner, part.idempotency_key],
    )
    row = cursor.fetchone()
    if row is None:
        raise OperationalError("the batch that this key stood for was deleted this very moment: submit again")
    batch, first, ids, body_hash = row
    batch = dialect_of(cursor).uuid(batch)
    return Added(batch, first, bytes(ids), is_new=False, conflict=body_hash != part.body_hash)


_COLUMNS = "id, owner_id, name, created, size"


def find(cursor: CursorWrapper, batch: UUID) -> BatchView | None:
    cursor.execute(f"SELECT {_COLUMNS} FROM api_batch WHERE id = %s", [batch])
    return next(iter(_views(cursor)), None)


def by_name(cursor: CursorWrapper, name: str, sees: Sees, user: int) -> BatchView | None:
    """The newest batch of that name: of the user's own if there is one, else of those that they see."""
    mine = f"owner_id = {user:d}"
    seen = "true" if sees is None else f"owner_id IN ({', '.join(f'{owner:d}' for owner in sorted(sees))})"
    for condition in (mine, seen):
        cursor.execute(
            f"SELECT {_COLUMNS} FROM api_batch WHERE name = %s AND {condition} ORDER BY id DESC LIMIT 1", [name]
        )
        if found := _views(cursor):
            return found[0]
    return None


def newest(cursor: CursorWrapper, sees: Sees, name: str | None, before: UUID | None, limit: int) -> list[BatchView]:
    """A page of batches, the newest first."""
    conditions, params = ["true"], []
    if sees is not None:
        conditions.append(f"owner_id IN ({', '.join(f'{owner:d}' for owner in sorted(sees))})")
    for condition, value in (("name = %s", name), ("id < %s", before)):
        if value is not None:
            conditions.append(condition)
            params.append(value)
    cursor.execute(
        f"SELECT {_COLUMNS} FROM api_batch WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT {limit:d}", params
    )
    return _views(cursor)


def _views(cursor: CursorWrapper) -> list[BatchView]:
    uuid = dialect_of(cursor).uuid
    return [
        BatchView(uuid(batch), owner, name, created, size) for batch, owner, name, created, size in cursor.fetchall()
    ]


def members(cursor: CursorWrapper, batch: UUID, first: int, count: int) -> bytes:
    """The ids of `count` tasks of a batch from number `first` on, 16 bytes each; fewer at its end."""
    last = first + count
    cursor.execute(
        "SELECT first, tasks FROM api_batchpart WHERE batch_id = %s AND first < %s AND first >= coalesce("
        "(SELECT max(first) FROM api_batchpart WHERE batch_id = %s AND first <= %s), 0) ORDER BY first, id",
        [batch, last, batch, first],
    )
    ids = b""
    for begins, data in cursor.fetchall():
        part = bytes(data)
        ids += part[max(first - begins, 0) * ID_BYTES : (last - begins) * ID_BYTES]
    return ids


def split(ids: bytes) -> list[bytes]:
    """What `members` returns, one by one."""
    return [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]


def belonging(cursor: CursorWrapper, batch: UUID, tasks: Iterable[UUID]) -> set[UUID]:
    """Those of `tasks` that are of the batch."""
    dialect = dialect_of(cursor)
    among = dialect.among("uuid", tasks)
    cursor.execute(f"SELECT id FROM api_task WHERE id {among.sql} AND batch = %s", [*among.params, batch])
    return {dialect.uuid(task) for (task,) in cursor.fetchall()}


def states(cursor: CursorWrapper, tasks: Iterable[UUID]) -> dict[UUID, State]:
    among = dialect_of(cursor).among("uuid", tasks)
    cursor.execute(f"SELECT id, state FROM api_task WHERE id {among.sql}", among.params)
    uuid = dialect_of(cursor).uuid
    return {uuid(task): State(state) for task, state in cursor.fetchall()}


def count(cursor: CursorWrapper, tasks: Iterable[UUID]) -> Counter[State]:
    """How many of `tasks` are in which state."""
    among = dialect_of(cursor).among("uuid", tasks)
    cursor.execute(f"SELECT state, count(*) FROM api_task WHERE id {among.sql} GROUP BY state", among.params)
    return Counter({State(state): int(number) for state, number in cursor.fetchall()})


def results(cursor: CursorWrapper, tasks: Sequence[UUID], max_bytes: int, most_each: int | None = None) -> list[Ended]:
    """What the first of `tasks` ended with, in their order: as many as make up `max_bytes`, but one at least.

    Results of more than `most_each` bytes are left out, and count nothing.
    """
    dialect = dialect_of(cursor)
    among = dialect.among("uuid", tasks)
    cursor.execute(
        f"SELECT id, state, attempt, coalesce(result_size, 0) FROM api_task WHERE id {among.sql}", among.params
    )
    rows = {dialect.uuid(task): rest for task, *rest in cursor.fetchall()}
    wanted: list[UUID] = []
    small: list[UUID] = []
    total = 0
    for task in tasks:
        size = rows[task][2]
        if most_each is None or size <= most_each:
            total += size
            if wanted and total > max_bytes:
                break
            small.append(task)
        wanted.append(task)
    among = dialect.among("uuid", small)
    cursor.execute(f"SELECT task_id, data FROM api_result WHERE task_id {among.sql}", among.params)
    data = {dialect.uuid(task): bytes(result) for task, result in cursor.fetchall()}
    said = errors(cursor, [(task, rows[task][1]) for task in wanted if rows[task][0] == State.FAILED])
    return [
        Ended(task, State(rows[task][0]), rows[task][2], data.get(task, b""), *said.get(task, ())) for task in wanted
    ]


def errors(cursor: CursorWrapper, attempts: Sequence[tuple[UUID, int]]) -> dict[UUID, tuple[str | None, ...]]:
    """What was raised in these attempts, as text."""
    if not attempts:
        return {}
    dialect = dialect_of(cursor)
    source = dialect.rows({"task": "uuid", "attempt": "int"}, attempts)
    cursor.execute(
        "SELECT a.task_id, a.error_type, a.message, a.traceback"
        f" FROM {source.sql} JOIN api_attempt a ON a.task_id = v.task AND a.attempt = v.attempt",
        source.params,
    )
    return {dialect.uuid(task): tuple(said) for task, *said in cursor.fetchall()}
