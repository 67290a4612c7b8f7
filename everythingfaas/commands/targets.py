"""What users name on the command line: functions in files, arguments, policies."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from everythingfaas.commands.common import wrong


def function_of(target: str) -> Callable[..., Any] | str:
    """The function that `FILE.py:NAME` names; else the name or id of one that is registered.

    Raises:
        BadParameter: there is no such file, it cannot be loaded, or has no such function.
    """
    path, colon, name = target.rpartition(":")
    if not colon:
        if target.endswith(".py"):
            raise wrong(f"say which function of {target}: {target}:FUNCTION")
        return target
    file = Path(path)
    if not file.is_file():
        raise wrong(f"there is no file {path}")
    found: Any = _module(file)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise wrong(f"{path} has no function {name!r}")
    function: Callable[..., Any] = found
    return function


def _module(file: Path) -> Any:
    """The file as a module of its own name, so that `if __name__ == "__main__"` in it does nothing."""
    name = file.stem
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise wrong(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as exc:
        raise wrong(f"{file}, line {exc.lineno}: {exc.msg}") from None
    except Exception as exc:  # noqa: BLE001  # it is the user's, and may raise anything
        raise wrong(f"{file} cannot be loaded: {type(exc).__name__}: {exc}{_line(exc, file)}") from None
    return module


def _line(exc: Exception, file: Path) -> str:
    """Where in the file that was."""
    where, traceback = "", exc.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(file.resolve()):
            where = f" (line {traceback.tb_lineno})"
        traceback = traceback.tb_next
    return where


def arguments_of(texts: Sequence[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`1 '"1"' text name=2`: JSON where it is that, else text; `name=` goes before one by name."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if equals and name.isidentifier():
            kwargs[name] = value_of(value)
        elif kwargs:
            raise wrong(f"{text!r} stands behind one by name; those without a name come first")
        else:
            args.append(value_of(text))
    return tuple(args), kwargs


def value_of(text: str) -> Any:
    """JSON, or else the text itself."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def policy_of(texts: Sequence[str]) -> dict[str, Any]:
    """`--policy deadline_s=60`. What keys there are, the service knows."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise wrong(f"a policy is KEY=VALUE, as deadline_s=60; not {text!r}")
        found[name] = value_of(value)
    return found
