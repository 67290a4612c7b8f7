"""When the dispatcher turns to the store: at once for a lone task, for many short ones together."""

from __future__ import annotations

import math

import pytest

from dispatcher.policies import GATHER_MAX_S, GATHER_S, Pace
from tests.unit.pair import Pair

NOW = 1000.0


def test_nothing_given_out_waits_for_nothing() -> None:
    pace = Pace()
    assert pace.allows(0, NOW)
    pace.answered(0, NOW)
    assert pace.allows(0, NOW)
    assert pace.due == math.inf


def test_short_tasks_are_waited_for_until_they_have_ended() -> None:
    pace = Pace()
    pace.answered(8, NOW)
    assert not pace.allows(8, NOW)
    assert not pace.allows(1, NOW + 7 * GATHER_S)
    assert pace.allows(0, NOW + 7 * GATHER_S)


def test_they_are_not_waited_for_longer_than_their_number_says() -> None:
    pace = Pace()
    pace.answered(8, NOW)
    assert pace.due == pytest.approx(NOW + 8 * GATHER_S)
    assert pace.allows(8, NOW + 9 * GATHER_S)
    assert pace.due == math.inf  # nothing left to wake up for


def test_when_the_time_is_over_it_stays_so_until_the_next_turn() -> None:
    pace = Pace()
    pace.answered(1, NOW)
    assert pace.allows(1, NOW + 1)  # and there was nothing to write
    assert pace.allows(1, NOW + 2)  # now there is


def test_however_many_they_are_results_are_acknowledged_soon() -> None:
    pace = Pace()
    pace.answered(100_000, NOW)
    assert pace.due == pytest.approx(NOW + GATHER_MAX_S)
    assert GATHER_MAX_S <= 0.005


def test_only_workers_whose_tasks_are_short_count() -> None:
    pair = Pair(slots=2)
    pair.submit()
    pair.submit()
    pair.settle(seconds=1, finish=False)
    assert len(pair.workers[0].running) == 2
    assert pair.scheduler.short == 0  # of new workers it is not known
    for _ in range(200):
        pair.submit()
    pair.settle(seconds=2)
    assert pair.scheduler.short == 0  # nothing is given out
    pair.submit()
    pair.settle(seconds=1, finish=False)
    assert pair.scheduler.short == 1
