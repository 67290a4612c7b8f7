"""One slot's process as its supervisor sees it: a socket, a pipe, and what it was told."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
from collections import OrderedDict, deque
from dataclasses import dataclass

from everythingfaas.slot.child import BROKEN
from everythingfaas.slot.frames import Answer, Frame, FrameReader, Kind, prefixed, run_head
from everythingfaas.slot.tickets import TicketOffice
from everythingfaas.status import Outcome
from worker.events import ErrorText, Output, OutputChunk, SlotDone, SlotJob, SlotReturned

_READ = 64 * 1024
#: Reads or writes of one descriptor in one turn: a slot that takes, answers or prints much must not hold up others.
_CALLS_PER_TURN = 16
_PARTS_PER_CALL = 64  #: the kernel takes 1024

#: Why a process that can no longer answer is ended.
UNREADABLE = "the function wrote to, or closed, the descriptors by which its process answers"


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """What one slot may keep and send."""

    max_result_bytes: int = 64 * 1024 * 1024
    head_bytes: int = 32 * 1024  #: of a run's output, kept from its beginning
    tail_bytes: int = 32 * 1024  #: and from its end
    functions: int = 64  #: kept loaded in one process
    function_bytes: int = 64 * 1024 * 1024  #: and all of them together


class Capture:
    """The beginning and the end of what a run prints, however much that is."""

    def __init__(self, limits: SlotLimits) -> None:
        self._head_bytes = limits.head_bytes
        self._tail_bytes = limits.tail_bytes
        self._head = bytearray()
        self._tail = bytearray()
        self._length = 0

    def feed(self, data: bytes) -> None:
        self._length += len(data)
        room = self._head_bytes - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._tail_bytes :] if self._tail_bytes else b""
        if len(self._tail) > 2 * self._tail_bytes:
            del self._tail[: -self._tail_bytes]

    def output(self) -> Output:
        tail = bytes(self._tail[-self._tail_bytes :]) if self._tail_bytes else b""
        return Output(bytes(self._head), tail, self._length - len(self._head) - len(tail))


@dataclass(slots=True)
class Run:
    """One job in a live process, and what becomes of it."""

    slot: int
    job: SlotJob
    number: int  #: comes back with the answer
    capture: Capture
    handed_over: float
    begun: float | None = None  #: None: it lies in the process's socket, behind another one
    #: If the process ends before it has taken the job's ticket, it was not the job's fault. Of one that was given to an
    #: idle process that is not so sure, and it must not come back for ever.
    spared: bool = False
    verdict: Outcome | None = None  #: decided by a kill, whatever the process still says
    reason: str = ""  #: for that, in words

    def printed(self, data: bytes) -> OutputChunk:
        self.capture.feed(data)
        return OutputChunk(self.slot, self.job.task, self.job.attempt, data)

    def completed(self, answer: Answer, now: float) -> SlotDone:
        return SlotDone(
            self.slot,
            self.job.task,
            self.job.attempt,
            answer.outcome,
            result=answer.result,
            error=None if answer.error is None else ErrorText(*answer.error),
            elapsed_s=self._measured(answer, now),
            output=self.capture.output(),
        )

    def died(self, status: int | None, now: float, *, was_broken: bool) -> SlotDone:
        """`status` is what wait() said of the process, None if nobody knows; `was_broken` says that it was
        ended because it could no longer answer."""
        code = None if status is None else os.waitstatus_to_exitcode(status)
        reason = UNREADABLE if self.verdict is None and (was_broken or code == BROKEN) else self.reason
        return SlotDone(
            self.slot,
            self.job.task,
            self.job.attempt,
            self.verdict or Outcome.DIED,
            error=ErrorText("WorkerFailure", reason, "") if reason else None,
            elapsed_s=self._elapsed(now),
            output=self.capture.output(),
            exit_code=code if code is not None and code >= 0 else None,
            exit_signal=-code if code is not None and code < 0 else None,
        )

    def returned(self) -> SlotReturned:
        return SlotReturned(self.slot, self.job.task, self.job.attempt)

    def _measured(self, answer: Answer, now: float) -> float:
        """What the slot says, if it can be true: the run was in its process for no longer."""
        longest = now - self.handed_over
        return answer.elapsed_s if 0.0 <= answer.elapsed_s <= longest else longest

    def _elapsed(self, now: float) -> float:
        return 0.0 if self.begun is None else now - self.begun


class SlotProcess:
    """The supervisor's ends of one process, from the request to fork it until its exit is reported.

    Attributes:
        pid: None until the zygote has forked it.
        owner: whose tasks it runs; None before its first.
        doomed: why it is to end, in words, once that has been asked for; empty otherwise.
        parcel: descriptors for the process itself, which the zygote passes on.
    """

    def __init__(self, limits: SlotLimits) -> None:
        self.pid: int | None = None
        self.owner: str | None = None
        self.doomed = ""
        self.connection, theirs = socket.socketpair()
        self.connection.setblocking(False)
        self.output, output = os.pipe()  # both ends are not inheritable
        os.set_blocking(self.output, False)
        try:
            self._tickets = TicketOffice()
        except OSError:
            os.close(self.output)
            os.close(output)
            raise
        self.parcel = (theirs, output, self._tickets.counter)
        self._pipe_size = fcntl.fcntl(self.output, fcntl.F_GETPIPE_SZ)
        self._limits = limits
        self._reader = FrameReader(max_body=limits.max_result_bytes)
        self._unsent: deque[memoryview] = deque()
        self._unissued: list[int] = []
        self._functions: OrderedDict[str, int] = OrderedDict()
        self._function_bytes = 0
        self._hung_up = False

    def fileno(self) -> int:
        return self.connection.fileno()

    @property
    def is_live(self) -> bool:
        return self.pid is not None and not self.doomed

    def suits(self, job: SlotJob) -> bool:
        return self.owner is None or (self.owner == job.owner and not job.fresh)

    # --- to the process

    @property
    def has_unsent(self) -> bool:
        """Whether `send_pending` is to be called when the socket takes more."""
        return bool(self._unsent)

    def hand_over(self, job: SlotJob, run: int) -> None:
        """Makes `job` ready to be sent; with its function, if the process has not got that."""
        self.owner = job.owner
        digest = bytes.fromhex(job.function)
        if job.function in self._functions:
            self._functions.move_to_end(job.function)
        else:
            self._teach(job.function, job.blob)
        self._unsent.append(memoryview(prefixed(Kind.RUN, run_head(run, digest), len(job.payload))))
        self._unsent.append(memoryview(job.payload))
        self._unissued.append(run)

    def resume(self) -> None:
        """Lets the process go on, all that it had printed is read."""
        self._unsent.append(memoryview(prefixed(Kind.RESUME, b"")))

    def take_back(self, *, but: int) -> set[int]:
        """The numbers of the runs that have not begun, and now never do in this process; without `but`, which is
        still to begin if it has not."""
        back = self.unbegun()
        if but in back and self._issue([but]):
            back.discard(but)
        return back

    def unbegun(self) -> set[int]:
        """The same, with none excepted."""
        back = self._tickets.take_back().union(self._unissued)
        self._unissued.clear()
        return back

    def _issue(self, runs: list[int]) -> bool:
        try:
            self._tickets.issue(runs)
        except BlockingIOError:  # a function has filled the pipe with something else
            return False
        return True

    def _teach(self, function: str, blob: bytes) -> None:
        limits = self._limits
        self._function_bytes += len(blob)
        while self._functions and (
            len(self._functions) >= limits.functions or self._function_bytes > limits.function_bytes
        ):
            oldest, size = self._functions.popitem(last=False)
            self._function_bytes -= size
            self._unsent.append(memoryview(prefixed(Kind.FORGET, bytes.fromhex(oldest))))
        self._functions[function] = len(blob)
        self._unsent.append(memoryview(prefixed(Kind.LEARN, bytes.fromhex(function), len(blob))))
        self._unsent.append(memoryview(blob))

    def send_pending(self) -> bool:
        """Sends what the socket takes now, or some megabytes if the process keeps up.

        Returns:
            False when the process has hung up, or takes no tickets.
        """
        if self._unissued:
            if not self._issue(self._unissued):
                return False
            self._unissued.clear()
        for _ in range(_CALLS_PER_TURN):
            if not self._unsent:
                break
            try:
                sent = self.connection.sendmsg(itertools.islice(self._unsent, _PARTS_PER_CALL))
            except BlockingIOError:
                return True
            except OSError:
                self._unsent.clear()
                return False
            while self._unsent and sent >= len(self._unsent[0]):
                sent -= len(self._unsent.popleft())
            if sent:
                self._unsent[0] = self._unsent[0][sent:]
        return True

    # --- from the process

    @property
    def has_hung_up(self) -> bool:
        """Whether it closed its end of the socket, and can never answer."""
        return self._hung_up

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of a further frame has come in."""
        return self._reader.is_empty

    def receive(self) -> list[Frame]:
        """The frames that have come in whole.

        Raises:
            ProtocolError: it wrote something else.
        """
        frames: list[Frame] = []
        for _ in range(_CALLS_PER_TURN):
            wanted = self._reader.read_size
            try:
                data = self.connection.recv(wanted)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._hung_up = True
                break
            frames += self._reader.feed(data)
            if frames or len(data) < wanted:  # a short read has emptied the socket
                break
        return frames

    def read_output(self) -> bytes | None:
        """Some of what it has printed: b"" if there is nothing now, None if nothing will ever come."""
        try:
            return os.read(self.output, _READ) or None
        except BlockingIOError:
            return b""

    def drain_output(self) -> bytes:
        """All that it had printed when this was called; at most what the pipe holds, for a process that it
        has left behind may go on printing."""
        parts = []
        room = self._pipe_size
        while room > 0 and (part := self.read_output()):
            parts.append(part)
            room -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        self._tickets.close()
        self.connection.close()
        os.close(self.output)
