"""What is said to the service, in which order, and when it is said again. No I/O: generators that yield what to do.

    flow ── Call ──▶ whoever drives it, with sockets     flow ◀── Reply, or Unreachable ── the same
    flow ── Pause ─▶ sleeps                              flow ── returns ──▶ what came of it

So `Client` and `AsyncClient` are two drivers of the same verbs, and a test drives them with a list.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from everythingfaas import serialize
from everythingfaas.client import answers, results
from everythingfaas.client.payloads import Memory, Prepared, dump_call, prepare
from everythingfaas.errors import Refused, Unreachable

T = TypeVar("T")

JSON = "application/json"
MSGPACK = "application/msgpack"
BYTES = "application/octet-stream"

#: A long poll lasts so many seconds at the most; the service allows 60.
POLL_S = 30.0
#: Seconds that an answer may take.
TIMEOUT_S = 60.0
#: For so many seconds what may be said again is said again.
PATIENCE_S = 60.0
#: Statuses of a request that was not done, and may be later.
_LATER = frozenset({429, 503})
#: Of one of which nobody knows whether it was done: said again only where that does no harm.
_UNKNOWN = frozenset({500, 502, 504})
_MAX_PAUSE_S = 5.0


class Call(Struct, frozen=True):
    """One request."""

    method: str
    path: str
    query: dict[str, str] = {}
    body: bytes | None = None
    headers: dict[str, str] = {}
    timeout_s: float = TIMEOUT_S
    #: It may be sent twice and is done once.
    is_repeatable: bool = True


class Reply(Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Pause(Struct, frozen=True):
    seconds: float


Step = Call | Pause
#: Receives what came of the step before: a reply, that there was none, or nothing after a pause.
Flow = Generator[Step, "Reply | Unreachable | None", T]


def ask(call: Call, patience_s: float = PATIENCE_S) -> Flow[Reply]:
    """The reply to `call`. Says it again while that is safe and there is a chance.

    Raises:
        Unreachable: nobody answers.
        Refused: the service does not do it.
    """
    paused_s = 0.0
    for attempt in itertools.count():
        reply = yield call
        assert reply is not None
        if isinstance(reply, Reply):
            if reply.status < 400:
                return reply
            again = reply.status in _LATER or (reply.status in _UNKNOWN and call.is_repeatable)
            wait_s = _retry_after(reply)
        else:
            again, wait_s = call.is_repeatable, 0.0
        pause_s = max(wait_s, min(0.05 * 2**attempt, _MAX_PAUSE_S) * random.uniform(0.5, 1.0))  # noqa: S311
        if not again or paused_s + pause_s > patience_s:
            raise refusal(reply) if isinstance(reply, Reply) else reply
        yield Pause(pause_s)
        paused_s += pause_s
    raise AssertionError("unreachable")


def refusal(reply: Reply) -> Refused:
    """What an answer of 400 or above says."""
    try:
        said = msgspec.json.decode(reply.body, type=answers.Refusal).error
    except msgspec.DecodeError:
        return Refused(
            reply.status, "", f"the service answered {reply.status}: {reply.body[:200].decode(errors='replace')}"
        )
    return Refused(reply.status, said.code, said.message, said.field)


def _retry_after(reply: Reply) -> float:
    try:
        return float(reply.headers.get("retry-after", 0))
    except ValueError:
        return 0.0


def read(reply: Reply, kind: type[T]) -> T:
    """What is in it.

    Raises:
        Refused: it is something else: whoever answered is no service of ours.
    """
    packed = reply.headers.get("content-type", "").startswith(MSGPACK)
    try:
        if packed:
            return msgspec.msgpack.decode(reply.body, type=kind)
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Refused(reply.status, "", f"this is not what the service answers (is it one?): {exc}") from exc


def new_key() -> str:
    return uuid.uuid4().hex


class Verbs:
    """What the service can do, as flows. Remembers which functions it has registered."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        """`patience_s`: for so long what may be said again is said again."""
        self.patience_s = patience_s
        self._memory = Memory()
        self._registered: dict[str, str] = {}

    def _get(self, path: str, kind: type[T], **query: object) -> Flow[T]:
        said = {name: str(value) for name, value in query.items() if value is not None}
        return read((yield from ask(Call("GET", path, said), self.patience_s)), kind)

    def _get_waiting(self, path: str, kind: type[T], wait_s: float) -> Flow[T]:
        call = Call("GET", path, {"wait": f"{wait_s:g}"}, timeout_s=TIMEOUT_S + wait_s)
        return read((yield from ask(call, self.patience_s)), kind)

    def _post(
        self, path: str, kind: type[T], body: object = None, *, key: str | None = None, **query: object
    ) -> Flow[T]:
        headers = {} if key is None else {"Idempotency-Key": key}
        said = {name: str(value) for name, value in query.items() if value is not None}
        raw = None if body is None else msgspec.json.encode(body)
        if raw is not None:
            headers["Content-Type"] = JSON
        call = Call("POST", path, said, raw, headers, TIMEOUT_S + float(said.get("wait", 0)))
        return read((yield from ask(call, self.patience_s)), kind)

    # --- functions

    def register(
        self, function: Callable[..., Any], name: str | None = None, policy: dict[str, Any] | None = None
    ) -> Flow[str]:
        """Returns its id. The same function is registered once."""
        made = self.prepared(function, policy) if name is None else prepare(function, policy, name)
        return (yield from self.registered(made))

    def prepared(self, function: Callable[..., Any], policy: dict[str, Any] | None = None) -> Prepared:
        return self._memory.prepared(function, policy)

    def registered(self, made: Prepared, patience_s: float | None = None) -> Flow[str]:
        """The id of a function that is ready to be sent."""
        key = made.digest + made.name
        known = self._registered.get(key)
        if known is None:
            body = {"name": made.name, "payload": serialize.encode(made.raw), "reuse": True}
            body |= {} if made.python is None else {"python": made.python}
            body |= {} if made.policy is None else {"policy": made.policy}
            call = Call("POST", "/api/v1/functions", {}, msgspec.json.encode(body), {"Content-Type": JSON})
            answer = read((yield from ask(call, patience_s or self.patience_s)), answers.Registered)
            known = self._registered[key] = str(answer.function_id)
        return known

    def forget(self, function_id: str) -> None:
        """The service does not know it any more."""
        self._registered = {key: known for key, known in self._registered.items() if known != function_id}

    def id_of(self, function: Callable[..., Any] | str | uuid.UUID, policy: dict[str, Any] | None) -> Flow[str]:
        """The id of what somebody calls a function: a callable, an id or a name."""
        if callable(function):
            return (yield from self.registered(self.prepared(function, policy)))
        try:
            return str(uuid.UUID(str(function)))
        except ValueError:
            found = yield from self.functions(str(function), limit=1)
        if not found:
            raise Refused(404, "not_found", f"there is no function called {function!r}", "function")
        return str(found[0].id)

    def functions(self, name: str | None = None, limit: int | None = None) -> Flow[list[answers.FunctionInfo]]:
        """The newest first; all of them, or `limit`."""
        found: list[answers.FunctionInfo] = []
        before: object = None
        while limit is None or len(found) < limit:
            size = 200 if limit is None else min(200, limit - len(found))
            page = yield from self._get("/api/v1/functions", answers.FunctionPage, name=name, before=before, limit=size)
            found += page.functions
            before = page.next
            if before is None:
                break
        return found

    # --- tasks

    def submit(
        self,
        function: Callable[..., Any] | str | uuid.UUID,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        policy: dict[str, Any] | None = None,
    ) -> Flow[str]:
        function_id = yield from self.id_of(function, None)
        body: dict[str, Any] = {"function_id": function_id, "payload": serialize.encode(dump_call(args, kwargs))}
        if policy:
            body["policy"] = policy
        answer = yield from self._post("/execute_function", answers.Executed, body, key=new_key())
        return str(answer.task_id)

    def submit_many(
        self,
        function: Callable[..., Any] | str | uuid.UUID,
        calls: list[tuple[Any, ...]],
        name: str = "",
        policy: dict[str, Any] | None = None,
    ) -> Flow[answers.Added]:
        """All in one batch; of more than the service takes at once, in several requests."""
        function_id = yield from self.id_of(function, None)
        payloads = [dump_call(args, {}) for args in calls]
        whole: answers.Added | None = None
        for part in parts(payloads) or [[]]:
            body: dict[str, Any] = {"function_id": function_id, "tasks": [{"payload": payload} for payload in part]}
            if policy:
                body["policy"] = policy
            if whole is None:
                whole = yield from self.add(None, {**body, "name": name}, new_key())
            else:
                added = yield from self.add(whole.batch_id, body, new_key())
                whole.task_ids.extend(added.task_ids)
        assert whole is not None
        return whole

    def add(
        self, batch: uuid.UUID | None, body: dict[str, Any], key: str, patience_s: float | None = None
    ) -> Flow[answers.Added]:
        """Sends one part of a batch, the first one if `batch` is None."""
        path = "/api/v1/batches" if batch is None else f"/api/v1/batches/{batch}/tasks"
        headers = {"Content-Type": MSGPACK, "Accept": MSGPACK, "Idempotency-Key": key}
        call = Call("POST", path, {}, msgspec.msgpack.encode(body), headers)
        return read((yield from ask(call, patience_s or self.patience_s)), answers.Added)

    def status(self, task: str | uuid.UUID) -> Flow[str]:
        info = yield from self.task(task)
        return info.state

    def task(self, task: str | uuid.UUID) -> Flow[answers.TaskInfo]:
        return (yield from self._get(f"/api/v1/tasks/{task}", answers.TaskInfo))

    def tasks(
        self, states: tuple[str, ...] = (), function: str | None = None, limit: int = 50
    ) -> Flow[list[answers.TaskInfo]]:
        """The newest first."""
        found: list[answers.TaskInfo] = []
        before: object = None
        while len(found) < limit:
            page = yield from self._get(
                "/api/v1/tasks",
                answers.TaskPage,
                state=",".join(states) or None,
                function=function,
                before=before,
                limit=min(200, limit - len(found)),
            )
            found += page.tasks
            before = page.next
            if before is None:
                break
        return found

    def result(self, task: str | uuid.UUID, timeout_s: float | None = None) -> Flow[Any]:
        """What the function returned; raises what it raised, and TimeoutError if it has not ended in time."""
        left = timeout_s
        while True:
            wait_s = POLL_S if left is None else min(left, POLL_S)
            answer = yield from self._get_waiting(f"/result/{task}", answers.ContractResult, wait_s)
            if answer.status == "COMPLETED":
                return results.value_of(serialize.decode(answer.result), task)
            if answer.status == "FAILED":
                raise (yield from self._exception(task, serialize.decode(answer.result)))
            if left is not None:
                left -= wait_s
                if left <= 0:
                    raise TimeoutError(f"task {task} is {answer.status} after {timeout_s:g} s")

    def raw_result(self, task: str | uuid.UUID) -> Flow[bytes]:
        """The bytes that a task which has ended has ended with."""
        call = Call("GET", f"/api/v1/tasks/{task}/result", {}, None, {"Accept": BYTES})
        reply = yield from ask(call, self.patience_s)
        return reply.body

    def _exception(self, task: str | uuid.UUID, raw: bytes) -> Flow[BaseException]:
        info = yield from self.task(task)
        last = info.attempts[-1] if info.attempts else None
        error = None
        if last is not None and last.error_type is not None:
            error = answers.Error(last.error_type, last.message or "", last.traceback or "")
        return results.exception_of(raw, error, task)

    def cancel(self, task: str | uuid.UUID, wait_s: float = 0) -> Flow[answers.TaskInfo]:
        return (yield from self._post(f"/api/v1/tasks/{task}/cancel", answers.TaskInfo, wait=wait_s or None))

    def retry(self, task: str | uuid.UUID) -> Flow[str]:
        info = yield from self._post(f"/api/v1/tasks/{task}/retry", answers.TaskInfo, key=new_key())
        return str(info.id)

    # --- batches

    def batch(self, name_or_id: str | uuid.UUID) -> Flow[answers.BatchInfo]:
        return (yield from self._get(f"/api/v1/batches/{_quoted(name_or_id)}", answers.BatchInfo))

    def batches(self, name: str | None = None, limit: int = 50) -> Flow[list[answers.BatchInfo]]:
        page = yield from self._get("/api/v1/batches", answers.Batches, name=name, limit=limit)
        return page.batches

    def batch_tasks(self, batch: uuid.UUID) -> Flow[list[uuid.UUID]]:
        """The ids of its tasks, in their order."""
        found: list[uuid.UUID] = []
        while True:
            page = yield from self._get(f"/api/v1/batches/{batch}/tasks", answers.BatchTasks, first=len(found))
            found += page.task_ids
            if not page.task_ids or len(found) >= page.size:
                return found

    def page(self, batch: uuid.UUID, cursor: str, wait_s: float) -> Flow[answers.Page]:
        """What has ended behind `cursor`, waited for."""
        query = {"after": cursor, "wait": f"{wait_s:g}"}
        call = Call("GET", f"/api/v1/batches/{batch}/results", query, None, {"Accept": MSGPACK}, TIMEOUT_S + wait_s)
        return read((yield from ask(call, patience_s=0)), answers.Page)

    def cancel_batch(
        self, batch: str | uuid.UUID, tasks: list[uuid.UUID] | None = None, *, running: bool = True
    ) -> Flow[answers.Cancelled]:
        body: dict[str, Any] = {"running": running}
        if tasks is not None:
            body["tasks"] = tasks
        return (yield from self._post(f"/api/v1/batches/{_quoted(batch)}/cancel", answers.Cancelled, body))

    # --- the service

    def workers(self) -> Flow[answers.Workers]:
        return (yield from self._get("/api/v1/workers", answers.Workers))

    def readiness(self) -> Flow[answers.Readiness]:
        """Whether tasks are accepted and worked on. 503 is an answer here as well."""
        reply = yield Call("GET", "/readyz", timeout_s=10)
        if isinstance(reply, Unreachable):
            raise reply
        assert reply is not None
        if reply.status not in (200, 503):
            raise refusal(reply)
        return read(reply, answers.Readiness)

    def json(self, method: str, path: str, body: object = None, **query: str) -> Flow[Any]:
        """Any other call, with its answer as it is."""
        if method == "GET":
            return (yield from self._get(path, Any, **query))
        return (yield from self._post(path, Any, body, **query))


#: One request of a batch has at most so many tasks and, of several tasks, so many bytes.
PART_TASKS = 2_000
PART_BYTES = 4 * 1024**2


def parts(payloads: list[bytes]) -> list[list[bytes]]:
    """The same in pieces that fit into one request each."""
    pieces: list[list[bytes]] = []
    size = 0
    for payload in payloads:
        size += len(payload)
        if not pieces or len(pieces[-1]) == PART_TASKS or size > PART_BYTES:
            pieces.append([])
            size = len(payload)
        pieces[-1].append(payload)
    return pieces


def _quoted(name_or_id: str | uuid.UUID) -> str:
    return quote(str(name_or_id), safe="")
