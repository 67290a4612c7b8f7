"""A worker's side of the protocol, without I/O.

Messages, slot events and the time go in, actions come out; sockets, processes and clocks are the shell's
(`worker.pull`, `worker.push`, and `dispatcher.local` for the dispatcher's own slots). So everything here is
tested as a pair with `dispatcher.scheduler` over a list, without a socket and without a sleep.

What a worker promises: an attempt is begun at most once; what it holds is listed in each heartbeat; a result
is kept, and sent again, until the dispatcher has acknowledged that it is committed.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from everythingfaas.failures import dump, function_failure
from everythingfaas.status import Outcome
from everythingfaas.wire.messages import (
    PROTOCOL,
    Attempt,
    Begun,
    Blob,
    Bye,
    Drain,
    Error,
    FromDispatcher,
    FromWorker,
    Function,
    Heartbeat,
    Hello,
    Job,
    Kill,
    NeedFunction,
    Pull,
    Refuse,
    Report,
    Result,
    ResultAck,
    Returned,
    Run,
    Started,
    Welcome,
)
from worker.events import ErrorText, OutputChunk, PoolEvent, SlotBegun, SlotDone, SlotJob, SlotReady, SlotReturned
from worker.lines import RETRACT_S, Key, Lines
from worker.output import OutputRelay

#: A begin is told on its own once the run has lasted this long; a shorter run tells it with its result.
STARTED_AFTER_S = 0.02
#: An unacknowledged result is sent again after this long.
RESEND_S = 2.0
#: The first wait for a Welcome, doubled up to `HELLO_MAX_S`.
HELLO_FIRST_S = 0.5
HELLO_MAX_S = 2.0
#: A longer gap than this between two turns means that this process did not run (a suspended laptop): what
#: the other side did meanwhile is unknown, so nobody is declared lost because of it.
GAP_S = 2.0
#: A `Result` that is larger than this is cut: its header, which holds what was printed, is limited.
RESULT_BYTES = 4 * 1024 * 1024
#: Functions that were dropped are remembered up to so many; of one that is not, it takes `FUNCTION_S` to ask.
DROPPED_MAX = 100_000
#: A function that has not come after so long is asked for.
FUNCTION_S = 5.0
#: How long what runs may go on without a dispatcher, until one has said otherwise.
ORPHAN_S = 300.0
#: What waits for a slot goes back when none has become free for so long, as another worker's may be: it was sent
#: ahead of a task that is longer than those before.
STALL_S = 0.25
#: While work waits for its slots, a worker's results travel together: so many, or those of so long.
GATHER = 32
GATHER_S = 0.002
#: Functions kept for slots that have not got them yet.
CACHE_BYTES = 256 * 1024 * 1024
#: A pulling worker takes at most so many attempts for each slot; what is sensible, the dispatcher knows. It asks when
#: it has no more than so many left: each question costs a turn with the store, and is better asked for many.
TAKE_PER_SLOT = 128
ASK_PER_SLOT = 32
#: A `Pull` that the dispatcher has not seen after so long is lost, and made anew.
PULL_AGAIN_S = 1.5


class Send(Struct, frozen=True):
    message: FromWorker


class Ask(Struct, frozen=True):
    """Send this on the REQ socket; if one is on its way there already, on a new one."""

    message: Pull


class StartJob(Struct, frozen=True):
    """Run this, when what the slot has been given before is over."""

    slot: int
    job: SlotJob


class RetractJobs(Struct, frozen=True):
    """Take back what this slot was given ahead of time."""

    slot: int


class KillSlot(Struct, frozen=True):
    slot: int
    task: str
    attempt: int
    outcome: Outcome


class Reconnect(Struct, frozen=True):
    """The dispatcher is silent: take a new socket, to the next of the addresses."""


class Stop(Struct, frozen=True):
    """The session is over."""

    reason: str
    refused: bool = False  #: the dispatcher does not want this worker


Action = Send | Ask | StartJob | RetractJobs | KillSlot | Reconnect | Stop


class Identity(Struct, frozen=True):
    """Who this worker is."""

    worker: str
    name: str
    host: str
    pid: int
    python: tuple[int, int]
    dill: str
    slots: int
    secret: str = ""  #: see `Hello`
    pulls: bool = False


@dataclass(slots=True)
class _Held:
    """An attempt from its arrival to the acknowledgement of its result."""

    job: Job
    slot: int | None = None  #: where it runs
    behind: int | None = None  #: the slot that was given it ahead of time
    begun_at: float | None = None
    begin_told: bool = False
    killing: Outcome | None = None
    report: Report | None = None
    ended_at: float = 0.0
    sent_at: float | None = None


@dataclass(slots=True)
class _Wanted:
    """A function that is on its way, or asked for."""

    ask_at: float
    runs: list[Key]


class FunctionCache:
    """Functions by hash, the least recently used dropped when they are too many bytes."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._blobs: OrderedDict[str, bytes] = OrderedDict()
        self._dropped: set[str] = set()

    def get(self, function: str) -> bytes | None:
        blob = self._blobs.get(function)
        if blob is not None:
            self._blobs.move_to_end(function)
        return blob

    def put(self, function: str, blob: bytes) -> None:
        if function in self._blobs:
            return
        self._blobs[function] = blob
        self._size += len(blob)
        self._dropped.discard(function)
        while self._size > self._limit and len(self._blobs) > 1:
            name, dropped = self._blobs.popitem(last=False)
            self._size -= len(dropped)
            if len(self._dropped) >= DROPPED_MAX:
                self._dropped.clear()
            self._dropped.add(name)

    def has_dropped(self, function: str) -> bool:
        """Whether it was here once."""
        return function in self._dropped


class WorkerSession:
    """Registration, runs, deadlines, heartbeats and the outbox of one worker process.

    Every method that takes something in returns the actions that follow; `flush` is called once after each
    turn of the shell's loop and returns what was gathered meanwhile (results and begins travel in batches).
    """

    def __init__(self, identity: Identity, *, now: float) -> None:
        self._me = identity
        self._held: dict[Key, _Held] = {}
        self._queue: deque[Key] = deque()
        self._lines = Lines(identity.slots)
        self._assigned_at = now  # when a slot last became free, or nothing waited for one
        self._functions = FunctionCache()
        self._wanting: dict[str, _Wanted] = {}  # functions whose bytes runs wait for
        self._unsent: list[Key] = []
        self._output = OutputRelay()
        self._unsent_since = now
        self._seen = 0
        self._pull_number = 0
        self._pulled_at: float | None = None  # when the question was put that has no answer yet
        self._hello_number = 0
        self._generation = 0
        self._welcome: Welcome | None = None
        self._heard_at = now
        self._turn_at = now
        self._beat_at = now
        self._hello_at = now
        self._hello_wait_s = HELLO_FIRST_S
        self._alone_since = now
        self._orphan_s = ORPHAN_S
        self._max_result_bytes: int | None = None
        self._draining = False
        self._stopped = False

    # --- what the shell asks

    @property
    def is_registered(self) -> bool:
        return self._welcome is not None

    @property
    def busy(self) -> int:
        """How many slots are at something."""
        return len(self._lines.running)

    def kill_all(self) -> list[Action]:
        """Ends all that runs and that nobody has asked to kill: the worker stops."""
        actions: list[Action] = []
        for slot, key in self._lines.running.items():
            if self._held[key].killing is None:
                actions.append(KillSlot(slot, *key, Outcome.STOPPED))
        for held in self._held.values():
            if held.report is None and (held.slot is not None or held.behind is not None):
                held.killing = held.killing or Outcome.STOPPED  # of those in line, when they begin all the same
        return actions

    def next_deadline(self) -> float:
        """When `expire` has something to do, if nothing else happens before."""
        due = [self._turn_at + 1.0]
        if self._welcome is None:
            due.append(self._hello_at)
        else:
            due += [self._beat_at, self._heard_at + self._welcome.lost_after_s]
            if (output_at := self._output.next_deadline()) is not None:
                due.append(output_at)
        for slot in self._lines.behind():
            due.append(self._retract_at(slot))
        for key in self._lines.running.values():
            held = self._held[key]
            if held.begun_at is None or held.killing is not None:
                continue
            if not held.begin_told and self._welcome is not None:
                due.append(held.begun_at + STARTED_AFTER_S)
            if held.job.deadline_s is not None:
                due.append(held.begun_at + held.job.deadline_s)
        if self._welcome is not None and self._queue and self._lines.is_full:
            due.append(self._assigned_at + STALL_S)
        if self._welcome is not None and self._unsent:
            due.append(self._unsent_since + GATHER_S)
        return min(due)

    # --- from the dispatcher

    def receive(self, message: FromDispatcher, *, now: float) -> list[Action]:
        """Takes a message of the dispatcher."""
        self._heard_at = now
        if self._welcome is not None and now - self._turn_at >= self._welcome.lost_after_s:
            # We did not run for so long that the dispatcher has given us up, and what has waited here since with
            # it: what we have of that is told in a new Hello, a `Run` from then is not begun any more.
            self._welcome, self._alone_since, self._hello_at = None, now, now
        match message:
            case Welcome():
                return self._welcomed(message, now)
            case Refuse(again=True):
                return self._register_again(now)
            case Refuse():
                self._stopped = True
                return [Stop(message.reason, refused=True)]
            case Run():
                return self._runs(message, now)
            case Function():
                self._functions.put(message.function, message.blob.data)
                wanted = self._wanting.pop(message.function, None)
                for key in wanted.runs if wanted is not None else ():
                    if key in self._held:
                        self._wait(key, now)
                return self._assign(now)
            case ResultAck():
                for attempt in message.attempts:
                    held = self._held.get((attempt.task, attempt.attempt))
                    if held is not None and held.report is not None:
                        del self._held[attempt.task, attempt.attempt]
                return self._leave_when_empty()
            case Kill():
                return self._kill(message, now)
            case Drain():
                return self.drain(now=now)
            case Heartbeat():
                if self._welcome is not None:
                    self._compare(message, now)
                return []

    def _compare(self, heartbeat: Heartbeat, now: float) -> None:
        """Finds out what is lost: a `Run` that was sent and has not come, a `Pull` that has not arrived."""
        lost = heartbeat.seen > self._seen
        self._seen = max(self._seen, heartbeat.seen)
        if self._pulled_at is None:
            return
        if lost or (heartbeat.asked < self._pull_number and now >= self._pulled_at + PULL_AGAIN_S):
            self._pulled_at = None  # the next flush asks again

    def _register_again(self, now: float) -> list[Action]:
        if self._welcome is None:
            return []  # said already
        self._welcome, self._alone_since = None, now
        return self._hello(now)

    def _welcomed(self, welcome: Welcome, now: float) -> list[Action]:
        if self._welcome is not None or welcome.hello != self._hello_number:
            return []  # answers an earlier Hello: the latest one's answer is on its way
        actions: list[Action] = []
        if self._held and self._generation not in (0, welcome.generation):
            # The database was restored from a backup: our attempts' numbers may be given out again.
            actions += self._drop_everything()
        self._welcome = welcome
        self._orphan_s = welcome.orphan_s
        self._max_result_bytes = welcome.max_result_bytes
        self._generation = welcome.generation
        self._seen = welcome.seen
        self._pulled_at = None  # whoever knew of it is not there any more
        self._hello_wait_s = HELLO_FIRST_S
        self._beat_at = now + welcome.heartbeat_s
        # Unstarted runs stay: Hello has listed them, and the dispatcher kills what is no longer ours.
        self._unsent = [key for key, held in self._held.items() if held.report is not None]
        for held in self._held.values():
            held.begin_told = False
        # The dispatcher sends nothing until it knows that we hear it.
        actions.append(Send(Drain() if self._draining else Heartbeat(self._attempts(), self._seen)))
        for wanted in self._wanting.values():
            wanted.ask_at = now  # what was on its way is lost with the connection
        return actions + self._ask(now) + self._leave_when_empty()

    def _ask(self, now: float) -> list[Action]:
        """Functions that runs wait for and that have not come: the question or its answer may have been lost."""
        names = tuple(name for name, wanted in self._wanting.items() if now >= wanted.ask_at)
        for name in names:
            self._wanting[name].ask_at = now + FUNCTION_S
        return [Send(NeedFunction(names))] if names else []

    def _want(self, function: str, run: Key, now: float) -> None:
        """Has `run` wait for a function. One that we never had comes without being asked for, if not in order;
        one that we had and dropped does not."""
        wanted = self._wanting.get(function)
        if wanted is None:
            ask_at = now if self._functions.has_dropped(function) else now + FUNCTION_S
            wanted = self._wanting[function] = _Wanted(ask_at, [])
        wanted.runs.append(run)

    def _runs(self, run: Run, now: float) -> list[Action]:
        if self._welcome is None or run.number <= self._seen:
            return []  # from before our registration, or overtaken on the way: heartbeats tell both sides
        self._seen = run.number
        self._pulled_at = None
        if self._draining:
            return [Send(Returned(tuple(Attempt(job.task, job.attempt) for job in run.jobs), leaving=True))]
        for job in run.jobs:
            key = (job.task, job.attempt)
            if key in self._held:
                continue
            self._held[key] = _Held(job)
            if self._functions.get(job.function) is not None:
                self._wait(key, now)
                continue
            self._want(job.function, key, now)
        return self._assign(now) + self._ask(now)

    def _wait(self, key: Key, now: float) -> None:
        if not self._queue:
            self._assigned_at = now
        self._queue.append(key)

    def _kill(self, kill: Kill, now: float) -> list[Action]:
        actions: list[Action] = []
        for attempt in kill.attempts:
            key = (attempt.task, attempt.attempt)
            held = self._held.get(key)
            if held is None or held.report is not None or held.killing is not None:
                continue
            if held.slot is not None:
                held.killing = kill.outcome
                actions.append(KillSlot(held.slot, *key, kill.outcome))
            elif held.behind is not None:
                held.killing = kill.outcome  # when it comes back, or begins all the same
                actions.append(RetractJobs(held.behind))
            else:
                self._discard_waiting(key)
                self._end(key, held, SlotDone(-1, key[0], key[1], kill.outcome), now)
        return actions

    # --- from the slots

    def slot_event(self, event: PoolEvent, *, now: float) -> list[Action]:
        """Takes an event of the pool."""
        match event:
            case SlotReady():
                self._lines.ready(event.slot)
                self._assigned_at = now
                return self._assign(now) + self._ask(now)
            case SlotBegun():
                return self._slot_begun(event, now)
            case SlotReturned():
                return self._slot_returned(event, now)
            case SlotDone():
                key = (event.task, event.attempt)
                self._lines.done(event.slot, key)
                self._output.ended(key)
                held = self._held.get(key)
                if held is not None and held.report is None:
                    if event.outcome is Outcome.RETURNED:
                        self._lines.ran(held.job.function, event.elapsed_s)
                    self._end(key, held, event, now)
                return []
            case OutputChunk():
                self._output.printed((event.task, event.attempt), event.data)
                return []

    def _slot_begun(self, event: SlotBegun, now: float) -> list[Action]:
        key = (event.task, event.attempt)
        held = self._held.get(key)
        if held is None:  # it was dropped while it lay in line
            return [KillSlot(event.slot, *key, Outcome.LOST)]
        self._lines.begun(event.slot, key)
        held.slot, held.behind, held.begun_at = event.slot, None, now
        self._assigned_at = now
        self._output.begun(key, now)
        return [] if held.killing is None else [KillSlot(event.slot, *key, held.killing)]

    def _slot_returned(self, event: SlotReturned, now: float) -> list[Action]:
        key = (event.task, event.attempt)
        self._lines.returned(event.slot, key)
        self._output.ended(key)
        held = self._held.get(key)
        if held is None or held.report is not None:
            return []
        held.slot = held.behind = held.begun_at = None
        held.begin_told = False
        if held.killing is not None:
            self._end(key, held, SlotDone(-1, *key, held.killing), now)
            return []
        if self._draining:
            return self._give_back([key]) + self._leave_when_empty()
        self._queue.appendleft(key)
        return self._assign(now)

    def _end(self, key: Key, held: _Held, done: SlotDone, now: float) -> None:
        if self._max_result_bytes is not None and len(done.result) > self._max_result_bytes:
            done = _too_large(done, self._max_result_bytes)
        error = done.error
        held.report = Report(
            task=key[0],
            attempt=key[1],
            outcome=done.outcome,
            result=Blob(done.result),
            begun=held.begun_at is not None,
            elapsed_s=done.elapsed_s,
            ago_s=0.0,
            slot=done.slot,
            error=None if error is None else Error(error.type_name, error.message, error.traceback),
            exit_code=done.exit_code,
            exit_signal=done.exit_signal,
            head=done.output.head,
            tail=done.output.tail,
            dropped=done.output.dropped,
        )
        held.ended_at = now
        held.slot = held.behind = None
        if not self._unsent:
            self._unsent_since = now
        self._unsent.append(key)

    def _assign(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._queue:
            key = self._queue[0]
            held = self._held.get(key)
            if held is None or held.report is not None:
                self._queue.popleft()
                continue
            job = held.job
            blob = self._functions.get(job.function)
            if blob is None:  # dropped from the cache while it waited
                self._queue.popleft()
                self._want(job.function, key, now)
                continue
            slot = self._lines.place(key, job)
            if slot is None:
                break
            self._queue.popleft()
            if self._lines.running.get(slot) == key:
                held.slot = slot
            else:
                held.behind = slot
            actions.append(
                StartJob(
                    slot,
                    SlotJob(
                        job.task,
                        job.attempt,
                        job.function,
                        blob,
                        job.payload.data,
                        job.owner,
                        job.fresh,
                        job.memory_limit_mb,
                    ),
                )
            )
        return actions

    # --- time

    def start(self, *, now: float) -> list[Action]:
        """Says Hello."""
        return self._hello(now)

    def expire(self, *, now: float) -> list[Action]:
        """Does what is due: heartbeats, deadlines, results that need sending again, a silent dispatcher."""
        if now - self._turn_at > GAP_S:
            self._heard_at = now
        self._turn_at = now
        actions = self._deadlines(now) + self._held_up(now)
        if self._welcome is None:
            return actions + self._alone(now)
        if self._queue and self._lines.is_full and now >= self._assigned_at + STALL_S:
            actions += self._give_back(list(self._queue))
        if now >= self._heard_at + self._welcome.lost_after_s:
            self._welcome, self._alone_since = None, now
            return [*actions, Reconnect(), *self._hello(now)]
        if now >= self._beat_at:
            self._beat_at = now + self._welcome.heartbeat_s
            actions.append(Send(Heartbeat(self._attempts(), self._seen)))
            actions += self._ask(now)
            for key, held in self._held.items():
                if held.report is not None and held.sent_at is not None and now >= held.sent_at + RESEND_S:
                    self._unsent.append(key)
        return actions

    def _deadlines(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for slot, key in self._lines.running.items():
            held = self._held[key]
            limit = held.job.deadline_s
            if held.begun_at is None or limit is None or held.killing is not None:
                continue
            if now >= held.begun_at + limit:
                held.killing = Outcome.DEADLINE
                actions.append(KillSlot(slot, *key, Outcome.DEADLINE))
        return actions

    def _held_up(self, now: float) -> list[Action]:
        """Takes back what is in line behind a run that turns out to be long."""
        late = [slot for slot in self._lines.behind() if now >= self._retract_at(slot)]
        for slot in late:
            self._lines.ask_back(slot)
        return [RetractJobs(slot) for slot in late]

    def _retract_at(self, slot: int) -> float:
        begun_at = self._held[self._lines.running[slot]].begun_at if slot in self._lines.running else None
        return math.inf if begun_at is None else begun_at + RETRACT_S

    def _alone(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if self._held and now >= self._alone_since + self._orphan_s:
            actions += self._drop_everything() + self._leave_when_empty()
        if now >= self._hello_at and not self._stopped:
            actions += [Reconnect(), *self._hello(now)]
        return actions

    def _hello(self, now: float) -> list[Action]:
        self._hello_at = now + self._hello_wait_s
        self._hello_wait_s = min(self._hello_wait_s * 2, HELLO_MAX_S)
        self._hello_number += 1
        me = self._me
        return [
            Send(
                Hello(
                    PROTOCOL,
                    me.worker,
                    me.name,
                    me.host,
                    me.pid,
                    me.python,
                    me.dill,
                    me.slots,
                    self._generation,
                    self._attempts(),
                    self._hello_number,
                    me.secret,
                    me.pulls,
                )
            )
        ]

    def flush(self, *, now: float) -> list[Action]:
        """What has gathered since the last flush: results, and begins of runs that go on."""
        if self._welcome is None:
            return []
        actions: list[Action] = []
        starts = []
        for key in self._lines.running.values():
            held = self._held[key]
            if held.begin_told or held.begun_at is None or held.killing is not None:
                continue
            if now >= held.begun_at + STARTED_AFTER_S:
                held.begin_told = True
                starts.append(Started(key[0], key[1], now - held.begun_at))
        if starts:
            actions.append(Send(Begun(tuple(starts))))
        if (output := self._output.flush(now)) is not None:
            actions.append(Send(output))
        if self._unsent and not self._gathers(now):
            actions += [Send(Result(reports)) for reports in _portions(self._reports(now))]
            self._unsent.clear()
        if self._me.pulls and self._pulled_at is None and not self._draining:
            actions += self._pull(now)
        return actions

    def _gathers(self, now: float) -> bool:
        """Whether results wait for more of them. Nobody waits for their slots: there is work for those."""
        has_work = bool(self._queue) or self._lines.has_behind
        return has_work and len(self._unsent) < GATHER and now < self._unsent_since + GATHER_S

    def _pull(self, now: float) -> list[Action]:
        unfinished = sum(held.report is None for held in self._held.values())
        if unfinished > self._me.slots * ASK_PER_SLOT:
            return []
        take = self._me.slots * TAKE_PER_SLOT - unfinished
        self._pull_number += 1
        self._pulled_at = now
        return [Ask(Pull(self._pull_number, take))]

    def _reports(self, now: float) -> Iterable[Report]:
        for key in self._unsent:
            held = self._held.get(key)
            if held is None or held.report is None:
                continue
            held.sent_at = now
            ago_s = now - held.ended_at
            yield held.report if ago_s == 0.0 else replace(held.report, ago_s=ago_s)

    # --- the end

    def drain(self, *, now: float) -> list[Action]:
        """Gives back what has not begun, and leaves when the rest is done and acknowledged."""
        self._draining = True
        unfinished = [(key, held) for key, held in self._held.items() if held.report is None]
        waiting = [key for key, held in unfinished if held.slot is None and held.behind is None]
        retract = [RetractJobs(slot) for slot in {held.behind for _, held in unfinished} if slot is not None]
        return [Send(Drain()), *self._give_back(waiting), *retract, *self._leave_when_empty()]

    def _give_back(self, keys: list[Key]) -> list[Action]:
        for key in keys:
            self._discard_waiting(key)
            del self._held[key]
        return [Send(Returned(tuple(Attempt(*key) for key in keys), self._draining))] if keys else []

    def _leave_when_empty(self) -> list[Action]:
        if not self._draining or self._held or self._stopped:
            return []
        self._stopped = True
        return [Send(Bye("drained")), Stop("drained")]

    def _drop_everything(self) -> list[Action]:
        actions: list[Action] = []
        for slot, key in self._lines.running.items():
            if self._held[key].killing is None:
                actions.append(KillSlot(slot, *key, Outcome.LOST))
        self._held.clear()
        self._lines.clear()
        self._queue.clear()
        self._wanting.clear()
        self._unsent.clear()
        self._output.clear()
        return actions

    def _discard_waiting(self, key: Key) -> None:
        if key in self._queue:
            self._queue.remove(key)
        for name, wanted in list(self._wanting.items()):
            if key in wanted.runs:
                wanted.runs.remove(key)
                if not wanted.runs:
                    del self._wanting[name]

    def _attempts(self) -> tuple[Attempt, ...]:
        return tuple(Attempt(task, attempt) for task, attempt in self._held)


def _portions(reports: Iterable[Report]) -> Iterable[tuple[Report, ...]]:
    portion: list[Report] = []
    size = 0
    for report in reports:
        portion.append(report)
        size += len(report.head) + len(report.tail) + len(report.result.data)
        if size >= RESULT_BYTES:
            yield tuple(portion)
            portion, size = [], 0
    if portion:
        yield tuple(portion)


def _too_large(done: SlotDone, limit: int) -> SlotDone:
    """As the slot says it of what is over the worker's own limit: the dispatcher's may be lower."""
    error = ErrorText(
        "ResultError",
        f"the result is {len(done.result)} bytes; at most {limit} are kept."
        " Write it to a file or a store and return where it is",
        "",
    )
    result = dump(function_failure(error.type_name, error.message, ""))
    return replace(done, outcome=Outcome.RAISED, result=result, error=error)


__all__ = [
    "Action",
    "Ask",
    "FunctionCache",
    "Identity",
    "KillSlot",
    "Reconnect",
    "RetractJobs",
    "Send",
    "StartJob",
    "Stop",
    "WorkerSession",
]
