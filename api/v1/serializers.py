"""What the API answers, and how it describes that: one class for both, so that they cannot differ."""

from __future__ import annotations

import enum
import signal
from datetime import datetime
from typing import Any
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from api import policy
from api.models import Attempt, Function, Task
from api.v1 import queries
from api.waiting import why_waiting
from everythingfaas.status import Outcome, State


def _seconds(begin: datetime, end: datetime) -> float:
    """Never negative: two machines may have written the two."""
    return max(0.0, (end - begin).total_seconds())


class _EnumField(serializers.Field[int, str, str, int]):
    """The name of what is stored as a number."""

    def __init__(self, names: type[enum.IntEnum], **kwargs: Any) -> None:
        self._names = names
        super().__init__(read_only=True, **kwargs)

    def to_representation(self, value: int) -> str:
        return self._names(value).name


@extend_schema_field({"type": "string", "enum": [state.name for state in State]})
class StateField(_EnumField):
    """The true state; the contract's endpoints have four words for these six."""

    def __init__(self) -> None:
        super().__init__(State)


@extend_schema_field({"type": "string", "enum": [outcome.name for outcome in Outcome]})
class OutcomeField(_EnumField):
    def __init__(self) -> None:
        super().__init__(Outcome)


@extend_schema_field(OpenApiTypes.STR)
class OutputField(serializers.Field[bytes, str, str, bytes]):
    """Printed bytes as text: what is no UTF-8 is shown by backslashes."""

    def to_representation(self, value: bytes) -> str:
        return bytes(value).decode("utf-8", "backslashreplace")


class PolicySerializer(serializers.Serializer[Any]):
    """What is done with a task. Keys that are left out, or null, have their defaults."""

    deadline_s = serializers.FloatField(allow_null=True, required=False, help_text="seconds that a run may last")
    max_attempts = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=policy.MAX_COUNT,
        help_text="starts, after which a lost run is not repeated",
    )
    on_worker_lost = serializers.ChoiceField(
        choices=["retry", "fail"], required=False, help_text="fail: begin the function once at the most"
    )
    retries = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=policy.MAX_COUNT,
        help_text="repeats of a run in which the function raised",
    )
    backoff_s = serializers.FloatField(
        required=False,
        min_value=0,
        max_value=policy.MAX_BACKOFF_S,
        help_text="the least wait before the first such repeat; doubled each time, up to an hour, and half as much "
        "again by chance",
    )
    retry_on = serializers.ListField(
        child=serializers.CharField(),
        allow_null=True,
        required=False,
        help_text="names of the exceptions that are repeated, with or without their module; null: all",
    )
    priority = serializers.IntegerField(
        required=False, min_value=-policy.MAX_PRIORITY, max_value=policy.MAX_PRIORITY, help_text="higher is run first"
    )
    expires_s = serializers.FloatField(
        allow_null=True, required=False, help_text="seconds within which it must have begun, or it fails"
    )
    fresh_process = serializers.BooleanField(required=False, help_text="in a process that has run nothing before")
    memory_limit_mb = serializers.IntegerField(
        allow_null=True,
        required=False,
        min_value=1,
        help_text="MiB that all processes of a run may use together, or it is killed",
    )


class FunctionNameSerializer(serializers.Serializer[Function]):
    id = serializers.UUIDField()
    name = serializers.CharField()


class AttemptSerializer(serializers.Serializer[Attempt]):
    """How one attempt ended."""

    number = serializers.IntegerField(source="attempt")
    worker = serializers.CharField(allow_null=True)
    slot = serializers.IntegerField(allow_null=True)
    began = serializers.DateTimeField(allow_null=True, help_text="null: it never did, or nobody heard of it")
    ended = serializers.DateTimeField()
    run_s = serializers.SerializerMethodField()
    outcome = OutcomeField()
    exit_code = serializers.IntegerField(allow_null=True)
    exit_signal = serializers.IntegerField(allow_null=True)
    exit_signal_name = serializers.SerializerMethodField()
    error_type = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)
    traceback = serializers.CharField(allow_null=True)
    output_head = OutputField(allow_null=True)
    output_tail = OutputField(allow_null=True)
    output_dropped = serializers.IntegerField(help_text="bytes between the two that were not kept")

    def get_run_s(self, attempt: Attempt) -> float | None:
        return None if attempt.began is None else _seconds(attempt.began, attempt.ended)

    def get_exit_signal_name(self, attempt: Attempt) -> str | None:
        try:
            return None if attempt.exit_signal is None else signal.Signals(attempt.exit_signal).name
        except ValueError:
            return None


class TaskSerializer(serializers.Serializer[Task]):
    """A task, as lists have it."""

    id = serializers.UUIDField()
    state = StateField()
    owner = serializers.CharField(source="owner.username")
    function = FunctionNameSerializer()
    requirements = serializers.CharField(source="queue.requirements", help_text="empty: any worker")
    batch = serializers.UUIDField(allow_null=True)
    attempt = serializers.IntegerField(help_text="how often it was given out")
    starts = serializers.IntegerField(help_text="how often a slot has begun it")
    deaths = serializers.IntegerField(help_text="how often its process died")
    failures = serializers.IntegerField(help_text="how often the function raised")
    created = serializers.DateTimeField()
    started = serializers.DateTimeField(allow_null=True, help_text="when it first began")
    finished = serializers.DateTimeField(allow_null=True)
    wait_s = serializers.SerializerMethodField(help_text="from created to started")
    run_s = serializers.SerializerMethodField(help_text="from started to finished, retries included")
    run_after = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    deadline_s = serializers.FloatField(allow_null=True)
    policy = serializers.SerializerMethodField()
    dispatcher = serializers.UUIDField(source="dispatcher_id", allow_null=True)
    worker = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True, help_text="why it failed, in one line")
    retry_of = serializers.UUIDField(allow_null=True)
    payload_size = serializers.IntegerField()
    result_size = serializers.IntegerField(allow_null=True)

    def get_wait_s(self, task: Task) -> float | None:
        return None if task.started is None else _seconds(task.created, task.started)

    def get_run_s(self, task: Task) -> float | None:
        if task.started is None or task.finished is None:
            return None
        return _seconds(task.started, task.finished)

    @extend_schema_field(PolicySerializer)
    def get_policy(self, task: Task) -> dict[str, Any]:
        return policy.of_task(task)


class TaskDetailSerializer(TaskSerializer):
    """A task, with all that is known of it but its arguments and its result."""

    waits_for = serializers.SerializerMethodField(
        help_text="why it is queued and does not run, in words; null: it waits for its turn alone, or not at all"
    )
    retried_by = serializers.SerializerMethodField(help_text="the tasks that repeat this one")
    attempts = AttemptSerializer(many=True)

    def get_waits_for(self, task: Task) -> str | None:
        return why_waiting(task)

    def get_retried_by(self, task: Task) -> list[UUID]:
        return queries.repeats(task)


class TaskPageSerializer(serializers.Serializer[Any]):
    tasks = TaskSerializer(many=True)
    next = serializers.UUIDField(allow_null=True, help_text="`before` of the next page; null on the last one")


class FunctionSerializer(serializers.Serializer[Function]):
    """A function, as lists have it."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    owner = serializers.CharField(source="owner.username")
    sha256 = serializers.CharField(source="blob_id")
    size = serializers.IntegerField(source="blob.size")
    requirements = serializers.CharField(source="queue.requirements", help_text="empty: any worker")
    pythons = serializers.CharField(help_text="the versions that it may come from; empty: any")
    dill_version = serializers.CharField()
    policy = serializers.SerializerMethodField(help_text="what its tasks follow")
    created = serializers.DateTimeField()

    @extend_schema_field(PolicySerializer)
    def get_policy(self, function: Function) -> dict[str, Any]:
        return policy.of_function(function.policy)


class FunctionDetailSerializer(FunctionSerializer):
    source = serializers.CharField(allow_null=True)  # type: ignore[assignment]  # fields are no attributes


class FunctionPageSerializer(serializers.Serializer[Any]):
    functions = FunctionSerializer(many=True)
    next = serializers.UUIDField(allow_null=True, help_text="`before` of the next page; null on the last one")


class WorkerSerializer(serializers.Serializer[dict[str, Any]]):
    """A worker, as its dispatcher described it when it renewed its lease last."""

    id = serializers.CharField()
    name = serializers.CharField()
    host = serializers.CharField()
    pid = serializers.IntegerField()
    python = serializers.CharField()
    slots = serializers.IntegerField()
    held = serializers.IntegerField(help_text="tasks that it has got, anybody's, prefetched ones included")
    running = serializers.ListField(child=serializers.UUIDField(), help_text="of the tasks that you may see")
    draining = serializers.BooleanField()
    dispatcher = serializers.UUIDField()
    holds_lease = serializers.BooleanField(help_text="false: nothing is known of it any more")


class DispatcherSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    mode = serializers.CharField()
    epoch = serializers.IntegerField()
    host = serializers.CharField()
    pid = serializers.IntegerField()
    slots = serializers.IntegerField()
    started = serializers.DateTimeField()
    lease_until = serializers.DateTimeField()
    holds_lease = serializers.BooleanField()


class WorkersSerializer(serializers.Serializer[Any]):
    workers = WorkerSerializer(many=True)
    dispatchers = DispatcherSerializer(many=True)


class ErrorBodySerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    field = serializers.CharField(required=False)


class ErrorSerializer(serializers.Serializer[Any]):
    """Whatever is not done is answered so."""

    error = ErrorBodySerializer()
