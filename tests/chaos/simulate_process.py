"""What the simulated dispatchers and workers have in common: turns, a timer, and lives that end."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.simulate_world import World


class Process:
    """Something that takes turns, and may be suspended or dead."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.life = 0  # of which an event speaks: one of an earlier life happens to nobody
        self.alive = False
        self.suspended_until = 0.0
        self._timer_at = float("inf")

    @property
    def runs(self) -> bool:
        return self.alive and self.world.now >= self.suspended_until

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Does `what` then, if this life still lasts."""
        life = self.life
        self.world.at(delay_s, lambda: what() if self.life == life else None)

    def suspend(self, seconds: float) -> None:
        self.world.say(self.name, f"is suspended for {seconds:.1f} s")
        self.suspended_until = self.world.now + seconds
        self.later(seconds, self.go_on)

    def go_on(self) -> None:
        if self.runs:
            self.turn()

    def wake(self) -> None:
        if self.runs:
            self.turn()

    def turn(self) -> None:
        raise NotImplementedError

    def next_deadline(self) -> float:
        raise NotImplementedError

    def set_timer(self) -> None:
        due = self.next_deadline()
        if due < self._timer_at:
            self._timer_at = due
            life = self.life
            self.world.at_time(max(self.world.now, due), lambda: self._timer(life, due))

    def _timer(self, life: int, due: float) -> None:
        if life != self.life or due != self._timer_at:
            return
        self._timer_at = float("inf")
        if not self.runs:
            return
        if self.next_deadline() <= self.world.now:
            self.turn()
        else:
            self.set_timer()
