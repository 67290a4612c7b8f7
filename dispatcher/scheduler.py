"""Who runs what: the dispatcher's core, without I/O.

Messages of workers, answers of the store and the time go in; messages for workers and the next `Exchange`
with the store come out. Sockets, clock and database are the shell's (`dispatcher.loop`). One scheduler
serves all three modes: local is a worker in the same process, and pull is push whose credit is asked for.

Three rules keep it right whatever is lost on the way:

- an attempt is forgotten only when its end is committed, and acknowledged only then;
- what a worker was sent and does not list in a later heartbeat was never begun there, and goes back;
- what a returning worker holds and we do not know is looked up in the store, where the number of the attempt
  decides: it becomes ours, or it is killed. A result that is nobody's any more is acknowledged and counted,
  or the worker would send it for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from dispatcher.books import Assignment, Key, Send, Worker
from dispatcher.neighbours import Neighbours
from dispatcher.policies import choose, failed, verdict
from dispatcher.shelf import Shelf
from dispatcher.store import (
    LEASE_S,
    Begin,
    Claimed,
    Ended,
    Exchange,
    Exchanged,
    Printed,
    Registration,
    Taken,
    Unmatched,
)
from everythingfaas.pythons import Minor, is_certain, matches, mismatch
from everythingfaas.status import Outcome
from everythingfaas.wire.messages import (
    PROTOCOL,
    Attempt,
    Begun,
    Blob,
    Bye,
    Drain,
    FromWorker,
    Function,
    Heartbeat,
    Hello,
    Job,
    Kill,
    Log,
    NeedFunction,
    Pull,
    Refuse,
    Report,
    Result,
    ResultAck,
    Returned,
    Run,
    Welcome,
)

HEARTBEAT_S = 1.0
#: A worker that has said nothing for so long is lost.
LOST_AFTER_S = 5.0
#: How long a worker may run on without a dispatcher, and a starting dispatcher waits for one to come back.
ORPHAN_S = 300.0
#: Without a ring, the store is looked at this often.
LOOK_S = 1.0
#: The dispatcher's lease is renewed this often (it lasts for `dispatcher.store.LEASE_S`).
RENEW_S = 3.0
#: What the store says that we hold, and we do not know, is looked for this often, and soon after the start: the last
#: commit of an earlier run of ours may have come after we had registered.
RECALL_S = 60.0
RECALL_FIRST_S = 5.0
#: A longer gap between two turns means that this process did not run: all timers start again.
GAP_S = 2.0
#: What a function was able to do on a Python is remembered of so many.
KNOWN_MAX = 10_000
#: How long a task waits for a worker that can run it, while there are only others.
UNMATCHED_S = 60.0
#: Weight of the newest turn with the store in the running mean of how long they take.
TURN_WEIGHT = 0.2

#: A worker sends less of one run's output at a time; more is dropped.
LOG_BYTES = 64 * 1024


class Scheduler:
    """The state of one dispatcher.

    `receive`, `exchanged`, `ring` and `expire` take something in and return what to send; `exchange` gives
    the next turn with the store whenever the shell has none under way.
    """

    def __init__(
        self,
        registration: Registration,
        *,
        now: float,
        task_deadline_s: float | None = None,
        grace_s: float = LOST_AFTER_S,
        max_result_bytes: int = 64 * 1024 * 1024,
        unmatched_s: float = UNMATCHED_S,
        pulls: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._me = registration
        self._unmatched_s = unmatched_s
        self._pulls = pulls
        self._chance = chance
        self._task_deadline_s = task_deadline_s
        self._max_result_bytes = max_result_bytes
        self._workers: dict[bytes, Worker] = {}
        self._assignments: dict[Key, Assignment] = {}
        self._shelf = Shelf()
        self._early: dict[Key, tuple[bytes, Report]] = {}  # of attempts that are being adopted
        self._adopting: dict[Key, bytes] = {}
        self._acks: dict[Key, bytes] = {}
        self._next = Exchange()
        self._under_way: Exchange | None = None
        self._work: bool | frozenset[Minor] = True  # there may be something to claim, for workers of these Pythons
        self._unmatched: dict[str, float] = {}  # requirements that no worker has matched since
        self._proven: set[tuple[str, Minor]] = set()  # functions that have ended well on this Python
        self._prefetching = True
        self._printed: list[Printed] = []
        self._run_number = registration.epoch << 32
        self._look_at = now
        self._renew_at = now + RENEW_S
        self._recall_at = now + RECALL_FIRST_S
        self._neighbours = Neighbours(now=now)
        self._was_away = False
        self._turn_at = now
        self._asked_at = now
        self._turn_s = 0.0  # how long a turn with the store takes
        self._stopping = False
        self._orphans: dict[Key, Assignment] = {}
        self._grace_until = now + grace_s
        self._heads = registration.slots
        self.stale = 0  #: results that came too late
        self.impostors = 0  #: workers that came under the name of another one
        self.lease_lost = False  #: another process has taken this dispatcher's row: stop
        for claimed in registration.held:
            assignment = self._assignment(claimed)
            self._assignments[assignment.key] = assignment
            self._orphans[assignment.key] = assignment

    # --- what the shell asks

    @property
    def workers(self) -> list[Worker]:
        return list(self._workers.values())

    @property
    def is_idle(self) -> bool:
        """Nothing is given out, and nothing waits to be written."""
        return not self._assignments and self.is_written

    @property
    def is_being_left(self) -> bool:
        """A worker that is about to leave is still at something."""
        return any(worker.draining and worker.assigned for worker in self._workers.values())

    @property
    def is_written(self) -> bool:
        """All that has been heard is committed."""
        waiting = self._next.ended or self._next.released or self._next.begun
        return not waiting and self._under_way is None

    def next_deadline(self) -> float:
        """When `expire` has something to do, if nothing else happens before."""
        due = [self._look_at, self._renew_at, self._turn_at + LOOK_S]
        if self._orphans:
            due.append(self._grace_until)
        for worker in self._workers.values():
            due += [worker.beat_at, worker.heard_at + LOST_AFTER_S]
        return min(due)

    @property
    def short(self) -> int:
        """How many attempts are given out to workers whose tasks are short: they will have ended in a moment."""
        return sum(worker.load for worker in self._workers.values() if worker.is_short)

    def exchange(self) -> Exchange | None:
        """The next turn with the store, or None when there is nothing to do or one is under way."""
        if self._under_way is not None:
            return None
        if self._work and not self._stopping:
            self._next.room = self._appetite()
        if not self._next:
            return None
        self._under_way, self._next = self._next, Exchange()
        self._asked_at = self._turn_at
        self._under_way.trusts_leases = self._neighbours.trusts(self._turn_at)
        if room := self._under_way.room:
            # Until a ring, a full claim or the next look says otherwise. Of workers that are full nothing was asked.
            hungry = {w.hello.python for w in self._workers.values()} if self._work is True else self._work
            self._work = frozenset(hungry or ()) - room.keys()
        return self._under_way

    def printed(self) -> list[Printed]:
        """The output that has come in since this was asked last. To be passed on, or dropped."""
        printed, self._printed = self._printed, []
        return printed

    def _appetite(self) -> dict[Minor, int]:
        """How many tasks the workers of each Python take for which there may be some."""
        room: dict[Minor, int] = {}
        for worker in self._workers.values():
            if self._prefetching:
                worker.look_ahead(self._turn_s)
            n = worker.room if self._prefetching else worker.free
            python = worker.hello.python
            if n > 0 and (isinstance(self._work, bool) or python in self._work):
                room[python] = room.get(python, 0) + n
        return room

    def snapshot(self) -> list[dict[str, Any]]:
        """The workers, for people."""
        return [
            {
                "worker": worker.hello.worker,
                "name": worker.hello.name,
                "host": worker.hello.host,
                "pid": worker.hello.pid,
                "python": ".".join(map(str, worker.hello.python)),
                "slots": worker.slots,
                "running": [a.task.task for a in worker.assigned.values() if a.begun and not a.ending],
                "held": worker.load,
                "draining": worker.draining,
            }
            for worker in self._workers.values()
        ]

    # --- from workers

    def receive(self, peer: bytes, message: FromWorker, *, now: float) -> list[Send]:
        """Takes a message of `peer`. One that has not introduced itself is told to."""
        if isinstance(message, Hello):
            return self._hello(peer, message, now)
        worker = self._workers.get(peer)
        if worker is None:
            return [] if isinstance(message, Bye) else [Send(peer, Refuse("unknown worker", again=True))]
        if isinstance(message, Heartbeat) and message.seen < worker.welcomed:
            # It has not taken our Welcome, which answered a Hello from before: what that listed is not so any more.
            return [Send(peer, Refuse("registered by an old Hello", again=True))]
        worker.heard_at = now
        self._hears_us(worker)
        match message:
            case Begun():
                for start in message.starts:
                    self._begun(worker, (start.task, start.attempt), start.ago_s)
            case Result():
                return self._reports(worker, message.reports)
            case Returned():
                worker.draining = worker.draining or message.leaving
                worker.stalled = not message.leaving
                for attempt in message.attempts:
                    self._unbegun(worker, (attempt.task, attempt.attempt))
            case NeedFunction():
                return self._needs(worker, message.functions)
            case Heartbeat():
                return self._compare(worker, message)
            case Pull():
                self._pulled(worker, message)
            case Drain():
                worker.draining = True
            case Log():
                self._log(worker, message)
            case Bye():
                self._lose(worker, left=True)
        return []

    def _hello(self, peer: bytes, hello: Hello, now: float) -> list[Send]:
        if hello.protocol != PROTOCOL:
            return [Send(peer, Refuse(f"this dispatcher speaks protocol {PROTOCOL}, you speak {hello.protocol}"))]
        if hello.slots < 1:
            return [Send(peer, Refuse("a worker needs at least one slot"))]
        if hello.pulls != self._pulls:
            ours, theirs = ("pull", "push") if self._pulls else ("push", "pull")
            reason = f"this dispatcher serves {ours} workers; start a {ours} worker, not a {theirs} one"
            return [Send(peer, Refuse(reason))]
        known = self._workers.get(peer) or self._under_another_peer(hello)
        if known is not None and (known.hello.worker, known.hello.secret) != (hello.worker, hello.secret):
            self.impostors += 1
            return [Send(peer, Refuse("another worker goes by that name"))]
        if known is not None and hello.number <= known.hello.number:
            return []  # late or doubled: what it says is no longer so
        self._run_number += 1
        # A worker that says Hello again and again hears no Welcome: as if it said nothing.
        heard_at = known.heard_at if known is not None and not known.confirmed else now
        worker = Worker(peer, hello, heard_at=heard_at, beat_at=now + HEARTBEAT_S)
        worker.welcomed = worker.told_run = self._run_number
        worker.credit = 0 if hello.pulls else None
        held = dict.fromkeys((attempt.task, attempt.attempt) for attempt in hello.held)
        if hello.generation not in (0, self._me.generation):
            held = {}  # of a database that is no more: the Welcome makes the worker drop it all
        if known is not None:
            self._move(known.peer, peer)
            worker.last_run = known.last_run
            for key, assignment in list(known.assigned.items()):
                if key not in held:
                    self._unbegun(known, key)
                worker.take(assignment)
        returned = False
        for key in held:
            orphan = self._orphans.pop(key, None)
            if orphan is not None:
                orphan.sent_in = worker.welcomed
                worker.take(orphan)
                returned = True
            elif key not in self._assignments:
                if key not in self._adopting:
                    self._next.adopt.append(key)
                self._adopting[key] = peer  # it may be asked for already, for a connection that is gone
        if returned:  # what else was in its slots it would have told
            self._heads = max(0, self._heads - worker.slots)
        self._workers[peer] = worker
        self._renew_at = now  # with a snapshot that has it
        return [
            Send(
                peer,
                Welcome(
                    self._me.dispatcher,
                    self._me.epoch,
                    self._me.generation,
                    hello.number,
                    self._run_number,
                    HEARTBEAT_S,
                    LOST_AFTER_S,
                    ORPHAN_S,
                    self._max_result_bytes,
                ),
            )
        ]

    def _hears_us(self, worker: Worker) -> None:
        if worker.blocked or not worker.confirmed:
            worker.blocked, worker.confirmed = False, True
            self._work = True

    def _under_another_peer(self, hello: Hello) -> Worker | None:
        """This very worker, on the connection that it had before."""
        return next((worker for worker in self._workers.values() if worker.hello.worker == hello.worker), None)

    def _move(self, old: bytes, new: bytes) -> None:
        """A worker has taken a new connection."""
        if old == new:
            return
        del self._workers[old]
        self._acks = {key: new if peer == old else peer for key, peer in self._acks.items()}
        self._adopting = {key: new if peer == old else peer for key, peer in self._adopting.items()}
        self._early = {key: (new if peer == old else peer, report) for key, (peer, report) in self._early.items()}

    def _pulled(self, worker: Worker, pull: Pull) -> None:
        if worker.credit is not None and pull.number > worker.pulled:
            worker.pulled = pull.number
            worker.credit = max(0, pull.take)  # whether there is work for it we know: no look for it alone

    def unsent(self, sends: Iterable[Send]) -> None:
        """What could not be handed to the network: its peer is gone, or takes nothing. Nobody has seen it."""
        for send in sends:
            worker = self._workers.get(send.peer)
            if worker is not None and isinstance(send.message, Function):
                worker.functions.discard(send.message.function)
            if worker is None or not isinstance(send.message, Run):
                continue  # heartbeats find out what else was lost
            worker.blocked = True  # or it would be claimed for and sent to again at once, and so on
            for job in send.message.jobs:
                self._unbegun(worker, (job.task, job.attempt))

    def _begun(self, worker: Worker, key: Key, ago_s: float) -> None:
        assignment = worker.assigned.get(key)
        if assignment is None or assignment.begun:
            return
        assignment.begun = True
        self._next.begun.append(Begin(key[0], key[1], ago_s, worker.hello.name))

    def _log(self, worker: Worker, log: Log) -> None:
        for entry in log.entries:
            assignment = worker.assigned.get((entry.task, entry.attempt))
            if assignment is not None and len(entry.data) <= LOG_BYTES:
                assignment.printed = True
                self._printed.append(Printed(entry.task, entry.attempt, entry.data, entry.dropped))

    def _reports(self, worker: Worker, reports: Iterable[Report]) -> list[Send]:
        late = []
        for report in reports:
            key = (report.task, report.attempt)
            assignment = self._assignments.get(key)
            if assignment is not None:
                self._report(worker, assignment, report)
            elif key in self._adopting:
                self._early[key] = (worker.peer, report)
            else:
                late.append(Attempt(*key))
        self.stale += len(late)
        return [Send(worker.peer, ResultAck(tuple(late)))] if late else []

    def _report(self, worker: Worker, assignment: Assignment, report: Report) -> None:
        self._acks[assignment.key] = worker.peer
        if assignment.ending:
            return  # said before; the acknowledgement follows the commit
        if report.begun:
            worker.ran(report.elapsed_s)
        self._end(assignment, report, worker.hello.name, self._foreign(worker, assignment.task, report.outcome))

    def _foreign(self, worker: Worker, task: Claimed, outcome: Outcome) -> Minor | None:
        """The Python of `worker`, if nobody knows whether it can run this function.

        What a function has been able to do on a Python is remembered for as long as this process lives, and for
        some thousands of them: one that is forgotten, and then crashes, has one try less than it might have.
        """
        if is_certain(task.requirements):
            return None
        pair = (task.function, worker.hello.python)
        if outcome in (Outcome.RETURNED, Outcome.RAISED):
            if len(self._proven) >= KNOWN_MAX:
                self._proven.clear()
            self._proven.add(pair)
        return None if pair in self._proven else worker.hello.python

    def _end(self, assignment: Assignment, report: Report, worker: str, foreign: Minor | None = None) -> None:
        self._close(assignment)
        decision = verdict(
            assignment.task,
            report,
            worker=worker,
            cancelled=assignment.cancelled,
            chance=self._chance(),
            foreign=foreign,
        )
        if isinstance(decision, Ended):
            self._next.ended.append(decision)
        else:
            self._next.released.append(decision)

    def _close(self, assignment: Assignment) -> None:
        assignment.ending = True
        if assignment.worker is not None:
            assignment.worker.load -= 1

    def _unbegun(self, worker: Worker, key: Key) -> None:
        assignment = worker.assigned.get(key)
        if assignment is not None and not assignment.ending:
            self._lost(assignment, begun=assignment.begun)

    def _lost(self, assignment: Assignment, *, begun: bool) -> None:
        worker = assignment.worker.hello.name if assignment.worker else ""
        self._end(assignment, _lost_report(assignment.key, begun=begun), worker)

    def _compare(self, worker: Worker, heartbeat: Heartbeat) -> list[Send]:
        held = {(attempt.task, attempt.attempt) for attempt in heartbeat.held}
        # What runs there and is not in our books any more would otherwise run on for nobody.
        strange = tuple(
            a
            for a in heartbeat.held
            if (a.task, a.attempt) not in worker.assigned and (a.task, a.attempt) not in self._adopting
        )
        for key, assignment in list(worker.assigned.items()):
            if key not in held and assignment.sent_in <= heartbeat.seen:
                self._unbegun(worker, key)
        return [Send(worker.peer, Kill(strange, Outcome.LOST))] if strange else []

    def _lose(self, worker: Worker, *, left: bool = False) -> None:
        """`worker` is gone: what was at the head of its slots counts as begun, the rest as never sent."""
        del self._workers[worker.peer]
        lost = [a for a in worker.assigned.values() if not a.ending]
        heads = 0 if left else worker.slots - sum(a.begun for a in lost)
        for assignment in lost:
            at_head = assignment.begun or (not left and (heads > 0 or assignment.task.policy.at_most_once))
            heads -= at_head and not assignment.begun
            self._lost(assignment, begun=at_head)
        self._work = True

    # --- functions

    def _needs(self, worker: Worker, functions: Iterable[str]) -> list[Send]:
        sends, wanted = self._shelf.ask(worker, functions)
        self._next.functions |= wanted
        return sends

    def _fetched(self, asked: Iterable[str], found: dict[str, bytes]) -> list[Send]:
        """Passes on functions that workers have waited for; a task whose function is nowhere fails."""
        sends: list[Send] = []
        for name in asked:
            workers = [worker for worker in self._shelf.waiting(name) if worker.peer in self._workers]
            blob = found.get(name)
            if blob is not None:
                sends += self._shelf.put(name, blob, workers)
            else:
                sends += [self._hopeless(worker, name) for worker in workers]
        return sends

    def _hopeless(self, worker: Worker, name: str) -> Send:
        message = f"the function's bytes (sha256 {name}) are not in the store"
        doomed = [a for a in worker.assigned.values() if a.task.function == name and not a.ending]
        for assignment in doomed:
            self._close(assignment)
            self._next.ended.append(failed(assignment.task, message))
        return Send(worker.peer, Kill(tuple(Attempt(*a.key) for a in doomed), Outcome.LOST))

    # --- from the store

    def exchanged(self, answer: Exchanged, *, now: float) -> list[Send]:
        """Takes the store's answer to the exchange under way, which is committed now."""
        done = self._under_way
        assert done is not None, "an answer without a question"
        self._under_way = None
        self._turn_s += TURN_WEIGHT * (now - self._asked_at - self._turn_s)
        if self._was_away or now - self._asked_at > LEASE_S - RENEW_S:  # whoever waited so long has lost his lease
            self._was_away = False
            self._neighbours.doubt(now)
        self.stale += answer.stale
        self.lease_lost = self.lease_lost or answer.lease_lost
        if done.claim and (answer.more or len(answer.claimed) >= done.claim):
            self._work = True
        elif done.claim and answer.left:
            self._work = self._work if self._work is True else frozenset(self._work or ()) | answer.left
        elif done.claim:
            self._prefetching = True
        sends = self._settle(done, set(answer.elsewhere))
        sends += self._fetched(done.functions, answer.functions)
        if answer.held is not None:
            self._recalled(answer.held, answer.claimed)
        sends += self._adopted(answer)
        for taken in answer.taken:
            self._take(taken)
        if answer.lapsed is not None:
            dead = self._neighbours.dead(answer.lapsed, now)
            self._next.take_over = [] if self._stopping else dead
        for key in answer.cancelled:
            sends += self.cancel(key)
        if answer.unmatched is not None:
            self._compare_unmatched(answer.unmatched, answer.pythons, now)
        assignments = [self._assignment(claimed) for claimed in answer.claimed]
        for assignment in assignments:
            self._assignments[assignment.key] = assignment
        return sends + self._assign(assignments)

    def _compare_unmatched(self, unmatched: list[str], pythons: frozenset[Minor], now: float) -> None:
        """Lets fail what has waited too long for a worker that can run it. Time without any worker does not count."""
        self._unmatched = {requirements: self._unmatched.get(requirements, now) for requirements in unmatched}
        for requirements, since in self._unmatched.items():
            if now >= since + self._unmatched_s:
                message = mismatch(requirements, pythons)
                self._next.unmatched.append(Unmatched(requirements, self._unmatched_s, message))

    def _take(self, taken: Taken) -> None:
        """Gives back what a dead dispatcher had given out, and no worker has come to us with."""
        lost = []
        for claimed in taken.held:
            if (claimed.task, claimed.attempt) in self._adopting:
                self._adopt(claimed)
            else:
                assignment = self._assignment(claimed)
                self._assignments[assignment.key] = assignment
                lost.append(assignment)
        self._abandon(lost, taken.slots)

    def recall(self) -> None:
        """An exchange was tried again although an earlier try may have been committed: look what we hold."""
        self._next.recall = True
        self._was_away = True

    def _settle(self, done: Exchange, elsewhere: set[Key]) -> list[Send]:
        """Forgets what is committed, and acknowledges it.

        What another dispatcher has taken meanwhile its worker keeps, and we ask for as if it had just come with it.
        """
        over = [(ended.task, ended.attempt) for ended in done.ended]
        over += [(released.task, released.attempt) for released in done.released]
        for key in over:
            assignment = self._assignments.pop(key, None)
            if assignment is not None and assignment.printed:
                self._printed.append(Printed(*key, b"", last=True))
            worker = assignment.worker if assignment is not None else None
            if worker is not None:
                worker.assigned.pop(key, None)
            if key in elsewhere:
                self._acks.pop(key, None)
                if worker is not None and worker.peer in self._workers:
                    self._adopting[key] = worker.peer
        acks: dict[bytes, list[Attempt]] = {}
        pending = {(e.task, e.attempt) for e in self._next.ended} | {(r.task, r.attempt) for r in self._next.released}
        for key in [key for key in self._acks if key not in pending]:
            acks.setdefault(self._acks.pop(key), []).append(Attempt(*key))
        if done.released:
            self._work = True
        return [Send(peer, ResultAck(tuple(keys))) for peer, keys in acks.items() if peer in self._workers]

    def _recalled(self, held: list[Claimed], claimed: list[Claimed]) -> None:
        """Gives back what a lost answer had claimed for us, and nobody has heard of."""
        fresh = {(item.task, item.attempt) for item in claimed}
        for item in held:
            key = (item.task, item.attempt)
            if key not in self._assignments and key not in fresh and key not in self._adopting:
                assignment = self._assignment(item)
                self._assignments[key] = assignment
                self._lost(assignment, begun=False)

    def _adopted(self, answer: Exchanged) -> list[Send]:
        sends = []
        for claimed in answer.adopted:
            if (claimed.task, claimed.attempt) in self._adopting:  # else it was asked for twice
                self._adopt(claimed)
        for key in answer.refused:
            peer = self._adopting.pop(key, None)
            if peer in self._workers:
                sends.append(Send(peer, Kill((Attempt(*key),), Outcome.LOST)))
        early, self._early = self._early, {}
        for peer, report in early.values():
            worker = self._workers.get(peer)
            if worker is not None:
                sends += self._reports(worker, (report,))
        return sends

    def _adopt(self, claimed: Claimed) -> None:
        """What a worker came with is ours now."""
        assignment = self._assignment(claimed)
        worker = self._workers.get(self._adopting.pop(assignment.key))
        self._assignments[assignment.key] = assignment
        if worker is None:
            self._lost(assignment, begun=True)
            return
        assignment.sent_in = worker.welcomed
        worker.take(assignment)

    def _assign(self, assignments: list[Assignment]) -> list[Send]:
        """Gives what was claimed to workers: one `Run` for each, functions that it lacks before it."""
        jobs: dict[bytes, list[Assignment]] = {}
        able: dict[str, list[Worker]] = {}
        for assignment in assignments:
            requirements = assignment.task.requirements
            if requirements not in able:
                able[requirements] = [w for w in self._workers.values() if matches(requirements, w.hello.python)]
        order = assignments
        if len({len(workers) for workers in able.values()}) > 1:
            # Who can go to few workers chooses first.
            place = {assignment.key: n for n, assignment in enumerate(assignments)}
            order = sorted(assignments, key=lambda a: len(able[a.task.requirements]))
        for assignment in order:
            worker = choose(able[assignment.task.requirements])
            once = assignment.task.policy.at_most_once
            if worker is None or self._stopping or (once and worker.free == 0):
                # Nobody is left to run it, or it must not wait behind another one. A claim that looks ahead
                # would bring the latter again, so there is none until the queue is short.
                self._prefetching = self._prefetching and not once
                self._lost(assignment, begun=False)
                continue
            worker.take(assignment)
            jobs.setdefault(worker.peer, []).append(assignment)
        sends: list[Send] = []
        for peer, batch in jobs.items():
            if order is not assignments:
                batch.sort(key=lambda a: place[a.key])
            sends += self._run(self._workers[peer], batch)
        return sends

    def _run(self, worker: Worker, batch: list[Assignment]) -> list[Send]:
        sends: list[Send] = []
        self._run_number += 1
        worker.last_run = self._run_number
        if worker.credit is not None:
            worker.credit = 0  # a question has one answer
        for assignment in batch:
            assignment.sent_in = self._run_number
            name = assignment.task.function
            if name not in worker.functions:
                sends += self._needs(worker, (name,))
        jobs = tuple(self._job(assignment.task) for assignment in batch)
        return [*sends, Send(worker.peer, Run(self._run_number, jobs))]

    def _assignment(self, task: Claimed) -> Assignment:
        if task.deadline_s is None and self._task_deadline_s is not None:
            task = replace(task, deadline_s=self._task_deadline_s)
        return Assignment(task, begun=task.begun, cancelled=task.cancelled)

    def _job(self, task: Claimed) -> Job:
        return Job(
            task.task,
            task.attempt,
            task.function,
            Blob(task.payload),
            task.owner,
            task.deadline_s,
            fresh=task.deaths > 0 or task.policy.fresh_process,
            memory_limit_mb=task.policy.memory_limit_mb,
        )

    # --- time, bell, the end

    def ring(self) -> None:
        """There is new work."""
        self._work = True

    def look(self) -> None:
        """Look at the store with the next exchange, and not only when it is due: something is to be cancelled."""
        self._next.look = True
        self._work = True  # what a look finds due is claimed with it

    def cancel(self, key: Key) -> list[Send]:
        """Somebody wants this running attempt ended."""
        assignment = self._assignments.get(key)
        if assignment is None:
            return []
        assignment.cancelled = True
        if assignment.worker is None or assignment.ending:
            return []
        return [Send(assignment.worker.peer, Kill((Attempt(*key),), Outcome.CANCELLED))]

    def expire(self, *, now: float) -> list[Send]:
        """Does what is due: heartbeats, lost workers, the lease, a look at the store."""
        if now - self._turn_at > GAP_S:
            for worker in self._workers.values():
                worker.heard_at = now
            self._grace_until = max(self._grace_until, now + 1.0)
            self._neighbours.doubt(now)
        self._turn_at = now
        sends: list[Send] = []
        for worker in list(self._workers.values()):
            if now >= worker.heard_at + LOST_AFTER_S:
                self._lose(worker)
            elif now >= worker.beat_at:
                worker.beat_at = now + HEARTBEAT_S
                sends.append(Send(worker.peer, Heartbeat(seen=worker.told_run, asked=worker.pulled)))
                worker.told_run = worker.last_run
        if self._orphans and now >= self._grace_until:
            self._abandon_orphans()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._next.look = True
            self._next.pythons = frozenset(w.hello.python for w in self._workers.values() if not w.draining)
            self._next.adopt = list(self._adopting)  # what another dispatcher still has a lease on
            self._work = True
        if now >= self._renew_at:
            self._renew_at = now + RENEW_S
            self._next.renew = True
            self._next.snapshot = self.snapshot()
            self._next.slots = sum(worker.slots for worker in self._workers.values())
            if self._orphans:
                self._next.slots += self._heads
        if now >= self._recall_at:
            self._recall_at = now + RECALL_S
            self._next.recall = True
        return sends

    def _abandon_orphans(self) -> None:
        """No worker has come back with what an earlier run of ours had given out."""
        self._abandon(self._orphans.values(), self._heads)
        self._orphans.clear()

    def _abandon(self, assignments: Iterable[Assignment], slots: int) -> None:
        """Nobody has these any more: the first ones were in one of so many slots, the others never left us."""
        lost = [a for a in assignments if not a.ending]
        heads = slots - sum(a.begun for a in lost)
        for assignment in lost:
            at_head = assignment.begun or heads > 0 or assignment.task.policy.at_most_once
            heads -= at_head and not assignment.begun
            self._lost(assignment, begun=at_head)

    def stop(self) -> None:
        """Claims nothing more; what is given out goes on."""
        self._stopping = True


def _lost_report(key: Key, *, begun: bool) -> Report:
    return Report(key[0], key[1], Outcome.LOST, Blob(b""), begun, 0.0, 0.0, -1)
