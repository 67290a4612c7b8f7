"""`faas up` as a user starts it: real web, dispatcher and Redis, on a folder of its own."""

import codecs
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import dill
import pytest

from everythingfaas.proctree import find_by_environment, kill_tree, look

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("web", "dispatcher", "redis")

HELLO = """
import os, sys, urllib.request
assert sys.argv[1] == os.environ["FAAS_URL"]
print("then", urllib.request.urlopen(sys.argv[1] + "/readyz").status)
"""


def eventually(condition, timeout_s=30.0):
    """What `condition` returns, as soon as that is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return value


def alive(pid):
    process = look(pid)
    return process is not None and not process.dead


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serialize(value):
    return codecs.encode(dill.dumps(value, recurse=True), "base64").decode()


class Up:
    """One data folder, and the appliances that are started on it one after the other."""

    def __init__(self, folder, data_dir=None):
        self.cwd = folder
        self.data_dir = data_dir or folder / "data"
        self.port = free_port()
        self.front = None

    def launch(self, *arguments, **environ):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
        # -P as the installed command has it: the user's folder is not on the path.
        command = [sys.executable, "-P", "-c", "from everythingfaas.cli import main; main()", "up"]
        command += ["--data-dir", str(self.data_dir), "--port", str(self.port), "--workers", "2", *arguments]
        return subprocess.Popen(
            command,
            env=clean | {"PYTHONPATH": str(ROOT)} | environ,
            cwd=self.cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # stands for the foreground group of a terminal
        )

    def start(self, *arguments, **environ):
        self.front = self.launch(*arguments, **environ)
        line = self.front.stdout.readline()
        assert line == f"ready http://127.0.0.1:{self.port}\n", (line, *self.front.communicate())
        return self

    def call(self, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=40) as response:
            return json.load(response)

    def submit(self, function, *args):
        registered = self.call("/register_function", {"name": "f", "payload": serialize(function)})
        task = {"function_id": registered["function_id"], "payload": serialize((args, {}))}
        return self.call("/execute_function", task)["task_id"]

    def result(self, task_id):
        def ended():
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                answer = self.call(f"/result/{task_id}?wait=5")
                return answer["status"] in ("COMPLETED", "FAILED") and answer

        answer = eventually(ended)
        value = dill.loads(codecs.decode(answer["result"].encode(), "base64"))
        assert answer["status"] == "COMPLETED", value
        return value

    def run(self, function, *args):
        return self.result(self.submit(function, *args))

    def pid(self, name):
        with contextlib.suppress(FileNotFoundError):
            return int((self.data_dir / "run" / f"{name}.pid").read_text())

    def supervisor(self):
        return look(self.pid("web")).parent

    def left(self):
        return find_by_environment("FAAS_DATA_DIR", str(self.data_dir))

    def stop(self, signum=signal.SIGTERM):
        began = time.monotonic()
        self.front.send_signal(signum)
        _, err = self.front.communicate(timeout=20)
        assert time.monotonic() - began < 10
        return self.front.returncode, err

    def clean(self):
        if self.front is not None:
            if self.front.poll() is None:
                kill_tree(self.front.pid)
            self.front.communicate()
        for pid in self.left():
            kill_tree(pid)


@pytest.fixture
def up(tmp_path):
    up = Up(tmp_path)
    yield up
    up.clean()


def daemon():
    """A user's function that leaves something behind: forked twice, own session, no environment."""
    import os  # by value: this module is not there where it runs

    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        os._exit(0)
    os.wait()
    return int(os.read(reader, 20))


def sleeping_daemon(path):
    """The same from a task that is still running when everything stops."""
    import os
    import time

    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(path, "w") as file:
                file.write(f"{os.getpid()}\n")
            os.execve("/bin/sleep", ["sleep", "1000"], {})
        os._exit(0)
    os.wait()
    time.sleep(1000)


for _function in (daemon, sleeping_daemon):
    _function.__module__ = "__main__"  # dill then takes it by value


def test_one_command_serves_runs_and_stops_without_a_trace(up):
    (up.cwd / "hello.py").write_text(HELLO)
    up.start("--then", "hello.py")
    assert up.front.stdout.readline() == "then 200\n"
    assert up.run(lambda number: number * 2, 21) == 42

    pids = [up.front.pid, up.supervisor(), *map(up.pid, SERVICES)]
    assert set(pids) <= set(up.left())  # every one of them has FAAS_DATA_DIR
    logs = {path.name for path in (up.data_dir / "log").iterdir()}
    assert logs >= {"up.log", *(f"{name}.log" for name in SERVICES)}

    status, err = up.stop(signal.SIGINT)
    assert status == 0, err
    assert up.left() == []
    assert [path.name for path in (up.data_dir / "run").iterdir()] == ["up.lock"]
    assert "Traceback" not in err


def test_ctrl_c_reaches_the_front_alone_and_stops_in_order(up):
    up.start()
    os.killpg(up.front.pid, signal.SIGINT)
    _, err = up.front.communicate(timeout=15)
    assert up.front.returncode == 0, err
    told = [line.split()[1] for line in (up.data_dir / "log" / "up.log").read_text().splitlines() if "told" in line]
    assert told == ["web", "dispatcher", "redis"]
    assert up.left() == []


@pytest.mark.parametrize("name", SERVICES)
def test_what_dies_comes_back_and_nothing_accepted_is_lost(up, name):
    up.start()
    before = up.submit(lambda: "before")
    assert up.result(before) == "before"
    others = {other: up.pid(other) for other in SERVICES if other != name}
    died = up.pid(name)
    os.kill(died, signal.SIGKILL)
    eventually(lambda: up.pid(name) not in (None, died))

    def works():
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return up.run(lambda: "after") == "after"

    assert eventually(works)
    assert up.result(before) == "before"
    assert {other: up.pid(other) for other in others} == others
    assert up.stop()[0] == 0


def test_the_front_killed_takes_everything_along(up, tmp_path):
    up.start()
    up.submit(sleeping_daemon, str(tmp_path / "pid"))
    daemon_pid = eventually(lambda: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text() or 0))
    up.front.kill()
    up.front.wait()
    eventually(lambda: not up.left(), timeout_s=12)
    assert not alive(daemon_pid)


def test_the_supervisor_killed_takes_everything_along(up, tmp_path):
    up.start()
    up.submit(sleeping_daemon, str(tmp_path / "pid"))
    daemon_pid = eventually(lambda: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text() or 0))
    os.kill(up.supervisor(), signal.SIGKILL)
    up.front.communicate(timeout=15)
    assert up.front.returncode == 1
    assert up.left() == []
    assert not alive(daemon_pid)


def test_everything_killed_at_once_is_no_obstacle_to_the_next_start(up):
    up.start()
    task = up.submit(lambda: "kept")
    assert up.result(task) == "kept"
    supervisor = up.supervisor()
    os.kill(supervisor, signal.SIGSTOP)
    up.front.kill()
    os.kill(supervisor, signal.SIGKILL)
    up.front.communicate()
    up.start()
    assert up.result(task) == "kept"
    assert up.run(lambda: "after") == "after"
    assert up.stop()[0] == 0
    assert up.left() == []


def test_a_stop_in_the_middle_of_work_is_in_time_and_leaves_no_daemon(up, tmp_path):
    up.start()
    finished = up.run(daemon)
    up.submit(sleeping_daemon, str(tmp_path / "pid"))
    running = eventually(lambda: (tmp_path / "pid").exists() and int((tmp_path / "pid").read_text() or 0))
    assert up.stop()[0] == 0
    assert not alive(finished)
    assert not alive(running)
    assert up.left() == []


def test_beyond_loopback_it_asks_for_a_token_that_is_shown_once(up):
    up.start("--bind", "0.0.0.0")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        up.call("/api/v1/tasks")
    _, said = up.stop()
    (token,) = re.findall(r"token (faas_[\w-]{43})\n", said)
    assert "warning" not in said
    for path in up.data_dir.rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes(), path
    up.start("--bind", "0.0.0.0")
    request = urllib.request.Request(f"http://127.0.0.1:{up.port}/api/v1/tasks")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=40) as response:
        assert json.load(response)["tasks"] == []
    _, said = up.stop()
    assert "faas_" not in said


def test_a_folder_in_use_is_one_line(up):
    up.start()
    second = up.launch("--port", str(free_port()))
    _, err = second.communicate(timeout=15)
    assert second.returncode == 1
    assert err.count("\n") == 1
    assert f"in use by another `faas up` (process {up.front.pid})" in err
    assert up.run(lambda: "unharmed") == "unharmed"


def test_the_users_own_files_are_not_what_we_import(up):
    for name in ("api", "worker", "dispatcher", "django", "redis", "appliance", "faas_project"):
        (up.cwd / f"{name}.py").write_text("raise SystemExit('not this one')")
    up.start()
    assert up.stop()[0] == 0


def test_a_deep_data_folder(tmp_path):
    up = Up(tmp_path, tmp_path / ("deep" * 20) / ("and deeper" * 10))
    try:
        up.start()
        assert up.run(lambda: 1) == 1
        assert up.stop()[0] == 0
        assert up.left() == []
    finally:
        up.clean()


def test_a_database_that_cannot_be_opened_ends_the_start_with_its_reason(up):
    nowhere = f"postgres://nobody@127.0.0.1:{free_port()}/nothing"
    front = up.launch(FAAS_DATABASE_URL=nowhere)
    out, err = front.communicate(timeout=60)
    assert (front.returncode, out) == (1, "")
    assert "migrate ended (exit status 1) before everything served" in err
    assert up.left() == []
