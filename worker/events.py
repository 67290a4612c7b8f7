"""What a pool of slots is told, and what it tells.

Structs of msgspec, as the messages are: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from msgspec import Struct

from everythingfaas.status import Outcome


class SlotJob(Struct, frozen=True):
    """One attempt to run in a slot."""

    task: str
    attempt: int
    function: str  #: sha256 of `blob`, hex: a slot keeps a function that it has loaded
    blob: bytes  #: the function's bytes
    payload: bytes  #: the arguments' bytes
    owner: str  #: a process is shared only among tasks of one owner
    fresh: bool = False  #: needs a process that has run nothing before
    memory_limit_mb: int | None = None  #: MiB that all of its processes may use together


class ErrorText(Struct, frozen=True):
    """What was raised, as text."""

    type_name: str
    message: str
    traceback: str


class Output(Struct, frozen=True):
    """The first and the last bytes that a run printed, and how many between are left out."""

    head: bytes = b""
    tail: bytes = b""
    dropped: int = 0


class SlotReady(Struct, frozen=True):
    """The slot's process is there and free."""

    slot: int


class SlotBegun(Struct, frozen=True):
    """The job has been handed to a live process: from here on the function may have effects."""

    slot: int
    task: str
    attempt: int


class SlotReturned(Struct, frozen=True):
    """The job was sent to the slot ahead of time, has not begun, and does not begin there any more."""

    slot: int
    task: str
    attempt: int


class SlotDone(Struct, frozen=True):
    """The run is over, whatever way. `SlotReady` follows when the slot is free again."""

    slot: int
    task: str
    attempt: int
    outcome: Outcome
    result: bytes = b""  #: pickle of what the function returned or raised; empty where the system ended it
    error: ErrorText | None = None
    elapsed_s: float = 0.0  #: from `SlotBegun`
    output: Output = Output()
    exit_code: int | None = None
    exit_signal: int | None = None


class OutputChunk(Struct, frozen=True):
    """Bytes that a run has just printed."""

    slot: int
    task: str
    attempt: int
    data: bytes


PoolEvent = SlotReady | SlotBegun | SlotReturned | SlotDone | OutputChunk
