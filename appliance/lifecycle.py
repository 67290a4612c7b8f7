"""When to start, restart and stop which process: decided here, performed in `appliance.supervisor`.

No I/O and no clock: events come in as calls with the time, actions come out as a list, and `next_deadline` says
when to call `expire`. So back-off and stop order are tested without a process and without waiting.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
#: A process that ran for so long is healthy: its next death is restarted as fast as the first.
HEALTHY_S = 30.0
#: `timeout`, make and terminals send one wish to stop twice (to the process and to its group); that is no hurry.
ONE_WISH_S = 0.5
#: A service that was stopped by a signal, and does not go on within this time, is killed. Its dispatcher waits five
#: seconds for a worker.
STOPPED_S = 3.0
#: One whose pulse was felt and is not any more hangs.
SILENT_S = 20.0
#: If we come so late for either, we did not run ourselves (a suspended laptop), and nor may the others have.
LATE_S = 2.0
#: How long a process that was killed may take to be gone, before the next one is stopped all the same.
KILLED_S = 0.3


class Role(enum.Enum):
    SERVICE = "service"  #: runs until it is stopped, and again when it dies
    STEP = "step"  #: must succeed before anything behind it in the plan starts
    PROBE = "probe"  #: succeeds when everything serves
    AFTERWARDS = "afterwards"  #: runs once when everything serves; its failure is reported, no more


@dataclass(frozen=True)
class ProcessSpec:
    """One process of a plan. The order of a plan is the order of starting."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)  #: all of it: nothing is inherited
    role: Role = Role.SERVICE
    stop_rank: int = 0  #: the lower ranks are stopped, and gone, first
    stop_share: float = 1.0  #: of the time for stopping, relative to the other ranks
    speaks: bool = False  #: to the user, whatever its role; else what it says goes into a log
    farewell: Callable[[], None] | None = None  #: called after SIGTERM, for who listens to something faster


@dataclass(frozen=True)
class Spawn:
    name: str


@dataclass(frozen=True)
class Terminate:
    name: str


@dataclass(frozen=True)
class Kill:
    """SIGKILL, with everything below it."""

    name: str


@dataclass(frozen=True)
class Announce:
    """Everything serves."""


@dataclass(frozen=True)
class Say:
    text: str


@dataclass(frozen=True)
class ShowLog:
    """Show the user the last lines that a process wrote."""

    name: str


@dataclass(frozen=True)
class Finish:
    """Kill whatever is left and exit."""

    status: int


Action = Spawn | Terminate | Kill | Announce | Say | ShowLog | Finish


class _Phase(enum.IntEnum):
    STARTING = 1
    SERVING = 2
    STOPPING = 3
    FINISHED = 4


@dataclass
class _Process:
    spec: ProcessSpec
    running: bool = False
    began: float = 0.0
    deaths: int = 0  #: since it was last healthy
    restart_at: float | None = None
    stopped_until: float | None = None  #: is to be killed then
    silent_until: float | None = None  #: and then; None before its first pulse


class Lifecycle:
    """The life of one appliance, from the first process to the last."""

    def __init__(self, plan: Sequence[ProcessSpec], *, shutdown_s: float) -> None:
        self._processes = {spec.name: _Process(spec) for spec in plan}
        self._unstarted = [spec for spec in plan if spec.role is not Role.AFTERWARDS]
        self._shutdown_s = shutdown_s
        self._phase = _Phase.STARTING
        self._status = 0
        self._stop_began = 0.0
        self._ranks: list[tuple[float, list[_Process]]] = []  #: when its time is over, and who has to stop by then
        self._rank_deadline: float | None = None
        self._rank_killed = False

    def start(self, now: float) -> list[Action]:
        """Start everything up to the first STEP, or all of it when no STEP is left."""
        actions: list[Action] = []
        while self._unstarted:
            spec = self._unstarted.pop(0)
            actions.append(self._spawn(spec.name, now))
            if spec.role is Role.STEP:
                return actions
        if not any(process.spec.role is Role.PROBE for process in self._processes.values()):
            actions += self._serve(now)
        return actions

    def exited(self, name: str, code: int, now: float) -> list[Action]:
        """A process ended: `code` is its exit status, or the negative number of the signal that ended it."""
        process = self._processes[name]
        process.running = False
        process.stopped_until = process.silent_until = None
        if self._phase is _Phase.FINISHED:
            return []
        if self._phase is _Phase.STOPPING:
            return self._stop_next(now)
        if process.spec.role is Role.AFTERWARDS:
            return [Say(f"{name} failed ({describe(code)}); everything goes on")] if code else []
        if process.spec.role is Role.STEP and code == 0:
            return self.start(now)
        if process.spec.role is Role.PROBE and code == 0:
            return self._serve(now)
        if self._phase is _Phase.STARTING:
            return [
                ShowLog(name),
                Say(f"{name} ended ({describe(code)}) before everything served; stopping"),
                *self.stop(now, status=1),
            ]
        return [self._restart_later(process, code, now)]

    def stopped(self, name: str, now: float) -> None:
        """A signal has stopped it; some function may have sent that."""
        self._processes[name].stopped_until = now + STOPPED_S

    def continued(self, name: str) -> None:
        """It goes on."""
        self._processes[name].stopped_until = None

    def pulse(self, name: str, now: float) -> None:
        """It says that it does not hang."""
        self._processes[name].silent_until = now + SILENT_S

    def interrupt(self, now: float) -> list[Action]:
        """The user wants it to stop: in order the first time, at once the second."""
        if self._phase is _Phase.STOPPING and now - self._stop_began >= ONE_WISH_S:
            self._status = 1
            return [Say("killing everything"), *self._finish()]
        return self.stop(now)

    def stop(self, now: float, *, status: int = 0) -> list[Action]:
        """Stop everything in order, with that exit status at the end."""
        if self._phase >= _Phase.STOPPING:
            return []
        self._phase = _Phase.STOPPING
        self._status = status
        self._stop_began = now
        for process in self._processes.values():
            process.restart_at = None
        self._ranks = self._ranks_to_stop(now)
        return self._stop_next(now)

    def next_deadline(self) -> float | None:
        """When `expire` is to be called; None: only an event moves anything on."""
        times = [process.restart_at for process in self._processes.values()] + [self._rank_deadline]
        times += [time for process in self._watched() for time in (process.stopped_until, process.silent_until)]
        return min((time for time in times if time is not None), default=None)

    def expire(self, now: float) -> list[Action]:
        """Do what is due by `now`."""
        actions: list[Action] = []
        for name, process in self._processes.items():
            if process.restart_at is not None and process.restart_at <= now:
                process.restart_at = None
                actions.append(self._spawn(name, now))
        for process in self._watched():
            actions += self._look_after(process, now)
        if self._rank_deadline is not None and self._rank_deadline <= now:
            actions += self._rank_is_late(now)
        return actions

    def _watched(self) -> list[_Process]:
        """Who is to be killed if it does nothing."""
        if self._phase is not _Phase.SERVING:
            return []
        return [process for process in self._processes.values() if process.spec.role is Role.SERVICE]

    def _look_after(self, process: _Process, now: float) -> list[Action]:
        stopped, silent = process.stopped_until, process.silent_until
        if stopped is not None and now >= stopped + LATE_S:
            process.stopped_until = now + STOPPED_S
        elif stopped is not None and now >= stopped:
            return self._give_up(process, f"was stopped by a signal {STOPPED_S:g} s ago")
        if silent is not None and now >= silent + LATE_S:
            process.silent_until = now + SILENT_S
        elif silent is not None and now >= silent:
            return self._give_up(process, f"has given no sign of life for {SILENT_S:g} s")
        return []

    def _give_up(self, process: _Process, reason: str) -> list[Action]:
        process.stopped_until = process.silent_until = None  # its end is what comes next
        return [Say(f"{process.spec.name} {reason}; killing it"), Kill(process.spec.name)]

    def _spawn(self, name: str, now: float) -> Action:
        process = self._processes[name]
        process.running = True
        process.began = now
        return Spawn(name)

    def _serve(self, now: float) -> list[Action]:
        self._phase = _Phase.SERVING
        then = [name for name, process in self._processes.items() if process.spec.role is Role.AFTERWARDS]
        return [Announce(), *(self._spawn(name, now) for name in then)]

    def _restart_later(self, process: _Process, code: int, now: float) -> Action:
        if now - process.began >= HEALTHY_S:
            process.deaths = 0
        # The exponent is limited because 2.0 ** 1024 is no float, and a process may well die that often.
        pause = min(FIRST_PAUSE_S * 2.0 ** min(process.deaths, 20), LONGEST_PAUSE_S)
        process.deaths += 1
        process.restart_at = now + pause
        return Say(f"{process.spec.name} ended ({describe(code)}); starting it again in {pause:.1f} s")

    def _ranks_to_stop(self, now: float) -> list[tuple[float, list[_Process]]]:
        """Who runs now, by rank. What one rank leaves of its share is there for the next."""
        ranks: dict[int, list[_Process]] = {}
        for process in self._processes.values():
            if process.running:
                ranks.setdefault(process.spec.stop_rank, []).append(process)
        shares = {rank: max(process.spec.stop_share for process in found) for rank, found in ranks.items()}
        total = sum(shares.values())
        over, result = 0.0, []
        for rank in sorted(ranks):
            over += shares[rank]
            result.append((now + self._shutdown_s * over / total, ranks[rank]))
        return result

    def _stop_next(self, now: float) -> list[Action]:
        """Go on to the next rank once the present one is gone."""
        if self._rank_deadline is not None and any(process.running for process in self._ranks[0][1]):
            return []
        if self._rank_deadline is not None:
            self._ranks.pop(0)
            self._rank_deadline = None
        while self._ranks:
            deadline, processes = self._ranks[0]
            running = [process for process in processes if process.running]
            if running:
                self._rank_deadline = max(deadline, now)
                self._rank_killed = False
                return [Terminate(process.spec.name) for process in running]
            self._ranks.pop(0)
        return self._finish()

    def _rank_is_late(self, now: float) -> list[Action]:
        running = [process for process in self._ranks[0][1] if process.running]
        if not self._rank_killed:
            self._rank_killed = True
            self._rank_deadline = now + KILLED_S
            late: list[Action] = []
            for process in running:
                late += [Say(f"{process.spec.name} did not stop in time; killing it"), Kill(process.spec.name)]
            return late
        for process in running:  # it hangs in the kernel: `Finish` tries again, and the front once more
            process.running = False
        return self._stop_next(now)

    def _finish(self) -> list[Action]:
        self._phase = _Phase.FINISHED
        self._rank_deadline = None
        return [Finish(self._status)]


def describe(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
