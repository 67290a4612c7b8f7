"""Opening what clients send, where the modules that it refers to may be missing.

dill writes a function of an importable module as a reference to it, and a lambda or nested function of such a
module by value, but with a reference to the ``__dict__`` of the module for its globals. Many of those use no
global but builtins; they run here all the same, and the others say what is missing when they get there.
"""

from __future__ import annotations

import builtins
import io
from typing import Any, NoReturn

import dill

_ADVICE = (
    "Put the module into the folder that the worker was started in (or mount it there), install it where the"
    " worker runs, or send the function by value: dill.dumps(function, recurse=True)."
)


class _MissingGlobals(dict[str, Any]):
    """Stands in for the globals of a module that is not here.

    The interpreter looks globals up through ``__missing__`` where they are a subclass of dict, and goes on to
    the builtins after a KeyError only.
    """

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(__name__=module, __builtins__=builtins)  # not empty: dill replaces what is false
        self._module = module
        self._reason = reason

    def __missing__(self, name: str) -> NoReturn:
        if hasattr(builtins, name) or (name.startswith("__") and name.endswith("__")):
            raise KeyError(name)
        raise ModuleNotFoundError(
            f"the function uses {name!r} of module {self._module!r}, which cannot be imported here"
            f" ({self._reason}). {_ADVICE}",
            name=self._module,
        )


class _Unpickler(dill.Unpickler):  # type: ignore[misc]
    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except ImportError as exc:
            if name != "__dict__":
                raise
            return _MissingGlobals(module, str(exc))


def load(raw: bytes) -> Any:
    """The object in `raw`. Runs whatever its sender put there: only a slot does this.

    Raises:
        ModuleNotFoundError: something in it is of a module that is not here; says what to do.
        BaseException: whatever else loading it raises.
    """
    try:
        return _Unpickler(io.BytesIO(raw)).load()
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(f"{exc.msg}. {_ADVICE}", name=exc.name) from None
