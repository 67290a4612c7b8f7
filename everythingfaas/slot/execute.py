"""Running one function: bytes in, outcome out, never raises."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import dill

from everythingfaas import failures
from everythingfaas.slot.frames import MAX_MESSAGE, MAX_TRACEBACK, ErrorParts, clip
from everythingfaas.slot.unpickle import load
from everythingfaas.status import Outcome

# dill writes these as pickle does, only thirty times slower.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_PROTOCOL = 4
_OUR_FOLDER = os.path.dirname(__file__) + os.sep


class Executed(NamedTuple):
    """How one call ended."""

    outcome: Outcome  #: RETURNED or RAISED
    result: bytes  #: pickle of what was returned or raised
    error: ErrorParts | None  #: always there when something was raised


class Executor:
    """Keeps functions by their digest and calls them.

    Which functions are kept is the supervisor's decision (`learn`, `forget`), so that it knows what a slot
    has got without asking.

    Args:
        max_result_bytes: a larger result fails its task.
        restore: called when a function has returned or raised, before anything else is done.
    """

    def __init__(self, *, max_result_bytes: int, restore: Callable[[], None] = lambda: None) -> None:
        self._max_result_bytes = max_result_bytes
        self._restore = restore
        self._pid = os.getpid()
        self._blobs: dict[bytes, bytes] = {}
        self._functions: dict[bytes, Callable[..., Any]] = {}

    def learn(self, digest: bytes, blob: bytes) -> None:
        """Keeps the bytes of a function. They are opened when it is first called."""
        self._blobs[digest] = blob

    def forget(self, digest: bytes) -> None:
        self._blobs.pop(digest, None)
        self._functions.pop(digest, None)

    def run(self, digest: bytes, payload: bytes) -> Executed:
        """Calls the function with the arguments in `payload`, the pickle of ``((args, ...), {kwargs})``.

        Whatever is raised on the way, SystemExit and KeyboardInterrupt included, is the outcome.
        """
        try:
            value = self._call(digest, payload)
        except BaseException as exc:  # noqa: BLE001 the outcome
            return self._raised(exc)
        try:
            return self._returned(value)
        except BaseException as exc:  # noqa: BLE001 values run code of their own while they are pickled
            return self._unfit(f"what the function returned ({_name(type(value))}) cannot be pickled", exc)

    def _call(self, digest: bytes, payload: bytes) -> Any:
        function = self._function(digest)
        args, kwargs = _arguments(payload)
        status = 1
        try:
            value = function(*args, **kwargs)
            if type(value) is types.CoroutineType:
                value = _await(value)
            status = 0
        finally:
            self._restore()
            if os.getpid() != self._pid:
                os._exit(status)  # a child that the function forked came back: it must not answer as well
        return value

    def _function(self, digest: bytes) -> Callable[..., Any]:
        function = self._functions.get(digest)
        if function is None:
            loaded = _open(self._blobs[digest], "function")
            if not callable(loaded):
                raise TypeError(
                    f"the function's payload holds {_name(type(loaded))}, which cannot be called;"
                    " register the dill of a function"
                )
            function = self._functions[digest] = loaded
            self._blobs[digest] = b""
        return function

    def _returned(self, value: Any) -> Executed:
        result = _dump(value)
        if len(result) > self._max_result_bytes:
            return self._unfit(
                f"the result is {len(result)} bytes; at most {self._max_result_bytes} are kept."
                " Write it to a file or a store and return where it is"
            )
        return Executed(Outcome.RETURNED, result, None)

    def _raised(self, exc: BaseException) -> Executed:
        error = _describe(exc)
        result = self._portable(exc)
        if result is None:
            result = failures.dump(failures.function_failure(*error))
        return Executed(Outcome.RAISED, result, error)

    def _portable(self, exc: BaseException) -> bytes | None:
        """Pickle of `exc`, if it fits, and loads again as the same type."""
        try:
            raw = _dump(exc)
            if len(raw) > self._max_result_bytes:
                return None
            kind = type(load(raw))
            # A class that travels by value is a new object whenever it is loaded.
            same = (kind.__module__, kind.__qualname__) == (type(exc).__module__, type(exc).__qualname__)
        except BaseException:  # noqa: BLE001 exceptions run code of their own while they are pickled
            return None
        return raw if same else None

    def _unfit(self, message: str, cause: BaseException | None = None) -> Executed:
        if cause is not None:
            described = _describe(cause)
            message = f"{message}: {described.type_name}: {described.message}"
        error = ErrorParts("ResultError", _clipped(message), "")
        return Executed(Outcome.RAISED, failures.dump(failures.function_failure(*error)), error)


def _await(coroutine: types.CoroutineType[Any, Any, Any]) -> Any:
    import asyncio  # here, because most functions need none of it

    return asyncio.run(coroutine)


def _arguments(payload: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    loaded = _open(payload, "task")
    match loaded:
        case (tuple() | list() as args, dict() as kwargs):
            return tuple(args), kwargs
    raise TypeError(
        f"the task's payload must hold ((args, ...), {{kwargs}}), a tuple and a dict; it holds {_name(type(loaded))}"
    )


def _open(raw: bytes, whose: str) -> Any:
    try:
        return load(raw)
    except ImportError:
        raise
    except Exception as exc:
        described = _describe(exc)
        raise pickle.UnpicklingError(
            f"the {whose}'s payload cannot be loaded: {described.type_name}: {described.message}"
        ) from exc


_import = dill._dill._import_module  # noqa: SLF001  # dill has no setting for it


def _import_loaded(name: str, safe: bool = False) -> Any:
    """Where dill would import a module only to see whether something is its own: only if it is loaded already.

    What came by value is of a module that is not here, or one of that name which is another one, and may do anything
    when it is imported. And what came from a module has that module loaded.
    """
    if safe and name not in sys.modules:
        module, _, attribute = name.rpartition(".")
        if not hasattr(sys.modules.get(module), attribute):
            return None
    return _import(name, safe)


dill._dill._import_module = _import_loaded  # noqa: SLF001


def _dump(value: Any) -> bytes:
    if type(value) in _PLAIN:
        return pickle.dumps(value, _PROTOCOL)
    raw: bytes
    try:
        raw = dill.dumps(value, recurse=True)
    except RecursionError:  # following the globals of a function did not end
        raw = dill.dumps(value)
    return raw


def _describe(exc: BaseException) -> ErrorParts:
    """`exc` as text; never raises, though its ``__str__`` may."""
    try:
        message = str(exc)
    except BaseException:  # noqa: BLE001 users' code
        message = "<its text cannot be had>"
    try:
        tb = exc.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OUR_FOLDER):
            tb = tb.tb_next
        text = "".join(traceback.format_exception(type(exc), exc, tb))
    except BaseException:  # noqa: BLE001 users' code
        text = ""
    text = clip(text, MAX_TRACEBACK, keep_end=True).decode()
    return ErrorParts(_name(type(exc)), _clipped(message), text)


def _name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def _clipped(message: str) -> str:
    return clip(message, MAX_MESSAGE).decode()
