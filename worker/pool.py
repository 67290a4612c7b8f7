"""The slots of one worker: a process each, replaced at once when it dies, is killed or is not as it was.

The pool has no thread and never waits. Its owner nests `SlotPool.fileno` in the poller that it has anyway:

    pool.start()
    while True:
        poller.poll(milliseconds until pool.next_deadline(), and whatever else is due)
        for event in pool.process(clock()):
            ...

`SlotReady` says that a slot is free. `run` gives it a job, `SlotBegun` says that a live process has it, and
one `SlotDone` ends it, whatever way. Then `SlotReady` follows: at once if the process may stay, some
milliseconds later if another one takes its place.

A slot that runs something may be given more jobs ahead of time. Each begins when the one before it has ended, or comes
back as `SlotReturned`: when somebody asks for it (`retract`), and whenever the process cannot go on.

What is printed is told apart by two rules. The process goes on to the next job only when nothing that it has printed is
unread, else it waits for `Kind.RESUME`; and while it has jobs ahead nothing is read but between its answers.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from everythingfaas import prctl, proctree
from everythingfaas.errors import ProtocolError
from everythingfaas.slot.control import Packet, Verb
from everythingfaas.slot.frames import Answer, parse_answer
from everythingfaas.status import Outcome
from worker import memory
from worker.events import PoolEvent, SlotBegun, SlotDone, SlotJob, SlotReady, SlotReturned
from worker.scratch import Scratch
from worker.slots import UNREADABLE, Capture, Run, SlotLimits, SlotProcess
from worker.zygote import ZygoteHandle, ZygoteWatch, end_strangers

log = logging.getLogger(__name__)

#: A process that has closed its socket gets as long to be reported dead, with its own exit status.
HANG_UP_S = 0.05
#: Wait before a fork that failed is tried again.
FORK_AGAIN_S = 0.5

_READS_PER_TURN = 16


@dataclass(slots=True)
class _Slot:
    index: int
    process: SlotProcess | None = None
    job: SlotJob | None = None  #: waits for a process
    runs: deque[Run] = field(default_factory=deque)  #: what the process has; the first one has begun
    dirty: bool = False  #: there is something to be sent to the process
    retry_at: float | None = None  #: when to ask for a process again
    hung_up_at: float | None = None  #: when the process closed its socket

    @property
    def run(self) -> Run | None:
        return self.runs[0] if self.runs else None


class SlotPool:
    """Runs jobs in a fixed number of slots.

    Args:
        slots: how many; they are numbered from 0.
        folder: the user's, from which functions import; where the worker was started.
        limits: what a slot may keep and send.
    """

    def __init__(self, slots: int, *, folder: Path, limits: SlotLimits | None = None) -> None:
        self._slots = [_Slot(index) for index in range(slots)]
        self._folder = folder.resolve()
        self._limits = limits or SlotLimits()
        self._epoll: select.epoll | None = None
        self._watched: dict[int, Callable[[int, float], None]] = {}
        self._full: set[int] = set()  # descriptors of which it is awaited that they take more
        self._events: list[PoolEvent] = []
        self._dirty: list[_Slot] = []
        self._last_number = 0
        self._now = 0.0  # of the last turn
        self._zygote: ZygoteHandle | None = None
        self._scratch: Scratch | None = None
        self._spared: set[int] = set()
        self._zygote_watch = ZygoteWatch()
        self._memory_at: float | None = None  # when to look at the runs that have a limit, if there are any

    # --- for the owner

    def start(self) -> None:
        """Starts the processes. Call it from a thread that stays: when that ends, so do they.

        This process becomes a subreaper: the kernel gives it the orphans among its descendants, so that
        none of a function's is out of reach. What it starts in a session of its own after this call is
        taken for such an orphan, and ended with the pool.

        Raises:
            OSError: the folder does not exist, or there is no room for a process or for temporary files.
        """
        prctl.set_child_subreaper()
        self._spared = {child.pid for child in proctree.children(os.getpid())}
        self._epoll = select.epoll()
        try:
            self._scratch = Scratch()
            self._start_zygote()
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when there is something for `process` to do."""
        return self._poll.fileno()

    def next_deadline(self) -> float | None:
        """When to call `process` though nothing is readable, by the owner's clock; in the past for at once."""
        if self._events or self._dirty:
            return 0.0
        due = [slot.retry_at for slot in self._slots if slot.retry_at is not None]
        due += [slot.hung_up_at + HANG_UP_S for slot in self._slots if slot.hung_up_at is not None]
        watch = self._zygote_watch.deadline(self._zygote)
        if watch is not None:
            due.append(watch)
        if self._memory_at is not None:
            due.append(self._memory_at)
        return min(due, default=None)

    def process(self, now: float) -> list[PoolEvent]:
        """Reads what is there, does what is due, and says what has happened. A bounded piece of work: what
        is left keeps `fileno` readable."""
        self._now = now
        self.flush()
        for descriptor, mask in self._poll.poll(0):
            handler = self._watched.get(descriptor)
            if handler is not None:
                handler(mask, now)
        self._expire(now)
        events, self._events = self._events, []
        return events

    def run(self, job: SlotJob, slot: int, now: float) -> None:
        """Runs `job` in `slot`, in a new process if the present one may not have it. In a slot that runs something it
        is next in line. Call `flush` after the last one.

        Raises:
            ValueError: the function's name is no sha256.
        """
        place = self._slots[slot]
        if len(bytes.fromhex(job.function)) != hashlib.sha256().digest_size:
            raise ValueError(f"{job.function!r} is no sha256")
        process = place.process
        if place.runs or place.job is not None:
            if place.runs and process is not None and process.is_live and process.suits(job):
                self._hand_over(place, process, job, now)
            else:
                self._events.append(SlotReturned(slot, job.task, job.attempt))
            return
        place.job = job
        if process is not None and process.is_live:
            if process.suits(job):
                self._hand_over_waiting(place, now)
            else:
                self._end_process(place, "a new one is due")

    def flush(self) -> None:
        """Sends what `run` has gathered: jobs that go to a slot together cost one call."""
        for slot in self._dirty:
            slot.dirty = False
            process = slot.process
            if process is None or not process.is_live:
                continue
            if process.send_pending():
                self._rewatch(process)
            else:
                for run in slot.runs:
                    run.spared = True
                self._end_process(slot, "it hung up")
        self._dirty.clear()

    def retract(self, slot: int) -> None:
        """Takes back what `slot` has been given ahead of time and has not begun."""
        place = self._slots[slot]
        process, run = place.process, place.run
        if process is None or run is None or len(place.runs) < 2:
            return
        back = process.take_back(but=run.number)
        if run.number in back:
            self._end_process(place, UNREADABLE)
        self._return(place, back)
        if len(place.runs) == 1 and process.is_live:
            self._watch(process.output, functools.partial(self._on_output, place))

    def kill(self, slot: int, task: str, attempt: int, outcome: Outcome, now: float) -> None:
        """Ends this attempt in `slot`, with everything that it has started. `SlotDone` tells `outcome` when all of it
        is dead. If the slot runs it no more, nothing is done: its `SlotDone` is on its way."""
        place = self._slots[slot]
        job = place.job
        if job is not None and (job.task, job.attempt) == (task, attempt):
            place.job = None
            self._events.append(SlotDone(slot, task, attempt, outcome))
            return
        self.retract(slot)
        while len(place.runs) > 1 and self._runs(place, task, attempt) and self._read_answers(place, now):
            continue  # the slot has gone on to the next one, so the answer of this one has come in
        run = place.run
        if run is not None and self._runs(place, task, attempt):
            if run.verdict is None:
                run.verdict = outcome
            self._end_process(place, f"killed: {outcome.name}")

    @staticmethod
    def _runs(slot: _Slot, task: str, attempt: int) -> bool:
        return slot.run is not None and (slot.run.job.task, slot.run.job.attempt) == (task, attempt)

    def pid(self, slot: int) -> int | None:
        """The process that is in `slot` now."""
        process = self._slots[slot].process
        return process.pid if process is not None else None

    def close(self) -> None:
        """Ends all processes, and tells of no run any more. Takes milliseconds; may be called twice."""
        if self._zygote is not None:
            self._zygote.end()
            self._zygote = None
            end_strangers(self._spared)
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
        for slot in self._slots:
            if slot.process is not None:
                slot.process.close()
            slot.process = slot.job = slot.retry_at = slot.hung_up_at = None
            slot.runs.clear()
        self._watched.clear()
        self._full.clear()
        self._events.clear()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    # --- the zygote

    @property
    def _poll(self) -> select.epoll:
        if self._epoll is None:
            raise ValueError("the pool is not started, or closed")
        return self._epoll

    def _start_zygote(self) -> None:
        scratch = self._scratch
        if scratch is None:
            return
        scratch.clear()  # of slots of a zygote that was lost
        self._zygote = zygote = ZygoteHandle(self._folder, scratch.path, self._limits.max_result_bytes)
        self._zygote_watch.started()
        self._watch(zygote.fileno(), self._on_zygote)
        for slot in self._slots:
            self._start_process(slot)

    def _restart_zygote(self, now: float) -> None:
        try:
            self._start_zygote()
        except OSError as exc:
            log.error("no process that forks slots: %s", exc)  # noqa: TRY400 the text says it all
            self._zygote_watch.lost(now)

    def _on_zygote(self, mask: int, now: float) -> None:
        zygote = self._zygote
        if zygote is None:
            return
        if mask & select.EPOLLOUT:
            zygote.send_pending()
            self._rewatch(zygote)
        try:
            packets = zygote.read()
        except EOFError:
            self._lose_zygote("it has ended", now)
            return
        for packet in packets:
            self._zygote_watch.heard(now)
            self._on_packet(zygote, packet, now)

    def _on_packet(self, zygote: ZygoteHandle, packet: Packet, now: float) -> None:
        if packet.verb == Verb.FORKED:
            zygote.answered()
            slot = self._slots[packet.subject]
            if slot.process is not None:
                slot.process.pid = packet.detail
                self._offer(slot, now)
        elif packet.verb == Verb.FORK_FAILED:
            zygote.answered()
            slot = self._slots[packet.subject]
            self._drop_process(slot)
            self._postpone(slot, os.strerror(packet.detail))
        elif packet.verb == Verb.EXITED:
            for slot in self._slots:
                if slot.process is not None and slot.process.pid == packet.subject:
                    if slot.process.doomed:
                        zygote.answered()
                    self._bury(slot, packet.detail, now)
                    self._start_process(slot)

    def _lose_zygote(self, reason: str, now: float) -> None:
        """Ends what is left of it and its slots. What ran in them has died; what waited still waits."""
        zygote = self._zygote
        if zygote is None:
            return
        self._unwatch(zygote.fileno())
        self._zygote = None
        zygote.end()
        statuses = end_strangers(self._spared)
        for slot in self._slots:
            if slot.process is not None:
                self._bury(slot, statuses.get(slot.process.pid or 0), now)
            slot.retry_at = None
        self._zygote_watch.lost(now)
        log.error("the process that forks slots is lost (%s); another one starts", reason)

    def _expire(self, now: float) -> None:
        if self._memory_at is not None and now >= self._memory_at:
            self._look_at_memory(now)
        if self._zygote_watch.is_due(self._zygote, now):
            if self._zygote is None:
                self._restart_zygote(now)
            else:
                self._lose_zygote("it does not answer", now)
        for slot in self._slots:
            if slot.retry_at is not None and now >= slot.retry_at:
                self._start_process(slot)
            if slot.hung_up_at is not None and now >= slot.hung_up_at + HANG_UP_S:
                self._end_process(slot, UNREADABLE)

    def _look_at_memory(self, now: float) -> None:
        """Ends runs that use more than they may. Nobody looks while no run has a limit."""
        self._memory_at = None
        for slot in self._slots:
            process, run = slot.process, slot.run
            if process is None or process.pid is None or process.doomed or run is None:
                continue
            if run.job.memory_limit_mb is not None:
                self._memory_at = now + memory.LOOK_S
                run.reason = memory.excess(process.pid, run.job.memory_limit_mb)
                if run.reason:
                    self.kill(slot.index, run.job.task, run.job.attempt, Outcome.MEMORY, now)

    # --- processes of slots

    def _start_process(self, slot: _Slot) -> None:
        slot.retry_at = None
        zygote = self._zygote
        if zygote is None:
            return
        try:
            process = SlotProcess(self._limits)
        except OSError as exc:  # too many open files
            self._postpone(slot, str(exc))
            return
        slot.process = process
        zygote.fork(slot.index, *process.parcel)
        self._rewatch(zygote)
        self._watch(process.fileno(), functools.partial(self._on_connection, slot))
        self._watch(process.output, functools.partial(self._on_output, slot))

    def _postpone(self, slot: _Slot, reason: str) -> None:
        log.error("no process for slot %d: %s", slot.index, reason)
        slot.retry_at = self._now + FORK_AGAIN_S

    def _end_process(self, slot: _Slot, reason: str) -> None:
        process, zygote = slot.process, self._zygote
        if process is None or zygote is None or not process.is_live or process.pid is None:
            return
        log.debug("the process of slot %d ends: %s", slot.index, reason)
        slot.hung_up_at = None
        process.doomed = reason
        self._unwatch(process.fileno())
        if slot.run is None:
            self._unwatch(process.output)
        self._return(slot, process.unbegun())
        zygote.kill(process.pid)
        self._rewatch(zygote)

    def _bury(self, slot: _Slot, status: int | None, now: float) -> None:
        """The process of `slot` is dead; ends its run. `status` is what wait() said, None if nobody knows."""
        process = slot.process
        if process is None:
            return
        if slot.runs:
            self._hear_last_words(slot, process, now)
            self._return(slot, process.unbegun())
            self._printed(slot, process.drain_output())
            for run in slot.runs:  # more than one, if a function has taken the tickets of those behind it
                if run.begun is None:
                    self._events.append(SlotBegun(slot.index, run.job.task, run.job.attempt))
                self._events.append(run.died(status, now, was_broken=process.doomed == UNREADABLE))
            slot.runs.clear()
        self._drop_process(slot)

    def _drop_process(self, slot: _Slot) -> None:
        if slot.process is not None:
            self._unwatch(slot.process.fileno())
            self._unwatch(slot.process.output)
            slot.process.close()
            slot.process = slot.hung_up_at = None

    def _offer(self, slot: _Slot, now: float) -> None:
        """The process of `slot` is free."""
        if slot.job is not None:
            self._hand_over_waiting(slot, now)
            self.flush()
        else:
            self._events.append(SlotReady(slot.index))

    # --- runs

    def _hand_over_waiting(self, slot: _Slot, now: float) -> None:
        process, job = slot.process, slot.job
        if process is None or job is None:
            return
        process.drain_output()  # what came since the last answer is nobody's
        slot.job = None
        self._hand_over(slot, process, job, now)
        self._begin(slot, now)

    def _hand_over(self, slot: _Slot, process: SlotProcess, job: SlotJob, now: float) -> None:
        self._last_number += 1
        process.hand_over(job, self._last_number)
        capture = Capture(self._limits)
        slot.runs.append(Run(slot.index, job, self._last_number, capture, now, spared=bool(slot.runs)))
        self._mark(slot)
        if job.memory_limit_mb is not None and self._memory_at is None:
            self._memory_at = now + memory.LOOK_S

    def _mark(self, slot: _Slot) -> None:
        if not slot.dirty:
            slot.dirty = True
            self._dirty.append(slot)

    def _begin(self, slot: _Slot, now: float) -> None:
        run = slot.runs[0]
        run.begun = now
        self._events.append(SlotBegun(slot.index, run.job.task, run.job.attempt))

    def _return(self, slot: _Slot, numbers: set[int]) -> None:
        """What never begins in a process goes back, unless its end is decided already."""
        if not numbers:
            return
        kept: deque[Run] = deque()
        for run in reversed(slot.runs):  # the last one first: each goes to the head of the queue
            if run.spared and run.verdict is None and run.number in numbers:
                self._events.append(run.returned())
            else:
                kept.appendleft(run)
        slot.runs = kept

    def _on_connection(self, slot: _Slot, mask: int, now: float) -> None:
        process = slot.process
        if process is None or not process.is_live:
            return
        if mask & select.EPOLLOUT:
            process.send_pending()
            self._rewatch(process)
        self._read_answers(slot, now)

    def _read_answers(self, slot: _Slot, now: float) -> bool:
        """Takes what the process has said. Returns whether it was something."""
        process = slot.process
        if process is None or not process.is_live:
            return False
        try:
            frames = process.receive()
            for frame in frames:
                self._answered(slot, process, parse_answer(frame), now)
        except ProtocolError as exc:
            log.warning("slot %d: %s", slot.index, exc)
            self._end_process(slot, UNREADABLE)
            return False
        self.flush()
        if process.has_hung_up and process.is_live:
            slot.hung_up_at = now  # most likely it has ended, which the zygote tells presently
            self._unwatch(process.fileno())
        return bool(frames)

    def _answered(self, slot: _Slot, process: SlotProcess, answer: Answer, now: float) -> None:
        run = slot.run
        if run is None or answer.run != run.number or not process.is_live:
            raise ProtocolError("an answer to what was not asked")
        has_next = len(slot.runs) > 1
        if answer.printed or not has_next:
            self._printed(slot, process.drain_output())
        slot.runs.popleft()
        self._events.append(run.completed(answer, now))
        if answer.left:
            self._end_process(slot, f"task {run.job.task} left {answer.left}")
            return
        if answer.printed:
            process.resume()
            self._mark(slot)
        if has_next:
            self._begin(slot, now)
            if len(slot.runs) == 1:
                self._watch(process.output, functools.partial(self._on_output, slot))
        elif process.is_quiet:
            self._offer(slot, now)
        else:
            self._end_process(slot, f"task {run.job.task} left bytes in the socket")

    def _hear_last_words(self, slot: _Slot, process: SlotProcess, now: float) -> None:
        """The answers that the process gave just before it died."""
        if process.doomed == UNREADABLE:
            return
        try:
            while frames := process.receive():
                for frame in frames:
                    answer, run = parse_answer(frame), slot.run
                    if run is None or answer.run != run.number or run.verdict is not None:
                        return
                    if run.begun is None:
                        self._begin(slot, now)
                    if answer.printed or len(slot.runs) == 1:
                        self._printed(slot, process.drain_output())
                    slot.runs.popleft()
                    self._events.append(run.completed(answer, now))
        except ProtocolError as exc:
            log.warning("slot %d: %s", slot.index, exc)

    # --- output

    def _on_output(self, slot: _Slot, mask: int, now: float) -> None:
        del mask, now
        process = slot.process
        if process is None:
            return
        if len(slot.runs) > 1 and process.is_live:  # it is read when it is known whose it is
            self._unwatch(process.output)
            return
        for _ in range(_READS_PER_TURN):
            data = process.read_output()
            if data is None:
                self._unwatch(process.output)  # all of its writers have closed it
            if not data:
                return
            self._printed(slot, data)

    def _printed(self, slot: _Slot, data: bytes) -> None:
        if slot.run is not None and data:
            self._events.append(slot.run.printed(data))

    # --- descriptors

    def _watch(self, descriptor: int, handler: Callable[[int, float], None]) -> None:
        if descriptor not in self._watched:
            self._poll.register(descriptor, select.EPOLLIN)
            self._watched[descriptor] = handler

    def _rewatch(self, end: ZygoteHandle | SlotProcess) -> None:
        """Waits for room in the socket of `end` while something is to be sent, and only then."""
        descriptor = end.fileno()
        if descriptor not in self._watched or end.has_unsent == (descriptor in self._full):
            return
        if end.has_unsent:
            self._full.add(descriptor)
            self._poll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)
        else:
            self._full.discard(descriptor)
            self._poll.modify(descriptor, select.EPOLLIN)

    def _unwatch(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._full.discard(descriptor)
            self._poll.unregister(descriptor)
