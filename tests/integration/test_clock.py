"""The clock of the machine is stepped below everything that serves, by an hour and more, both ways: nothing happens."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from django.db import connection

from tests.conftest import Database, using
from tests.integration.outages import counts, processes, submit, wait_for
from tests.integration.site import Site, Trial
from tests.live import free_port, running, until
from tests.redis_fixture import Valkey

HOUR = 3600.0
#: A lease is renewed each 3 s, and one that is out is believed to be so after 5.
BELIEVED_S = 7.0


class Clock:
    """What processes have to be started with, and how far their clock is stepped."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler, and the clock of everybody else is left alone")
        library, self._file = folder / "clock.so", folder / "step"
        source = Path(__file__).with_name("clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lm"], check=True)
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_STEP": str(self._file)}
        self.step(0.0)

    def step(self, seconds: float) -> None:
        """From the true time."""
        if self._file.exists():  # it is mapped by whoever reads it
            with self._file.open("r+b") as file:
                file.write(struct.pack("d", seconds))
        else:
            self._file.write_bytes(struct.pack("d", seconds))

    def shown(self) -> float:
        """What another process takes for the time, less the true one."""
        command = [sys.executable, "-c", "import time; print(time.time())"]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, check=True)
        return float(done.stdout) - time.time()


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    clock = Clock(tmp_path)
    clock.step(-HOUR)
    assert abs(clock.shown() + HOUR) < 5
    clock.step(0.0)
    return clock


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["local", "push"])
def test_an_appliance(clock: Clock, tmp_path: Path, mode: str) -> None:
    with running(tmp_path / "data", "--mode", mode, "--workers", "2", **clock.environ) as appliance:
        function = appliance.register(abs)
        runs = appliance.submit(wait_for, str(tmp_path / "go"))
        until(lambda: appliance.status(runs) == "RUNNING", what="the start")
        before = processes(appliance)
        for step in (HOUR, -HOUR, 0.0):
            clock.step(step)
            stepped = time.monotonic()
            for number in range(20):
                task = submit(appliance, function, f"{step} {number}").json()["task_id"]
                assert appliance.result(task, timeout_s=5) == ("COMPLETED", 1)
            until(lambda since=stepped: time.monotonic() - since > BELIEVED_S / 2)  # a lease is renewed meanwhile
            assert appliance.get("/readyz").status_code == 200
            created = datetime.fromisoformat(appliance.get(f"/api/v1/tasks/{task}").json()["created"])
            assert abs(created.timestamp() - time.time() - step) < 60
        (tmp_path / "go").touch()
        assert appliance.result(runs) == ("COMPLETED", "done")
        assert counts(appliance, runs) == (1, 1, 0)
        assert processes(appliance) == before


@pytest.mark.slow
def test_two_dispatchers(clock: Clock, tmp_path: Path, sqlite_database: Database, valkey: Valkey) -> None:
    """Neither takes the other one's lease for one that is out, nor for one that lasts for an hour."""
    with using(sqlite_database):
        site = Site(tmp_path, sqlite_database, valkey, **clock.environ)
        try:
            ports = free_port(), free_port()
            dispatchers = [site.dispatcher("push", port, data=f"dispatcher {n}") for n, port in enumerate(ports)]
            for port in ports:
                site.worker("push", 1, f"tcp://127.0.0.1:{port}")
            trials = [Trial(site, name) for name in ("a", "b")]
            for trial in trials:
                trial.begun()
            for step in (HOUR, -HOUR):
                clock.step(step)
                stepped = time.monotonic()
                until(lambda since=stepped: time.monotonic() - since > BELIEVED_S)
                assert [abs(lease - time.time() - step) < 60 for lease in leases()] == [True] * 2
            for trial in trials:
                trial.let_go()
            assert [trial.value() for trial in trials] == [trial.pids[0] for trial in trials]
            assert [site.counts(trial.task) for trial in trials] == [(1, 1, 0)] * 2
            assert [dispatcher.process.poll() for dispatcher in dispatchers] == [None, None]
        finally:
            site.close()


def leases() -> list[float]:
    """Until when each dispatcher's lasts."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT lease_until FROM api_dispatcher")
        return [float(lease) for (lease,) in cursor.fetchall()]
