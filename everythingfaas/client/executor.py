"""An executor of `concurrent.futures` whose workers are elsewhere.

    submit ──▶ outbox ──▶ one thread: whatever has come in while the last request was on its way is the next one
                                                     │ a batch of the service, which grows
    future ◀── inbox: one thread, to which results are pushed ◀──┘

A call that was accepted is kept by the service, whatever becomes of this process: `Client.batch` finds it again. What
has not been sent when the interpreter ends is sent first.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from msgspec import Struct

from everythingfaas.client import flows
from everythingfaas.client.batch import cancel_remote
from everythingfaas.client.config import endpoint
from everythingfaas.client.flows import Verbs
from everythingfaas.client.http import Connection, Link
from everythingfaas.client.inbox import Inbox, RemoteFuture
from everythingfaas.client.payloads import Prepared, dump_call
from everythingfaas.client.progress import shown
from everythingfaas.errors import FaasError, Refused

T = TypeVar("T")

#: So many calls of one `map` are on their way at the most, unless it is told another number.
WINDOW = 10_000
#: For so many seconds a request is said again while nobody answers; then its calls fail with `Unreachable`.
PATIENCE_S = 300.0


class _Item(NamedTuple):
    future: RemoteFuture
    function: Prepared
    payload: bytes


class _Task(Struct, omit_defaults=True):
    """As it is sent."""

    payload: bytes
    function_id: str | None = None


class Executor(concurrent.futures.Executor):
    """Runs calls on a service. Everything that works with executors works with it.

    Example:
        with Executor("http://lab:8000") as executor:
            for value in executor.map(simulate, range(1_000_000), progress=True):
                print(value)

    Args:
        url: of the service; else that of FAAS_URL, or of the configuration file.
        token: with which it lets in; else that of FAAS_TOKEN, or of the file.
        name: by which `Client.batch` finds its calls again. Without one they have only an id, `batch_id`.
        max_workers: so many of its calls are given to the service at a time; None: as many as there are.
        policy: what holds for its tasks: `deadline_s`, `retries`, `memory_limit_mb`, …: see docs/api.md.
    """

    def __init__(
        self,
        url: str | Connection | None = None,
        token: str | None = None,
        *,
        name: str = "",
        max_workers: int | None = None,
        patience_s: float = PATIENCE_S,
        **policy: Any,
    ) -> None:
        """`Client.executor` hands over its connection instead of a URL."""
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._owns_link = not isinstance(url, Connection)
        link, verbs = url if isinstance(url, Connection) else Connection(Link(endpoint(url, token)), Verbs())
        self._link = link
        self._verbs = verbs
        self._name = name
        self._max_workers = max_workers
        self._patience_s = patience_s
        self._policy = policy or None
        self._changed = threading.Condition()  # around all that follows
        self._outbox: dict[RemoteFuture, _Item] = {}
        self._sending = False
        self._in_flight = 0
        self._calling_off = 0  # who asks the service something, beside the sender
        self._shut = self._is_closed = False
        self._inbox: Inbox | None = None
        self._sender: threading.Thread | None = None

    @property
    def batch_id(self) -> UUID | None:
        """The batch that its calls are in; None before the first was accepted."""
        return None if self._inbox is None else self._inbox.batch

    # --- what an executor does

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> RemoteFuture:
        """Calls `fn` there. What cannot be pickled is the future's exception."""
        future = RemoteFuture(self._cancel)
        try:
            item = _Item(future, self._verbs.prepared(fn, self._policy), dump_call(args, kwargs))
        except Exception as exc:  # noqa: BLE001  # pickling runs code of the user's
            self._check_open()
            future.set_exception(exc)
            return future
        self._put([item])
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: bool = False,
    ) -> Iterator[T]:
        """What `fn` returns for each item, in order. May be given a million items, or a generator without end.

        At most `buffersize` (10,000) calls are on their way: the first at once, the others as results are taken.

        Args:
            timeout: seconds from now until the last result is there.
            chunksize: so many items are one task: for functions that take less than a millisecond.
            progress: show a bar, in a terminal or a notebook.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else timeout + time.monotonic()
        total = min((len(one) for one in iterables if isinstance(one, Sized)), default=None)
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        function: Callable[..., Any] = fn
        if chunksize > 1:
            function, calls = functools.partial(_call_each, fn), _chunks(calls, chunksize)
        window = max(1, (buffersize or WINDOW) // chunksize)
        prepared = self._verbs.prepared(function, self._policy)
        futures = deque(self._start(prepared, itertools.islice(calls, window)))
        values: Iterator[T] = self._values(prepared, futures, calls, end)
        if chunksize > 1:
            values = itertools.chain.from_iterable(values)  # type: ignore[arg-type]  # of lists
        return shown(values, total) if progress else values

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. With `wait`, returns when all that were taken have ended.

        Args:
            cancel_futures: call off those that have not begun.
        """
        with self._changed:
            self._shut = True
            waiting: list[RemoteFuture] = []
            if cancel_futures:
                waiting = list(self._outbox)
                self._outbox.clear()
            self._changed.notify_all()
            sender = self._sender
        for future in waiting:
            future.cancel_here()
        if cancel_futures:
            self._call_off()
        if sender is None:
            self._close()
        elif wait:
            sender.join()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(wait=True)

    # --- sending

    def _check_open(self) -> None:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def _put(self, items: list[_Item]) -> None:
        with self._changed:
            self._check_open()
            self._outbox.update((item.future, item) for item in items)
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_all, name="faas-sender", daemon=True)
                self._sender.start()
                _executors.add(self)
            self._changed.notify_all()

    def _start(self, prepared: Prepared, calls: Iterable[tuple[Any, ...]]) -> Iterator[RemoteFuture]:
        """Puts calls into the outbox, some at a time, so that the first are sent while the others are pickled."""
        while part := list(itertools.islice(calls, 500)):
            items = [_Item(RemoteFuture(self._cancel), prepared, dump_call(args, {})) for args in part]
            self._put(items)
            yield from (item.future for item in items)

    def _send_all(self) -> None:
        while (part := self._next()) is not None:
            try:
                self._send(part)
            except Exception as exc:  # noqa: BLE001  # of whatever kind: those who wait have to hear of it
                for item in part:
                    item.future.fail(exc)
                self._settled(len(part))
            with self._changed:
                self._sending = False
                self._changed.notify_all()
            del part
        self._close()

    def _next(self) -> list[_Item] | None:
        """The calls of the next request; None: there will be none."""
        with self._changed:
            while not (self._outbox and self._room()):
                if self._shut and not (self._outbox or self._in_flight or self._calling_off):
                    self._is_closed = True
                    return None
                self._changed.wait()
            part: list[_Item] = []
            size = 0
            for item in self._outbox.values():
                size += len(item.payload)
                if part and (len(part) >= self._room() or size > flows.PART_BYTES):
                    break
                part.append(item)
            for item in part:
                del self._outbox[item.future]
            self._in_flight += len(part)
            self._sending = True
            return part

    def _room(self) -> int:
        if self._max_workers is None:
            return flows.PART_TASKS
        return min(flows.PART_TASKS, self._max_workers - self._in_flight)

    def _send(self, part: list[_Item]) -> None:
        """Has `part` accepted. One that is refused costs the others nothing."""
        while part:
            body, key = self._body(part), flows.new_key()
            batch = self.batch_id
            try:
                added = self._link.run(self._verbs.add(batch, body, key, self._patience_s))
            except Refused as exc:
                part = self._without_refused(part, exc)
                continue
            for item, task in zip(part, added.task_ids, strict=True):
                item.future.task_id = task
            inbox = self._inbox
            if inbox is None:
                inbox = self._inbox = Inbox(self._link, self._verbs, added.batch_id, on_settled=self._settled)
            inbox.expect(added.first, [item.future for item in part])
            if batch is None:
                inbox.start()
            return

    def _body(self, part: list[_Item]) -> dict[str, Any]:
        kinds = Counter(item.function.digest for item in part)
        made = {item.function.digest: item.function for item in part}
        ids = {digest: self._link.run(self._verbs.registered(one, self._patience_s)) for digest, one in made.items()}
        usual = kinds.most_common(1)[0][0]
        tasks = [
            _Task(item.payload, None if item.function.digest == usual else ids[item.function.digest]) for item in part
        ]
        body: dict[str, Any] = {"function_id": ids[usual], "tasks": tasks}
        return body | {"name": self._name} if self._inbox is None else body

    def _without_refused(self, part: list[_Item], exc: Refused) -> list[_Item]:
        """What is to be sent again. Raises `exc` if that makes no sense."""
        if exc.status == 413 and len(part) > 1:
            half = len(part) // 2
            self._send(part[:half])
            return part[half:]
        place = (exc.field or "").removeprefix("tasks[").partition("]")[0]
        if not (exc.status == 400 and place.isdigit() and int(place) < len(part)):
            raise exc
        part.pop(int(place)).future.fail(exc)
        self._settled(1)
        return part

    def _settled(self, count: int) -> None:
        with self._changed:
            self._in_flight -= count
            if not self._in_flight or self._max_workers is not None:
                self._changed.notify_all()

    def _close(self) -> None:
        if self._inbox is not None:
            self._inbox.close()
        if self._owns_link:
            self._link.close()

    # --- results in order

    def _values(
        self,
        prepared: Prepared,
        futures: deque[RemoteFuture],
        calls: Iterator[tuple[Any, ...]],
        end: float | None,
    ) -> Iterator[Any]:
        try:
            while futures:
                yield _result_of(futures.popleft(), None if end is None else end - time.monotonic())
                futures.extend(self._start(prepared, itertools.islice(calls, 1)))
        finally:
            self._cancel_many(futures)

    # --- calling off

    def _cancel(self, future: RemoteFuture, force: bool) -> bool:
        with self._changed:
            if self._outbox.pop(future, None) is not None:
                is_here = True
            else:
                while future.task_id is None and not future.done():
                    self._changed.wait()  # it is being sent
                is_here = False
            self._changed.notify_all()
        if is_here:
            return future.cancel_here()
        if future.done():
            return future.cancelled()
        assert self.batch_id is not None
        try:
            with self._connected() as is_connected:
                return is_connected and cancel_remote(self._link, self._verbs, self.batch_id, future, force)
        except FaasError:
            return False

    def _cancel_many(self, futures: Iterable[RemoteFuture]) -> None:
        with self._changed:
            here = [future for future in futures if self._outbox.pop(future, None) is not None]
            self._changed.notify_all()
        for future in here:
            future.cancel_here()
        sent = [future for future in futures if not future.done()]
        if sent:
            self._call_off(sent)

    def _call_off(self, futures: list[RemoteFuture] | None = None) -> None:
        """All that the service has got and has not begun, or these of it. They end as cancelled when it says so."""
        with self._changed:
            while self._sending:
                self._changed.wait()
        tasks = None if futures is None else [future.task_id for future in futures if future.task_id is not None]
        with self._connected() as is_connected:
            if is_connected and self.batch_id is not None and self._in_flight:
                self._link.run(self._verbs.cancel_batch(self.batch_id, tasks, running=False))

    @contextlib.contextmanager
    def _connected(self) -> Iterator[bool]:
        """Whether there is a connection, which the end of the last call does not close meanwhile."""
        with self._changed:
            is_connected = not self._is_closed
            self._calling_off += is_connected
        try:
            yield is_connected
        finally:
            with self._changed:
                self._calling_off -= is_connected
                self._changed.notify_all()


def _result_of(future: RemoteFuture, timeout: float | None) -> Any:
    """Its result. Called off if there is none; and nothing here refers to it afterwards."""
    try:
        try:
            return future.result(timeout)
        finally:
            if not future.done():
                future.cancel()
    finally:
        del future


def _chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[tuple[list[tuple[Any, ...]]]]:
    while chunk := list(itertools.islice(calls, size)):
        yield (chunk,)


def _call_each(fn: Callable[..., T], calls: list[tuple[Any, ...]]) -> list[T]:
    return [fn(*args) for args in calls]


# Shipped by value, for the client need not be installed where functions run.
_call_each.__module__ = "__main__"


# When the interpreter ends.

_executors: weakref.WeakSet[Executor] = weakref.WeakSet()
_exiting = False


def _send_the_rest() -> None:
    global _exiting  # the interpreter ends once
    _exiting = True
    for executor in list(_executors):
        with executor._changed:  # noqa: SLF001
            while executor._outbox or executor._sending:  # noqa: SLF001
                executor._changed.wait()  # noqa: SLF001


# As the executors of the standard library do: before the interpreter waits for threads, when ours can still work.
threading._register_atexit(_send_the_rest)  # type: ignore[attr-defined]  # noqa: SLF001
