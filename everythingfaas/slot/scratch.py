"""Removing what functions have left in their folder of temporary files."""

from __future__ import annotations

import contextlib
import os
import shutil


def remove_tree(folder: str) -> None:
    """Removes `folder` and all that is in it, as far as this user may; never raises, and follows no link."""
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.lexists(folder):
        return
    _open_folders(folder)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.unlink(folder)  # somebody may have put something else in its place


def _open_folders(top: str) -> None:
    """Lets ourselves into folders that were closed."""
    with contextlib.suppress(OSError):
        if not os.path.islink(top):
            os.chmod(top, 0o700)
    for root, folders, _ in os.walk(top):
        for name in folders:
            path = os.path.join(root, name)
            with contextlib.suppress(OSError):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
