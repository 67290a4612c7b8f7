"""A few kills of what does not want to end, in the suite; `make chaos` makes 200 in each mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.latency import measure


@pytest.mark.slow
def test_a_slot_is_free_again_within_a_second(tmp_path: Path) -> None:
    rows = measure("push", redis=True, kills=16, folder=tmp_path)
    assert sorted(row.kind for row in rows) == ["cancel", "deadline"]
    assert sum(len(row.latencies_s) for row in rows) >= 12
    assert [str(row) for row in rows if not row.is_kept] == []
