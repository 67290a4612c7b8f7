"""What the HTTP side can do. Views decode, call one of these, and encode.

A process that serves has one `Services`, which owns what it keeps open: the thread that writes, the one that reads,
and the connections to Redis. It starts on the running loop when somebody first asks for it, because not
every server tells an application that it has started.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.core.exceptions import RequestAborted

from api import health, moves, policy
from api.access.audit import Audit
from api.access.caller import KEY, Caller, everybody, local_owner
from api.access.gate import Gate
from api.access.quotas import Ledger
from api.batches.service import Batches
from api.canceller import Canceller
from api.errors import Conflict, NotFound, Unauthorized
from api.live.hub import Hub
from api.mirror import BELL, DONE, NEWS, Entry, Mirror
from api.models import new_id
from api.moves import Accepted, Closed, FunctionView, Submission, TaskView
from api.reader import Reader
from api.redis_link import RedisLink, Subscription
from api.tally import Tally
from api.waiters import Waiters
from api.writer import Writer
from everythingfaas.pickles import check_arguments
from everythingfaas.serialize import decode
from everythingfaas.settings import Settings
from everythingfaas.status import contract_state

#: The longest that a client may wait for a result with one request, in seconds.
MAX_WAIT_S = 60.0
#: The owners of so many tasks are remembered, that a mirror, which does not say whose it is, can be believed.
KEPT_OWNERS = 20_000


class Outcome(NamedTuple):
    """How far a task has come, in the contract's word, and its result if it has ended."""

    status: str
    has_ended: bool
    result: bytes


class Services:
    """Everything that one web process keeps open."""

    def __init__(self, faas: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.reader = Reader(loop)
        self.link = RedisLink(faas.redis_address, loop)
        self.mirror = Mirror(self.link)
        self.waiters = Waiters(loop, read=self._read_all, is_told=lambda: self.subscription.connected)
        self.subscription = Subscription(
            faas.redis_address, loop, DONE, on_message=self.waiters.told, on_change=self.waiters.look
        )
        self.live = Hub(loop, self.link, self.subscription, (BELL, DONE, NEWS))
        name = f"{socket.gethostname()}:{faas.port}"
        self.writer = Writer(loop, Tally(f"web:{name}"[:64]), self._committed)
        self.canceller = Canceller(loop, Tally(f"cancel:{name}"[:64]), self.cancelled)
        self.batches = Batches(self, name)
        self._everybody: Caller | None = None
        self._owners: OrderedDict[UUID, int] = OrderedDict()
        self.gate: Gate | None = None
        if faas.tokens:
            self._audit = Audit(loop)
            self._ledger = Ledger(self.reader, loop.time)
            self.gate = Gate(loop, self.reader, self.subscription, self._audit)

    async def close(self) -> None:
        """Answers what waits, writes what was accepted, and closes everything."""
        await self.let_go()
        await self.writer.close()
        await self.canceller.close()
        await self.batches.close()
        if self.gate is not None:
            await self.gate.close()
            await self._audit.close()
        await self.reader.close()
        await self.subscription.close()
        await self.link.close()

    async def let_go(self) -> None:
        """Answers those who wait for what may take long, and closes the pages."""
        await self.waiters.close()
        await self.batches.let_go()
        await self.live.close()

    def abandon(self) -> None:
        """Refuses what waits to be written or read: there is no time left."""
        self.writer.abandon()
        self.canceller.abandon()
        self.batches.abandon()
        if self.gate is not None:
            self._audit.abandon()
        self.reader.abandon()

    async def caller(self, scope: Mapping[str, Any]) -> Caller:
        """Who sent the request of `scope`.

        Raises:
            Unauthorized: tokens are on, and nobody has looked for one.
        """
        found: Caller | None = scope.get(KEY)
        if found is not None:
            return found
        if self.gate is not None:
            raise Unauthorized
        if self._everybody is None:
            self._everybody = everybody(await self.reader.call(lambda _: local_owner()))
        return self._everybody

    def note(self, caller: Caller, scope: MutableMapping[str, Any], action: str, target: str) -> None:
        """Writes into the audit log, while tokens are on, what somebody has done."""
        if self.gate is not None:
            self._audit.note(caller, scope, action, target)

    def count(self, caller: Caller, scope: MutableMapping[str, Any], action: str, number: int = 1) -> None:
        """The same for what is done too often for a row each."""
        if self.gate is not None:
            self._audit.count(caller, scope, action, number)

    async def execute(
        self,
        caller: Caller,
        function_id: str,
        payload: str,
        idempotency_key: str | None,
        of_task: bytes | None = None,
    ) -> UUID:
        """Accepts a task: returns its id after the commit that holds it. `of_task` is its policy, in JSON.

        Raises:
            NotFound: there is no such function, or the caller does not see it.
            InvalidPayload: `payload` is not base64 of a pickle.
            InvalidRequest: `of_task` is no policy, or contradicts that of the function.
            Conflict: the key came before, with another function or payload.
            StoreUnavailable: it is not accepted.
        """
        function = await self.function(caller, function_id)
        raw = decode(payload)
        check_arguments(raw)
        return await self.call(caller, function, raw, idempotency_key, of_task)

    async def call(
        self,
        caller: Caller,
        function: FunctionView,
        raw: bytes,
        idempotency_key: str | None,
        of_task: bytes | None,
    ) -> UUID:
        """The same with a payload that is checked, and a function that the caller sees."""
        body_hash = None
        if idempotency_key is not None:
            said = b"" if of_task is None else policy.canonical(of_task)
            body_hash = hashlib.sha256(function.id.bytes + raw + said).hexdigest()
        submission = Submission(
            id=new_id(),
            owner=caller.user,
            function=function.id,
            payload=raw,
            created=time.time(),
            queue=function.queue,
            idempotency_key=idempotency_key,
            body_hash=body_hash,
        )
        if function.policy is not None or of_task is not None:
            submission = policy.applied(submission, policy.columns(function.policy, of_task))
        return await self.submit(caller, submission)

    async def submit(self, caller: Caller, submission: Submission) -> UUID:
        """The id of the task that there is after the commit: an earlier one's, if its Idempotency-Key came before.

        Raises:
            Conflict: the key came before, with another body.
            TooMany: the caller has as much as they may.
            StoreUnavailable: it is not accepted.
        """
        await self.check_quota(caller, len(submission.payload))
        accepted = await self.writer.submit(submission)
        if accepted.conflict:
            raise Conflict("this Idempotency-Key came before, with another body", field="Idempotency-Key")
        if self.gate is not None:
            self._remember(accepted.id, submission.owner)
        return accepted.id

    async def check_quota(self, caller: Caller, size: int, tasks: int = 1) -> None:
        """Raises TooMany unless there is room for so many more tasks, of `size` bytes together."""
        if self.gate is not None:
            await self._ledger.check(caller, size, tasks)

    async def function(self, caller: Caller, function_id: str) -> FunctionView:
        """Raises NotFound unless there is one, and the caller sees it."""
        found = await self.reader.function(parse_id(function_id, "function"))
        if found is None or not caller.may_see(found.owner):
            raise no_such("function", function_id)
        return found

    async def outcome(self, caller: Caller, task_id: UUID, *, with_result: bool = True) -> Outcome:
        """Raises NotFound unless there is such a task, and the caller sees it."""
        if self.gate is None or self._is_known(caller, task_id):
            ending = await self.mirror.ending(task_id, with_result=with_result)
            if ending is not None and (ending.result is not None or not with_result):
                return Outcome(ending.state, True, ending.result or b"")
        view = await self.reader.task(task_id)
        if view is None or not caller.may_see(view.owner):
            raise no_such("task", str(task_id))
        if self.gate is not None:
            self._remember(task_id, view.owner)
        return Outcome(contract_state(view.state, begun=view.begun), view.state.is_terminal, view.result or b"")

    async def outcome_within(
        self, caller: Caller, task_id: UUID, wait_s: float, gone: Callable[[], Awaitable[None]]
    ) -> Outcome:
        """The outcome once the task has ended, or as it is after `wait_s`, or when this process stops.

        Raises:
            NotFound: at once.
            RequestAborted: `gone` came back first: nobody waits any more.
        """
        deadline = self.loop.time() + min(wait_s, MAX_WAIT_S)
        left = asyncio.ensure_future(gone())
        try:
            while True:
                woken = self.waiters.wait(task_id)  # before looking, so that no end falls between the two
                try:
                    outcome = await self.outcome(caller, task_id)
                    remaining = deadline - self.loop.time()
                    if outcome.has_ended or remaining <= 0 or self.waiters.closed:
                        return outcome
                    await asyncio.wait((woken, left), timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
                    if left.done():
                        raise RequestAborted
                finally:
                    woken.cancel()
        finally:
            left.cancel()

    async def sees_task(self, caller: Caller, task_id: UUID) -> bool:
        """Whether there is such a task, and the caller sees it."""
        if caller.sees is None or self._is_known(caller, task_id):
            return True
        view = await self.reader.task(task_id)
        if view is None or not caller.may_see(view.owner):
            return False
        self._remember(task_id, view.owner)
        return True

    def _is_known(self, caller: Caller, task_id: UUID) -> bool:
        """Whether the task is known to be one that the caller sees."""
        owner = self._owners.get(task_id)
        return caller.sees is None or (owner is not None and owner in caller.sees)

    def _remember(self, task_id: UUID, owner: int) -> None:
        self._owners[task_id] = owner
        if len(self._owners) > KEPT_OWNERS:
            self._owners.popitem(last=False)

    async def readiness(self) -> health.Readiness:
        return await health.readiness(self.reader, redis_is_up=self.link.connected)

    def _read_all(self, task_ids: list[UUID]) -> Awaitable[dict[UUID, TaskView]]:
        return self.reader.call(lambda cursor: moves.read(cursor, task_ids))

    def _committed(self, accepted: list[Accepted]) -> None:
        self.mirror.submitted([task.id for task in accepted])

    def cancelled(self, ended: list[Closed], running: bool) -> None:
        """A commit has ended these tasks, and may have marked others that run: for those who write."""
        words = [Entry(task.task, task.attempt, contract_state(task.state, begun=True)) for task in ended]
        self.mirror.cancelled(words, running=running)
        told = b"".join(task.task.bytes for task in ended)  # those of this process need no Redis for it
        self.waiters.told(told)
        self.batches.feeds.told(told)


def parse_id(text: str, noun: str) -> UUID:
    """The id in `text`; what is no id is the id of nothing."""
    try:
        return UUID(text)
    except ValueError:
        raise no_such(noun, text) from None


def no_such(noun: str, identifier: str) -> NotFound:
    return NotFound(f"there is no {noun} {identifier[:64]!r}", field=f"{noun}_id")


_services: Services | None = None


def services() -> Services:
    """The services of this process, started on the running loop the first time."""
    global _services
    loop = asyncio.get_running_loop()
    if _services is None or _services.loop is not loop:
        _services = Services(settings.FAAS, loop)
    return _services


def forget_function(function: UUID) -> None:
    """A function has changed: what this process keeps of it no longer holds. From any thread."""
    if _services is not None:
        _services.loop.call_soon_threadsafe(_services.reader.forget, function)


async def stop_services() -> None:
    """Closes the services of this process, if there are any. They stay, and refuse what still comes."""
    if _services is not None:
        await _services.close()
