"""What the service answers, as objects. Fields that a newer service adds are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct


class Error(Struct, frozen=True):
    """What was raised, as text."""

    type: str
    message: str
    traceback: str = ""


class TaskResult(Struct, frozen=True):
    """What one task of a batch ended with."""

    index: int  #: its number in the batch
    task_id: UUID
    state: str  #: COMPLETED, FAILED or CANCELLED
    size: int
    result: bytes  #: empty where it is too large for a message: then it is fetched
    error: Error | None = None


class Page(Struct, frozen=True):
    """What has ended of a batch behind a cursor."""

    results: list[TaskResult]
    cursor: str
    pending: int
    size: int


class Pushed(Struct, frozen=True):
    """A page over the WebSocket, or a refusal."""

    results: list[TaskResult] = []
    cursor: str = ""
    number: int = 0
    refused: str | None = None
    status: int = 0


class Added(Struct, frozen=True):
    """Tasks that were accepted."""

    batch_id: UUID
    first: int
    task_ids: list[UUID]


class BatchInfo(Struct, frozen=True):
    id: UUID
    name: str
    created: datetime
    size: int
    states: dict[str, int] = {}
    pending: int = 0


class BatchTasks(Struct, frozen=True):
    first: int
    task_ids: list[UUID]
    size: int


class Cancelled(Struct, frozen=True):
    cancelled: list[UUID]
    being_cancelled: list[UUID]


class Attempt(Struct, frozen=True):
    """How one attempt at a task has ended."""

    number: int
    outcome: str
    ended: datetime
    began: datetime | None = None
    run_s: float | None = None
    worker: str | None = None
    exit_code: int | None = None
    exit_signal_name: str | None = None
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None
    output_head: str | None = None
    output_tail: str | None = None
    output_dropped: int = 0


class FunctionName(Struct, frozen=True):
    id: UUID
    name: str


class TaskInfo(Struct, frozen=True):
    """A task; in lists without its attempts."""

    id: UUID
    state: str  #: WAITING, QUEUED, RUNNING, COMPLETED, FAILED or CANCELLED
    owner: str
    function: FunctionName
    created: datetime
    batch: UUID | None = None
    started: datetime | None = None
    finished: datetime | None = None
    wait_s: float | None = None
    run_s: float | None = None
    starts: int = 0
    worker: str | None = None
    error: str | None = None
    retry_of: UUID | None = None
    policy: dict[str, Any] = {}
    attempts: list[Attempt] = []

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


class TaskPage(Struct, frozen=True):
    tasks: list[TaskInfo]
    next: UUID | None = None


class FunctionInfo(Struct, frozen=True):
    """A registered function."""

    id: UUID
    name: str
    owner: str
    sha256: str
    size: int
    created: datetime
    pythons: str = ""
    requirements: str = ""
    policy: dict[str, Any] = {}


class FunctionPage(Struct, frozen=True):
    functions: list[FunctionInfo]
    next: UUID | None = None


class WorkerInfo(Struct, frozen=True):
    """A worker, as its dispatcher knew it some seconds ago."""

    id: str
    name: str
    host: str
    pid: int
    python: str
    slots: int
    held: int
    running: list[UUID]
    draining: bool
    holds_lease: bool


class DispatcherInfo(Struct, frozen=True):
    id: UUID
    mode: str
    host: str
    pid: int
    slots: int
    started: datetime
    holds_lease: bool


class Workers(Struct, frozen=True):
    workers: list[WorkerInfo]
    dispatchers: list[DispatcherInfo]


class Registered(Struct, frozen=True):
    function_id: UUID


class Executed(Struct, frozen=True):
    task_id: UUID


class ContractResult(Struct, frozen=True):
    """What `GET /result/{id}` answers."""

    task_id: UUID
    status: str
    result: str = ""


class Readiness(Struct, frozen=True):
    status: str
    checks: dict[str, str]


class Batches(Struct, frozen=True):
    batches: list[BatchInfo]
    next: UUID | None = None


class ErrorBody(Struct, frozen=True):
    code: str = ""
    message: str = ""
    field: str | None = None


class Refusal(Struct, frozen=True):
    """Every answer with a status of 400 or above."""

    error: ErrorBody
