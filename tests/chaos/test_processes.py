"""A short course of killing real processes, in the suite; `make chaos` does it for 90 s, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.processes import run


@pytest.mark.slow
def test_what_is_accepted_ends_once_whatever_is_killed(tmp_path: Path) -> None:
    report = run(tmp_path, kind="sqlite", modes=("push", "local"), seconds=8, seed=5, slots=4)
    assert report.wrong == []
    assert report.accepted > 20
    assert report.faults.total() > 3
    assert report.lost > 0
