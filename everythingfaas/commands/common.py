"""What the commands have in common.

Results go to standard output, everything else to standard error, so that a pipe gets the former alone. With `--json`
the output is one JSON document, or one for each line where there may be many. The exit status says how it went:

    0    done
    1    the task has failed or was cancelled; or something else went wrong
    2    used in a wrong way
    3    no service answers
    4    not let in: the token is missing, wrong, or not enough
    5    there is no such thing
    124  not ended in time
    130  interrupted
"""

from __future__ import annotations

import enum
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec
import typer

from everythingfaas.errors import FaasError, Refused, Unreachable

if TYPE_CHECKING:
    from rich.console import Console

    from everythingfaas.client import Client


class Status(enum.IntEnum):
    """Exit statuses."""

    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_LET_IN = 4
    NOT_FOUND = 5
    NOT_IN_TIME = 124
    INTERRUPTED = 130


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.", show_default=False)]

#: Who sits before a terminal wants to know soon that nobody answers.
PATIENCE_S = 2.0
#: Set by `faas --url`.
url: str | None = None


def client() -> Client:
    """The service that the user means."""
    from everythingfaas.client import Client  # here, because it takes longer than most commands without it

    return Client(url, patience_s=PATIENCE_S)


def status_of(error: BaseException) -> Status:
    """With which status a command ends that has ended so."""
    if isinstance(error, Unreachable):
        return Status.UNREACHABLE
    if isinstance(error, Refused) and error.status in (401, 403):
        return Status.NOT_LET_IN
    if isinstance(error, Refused) and error.status == 404:
        return Status.NOT_FOUND
    if isinstance(error, TimeoutError):
        return Status.NOT_IN_TIME
    return Status.FAILED


def message_of(error: FaasError) -> str:
    """What is said about it."""
    if isinstance(error, Refused) and error.status == 401:
        return "the service asks for a token: set FAAS_TOKEN, or say `faas config token faas_…`"
    return str(error)


def complain(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"faas: {' '.join(text.split())}\n")


def wrong(text: str) -> typer.BadParameter:
    """The user's mistake."""
    return typer.BadParameter(text)


def print_json(value: Any) -> None:
    sys.stdout.write(as_json(value) + "\n")
    sys.stdout.flush()


def as_json(value: Any) -> str:
    """`value` as JSON, or as JSON text of what Python shows of it."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.json.encode(repr(value)).decode()


def shown(value: Any) -> str:
    """A result for people: text as it is, plain data as JSON, anything else as Python shows it."""
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return repr(value)


def console() -> Console:
    """Where tables go. A pipe has no width."""
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=300, no_color=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Any:
    """Columns without lines between them, for people and for `awk`."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, no_wrap=name in ("id", "state"), overflow="ellipsis" if name == "error" else "fold")
    for row in rows:
        made.add_row(*("" if value is None else str(value) for value in row))
    return made


def ago(moment: datetime | None) -> str:
    """How long ago, for people."""
    return "" if moment is None else seconds((datetime.now(timezone.utc) - moment).total_seconds())


def seconds(number: float | None) -> str:
    """A duration, for people."""
    if number is None:
        return ""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{max(number, 0.0):.2f} s"


def identifier(text: str, what: str = "task") -> UUID:
    """Raises BadParameter: that is none."""
    try:
        return UUID(text)
    except ValueError:
        raise wrong(f"{text!r} is no id of a {what}; `faas ps` shows them") from None


class Waiting:
    """Says that it still waits, once something has lasted for two seconds, if somebody sees it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._status: Any = None

    def __enter__(self) -> Waiting:
        return self

    def look(self) -> None:
        """To be called now and then."""
        if self._status is None and sys.stderr.isatty() and time.monotonic() - self._began > 2:
            from rich.console import Console

            self._status = Console(stderr=True).status(self._what)
            self._status.start()

    def __exit__(self, *exc: object) -> None:
        if self._status is not None:
            self._status.stop()
