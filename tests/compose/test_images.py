"""The images themselves."""

from __future__ import annotations

import pytest

from tests.compose.stack import PYTHON, Stack, docker
from tests.live import ROOT

pytestmark = pytest.mark.timeout(600)

NEWEST = "3.13"


def test_the_worker_has_no_django(project: Stack) -> None:
    project.compose("build", "worker")
    script = (
        "import worker, dill, zmq, importlib.util as u; print([u.find_spec(n) for n in ('django', 'redis', 'psycopg')])"
    )
    command = ["run", "--rm", "--entrypoint", "python", f"{project.name}-worker", "-c", script]
    assert docker(*command) == "[None, None, None]"


@pytest.mark.skipif(NEWEST == PYTHON, reason="all the other tests are with it")
@pytest.mark.parametrize("target", ["server", "worker"])
def test_they_build_with_the_newest_python(project: Stack, target: str) -> None:
    name = f"{project.name}-newest-{target}"
    docker("build", "--quiet", "--target", target, "--tag", name, str(ROOT))
    try:
        command = [
            "run",
            "--rm",
            "--entrypoint",
            "python",
            name,
            "-P",
            "-c",
            "import sys, worker; print(*sys.version_info[:2])",
        ]
        assert docker(*command) == NEWEST.replace(".", " ")
    finally:
        docker("image", "rm", "--force", name)
