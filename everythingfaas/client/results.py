"""What came back, as values and exceptions.

A result is whatever its function wanted it to be, and loading it runs code of its making: so these are results of
one's own tasks, and nobody else's.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

import dill

from everythingfaas import failures
from everythingfaas.client.answers import Error
from everythingfaas.errors import UnreadableResult

_FAILURES: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (failures.WorkerFailure, failures.FunctionFailure, failures.TaskCancelled)
}


class RemoteTraceback(Exception):
    """The traceback where the function ran. Stands under what was raised, as its cause."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


def load(raw: bytes, task: object) -> Any:
    """The object in `raw`.

    Raises:
        UnreadableResult: it cannot be loaded here. Says what is missing.
    """
    try:
        value = pickle.loads(raw)  # of a task of one's own
    except Exception as first:  # noqa: BLE001  # loading runs code of whatever made it
        try:
            value = dill.Unpickler(io.BytesIO(raw)).load()
        except Exception:  # noqa: BLE001
            raise UnreadableResult(_why(first, task), raw) from first
    return _at_home(value)


def value_of(raw: bytes, task: object) -> Any:
    """What the function returned."""
    return load(raw, task)


def exception_of(raw: bytes, error: Error | None, task: object) -> BaseException:
    """What it raised, with the traceback from where it ran under it; or, if that cannot be loaded, why not."""
    raised: Any
    try:
        raised = load(raw, task)
    except UnreadableResult as exc:
        raised = exc
    if not isinstance(raised, BaseException):
        raised = UnreadableResult(f"the result of task {task} is no exception, although the task has failed", raw)
    text = error.traceback if error is not None else getattr(raised, "traceback", "")
    if isinstance(text, str) and text:
        raised.__cause__ = RemoteTraceback(text)
    exception: BaseException = raised
    return exception


def _at_home(value: Any) -> Any:
    """Instances of classes that came by value become those of the class that is here under that name."""
    kind = type(value)
    if kind.__module__ == failures.__name__ and kind.__name__ in _FAILURES:
        ours = _FAILURES[kind.__name__](*value.args)
        ours.__dict__.update(value.__dict__)
        return ours
    here = getattr(sys.modules.get(kind.__module__), kind.__name__, None)
    if isinstance(here, type) and here is not kind:
        try:
            value.__class__ = here
        except TypeError:  # laid out in another way: then it stays what it is
            return value
    return value


def _why(exc: Exception, task: object) -> str:
    here = f"here (Python {sys.version_info[0]}.{sys.version_info[1]}, {sys.executable})"
    ended = f"task {task} has ended, but its result cannot be loaded {here}"
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        return f"{ended}: it needs the module {exc.name!r}, which is not installed; install it, or return plain data"
    if isinstance(exc, ImportError | AttributeError):
        return f"{ended}: {exc}. The worker probably has another version of that package; install the same one"
    return f"{ended}: {type(exc).__name__}: {exc}"
