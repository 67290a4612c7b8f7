"""The verbs of `Client` for asyncio. Futures of an `Executor` are awaited by `asyncio.wrap_future`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any
from uuid import UUID

from everythingfaas.client import answers, flows, results
from everythingfaas.client.config import endpoint
from everythingfaas.client.flows import PATIENCE_S, Verbs
from everythingfaas.client.http import AsyncLink

Function = Callable[..., Any] | str | UUID
Id = str | UUID


class AsyncClient:
    """A service, for one event loop. Its methods are those of `Client`, and are described there."""

    def __init__(self, url: str | None = None, token: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self._link = AsyncLink(endpoint(url, token))
        self._verbs = Verbs(patience_s)

    @property
    def url(self) -> str:
        return self._link.endpoint.url

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._link.close()

    async def register(self, function: Callable[..., Any], name: str | None = None, **policy: Any) -> str:
        return await self._link.run(self._verbs.register(function, name, policy or None))

    async def functions(self, name: str | None = None, limit: int | None = None) -> list[answers.FunctionInfo]:
        return await self._link.run(self._verbs.functions(name, limit))

    async def submit(self, function: Function, /, *args: Any, **kwargs: Any) -> str:
        return await self._link.run(self._verbs.submit(function, args, kwargs))

    async def submit_many(
        self, function: Function, calls: Iterable[tuple[Any, ...]], *, name: str = "", **policy: Any
    ) -> answers.Added:
        """The batch and its tasks; `results` iterates over what they end with."""
        return await self._link.run(self._verbs.submit_many(function, list(calls), name, policy or None))

    async def status(self, task: Id) -> str:
        return await self._link.run(self._verbs.status(task))

    async def task(self, task: Id) -> answers.TaskInfo:
        return await self._link.run(self._verbs.task(task))

    async def tasks(self, *states: str, function: str | None = None, limit: int = 50) -> list[answers.TaskInfo]:
        return await self._link.run(self._verbs.tasks(states, function, limit))

    async def result(self, task: Id, timeout: float | None = None) -> Any:  # as that of `Client`
        return await self._link.run(self._verbs.result(task, timeout))

    async def cancel(self, task: Id, wait: float = 0) -> answers.TaskInfo:
        return await self._link.run(self._verbs.cancel(task, wait))

    async def retry(self, task: Id) -> str:
        return await self._link.run(self._verbs.retry(task))

    async def batch(self, name_or_id: Id) -> answers.BatchInfo:
        return await self._link.run(self._verbs.batch(name_or_id))

    async def batches(self, name: str | None = None, limit: int = 50) -> list[answers.BatchInfo]:
        return await self._link.run(self._verbs.batches(name, limit))

    async def results(self, name_or_id: Id) -> AsyncIterator[tuple[int, Any]]:
        """Numbers in the batch and values, as tasks end; where one has raised, the exception is the value."""
        info = await self.batch(name_or_id)
        cursor, seen = "", set[int]()
        while len(seen) < info.size:
            page = await self._link.run(self._verbs.page(info.id, cursor, flows.POLL_S))
            cursor = page.cursor
            for one in page.results:
                if one.index not in seen:
                    seen.add(one.index)
                    yield one.index, _value(one)

    async def workers(self) -> answers.Workers:
        return await self._link.run(self._verbs.workers())

    async def readiness(self) -> answers.Readiness:
        return await self._link.run(self._verbs.readiness())

    async def json(self, method: str, path: str, body: object = None, **query: str) -> Any:
        return await self._link.run(self._verbs.json(method, path, body, **query))


def _value(one: answers.TaskResult) -> Any:
    if one.state == "COMPLETED":
        return results.value_of(one.result, one.task_id)
    return results.exception_of(one.result, one.error, one.task_id)
