"""Cancelling for real: an appliance, functions that would run for minutes, and the end of all their processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.live import Appliance, deserialize, running, until


def _stubborn(path: str) -> None:
    """Starts a child and a daemon, hears no signal, and says which processes there are."""
    import os
    import signal
    import subprocess
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(["setsid", "sleep", "600"], start_new_session=True)
    with open(path + ".part", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    os.rename(path + ".part", path)
    print("here I am", flush=True)
    try:
        time.sleep(600)
    except BaseException:  # noqa: BLE001 -- a function may be that stubborn
        time.sleep(600)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with running(tmp_path_factory.mktemp("cancel"), "--workers", "1") as appliance:
        yield appliance


def cancel(live: Appliance, task: str, query: str = "") -> requests.Response:
    return live.post(f"/api/v1/tasks/{task}/cancel{query}", {})


def test_a_running_task_and_all_its_processes_end(live: Appliance, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    task = live.submit(_stubborn, str(path))
    until(path.exists)
    pids = [int(text) for text in path.read_text().split()]
    until(lambda: live.status(task) == "RUNNING")
    began = time.monotonic()
    answer = cancel(live, task, "?wait=10")
    took = time.monotonic() - began
    assert (answer.status_code, answer.json()["state"]) == (200, "CANCELLED")
    assert took < 0.9, "the bell was not rung"  # the look comes once a second
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    (attempt,) = answer.json()["attempts"]
    assert (attempt["outcome"], attempt["exit_signal_name"], attempt["slot"]) == ("CANCELLED", "SIGKILL", 0)
    assert attempt["output_head"] == "here I am\n"
    result = live.get(f"/result/{task}").json()
    assert (result["status"], type(deserialize(result["result"])).__name__) == ("FAILED", "TaskCancelled")
    assert live.call(lambda: "the slot is back") == "the slot is back"


def test_a_task_that_waits_behind_another_never_begins(live: Appliance, tmp_path: Path) -> None:
    first = live.submit(_stubborn, str(tmp_path / "first"))
    until((tmp_path / "first").exists)
    second = live.submit(_stubborn, str(tmp_path / "second"))
    assert cancel(live, second, "?wait=10").json()["state"] == "CANCELLED"
    assert cancel(live, first, "?wait=10").json()["state"] == "CANCELLED"
    assert live.call(lambda: 1) == 1
    assert not (tmp_path / "second").exists()


def test_a_dispatcher_that_dies_before_it_kills_has_cancelled(live: Appliance, tmp_path: Path) -> None:
    task = live.submit(_stubborn, str(tmp_path / "pids"))
    until((tmp_path / "pids").exists)
    until(lambda: live.status(task) == "RUNNING")
    dispatcher = live.pid("dispatcher")
    os.kill(dispatcher, 19)
    assert cancel(live, task).status_code == 202
    os.kill(dispatcher, 9)
    answer = cancel(live, task, "?wait=20").json()
    assert (answer["state"], answer["starts"]) == ("CANCELLED", 1)


def test_a_burst_of_cancels(live: Appliance) -> None:
    function = live.register(lambda: __import__("time").sleep(0.01))
    tasks = [live.execute(function) for _ in range(60)]
    states = [cancel(live, task, "?wait=10").json()["state"] for task in reversed(tasks)]
    assert set(states) <= {"CANCELLED", "COMPLETED"}
    assert states.count("CANCELLED") > 5
    assert live.call(lambda: 1) == 1
