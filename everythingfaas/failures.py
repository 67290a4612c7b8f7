"""What a task that did not complete leaves as its result.

These classes are shipped *by value*, and hold no method: a client that has only dill, on any Python, loads
them (`dump` builds the pickle with a reducer of its own, which says "call type() with this name, these
bases and this dictionary"). A class with methods would carry code objects, and those of one minor version
of Python crash another one's interpreter.

    >>> import dill
    >>> dill.loads(dump(WorkerFailure("function exceeded deadline of 2 s")))
    WorkerFailure('function exceeded deadline of 2 s')
"""

from __future__ import annotations

import io
import pickle
from typing import Any


class WorkerFailure(Exception):
    """The system ended the task: deadline, lost worker, process died, memory limit, environment mismatch."""


class FunctionFailure(Exception):
    """The function raised something that cannot be carried as it is.

    Attributes:
        type_name: qualified name of the class of what was raised.
        message: its text.
        traceback: the traceback as text.
    """


class TaskCancelled(Exception):
    """The task was cancelled before it could end."""


_BY_VALUE = (WorkerFailure, FunctionFailure, TaskCancelled)

Failure = WorkerFailure | FunctionFailure | TaskCancelled

# Protocol 4 is the newest that every Python of ours, and every client's that we know of, reads.
_PROTOCOL = 4


class _ByValuePickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) and obj in _BY_VALUE:
            return type, (obj.__name__, (Exception,), {"__module__": obj.__module__, "__doc__": obj.__doc__})
        return NotImplemented


def dump(failure: Failure) -> bytes:
    """Pickle of `failure` that loads with nothing of ours installed."""
    buffer = io.BytesIO()
    _ByValuePickler(buffer, protocol=_PROTOCOL).dump(failure)
    return buffer.getvalue()


def function_failure(type_name: str, message: str, traceback: str) -> FunctionFailure:
    """A `FunctionFailure` with its attributes set (they travel in the instance's dictionary)."""
    failure = FunctionFailure(f"{type_name}: {message}" if message else type_name)
    failure.__dict__.update(type_name=type_name, message=message, traceback=traceback)
    return failure
