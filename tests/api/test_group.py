"""How turns form: of whatever waits, and where that is asked for, of those who are expected back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

from api.group import Group, Waiting


class Gated(Group[str, str]):
    """Its turns last until the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.began = threading.Event()
        self.turns: list[list[str]] = []
        super().__init__("gated", asyncio.get_running_loop())

    def _work(self, taken: list[Waiting[str, str]]) -> Sequence[str]:
        taken.extend(self.take())
        self.turns.append([waiting.item for waiting in taken])
        self.began.set()
        assert self.gate.wait(30)
        return self.turns[-1]


class Patient(Gated):
    gather_share = 1e6
    gather_max_s = 30.0


class Brief(Gated):
    gather_share = 1e6
    gather_max_s = 0.01


def turns_of(kind: type[Gated], callers: Callable[[Gated], Awaitable[None]]) -> list[list[str]]:
    async def main() -> list[list[str]]:
        group = kind()
        try:
            await asyncio.wait_for(callers(group), 20)
        finally:
            group.gate.set()
            await asyncio.wait_for(group.close(), 20)
        return group.turns

    return asyncio.run(main())


async def two_and_one(group: Gated) -> None:
    """Two who come again as soon as they are answered, and a third one who comes during their first turn."""

    async def twice(name: str) -> None:
        await group.ask(name)
        await group.ask(name.upper())

    two = asyncio.gather(twice("a"), twice("b"))
    await asyncio.to_thread(group.began.wait, 10)
    third = group.ask("c")
    group.gate.set()
    await asyncio.gather(two, third)


def test_those_who_were_answered_join_those_who_wait():
    turns = turns_of(Patient, two_and_one)
    assert turns[0] == ["a", "b"]
    assert [sorted(turn) for turn in turns[1:]] == [["A", "B", "c"]]


def test_nobody_waits_long_for_those_who_do_not_come():
    async def once(group: Gated) -> None:
        group.gate.set()
        await asyncio.gather(*map(group.ask, "abc"))
        await group.ask("d")

    assert turns_of(Brief, once) == [["a", "b", "c"], ["d"]]


def test_a_lone_caller_waits_for_nobody():
    async def alone(group: Gated) -> None:
        group.gate.set()
        for name in "abc":
            await group.ask(name)

    assert turns_of(Patient, alone) == [["a"], ["b"], ["c"]]


def test_stopping_waits_for_nobody():
    async def left(group: Gated) -> None:
        group.gate.set()
        await asyncio.gather(*map(group.ask, "abc"))
        group.ask("d")  # and `close` comes at once

    assert turns_of(Patient, left) == [["a", "b", "c"], ["d"]]
