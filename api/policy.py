"""What clients may say about how their tasks are treated: the `policy` of a function, and of a single task.

Both are JSON objects of the same keys, and what a task says goes before what its function says. A key that is
null has its default, whatever the function says. They are merged once, when the task is accepted: what happens to
the function's policy later does not touch it.

    {"deadline_s": 60, "retries": 3, "backoff_s": 2, "retry_on": ["ConnectionResetError"]}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from api.errors import InvalidRequest
from api.models import Task
from api.moves import Submission

#: Ten years.
_MAX_S: Final = 315_360_000
MAX_COUNT: Final = 1_000
MAX_BACKOFF_S: Final = 3_600
MAX_PRIORITY: Final = 1_000
_MAX_MEMORY_MB: Final = 1 << 40

_Seconds = Annotated[float, Meta(gt=0, le=_MAX_S)]
_Name = Annotated[str, Meta(min_length=1, max_length=255)]


class Policy(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a client has said. Every key may be left out, and may be null."""

    deadline_s: _Seconds | UnsetType | None = UNSET
    max_attempts: Annotated[int, Meta(ge=1, le=MAX_COUNT)] | UnsetType | None = UNSET
    on_worker_lost: Literal["retry", "fail"] | UnsetType | None = UNSET
    retries: Annotated[int, Meta(ge=0, le=MAX_COUNT)] | UnsetType | None = UNSET
    backoff_s: Annotated[float, Meta(ge=0, le=MAX_BACKOFF_S)] | UnsetType | None = UNSET
    retry_on: Annotated[list[_Name], Meta(min_length=1, max_length=50)] | UnsetType | None = UNSET
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | UnsetType | None = UNSET
    expires_s: _Seconds | UnsetType | None = UNSET
    fresh_process: bool | UnsetType | None = UNSET
    memory_limit_mb: Annotated[int, Meta(ge=1, le=_MAX_MEMORY_MB)] | UnsetType | None = UNSET


#: What holds where nothing else is said.
DEFAULTS: Final[dict[str, Any]] = {
    "deadline_s": None,
    "max_attempts": 3,
    "on_worker_lost": "retry",
    "retries": 0,
    "backoff_s": 1.0,
    "retry_on": None,
    "priority": 0,
    "expires_s": None,
    "fresh_process": False,
    "memory_limit_mb": None,
}
#: These have no column of their own in the row of a task.
_IN_TEXT: Final = ("retries", "backoff_s", "retry_on", "fresh_process", "memory_limit_mb")

_DECODER = msgspec.json.Decoder(Policy | None)
_ENCODER = msgspec.json.Encoder(order="sorted")
_FIELD = re.compile(r"`\$\.(\w+)|unknown field `(.{1,64}?)`")


class Columns(NamedTuple):
    """A policy as the row of a task has it."""

    deadline_s: float | None
    max_attempts: int
    at_most_once: bool
    priority: int
    expires_s: float | None
    text: str | None


def changed(stored: str | None, change: object) -> str | None:
    """The policy of a function after `change`, the keys that are to be other ones; None takes one away, or all.

    Raises:
        InvalidRequest: `change` is no policy, or what comes of it contradicts itself.
    """
    if change is None:
        return None
    with _refused():
        keys = _given(stored) | _keys(msgspec.convert(change, Policy))
    kept = {name: value for name, value in keys.items() if value is not None}
    _check(DEFAULTS | kept)
    return _ENCODER.encode(kept).decode() if kept else None


def columns(of_function: str | None, of_task: bytes | None) -> Columns:
    """What a task follows whose function has the one policy and which came with the other, as JSON.

    Raises:
        InvalidRequest: `of_task` is no policy, or the two contradict each other.
    """
    return _columns(of_function, b"" if of_task is None else canonical(of_task))


def applied(submission: Submission, columns: Columns) -> Submission:
    """The same task, which follows that."""
    return msgspec.structs.replace(
        submission,
        deadline_s=columns.deadline_s,
        max_attempts=columns.max_attempts,
        at_most_once=columns.at_most_once,
        priority=columns.priority,
        expires_at=None if columns.expires_s is None else submission.created + columns.expires_s,
        policy=columns.text,
    )


@lru_cache(maxsize=1024)  # of texts that are short, whatever a client has written
def _columns(of_function: str | None, of_task: bytes) -> Columns:
    merged = _merged(of_function, of_task)
    text = {name: merged[name] for name in _IN_TEXT if merged[name] != DEFAULTS[name]}
    return Columns(
        merged["deadline_s"],
        merged["max_attempts"],
        merged["on_worker_lost"] == "fail",
        merged["priority"],
        merged["expires_s"],
        _ENCODER.encode(text).decode() if text else None,
    )


def _merged(of_function: str | None, of_task: bytes) -> dict[str, Any]:
    said = (_given(of_function) | _given(of_task)).items()
    merged = DEFAULTS | {name: value for name, value in said if value is not None}
    _check(merged)
    return merged


def canonical(of_task: bytes) -> bytes:
    """The same for policies that say the same. Raises InvalidRequest."""
    with _refused():
        said = _DECODER.decode(of_task)
    return b"" if said is None else _ENCODER.encode(said)


def of_function(stored: str | None) -> dict[str, Any]:
    """All keys of a function's policy."""
    return DEFAULTS | _given(stored)


def of_task(task: Task) -> dict[str, Any]:
    """All keys of what a task follows."""
    expires_at = task.expires_at
    return (
        DEFAULTS
        | _given(task.policy)
        | {
            "deadline_s": task.deadline_s,
            "max_attempts": task.max_attempts,
            "on_worker_lost": "fail" if task.at_most_once else "retry",
            "priority": task.priority,
            "expires_s": None if expires_at is None else round((expires_at - task.created).total_seconds(), 3),
        }
    )


def _given(stored: str | bytes | None) -> dict[str, Any]:
    given: dict[str, Any] = msgspec.json.decode(stored) if stored else {}
    return given


def _keys(policy: Policy) -> dict[str, Any]:
    return {name: value for name in DEFAULTS if (value := getattr(policy, name)) is not UNSET}


@contextmanager
def _refused() -> Iterator[None]:
    """What is no policy is the client's mistake."""
    try:
        yield
    except msgspec.ValidationError as exc:
        found = _FIELD.search(str(exc))
        name = found and (found[1] or found[2])
        reason = str(exc).partition(" - at `$")[0]
        raise InvalidRequest(f"policy: {reason}", field=f"policy.{name}" if name else "policy") from exc


def _check(policy: dict[str, Any]) -> None:
    if policy["on_worker_lost"] == "fail" and policy["retries"]:
        raise InvalidRequest(
            'policy: with "on_worker_lost": "fail" a function is begun once only, and so cannot have "retries"',
            field="policy.on_worker_lost",
        )
