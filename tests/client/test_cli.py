"""The command line, as a user and a script meet it, on a real appliance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everythingfaas.client import Client
from tests.live import ROOT, Appliance, free_port, until

JOBS = """
import time

RATE = 3

def scale(x, *, by=RATE):
    "Uses a global of its module."
    print("scaling", x)
    return {"scaled": x * by} if isinstance(x, int) else str(x).upper()

def fail(x=1):
    raise ValueError(f"bad {x}")

def sleep(s):
    time.sleep(s)
    return "awake"

def nothing():
    return None

def thing():
    return {1, 2}.__class__
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(faas: Appliance, tmp_path: Path) -> Run:
    (tmp_path / "jobs.py").write_text(JOBS)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
    clean |= {"PYTHONPATH": str(ROOT), "FAAS_URL": faas.url, "XDG_CONFIG_HOME": str(tmp_path / "config")}

    def run(*arguments: str, stdin: str | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-W", "error", "-c", "from everythingfaas.cli import main; main()", *arguments]
        return subprocess.run(
            command,
            env=clean | environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            input=stdin,
            check=False,
        )

    return run


def output(done: subprocess.CompletedProcess[str], status: int = 0) -> str:
    assert done.returncode == status, done.stderr
    return done.stdout


def said(done: subprocess.CompletedProcess[str], status: int = 0) -> Any:
    return json.loads(output(done, status))


def test_run_and_wait(cli: Run, client: Client):
    assert output(cli("run", "jobs.py:scale", "5", "--wait")) == '{"scaled":15}\n'
    assert output(cli("run", "jobs.py:scale", "5", "by=2", "--wait")) == '{"scaled":10}\n'
    assert output(cli("run", "jobs.py:scale", "some text", "--wait")) == "SOME TEXT\n"
    assert output(cli("run", "jobs.py:nothing", "--wait")) == ""
    assert output(cli("run", "jobs.py:thing", "--wait")) == "<class 'set'>\n"
    task = output(cli("run", "jobs.py:scale", "-4")).strip()
    assert client.result(task) == {"scaled": -12}
    done = said(cli("run", "jobs.py:scale", "5", "--wait", "--json"))
    assert (done["state"], done["result"]) == ("COMPLETED", {"scaled": 15})
    assert "task_id" in said(cli("run", "jobs.py:scale", "5", "--json"))
    client.register(len, name="length")
    assert output(cli("run", "length", "abcd", "--wait")) == "4\n"


def test_a_function_that_fails_is_status_1_with_its_traceback(cli: Run):
    done = cli("run", "jobs.py:fail", "7", "--wait")
    assert output(done, 1) == ""
    assert "ValueError: bad 7" in done.stderr
    assert "in fail" in done.stderr
    assert "everythingfaas" not in done.stderr
    done = cli("run", "jobs.py:fail", "--wait", "--json")
    body = said(done, 1)
    assert (body["state"], body["error"]["type"], body["error"]["message"]) == ("FAILED", "ValueError", "bad 1")


def test_a_policy_and_what_is_not_done_in_time(cli: Run, client: Client):
    done = cli("run", "jobs.py:sleep", "30", "--wait", "--policy", "deadline_s=0.3")
    assert output(done, 1) == ""
    assert "exceeded deadline" in done.stderr
    done = cli("run", "jobs.py:sleep", "30", "--timeout", "0.3", "--json")
    assert done.returncode == 124
    assert done.stderr.startswith("faas: task ")
    task = done.stderr.split()[2]
    assert client.cancel(task, wait=10).state == "CANCELLED"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nowhere.py:f"], "no file nowhere.py"),
        (["run", "jobs.py"], "jobs.py:FUNCTION"),
        (["run", "jobs.py:nothere"], "no function 'nothere'"),
        (["run", "broken.py:f"], "line 1"),
        (["run", "raises.py:f"], "ZeroDivisionError"),
        (["run", "jobs.py:scale", "by=1", "2"], "come first"),
        (["run", "jobs.py:scale", "1", "--policy", "x"], "KEY=VALUE"),
        (["map", "registered"], "file"),
        (["show", "x"], "no id"),
        (["cancel"], "say which"),
        (["ps", "--state", "odd"], "no state ODD"),
        (["config", "colour"], "no 'colour'"),
    ],
)
def test_a_mistake_of_the_users_is_status_2_and_no_traceback(cli: Run, tmp_path: Path, arguments: list[str], says: str):
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_what_is_not_there_has_a_status_of_its_own(cli: Run):
    nothing = "00000000-0000-7000-8000-000000000000"
    for arguments in (["show", nothing], ["retry", nothing], ["cancel", nothing], ["run", "no-such-name"]):
        done = cli(*arguments)
        assert done.returncode == 5, arguments
        assert done.stderr.startswith("faas: there is no ")
        assert done.stderr.count("\n") == 1
    done = cli("ps", FAAS_URL=f"http://127.0.0.1:{free_port()}")
    assert (done.returncode, done.stdout) == (3, "")
    assert "is it running" in done.stderr
    assert cli("--url", f"http://127.0.0.1:{free_port()}", "ps").returncode == 3


def test_map_reads_lines(cli: Run):
    lines = "1\n2\n\ntext\n"
    assert output(cli("map", "jobs.py:scale", stdin=lines)) == '{"scaled":3}\n{"scaled":6}\nTEXT\n'
    done = cli("map", "jobs.py:fail", stdin="1\n")
    assert output(done, 1) == ""
    assert done.stderr == "faas: line 1: ValueError: bad 1\nfaas: 1 failed\n"
    in_json = output(cli("map", "jobs.py:scale", "--json", "--name", "lines", stdin="1\n2\n")).splitlines()
    assert [json.loads(line)["result"] for line in in_json] == [{"scaled": 3}, {"scaled": 6}]
    assert output(cli("map", "jobs.py:scale", stdin="")) == ""
    assert output(cli("cancel", "--batch", "lines")) == "0 cancelled, 0 being killed\n"


def test_looking_at_what_there_is(cli: Run, client: Client):
    task = output(cli("run", "jobs.py:scale", "5")).strip()
    assert client.result(task) == {"scaled": 15}
    shown = output(cli("show", task))
    assert "COMPLETED" in shown
    assert "scaling 5" in shown
    assert said(cli("show", task, "--json"))["attempts"][0]["outcome"] == "RETURNED"
    table = output(cli("ps", "-n", "5"))
    assert table.split()[:3] == ["id", "state", "function"]
    assert task in table
    assert said(cli("ps", "--json", "--state", "completed"))[0]["state"] == "COMPLETED"
    assert "scale" in output(cli("functions"))
    assert said(cli("functions", "scale", "--json"))[0]["name"] == "scale"
    assert "ready" in output(cli("workers"))
    assert said(cli("workers", "--json"))["workers"][0]["slots"] == 2


def test_cancel_and_retry(cli: Run, client: Client):
    tasks = [output(cli("run", "jobs.py:sleep", "60")).strip() for _ in range(2)]
    until(lambda: client.status(tasks[0]) == "RUNNING")
    assert output(cli("cancel", *tasks)) == "".join(f"{task} CANCELLED\n" for task in tasks)
    again = output(cli("retry", tasks[0])).strip()
    assert said(cli("cancel", again, "--json"))["state"] == "CANCELLED"
    runs = output(cli("run", "jobs.py:sleep", "60")).strip()
    done = cli("retry", runs)
    assert done.returncode == 1
    assert "can be retried when it has ended" in done.stderr
    assert client.cancel(runs, wait=10).state == "CANCELLED"


def test_config(cli: Run, faas: Appliance, tmp_path: Path):
    assert output(cli("config", FAAS_URL="")).splitlines()[:2] == ["url    http://127.0.0.1:8000", "token  none"]
    output(cli("config", "url", faas.url))
    output(cli("config", "token", "-", stdin="faas_secret_token\n"))
    shown = cli("config", FAAS_URL="")
    assert faas.url in output(shown)
    assert "secret_token" not in shown.stdout
    assert output(cli("ps", FAAS_URL=""))
    assert (tmp_path / "config" / "faas" / "config.json").stat().st_mode & 0o777 == 0o600
    output(cli("config", "token", "--unset"))
    assert said(cli("config", "--json", FAAS_URL=""))["token"] is None
    assert cli("config", "url", "lab").returncode == 1


def test_the_doctor_finds_everything_well(cli: Run):
    until(lambda: cli("doctor").returncode == 0)
    findings = said(cli("doctor", "--json"))
    assert [one["part"] for one in findings] == [
        "service", "database", "dispatcher", "redis", "disk", "version", "workers", "python",
    ]  # fmt: skip
    assert all(one["ok"] for one in findings)


def test_the_doctor_says_what_to_do(cli: Run):
    done = cli("doctor", FAAS_URL=f"http://127.0.0.1:{free_port()}")
    assert "faas up" in output(done, 3)


def test_help_and_completion(cli: Run):
    shown = output(cli("--help"))
    for verb in "up run map ps show cancel retry functions workers worker doctor config".split():  # noqa: SIM905
        assert f"\n  {verb} " in shown, verb
    assert "complete" in output(cli("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"))
    assert output(cli("ps", "--help"))
