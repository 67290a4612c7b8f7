"""CPython's own tests for executors."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.client.conftest import of_another_python
from tests.live import ROOT
from tests.pythons import environment
from tests.redis_fixture import Valkey

SKIPPED = 3


@pytest.mark.slow
def test_the_tests_of_cpython_3_13_pass(tmp_path: Path, valkey: Valkey, request: pytest.FixtureRequest) -> None:
    program = environment((3, 13), request.config.cache.mkdir("pythons"), client=True)
    script = ROOT / "tests" / "client" / "cpython_futures.py"
    with of_another_python(program, tmp_path, valkey.url) as url:
        done = subprocess.run(
            [program, "-W", "error", script, url],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-5000:]
    ran = re.search(r"Ran (\d+) tests", done.stderr)
    assert ran is not None
    assert int(ran[1]) >= 27
    assert f"skipped={SKIPPED}" in done.stderr
