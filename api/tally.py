"""The numbers that pages show instead of counting the table: totals by state, and a history by the minute.

Whoever moves tasks keeps a `Tally` and writes it in the transaction of the moves, so the numbers are exact. Each
row belongs to one writer, so that no two of them ever wait for each other, and is summed on reading:

    with transaction.atomic(), connection.cursor() as cursor:
        for task in moves.end(cursor, ended):
            tally.moved(task.owner, task.was, task.state)
        tally.flush(cursor)
    tally.committed()
"""

# Statements are put together from constants of this project; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from django.db.backends.utils import CursorWrapper

from api.dialect import Columns, dialect_of
from api.models import Series
from everythingfaas.status import State

_COUNTERS: Columns = {"writer": "text", "owner_id": "int", "state": "small", "count": "big"}
_ROLLUPS: Columns = {
    "minute": "int",
    "writer": "text",
    "owner_id": "int",
    "series": "small",
    "bucket": "small",
    "count": "int",
    "total_s": "float",
}

#: The bucket of tasks that ended without having run; they have no duration.
NEVER = -1
_FIRST_S = 0.001
_PER_DOUBLING = 2
_LAST = 62


def bucket_of(seconds: float) -> int:
    """The bucket of a duration: 0 below a millisecond, then two buckets for each doubling, 62 from 18 days on.

    So a bucket reaches from its lower bound to 1.41 times that, and a quantile that is read from the middle
    of one is at most a fifth off, whether it speaks of milliseconds or of days.
    """
    if seconds < _FIRST_S:
        return 0
    return min(_LAST, 1 + math.floor(_PER_DOUBLING * math.log2(seconds / _FIRST_S)))


def bounds_of(bucket: int) -> tuple[float, float]:
    """The durations that `bucket` stands for: from, and up to but not with."""
    if bucket <= 0:
        return 0.0, _FIRST_S
    return _FIRST_S * 2 ** ((bucket - 1) / _PER_DOUBLING), _FIRST_S * 2 ** (bucket / _PER_DOUBLING)


class Tally:
    """What one writer has to add to the counters and rollups.

    `writer` names whoever writes the rows. It must be its alone as long as it runs, and should be the same when
    it runs again, for nobody else takes the rows away; see `absorb` for those who do not come back.
    """

    def __init__(self, writer: str) -> None:
        self.writer = writer
        self._counts: Counter[tuple[int, State]] = Counter()
        self._cells: dict[tuple[int, int, Series, int], list[float]] = {}

    def moved(self, owner: int, source: State | None, target: State, n: int = 1) -> None:
        """`n` tasks of `owner` have changed their state; None as `source`: they are new."""
        self._counts[owner, target] += n
        if source is None:
            self._add(time.time(), owner, Series.SUBMITTED, 0, 0.0, n)
        else:
            self._counts[owner, source] -= n

    def finished(self, owner: int, state: State, wait_s: float | None, run_s: float | None, at: float) -> None:
        """A task has ended. `wait_s`: until it first began; None, as `run_s`, if it never did."""
        if wait_s is not None:
            self._add(at, owner, Series.WAIT, bucket_of(wait_s), wait_s)
        self._add(at, owner, Series(state.value), NEVER if run_s is None else bucket_of(run_s), run_s or 0.0)

    def flush(self, cursor: CursorWrapper) -> None:
        """Write it, in the transaction that makes it true."""
        dialect = dialect_of(cursor)
        counts = sorted((owner, state.value, n) for (owner, state), n in self._counts.items() if n)
        if counts:
            source = dialect.rows(_COUNTERS, [(self.writer, *row) for row in counts])
            cursor.execute(
                f"INSERT INTO api_counter ({', '.join(_COUNTERS)}) SELECT {', '.join(_COUNTERS)} FROM {source.sql}"
                " WHERE true ON CONFLICT (writer, owner_id, state)"
                " DO UPDATE SET count = api_counter.count + excluded.count",
                source.params,
            )
        if self._cells:
            cells = sorted(self._cells.items())
            source = dialect.rows(
                _ROLLUPS,
                [
                    (minute, self.writer, owner, series.value, bucket, n, total_s)
                    for (minute, owner, series, bucket), (n, total_s) in cells
                ],
            )
            cursor.execute(
                f"INSERT INTO api_rollup ({', '.join(_ROLLUPS)}) SELECT {', '.join(_ROLLUPS)} FROM {source.sql}"
                " WHERE true ON CONFLICT (minute, writer, owner_id, series, bucket)"
                " DO UPDATE SET count = api_rollup.count + excluded.count,"
                " total_s = api_rollup.total_s + excluded.total_s",
                source.params,
            )

    def committed(self) -> None:
        """The transaction of `flush` is safe."""
        self._forget()

    def rolled_back(self) -> None:
        """It has not happened, and the moves that were counted have not either: who repeats them counts again."""
        self._forget()

    def _forget(self) -> None:
        self._counts.clear()
        self._cells.clear()

    def _add(self, at: float, owner: int, series: Series, bucket: int, seconds: float, n: int = 1) -> None:
        cell = self._cells.setdefault((int(at // 60), owner, series, bucket), [0, 0.0])
        cell[0] += n
        cell[1] += max(seconds, 0.0)  # the clocks of two machines may differ


def absorb(cursor: CursorWrapper, writer: str) -> None:
    """Add the rows of a writer that will not come back to those of nobody, whose name is the empty text.

    Should it come back after all, it begins with new rows, and the sums stay right. Only one process may do
    this at a time.
    """
    lock = dialect_of(cursor).for_update
    for table, keys, sums in (
        ("api_counter", ("owner_id", "state"), ("count",)),
        ("api_rollup", ("minute", "owner_id", "series", "bucket"), ("count", "total_s")),
    ):
        columns = ", ".join((*keys, *sums))
        cursor.execute(f"SELECT 1 FROM {table} WHERE writer = %s ORDER BY {', '.join(keys)} {lock}", [writer])
        cursor.execute(
            f"INSERT INTO {table} (writer, {columns}) SELECT '', {columns} FROM {table} WHERE writer = %s"
            f" ON CONFLICT ({', '.join(('writer', *keys))})"
            f" DO UPDATE SET {', '.join(f'{name} = {table}.{name} + excluded.{name}' for name in sums)}",
            [writer],
        )
        cursor.execute(f"DELETE FROM {table} WHERE writer = %s", [writer])


def totals(cursor: CursorWrapper, owners: Collection[int] | None = None) -> dict[State, int]:
    """How many tasks there are in each state, of these owners or of all."""
    where = "" if owners is None else f"WHERE {_owned_by(owners)}"
    cursor.execute(f"SELECT state, sum(count) FROM api_counter {where} GROUP BY state")
    found = {State(state): int(count) for state, count in cursor.fetchall()}
    return {state: found.get(state, 0) for state in State}


def _owned_by(owners: Collection[int]) -> str:
    return f"owner_id IN ({', '.join(f'{owner:d}' for owner in sorted(owners))})"


@dataclass(slots=True)
class Histogram:
    """Durations, by bucket."""

    count: int = 0  #: of tasks, those without a duration among them
    total_s: float = 0.0
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, bucket: int, count: int, total_s: float) -> None:
        self.count += count
        self.total_s += total_s
        if bucket != NEVER:
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def quantile(self, q: float) -> float | None:
        """The duration that a share of `q` does not exceed; None if there is no duration."""
        rank = q * sum(self.buckets.values())
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                low, high = bounds_of(bucket)
                return math.sqrt(low * high) if low else high / 2
        return None


def history(
    cursor: CursorWrapper, since: float, until: float, owners: Collection[int] | None = None, *, step_s: int = 60
) -> dict[int, dict[Series, Histogram]]:
    """What happened from `since` until `until`, by the start of each step in seconds since 1970.

    Steps are whole minutes, and begin at multiples of `step_s`; in one without an entry nothing happened.
    """
    minutes = max(1, step_s // 60)
    condition = "" if owners is None else f" AND {_owned_by(owners)}"
    cursor.execute(
        f"""
        SELECT minute - minute %% {minutes:d} AS step, series, bucket, sum(count), sum(total_s)
        FROM api_rollup WHERE minute >= %s AND minute < %s{condition} GROUP BY step, series, bucket""",
        [int(since // 60), math.ceil(until / 60)],
    )
    steps: dict[int, dict[Series, Histogram]] = {}
    for step, series, bucket, count, total_s in cursor.fetchall():
        histogram = steps.setdefault(step * 60, {}).setdefault(Series(series), Histogram())
        histogram.add(bucket, int(count), total_s)
    return steps
