"""EverythingFaaS: send a Python function to a machine of yours, run it there, fetch its result.

This package is what clients, workers and server share:

    from everythingfaas import Executor

    with Executor("http://lab:8000") as executor:
        print(list(executor.map(lambda x: x * x, range(100))))

It imports nothing of the server, no Django, no ZeroMQ and no Redis, so that it may stand in anybody's environment.
Names are loaded when first used, because a slot (the process that runs a user's function) should hold as little of ours
as can be.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for who reads types: at run time they come by `__getattr__`
    from everythingfaas.client import AsyncClient, Client, Executor, remote
    from everythingfaas.errors import FaasError
    from everythingfaas.failures import FunctionFailure, TaskCancelled, WorkerFailure
    from everythingfaas.status import State

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "everythingfaas.client",
    "Client": "everythingfaas.client",
    "Executor": "everythingfaas.client",
    "remote": "everythingfaas.client",
    "serialize": "everythingfaas.serialize",
    "deserialize": "everythingfaas.serialize",
    "FaasError": "everythingfaas.errors",
    "FunctionFailure": "everythingfaas.failures",
    "TaskCancelled": "everythingfaas.failures",
    "WorkerFailure": "everythingfaas.failures",
    "State": "everythingfaas.status",
}

__all__ = [
    "AsyncClient",
    "Client",
    "Executor",
    "FaasError",
    "FunctionFailure",
    "State",
    "TaskCancelled",
    "WorkerFailure",
    "__version__",
    "deserialize",
    "remote",
    "serialize",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return list(__all__)
