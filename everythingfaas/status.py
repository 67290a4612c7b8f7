"""The states of a task and the legal moves between them.

``MOVES`` is the one table: the statements in ``api/moves.py`` are built from it, the scheduler and the
stores check against it, and ``docs/architecture.md`` prints it. Whatever writes a state goes through
`check_move`, which raises on a move that the table does not have.

A move is an event that happens to a task in a state. Everything that begins in RUNNING also carries the
attempt it speaks of, and changes nothing when the task has moved on to another one: the number of the
attempt is the fencing token.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from everythingfaas.errors import IllegalMove


class State(enum.IntEnum):
    """What the row of a task says. The numbers are stored and mirrored: never renumber."""

    WAITING = 1  #: accepted, not to be begun before its time
    QUEUED = 2  #: accepted, may be claimed
    RUNNING = 3  #: an attempt is given out to a dispatcher
    COMPLETED = 4
    FAILED = 5
    CANCELLED = 6

    @property
    def is_terminal(self) -> bool:
        return self >= State.COMPLETED


class Event(enum.Enum):
    """What can happen to a task."""

    CLAIM = "claim"
    BEGIN = "begin"
    COMPLETE = "complete"
    FAIL = "fail"
    REQUEUE = "requeue"
    POSTPONE = "postpone"
    PROMOTE = "promote"
    REJECT = "reject"
    WITHDRAW = "withdraw"
    CANCEL = "cancel"


class Move(NamedTuple):
    target: State
    writer: str  #: which process may write it
    meaning: str


MOVES: dict[tuple[State, Event], Move] = {
    (State.WAITING, Event.PROMOTE): Move(State.QUEUED, "dispatcher", "its time has come"),
    (State.WAITING, Event.REJECT): Move(State.FAILED, "dispatcher", "expired before it began"),
    (State.WAITING, Event.WITHDRAW): Move(State.CANCELLED, "web", "cancelled while it waited"),
    (State.QUEUED, Event.CLAIM): Move(State.RUNNING, "dispatcher", "an attempt is given out: attempt + 1"),
    (State.QUEUED, Event.REJECT): Move(State.FAILED, "dispatcher", "expired, or no worker can ever run it"),
    (State.QUEUED, Event.WITHDRAW): Move(State.CANCELLED, "web", "cancelled while it waited"),
    (State.RUNNING, Event.BEGIN): Move(State.RUNNING, "dispatcher", "a slot has begun the function: starts + 1"),
    (State.RUNNING, Event.COMPLETE): Move(State.COMPLETED, "dispatcher", "the function returned"),
    (State.RUNNING, Event.FAIL): Move(State.FAILED, "dispatcher", "it raised, or no attempt is left"),
    (State.RUNNING, Event.CANCEL): Move(State.CANCELLED, "dispatcher", "killed on request"),
    (State.RUNNING, Event.REQUEUE): Move(State.QUEUED, "dispatcher", "the attempt was lost or given back"),
    (State.RUNNING, Event.POSTPONE): Move(State.WAITING, "dispatcher", "to be retried later"),
}


def check_move(state: State, event: Event) -> State:
    """The state that follows when `event` happens to a task in `state`.

    Raises:
        IllegalMove: the table has no such move.
    """
    move = MOVES.get((state, event))
    if move is None:
        raise IllegalMove(f"a task in state {state.name} cannot {event.value}")
    return move.target


def sources(event: Event) -> tuple[State, ...]:
    """The states in which `event` is legal."""
    return tuple(state for state, other in MOVES if other is event)


def moves_table() -> str:
    """The table of moves as Markdown, for `docs/architecture.md`."""
    rows = ["| from | event | to | written by | when |", "|---|---|---|---|---|"]
    rows += [
        f"| {state.name} | {event.value} | {move.target.name} | {move.writer} | {move.meaning} |"
        for (state, event), move in MOVES.items()
    ]
    return "\n".join(rows) + "\n"


class Outcome(enum.IntEnum):
    """How one attempt ended. Stored with the attempt and sent on the wire: never renumber."""

    RETURNED = 1  #: the function returned a value
    RAISED = 2  #: the function, or loading it, raised
    DIED = 3  #: the slot's process ended by itself: exit, or a signal from anywhere but us
    DEADLINE = 4  #: killed: ran longer than it may
    CANCELLED = 5  #: killed on request
    MEMORY = 6  #: killed: used more memory than it may
    LOST = 7  #: the worker or the dispatcher that ran it is gone
    RETURNED_UNSTARTED = 8  #: given back without having begun
    EXPIRED = 9  #: its time ran out before it began
    UNMATCHED = 10  #: no connected worker can run it
    STOPPED = 11  #: killed because its worker was told to stop and could not wait any longer


#: The four words that the REST contract knows.
CONTRACT_STATES = ("QUEUED", "RUNNING", "COMPLETED", "FAILED")


def contract_state(state: State, *, begun: bool) -> str:
    """The word for `state` at the contract's endpoints.

    RUNNING there means that a slot has begun the function, once and for all: a task that is merely given
    out reads QUEUED, and one that is queued again after a lost attempt still reads RUNNING, so that a
    status never moves backwards. A cancelled task reads FAILED.
    """
    if state is State.COMPLETED:
        return "COMPLETED"
    if state.is_terminal:
        return "FAILED"
    return "RUNNING" if begun else "QUEUED"
