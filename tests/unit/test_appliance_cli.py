"""The command line, as a user meets it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from everythingfaas import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def faas(tmp_path):
    """Runs `faas` in an empty folder and a clean environment, to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}

    def run(*arguments, **environ):
        command = [sys.executable, "-P", "-c", "from everythingfaas.cli import main; main()", *arguments]
        environ = clean | {"PYTHONPATH": str(ROOT)} | environ
        return subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=30)

    return run


def test_version(faas):
    assert faas("--version").stdout == f"faas {__version__}\n"


def test_help_names_what_is_installed(faas):
    assert "\n  up " in faas("--help").stdout
    shown = faas("up", "--help").stdout
    for name in ("port", "bind", "data-dir", "mode", "workers", "dispatcher-port", "task-deadline", "then"):
        assert f"--{name} " in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["up", "nonsense"],
        ["up", "--port", "http"],
        ["up", "--port", "0"],
        ["up", "--mode", "dask"],
        ["up", "--workers", "0"],
        ["up", "--then", "nowhere.py"],
    ],
)
def test_wrong_usage_is_status_2(faas, arguments):
    done = faas(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: faas" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (["--bind", "0.0.0.0"], {"FAAS_AUTH": "open"}, "FAAS_AUTH=open"),
        (["--task-deadline", "0"], {}, "FAAS_TASK_DEADLINE=0.0: expected"),
        (["--data-dir", "/dev/null/x"], {}, "FAAS_DATA_DIR=/dev/null/x cannot be written"),
        ([], {"FAAS_PORT": "http"}, "FAAS_PORT=http: expected a port number"),
        ([], {"FAAS_AUTH": "token", "FAAS_SECRET_KEY": "short"}, "FAAS_SECRET_KEY"),
        ([], {"FAAS_LISTEN": "192.0.2.1"}, "cannot listen on 192.0.2.1"),
    ],
)
def test_what_cannot_be_is_one_line_and_status_1(faas, tmp_path, arguments, environ, says):
    done = faas("up", *arguments, **environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("faas: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_a_port_in_use_is_one_line_before_anything_starts(faas, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = faas("up", FAAS_PORT=str(server.getsockname()[1]))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is in use: stop what listens there, or choose another with --port (FAAS_PORT)" in done.stderr
    assert os.listdir(tmp_path / ".faas" / "log") == []
    assert os.listdir(tmp_path / ".faas" / "run") == ["up.lock"]


def test_a_flag_comes_before_its_variable(faas):
    assert "FAAS_TASK_DEADLINE=0.0" in faas("up", "--task-deadline", "0", FAAS_TASK_DEADLINE="5").stderr
