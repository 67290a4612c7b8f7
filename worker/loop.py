"""A worker's loop: poll, decode, session, perform. All that decides stands in `worker.session`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable

import zmq

from everythingfaas.alive import Pulse, SignOfLife
from everythingfaas.waker import Waker
from worker.channel import Channel
from worker.pool import SlotPool
from worker.session import Action, Ask, KillSlot, Reconnect, RetractJobs, Send, StartJob, Stop, WorkerSession

log = logging.getLogger("worker")

#: How long the results of what was killed at the end may take to be acknowledged.
FLUSH_S = 2.0
#: A dispatcher that is silent for so long is told of; and then at this distance.
SILENCE_S = 10.0
SILENCE_AGAIN_S = 300.0


class WorkerLoop:
    """Runs a session between a dispatcher and a pool of slots, until it is over.

    Args:
        drain_s: after a stop was asked for, what runs may go on for so long; then it is killed. None: to its end.
        alive: is given while a dispatcher knows us.
        pulse: is given for as long as the loop turns.
    """

    def __init__(
        self,
        session: WorkerSession,
        pool: SlotPool,
        channel: Channel,
        *,
        drain_s: float | None = None,
        alive: SignOfLife | None = None,
        pulse: Pulse | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._pool = pool
        self._channel = channel
        self._drain_s = drain_s
        self._alive = alive or SignOfLife(None)
        self._pulse = pulse or Pulse({})
        self._clock = clock
        self._waker = Waker()
        self._stops = 0
        self._over: Stop | None = None
        self._registered = False
        self._silent_since = clock()

    def stop(self) -> None:
        """Finish what runs and leave; called twice, kill it and leave. From a signal handler, or any thread."""
        self._stops += 1
        self._waker.wake()

    def run(self) -> Stop:
        """Until `stop`, or until the dispatcher refuses us. Says why it ended."""
        poller = zmq.Poller()
        poller.register(self._waker.fileno(), zmq.POLLIN)
        self._pool.start()
        try:
            poller.register(self._pool.fileno(), zmq.POLLIN)
            self._channel.register(poller)
            self._perform(self._session.start(now=self._clock()), self._clock())
            while self._over is None and not self._stops:
                self._turn(poller)
            return self._over or self._leave(poller)
        finally:
            self._pool.close()
            self._channel.close()

    def _leave(self, poller: zmq.Poller) -> Stop:
        now = self._clock()
        drained_by = math.inf if self._drain_s is None else now + self._drain_s
        self._perform(self._session.drain(now=now), now)
        busy = self._session.busy
        if busy:
            log.info("stopping when %d running tasks have ended; stop again to kill them", busy)
        while self._over is None and self._stops < 2 and self._clock() < drained_by:
            self._turn(poller, until=drained_by)
        self._perform(self._session.kill_all(), self._clock())
        flushed_by = self._clock() + FLUSH_S
        while self._over is None and self._clock() < flushed_by:
            self._turn(poller, until=flushed_by)
        return self._over or Stop("stopped before the dispatcher had acknowledged everything")

    def _turn(self, poller: zmq.Poller, *, until: float = math.inf) -> None:
        pool_deadline = self._pool.next_deadline()
        due = min(self._session.next_deadline(), math.inf if pool_deadline is None else pool_deadline, until)
        due = min(due, self._pulse.due)
        # Rounded up, or the last fraction of a millisecond before a deadline would be a busy loop.
        woken = poller.poll(max(0, math.ceil((due - self._clock()) * 1000)))
        if any(source == self._waker.fileno() for source, _ in woken):
            self._waker.clear()
        now = self._clock()
        self._pulse.give(now)
        for message in self._channel.receive():
            self._perform(self._session.receive(message, now=now), now)
        for event in self._pool.process(now):
            self._perform(self._session.slot_event(event, now=now), now)
        self._perform(self._session.expire(now=now), now)
        self._perform(self._session.flush(now=now), now)
        self._pool.flush()
        self._tell(now)

    def _tell(self, now: float) -> None:
        registered = self._session.is_registered
        if registered and not self._registered:
            log.info("registered with the dispatcher at %s", self._channel.url)
        elif self._registered and not registered and self._over is None:
            log.warning("lost the dispatcher; what runs goes on, trying to reach it at %s", self._channel.url)
            self._silent_since = now
        self._registered = registered
        if registered:
            self._alive.give(now)  # heartbeats turn the loop once a second
        if not registered and now >= self._silent_since + SILENCE_S:
            log.warning("no dispatcher answers at %s: does it run, and is this worker's key let in?", self._channel.url)
            self._silent_since = now + SILENCE_AGAIN_S

    def _perform(self, actions: Iterable[Action], now: float) -> None:
        for action in actions:
            match action:
                case Send():
                    self._channel.send(action.message)
                case Ask():
                    self._channel.ask(action.message)
                case StartJob():
                    self._pool.run(action.job, action.slot, now)
                case RetractJobs():
                    self._pool.retract(action.slot)
                case KillSlot():
                    self._pool.kill(action.slot, action.task, action.attempt, action.outcome, now)
                case Reconnect():
                    self._channel.renew()
                case Stop():
                    self._over = action
