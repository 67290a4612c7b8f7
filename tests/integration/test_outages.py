"""What an appliance needs is away for a while, or comes back as it was; everything that was accepted goes on."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import redis

from tests.conftest import postgresql
from tests.integration.outages import counts, pid_of, processes, submit, wait_for
from tests.live import Appliance, running, serialize, until

#: Longer than a worker is waited for (5 s) and than a lease lasts (10 s).
LONG_S = 12.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "how", "away_s"), [("local", signal.SIGQUIT, 0.0), ("push", signal.SIGINT, LONG_S)], ids=["local", "push"]
)
def test_postgresql_is_away(tmp_path: Path, mode: str, how: signal.Signals, away_s: float) -> None:
    with tempfile.TemporaryDirectory(prefix="faas-pg-") as folder, postgresql(Path(folder)) as server:
        options = ("--mode", mode, "--workers", "4")
        url = f"postgres://faas@/postgres?host={folder}"
        with running(tmp_path / "data", *options, FAAS_DATABASE_URL=url) as appliance:
            function, go = appliance.register(abs), tmp_path / "go"
            short, long = (appliance.submit(wait_for, str(path)) for path in (go, tmp_path / "later"))
            until(lambda: {appliance.status(task) for task in (short, long)} == {"RUNNING"}, what="the starts")
            before = processes(appliance)
            server.stop(how)
            stopped = time.monotonic()
            refusals = [submit(appliance, function, f"key {number}") for number in range(3)]
            assert {(answer.status_code, answer.headers.get("Retry-After")) for answer in refusals} == {(503, "1")}
            refused = appliance.post("/register_function", {"name": "f", "payload": serialize(len)})
            assert refused.status_code == 503
            go.touch()
            assert appliance.get("/readyz").status_code == 503
            until(lambda: time.monotonic() - stopped > away_s)
            server.start()
            assert appliance.result(short) == ("COMPLETED", "done")
            again = until(lambda: (answer := submit(appliance, function, "key 0")).status_code == 201 and answer)
            assert appliance.result(again.json()["task_id"]) == ("COMPLETED", 1)
            (tmp_path / "later").touch()
            assert appliance.result(long) == ("COMPLETED", "done")
            assert [counts(appliance, task) for task in (short, long)] == [(1, 1, 0)] * 2
            assert processes(appliance) == before


def test_redis_comes_back_with_an_old_file(tmp_path: Path) -> None:
    """Its copies say that tasks wait which have ended, and that others run which it has never heard of."""
    data = tmp_path / "data"
    with running(data, "--workers", "2") as appliance:
        function, go = appliance.register(abs), tmp_path / "go"
        old = [appliance.submit(wait_for, str(go)) for _ in range(2)]
        until(lambda: {appliance.status(task) for task in old} == {"RUNNING"}, what="the starts")
        queued = appliance.execute(function, -1)
        until(lambda: b"QUEUED" in appended(data / "redis"), what="a copy of it in the file")
        shutil.copytree(data / "redis", tmp_path / "older")
        go.touch()
        new = [appliance.execute(function, -number) for number in range(10)]
        for task in (*old, queued, *new):
            assert appliance.result(task)[0] == "COMPLETED"
        former = appliance.pid("redis")
        shutil.rmtree(data / "redis")
        shutil.copytree(tmp_path / "older", data / "redis")
        os.kill(former, signal.SIGKILL)
        until(lambda: pid_of(appliance, "redis") not in (0, former), what="another Redis")
        until(lambda: knows(appliance, queued), what="its file is read")
        assert not appliance.redis().exists(f"faas:task:{new[0]}")
        assert {appliance.status(task) for task in (*old, queued, *new)} == {"COMPLETED"}
        assert [appliance.result(task) for task in (queued, *new)] == [
            ("COMPLETED", number) for number in (1, *range(10))
        ]
        assert appliance.call(abs, -7) == 7
        assert [counts(appliance, task) for task in (*old, queued)] == [(1, 1, 0)] * 3


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["local", "pull"])
def test_a_suspended_laptop(tmp_path: Path, mode: str) -> None:
    """Every process stands still, for longer than anybody is waited for, and goes on."""
    with running(tmp_path / "data", "--mode", mode, "--workers", "2") as appliance:
        task = appliance.submit(wait_for, str(tmp_path / "go"))
        until(lambda: appliance.status(task) == "RUNNING", what="the start")
        before = processes(appliance)
        everything = tree(appliance)
        for process in everything:  # the front first: it would let the others go on
            process.suspend()
        stopped = time.monotonic()
        until(lambda: time.monotonic() - stopped > LONG_S)
        for process in everything:
            process.resume()
        assert appliance.call(abs, -1) == 1
        # If anybody took another one for dead, it shows by now.
        resumed = time.monotonic()
        until(lambda: time.monotonic() - resumed > 6.0)
        (tmp_path / "go").touch()
        assert appliance.result(task) == ("COMPLETED", "done")
        assert counts(appliance, task) == (1, 1, 0)
        assert processes(appliance) == before


def tree(appliance: Appliance) -> list[psutil.Process]:
    """The front, and all that hangs below it."""
    assert appliance.process is not None
    front = psutil.Process(appliance.process.pid)
    return [front, *front.children(recursive=True)]


def knows(appliance: Appliance, task: str) -> bool:
    try:
        return bool(appliance.redis().exists(f"faas:task:{task}"))
    except redis.exceptions.ConnectionError:  # it is not there yet
        return False


def appended(folder: Path) -> bytes:
    """What Redis has written into its files."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
