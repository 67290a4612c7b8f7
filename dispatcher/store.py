"""What the dispatcher asks of its store, as plain data.

All that gathered since the last turn is one `Exchange`: ended, released and begun attempts are written and
new ones claimed in one transaction. That is the group commit of the dispatcher's side: under load an
exchange carries many, idle it carries one.

Structs of msgspec, as the messages are: a frozen dataclass takes ten times as long to make.

Two stores answer: `dispatcher.django_store` and, for tests and simulation, `dispatcher.memory`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import Struct

from everythingfaas.pythons import Minor
from everythingfaas.status import Event, Outcome
from everythingfaas.wire.messages import Error

#: How long a dispatcher's attempts are its own without a renewal, by the clock of the store.
LEASE_S = 10.0


class Policy(Struct, frozen=True):
    """What may be done about a task whose attempt did not complete."""

    at_most_once: bool = False  #: `on_worker_lost="fail"`: begun once at the most, whatever happens
    max_attempts: int = 3  #: limits `starts`
    retries: int = 0  #: how often a function that raised is tried again
    backoff_s: float = 1.0  #: before the first such retry, doubled each time
    retry_on: tuple[str, ...] = ()  #: names of the exceptions that are tried again; none: all
    fresh_process: bool = False  #: each run in a process that has run nothing before
    memory_limit_mb: int | None = None  #: MiB that all processes of a run may use together


DEFAULT_POLICY = Policy()


class Claimed(Struct, frozen=True):
    """An attempt that is given out to this dispatcher: committed, with its number already counted."""

    task: str
    attempt: int
    owner: str
    function: str  #: sha256 of the function's bytes, hex
    payload: bytes
    policy: Policy = DEFAULT_POLICY
    deadline_s: float | None = None
    starts: int = 0
    deaths: int = 0
    failures: int = 0
    begun: bool = False  #: this attempt's begin is recorded
    cancelled: bool = False  #: somebody has asked to end it
    requirements: str = ""  #: of its queue: who may run it, see `everythingfaas.pythons`


class Ended(Struct, frozen=True):
    """An attempt after which the task is over."""

    task: str
    attempt: int
    event: Event  #: COMPLETE, FAIL or CANCEL
    outcome: Outcome
    result: bytes
    begun: bool  #: a slot had begun it
    elapsed_s: float
    ago_s: float
    died: bool = False  #: counts as a death
    raised: bool = False  #: counts as a failure
    summary: str = ""  #: one line for lists, empty on success
    worker: str = ""
    slot: int = -1
    exit_code: int | None = None
    exit_signal: int | None = None
    error: Error | None = None
    head: bytes = b""
    tail: bytes = b""
    dropped: int = 0


class Released(Struct, frozen=True):
    """An attempt after which the task goes back to the queue, at once or later."""

    ended: Ended | None  #: what is kept of the attempt; None: given back unbegun, as if never given out
    task: str
    attempt: int
    delay_s: float = 0.0


class Begin(Struct, frozen=True):
    task: str
    attempt: int
    ago_s: float
    worker: str = ""


class Printed(Struct, frozen=True):
    """What a running attempt has printed, for those who watch it."""

    task: str
    attempt: int
    data: bytes
    dropped: int = 0  #: bytes left out behind it
    last: bool = False  #: the attempt has ended, and what is kept of its output is with it


class Unmatched(Struct, frozen=True):
    """What has waited for so long in a queue that no connected worker matches is to fail."""

    requirements: str
    waited_s: float
    message: str


@dataclass(slots=True)
class Exchange:
    """One turn with the store."""

    ended: list[Ended] = field(default_factory=list)
    released: list[Released] = field(default_factory=list)
    begun: list[Begin] = field(default_factory=list)
    room: dict[Minor, int] = field(default_factory=dict)  #: how many attempts may be given out, by the workers' Python
    functions: set[str] = field(default_factory=set)  #: bytes wanted of these
    #: Attempts that a returning worker holds. What is neither adopted nor refused is another dispatcher's as long as
    #: that one's lease lasts: ask again.
    adopt: list[tuple[str, int]] = field(default_factory=list)
    look: bool = False  #: once a second: due, expired and unmatched tasks, cancellations
    pythons: frozenset[Minor] = frozenset()  #: of all workers, for the look
    unmatched: list[Unmatched] = field(default_factory=list)  #: to fail
    renew: bool = False  #: this dispatcher's lease
    snapshot: list[dict[str, Any]] | None = None  #: of the workers, for people
    slots: int | None = None  #: in how many slots attempts of ours may be, to be kept with the lease
    take_over: list[str] = field(default_factory=list)  #: dispatchers that are dead, if their leases still are out
    recall: bool = False  #: after a failed exchange: list everything held, to find what was lost with it

    @property
    def claim(self) -> int:
        """How many attempts may be given out."""
        return sum(self.room.values())

    @property
    def writes_nothing(self) -> bool:
        """It only asks: whether there is something to claim, or due."""
        return not (
            self.ended
            or self.released
            or self.begun
            or self.functions
            or self.adopt
            or self.renew
            or self.recall
            or self.unmatched
            or self.take_over
        )

    def __bool__(self) -> bool:
        return bool(
            self.ended
            or self.released
            or self.begun
            or self.room
            or self.functions
            or self.adopt
            or self.look
            or self.renew
            or self.recall
            or self.unmatched
            or self.take_over
        )


class Taken(Struct, frozen=True):
    """What a dead dispatcher had in its books, and is in ours now."""

    held: list[Claimed]  #: the oldest claim first
    slots: int  #: in how many slots they may have been


@dataclass(slots=True)
class Exchanged:
    """What came of an `Exchange`, after its commit."""

    claimed: list[Claimed] = field(default_factory=list)
    functions: dict[str, bytes] = field(default_factory=dict)
    adopted: list[Claimed] = field(default_factory=list)
    refused: list[tuple[str, int]] = field(default_factory=list)  #: not ours any more: kill
    cancelled: list[tuple[str, int]] = field(default_factory=list)  #: running, and somebody wants them ended
    held: list[Claimed] | None = None  #: answer to `recall`
    stale: int = 0  #: ended attempts that were too late and changed nothing
    more: bool = False  #: fewer were claimed than asked for, and yet there are more
    left: frozenset[Minor] = frozenset()  #: of several Pythons, those for which more is queued than they had room for
    unmatched: list[str] | None = (
        None  #: requirements of queued tasks that no worker of anybody matches; None: not known
    )
    pythons: frozenset[Minor] = frozenset()  #: of all workers of all dispatchers, where something is unmatched
    lease_lost: bool = False
    lapsed: list[str] | None = None  #: other dispatchers whose leases are out; None: nobody has looked
    taken: list[Taken] = field(default_factory=list)  #: from those that were to be taken over


class Registration(Struct, frozen=True):
    """This dispatcher's row after the start."""

    dispatcher: str
    epoch: int
    generation: int
    held: list[Claimed]  #: given out by an earlier run of this dispatcher, the oldest claim first
    slots: int = 0  #: how many slots that run had, its workers' included


class TaskStore(Protocol):
    """Where tasks are. All methods block, and are called from one thread."""

    def register(self, *, mode: str, slots: int) -> Registration:
        """Makes this dispatcher's row, or takes it over with a new epoch."""

    def exchange(self, exchange: Exchange) -> Exchanged:
        """Writes and claims, in one transaction. Of attempts that another dispatcher has taken over nothing is written.

        Raises:
            StoreUnavailable: nothing is known to be written; the same exchange may be repeated, as every
                statement in it compares before it sets.
        """

    def close(self) -> None: ...
