"""A disk that is full: nothing is half accepted, what runs is delivered later, and nobody dies of it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.integration.outages import pid_of, processes, submit, wait_for
from tests.live import Appliance, free_port, running, serialize, until


class SmallDisk:
    """A file system of its own, which can be filled and given room again."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        folder.mkdir(parents=True, exist_ok=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")

    def fill(self) -> None:
        """To the last byte; what others write meanwhile included."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
        assert self.is_full

    @property
    def is_full(self) -> bool:
        try:
            with (self.folder / "probe").open("wb", buffering=0) as file:
                file.write(b"x")
        except OSError as exc:
            return exc.errno == errno.ENOSPC
        finally:
            (self.folder / "probe").unlink(missing_ok=True)
        return False

    def give_room(self) -> None:
        self._ballast.unlink()

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    disk = SmallDisk(folder, megabytes)
    try:
        yield disk
    finally:
        disk.unmount()


@pytest.mark.parametrize("mode", ["local", "push"])
def test_everything_on_a_disk_that_fills(tmp_path: Path, mode: str) -> None:
    go, options = tmp_path / "go", ("--mode", mode, "--workers", "2")
    with small_disk(tmp_path / "data", 24) as disk, running(disk.folder, *options) as appliance:
        function = appliance.register(abs)
        assert appliance.result(appliance.execute(function, -1)) == ("COMPLETED", 1)
        runs = appliance.submit(wait_for, str(go))
        until(lambda: appliance.status(runs) == "RUNNING", what="the start")
        before = processes(appliance)
        disk.fill()
        refusals = [submit(appliance, function, f"key {number}") for number in range(10)]
        assert {(answer.status_code, answer.headers["Retry-After"]) for answer in refusals} == {(503, "1")}
        assert {answer.json()["error"]["code"] for answer in refusals} == {"unavailable"}
        assert appliance.post("/register_function", {"name": "f", "payload": serialize(len)}).status_code == 503
        go.touch()
        refused = submit(appliance, function, "another")
        assert refused.status_code == 503
        assert appliance.status(runs) == "RUNNING"  # what it returned cannot be written, and is kept
        assert number_of_tasks(appliance) == 2
        disk.give_room()
        assert appliance.result(runs) == ("COMPLETED", "done")
        accepted = submit(appliance, function, "key 0")
        assert accepted.status_code == 201
        assert appliance.result(accepted.json()["task_id"]) == ("COMPLETED", 1)
        assert number_of_tasks(appliance) == 3
        task = appliance.get(f"/api/v1/tasks/{runs}").json()
        assert (task["attempt"], task["starts"], task["deaths"]) == (1, 1, 0)
        assert processes(appliance) == before


def test_a_disk_that_is_full_from_submit_to_submit(tmp_path: Path) -> None:
    """It fills again and again while many are at it: what was answered 201 is there, and nothing else."""
    accepted, refused = [], 0
    with small_disk(tmp_path / "data", 24) as disk, running(disk.folder, "--workers", "2") as appliance:
        function = appliance.register(abs)
        for _ in range(6):
            for full in (True, False):
                disk.fill() if full else disk.give_room()
                answers = [submit(appliance, function) for _ in range(10)]
                accepted += [answer.json()["task_id"] for answer in answers if answer.status_code == 201]
                refused += sum(answer.status_code == 503 for answer in answers)
                assert {answer.status_code for answer in answers} <= {201, 503}
        assert len(accepted) >= 60
        assert refused >= 30
        assert [appliance.result(task) for task in accepted] == [("COMPLETED", 1)] * len(accepted)
        assert number_of_tasks(appliance) == len(accepted)


def test_redis_on_a_disk_that_is_full(tmp_path: Path) -> None:
    """It takes no writes then, and tells of what it had before."""
    with small_disk(tmp_path / "data" / "redis", 8) as disk, running(tmp_path / "data") as appliance:
        function = appliance.register(abs)
        before = processes(appliance)
        go = tmp_path / "go"
        runs = appliance.submit(wait_for, str(go))
        until(lambda: appliance.status(runs) == "RUNNING", what="the start")
        disk.fill()
        until(lambda: refuses_writes(appliance), what="Redis has noticed")
        tasks = [appliance.execute(function, -number) for number in range(20)]
        assert [appliance.result(task) for task in tasks] == [("COMPLETED", number) for number in range(20)]
        go.touch()
        assert appliance.result(runs) == ("COMPLETED", "done")
        assert {appliance.status(task) for task in (*tasks, runs)} == {"COMPLETED"}
        disk.give_room()
        until(lambda: not refuses_writes(appliance), what="Redis takes writes again")
        later = appliance.execute(function, -5)
        assert appliance.result(later) == ("COMPLETED", 5)
        until(lambda: appliance.redis().exists(f"faas:task:{later}"), what="mirrors are written again")
        assert processes(appliance) == before


def test_logs_on_a_disk_that_is_full(tmp_path: Path) -> None:
    """They have gaps then, and nothing else has."""
    with small_disk(tmp_path / "data" / "log", 1) as disk, running(tmp_path / "data") as appliance:
        disk.fill()
        dispatcher = appliance.pid("dispatcher")
        os.kill(dispatcher, signal.SIGKILL)
        until(lambda: pid_of(appliance, "dispatcher") not in (0, dispatcher), what="another dispatcher")
        assert appliance.call(abs, -1) == 1
        disk.give_room()
        web = appliance.pid("web")
        os.kill(web, signal.SIGKILL)
        until(lambda: pid_of(appliance, "web") not in (0, web), what="another web process")
        until(lambda: "web ended (SIGKILL)" in (disk.folder / "up.log").read_text(), what="a line in the log")


def test_a_start_on_a_full_disk_ends_with_one_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", 8) as disk:
        disk.fill()
        faas = Path(sys.executable).with_name("faas")
        command = [faas, "up", "--data-dir", str(disk.folder), "--port", str(free_port())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        disk.give_room()
        with running(disk.folder) as appliance:
            assert appliance.call(abs, -1) == 1


def number_of_tasks(appliance: Appliance) -> int:
    assert appliance.data_dir is not None
    with contextlib.closing(sqlite3.connect(appliance.data_dir / "db.sqlite3")) as database:
        (number,) = database.execute("SELECT count(*) FROM api_task").fetchone()
        (payloads,) = database.execute("SELECT count(*) FROM api_payload").fetchone()
    assert payloads == number
    return int(number)


def refuses_writes(appliance: Appliance) -> bool:
    with contextlib.closing(appliance.redis()) as client:
        try:
            client.set("full", bytes(65536))
        except redis.exceptions.ResponseError as exc:
            return "No space left" in str(exc) or "MISCONF" in str(exc)
        return False
