"""What the user is told: one plain line at a time, on standard error, which may be a terminal that was closed."""

from __future__ import annotations

import contextlib
import os


def tell(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))
