"""The functions that are sent to be run, and the bodies of the requests that send them.

Each is made inside another function, so that dill sends it by value: no worker can import this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from everythingfaas.serialize import serialize


def no_op() -> Callable[[], None]:
    def no_op() -> None:
        return None

    return no_op


def sleeper() -> Callable[[float], float]:
    def sleeper(seconds: float) -> float:
        import time

        time.sleep(seconds)
        return seconds

    return sleeper


def marker() -> Callable[[str, float], None]:
    """Appends a line to the file, then sleeps: how often it was begun is the number of lines."""

    def marker(path: str, seconds: float) -> None:
        import os
        import time

        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)

    return marker


def registration(function: Callable[..., Any]) -> bytes:
    """The body of `POST /register_function`."""
    return json.dumps({"name": function.__name__, "payload": serialize(function)}).encode()


def call(function_id: str, *args: Any) -> bytes:
    """The body of `POST /execute_function`."""
    return json.dumps({"function_id": function_id, "payload": serialize((args, {}))}).encode()
