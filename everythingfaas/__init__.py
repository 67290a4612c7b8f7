"""EverythingFaaS: send a Python function to a machine of yours, run it there, fetch its result.

This package is what clients, workers and server share. It imports nothing of the server, no Django,
no ZeroMQ and no Redis, so that it may stand in anybody's environment; names are loaded when first used,
because a slot (the process that runs a user's function) should hold as little of ours as can be.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "serialize": "everythingfaas.serialize",
    "deserialize": "everythingfaas.serialize",
    "FaasError": "everythingfaas.errors",
    "FunctionFailure": "everythingfaas.failures",
    "TaskCancelled": "everythingfaas.failures",
    "WorkerFailure": "everythingfaas.failures",
    "State": "everythingfaas.status",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return list(__all__)
