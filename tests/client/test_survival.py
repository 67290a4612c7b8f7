"""What outlives what: batches their client, futures the web process, and the end of the interpreter."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from everythingfaas.client import Client, Executor
from tests.live import Appliance, running, until

ENVIRON = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", script, *arguments]
    return subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=60, check=False)


SUBMIT = """
import sys, time
from everythingfaas.client import Executor
executor = Executor(sys.argv[1], name="left behind")
for x in range(50):
    executor.submit(lambda x: (time.sleep(0.01), x * x)[1], x)
"""


def test_what_was_submitted_when_the_interpreter_ended_is_there_for_the_next(faas: Appliance, client: Client):
    began = time.monotonic()
    done = run(SUBMIT, faas.url)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    assert time.monotonic() - began < 20
    batch = client.batch("left behind")
    assert [future.result(30) for future in batch.futures] == [x * x for x in range(50)]
    assert list(client.batch(batch.id).results(30)) == [x * x for x in range(50)]
    assert batch.info().states["COMPLETED"] == 50
    assert [found.id for found in client.batches("left behind")] == [batch.id]


AFTER = """
import atexit, sys
from everythingfaas.client import Executor
@atexit.register
def last():
    try:
        executor.submit(id, None)
    except RuntimeError as exc:
        print(exc)
executor = Executor(sys.argv[1])
print(executor.submit(int, "42").result(20))
"""


def test_after_the_end_of_the_interpreter_nothing_is_taken(faas: Appliance):
    done = run(AFTER, faas.url)
    assert done.stdout.splitlines() == ["42", "cannot schedule new futures after interpreter shutdown"], done.stderr


NO_WAIT = """
import sys, time
from everythingfaas.client import Executor
executor = Executor(sys.argv[1])
future = executor.submit(time.sleep, 60)
executor.shutdown(wait=False)
print("ends")
"""


def test_shutdown_without_waiting_does_not_hang(faas: Appliance, client: Client):
    began = time.monotonic()
    assert run(NO_WAIT, faas.url).stdout == "ends\n"
    assert time.monotonic() - began < 20
    client.batch(client.batches(limit=1)[0].id).cancel(force=True)


@pytest.mark.parametrize("role", ["web", "dispatcher"])
def test_a_process_of_the_service_that_dies_is_not_noticed(role: str, tmp_path: Path):
    ran = tmp_path / "ran"
    ran.mkdir()

    def note(x: int) -> int:
        import time

        time.sleep(0.01)
        with open(f"{ran}/{x}", "a") as file:
            file.write("ran\n")
        return x

    with running(tmp_path / "data", "--mode", "push", "--workers", "2") as live, Executor(live.url) as executor:
        values = executor.map(note, range(400), buffersize=100)
        assert [next(values) for _ in range(20)] == list(range(20))
        pid = live.pid(role)
        import os
        import signal

        os.kill(pid, signal.SIGKILL)
        assert list(values) == list(range(20, 400))
        until(lambda: live.pid(role) != pid, what="it is started again")
    assert len(list(ran.iterdir())) == 400
    assert {path.read_text() for path in ran.iterdir()} == {"ran\n"}
