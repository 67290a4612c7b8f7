"""What clients send as a batch: decoded, checked whole, and made into tasks.

Either form says the same: JSON, with payloads in base64 or as plain `args` and `kwargs`; or msgpack, with payloads as
bytes. What is wrong is named by its place, as `tasks[17].payload`, and then nothing is stored.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType

from api import policy
from api.batches.statements import Part
from api.codec import NOT_JSON, decode
from api.errors import InvalidRequest
from api.models import new_id
from api.moves import FunctionView, Submission
from everythingfaas.errors import InvalidPayload
from everythingfaas.pickles import check_arguments
from everythingfaas.plain import dump_call
from everythingfaas.serialize import decode as from_base64

#: The most tasks of one request.
MAX_TASKS = 10_000
MAX_NAME_CHARS = 255


class _Task(Struct):
    """One call. Msgspec cannot have `payload: bytes | str` and say what is wrong, so each form has its own."""

    function_id: str | None = None
    policy: dict[str, Any] | UnsetType | None = UNSET


class _PackedTask(_Task, kw_only=True):
    payload: bytes


class _JsonTask(_Task):
    payload: str | UnsetType = UNSET
    args: list[Any] | UnsetType = UNSET
    kwargs: dict[str, Any] | UnsetType = UNSET


class _Body(Struct):
    tasks: list[msgspec.Raw]
    name: str = ""
    function_id: str | None = None
    policy: dict[str, Any] | UnsetType | None = UNSET


class _Packed(_Body):
    tasks: list[_PackedTask]  # type: ignore[assignment]  # read at once where it can be


_JSON_BODY = msgspec.json.Decoder(_Body)
_JSON_TASK = msgspec.json.Decoder(_JsonTask)
_PACKED = msgspec.msgpack.Decoder(_Packed)
_PACKED_BODY = msgspec.msgpack.Decoder(_Body)
_PACKED_TASK = msgspec.msgpack.Decoder(_PackedTask)


class Call(NamedTuple):
    """One call of a batch, as it was sent."""

    function: str
    payload: bytes
    policy: bytes | None


class Order(NamedTuple):
    """A batch, as it was sent, and found to be well-formed."""

    name: str
    #: The function of the tasks that name none, if it is said.
    function: str | None
    calls: list[Call]
    size: int  #: of the payloads


def read(body: bytes, *, packed: bool) -> Order:
    """What a client has sent.

    Raises:
        InvalidRequest: it is no batch; the field says which part of it is wrong.
    """
    said = _read_packed(body) if packed else decode(_JSON_BODY, body)
    tasks: list[Any] = list(said.tasks)
    if len(said.name) > MAX_NAME_CHARS or "/" in said.name:
        raise InvalidRequest(f"name must have at most {MAX_NAME_CHARS} characters, and no slash", field="name")
    if len(tasks) > MAX_TASKS:
        raise InvalidRequest(f"at most {MAX_TASKS} tasks fit into one request; send the rest in another", field="tasks")
    for_all = _policy(said.policy)
    calls: list[Call] = []
    take: Callable[[Any], bytes] = _packed_payload if packed else _json_payload
    try:
        for task in tasks:
            one = task if packed else decode(_JSON_TASK, task)
            function = one.function_id or said.function_id
            if function is None:
                raise InvalidRequest("neither the task nor the batch says which function", field="function_id")  # noqa: TRY301
            calls.append(Call(function, take(one), for_all if one.policy is UNSET else _policy(one.policy)))
    except InvalidPayload as exc:
        raise of_task(len(calls), InvalidRequest(str(exc), field="payload")) from exc
    except InvalidRequest as exc:
        raise of_task(len(calls), exc) from exc
    return Order(said.name, said.function_id, calls, sum(len(call.payload) for call in calls))


def of_task(at: int, exc: InvalidRequest) -> InvalidRequest:
    """The same complaint, with the place of the task."""
    field = f"tasks[{at}]" if exc.field is None else f"tasks[{at}].{exc.field}"
    return InvalidRequest(f"tasks[{at}]: {exc.message}", field=field)


def _read_packed(body: bytes) -> _Body:
    try:
        return _PACKED.decode(body)
    except msgspec.ValidationError as exc:
        raise _wrong_packed(body, exc) from exc
    except NOT_JSON as exc:
        raise InvalidRequest(f"the body is not msgpack: {exc}") from exc


def _wrong_packed(body: bytes, exc: msgspec.ValidationError) -> InvalidRequest:
    """Which one it was: msgspec says `$.tasks[...]`, and no number."""
    try:
        for at, raw in enumerate(_PACKED_BODY.decode(body).tasks):
            try:
                _PACKED_TASK.decode(raw)
            except msgspec.ValidationError as of_one:
                name = "payload" if "payload" in str(of_one) else None
                return of_task(at, InvalidRequest(str(of_one), field=name))
    except (msgspec.ValidationError, *NOT_JSON):
        pass  # then it is the batch itself, and the first complaint says what
    return InvalidRequest(str(exc), field="tasks" if "tasks" in str(exc) else None)


def _packed_payload(task: _PackedTask) -> bytes:
    check_arguments(task.payload)
    return task.payload


def _json_payload(task: _JsonTask) -> bytes:
    if isinstance(task.payload, UnsetType):
        if task.args is UNSET and task.kwargs is UNSET:
            raise InvalidRequest("there is neither a payload nor args or kwargs", field="payload")
        args = [] if isinstance(task.args, UnsetType) else task.args
        return dump_call(args, {} if isinstance(task.kwargs, UnsetType) else task.kwargs)
    raw = from_base64(task.payload)
    check_arguments(raw)
    return raw


def _policy(said: dict[str, Any] | UnsetType | None) -> bytes | None:
    if said is UNSET or said is None:
        return None
    return msgspec.json.encode(said)


def part(
    order: Order,
    functions: Callable[[str], FunctionView],
    *,
    batch: UUID | None,
    owner: int,
    body: bytes,
    idempotency_key: str | None,
) -> Part:
    """The rows of an order. `functions` finds them by the ids that were sent, or raises.

    Raises:
        InvalidRequest: a policy is none, or contradicts that of its function.
    """
    now, identifier = time.time(), new_id()
    whole = identifier if batch is None else batch
    tasks: list[Submission] = []
    for at, call in enumerate(order.calls):
        function = functions(call.function)
        submission = Submission(new_id(), owner, function.id, call.payload, now, function.queue, batch=whole)
        if function.policy is not None or call.policy is not None:
            try:
                columns = policy.columns(function.policy, call.policy)
            except InvalidRequest as exc:
                raise of_task(at, exc) from exc
            submission = policy.applied(submission, columns)
        tasks.append(submission)
    body_hash = (
        None if idempotency_key is None else hashlib.sha256(whole.bytes * (batch is not None) + body).hexdigest()
    )
    return Part(identifier, whole, batch is None, order.name, owner, now, tasks, idempotency_key, body_hash)
