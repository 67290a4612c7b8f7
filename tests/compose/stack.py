"""The appliance in containers, under a project name and a port of its own, through the `docker` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.live import ROOT, Appliance, free_port, until

#: Services that stay. The others end when they are done.
SERVICES = ("db", "redis", "web", "dispatcher", "worker")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
#: A starting container, its health check included.
PATIENCE_S = 120.0


def docker(*arguments: str, check: bool = True, **options: Any) -> str:
    """What the command prints. With `check` it has to succeed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, **options)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


class Stack:
    """One project. What it is started with stays until `up` is told something else.

    Args:
        functions: the folder that the workers run in.
    """

    def __init__(self, name: str, functions: Path) -> None:
        self.name = name
        #: The files of Compose; none: compose.yaml alone.
        self.files: tuple[str, ...] = ()
        self.settings = {
            "FAAS_PORT": str(free_port()),
            "FAAS_FUNCTIONS": str(functions),
            "FAAS_WORKERS": "4",
            "PYTHON_VERSION": PYTHON,
        }

    def compose(self, *arguments: str, timeout_s: float = 600.0) -> str:
        """`docker compose` without the settings, and the .env, of whoever runs the tests."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("FAAS_", "COMPOSE_"))} | self.settings
        common = ["compose", "--project-name", self.name, "--env-file", os.devnull, "--progress", "plain"]
        common += [part for file in self.files for part in ("--file", file)]
        return docker(*common, *arguments, cwd=ROOT, env=environ, timeout=timeout_s)

    def up(self, *options: str, **settings: str) -> None:
        """Until everything is healthy."""
        self.settings |= settings
        self.compose("up", "--detach", "--wait", *options)

    def client(self) -> Appliance:
        return Appliance(f"http://127.0.0.1:{self.settings['FAAS_PORT']}")

    def containers(self, *services: str) -> list[str]:
        """The ids of all that are there, running or not."""
        return self.compose("ps", "--all", "--quiet", *services).split()

    def inspect(self, service: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(docker("inspect", *self.containers(service)))
        return found

    def health(self, *services: str) -> set[str]:
        """What the health checks say."""
        states = json.loads(docker("inspect", "--format", "{{json .State}}", *self.containers(*services)).join("[]"))
        return {state["Health"]["Status"] if state["Status"] == "running" else state["Status"] for state in states}

    def until_healthy(self, *services: str) -> None:
        for service in services or SERVICES:
            until(
                lambda service=service: self.health(service) == {"healthy"},
                timeout_s=PATIENCE_S,
                what=f"{service} is healthy",
            )

    def run_in(self, service: str, script: str) -> str:
        """A shell's `script` in a running container, as the user whom it runs as."""
        return docker("exec", self.containers(service)[0], "sh", "-c", script)

    def logs(self) -> str:
        return self.compose("ps", "--all") + "\n" + self.compose("logs", "--tail", "40")

    def destroy(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "1")
        docker("image", "rm", "--force", f"{self.name}-server", f"{self.name}-worker", check=False)


@contextmanager
def stack() -> Iterator[Stack]:
    """A project that leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="faas-compose-") as folder:
        functions = Path(folder) / "functions"
        fill(functions)
        project = Stack(f"faas-test-{os.getpid()}", functions)
        try:
            yield project
        finally:
            project.destroy()


def fill(functions: Path) -> None:
    """What a user does whose functions go by reference: their modules, and what those import, on the workers' path."""
    tests = functions / "tests"
    tests.mkdir(parents=True)
    for name in ("__init__.py", "live.py", "test_webservice.py", "test_comprehensive.py"):
        (tests / name).write_bytes((ROOT / "tests" / name).read_bytes())
    packages = [f"{name}=={version(name)}" for name in ("pytest", "redis", "requests")]
    # By the workers' own Python: the client's may be a newer patch, for which other packages are needed.
    user = ["--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp"]
    image = f"python:{PYTHON}-slim-trixie"
    pip = ["pip", "install", "--quiet", "--no-cache-dir", "--target", "/functions", *packages]
    docker("run", "--rm", *user, "--volume", f"{functions}:/functions", image, *pip)
    for path in [functions, *functions.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
