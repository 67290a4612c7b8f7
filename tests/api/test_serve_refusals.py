"""What keeps the web process from starting is one line that says what to do, and exit status 1."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from tests.live import ROOT


def start_and_fail(**environ: str) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
    done = subprocess.run(
        [sys.executable, "-m", "faas_project.serve"],
        cwd=ROOT,
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = start_and_fail(FAAS_PORT=str(port), FAAS_DATA_DIR=str(tmp_path))
    assert (code, len(said.splitlines())) == (1, 1)
    assert f"127.0.0.1:{port}" in said
    assert "in use" in said


def test_a_setting_that_cannot_be_read_is_one_clear_line(tmp_path):
    code, said = start_and_fail(FAAS_PORT="http", FAAS_DATA_DIR=str(tmp_path))
    assert (code, len(said.splitlines())) == (1, 1)
    assert "FAAS_PORT=http" in said


def test_redis_that_cannot_be_named_is_one_clear_line(tmp_path):
    code, said = start_and_fail(FAAS_REDIS_URL="redis://:secret@host/db", FAAS_DATA_DIR=str(tmp_path), FAAS_PORT="1")
    assert (code, len(said.splitlines())) == (1, 1)
    assert "FAAS_REDIS_URL" in said
    assert "secret" not in said
