"""The limit on open files and connections."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from everythingfaas.descriptors import allow_more
print(allow_more(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("soft", "hard", "wanted"), [(256, 4096, 4096), (4096, 4096, 4096)])
def test_it_is_raised_as_far_as_it_may_be(soft: int, hard: int, wanted: int):
    command = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    script = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(["sh", "-c", command, "sh", *script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == [str(wanted)] * 2
