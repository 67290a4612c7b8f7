"""Ends a process that opens a pickle of somebody else's: for those that only pass such bytes on.

A pickle that does harm has to name what it calls, and Python says so (`pickle.find_class`) before it is looked up. Web
and dispatcher never need that, so there it can only be a mistake of ours, and it must not become an intruder's way in.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

#: The exit status of such a process.
EXIT = 97

_forbidden = False


def forbid(on_find: Callable[[str], None] | None = None) -> None:
    """From here on, until its end, this process opens no pickle that names anything. May be called again.

    `on_find` is called instead of ending the process: for tests, which run in one process with clients.
    """
    global _forbidden  # hooks cannot be taken away
    if _forbidden:
        return
    _forbidden = True
    found = on_find or end

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "pickle.find_class":
            found(".".join(map(str, arguments)))

    sys.addaudithook(hook)


def end(name: str) -> None:
    """At once: what runs here has been deceived already."""
    sys.stderr.write(f"faas: this process was about to open a pickle that names {name}, and ends:\n")
    traceback.print_stack()
    sys.stderr.flush()
    os._exit(EXIT)
