"""The last quarter of an hour by the minute: what ended, and how long it waited and ran."""

from __future__ import annotations

from django.db.backends.utils import CursorWrapper

from api.access.caller import Sees
from api.models import Series
from api.tally import Histogram, history

#: How many minutes are shown, the one that runs among them.
MINUTES = 15
_ENDS = (Series.COMPLETED, Series.FAILED, Series.CANCELLED)

#: Start in seconds since 1970; submitted, completed, failed, cancelled; p50 and p95 of waiting, and of running.
Minute = tuple[int, int, int, int, int, float | None, float | None, float | None, float | None]


class History:
    """The last minutes. Those that are over are read once: writers are at most a commit behind. For one thread."""

    def __init__(self, sees: Sees = None) -> None:
        self._sees = sees
        self._steps: dict[int, dict[Series, Histogram]] = {}
        self._whole = 0  # the minute in which all of them were read last

    def read(self, cursor: CursorWrapper, now: float) -> list[Minute]:
        """A row for each minute, the oldest first."""
        current = int(now // 60) * 60
        first = current - 60 * (MINUTES - 1)
        since = current - 60 if self._whole == current else first
        fresh = history(cursor, since, now + 60, self._sees)
        self._steps = {at: step for at, step in self._steps.items() if first <= at < since} | fresh
        self._whole = current
        return [_minute(at, self._steps.get(at, {})) for at in range(first, current + 60, 60)]


def _minute(at: int, step: dict[Series, Histogram]) -> Minute:
    none = Histogram()
    submitted, completed, failed, cancelled = (step.get(series, none).count for series in (Series.SUBMITTED, *_ENDS))
    wait, run = step.get(Series.WAIT, none), Histogram()
    for series in _ENDS:
        for bucket, count in step.get(series, none).buckets.items():
            run.add(bucket, count, 0.0)
    quantiles = (wait.quantile(0.5), wait.quantile(0.95), run.quantile(0.5), run.quantile(0.95))
    p = [None if value is None else round(value, 4) for value in quantiles]
    return (at, submitted, completed, failed, cancelled, p[0], p[1], p[2], p[3])
