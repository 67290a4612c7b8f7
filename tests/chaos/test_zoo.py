"""A few inhabitants of the zoo, in the suite; `make chaos` shows them all, in each mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import zoo

SHOWN = (
    "exits",
    "kills_its_parent",
    "stops_its_parent",
    "stops_its_supervisor",
    "raises_unpicklable",
    "returns_what_exits_when_loaded",
    "blocks_signals_and_spins",
    "is_a_fork_bomb",
    "leaves_a_daemon",
    "leaves_files",
    "patches_builtins",
    "closes_its_descriptors",
)


def test_every_animal_is_there_once() -> None:
    names = [animal.name for animal in zoo.ZOO]
    assert len(set(names)) == len(names) >= 25
    assert set(SHOWN) <= set(names)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["local", "push"])
def test_hostile_functions_harm_nobody_else(mode: str, tmp_path: Path) -> None:
    shown = [animal for animal in zoo.ZOO if animal.name in SHOWN]
    visits = zoo.visit(mode, shown, tmp_path, report=lambda visit: None)
    assert len(visits) == len(SHOWN) + 1
    assert [visit for visit in visits if visit.faults] == []
