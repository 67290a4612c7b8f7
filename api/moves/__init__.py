"""Every statement that changes the state of a task.

Each is a compare-and-set on a whole batch: it names the states that the table of legal moves
(`everythingfaas.status.MOVES`) allows for its event and, from RUNNING, the attempt it speaks of; it tells
which rows it has changed, and what it has not changed was late or a duplicate. All take a Django cursor inside
a transaction that the caller has opened and commits:

    with transaction.atomic(), connection.cursor() as cursor:
        closed = moves.end(cursor, ended)

Batches may be of any size and may hold the same task twice. On PostgreSQL a transaction may be told to
start again (deadlock, lost connection): all statements may be repeated as they are.

    intake      what web processes write: submit, register, cancel, and what they read
    running     what dispatchers write: claim, begin, end, release, promote, reject
    matching    queues, and what no worker can run
    leases      the dispatchers' own rows
"""

from __future__ import annotations

from api.moves.intake import blobs, cancel, functions, queue_for, read, register, request_cancel, submit, withdraw
from api.moves.leases import (
    adopt,
    cancel_requests,
    current,
    fence_dispatcher,
    forget_dispatcher,
    held,
    lapsed_dispatchers,
    register_dispatcher,
    renew_lease,
    restored,
    slots_of,
    take_over,
)
from api.moves.matching import heads, queues, queues_with_tasks, reject_unmatched, snapshots
from api.moves.records import (
    Accepted,
    Begun,
    Claimed,
    Closed,
    Ended,
    FunctionView,
    Held,
    Released,
    Reopened,
    Report,
    Submission,
    TaskView,
)
from api.moves.running import (
    begin,
    claim,
    end,
    has_expired,
    has_work,
    next_due,
    promote,
    reject,
    reject_expired,
    release,
)

__all__ = [
    "Accepted",
    "Begun",
    "Claimed",
    "Closed",
    "Ended",
    "FunctionView",
    "Held",
    "Released",
    "Reopened",
    "Report",
    "Submission",
    "TaskView",
    "adopt",
    "begin",
    "blobs",
    "cancel",
    "cancel_requests",
    "claim",
    "current",
    "end",
    "fence_dispatcher",
    "forget_dispatcher",
    "functions",
    "has_expired",
    "has_work",
    "heads",
    "held",
    "lapsed_dispatchers",
    "next_due",
    "promote",
    "queue_for",
    "queues",
    "queues_with_tasks",
    "read",
    "register",
    "register_dispatcher",
    "reject",
    "reject_expired",
    "reject_unmatched",
    "release",
    "renew_lease",
    "request_cancel",
    "restored",
    "slots_of",
    "snapshots",
    "submit",
    "take_over",
    "withdraw",
]
