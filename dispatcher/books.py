"""What a scheduler has written down of its workers, and of what it has given to whom."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from dispatcher.policies import SHORT_S, prefetch
from dispatcher.store import Claimed
from everythingfaas.wire.messages import FromDispatcher, Hello

#: Weight of the newest run in the running mean of how long tasks run.
RUN_WEIGHT = 0.1
#: How long tasks run on a worker that has not run any.
UNKNOWN_RUN_S = 1.0

Key = tuple[str, int]


class Send(Struct, frozen=True):
    """A message for a worker."""

    peer: bytes
    message: FromDispatcher


@dataclass(slots=True, eq=False)
class Assignment:
    """An attempt of ours, from its claim to the commit of its end."""

    task: Claimed
    worker: Worker | None = None
    sent_in: int = 0  #: number of the `Run` it travelled in
    begun: bool = False
    cancelled: bool = False
    ending: bool = False  #: its end is on the way to the store
    printed: bool = False  #: something of its output was passed on

    @property
    def key(self) -> Key:
        return self.task.task, self.task.attempt


@dataclass(slots=True, eq=False)
class Worker:
    """A registered worker."""

    peer: bytes
    hello: Hello
    heard_at: float
    beat_at: float
    run_s: float | None = None  #: how long tasks run on average; None: it has not run any
    ahead: int = 0  #: how many attempts it gets beyond its slots
    stalled: bool = False  #: it has given back what waited behind a long task
    draining: bool = False
    blocked: bool = False  #: the last `Run` for it could not be sent, and it has said nothing since
    confirmed: bool = False  #: it has said something after its Welcome, so it hears us
    credit: int | None = None  #: how many attempts it has asked for and not got; None: it is sent to unasked
    pulled: int = 0  #: number of its last `Pull`
    assigned: dict[Key, Assignment] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    last_run: int = 0
    told_run: int = 0  #: number of the last `Run` at the last heartbeat
    welcomed: int = 0
    load: int = 0  #: assigned attempts that have not ended

    @property
    def slots(self) -> int:
        return self.hello.slots

    @property
    def takes(self) -> bool:
        """Whether it may be sent anything now."""
        return self.confirmed and not self.blocked and not self.draining and self.credit != 0

    @property
    def room(self) -> int:
        return self._granted(self.slots + self.ahead - self.load)

    @property
    def free(self) -> int:
        return self._granted(max(0, self.slots - self.load))

    def _granted(self, wanted: int) -> int:
        if self.draining or self.blocked or not self.confirmed:
            return 0
        return wanted if self.credit is None else min(wanted, self.credit)

    def ran(self, elapsed_s: float) -> None:
        """A run has ended."""
        known = self.run_s
        self.run_s = elapsed_s if known is None else known + RUN_WEIGHT * (elapsed_s - known)
        self.stalled = False

    @property
    def is_short(self) -> bool:
        """Whether what it has been given will have ended in a moment, on average."""
        return self.run_s is not None and self.run_s < SHORT_S

    def look_ahead(self, turn_s: float) -> None:
        """Decides anew how many attempts it gets beyond its slots."""
        run_s = UNKNOWN_RUN_S if self.run_s is None else self.run_s
        self.ahead = 0 if self.stalled else prefetch(self.slots, run_s, turn_s)

    def take(self, assignment: Assignment) -> None:
        assignment.worker = self
        self.assigned[assignment.key] = assignment
        self.load += not assignment.ending
