"""The store on Django's database: where the dispatcher meets the ORM, in one thread.

An `Exchange` is one transaction of the statements in `api.moves`. After its commit, and in that order, the
mirrors in Redis are written and the ends announced, by a thread of its own: a slow or missing Redis delays
neither the next transaction nor the acknowledgement of results.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import queue
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from django.db import (
    DatabaseError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connection,
    transaction,
)

from api import moves
from api.mirror import MAX_RESULT_BYTES, SyncMirror
from api.models import Instance
from api.pipeline import pipelined_cursor
from api.tally import Tally
from api.waiting import connected_pythons
from dispatcher.policies import as_cancelled, is_loss, share_out
from dispatcher.queues import Queues
from dispatcher.store import (
    DEFAULT_POLICY,
    LEASE_S,
    Begin,
    Claimed,
    Ended,
    Exchange,
    Exchanged,
    Policy,
    Registration,
    Released,
    Taken,
)
from everythingfaas.errors import StoreUnavailable
from everythingfaas.status import Event, State, contract_state

log = logging.getLogger("dispatcher.store")

T = TypeVar("T")

#: Where the epochs of new rows begin: as long as a dispatcher restarts less than once a second, they never come again.
_EPOCHS_SINCE = 1_700_000_000
#: One claim takes at most so many bytes of arguments (and always at least one task).
CLAIM_BYTES = 16 * 1024 * 1024
#: Due and expired tasks are moved in batches of so many.
LOOK_BATCH = 1000


class DjangoStore:
    """A `dispatcher.store.TaskStore`. All methods but the constructor belong to one thread."""

    def __init__(self, dispatcher: UUID, announcer: Announcer, *, writer: str) -> None:
        self._dispatcher = dispatcher
        self._announcer = announcer
        self._tally = Tally(writer)
        self._epoch = 0
        self._queues = Queues()

    def register(self, *, mode: str, slots: int) -> Registration:
        """Makes the row, or takes it over. Raises `StoreUnavailable`."""

        def work() -> Registration:
            with transaction.atomic(), connection.cursor() as cursor:
                former = moves.slots_of(cursor, self._dispatcher)
                # Until workers have come, or have not: they may hold what the former run gave out.
                recorded, first_epoch = max(slots, former), max(1, int(time.time()) - _EPOCHS_SINCE)
                self._epoch = moves.register_dispatcher(
                    cursor, self._dispatcher, mode, recorded, platform.node(), os.getpid(), LEASE_S, first_epoch
                )
                self._queues.read(cursor)
                held = [self._held(cursor, item) for item in moves.held(cursor, self._dispatcher)]
            generation = Instance.objects.values_list("generation", flat=True).get()
            return Registration(str(self._dispatcher), self._epoch, generation, held, former)

        try:
            return self._guarded(work)
        except (ProgrammingError, Instance.DoesNotExist) as exc:  # a table, or its first row, is not there (yet)
            connection.close()
            raise StoreUnavailable(f"is it migrated? {exc}") from exc

    def exchange(self, exchange: Exchange) -> Exchanged:
        """One transaction. Raises `StoreUnavailable`."""
        return self._guarded(lambda: self._exchange(exchange))

    def close(self) -> None:
        """Gives up the lease, so that nobody waits for it to run out."""
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                moves.forget_dispatcher(cursor, self._dispatcher, self._epoch)
        except (DatabaseError, InterfaceError) as exc:
            log.warning("the lease could not be given up, it runs out in %g s: %s", LEASE_S, exc)
        connection.close()

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (OperationalError, InterfaceError) as exc:
            self._tally.rolled_back()
            # Broken or not: what state the connection is in is not worth finding out.
            connection.close()
            raise StoreUnavailable(str(exc)) from exc

    def _exchange(self, exchange: Exchange) -> Exchanged:
        now = time.time()
        answer = Exchanged()
        if exchange.look:
            self._look_for_unmatched(exchange, answer)
            self._look_for_lapsed(answer)
            if exchange.writes_nothing and not self._anything_to_do(exchange, now):
                return answer
        # What needs no database is done before: others wait for the end of the transaction.
        begins = [_begun(item, now) for item in exchange.begun]
        releases = [_released(item, now) for item in exchange.released]
        with transaction.atomic(), pipelined_cursor() as cursor:
            if exchange.renew:
                snapshot = json.dumps(exchange.snapshot or [])
                answer.lease_lost = not moves.renew_lease(
                    cursor, self._dispatcher, self._epoch, LEASE_S, snapshot, exchange.slots
                )
            begun = moves.begin(cursor, begins, self._dispatcher)
            if any(map(is_loss, exchange.ended)):
                self._cancel_losses(cursor, exchange)
            ended = moves.end(cursor, [_ended(item, now) for item in exchange.ended], self._dispatcher)
            self._count_closed(ended)
            reopened, dropped = moves.release(cursor, releases, now, self._dispatcher)
            if len(ended) + len(reopened) + len(dropped) < len(exchange.ended) + len(exchange.released):
                changed = {item.task for item in (*ended, *dropped)} | {item.task for item in reopened}
                self._look_elsewhere(cursor, exchange, changed, answer)
            self._count_closed(dropped)
            for item in reopened:
                self._tally.moved(item.owner, State.RUNNING, item.state)
            if exchange.look:
                answer.cancelled = [
                    (str(task), attempt) for task, attempt in moves.cancel_requests(cursor, self._dispatcher)
                ]
                dropped += self._look(cursor, now)
            dropped += self._reject_unmatched(cursor, exchange, now)
            if exchange.functions:
                answer.functions = moves.blobs(cursor, sorted(exchange.functions))
            if exchange.adopt:
                self._adopt(cursor, exchange, answer)
            if exchange.recall:
                answer.held = [self._held(cursor, item) for item in moves.held(cursor, self._dispatcher)]
            if exchange.take_over and exchange.trusts_leases and not answer.lease_lost:
                answer.taken = [self._take_over(cursor, UUID(former)) for former in exchange.take_over]
            if exchange.claim and not answer.lease_lost:
                self._claim(cursor, exchange, now, answer)
            self._tally.flush(cursor)
        self._tally.committed()
        answer.stale = len(exchange.ended) - len(ended)
        self._announce(exchange, begun, ended, dropped)
        return answer

    def _cancel_losses(self, cursor: Any, exchange: Exchange) -> None:
        """A loss ends what was to be cancelled as that, even if this dispatcher has not looked since."""
        asked = {(str(task), attempt) for task, attempt in moves.cancel_requests(cursor, self._dispatcher)}
        exchange.ended = [
            as_cancelled(item) if is_loss(item) and (item.task, item.attempt) in asked else item
            for item in exchange.ended
        ]

    def _anything_to_do(self, exchange: Exchange, now: float) -> bool:
        """Whether a look, which nobody has rung for, finds anything: reading takes no lock and makes no commit."""
        with connection.cursor() as cursor:
            due = moves.next_due(cursor)
            return (
                (exchange.claim > 0 and moves.has_work(cursor, self._queues.matched(exchange.room), now))
                or (due is not None and due <= now)
                or bool(moves.has_expired(cursor, now))
                or bool(moves.cancel_requests(cursor, self._dispatcher))
            )

    def _look(self, cursor: Any, now: float) -> list[moves.Closed]:
        for item in moves.promote(cursor, now, LOOK_BATCH):
            self._tally.moved(item.owner, State.WAITING, item.state)
        expired = moves.reject_expired(cursor, now, LOOK_BATCH)
        self._count_closed(expired)
        return expired

    def _claim(self, cursor: Any, exchange: Exchange, now: float, answer: Exchanged) -> None:
        if len(exchange.room) > 1:
            claimed = self._claim_for_several(cursor, exchange, now, answer)
        else:
            queues = self._queues.matched(exchange.room)
            claimed = moves.claim(cursor, self._dispatcher, queues, exchange.claim, CLAIM_BYTES, now)
        answer.claimed = [self._claimed(cursor, item) for item in claimed]
        if len(claimed) < exchange.claim:
            is_cut = sum(len(item.payload) for item in claimed) >= CLAIM_BYTES
            # What was rung for may stand in a queue that nobody knew: then there is another turn at once.
            answer.more = is_cut or self._queues.read(cursor)
        for item in claimed:
            self._tally.moved(item.owner, State.QUEUED, State.RUNNING)

    def _claim_for_several(self, cursor: Any, exchange: Exchange, now: float, answer: Exchanged) -> list[moves.Claimed]:
        """For workers of several Pythons: looks who stands in line, and claims for each set of Pythons its share."""
        room = exchange.room
        queues = self._queues.matched(room)
        able = {queue: self._queues.able(queue, room) for queue in queues}
        line = moves.heads(cursor, queues, exchange.claim, now) if queues else []
        share = share_out([able[queue] for queue in line], room)
        answer.left = share.left
        claimed: list[moves.Claimed] = []
        left_bytes = CLAIM_BYTES
        for pythons, n in share.given.items():
            if left_bytes <= 0:
                break
            ours = [queue for queue in queues if able[queue] == pythons]
            claimed += moves.claim(cursor, self._dispatcher, ours, n, left_bytes, now)
            left_bytes = CLAIM_BYTES - sum(len(item.payload) for item in claimed)
        return sorted(claimed, key=lambda item: (-item.priority, item.task))

    def _look_for_unmatched(self, exchange: Exchange, answer: Exchanged) -> None:
        """Names the queues whose tasks no worker can run, neither ours nor another dispatcher's. Without workers
        of our own that is for others to say: tasks may wait for the first one."""
        answer.unmatched = []
        with connection.cursor() as cursor:
            self._queues.read(cursor)
            if not exchange.pythons:
                return
            if waiting := moves.queues_with_tasks(cursor, self._queues.unmatched(exchange.pythons)):
                others = moves.snapshots(cursor, but=self._dispatcher)
                answer.pythons = exchange.pythons | connected_pythons(others)
                unmatched = set(self._queues.unmatched(answer.pythons))
                answer.unmatched = [self._queues.requirements(cursor, q) for q in waiting if q in unmatched]

    def _look_elsewhere(self, cursor: Any, exchange: Exchange, changed: set[UUID], answer: Exchanged) -> None:
        over = {(UUID(ended.task), ended.attempt) for ended in exchange.ended}
        over |= {(UUID(released.task), released.attempt) for released in exchange.released}
        current = moves.current(cursor, {key for key in over if key[0] not in changed})
        answer.elsewhere = [(str(task), attempt) for task, attempt in current]

    def _look_for_lapsed(self, answer: Exchanged) -> None:
        with connection.cursor() as cursor:
            lapsed = moves.lapsed_dispatchers(cursor)
        answer.lapsed = [str(dispatcher) for dispatcher in lapsed if dispatcher != self._dispatcher]

    def _take_over(self, cursor: Any, former: UUID) -> Taken:
        held, slots = moves.take_over(cursor, self._dispatcher, former)
        if held:
            log.warning("dispatcher %s is dead, took over %d attempts that it had given out", former, len(held))
        return Taken([self._held(cursor, item) for item in held], slots)

    def _reject_unmatched(self, cursor: Any, exchange: Exchange, now: float) -> list[moves.Closed]:
        rejected: list[moves.Closed] = []
        for item in exchange.unmatched:
            queue = self._queues.named(item.requirements)
            if queue is not None:
                rejected += moves.reject_unmatched(
                    cursor, queue, item.message, queued_before=now - item.waited_s, now=now, limit=LOOK_BATCH
                )
        self._count_closed(rejected)
        return rejected

    def _claimed(self, cursor: Any, item: moves.Claimed) -> Claimed:
        return _claimed(item, self._queues.requirements(cursor, item.queue))

    def _held(self, cursor: Any, item: moves.Held) -> Claimed:
        return _held(item, self._queues.requirements(cursor, item.queue))

    def _adopt(self, cursor: Any, exchange: Exchange, answer: Exchanged) -> None:
        wanted = {key: attempt for key in exchange.adopt if (attempt := _attempt(key)) is not None}
        adopted = moves.adopt(cursor, self._dispatcher, wanted.values(), from_lapsed=exchange.trusts_leases)
        found = {(item.task, item.attempt): item for item in adopted}
        others = moves.current(cursor, {attempt for attempt in wanted.values() if attempt not in found})
        for key in exchange.adopt:
            item = found.get(wanted[key]) if key in wanted else None
            if item is not None:
                answer.adopted.append(self._held(cursor, item))
            elif wanted.get(key) not in others:
                answer.refused.append(key)

    def _count_closed(self, closed: list[moves.Closed]) -> None:
        for item in closed:
            self._tally.moved(item.owner, item.was, item.state)
            if item.started is not None:
                wait_s = item.started - max(item.created, item.run_after or 0.0)
                self._tally.finished(item.owner, item.state, wait_s, item.finished - item.started, item.finished)
            else:
                self._tally.finished(item.owner, item.state, None, None, item.finished)

    def _announce(
        self, exchange: Exchange, begun: set[UUID], ended: list[moves.Closed], dropped: list[moves.Closed]
    ) -> None:
        starts = [(_id(b.task), b.attempt) for b in exchange.begun if _id(b.task) in begun]
        results = {(_id(item.task), item.attempt): item.result for item in exchange.ended}
        ends = [
            (item.task, item.attempt, contract_state(item.state, begun=True), results.get((item.task, item.attempt)))
            for item in [*ended, *dropped]
        ]
        if starts or ends:
            self._announcer.put(starts, ends)


#: Reading an id of text takes a microsecond, and each comes back two or three times.
_id = lru_cache(maxsize=16384)(UUID)


def _attempt(key: tuple[str, int]) -> tuple[UUID, int] | None:
    """The attempt that a worker names. It may name anything: what can be none of ours is none."""
    try:
        return (UUID(key[0]), key[1]) if 0 < key[1] < 2**31 else None
    except ValueError:
        return None


End = tuple[UUID, int, str, bytes | None]


class Announcer:
    """Writes mirrors and announces ends, behind the transactions. What does not fit is dropped: a mirror
    that is missing costs a reader one query."""

    #: Ends that may wait for a slow Redis.
    MAX_WAITING = 20_000

    def __init__(self, redis_url: str) -> None:
        self._mirror = SyncMirror(redis_url)
        self._items: queue.SimpleQueue[tuple[list[tuple[UUID, int]], list[End]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, starts: list[tuple[UUID, int]], ends: list[End]) -> None:
        """Queues the commit's news. Results too large for a mirror are left out here, not kept in memory."""
        if self._items.qsize() < self.MAX_WAITING:
            small = [
                (*end[:3], end[3] if end[3] is not None and len(end[3]) <= MAX_RESULT_BYTES else None) for end in ends
            ]
            self._items.put((starts, small))

    def close(self) -> None:
        self._items.put(None)
        self._thread.join(2.0)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            starts, ends = item
            if starts:
                self._mirror.begun(starts)
            if ends:
                self._mirror.ended(ends)
        self._mirror.close()


@lru_cache(maxsize=1024)
def _policy(text: str | None, at_most_once: bool, max_attempts: int) -> Policy:
    fields = json.loads(text) if text else {}
    return Policy(
        at_most_once,
        max_attempts,
        int(fields.get("retries", 0)),
        float(fields.get("backoff_s", DEFAULT_POLICY.backoff_s)),
        tuple(fields.get("retry_on") or ()),
        bool(fields.get("fresh_process", False)),
        fields.get("memory_limit_mb"),
    )


def _claimed(item: moves.Claimed, requirements: str) -> Claimed:
    return Claimed(
        str(item.task),
        item.attempt,
        str(item.owner),
        item.blob,
        item.payload,
        _policy(item.policy, item.at_most_once, item.max_attempts),
        item.deadline_s,
        item.starts,
        item.deaths,
        item.failures,
        requirements=requirements,
    )


def _held(item: moves.Held, requirements: str) -> Claimed:
    return Claimed(
        str(item.task),
        item.attempt,
        str(item.owner),
        item.blob,
        b"",
        _policy(item.policy, item.at_most_once, item.max_attempts),
        item.deadline_s,
        item.starts,
        item.deaths,
        item.failures,
        begun=item.begun,
        cancelled=item.cancel_requested,
        requirements=requirements,
    )


def _report(item: Ended, now: float) -> moves.Report:
    ended = now - item.ago_s
    error = item.error
    return moves.Report(
        item.outcome,
        ended,
        ended - item.elapsed_s if item.begun else None,
        item.worker or None,
        item.slot if item.slot >= 0 else None,
        item.exit_code,
        item.exit_signal,
        error.type_name if error else None,
        error.message if error else None,
        error.traceback if error else None,
        item.head or None,
        item.tail or None,
        item.dropped,
    )


def _begun(item: Begin, now: float) -> moves.Begun:
    return moves.Begun(_id(item.task), item.attempt, now - item.ago_s, item.worker or None)


def _ended(item: Ended, now: float) -> moves.Ended:
    return moves.Ended(
        _id(item.task),
        item.attempt,
        item.event,
        item.result,
        _report(item, now),
        item.summary or None,
        int(item.died),
        int(item.raised),
    )


def _released(item: Released, now: float) -> moves.Released:
    task = _id(item.task)
    if item.ended is None:
        return moves.Released(task, item.attempt, Event.REQUEUE, unstarted=True)
    return moves.Released(
        task,
        item.attempt,
        item.ended.event,
        _report(item.ended, now),
        run_after=now + item.delay_s if item.ended.event is Event.POSTPONE else None,
        deaths=int(item.ended.died),
        failures=int(item.ended.raised),
    )
