"""The contract's acceptance tests against containers in each mode, from a client outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.compose.stack import Stack
from tests.live import ROOT

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("mode", ["local", "pull", "push"])
def test_acceptance(project: Stack, mode: str) -> None:
    project.up("--build", FAAS_MODE=mode, FAAS_TASK_DEADLINE="2")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_webservice.py"]
    done = subprocess.run(
        [*command, "tests/test_comprehensive.py"],
        cwd=ROOT,
        env=os.environ | {"FAAS_URL": project.client().url},
        capture_output=True,
        text=True,
        timeout=300,
    )
    print(mode, *done.stdout.splitlines()[-1:])
    assert done.returncode == 0, done.stdout[-8000:]


def test_pages_come_with_all_their_files(running: Stack) -> None:
    client = running.client()
    for page in ("/", "/tasks/", "/api/docs/", "/admin/login/"):
        answer = client.get(page, headers={"Accept": "text/html"})
        assert answer.status_code == 200, page
        files = re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text)
        assert files, page
        for path in files:
            assert client.get(path).status_code == 200, path
