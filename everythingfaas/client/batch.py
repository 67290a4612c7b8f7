"""Tasks that were sent together, whoever sent them: in this process, or in one that is long gone."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from everythingfaas.client.answers import BatchInfo, Cancelled
from everythingfaas.client.flows import Verbs
from everythingfaas.client.http import Link
from everythingfaas.client.inbox import Inbox, RemoteFuture


class Batch:
    """Made by `Client.batch` and `Client.submit_many`.

    Attributes:
        id: of the batch.
        task_ids: those of its tasks, in their order.
    """

    def __init__(self, link: Link, verbs: Verbs, batch: UUID, task_ids: list[UUID]) -> None:
        self.id = batch
        self.task_ids = task_ids
        self._link = link
        self._verbs = verbs
        self._inbox: Inbox | None = None
        self._futures: list[RemoteFuture] = []
        self._open = 0

    def __len__(self) -> int:
        return len(self.task_ids)

    def __repr__(self) -> str:
        return f"<Batch {self.id} of {len(self)} tasks>"

    @property
    def futures(self) -> list[RemoteFuture]:
        """A future for each task, in their order. From the first use on, results come in by themselves."""
        if self._inbox is None and self.task_ids:
            self._inbox = Inbox(self._link, self._verbs, self.id, on_settled=self._settled)
            self._futures = [RemoteFuture(self._cancel_one) for _ in self.task_ids]
            for future, task in zip(self._futures, self.task_ids, strict=True):
                future.task_id = task
            self._open = len(self._futures)
            self._inbox.expect(0, self._futures)
            self._inbox.start()
        return self._futures

    def results(self, timeout: float | None = None) -> Iterator[Any]:
        """What its tasks have returned, in their order; raises what one of them has raised when it is its turn."""
        for future in self.futures:
            yield future.result(timeout)

    def info(self) -> BatchInfo:
        """How many tasks are in which state."""
        return self._link.run(self._verbs.batch(self.id))

    def cancel(self, *, force: bool = False) -> Cancelled:
        """Calls off what has not begun; with `force` what runs as well."""
        return self._link.run(self._verbs.cancel_batch(self.id, running=force))

    def wait(self, timeout: float | None = None) -> bool:
        """Whether all tasks have ended, at the latest after so many seconds."""
        return not concurrent.futures.wait(self.futures, timeout).not_done

    def _cancel_one(self, future: RemoteFuture, force: bool) -> bool:
        return cancel_remote(self._link, self._verbs, self.id, future, force)

    def _settled(self, count: int) -> None:
        self._open -= count
        if self._open <= 0 and self._inbox is not None:
            self._inbox.close()


#: How long a kill is waited for, in seconds.
KILL_S = 10.0


def cancel_remote(link: Link, verbs: Verbs, batch: UUID, future: RemoteFuture, force: bool) -> bool:
    """Calls off a task that the service has got."""
    assert future.task_id is not None
    off = link.run(verbs.cancel_batch(batch, [future.task_id], running=force))
    if future.task_id in off.cancelled:
        return future.cancel_here()
    if future.task_id in off.being_cancelled:
        concurrent.futures.wait([future], KILL_S)
    return future.cancelled()
