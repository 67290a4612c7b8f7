"""How much memory the processes of a run use together."""

from __future__ import annotations

import os

from everythingfaas import proctree

#: How often runs with a limit are looked at.
LOOK_S = 0.1

_MIB = 1024 * 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")


def excess(root: int, limit_mb: int) -> str:
    """How much `root` and its descendants use, in words, if that is above their limit; empty if it is not.

    What several processes share is counted in parts (PSS), so that together they count it once. The kernel adds
    that up by walking through all pages, so it is asked only if the sum that it knows already, in which each of
    them counts what is shared, is above the limit.
    """
    pids = [root, *proctree.descendants(root)]
    if sum(map(_resident, pids)) <= limit_mb * _MIB:
        return ""
    used = sum(map(_proportional, pids))
    if used <= limit_mb * _MIB:
        return ""
    return f"process killed because it used {used / _MIB:.1f} MiB of memory, and its limit is {limit_mb} MiB"


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read(256).split()[1]) * _PAGE
    except (OSError, IndexError):  # it has ended
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except FileNotFoundError:  # it has ended, or the kernel tells nothing better
        return _resident(pid)
    except OSError:  # it is ending
        return 0
