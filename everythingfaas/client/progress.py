"""A bar that shows how far something has come, in a terminal or a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def shown(values: Iterator[T], total: int | None) -> Iterator[T]:
    """The same values, with a bar on standard error that grows as they are taken; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not _can_show(console)) as progress:
        task = progress.add_task("tasks", total=total)
        for value in values:
            yield value
            progress.advance(task)


def _can_show(console: object) -> bool:
    return bool(getattr(console, "is_terminal", False) or getattr(console, "is_jupyter", False))
