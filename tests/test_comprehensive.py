"""The comprehensive suite of the original system's testing report, against real processes.

Functions are pickled by reference to this module.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.live import PLACES, ROOT, Appliance, running, until

NIL = "00000000-0000-0000-0000-000000000000"


def no_op() -> None:
    return None


def double(x: int) -> int:
    return x * 2


def add(x: int, y: int) -> int:
    return x + y


def greet(name: str, *, greeting: str = "Hello") -> str:
    return f"{greeting}, {name}"


def identity(data: object) -> object:
    return data


def sleep_task(seconds: float) -> str:
    time.sleep(seconds)
    return f"slept {seconds}"


def cpu_task(n: int) -> int:
    return sum(i * i for i in range(n))


def failing_task() -> None:
    raise ValueError("This task is designed to fail")


def note_and_wait(starts: str, go: str) -> int:
    with open(starts, "a") as file:
        file.write(f"{os.getpid()}\n")
    while not os.path.exists(go):
        time.sleep(0.01)
    return os.getpid()


def starts(path: Path) -> list[int]:
    """The processes in which `note_and_wait` was started."""
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


class TestBasicIntegration:
    def test_roundtrip(self, appliance: Appliance) -> None:
        for _ in range(5):
            number = random.randint(0, 10_000)
            assert appliance.call(double, number) == number * 2


class TestTaskLifecycle:
    def test_task_lifecycle_states(self, appliance: Appliance) -> None:
        sleeper = appliance.register(sleep_task)
        # QUEUED is there to be seen only while something else holds every slot.
        fillers = [appliance.execute(sleeper, 0.4) for _ in range(8)]
        task = appliance.execute(sleeper, 1)
        seen: list[str] = []

        def note() -> bool:
            status = appliance.status(task)
            if not seen or seen[-1] != status:
                seen.append(status)
            return status == "COMPLETED"

        until(note, timeout_s=10)
        assert seen == ["QUEUED", "RUNNING", "COMPLETED"]
        for filler in fillers:
            appliance.result(filler)

    def test_result_available_after_completion(self, appliance: Appliance) -> None:
        task = appliance.submit(double, 42)
        assert appliance.result(task) == ("COMPLETED", 84)
        assert appliance.result(task) == ("COMPLETED", 84)


class TestEdgeCases:
    def test_nonexistent_function(self, appliance: Appliance) -> None:
        for function_id in (NIL, str(uuid.uuid4()), "1234"):
            answer = appliance.post("/execute_function", {"function_id": function_id, "payload": "payload"})
            assert answer.status_code == 404

    def test_unknown_task_at_status(self, appliance: Appliance) -> None:
        for task_id in (NIL, str(uuid.uuid4()), "1234"):
            assert appliance.get(f"/status/{task_id}").status_code == 404

    def test_unknown_task_at_result(self, appliance: Appliance) -> None:
        for task_id in (NIL, str(uuid.uuid4()), "1234"):
            assert appliance.get(f"/result/{task_id}").status_code == 404

    def test_keyword_arguments_and_none_result(self, appliance: Appliance) -> None:
        assert appliance.call(greet, "World", greeting="Hi") == "Hi, World"
        assert appliance.call(no_op) is None

    def test_arguments_that_do_not_fit(self, appliance: Appliance) -> None:
        status, value = appliance.result(appliance.submit(double, 1, 2, 3))
        assert status == "FAILED"
        assert isinstance(value, TypeError)

    def test_concurrent_same_function(self, appliance: Appliance) -> None:
        function_id = appliance.register(double)
        numbers = [random.randint(0, 1000) for _ in range(10)]
        tasks = [appliance.execute(function_id, number) for number in numbers]
        assert [appliance.result(task) for task in tasks] == [("COMPLETED", n * 2) for n in numbers]

    def test_ten_tasks_in_parallel(self, appliance: Appliance) -> None:
        function_id = appliance.register(double)

        def roundtrip(number: int) -> object:
            client = Appliance(appliance.url, http=requests.Session())
            return client.result(client.execute(function_id, number))

        with ThreadPoolExecutor(10) as pool:
            assert list(pool.map(roundtrip, range(10))) == [("COMPLETED", n * 2) for n in range(10)]

    def test_large_payload(self, appliance: Appliance) -> None:
        data = list(range(10_000))
        assert appliance.call(identity, data) == data


class TestFaultTolerance:
    def test_function_exception_handling(self, appliance: Appliance) -> None:
        status, value = appliance.result(appliance.submit(failing_task))
        assert status == "FAILED"
        assert isinstance(value, ValueError)
        assert str(value) == "This task is designed to fail"

    def test_task_timeout_detection(self, appliance: Appliance) -> None:
        started = time.monotonic()
        status, value = appliance.result(appliance.submit(sleep_task, 5))
        assert status == "FAILED"
        assert type(value).__name__ == "WorkerFailure"
        assert "exceeded deadline" in str(value)
        assert time.monotonic() - started < 5

    def test_multiple_task_failures(self, appliance: Appliance) -> None:
        function_id = appliance.register(failing_task)
        results = [appliance.result(task) for task in [appliance.execute(function_id) for _ in range(5)]]
        assert all(status == "FAILED" and isinstance(value, ValueError) for status, value in results)

    def test_mixed_success_and_failure(self, appliance: Appliance) -> None:
        good, bad, other = (
            appliance.submit(double, 5),
            appliance.submit(failing_task),
            appliance.submit(add, 3, 7),
        )
        assert appliance.result(good) == ("COMPLETED", 10)
        assert appliance.result(bad)[0] == "FAILED"
        assert appliance.result(other) == ("COMPLETED", 10)

    def test_redis_flushed(self, appliance: Appliance) -> None:
        if appliance.data_dir is None:
            pytest.skip("only of an appliance that the tests have started is the Redis known")
        function_id = appliance.register(sleep_task)
        tasks = [appliance.execute(function_id, 0.5) for _ in range(8)]
        appliance.redis().flushall()
        assert {appliance.result(task)[0] for task in tasks} == {"COMPLETED"}
        assert appliance.result(appliance.execute(function_id, 0))[0] == "COMPLETED"


@pytest.fixture(scope="module", params=[] if PLACES == ("elsewhere",) else ["pull", "push"])
def one_worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance with one worker of one slot and without a deadline."""
    folder = tmp_path_factory.mktemp("one-worker")
    with running(folder, "--mode", request.param, "--workers", "1") as live:
        yield live


@contextmanager
def another_worker(appliance: Appliance, slots: int) -> Iterator[None]:
    mode = appliance.mode
    command = [sys.executable, "-m", "worker", mode, str(slots), appliance.workers_url]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                assert process.wait(15) == 0
            finally:
                process.kill()


@pytest.mark.slow
class TestRemoteWorkers:
    def test_worker_killed_while_it_runs(self, one_worker: Appliance, tmp_path: Path) -> None:
        task = one_worker.submit(note_and_wait, str(tmp_path / "starts"), str(tmp_path / "go"))
        (first,) = until(lambda: starts(tmp_path / "starts"))
        os.kill(one_worker.pid("worker"), signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: not Path(f"/proc/{first}").exists(), timeout_s=5, what="the end of its slots")
        until(lambda: len(starts(tmp_path / "starts")) == 2, what="the second start")
        assert time.monotonic() - killed < 5 + 3  # noticed after 5 s without a word
        assert one_worker.status(task) == "RUNNING"
        (tmp_path / "go").touch()
        status, second = one_worker.result(task)
        assert (status, second) == ("COMPLETED", starts(tmp_path / "starts")[1])
        assert second != first

    def test_worker_joins_late(self, one_worker: Appliance, tmp_path: Path) -> None:
        function_id = one_worker.register(note_and_wait)
        tasks = [one_worker.execute(function_id, str(tmp_path / "starts"), str(tmp_path / "go")) for _ in range(3)]
        until(lambda: starts(tmp_path / "starts"))
        with another_worker(one_worker, slots=2):
            # The only slot there was is taken, so these two run on the one that came.
            until(lambda: len(starts(tmp_path / "starts")) == 3)
            (tmp_path / "go").touch()
            assert {one_worker.result(task)[0] for task in tasks} == {"COMPLETED"}
        assert one_worker.call(double, 2) == 4


class TestPerformance:
    def test_latency_no_op_tasks(self, appliance: Appliance) -> None:
        function_id = appliance.register(no_op)
        times = []
        for _ in range(10):
            started = time.monotonic()
            appliance.result(appliance.execute(function_id))
            times.append(time.monotonic() - started)
        assert statistics.mean(times) < 5.0

    def test_throughput_concurrent_tasks(self, appliance: Appliance) -> None:
        function_id = appliance.register(sleep_task)
        started = time.monotonic()
        tasks = [appliance.execute(function_id, 0.5) for _ in range(20)]
        assert {appliance.result(task)[0] for task in tasks} == {"COMPLETED"}
        assert time.monotonic() - started < 9.0  # one after the other they would take 10

    def test_weak_scaling_study(self, appliance: Appliance) -> None:
        function_id = appliance.register(cpu_task)
        tasks = [appliance.execute(function_id, 100_000) for _ in range(10)]
        assert {appliance.result(task) for task in tasks} == {("COMPLETED", cpu_task(100_000))}

    def test_latency_vs_throughput_tradeoff(self, appliance: Appliance) -> None:
        function_id = appliance.register(cpu_task)
        for size in (1, 5, 10):
            tasks = [appliance.execute(function_id, 50_000) for _ in range(size)]
            assert {appliance.result(task) for task in tasks} == {("COMPLETED", cpu_task(50_000))}
