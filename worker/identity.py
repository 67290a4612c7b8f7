"""Who this process is, as a worker."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from importlib.metadata import version
from uuid import uuid4

from worker.session import Identity


def identity(slots: int, *, pulls: bool = False, key: str = "") -> Identity:
    """A new worker of this process: another one at each call. `key` is the name of the key that it comes with."""
    host = platform.node()
    return Identity(
        worker=uuid4().hex,
        name=f"{key}@{host}:{os.getpid()}" if key else f"{host}:{os.getpid()}",
        host=host,
        pid=os.getpid(),
        python=sys.version_info[:2],
        dill=version("dill"),  # without importing it: the slots do that
        slots=slots,
        secret=secrets.token_hex(16),
        pulls=pulls,
    )
