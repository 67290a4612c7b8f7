"""The dispatcher's loop: poll, decode, core, perform.

One thread polls the workers' link and never waits for anything else. The store has a thread of its own
(`StoreThread`), so that heartbeats, deadlines and kills go on while a commit hangs; a bell may ring from
any thread. All that decides stands in `dispatcher.scheduler`.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import zmq

from dispatcher.books import Send
from dispatcher.policies import Pace
from dispatcher.scheduler import Scheduler
from dispatcher.store import Exchange, Exchanged, Printed, TaskStore
from everythingfaas.alive import Pulse, SignOfLife
from everythingfaas.errors import StoreUnavailable
from everythingfaas.waker import Waker
from everythingfaas.wire.messages import FromWorker

log = logging.getLogger("dispatcher")

#: After a stop was asked for, what runs may go on for so long; then it is killed and given back.
DRAIN_S = 4.0
#: If workers stop at the same time, what they have to deliver is waited for, up to this time before the end.
LAST_S = 1.0
#: And what then remains to be written may take so long.
FLUSH_S = 2.0
#: Waits between tries of a failing store.
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0


class Link(Protocol):
    """The way to the workers: slots of our own, or sockets."""

    def register(self, poller: zmq.Poller) -> None:
        """Adds what is to be polled."""

    def receive(self, now: float) -> Iterable[tuple[bytes, FromWorker]]:
        """What has come in. Does not block."""

    def send(self, sends: Iterable[Send], now: float) -> list[Send]:
        """Sends. Does not block. Returns what cannot be handed over: its peer is gone, or takes nothing."""

    @property
    def has_answers(self) -> bool:
        """Whether `receive` has something already, as it may after `send` where workers are in this process."""

    def next_deadline(self) -> float:
        """When `receive` has something to do although nothing came in."""

    #: Whether the workers end with this process.
    ends_with_us: bool

    def drain(self, now: float) -> None:
        """Workers that end with this process: give back what has not begun."""

    def kill(self, now: float) -> None:
        """Workers that end with this process: end what runs, now."""

    def close(self) -> None: ...


class Readable(Protocol):
    """Something else that is polled with the workers' link."""

    def fileno(self) -> int: ...

    def read(self) -> bool:
        """Takes what is there. Does not block. False when nothing will come any more."""


class StoreThread:
    """Does exchanges one at a time, each until the store has taken it."""

    def __init__(self, store: TaskStore, wake: Callable[[], None]) -> None:
        self._store = store
        self._wake = wake
        self._asked: queue.SimpleQueue[Exchange | None] = queue.SimpleQueue()
        self._answers: deque[Exchanged] = deque(maxlen=1)  # one exchange is under way at a time
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._doubtful = False
        self.crash: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def ask(self, exchange: Exchange) -> None:
        self._asked.put(exchange)

    def answer(self) -> tuple[Exchanged, bool] | None:
        """The answer that has come, and whether an earlier try of it may have been committed unheard."""
        if not self._answers:
            return None
        answer = self._answers.pop()
        doubtful, self._doubtful = self._doubtful, False
        return answer, doubtful

    def close(self, timeout_s: float) -> None:
        self._closing.set()
        self._asked.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while (exchange := self._asked.get()) is not None:
                answer = self._exchange(exchange)
                if answer is None:
                    return
                self._answers.append(answer)
                self._wake()
        except BaseException as exc:  # noqa: BLE001 -- whatever it is, the loop has to end and say so
            self.crash = exc
            self._wake()
        finally:
            self._store.close()

    def _exchange(self, exchange: Exchange) -> Exchanged | None:
        wait_s = RETRY_FIRST_S
        while True:
            try:
                answer = self._store.exchange(exchange)
            except StoreUnavailable as exc:
                if not self._doubtful:
                    log.warning("the database cannot be written, tasks wait: %s", exc)
                self._doubtful = True
                # While we could not reach the database, others could not renew their leases.
                exchange.trusts_leases = False
                if self._closing.wait(wait_s):
                    return None
                wait_s = min(wait_s * 2, RETRY_MAX_S)
            else:
                if self._doubtful:
                    log.info("the database can be written again")
                return answer


class Loop:
    """Runs a scheduler between a store and a link until it is told to stop.

    Args:
        drain_s: after a stop was asked for, what runs may go on for so long.
        leave_s: and, if it is longer, what runs on workers that are stopping as well: nobody takes it from them later.
        alive: is given each time that the store has answered.
        pulse: is given for as long as the loop turns.
        on_printed: takes what runs print; it must not block.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        store: TaskStore,
        link: Link,
        *,
        clock: Callable[[], float] = time.monotonic,
        drain_s: float = DRAIN_S,
        leave_s: float = DRAIN_S,
        alive: SignOfLife | None = None,
        pulse: Pulse | None = None,
        on_printed: Callable[[list[Printed]], None] | None = None,
    ) -> None:
        self._on_printed = on_printed
        self._core = scheduler
        self._link = link
        self._clock = clock
        self._drain_s = drain_s
        self._leave_s = leave_s
        self._alive = alive or SignOfLife(None)
        self._pulse = pulse or Pulse({})
        self._waker = Waker()
        self._thread = StoreThread(store, self._waker.wake)
        self._pace = Pace()
        self._polled: dict[int, Readable] = {}
        self._to_poll: deque[Readable] = deque()
        self._thread_id = 0  # of who runs the loop
        self._rung = False
        self._asked_to_look = False
        self._asked = False  # the store is at work for us
        self._stops = 0

    def poll(self, source: Readable) -> None:
        """Reads `source` whenever there is something. From any thread."""
        self._to_poll.append(source)
        self._waker.wake()

    def ring(self) -> None:
        """There is new work. From any thread."""
        self._rung = True
        if not self._asked:  # else the answer wakes us, and we look at `_rung` after it
            self._wake()

    def look(self) -> None:
        """Somebody wants a running task ended: the store says which. From any thread."""
        self._asked_to_look = True
        self._wake()

    def _wake(self) -> None:
        if threading.get_ident() != self._thread_id:  # what is polled is read before we look at what was said
            self._waker.wake()

    def stop(self) -> None:
        """Drain and leave; called twice, kill and leave. From any thread, or a signal handler."""
        self._stops += 1
        self._waker.wake()

    def run(self) -> None:
        """Until `stop`, or until another process has taken our lease.

        Raises:
            Exception: what the store raised that was not `StoreUnavailable`: a mistake of ours, not to be retried.
        """
        self._thread_id = threading.get_ident()
        poller = zmq.Poller()
        poller.register(self._waker.fileno(), zmq.POLLIN)
        self._link.register(poller)
        self._thread.start()
        try:
            while not self._stops and not self._core.lease_lost:
                self._turn(poller)
            self._leave(poller)
        finally:
            self._link.close()
            self._thread.close(FLUSH_S)

    def _leave(self, poller: zmq.Poller) -> None:
        self._core.stop()
        if self._core.lease_lost:
            log.error("another process has taken over this dispatcher's row; leaving")
        self._link.drain(self._clock())
        began = self._clock()
        while self._stops < 2 and not self._core.lease_lost and not self._core.is_idle:
            drained_by = began + self._patience_s
            if self._clock() >= drained_by:
                break
            self._turn(poller, until=drained_by)
        self._link.kill(self._clock())
        flushed_by = self._clock() + FLUSH_S
        while not self._is_flushed and self._clock() < flushed_by:
            self._turn(poller, until=flushed_by)

    @property
    def _patience_s(self) -> float:
        waited_for = self._core.is_being_left and not self._link.ends_with_us
        return max(self._drain_s, self._leave_s) if waited_for else self._drain_s

    @property
    def _is_flushed(self) -> bool:
        """What workers elsewhere still run, they go on with, and deliver to the next dispatcher."""
        return self._core.is_idle if self._link.ends_with_us else self._core.is_written

    def _turn(self, poller: zmq.Poller, *, until: float = math.inf) -> None:
        due = min(self._core.next_deadline(), self._link.next_deadline(), self._pace.due, self._pulse.due, until)
        wait_s = due - self._clock()
        # Rounded up, or the last fraction of a millisecond before a deadline would be a busy loop.
        woken = poller.poll(max(0, math.ceil(wait_s * 1000)))
        for source, _ in woken:
            if source == self._waker.fileno():
                self._waker.clear()
            elif source in self._polled and not self._polled[source].read():
                poller.unregister(source)
                del self._polled[source]
        while self._to_poll:
            readable = self._to_poll.popleft()
            self._polled[readable.fileno()] = readable
            poller.register(readable.fileno(), zmq.POLLIN)
        if self._thread.crash is not None:
            raise self._thread.crash
        now = self._clock()
        self._pulse.give(now)
        # Frames that wait are read before `expire` declares anyone lost.
        sends = self._received(now)
        answered = self._thread.answer()
        if answered is not None:
            answer, doubtful = answered
            self._asked = False
            self._alive.give(now)  # renewals of the lease make for one every few seconds
            if doubtful:
                self._core.recall()
            sends += self._core.exchanged(answer, now=now)
            self._pace.answered(self._core.short, now)
        if self._rung:
            self._rung = False
            self._core.ring()
        if self._asked_to_look:
            self._asked_to_look = False
            self._core.look()
        sends += self._core.expire(now=now)
        while sends:
            self._core.unsent(self._link.send(sends, now))
            sends = self._received(now) if self._link.has_answers else []
        printed = self._core.printed()
        if printed and self._on_printed is not None:
            self._on_printed(printed)
        self._ask(now)

    def _ask(self, now: float) -> None:
        """The next turn with the store, if there is to be one now."""
        if self._asked or not self._pace.allows(self._core.short, now):
            return
        exchange = self._core.exchange()
        if exchange is not None:
            self._asked = True
            self._thread.ask(exchange)

    def _received(self, now: float) -> list[Send]:
        sends: list[Send] = []
        for peer, message in self._link.receive(now):
            sends += self._core.receive(peer, message, now=now)
        return sends
