"""Policies for real, from request to result: an appliance with two slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import Appliance, running, serialize, until


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with running(tmp_path_factory.mktemp("policies"), "--workers", "2") as appliance:
        yield appliance


def submit(live: Appliance, function: Callable[..., Any], *args: Any, **policy: Any) -> str:
    """The policy's first key goes with the function, the others with the task."""
    first, rest = dict(list(policy.items())[:1]), dict(list(policy.items())[1:])
    registered = live.post("/register_function", {"name": "f", "payload": serialize(function), "policy": first})
    call = {"function_id": registered.json()["function_id"], "payload": serialize((args, {})), "policy": rest}
    answer = live.post("/execute_function", call)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["task_id"])


def task(live: Appliance, task_id: str) -> dict[str, Any]:
    live.result(task_id)
    body: dict[str, Any] = live.get(f"/api/v1/tasks/{task_id}").json()
    return body


def _fails_twice(path: str, kind: str) -> int:
    import builtins

    with open(path, "a") as file:
        file.write("x")
    with open(path) as file:
        n = len(file.read())
    if n < 3:
        raise getattr(builtins, kind)("not yet")
    return n


def test_what_raises_is_tried_again(live: Appliance, tmp_path: Path) -> None:
    policy = {"retries": 3, "backoff_s": 0.01, "retry_on": ["LookupError", "KeyError"]}
    done = task(live, submit(live, _fails_twice, str(tmp_path / "a"), "KeyError", **policy))
    assert (done["state"], done["failures"], done["starts"]) == ("COMPLETED", 2, 3)
    assert [attempt["error_type"] for attempt in done["attempts"]] == ["KeyError", "KeyError", None]
    failed = task(live, submit(live, _fails_twice, str(tmp_path / "b"), "ValueError", **policy))
    assert (failed["state"], failed["failures"], len(failed["attempts"])) == ("FAILED", 1, 1)
    assert failed["error"] == "ValueError: not yet"


def test_a_task_that_waits_for_its_retry_can_be_cancelled(live: Appliance, tmp_path: Path) -> None:
    waits = submit(live, _fails_twice, str(tmp_path / "a"), "KeyError", retries=3, backoff_s=3600)
    until(lambda: live.get(f"/api/v1/tasks/{waits}").json()["state"] == "WAITING")
    assert live.status(waits) == "RUNNING"
    answer = live.post(f"/api/v1/tasks/{waits}/cancel", {})
    assert (answer.status_code, answer.json()["state"], answer.json()["starts"]) == (200, "CANCELLED", 1)


def _hog(mib: int, children: int) -> int:
    import subprocess
    import sys
    import time

    hog = f"x = bytearray({mib} * 1024 * 1024)\nimport time\ntime.sleep(60)"
    started = [subprocess.Popen([sys.executable, "-c", hog]) for _ in range(children)]
    own = bytearray(0 if children else mib * 1024 * 1024)
    time.sleep(60 if children or mib > 100 else 0.4)
    return len(own) + len(started)


@pytest.mark.parametrize(("mib", "children"), [(300, 0), (60, 4)])
def test_what_uses_too_much_memory_is_killed(live: Appliance, mib: int, children: int) -> None:
    done = task(live, submit(live, _hog, mib, children, memory_limit_mb=150, max_attempts=1))
    assert done["state"] == "FAILED"
    (attempt,) = done["attempts"]
    assert attempt["outcome"] == "MEMORY"
    assert attempt["run_s"] < 5
    _, failure = live.result(done["id"])
    assert type(failure).__name__ == "WorkerFailure"
    used = float(str(failure).split(" used ")[1].split(" MiB")[0])
    assert "its limit is 150 MiB" in str(failure)
    assert 150 < used < 400


def test_what_keeps_its_limit_runs(live: Appliance) -> None:
    done = task(live, submit(live, _hog, 50, 0, memory_limit_mb=150))
    assert (done["state"], done["deaths"]) == ("COMPLETED", 0)


def test_a_deadline_of_its_own(live: Appliance) -> None:
    import time

    done = task(live, submit(live, time.sleep, 60, deadline_s=0.2))
    assert (done["state"], done["attempts"][0]["outcome"], done["deadline_s"]) == ("FAILED", "DEADLINE", 0.2)
    assert "exceeded deadline of 0.2 s" in done["error"]


def _process() -> int:
    import os

    return os.getpid()


def test_a_fresh_process_for_each(live: Appliance) -> None:
    tasks = [submit(live, _process, fresh_process=True) for _ in range(4)]
    assert len({live.result(each)[1] for each in tasks}) == 4


def test_what_could_not_begin_in_time_fails_and_priority_goes_first(live: Appliance, tmp_path: Path) -> None:
    def hold(path: str) -> None:
        import os
        import time

        while not os.path.exists(path):
            time.sleep(0.01)

    def note(path: str, text: str) -> None:
        with open(path, "a") as file:
            file.write(text)

    gates, notes = [tmp_path / "gate-1", tmp_path / "gate-2"], tmp_path / "notes"
    holding = [submit(live, hold, str(gate), priority=9) for gate in gates]
    until(lambda: [live.status(each) for each in holding] == ["RUNNING"] * 2)
    late = submit(live, note, str(notes), "late", expires_s=0.1)
    low = submit(live, note, str(notes), "low ", priority=-5)
    high = submit(live, note, str(notes), "high ", priority=5)
    expired = task(live, late)
    assert (expired["state"], expired["starts"], expired["error"]) == ("FAILED", 0, "expired before it began")
    gates[0].touch()  # one slot is free, for one after the other
    assert {live.result(each)[0] for each in (low, high)} == {"COMPLETED"}
    assert notes.read_text() == "high low "
    gates[1].touch()
    assert {live.result(each)[0] for each in holding} == {"COMPLETED"}


def test_a_lost_start_is_not_repeated_where_that_is_asked_for(live: Appliance) -> None:
    def die() -> None:
        import os

        os.kill(os.getpid(), 9)

    once = task(live, submit(live, die, on_worker_lost="fail"))
    assert (once["state"], once["starts"], once["policy"]["on_worker_lost"]) == ("FAILED", 1, "fail")
    twice = task(live, submit(live, die, max_attempts=2))
    assert (twice["state"], twice["starts"], twice["deaths"]) == ("FAILED", 2, 2)


def test_a_retry_by_hand_runs(live: Appliance, tmp_path: Path) -> None:
    failed = submit(live, _fails_twice, str(tmp_path / "a"), "ValueError")
    live.result(failed)
    answer = live.post(f"/api/v1/tasks/{failed}/retry", {})
    assert answer.status_code == 201
    live.result(answer.json()["id"])
    third = live.post(f"/api/v1/tasks/{answer.json()['id']}/retry", {}).json()["id"]
    assert live.result(third) == ("COMPLETED", 3)
    assert live.get(f"/api/v1/tasks/{failed}").json()["retried_by"] == [answer.json()["id"]]


def test_workers_are_shown(live: Appliance) -> None:
    body = until(lambda: (found := live.get("/api/v1/workers").json())["workers"] and found, timeout_s=10)
    (worker,), (dispatcher,) = body["workers"], body["dispatchers"]
    assert (worker["slots"], worker["dispatcher"], worker["holds_lease"]) == (2, dispatcher["id"], True)
    assert (dispatcher["mode"], dispatcher["holds_lease"], dispatcher["pid"]) == ("local", True, live.pid("dispatcher"))
