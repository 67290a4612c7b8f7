"""What goes into the statements and what comes out of them.

Times are float seconds since 1970 UTC, durations float seconds, ids `uuid.UUID`, owners the number of a user,
policies the JSON text that is stored. Nothing here knows of a database.

Structs of msgspec: several are made for each task, and a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from api.models import ANY_QUEUE, Codec
from everythingfaas.status import Event, Outcome, State


class Submission(Struct, frozen=True):
    """A task to be accepted. It waits if `run_after` lies after `created`, else it is queued."""

    id: UUID
    owner: int
    function: UUID
    payload: bytes
    created: float
    queue: int = ANY_QUEUE
    priority: int = 0
    run_after: float | None = None
    expires_at: float | None = None
    deadline_s: float | None = None
    at_most_once: bool = False
    max_attempts: int = 3
    policy: str | None = None
    batch: UUID | None = None
    retry_of: UUID | None = None
    idempotency_key: str | None = None
    body_hash: str | None = None
    codec: int = Codec.DILL.value


class Accepted(Struct, frozen=True):
    """What became of a `Submission`.

    A `duplicate` was accepted before, with the same key and the same body: `id` and `state` are those of the
    task that there is. In a `conflict` the key came with another body, and nothing was stored.
    """

    id: UUID
    state: State
    duplicate: bool = False
    conflict: bool = False


class TaskView(Struct, frozen=True):
    """What clients ask about a task."""

    id: UUID
    owner: int
    state: State
    begun: bool  #: a slot has begun it, in this attempt or in one before
    attempt: int
    result: bytes | None
    codec: int
    error: str | None
    created: float
    started: float | None
    finished: float | None


class FunctionView(Struct, frozen=True):
    """What a web process needs to know to accept a call of a function."""

    id: UUID
    owner: int
    name: str
    blob: str  #: sha256 of its bytes, in hexadecimal
    queue: int
    pythons: str
    policy: str | None
    dill_version: str


class Claimed(Struct, frozen=True):
    """An attempt that was given out: its number is already the raised one."""

    task: UUID
    attempt: int
    owner: int
    function: UUID
    blob: str
    payload: bytes
    codec: int
    queue: int
    priority: int
    created: float
    run_after: float | None
    started: float | None  #: when an earlier attempt began first
    deadline_s: float | None
    at_most_once: bool
    max_attempts: int
    policy: str | None
    starts: int
    deaths: int
    failures: int


class Begun(Struct, frozen=True):
    """A slot has begun the function."""

    task: UUID
    attempt: int
    started: float
    worker: str | None = None


class Report(Struct, frozen=True):
    """How an attempt ended: the row of `Attempt`.

    Text is cut to 8 KB and made storable, so that it can be passed as it came.
    """

    outcome: Outcome
    ended: float
    began: float | None = None  #: null: it never began, or nobody heard of it
    worker: str | None = None
    slot: int | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None
    output_head: bytes | None = None
    output_tail: bytes | None = None
    output_dropped: int = 0


class Ended(Struct, frozen=True):
    """An attempt ended, and the task with it.

    `event` is COMPLETE, FAIL or CANCEL. If the report says when it began, the begin is counted here, unless
    `begin` has done so for this attempt.
    """

    task: UUID
    attempt: int
    event: Event
    result: bytes
    report: Report
    error: str | None = None  #: why it failed, in one line
    deaths: int = 0  #: to be added
    failures: int = 0  #: to be added
    codec: int = Codec.DILL.value


class Released(Struct, frozen=True):
    """An attempt ended, or never began, and the task goes on: REQUEUE, or POSTPONE until `run_after`.

    `unstarted` says that no slot has begun it: no row of `Attempt` is written (a report is not needed then),
    and the start that the claim of an at-most-once task has counted is taken back.
    """

    task: UUID
    attempt: int
    event: Event
    report: Report | None = None
    unstarted: bool = False
    run_after: float | None = None
    deaths: int = 0  #: to be added
    failures: int = 0  #: to be added


class Closed(Struct, frozen=True):
    """A task that this statement has ended. `was` is the state it came from."""

    task: UUID
    owner: int
    function: UUID
    attempt: int
    was: State
    state: State
    created: float
    run_after: float | None
    started: float | None
    finished: float
    error: str | None


class Reopened(Struct, frozen=True):
    """A task that is queued again, or waits again. `state` says which."""

    task: UUID
    owner: int
    state: State


class Held(Struct, frozen=True):
    """An attempt that a dispatcher has in its books."""

    task: UUID
    attempt: int
    begun: bool  #: a slot is known to have begun this very attempt
    owner: int
    function: UUID
    blob: str
    queue: int
    priority: int
    created: float
    run_after: float | None
    started: float | None
    deadline_s: float | None
    at_most_once: bool
    max_attempts: int
    policy: str | None
    starts: int
    deaths: int
    failures: int
    cancel_requested: bool
    worker: str | None
