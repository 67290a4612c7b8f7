"""Everything of ours in Redis: keys, channels and the commands that touch them.

    faas:task:{id}   hash: attempt, rank, state, and result if it is small; lives for an hour
    faas:bell        channel: there is new work, or something that runs is to be cancelled. Dispatchers look at once,
                     instead of within a second.
    faas:done        channel: these tasks have ended, 16 bytes of id each. Who waits for one looks at once.
    faas:news        channel: something else that pages show has changed
    faas:access      channel: tokens, users or quotas have changed
    faas:log:{id}    stream: what a running task prints; capped, lives for an hour, and for a minute after its end
    faas:log         channel: these tasks have printed something, 16 bytes of id each

A mirror of a task is a copy of what its row said, for readers who would rather not ask the database. It is
believed only where it says that the task has ended, for that never changes; it is written after the commit
that it speaks of, and whether it is written at all matters to nobody but the clock.

Writers are many and slow in different ways, so one script decides what may replace what: attempt and rank never
go down, and nothing replaces an end.

The first half of this module builds commands and does nothing with them. `Mirror` sends them from the
event loop of a web process, `SyncMirror` from the thread of a dispatcher.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import hiredis
from msgspec import Struct

from api.redis_commands import TIMEOUT_S, Command, RedisUnavailable
from api.redis_link import RedisLink
from api.redis_sync import SyncLink

log = logging.getLogger("api.mirror")

BELL: Final = "faas:bell"
DONE: Final = "faas:done"
NEWS: Final = "faas:news"
LOG_CHANNEL: Final = "faas:log"
ACCESS: Final = "faas:access"
GREW: Final = "faas:grew"

#: What is published on the bell.
NEW_WORK: Final = b""
CANCEL: Final = b"cancel"

#: Results up to this many bytes are mirrored.
MAX_RESULT_BYTES = 64 * 1024
#: One run of the script, during which Redis does nothing else, is of at most so many tasks and bytes of results.
SCRIPT_TASKS = 500
SCRIPT_BYTES = 1024**2
#: How long a mirror lives, in seconds.
TTL_S = 3600

#: A stream of output has about so many entries; how long it lives, and after the end of its attempt.
LOG_ENTRIES = 128
LOG_END_TTL_S = 60

#: How far the words of the contract have come. Those of the same rank are both ends.
RANKS: Final = {"QUEUED": 0, "RUNNING": 1, "COMPLETED": 2, "FAILED": 2}

_ENDED: Final = 2

_WRITE: Final = """
for i, key in ipairs(KEYS) do
  local at = 4 * i - 2
  local attempt, rank = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local old = redis.call('HMGET', key, 'attempt', 'rank')
  local old_attempt, old_rank = tonumber(old[1] or -1), tonumber(old[2] or -1)
  local forward = attempt >= old_attempt and rank >= old_rank and (attempt > old_attempt or rank > old_rank)
  if forward and old_rank < 2 then
    redis.call('HSET', key, 'attempt', attempt, 'rank', rank, 'state', ARGV[at + 2])
    if ARGV[at + 3] ~= '' then
      redis.call('HSET', key, 'result', ARGV[at + 3])
    end
    redis.call('EXPIRE', key, ARGV[1])
  end
end
"""


#: The same for tasks that have just been accepted: there is nothing yet that they could replace.
_QUEUED: Final = f"""
for i, key in ipairs(KEYS) do
  if redis.call('HSETNX', key, 'attempt', 0) == 1 then
    redis.call('HSET', key, 'rank', {RANKS["QUEUED"]}, 'state', 'QUEUED')
    redis.call('EXPIRE', key, ARGV[1])
  end
end
"""


class Entry(Struct, frozen=True):
    """What a row said after a commit: its attempt, and the contract's word for its state."""

    task: UUID
    attempt: int
    state: str
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """What a mirror says of a task that has ended. Without a result, where that was too large to be kept here."""

    state: str
    result: bytes | None


def key(task: UUID) -> str:
    return f"faas:task:{task}"


def write(entries: Iterable[Entry]) -> list[Command]:
    """Mirrors `entries`, each unless what is there is as far or further."""
    commands: list[Command] = []
    keys: list[str] = []
    values: list[str | int | bytes] = [TTL_S]
    size = 0
    for entry in entries:
        result = entry.result if entry.result and len(entry.result) <= MAX_RESULT_BYTES else b""
        if len(keys) == SCRIPT_TASKS or size + len(result) > SCRIPT_BYTES:
            commands.append(("EVAL", _WRITE, len(keys), *keys, *values))
            keys, values, size = [], [TTL_S], 0
        keys.append(key(entry.task))
        values += (entry.attempt, RANKS[entry.state], entry.state, result)
        size += len(result)
    if keys:
        commands.append(("EVAL", _WRITE, len(keys), *keys, *values))
    return commands


def queued(tasks: Sequence[UUID]) -> list[Command]:
    """Mirrors `tasks` as accepted, each unless there is a mirror of it already."""
    return [
        ("EVAL", _QUEUED, len(part), *map(key, part), TTL_S)
        for part in (tasks[at : at + SCRIPT_TASKS] for at in range(0, len(tasks), SCRIPT_TASKS))
    ]


def read(task: UUID) -> Command:
    return ("HMGET", key(task), "rank", "state", "result")


def read_state(task: UUID) -> Command:
    return ("HMGET", key(task), "rank", "state")


def ending(reply: Sequence[bytes | None]) -> Ending | None:
    """What the reply to `read` or `read_state` says, if it can be believed: None unless the task has ended."""
    rank, state, *rest = reply
    if rank is None or state is None or int(rank) < _ENDED:
        return None
    return Ending(state.decode(), rest[0] if rest else None)


def ring(message: bytes = NEW_WORK) -> list[Command]:
    """Tells dispatchers that there is new work, or `CANCEL`: look which of yours are to be cancelled."""
    return [("PUBLISH", BELL, message)]


def announce(tasks: Iterable[UUID]) -> list[Command]:
    """Tells those who wait for `tasks` that they have ended."""
    ids = b"".join(task.bytes for task in tasks)
    return [("PUBLISH", DONE, ids)] if ids else []


def tell_grown(batch: UUID) -> Command:
    """Tells web processes that there are more tasks in `batch`."""
    return ("PUBLISH", GREW, batch.bytes)


def tell_news() -> Command:
    """Tells pages that something has changed."""
    return ("PUBLISH", NEWS, b"")


def tell_access() -> Command:
    """Tells web processes to look again who is let in."""
    return ("PUBLISH", ACCESS, b"")


def log_key(task: UUID) -> str:
    return f"faas:log:{task}"


def printed(task: UUID, attempt: int, data: bytes, dropped: int) -> list[Command]:
    """Appends to what `task` has printed; `dropped` bytes were left out behind `data`."""
    stream = log_key(task)
    values = ("attempt", attempt, "data", data, "dropped", dropped)
    return [("XADD", stream, "MAXLEN", "~", LOG_ENTRIES, "*", *values), ("EXPIRE", stream, TTL_S)]


def printed_last(task: UUID) -> Command:
    """`task` has ended: what it printed is stored with the attempt now."""
    return ("EXPIRE", log_key(task), LOG_END_TTL_S)


def announce_printed(tasks: Iterable[UUID]) -> Command:
    """Tells those who watch `tasks` that they have printed something."""
    return ("PUBLISH", LOG_CHANNEL, b"".join(task.bytes for task in tasks))


def announced(message: bytes) -> list[bytes]:
    """The ids in a message of `announce`, as 16 bytes each."""
    return [message[at : at + 16] for at in range(0, len(message), 16)]


class Mirror:
    """The web's side, on the event loop."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def submitted(self, tasks: Sequence[UUID]) -> None:
        """`tasks` are committed. The bell first: somebody may be idle."""
        self._link.send([*ring(), *queued(tasks)])

    def added(self, batches: Iterable[UUID]) -> None:
        """Tasks of `batches` are committed. They are not mirrored one by one before they end: their rows are there."""
        self._link.send([*ring(), *map(tell_grown, batches)])

    def cancelled(self, ended: Sequence[Entry], *, running: bool) -> None:
        """`ended` are committed, and of what runs something is to be killed: that first, for it costs somebody time."""
        ids = [entry.task for entry in ended]
        self._link.send([*(ring(CANCEL) if running else ()), *write(ended), *announce(ids)])

    async def ending(self, task: UUID, *, with_result: bool) -> Ending | None:
        """How `task` ended, if it has and a mirror says so."""
        try:
            return ending(await self._link.call(read(task) if with_result else read_state(task)))
        except (RedisUnavailable, hiredis.ReplyError) as exc:
            log.debug("no mirror of %s: %s", task, exc)
            return None


class SyncMirror:
    """The dispatcher's side. Never raises: what cannot be mirrored now will be read from the database."""

    #: After a failure nothing is tried for so many seconds, so that a server which hangs costs little.
    rest_s = 1.0

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._link = SyncLink(url, timeout_s=timeout_s)
        self._rests_until = 0.0

    def begun(self, tasks: Sequence[tuple[UUID, int]]) -> None:
        """Of each task: its attempt, which a slot has begun."""
        self._do([*write(Entry(task, attempt, "RUNNING") for task, attempt in tasks), tell_news()])

    def ended(self, tasks: Sequence[tuple[UUID, int, str, bytes | None]]) -> None:
        """Of each task: its last attempt, the contract's word for its state, and its result."""
        self._do([*write(Entry(*task) for task in tasks), *announce(task for task, *_ in tasks)])

    def close(self) -> None:
        self._link.close()

    def _do(self, commands: Sequence[Command]) -> None:
        if not commands or time.monotonic() < self._rests_until:
            return
        try:
            refused = [reply for reply in self._link.call(commands) if isinstance(reply, Exception)]
        except RedisUnavailable as exc:
            self._rests_until = time.monotonic() + self.rest_s
            log.warning("results are not mirrored: %s", exc)
        else:
            if refused:
                log.warning("Redis refused %d of %d commands: %s", len(refused), len(commands), refused[0])
