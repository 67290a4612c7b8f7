"""What the HTTP side can do with batches. One for each process, beside `api.services`, which starts and closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from django.core.exceptions import RequestAborted

from api.access.caller import Caller
from api.batches import intake, statements
from api.batches.canceller import BatchCanceller, CalledOff
from api.batches.feed import STEP, Feed, Feeds, Place
from api.batches.messages import Page, TaskResult
from api.batches.statements import Added, BatchView
from api.batches.writer import BatchWriter
from api.errors import Conflict, InvalidRequest, NotFound
from api.mirror import DONE, GREW
from api.moves import FunctionView
from api.tally import Tally
from everythingfaas.status import State

if TYPE_CHECKING:
    from api.services import Services

T = TypeVar("T")

#: Bodies that are larger than this are read on a thread, in turns with the event loop.
LARGE_BYTES = 256 * 1024
#: One page of results has at most so many, and about so many bytes of them.
PAGE_RESULTS = 1_000
PAGE_BYTES = 4 * 1024**2
#: So many tasks are called off in one transaction.
CANCEL_STEP = 2_000


class Batches:
    """Batches, for callers on the event loop."""

    def __init__(self, services: Services, name: str) -> None:
        self._services = services
        self._loop = services.loop
        self.writer = BatchWriter(self._loop, Tally(f"batch:{name}"[:64]), self._committed)
        self.canceller = BatchCanceller(self._loop, Tally(f"off:{name}"[:64]), services.cancelled)
        subscription = services.subscription
        self.feeds = Feeds(self._loop, ask=services.reader.call, is_told=lambda: subscription.connected)
        subscription.listen(DONE, self.feeds.told)
        subscription.listen(GREW, lambda message: self.feeds.grew(UUID(bytes=message)))
        subscription.listen_to_changes(self.feeds.look)

    async def let_go(self) -> None:
        await self.feeds.close()

    async def close(self) -> None:
        await self.writer.close()
        await self.canceller.close()

    def abandon(self) -> None:
        self.writer.abandon()
        self.canceller.abandon()

    async def submit(
        self, caller: Caller, batch: UUID | None, body: bytes, idempotency_key: str | None, *, packed: bool
    ) -> Added:
        """Accepts tasks, as a new batch or at the end of one: after the commit that holds them all.

        Raises:
            NotFound: there is no such batch or function, or the caller does not see it.
            InvalidRequest: a part of it is wrong; nothing is stored.
            Conflict: the key came before, with another body.
            TooMany: the caller has as much as they may.
            StoreUnavailable: nothing is accepted.
        """
        order = await self._off_loop(len(body), partial(intake.read, body, packed=packed))
        functions = await self._functions(caller, order)
        part = await self._off_loop(
            len(body),
            partial(
                intake.part,
                order,
                functions.__getitem__,
                batch=batch,
                owner=caller.user,
                body=body,
                idempotency_key=idempotency_key,
            ),
        )
        await self._services.check_quota(caller, order.size, len(order.calls))
        added = await self.writer.submit(part)
        if added is None:
            raise no_such(str(batch))
        if added.conflict:
            raise Conflict("this Idempotency-Key came before, with another body", field="Idempotency-Key")
        return added

    async def find(self, caller: Caller, name_or_id: str) -> BatchView:
        """Raises NotFound unless there is such a batch, and the caller sees it."""
        try:
            identifier = UUID(name_or_id)
        except ValueError:
            ask = partial(statements.by_name, name=name_or_id, sees=caller.sees, user=caller.user)
        else:
            ask = partial(statements.find, batch=identifier)
        found = await self._services.reader.call(ask)
        if found is None or not caller.may_see(found.owner):
            raise no_such(name_or_id)
        return found

    async def members(self, batch: BatchView, first: int, count: int) -> list[UUID]:
        """The ids of its tasks from number `first` on."""
        ids = await self._services.reader.call(
            partial(statements.members, batch=batch.id, first=first, count=min(count, intake.MAX_TASKS))
        )
        return [UUID(bytes=task) for task in statements.split(ids)]

    async def states(self, batch: BatchView) -> dict[State, int]:
        """How many of its tasks are in which state."""
        found = dict.fromkeys(State, 0)
        for first in range(0, batch.size, STEP):
            tasks = await self.members(batch, first, STEP)
            for state, number in (await self._services.reader.call(partial(statements.count, tasks=tasks))).items():
                found[state] += number
        return found

    async def cancel(
        self, batch: BatchView, tasks: list[UUID] | None, *, running: bool
    ) -> tuple[list[UUID], list[UUID]]:
        """Calls off its tasks, or some of them: those that have ended by it, and those that will."""
        ended: list[UUID] = []
        killed: list[UUID] = []
        if tasks is None:
            steps = [partial(self.members, batch, first, CANCEL_STEP) for first in range(0, batch.size, CANCEL_STEP)]
        else:
            wanted = await self._of(batch, tasks)
            steps = [partial(_now, wanted[at : at + CANCEL_STEP]) for at in range(0, len(wanted), CANCEL_STEP)]
        for step in reversed(steps):  # the last will not have begun
            off: CalledOff = await self.canceller.cancel(await step(), running=running)
            ended += [task.task for task in off.ended]
            killed += off.running
        return ended, killed

    async def page(
        self,
        feed: Feed,
        place: Place,
        most: int = PAGE_RESULTS,
        *,
        max_bytes: int = PAGE_BYTES,
        most_each: int | None = None,
    ) -> tuple[Page, Place]:
        """What has ended from there on, as far as it fits, and where it goes on. See `statements.results`."""
        listed = feed.ended(place, most)
        results: list[TaskResult] = []
        if listed:
            tasks = [UUID(bytes=task) for _, task in listed]
            read = partial(statements.results, tasks=tasks, max_bytes=max_bytes, most_each=most_each)
            ended = await self._services.reader.call(read)
            results = [TaskResult.of(number, one) for (number, _), one in zip(listed, ended, strict=False)]
        following = feed.passed(place, len(results))
        pending = len(feed.pending) + feed.end - following.at
        return Page(results, str(following), pending, feed.size), following

    async def page_within(
        self, batch: BatchView, cursor: str, wait_s: float, most: int, gone: Callable[[], Awaitable[None]]
    ) -> Page:
        """What has ended behind `cursor`. If nothing has, and something will: when it has, or after `wait_s`.

        Raises:
            RequestAborted: `gone` came back first: nobody waits any more.
        """
        deadline = self._loop.time() + wait_s
        place = Place.read(cursor)
        feed = await self.feeds.join(batch.id)
        left = asyncio.ensure_future(gone()) if wait_s else None
        try:
            place = feed.place(place)
            while left is not None and feed.end == place.at and feed.pending and not self.feeds.closed:
                more = asyncio.ensure_future(feed.more())
                await asyncio.wait(
                    (more, left), timeout=deadline - self._loop.time(), return_when=asyncio.FIRST_COMPLETED
                )
                if left.done():
                    more.cancel()
                    raise RequestAborted
                if not more.done():
                    more.cancel()
                    break
            return (await self.page(feed, place, most))[0]
        finally:
            if left is not None:
                left.cancel()
            self.feeds.leave(feed)

    async def _of(self, batch: BatchView, tasks: list[UUID]) -> list[UUID]:
        """Raises InvalidRequest unless all of them are tasks of the batch."""
        belonging = await self._services.reader.call(partial(statements.belonging, batch=batch.id, tasks=tasks))
        for at, task in enumerate(tasks):
            if task not in belonging:
                raise InvalidRequest(f"tasks[{at}]: there is no task {str(task)!r} in this batch", field=f"tasks[{at}]")
        return tasks

    async def _functions(self, caller: Caller, order: intake.Order) -> dict[str, FunctionView]:
        found: dict[str, FunctionView] = {}
        if order.function is not None:
            found[order.function] = await self._services.function(caller, order.function)
        for at, call in enumerate(order.calls):
            if call.function not in found:
                try:
                    found[call.function] = await self._services.function(caller, call.function)
                except NotFound as exc:
                    raise intake.of_task(at, InvalidRequest(exc.message, field="function_id")) from exc
        return found

    async def _off_loop(self, size: int, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work) if size > LARGE_BYTES else work()

    def _committed(self, added: list[Added]) -> None:
        self._services.mirror.added({one.batch for one in added})
        for one in added:
            self.feeds.added(one.batch, one.first, one.tasks)


async def _now(tasks: list[UUID]) -> list[UUID]:
    return tasks


def no_such(batch: str) -> NotFound:
    return NotFound(f"there is no batch {batch[:64]!r}", field="batch")
