"""The tables. The row of a task *is* the task: whatever else knows of it, in Redis or in memory, is a copy.

    Function ──▶ Blob                 what to run; equal bytes are stored once
    Task ──▶ Function, Queue          one call, and how far it has come; kept narrow, for it is updated most
     ├── Payload                      its arguments
     ├── Result                       what it ended with: a value, or an exception
     └── Attempt                      one row for each attempt that ended
    Dispatcher                        who has claimed tasks, and until when it is believed alive
    Counter, Rollup                   what the pages show instead of counting the table
    Instance                          one row: the generation, raised whenever a backup was restored
    Token, Ticket, Quota, AuditEntry  who may do what, and who did: see `api.access`
    Batch, BatchPart                  tasks that came in together: see `api.batches`

States change in `api.moves` alone. The ORM is for reading, for forms and for the rows that nobody fights over.
"""

from __future__ import annotations

import enum
import uuid
from typing import ClassVar

import uuid_utils.compat
from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from api.fields import UnixTimeField
from everythingfaas.status import Event, Outcome, State, sources

#: The row of `Queue` that says "any Python".
ANY_QUEUE = 1
#: The number of the user whom the migrations make, `local`.
FIRST_USER = 1
#: Name of the user who owns everything while no tokens are asked for.
LOCAL_USER = "local"


def new_id() -> uuid.UUID:
    """A UUIDv7: within one process each is greater than the one before, so primary keys are in order of time."""
    return uuid_utils.compat.uuid7()


# Choices are functions, which migrations refer to by name: a new outcome is not a new migration.


def state_choices() -> list[tuple[int, str]]:
    return [(state.value, state.name) for state in State]


def outcome_choices() -> list[tuple[int, str]]:
    return [(outcome.value, outcome.name) for outcome in Outcome]


def series_choices() -> list[tuple[int, str]]:
    return [(series.value, series.name) for series in Series]


class Codec(models.IntegerChoices):
    """In what form arguments and results are stored. The numbers are stored: never renumber."""

    DILL = 0, "dill"
    JSON = 1, "JSON"


class Blob(models.Model):
    """Bytes of a function, named by their hash, so that workers and slots can keep them."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    size = models.PositiveIntegerField()
    data = models.BinaryField()
    created = UnixTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.sha256[:12]} ({self.size} bytes)"


class Queue(models.Model):
    """A set of requirements. Tasks with equal requirements stand in one queue, and claims name queues.

    What no connected worker can run stands in queues that nobody names, and so never at the head of one
    that somebody does.
    """

    id = models.SmallAutoField(primary_key=True)
    #: Canonical text of the requirements; empty: any Python.
    requirements = models.TextField(unique=True)

    def __str__(self) -> str:
        return self.requirements or "any Python"


class Function(models.Model):
    """A registered function. Registering the same bytes twice gives two functions and one blob."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, db_index=False)
    name = models.CharField(max_length=255)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT)
    #: Where its tasks stand, derived from `pythons`.
    queue = models.ForeignKey(Queue, on_delete=models.PROTECT, default=ANY_QUEUE, db_index=False)
    #: Its source text, if the client sent it.
    source = models.TextField(null=True, blank=True)
    #: The minor versions that its code objects may come from, as "3.11,3.12"; empty: any.
    pythons = models.CharField(max_length=64, blank=True, default="")
    #: The dill that pickled it, if the client said so.
    dill_version = models.CharField(max_length=32, blank=True, default="")
    #: JSON of the policy that its tasks follow; null: all defaults.
    policy = models.TextField(null=True, blank=True)
    created = UnixTimeField(default=timezone.now)

    class Meta:
        indexes: ClassVar = [models.Index("owner", "name", "id", name="function_by_name")]

    def __str__(self) -> str:
        return self.name


class Dispatcher(models.Model):
    """One dispatcher and its lease. Its clock is the database's: written and compared in SQL."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    #: Raised each time the row is taken over; who holds an older one has lost it.
    epoch = models.PositiveIntegerField(default=1)
    mode = models.CharField(max_length=16)
    slots = models.PositiveIntegerField(default=0)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    lease_until = UnixTimeField()
    #: JSON of its workers, for the pages; as old as the last renewal.
    snapshot = models.TextField(default="{}")
    started = UnixTimeField()

    def __str__(self) -> str:
        return f"{self.mode} on {self.host}, pid {self.pid}"


def _in(states: tuple[State, ...]) -> Q:
    numbers = sorted(state.value for state in states)  # plain ones: this ends up in migrations
    return Q(state=numbers[0]) if len(numbers) == 1 else Q(state__in=numbers)


class Task(models.Model):
    """One call of a function.

    No bytes of the client's are in this table: SQLite rewrites a row whole at each update.

    Its foreign keys are plain columns, without constraint and without index. A constraint would look the
    parent up at each insert, and on PostgreSQL lock it, thousands of times a second for the one row of the
    one user; an index would be one more tree to write, for questions that nobody asks in a hurry. Parents
    are protected by the ORM and never deleted while tasks refer to them.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    function = models.ForeignKey(Function, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    queue = models.ForeignKey(Queue, on_delete=models.PROTECT, db_constraint=False, db_index=False, default=ANY_QUEUE)
    #: What came in with one request shares this id.
    batch = models.UUIDField(null=True, blank=True)
    state = models.PositiveSmallIntegerField(choices=state_choices, default=State.QUEUED.value)
    #: Higher is claimed first.
    priority = models.SmallIntegerField(default=0)

    #: The fencing token: raised by each claim. No limit applies to it.
    attempt = models.PositiveIntegerField(default=0)
    #: The last attempt whose function a slot is known to have begun; 0: none.
    begun = models.PositiveIntegerField(default=0)
    #: How many attempts have begun; limited by `max_attempts`.
    starts = models.PositiveSmallIntegerField(default=0)
    #: How many attempts took their own process down.
    deaths = models.PositiveSmallIntegerField(default=0)
    #: How many attempts ended because the function raised.
    failures = models.PositiveSmallIntegerField(default=0)

    #: Not to be begun before.
    run_after = UnixTimeField(null=True, blank=True)
    #: Not to be begun after.
    expires_at = UnixTimeField(null=True, blank=True)
    #: Seconds that the function may run.
    deadline_s = models.FloatField(null=True, blank=True)
    #: The claim itself counts as the start, so that nothing can make it begin twice.
    at_most_once = models.BooleanField(default=False)
    max_attempts = models.PositiveSmallIntegerField(default=3)
    #: JSON of what else differs from the defaults; null: nothing.
    policy = models.TextField(null=True, blank=True)

    #: Who has, or last had, claimed it.
    dispatcher = models.ForeignKey(
        Dispatcher, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, null=True, blank=True
    )
    #: Who runs, or last ran it.
    worker = models.CharField(max_length=128, null=True, blank=True)

    created = UnixTimeField(default=timezone.now)
    #: First begin; kept over retries, so that a status never moves backwards.
    started = UnixTimeField(null=True, blank=True)
    finished = UnixTimeField(null=True, blank=True)
    #: When somebody asked for the end of the attempt that runs.
    cancel_requested_at = UnixTimeField(null=True, blank=True)

    #: The task that this one repeats by hand.
    retry_of = models.UUIDField(null=True, blank=True)
    #: What the client calls this request, so that it can be sent twice and be accepted once.
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    #: Hash of the request that came with the key.
    body_hash = models.CharField(max_length=64, null=True, blank=True)

    #: Why it failed, in one line.
    error = models.TextField(null=True, blank=True)
    payload_size = models.PositiveIntegerField(default=0)
    result_size = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [
            models.Index(
                models.F("queue"),
                models.F("priority").desc(),
                models.F("id"),
                name="task_claim",
                condition=_in(sources(Event.CLAIM)),
            ),
            models.Index(fields=["run_after"], name="task_due", condition=_in(sources(Event.PROMOTE))),
            models.Index(fields=["dispatcher"], name="task_held", condition=_in(sources(Event.COMPLETE))),
            models.Index(
                fields=["expires_at"],
                name="task_expiry",
                condition=Q(expires_at__isnull=False) & _in(sources(Event.REJECT)),
            ),
            # The one list that pages ask for by state and would have to search the table for: the others are
            # either most of the table or stand in an index above.
            models.Index(fields=["id"], name="task_failed", condition=_in((State.FAILED,))),
            models.Index(fields=["retry_of"], name="task_retries", condition=Q(retry_of__isnull=False)),
            # Lists of one owner's tasks. The first user, `local`, is not in it, so that it costs nothing while
            # everything is theirs.
            models.Index(fields=["owner", "id"], name="task_owner", condition=Q(owner__gt=FIRST_USER)),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["owner", "idempotency_key"],
                name="task_idempotency",
                condition=Q(idempotency_key__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} {State(self.state).name}"


class Payload(models.Model):
    """The arguments of a task. Written once, with it."""

    task = models.OneToOneField(Task, on_delete=models.CASCADE, primary_key=True, db_constraint=False)
    codec = models.PositiveSmallIntegerField(choices=Codec.choices, default=Codec.DILL)
    data = models.BinaryField()

    def __str__(self) -> str:
        return f"arguments of {self.task_id}"


class Result(models.Model):
    """What a task ended with. Written once, by the commit that ends it."""

    task = models.OneToOneField(Task, on_delete=models.CASCADE, primary_key=True, db_constraint=False)
    codec = models.PositiveSmallIntegerField(choices=Codec.choices, default=Codec.DILL)
    data = models.BinaryField()

    def __str__(self) -> str:
        return f"result of {self.task_id}"


class Attempt(models.Model):
    """How one attempt ended. Written once, by the commit that ends it."""

    pk = models.CompositePrimaryKey("task_id", "attempt")
    task = models.ForeignKey(
        Task, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="attempts"
    )
    attempt = models.PositiveIntegerField()
    dispatcher = models.UUIDField(null=True)
    worker = models.CharField(max_length=128, null=True)
    slot = models.IntegerField(null=True)
    #: When the slot began; null: it never did, or nobody heard of it.
    began = UnixTimeField(null=True)
    ended = UnixTimeField()
    outcome = models.PositiveSmallIntegerField(choices=outcome_choices)
    exit_code = models.IntegerField(null=True)
    exit_signal = models.SmallIntegerField(null=True)
    error_type = models.CharField(max_length=255, null=True)
    message = models.TextField(null=True)
    traceback = models.TextField(null=True)
    #: First and last part of what it printed, as it printed it.
    output_head = models.BinaryField(null=True)
    output_tail = models.BinaryField(null=True)
    #: Bytes that were left out between the two.
    output_dropped = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.task_id}: {Outcome(self.outcome).name}"


class Counter(models.Model):
    """How many tasks one writer has moved into a state, less those it has moved out of it.

    Each row is updated by its writer alone, and so never waited for; the sum over the writers is the number
    of tasks (a single row may well be negative). See `api.tally`.
    """

    pk = models.CompositePrimaryKey("writer", "owner_id", "state")
    writer = models.CharField(max_length=64)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    state = models.PositiveSmallIntegerField(choices=state_choices)
    count = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.writer}, {self.owner_id}, {State(self.state).name}: {self.count}"


class Series(enum.IntEnum):
    """What a `Rollup` measures. Stored: never renumber. The last three are numbered as the states are."""

    SUBMITTED = 1  #: tasks accepted; one bucket
    WAIT = 2  #: seconds from when a task might begin to when it began
    COMPLETED = 4  #: seconds that tasks ran which ended so
    FAILED = 5
    CANCELLED = 6


class Rollup(models.Model):
    """How many tasks fell into one bucket of one series within one minute.

    The buckets are log-spaced (`api.tally.bucket_of`), so a histogram of a day is as small as one of a
    minute, and p50 and p95 can be read from a sum of rows.
    """

    pk = models.CompositePrimaryKey("minute", "writer", "owner_id", "series", "bucket")
    #: Minutes since 1970 UTC.
    minute = models.PositiveIntegerField()
    writer = models.CharField(max_length=64)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    series = models.PositiveSmallIntegerField(choices=series_choices)
    bucket = models.SmallIntegerField()
    count = models.PositiveIntegerField(default=0)
    #: Sum of the seconds, for means.
    total_s = models.FloatField(default=0)

    def __str__(self) -> str:
        return f"{self.minute}, {Series(self.series).name}[{self.bucket}]: {self.count}"


class Instance(models.Model):
    """The one row that speaks of the database itself."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    #: Raised by each restore: whoever holds attempts of another generation must drop them.
    generation = models.PositiveIntegerField(default=1)

    def __str__(self) -> str:
        return f"generation {self.generation}"


# At the end, for they need nothing of the above.
from api.access.models import AuditEntry, Quota, Ticket, Token  # noqa: E402
from api.batches.models import Batch, BatchPart  # noqa: E402

__all__ = [
    "ANY_QUEUE",
    "FIRST_USER",
    "LOCAL_USER",
    "Attempt",
    "AuditEntry",
    "Batch",
    "BatchPart",
    "Blob",
    "Codec",
    "Counter",
    "Dispatcher",
    "Function",
    "Instance",
    "Payload",
    "Queue",
    "Quota",
    "Result",
    "Rollup",
    "Series",
    "Task",
    "Ticket",
    "Token",
    "new_id",
    "outcome_choices",
    "series_choices",
    "state_choices",
]
