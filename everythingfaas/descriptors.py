"""How many files and connections a process may have open."""

from __future__ import annotations

import resource

#: Enough for any number of connections that one process of ours serves.
ENOUGH = 65_536


def allow_more() -> int:
    """Raises the limit as far as this process may, and returns it.

    For servers: many systems give 1,024, which strangers use up by connecting so often. Children inherit it, so it is
    not for processes that start functions.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
