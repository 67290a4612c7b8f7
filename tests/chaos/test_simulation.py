"""Some hundred seeds of the simulation, and its negative controls. `make chaos` runs thousands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.chaos.simulate import simulate_many
from tests.chaos.simulate_controls import CONTROLS, first_violation


def test_nothing_is_lost_and_nothing_ends_twice() -> None:
    outlines = simulate_many(range(100, 300))
    assert [f"seed {outline.seed}: {outline.violation}" for outline in outlines if outline.violation] == []
    assert sum(outline.counts["tasks"] for outline in outlines) > 5000
    for what in ("taken over", "adopted", "stale", "COMPLETED", "FAILED", "CANCELLED"):
        assert sum(outline.counts[what] for outline in outlines) > 0, f"{what} has not happened"


@pytest.mark.parametrize("control", CONTROLS)
def test_a_safeguard_that_is_taken_out_is_missed(control: str) -> None:
    parts, rules = CONTROLS[control]
    first = first_violation(parts).violation
    assert any(f" {rule}:" in first for rule in rules), first or "nobody has noticed"


def test_a_seed_is_the_same_run_again() -> None:
    """In another process, whatever the order in which its sets are walked through."""
    runs = [
        subprocess.run(
            [sys.executable, "-m", "tests.chaos.simulate", "--seed", "7", "--trace"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]) > 10_000
