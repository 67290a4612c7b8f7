"""Local mode: the dispatcher's own slots, behind the same session that a remote worker has."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import zmq

from dispatcher.books import Send
from everythingfaas.wire.messages import FromWorker
from worker.identity import identity
from worker.pool import SlotPool
from worker.session import Action, Ask, KillSlot, Reconnect, RetractJobs, StartJob, Stop, WorkerSession
from worker.session import Send as ToDispatcher
from worker.slots import SlotLimits

PEER = b"local"


class LocalLink:
    """A link to one worker in this process. Messages pass as they are, unencoded."""

    ends_with_us = True

    def __init__(self, slots: int, *, folder: Path, limits: SlotLimits, now: float) -> None:
        self._slots = slots
        self._pool = SlotPool(slots, folder=folder, limits=limits)
        self._session = WorkerSession(identity(slots), now=now)
        self._inbound: deque[FromWorker] = deque()
        self._pool.start()
        self._perform(self._session.start(now=now), now)

    def register(self, poller: zmq.Poller) -> None:
        poller.register(self._pool.fileno(), zmq.POLLIN)

    def receive(self, now: float) -> Iterable[tuple[bytes, FromWorker]]:
        for event in self._pool.process(now):
            self._perform(self._session.slot_event(event, now=now), now)
        self._perform(self._session.expire(now=now), now)
        self._perform(self._session.flush(now=now), now)
        self._pool.flush()
        received = [(PEER, message) for message in self._inbound]
        self._inbound.clear()
        return received

    def send(self, sends: Iterable[Send], now: float) -> list[Send]:
        for send in sends:
            self._perform(self._session.receive(send.message, now=now), now)
        self._perform(self._session.flush(now=now), now)
        self._pool.flush()
        return []

    @property
    def has_answers(self) -> bool:
        return bool(self._inbound)

    def next_deadline(self) -> float:
        pool = self._pool.next_deadline()
        return min(self._session.next_deadline(), math.inf if pool is None else pool)

    def drain(self, now: float) -> None:
        self._perform(self._session.drain(now=now), now)

    def kill(self, now: float) -> None:
        self._perform(self._session.kill_all(), now)

    def close(self) -> None:
        self._pool.close()

    def _perform(self, actions: Iterable[Action], now: float) -> None:
        for action in actions:
            match action:
                case ToDispatcher():
                    self._inbound.append(action.message)
                case StartJob():
                    self._pool.run(action.job, action.slot, now)
                case RetractJobs():
                    self._pool.retract(action.slot)
                case KillSlot():
                    self._pool.kill(action.slot, action.task, action.attempt, action.outcome, now)
                case Ask() | Reconnect() | Stop():
                    # It is sent to without asking, there is no socket to renew, and it is the dispatcher that
                    # stops us, not the other way round.
                    continue
