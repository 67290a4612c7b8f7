"""The messages between dispatcher and worker.

One frozen struct for each message, a tagged union, and one decoder that refuses anything else at the door
(`everythingfaas.wire.frames`). Times on the wire are durations in seconds, never clock readings, because
the two ends share no clock. A task is named by its UUID as text; an attempt by (task, number), and the
number is the fencing token that comes back with everything said about it.

Fields are only ever added at the end, with a default: structs travel as arrays, and a decoder of the
previous version ignores what it does not know.
"""

from __future__ import annotations

from msgspec import Struct

from everythingfaas.status import Outcome

#: Version of the protocol, in the first frame of every message.
PROTOCOL = 1


class Blob:
    """Client bytes: passed on, never opened. Larger ones travel as frames of their own, uncopied."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and other.data == self.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"Blob({len(self.data)} bytes)"


class Attempt(Struct, frozen=True, array_like=True):
    """One attempt at one task: the token by which everything is fenced."""

    task: str
    attempt: int


# --- worker → dispatcher


class Hello(Struct, frozen=True, array_like=True, tag="hello"):
    """A worker introduces itself, and says which attempts it still holds from before.

    From here until the `Welcome` that answers this very Hello it takes no `Run`, and after it none from before:
    so what the dispatcher has given it and it does not list was not begun, and never will be.
    """

    protocol: int
    worker: str  #: random for each start of the process, so that a restarted worker is another one
    name: str  #: for people
    host: str
    pid: int
    python: tuple[int, int]
    dill: str
    slots: int
    generation: int = 0  #: of the database whose attempts it holds; 0: holds none
    held: tuple[Attempt, ...] = ()
    number: int = 0  #: of this Hello: a late one is told from the latest
    #: Random, and known to this process and its dispatcher alone: whoever says Hello as this worker on another
    #: connection has to know it.
    secret: str = ""
    pulls: bool = False  #: it takes a `Run` only in answer to a `Pull`


class Started(Struct, frozen=True, array_like=True):
    task: str
    attempt: int
    ago_s: float


class Begun(Struct, frozen=True, array_like=True, tag="started"):
    """Slots have begun these. Sent only for what outlives the next flush; else the result says it."""

    starts: tuple[Started, ...]


class Error(Struct, frozen=True, array_like=True):
    """What was raised, as text: safe to show, store and log."""

    type_name: str
    message: str
    traceback: str


class Report(Struct, frozen=True, array_like=True):
    """How one attempt ended."""

    task: str
    attempt: int
    outcome: Outcome
    result: Blob
    begun: bool  #: a slot had begun the function
    elapsed_s: float  #: from the slot's begin to the end
    ago_s: float  #: from the end to the sending of this report
    slot: int
    error: Error | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    head: bytes = b""  #: first and last bytes of the output, and how many between are left out
    tail: bytes = b""
    dropped: int = 0


class Result(Struct, frozen=True, array_like=True, tag="result"):
    """Attempts that ended. Repeated until acknowledged."""

    reports: tuple[Report, ...]


class Returned(Struct, frozen=True, array_like=True, tag="returned"):
    """Attempts given back, never begun: they waited behind a long one, or the worker is leaving."""

    attempts: tuple[Attempt, ...]
    leaving: bool = False


class NeedFunction(Struct, frozen=True, array_like=True, tag="need"):
    """The worker has dropped these functions from its cache and needs them again."""

    functions: tuple[str, ...]


class Heartbeat(Struct, frozen=True, array_like=True, tag="heartbeat"):
    """Alive. A worker's lists all that it holds, ended but unacknowledged attempts included.

    `seen` is the number of the last `Run` that the worker received, or was told of by a dispatcher's heartbeat,
    where it is the number of the last one sent before the heartbeat before (so that no heartbeat overtakes a `Run`
    that travels on a socket of its own). A worker drops a `Run` whose number it has passed; so an attempt
    sent in a `Run` up to `seen` and not listed was lost on the way, has not been begun, and never will be.
    """

    held: tuple[Attempt, ...] = ()
    seen: int = 0
    asked: int = 0  #: from a dispatcher: number of the last `Pull` that it received


class Pull(Struct, frozen=True, array_like=True, tag="pull"):
    """The worker asks for tasks, on its REQ socket. The answer is one `Run`, held back until there is one."""

    number: int  #: of this question: a later one replaces it
    take: int  #: so many attempts at the most


class Bye(Struct, frozen=True, array_like=True, tag="bye"):
    """The worker leaves; it holds nothing any more."""

    reason: str = ""


class LogEntry(Struct, frozen=True, array_like=True):
    """What a run has printed since the last time: `data`, and behind it `dropped` bytes that are left out."""

    task: str
    attempt: int
    data: bytes
    dropped: int = 0


class Log(Struct, frozen=True, array_like=True, tag="log"):
    """Output of runs that go on, for people who watch. May be lost, and says nothing that the report will not."""

    entries: tuple[LogEntry, ...]


# --- dispatcher → worker


class Welcome(Struct, frozen=True, array_like=True, tag="welcome"):
    dispatcher: str
    epoch: int  #: another one than before: the dispatcher has started anew
    generation: int  #: of the database: another one than the worker's kills what it holds
    hello: int  #: number of the Hello that this answers
    seen: int  #: number of the last `Run` before this: one with a lower number is from the past, and dropped
    heartbeat_s: float
    lost_after_s: float
    orphan_s: float
    max_result_bytes: int


class Refuse(Struct, frozen=True, array_like=True, tag="refuse"):
    """No. The one message whose form never changes: a worker of any version has to read why it is not wanted."""

    reason: str
    again: bool = False  #: register (again); else the worker is not wanted, and says why to its user


class Job(Struct, frozen=True, array_like=True):
    """One attempt to run."""

    task: str
    attempt: int
    function: str  #: sha256 of its bytes, hex
    payload: Blob
    owner: str  #: slots are never shared between owners
    deadline_s: float | None = None
    fresh: bool = False  #: in a process that has run nothing before
    memory_limit_mb: int | None = None  #: MiB that all processes of the run may use together


class Run(Struct, frozen=True, array_like=True, tag="run"):
    """Attempts for the worker's slots; those beyond its free slots wait there."""

    number: int
    jobs: tuple[Job, ...]


class Function(Struct, frozen=True, array_like=True, tag="function"):
    function: str
    blob: Blob


class ResultAck(Struct, frozen=True, array_like=True, tag="ack"):
    """These results are committed, or were too late: drop them."""

    attempts: tuple[Attempt, ...]


class Kill(Struct, frozen=True, array_like=True, tag="kill"):
    """End these attempts now, with all that they started. The outcome is what their reports will say."""

    attempts: tuple[Attempt, ...]
    outcome: Outcome


class Drain(Struct, frozen=True, array_like=True, tag="drain"):
    """Give back what has not begun, finish what has, take nothing new. From a worker: I am doing so."""


FromWorker = Hello | Begun | Result | Returned | NeedFunction | Heartbeat | Drain | Bye | Pull | Log
FromDispatcher = Welcome | Refuse | Run | Function | ResultAck | Kill | Drain | Heartbeat
Message = FromWorker | FromDispatcher
