"""Switches of the Linux kernel that the standard library does not reach.

All speak about the calling process, and none survives into its children (`set_child_subreaper`), through a change
of user id (`set_parent_death_signal`) or into another program (`close_to_others`); so every process sets its own.
"""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def set_child_subreaper() -> None:
    """Adopt orphans among the descendants of this process, so that none escapes to init by forking twice.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_parent_death_signal(signum: int) -> None:
    """Have the kernel send `signum` to this process when its parent ends.

    "Parent" is the *thread* that forked this process: start such a child from a thread that stays. A parent
    that ended before this call goes unnoticed, so compare `os.getppid()` with the expected one afterwards.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_PDEATHSIG, signum)


def close_to_others() -> None:
    """Let no other process of the same user read the memory or the environment of this one, nor attach to it.

    Root may all the same; and programs that this one starts are as open as any.

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
