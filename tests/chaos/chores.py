"""What real processes are given to do while they are killed. Slots import this module: standard library only."""

from __future__ import annotations

import os
import time


def chore(folder: str, number: int, duration_s: float) -> list[object]:
    """Takes as long as it is told, and writes down when it begins and ends.

    Each start has a token of its own, which is in the log before anything else happens and in the result: so a
    result tells which start it is of. The token names the supervisor of the slot, and the time.
    """
    supervisor = _parent(os.getppid())
    token = f"{supervisor}.{os.getpid()}.{time.time():.6f}"
    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    running = f"{folder}/running/{os.getpid()}"
    os.close(os.open(running, os.O_WRONLY | os.O_CREAT))
    os.write(log, f"begin {number} {token}\n".encode())
    time.sleep(duration_s)
    os.write(log, f"end {number} {token}\n".encode())
    os.close(log)
    os.unlink(running)
    return [number, token]


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
