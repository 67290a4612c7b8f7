"""Results that come in by themselves, and the futures that wait for them.

One `Inbox` for each batch that somebody waits for, with one thread. It follows the batch over a WebSocket; where that
cannot be opened, by long polls, one after the other. When the connection is lost it goes on behind its cursor: nothing
is missed, and what comes twice has no future left to go to.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import msgspec
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from everythingfaas.client import flows, results
from everythingfaas.client.answers import Page, Pushed, TaskResult
from everythingfaas.client.flows import Verbs
from everythingfaas.client.http import CONNECT_S, Link, is_loopback
from everythingfaas.errors import FaasError, Refused, Unreachable

log = logging.getLogger("everythingfaas.client")

FOLLOW = "/api/v1/follow"
#: What one message may hold: a page, or a result that is larger than one.
MAX_MESSAGE_BYTES = 1 << 31
#: After a connection was lost: seconds until the next try, doubled up to the second.
RETRY_S, MAX_RETRY_S = 0.05, 5.0
#: After so many seconds without a page the batch is followed anew, on a new connection; the first comes at once.
FIRST_S, SILENCE_S = 10.0, 60.0

_cancelling = threading.RLock()
_pack = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(Pushed).decode


class RemoteFuture(concurrent.futures.Future[Any]):
    """A call that runs elsewhere. As any future, and:

    Attributes:
        task_id: the task's, once it is accepted; before that None.
    """

    def __init__(self, canceller: Callable[[RemoteFuture, bool], bool]) -> None:
        super().__init__()
        self.task_id: UUID | None = None
        self._canceller = canceller

    def cancel(self, *, force: bool = False) -> bool:
        """Calls it off. Returns whether it will not end in another way.

        Args:
            force: kill it if it runs. Otherwise, as with any executor, what runs is left alone.
        """
        if self.done():
            return self.cancelled()
        return self._canceller(self, force)

    def cancel_here(self) -> bool:
        """The base class's: nobody else is asked, or has been already."""
        with _cancelling:  # or two threads would notify those who wait
            if not self.cancelled() and super().cancel():
                self.set_running_or_notify_cancel()
        return self.cancelled()

    def settle(self, one: TaskResult) -> None:
        """What it ended with."""
        if one.state == "CANCELLED":
            self.cancel_here()
            return
        try:
            if one.state == "COMPLETED":
                self.set_result(results.value_of(one.result, one.task_id))
            else:
                self.set_exception(results.exception_of(one.result, one.error, one.task_id))
        except concurrent.futures.InvalidStateError:
            log.debug("task %s had been cancelled here", one.task_id)
        except FaasError as exc:  # it cannot be loaded
            self.set_exception(exc)

    def fail(self, exc: BaseException) -> None:
        """It will never be known what it ends with."""
        if not self.done():
            self.set_exception(exc)

    def __repr__(self) -> str:
        name = "not accepted yet" if self.task_id is None else self.task_id
        return f"<{type(self).__name__} {name} {self._state.lower()}>"


class Inbox:
    """The results of one batch."""

    def __init__(self, link: Link, verbs: Verbs, batch: UUID, *, on_settled: Callable[[int], None]) -> None:
        """`on_settled` is called after so many futures were settled, on the thread of this inbox."""
        self.batch = batch
        self._link = link
        self._verbs = verbs
        self._on_settled = on_settled
        self._lock = threading.Lock()
        self._futures: dict[int, RemoteFuture] = {}
        self._known = 0  # the futures of tasks from this number on are still to come
        self._early: dict[int, TaskResult] = {}
        self._cursor = ""
        self._socket: ClientConnection | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faas-inbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def expect(self, first: int, futures: Iterable[RemoteFuture]) -> None:
        """Waits for the tasks from number `first` on."""
        settled: list[tuple[RemoteFuture, TaskResult]] = []
        with self._lock:
            for number, future in enumerate(futures, first):
                early = self._early.pop(number, None)
                if early is None:
                    self._futures[number] = future
                else:
                    settled.append((future, early))
                self._known = number + 1
        self._settle(settled)

    def close(self) -> None:
        """No more is waited for. Futures that are left stay as they are."""
        self._closed.set()
        socket = self._socket
        if socket is not None:
            socket.close()
        if threading.current_thread() is not self._thread and self._thread.ident is not None:
            self._thread.join(CONNECT_S)

    # On the thread

    def _run(self) -> None:
        follow, pause_s = self._by_socket, RETRY_S
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                follow()
            except _NoSocket as exc:
                log.info("results come by long polls: %s", exc)
                follow = self._by_polls
                continue
            except (Unreachable, OSError, WebSocketException, TimeoutError) as exc:
                log.info("the connection for results is lost, and will be there again: %s", exc)
            except Refused as exc:
                if exc.status < 500 and exc.status != 429:
                    self._give_up(exc)
                    return
                log.info("results are not sent now: %s", exc)
            except Exception as exc:  # or everybody would wait for ever
                log.exception("results cannot be read")
                self._give_up(exc)
                return
            if time.monotonic() - began > SILENCE_S:
                pause_s = RETRY_S
            self._closed.wait(pause_s)
            pause_s = min(2 * pause_s, MAX_RETRY_S)

    def _by_socket(self) -> None:
        url = self._link.endpoint.url.replace("http", "ws", 1) + FOLLOW
        try:
            socket = connect(
                url,
                additional_headers=self._link.headers(),
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                open_timeout=CONNECT_S,
                proxy=None if is_loopback(url) else True,
            )
        except InvalidStatus as exc:
            if exc.response.status_code in (502, 503):
                raise
            raise _NoSocket(str(exc)) from exc
        with socket:
            self._socket = socket
            if self._closed.is_set():
                return
            socket.send(_pack({"follow": str(self.batch), "after": self._cursor}))
            patience_s = FIRST_S
            try:
                while not self._closed.is_set():
                    # Silence means that nothing ends, or that nobody is there any more: following once more tells.
                    pushed = _read(socket.recv(patience_s))  # type: ignore[arg-type]  # binary, as we have asked for it
                    patience_s = SILENCE_S
                    if pushed.refused is not None:
                        raise Refused(pushed.status, "", pushed.refused)
                    self._take(pushed.results, pushed.cursor)
                    socket.send(_pack({"ack": pushed.number}))
            except ConnectionClosed as exc:
                if not self._closed.is_set():
                    raise Unreachable(f"the connection was closed: {exc}") from exc
            finally:
                self._socket = None

    def _by_polls(self) -> None:
        while not self._closed.is_set():
            page: Page = self._link.run(self._verbs.page(self.batch, self._cursor, flows.POLL_S))
            self._take(page.results, page.cursor)
            if not page.results:
                self._closed.wait(RETRY_S)  # nothing is pending, as far as the service knows

    def _take(self, ended: list[TaskResult], cursor: str) -> None:
        settled: list[tuple[RemoteFuture, TaskResult]] = []
        with self._lock:
            self._cursor = cursor
            for one in ended:
                future = self._futures.pop(one.index, None)
                if future is not None:
                    settled.append((future, one))
                elif one.index >= self._known:
                    self._early[one.index] = one
        self._settle(settled)

    def _settle(self, settled: list[tuple[RemoteFuture, TaskResult]]) -> None:
        count = len(settled)
        settled.reverse()
        while settled:  # and nothing refers to a result any more
            future, one = settled.pop()
            try:
                if len(one.result) < one.size:
                    raw = self._link.run(self._verbs.raw_result(one.task_id))
                    one = msgspec.structs.replace(one, result=raw)
                future.settle(one)
            except Exception as exc:  # noqa: BLE001  # whatever it is, it is this one's
                future.fail(exc)
            del future, one
        if count:
            self._on_settled(count)

    def _give_up(self, exc: BaseException) -> None:
        with self._lock:
            futures, self._futures = list(self._futures.values()), {}
        log.error("the results of batch %s cannot be had: %s", self.batch, exc)
        for future in futures:
            future.fail(exc)
        if futures:
            self._on_settled(len(futures))


class _NoSocket(Exception):
    """The service, or something on the way to it, opens no WebSocket."""
