"""Functions that were registered as text. It is compiled here, in the slot that runs it, and nowhere else."""

from __future__ import annotations

import linecache
import pickle  # writes; nothing is loaded
from collections.abc import Callable
from typing import Any

_PROTOCOL = 4


def from_source(name: str, source: str, entrypoint: str) -> Callable[..., Any]:
    """What `source` calls `entrypoint`, after running it as a module of its own.

    Raises:
        SyntaxError: it is no Python of this version.
        NameError: it defines nothing of that name.
        TypeError: what it calls so cannot be called.
        BaseException: whatever it raises.
    """
    filename = f"<{name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
    namespace: dict[str, Any] = {"__name__": "__faas__", "__file__": filename}
    exec(compile(source, filename, "exec", dont_inherit=True), namespace)  # noqa: S102  # that is what it is for
    if entrypoint not in namespace:
        raise NameError(f"the source of {name!r} defines no {entrypoint!r}, which it was registered to be called by")
    function = namespace[entrypoint]
    if not callable(function):
        raise TypeError(f"{entrypoint!r} in the source of {name!r} cannot be called")
    return function  # type: ignore[no-any-return]  # checked a line before


class _Source:
    def __init__(self, *said: str) -> None:
        self.said = said

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return from_source, self.said


def dump(name: str, source: str, entrypoint: str) -> bytes:
    """The pickle that makes `from_source` be called with these, wherever it is loaded."""
    return pickle.dumps(_Source(name, source, entrypoint), _PROTOCOL)
