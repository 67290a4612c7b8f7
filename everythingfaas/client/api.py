"""One call for each thing that the service can do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias
from uuid import UUID

from everythingfaas.client import answers
from everythingfaas.client.batch import Batch
from everythingfaas.client.config import endpoint
from everythingfaas.client.executor import Executor
from everythingfaas.client.flows import PATIENCE_S, Verbs
from everythingfaas.client.http import Connection, Link

#: What may be called: a function; or the id or name of one that is registered.
Function: TypeAlias = Callable[..., Any] | str | UUID
Id: TypeAlias = str | UUID


class Client:
    """A service, for any number of threads. `AsyncClient` is the same for asyncio.

    Args:
        url: of the service; else that of FAAS_URL, or of the configuration file.
        token: with which it lets in; else that of FAAS_TOKEN, or of the file.
        patience_s: for so long a request is said again while nobody answers, or the service is not ready for it.

    Every method raises Unreachable if nobody answers, and Refused if the service does not do it.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self._link = Link(endpoint(url, token))
        self._verbs = Verbs(patience_s)
        self._executors: dict[str, Executor] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self._link.endpoint.url

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the calls of decorated functions, and closes the connections."""
        with self._lock:
            executors, self._executors = list(self._executors.values()), {}
        for executor in executors:
            executor.shutdown()
        self._link.close()

    def register(self, function: Callable[..., Any], name: str | None = None, **policy: Any) -> str:
        """Stores a function, and returns its id. `policy` is what its tasks follow: see docs/api.md."""
        return self._link.run(self._verbs.register(function, name, policy or None))

    def functions(self, name: str | None = None, limit: int | None = None) -> list[answers.FunctionInfo]:
        """The registered functions, the newest first."""
        return self._link.run(self._verbs.functions(name, limit))

    def submit(self, function: Function, /, *args: Any, **kwargs: Any) -> str:
        """Has a function called, and returns the id of the task."""
        return self._link.run(self._verbs.submit(function, args, kwargs))

    def submit_many(
        self, function: Function, calls: Iterable[tuple[Any, ...]], *, name: str = "", **policy: Any
    ) -> Batch:
        """Has a function called with each tuple of arguments: all of them or none, up to 2,000; else part by part."""
        added = self._link.run(self._verbs.submit_many(function, list(calls), name, policy or None))
        return Batch(self._link, self._verbs, added.batch_id, added.task_ids)

    def status(self, task: Id) -> str:
        """WAITING, QUEUED, RUNNING, COMPLETED, FAILED or CANCELLED."""
        return self._link.run(self._verbs.status(task))

    def task(self, task: Id) -> answers.TaskInfo:
        """All that is known of a task but its arguments and its result."""
        return self._link.run(self._verbs.task(task))

    def tasks(self, *states: str, function: str | None = None, limit: int = 50) -> list[answers.TaskInfo]:
        """Tasks, the newest first."""
        return self._link.run(self._verbs.tasks(states, function, limit))

    def result(self, task: Id, timeout: float | None = None) -> Any:
        """What the task returned; waits for it. Raises what it raised, and TimeoutError after `timeout` seconds."""
        return self._link.run(self._verbs.result(task, timeout))

    def cancel(self, task: Id, wait: float = 0) -> answers.TaskInfo:
        """Ends a task: what runs is killed. Returns how it is then, or `wait` seconds later, or when it has ended."""
        return self._link.run(self._verbs.cancel(task, wait))

    def retry(self, task: Id) -> str:
        """Does the same once more, and returns the id of the new task."""
        return self._link.run(self._verbs.retry(task))

    def batch(self, name_or_id: Id) -> Batch:
        """Tasks that were sent together, by an executor or by `submit_many`, here or in a former process."""
        info = self._link.run(self._verbs.batch(name_or_id))
        return Batch(self._link, self._verbs, info.id, self._link.run(self._verbs.batch_tasks(info.id)))

    def batches(self, name: str | None = None, limit: int = 50) -> list[answers.BatchInfo]:
        """Batches, the newest first."""
        return self._link.run(self._verbs.batches(name, limit))

    def workers(self) -> answers.Workers:
        """The workers and dispatchers that are connected."""
        return self._link.run(self._verbs.workers())

    def readiness(self) -> answers.Readiness:
        """Whether the service can do its work."""
        return self._link.run(self._verbs.readiness())

    def json(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """Any other call of the API, with its answer as it is."""
        return self._link.run(self._verbs.json(method, path, body, **query))

    def executor(self, *, name: str = "", max_workers: int | None = None, **policy: Any) -> Executor:
        """A new executor on the connections of this client, which must not be closed before it."""
        return Executor(Connection(self._link, self._verbs), name=name, max_workers=max_workers, **policy)

    def shared_executor(self, policy: dict[str, Any]) -> Executor:
        """The one that decorated functions of this policy use."""
        key = json.dumps(policy, sort_keys=True)
        with self._lock:
            if key not in self._executors:
                self._executors[key] = self.executor(**policy)
            return self._executors[key]
