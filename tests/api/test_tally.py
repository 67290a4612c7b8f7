"""Numbers that are kept, against numbers that are counted."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from api import moves, tally
from api.models import Series, Task
from api.tally import Tally, bounds_of, bucket_of
from everythingfaas.status import Event, State

from .conftest import NOW, Workshop, committed, ended, in_parallel, released


@given(st.floats(min_value=0, max_value=1e9))
def test_a_duration_lies_in_its_bucket(seconds: float) -> None:
    bucket = bucket_of(seconds)
    low, high = bounds_of(bucket)
    assert seconds >= low or math.isclose(seconds, low)
    assert seconds < high or math.isclose(seconds, high) or bucket == bucket_of(1e9)


def test_a_quantile_is_about_right() -> None:
    histogram = tally.Histogram()
    durations = sorted(random.Random(1).lognormvariate(0, 2) for _ in range(2000))
    for duration in durations:
        histogram.add(bucket_of(duration), 1, duration)
    histogram.add(tally.NEVER, 500, 0.0)
    for q in (0.5, 0.95, 0.99):
        assert histogram.quantile(q) == pytest.approx(durations[int(q * 2000)], rel=0.25)
    assert histogram.count == 2500
    assert tally.Histogram().quantile(0.5) is None


def count(owner: int | None = None) -> dict[State, int]:
    tasks = Task.objects.all() if owner is None else Task.objects.filter(owner=owner)
    counted = Counter(tasks.values_list("state", flat=True))
    return {state: counted[state] for state in State}


def move_at_random(workshop: Workshop, writer: Tally, owners: list[int], seed: int) -> None:
    chance = random.Random(seed)
    held: list[Any] = []
    for _ in range(25):
        try:
            with committed() as cursor:
                batch = [
                    workshop.submission(owner=chance.choice(owners), run_after=chance.choice([None, NOW + 9]))
                    for _ in range(chance.randrange(6))
                ]
                for submission, accepted in zip(batch, moves.submit(cursor, batch), strict=True):
                    writer.moved(submission.owner, None, accepted.state)
                claimed = moves.claim(cursor, workshop.dispatcher, [1], chance.randrange(6), 1 << 20, NOW)
                for task in claimed:
                    writer.moved(task.owner, State.QUEUED, State.RUNNING)
                held += claimed
                chance.shuffle(held)
                some, held = held[:3], held[3:]
                reopened, cancelled = moves.release(
                    cursor, [released(c, chance.choice([Event.REQUEUE, Event.POSTPONE])) for c in some[:1]], NOW
                )
                closed = moves.end(cursor, [ended(c, chance.choice([Event.COMPLETE, Event.FAIL])) for c in some[1:]])
                closed += moves.withdraw(cursor, [s.id for s in batch[:1]], NOW)
                for item in reopened:
                    writer.moved(item.owner, State.RUNNING, item.state)
                for item in moves.promote(cursor, NOW + 60, 2):
                    writer.moved(item.owner, State.WAITING, item.state)
                for task in closed + cancelled:
                    writer.moved(task.owner, task.was, task.state)
                    ran = None if task.started is None else task.finished - task.started
                    writer.finished(task.owner, task.state, ran and 1.5, ran, task.finished)
                writer.flush(cursor)
                _ = 1 / int(chance.random() < 0.8)
        except ZeroDivisionError:  # the transaction fails, one time in five
            writer.rolled_back()
            held = []  # some of them were never claimed, and some never ended: nobody knows, nobody cares
        else:
            writer.committed()


def test_the_counters_are_what_is_counted(workshop: Workshop) -> None:
    owners = [workshop.owner, workshop.another_owner()]

    in_parallel(
        [
            lambda: move_at_random(workshop, Tally("one"), owners, 1),
            lambda: move_at_random(workshop, Tally("two"), owners, 2),
        ]
    )

    with committed() as cursor:
        for absorbed in (None, "one", "one", "two"):
            if absorbed is not None:
                tally.absorb(cursor, absorbed)
            assert tally.totals(cursor) == count()
            for owner in owners:
                assert tally.totals(cursor, {owner}) == count(owner)
        cursor.execute("SELECT DISTINCT writer FROM api_counter UNION SELECT DISTINCT writer FROM api_rollup")
        assert cursor.fetchall() == [("",)]


def test_the_history_is_what_happened(workshop: Workshop) -> None:
    writer = Tally("w")
    minute = NOW // 60 * 60
    writer.finished(workshop.owner, State.COMPLETED, 0.5, 2.0, minute + 59.9)
    writer.finished(workshop.owner, State.COMPLETED, 0.5, 4.0, minute + 60)
    writer.finished(workshop.owner, State.FAILED, None, None, minute + 120)
    with committed() as cursor:
        writer.flush(cursor)
    writer.committed()
    with committed() as cursor:
        writer.flush(cursor)  # nothing any more

    with connection.cursor() as cursor:
        steps = tally.history(cursor, minute, minute + 180)
        assert sorted(steps) == [minute, minute + 60, minute + 120]
        assert steps[int(minute)][Series.COMPLETED].total_s == 2.0
        assert steps[int(minute) + 120][Series.FAILED] == tally.Histogram(1, 0.0, {})
        assert Series.WAIT not in steps[int(minute) + 120]
        assert tally.history(cursor, minute, minute + 180, {-1}) == {}
        assert sorted(tally.history(cursor, minute + 60, minute + 120)) == [minute + 60]
        (hour,) = tally.history(cursor, minute, minute + 180, step_s=86400).values()
        assert hour[Series.COMPLETED].count == 2
        assert hour[Series.WAIT].quantile(0.5) == pytest.approx(0.5, rel=0.25)


def test_what_is_new_is_counted_as_submitted(workshop: Workshop) -> None:
    writer = Tally("w")
    writer.moved(workshop.owner, None, State.QUEUED, 3)
    writer.moved(workshop.owner, State.QUEUED, State.RUNNING)
    with committed() as cursor:
        writer.flush(cursor)
        (step,) = tally.history(cursor, 0, 1e10, step_s=60).values()
    assert {series: histogram.count for series, histogram in step.items()} == {Series.SUBMITTED: 3}


def test_what_was_rolled_back_is_forgotten(workshop: Workshop) -> None:
    writer = Tally("w")
    writer.moved(workshop.owner, None, State.QUEUED)
    writer.rolled_back()
    with committed() as cursor:
        writer.flush(cursor)
        assert set(tally.totals(cursor).values()) == {0}
