"""Functions that do not want to end. Slots import this module, each anew: so it imports very little."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import NoReturn


def begin(path: str, number: int) -> None:
    """Notes on the clock that all processes share that task `number` has begun."""
    with open(path, "a") as file:
        file.write(f"{number} {time.monotonic()}\n")


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def spin(path: str, number: int) -> NoReturn:
    _block_signals()
    begin(path, number)
    while True:
        pass


def stop(path: str, number: int) -> None:
    begin(path, number)
    os.kill(os.getpid(), signal.SIGSTOP)


def sleep_on(path: str, number: int) -> None:
    begin(path, number)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def have_children(path: str, number: int) -> None:
    _block_signals()
    for _ in range(3):
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            os._exit(0)
    begin(path, number)
    time.sleep(600)


STUBBORN = (spin, stop, sleep_on, have_children)
