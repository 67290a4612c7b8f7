"""Functions and arguments as bytes.

Functions travel by value: with the code that they are made of, and the globals that they use. dill writes what belongs
to an importable module as a reference instead, which would only work where that module is installed; so modules of the
user's own (whatever is no part of Python and stands in no site-packages) are treated as dill treats `__main__`.

Arguments are mostly plain data, which the pickler of Python writes thirty times as fast as dill does. It is asked
first, and gives up when it meets anything that may have to travel by value.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import io
import os
import pickle
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import dill
import msgspec

from everythingfaas.pickles import read_function

#: The newest protocol that each of our Pythons reads.
PROTOCOL = 4
_ENCODE_POLICY = msgspec.json.Encoder(order="sorted").encode


class Prepared(NamedTuple):
    """A function, ready to be registered."""

    digest: str  #: of its bytes, its Python and its policy
    raw: bytes
    name: str
    python: str | None  #: which alone may run it; None: it holds no code
    policy: dict[str, Any] | None


def prepare(function: Callable[..., Any], policy: dict[str, Any] | None = None, name: str | None = None) -> Prepared:
    """`function` as bytes.

    Raises:
        TypeError: it cannot be called, or cannot be pickled.
    """
    if not callable(function):
        raise TypeError(f"{function!r} cannot be called: give a function, or the name of a registered one")
    raw = dump(function)
    _, codes = read_function(raw, max_opcodes=5_000_000)
    python = "{}.{}".format(*sys.version_info[:2]) if codes else None
    said = _ENCODE_POLICY(policy) if policy else b""
    digest = hashlib.sha256(b"\0".join([raw, (python or "").encode(), said])).hexdigest()
    return Prepared(digest, raw, name or name_of(function), python, policy or None)


def name_of(function: Callable[..., Any]) -> str:
    """What people call it."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)[:255]


def dump_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The payload of a task with these arguments. Raises whatever pickling them raises."""
    buffer = io.BytesIO()
    try:
        _Plain(buffer, PROTOCOL).dump((args, kwargs))
    except (_NotPlain, pickle.PicklingError, TypeError, AttributeError):
        return dump((args, kwargs))
    return buffer.getvalue()


def dump(value: Any) -> bytes:
    """By value, with dill."""
    with _own_modules_by_value():
        try:
            raw: bytes = dill.dumps(value, PROTOCOL, recurse=True)
        except RecursionError:  # following the globals of a function does not end
            raw = dill.dumps(value, PROTOCOL)
    return raw


class _NotPlain(Exception):
    """Dill has to do it."""


class _Plain(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        """Asked for all but plain data: whatever is not, or may not be, where the function runs is dill's."""
        owner = obj if isinstance(obj, type | types.FunctionType) else type(obj)
        if travels_by_value(owner.__module__):
            raise _NotPlain
        return NotImplemented


# Whose modules are whose.


def travels_by_value(module: str | None) -> bool:
    """Whether what is defined in `module` is the user's own, so that it may not be where the function runs."""
    return module is None or module == "__main__" or _is_own(module)


@functools.lru_cache(maxsize=10_000)
def _is_own(module: str) -> bool:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("builtins", "everythingfaas"):
        return False
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    return file is not None and not os.path.abspath(file).startswith(_installed())


@functools.cache
def _installed() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(name) for name in names} | {path for path in sys.path if path.endswith("-packages")}
    return tuple(os.path.abspath(folder) + os.sep for folder in folders if folder)


_lock = threading.RLock()


@contextmanager
def _own_modules_by_value() -> Iterator[None]:
    """Lets dill find nothing in the user's own modules, so that it writes what they define, and not where it is.

    Its pickler has no setting for that. Where a later version works in another way, references are written, as ever.
    """
    inner = dill._dill  # noqa: SLF001  # see above
    with _lock:
        found = inner._locate_function  # noqa: SLF001

        def locate(obj: Any, pickler: Any = None) -> Any:
            return not travels_by_value(getattr(obj, "__module__", None)) and found(obj, pickler)

        inner._locate_function = locate  # noqa: SLF001
        try:
            yield
        finally:
            inner._locate_function = found  # noqa: SLF001


# Which functions have been prepared already.


class Memory:
    """Keeps prepared functions, as long as they are what they were.

    A function is more than an object: it uses globals, and variables of the functions around it. If all of these are
    constants, functions, classes or modules, and still the same ones, it is not pickled again.
    """

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Callable[..., Any], tuple[object, Prepared]] = WeakKeyDictionary()

    def prepared(self, function: Callable[..., Any], policy: dict[str, Any] | None) -> Prepared:
        """As `prepare`."""
        mark = _fingerprint(function, set()) if isinstance(function, types.FunctionType) else None
        if mark is None:
            return prepare(function, policy)
        said = (mark, _ENCODE_POLICY(policy) if policy else b"")
        kept = self._kept.get(function)
        if kept is not None and kept[0] == said:
            return kept[1]
        made = prepare(function, policy)
        self._kept[function] = said, made
        return made


_CONSTANT = (type(None), bool, int, float, complex, str, bytes, types.ModuleType, types.BuiltinFunctionType, type)


def _fingerprint(function: types.FunctionType, seen: set[int]) -> tuple[Any, ...] | None:
    """Equal for the same function with the same surroundings; None where these may change unseen."""
    if id(function) in seen:
        return ()
    seen.add(id(function))
    parts: list[Any] = [id(function.__code__)]
    used: list[Any] = [function.__defaults__, function.__kwdefaults__, function.__dict__ or None]
    try:
        used += [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # not bound yet
        return None
    space = function.__globals__
    used += [space[name] for name in _names(function.__code__) if name in space]
    for value in used:
        part = _fingerprint(value, seen) if isinstance(value, types.FunctionType) else _constant(value)
        if part is None:
            return None
        parts.append(part)
    return tuple(parts)


def _constant(value: Any) -> tuple[Any, ...] | None:
    if isinstance(value, tuple):
        parts = [_constant(one) for one in value]
        return None if None in parts else ("tuple", *parts)
    if not isinstance(value, _CONSTANT) or (isinstance(value, type) and travels_by_value(value.__module__)):
        return None
    return type(value), value if isinstance(value, int | float | str | bytes) else id(value)


@functools.lru_cache(maxsize=1_000)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """The globals that may be used, those of functions inside included."""
    names = [name for name in code.co_names if not hasattr(builtins, name)]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _names(constant)
    return tuple(dict.fromkeys(names))
