"""The interpreters of other versions, each with what a worker needs installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from everythingfaas.pythons import Minor

#: What the library and a worker run on. (`tests.data.functions` wants cloudpickle as well.)
WORKERS: list[Minor] = [(3, minor) for minor in range(10, 14)]
NEEDED = ["cloudpickle", "dill", "msgspec", "psutil", "pyzmq"]
#: What a client needs beside that, and whatever these need.
CLIENT = ["httpx", "rich", "typer", "typing-extensions", "websockets"]
ROOT = Path(__file__).parents[1]


def interpreter(python: Minor) -> str | None:
    """The interpreter of this version on this machine."""
    name = "{}.{}".format(*python)
    candidates = [shutil.which(f"python{name}")]
    candidates += map(str, sorted(Path.home().glob(f".pyenv/versions/{name}.*/bin/python")))
    return next((path for path in candidates if path and "shims" not in path), None)


def environment(python: Minor, folder: Path, *, client: bool = False) -> str:
    """An interpreter of this version with what a worker needs; or a client as well. Made in `folder`, and kept there.

    Skips the test where there is none, or no package index; fails it where CI=true says that there must be.
    """
    found = sys.executable if python == sys.version_info[:2] else interpreter(python)
    if found is None:
        _without(f"there is no Python {'{}.{}'.format(*python)} here")
    needed = NEEDED + CLIENT * client
    venv = folder / ("{}.{}".format(*python) + "-client" * client)
    program = venv / "bin" / "python"
    complete = venv / "complete"
    if not complete.exists() or complete.read_text().split() != needed:
        subprocess.run([found, "-m", "venv", "--clear", "--without-pip", venv], check=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", program, "install"]
        pip += [] if client else ["--no-deps"]
        done = subprocess.run([*pip, "--quiet", *needed], capture_output=True, text=True, timeout=100, check=False)
        if done.returncode:
            _without(f"packages cannot be installed: {done.stderr[-300:]}")
        complete.write_text(" ".join(needed))
    return str(program)


def run(program: str, script: Path, *args: str, timeout_s: float = 60.0) -> str:
    """What `script` prints in that interpreter, which finds our code and none of this one's packages."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [program, "-W", "error", script, *args],
        env=environ,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _without(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI=true")
    pytest.skip(reason)
