"""What has to hold after real processes were killed under load, checked past the product."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import dill

from everythingfaas.status import MOVES, Outcome, State
from tests.chaos.books import AttemptRow, Books, Change, TaskRow
from tests.chaos.clients import Clients, Sent

_LEGAL = {(state, move.target) for (state, _), move in MOVES.items()}
_SHOWN = 20


@dataclass
class Report:
    """Figures, and what was wrong."""

    accepted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    lost: int = 0  #: starts that never came to their end
    repeated: int = 0  #: requests that clients sent again
    looks: int = 0
    healed_s: float = 0.0
    least_busy: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        return (
            f"{self.faults.total()} faults, {self.accepted} tasks, {self.lost} attempts lost in mid-run,"
            f" {len(self.wrong)} violations"
        )

    def __str__(self) -> str:
        lines = [f"  {count:5} {name}" for name, count in sorted(self.faults.items())]
        lines += [
            f"  {self.faults.total()} faults, each while at least {self.least_busy:.0%} of the slots were busy",
            f"  {self.accepted} tasks accepted ({self.repeated} requests repeated), {self.starts} starts,"
            f" {self.lost} of them lost in mid-run",
            f"  ended: {', '.join(f'{count} {name}' for name, count in sorted(self.states.items()))};"
            f" all {self.healed_s:.1f} s after the last fault",
            f"  {self.looks} looks of clients at a status",
            f"  violations: {len(self.wrong)}",
        ]
        lines += [f"    {text}" for text in self.wrong[:_SHOWN]]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Start:
    token: str
    supervisor: int


def judge(books: Books, clients: Clients, folder: Path) -> Report:
    """Compares what clients were told, what the database says, and what the functions wrote down."""
    starts, ended = _read_log(folder / "log")
    seen = clients.seen
    tasks = books.tasks()
    report = Report(
        accepted=len(seen.accepted),
        states=Counter(State(row.state).name for row in tasks.values()),
        starts=sum(map(len, starts.values())),
        repeated=seen.repeated,
        looks=seen.statuses.total(),
        wrong=list(seen.wrong),
    )
    report.lost = report.starts - ended
    report.wrong += _accepted_twice(seen.accepted)
    report.wrong += _wrong_changes(books.changes())
    attempts = {(row.task, row.attempt): row for row in books.attempts()}
    results = books.results()
    for sent in seen.accepted:
        row = tasks.get(sent.task)
        if row is None:
            report.wrong.append(f"lost: {sent.task} was accepted and is not there")
            continue
        report.wrong += _wrong_task(
            sent, row, starts.get(sent.number, []), attempts.get((row.task, row.attempt)), results.get(row.task)
        )
    # The mirrors have healed, too: clients read the end that the rows have.
    for sent in seen.accepted[:: max(1, len(seen.accepted) // 300)]:
        report.wrong += _wrong_answer(clients, sent, results.get(sent.task))
    return report


def _read_log(path: Path) -> tuple[dict[int, list[_Start]], int]:
    starts: dict[int, list[_Start]] = defaultdict(list)
    ended = 0
    for line in path.read_text().splitlines():
        what, number, token = line.split()
        if what == "end":
            ended += 1
            continue
        starts[int(number)].append(_Start(token, int(token.partition(".")[0])))
    return starts, ended


def _accepted_twice(accepted: list[Sent]) -> Iterator[str]:
    for task, count in Counter(sent.task for sent in accepted).items():
        if count > 1:
            yield f"{count} requests with different keys were answered with the same task {task}"


def _wrong_changes(changes: list[Change]) -> Iterator[str]:
    ends: Counter[UUID] = Counter()
    stored: Counter[UUID] = Counter()
    last: dict[UUID, int] = defaultdict(int)
    for change in changes:
        if change.what == "stored":
            stored[change.task] += 1
        elif change.what != "moved":
            yield f"{change.what}: {change.task}"
        else:
            former, state, attempt = State(change.former or 0), State(change.state or 0), change.attempt or 0
            if former.is_terminal:
                yield f"a change after the end: {change.task} from {former.name} to {state.name}"
            if (former, state) not in _LEGAL:
                yield f"an illegal change: {change.task} from {former.name} to {state.name}"
            if attempt < last[change.task] or (state is State.RUNNING and attempt <= last[change.task]):
                yield f"attempt {attempt} of {change.task} after attempt {last[change.task]}"
            last[change.task] = attempt
            ends[change.task] += state.is_terminal
    for task, count in ends.items():
        if count > 1:
            yield f"{count} ends of {task}"
        if stored[task] != 1:
            yield f"{stored[task]} results of {task} were stored"


def _wrong_task(
    sent: Sent, row: TaskRow, starts: list[_Start], attempt: AttemptRow | None, result: bytes | None
) -> Iterator[str]:
    state = State(row.state)
    name = f"{row.task} (number {sent.number}, {state.name}, attempt {row.attempt})"
    limit = 1 if sent.at_most_once else row.max_attempts
    if len(starts) > limit:
        yield f"{name} was begun {len(starts)} times, and may be {limit} times"
    if bool(row.at_most_once) is not sent.at_most_once:
        yield f"{name} has another policy than was sent"
    if not state.is_terminal:
        yield f"stuck: {name}"
        return
    if result is None or attempt is None:
        yield f"{name} has no result, or no last attempt"
        return
    value = dill.loads(result)
    if state is State.FAILED:
        if type(value).__name__ != "WorkerFailure" or attempt.outcome == Outcome.RETURNED:
            yield f"{name}: {value!r}"
        elif not sent.at_most_once and row.starts < row.max_attempts and row.deaths < 3:
            yield f"{name} was given up after {row.starts} starts and {row.deaths} deaths: {value!r}"
        return
    yield from _stale(name, sent, value, starts, attempt)


def _stale(name: str, sent: Sent, value: object, starts: list[_Start], attempt: AttemptRow) -> Iterator[str]:
    """A result has to be that of the last attempt: of the last start in the worker that ran this one. (No times are
    compared: what a worker has sent to a dispatcher that is stopped is dated when that goes on.)"""
    number, token = value if isinstance(value, list) else (None, None)
    if number != sent.number or token not in [start.token for start in starts]:
        yield f"{name} has the result of another task: {value!r}"
    elif attempt.outcome != Outcome.RETURNED:
        yield f"{name} has a result, and its last attempt ended {Outcome(attempt.outcome).name}"
    else:
        there = [start for start in starts if str(start.supervisor) == (attempt.worker or "").rpartition(":")[2]]
        if not there or there[-1].token != token:
            yield f"{name} has a stale result: {token} of {starts}, and its last attempt is {attempt}"


def _wrong_answer(clients: Clients, sent: Sent, result: bytes | None) -> Iterator[str]:
    status, text = clients.finally_seen(sent)
    if base64.b64decode(text) != result:
        yield f"clients read another result of {sent.task} ({status}) than is stored"
    if sent.result and sent.result != text:
        yield f"the result of {sent.task} that a client has read has changed since"
