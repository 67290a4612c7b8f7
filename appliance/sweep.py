"""Ending what an appliance left behind that was itself killed, front and supervisor at once.

Children that carry the death signal are gone by then. What they started is found by the one variable of ours
that even a user's function is started with: the data folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from everythingfaas.proctree import find_by_environment, kill_tree, look

_ROUNDS = 10


def sweep(data_dir: Path) -> int:
    """Kill every process that was started for `data_dir`; call it with the folder's lock held.

    Spared are this process, its ancestors, and everything in their sessions: whatever an appliance starts has a
    session of its own, so an editor or a ``tail -f`` that a person opened in a shell where the variable is
    exported is not a remainder. That holds for session 0 as well, which is what the kernel shows for a shell
    whose session began outside of our PID namespace, as in a container that was entered.

    Returns:
        The number of processes killed.
    """
    ours, sessions = _ancestry()
    killed = 0
    for _ in range(_ROUNDS):  # who forks while we look is found the next time
        left = [
            process
            for process in map(look, find_by_environment("FAAS_DATA_DIR", str(data_dir)))
            if process is not None and process.pid not in ours and process.session not in sessions
        ]
        if not left:
            break
        killed += sum(kill_tree(process.pid) for process in left)
    return killed


def _ancestry() -> tuple[set[int], set[int]]:
    pids, sessions = set(), set()
    process = look(os.getpid())
    while process is not None:
        pids.add(process.pid)
        sessions.add(process.session)
        process = look(process.parent)
    return pids, sessions
