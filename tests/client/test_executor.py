"""The executor, on a real appliance. What CPython's own tests check is not repeated here."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import itertools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everythingfaas import TaskCancelled, WorkerFailure
from everythingfaas.client import Client, Executor, RemoteFuture, inbox
from everythingfaas.client.results import RemoteTraceback
from everythingfaas.errors import Refused, Unreachable, UnreadableResult
from tests.integration.site import proxy
from tests.live import Appliance, free_port, until

FACTOR = 3


class OurError(ValueError):
    """Of this module, which no worker has."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def triple(x: int) -> int:
    return FACTOR * x


def through_helper(x: int) -> int:
    return triple(x) + 1


def fails(code: int) -> None:
    raise OurError(code)


def moved(point: Point) -> Point:
    return Point(point.x + 1)


def note(folder: str, x: int) -> int:
    """Writes down each time that it is run."""
    with open(os.path.join(folder, str(x)), "a") as file:
        file.write("ran\n")
    return x


def rows(faas: Appliance, question: str, *values: Any) -> Any:
    assert faas.data_dir is not None
    database = sqlite3.connect(f"file:{faas.data_dir / 'db.sqlite3'}?mode=ro", uri=True)
    try:
        return database.execute(question, values).fetchone()[0]
    finally:
        database.close()


def test_functions_travel_with_what_they_use(executor: Executor):
    assert executor.submit(through_helper, 5).result(20) == 16
    assert executor.submit(lambda: FACTOR).result(20) == 3
    assert executor.submit(functools.partial(max, 3), 2).result(20) == 3
    assert executor.submit(str.upper, "x").result(20) == "X"


def test_instances_come_home(executor: Executor):
    point = executor.submit(moved, Point(1)).result(20)
    assert type(point) is Point
    assert point.x == 2


def test_what_was_raised_is_what_it_was_and_shows_where(executor: Executor):
    raised = executor.submit(fails, 7).exception(20)
    assert type(raised) is OurError
    assert raised.code == 7
    assert isinstance(raised.__cause__, RemoteTraceback)
    assert "in fails" in str(raised.__cause__)


@pytest.mark.parametrize(
    ("function", "says"),
    [(lambda: os._exit(3), "exit"), (lambda: os.kill(os.getpid(), 9), "SIGKILL|signal")],
    ids=["exits", "is killed"],
)
def test_what_the_system_says_is_a_failure_of_ours(faas: Appliance, function: Any, says: str):
    with Executor(faas.url, max_attempts=1) as executor:
        raised = executor.submit(function).exception(20)
    assert isinstance(raised, WorkerFailure)
    with pytest.raises(WorkerFailure, match=says):
        raise raised


def test_policies_are_those_of_its_tasks(faas: Appliance):
    with Executor(faas.url, deadline_s=0.3) as executor:
        raised = executor.submit(time.sleep, 30).exception(20)
    assert isinstance(raised, WorkerFailure)
    assert "exceeded deadline" in str(raised)


def test_a_policy_that_is_none_is_refused(faas: Appliance):
    with Executor(faas.url, deadlines=0.3) as executor:
        raised = executor.submit(len, "").exception(20)
    assert isinstance(raised, Refused)
    assert "deadlines" in str(raised)


def test_a_result_that_cannot_be_loaded_here_says_what_is_missing(executor: Executor):
    def here_only() -> object:
        import sys
        import types

        module = types.ModuleType("of_the_worker")
        exec("class Thing: pass", module.__dict__)
        sys.modules["of_the_worker"] = module
        return module.Thing

    raised = executor.submit(here_only).exception(20)
    assert isinstance(raised, UnreadableResult)
    assert "'of_the_worker'" in str(raised)
    assert "of_the_worker" in raised.raw.decode("latin1")


def test_what_cannot_be_pickled_costs_only_its_own_future(executor: Executor):
    bad, good = executor.submit(len, threading.Lock()), executor.submit(len, "abc")
    assert isinstance(bad.exception(20), TypeError)
    assert good.result(20) == 3


def test_what_is_too_large_costs_only_its_own_future(executor: Executor):
    futures = [executor.submit(len, argument) for argument in ("a", bytes(17 * 1024**2), "bc")]
    refused = futures[1].exception(30)
    assert isinstance(refused, Refused)
    assert refused.status == 413
    assert [futures[0].result(20), futures[2].result(20)] == [1, 2]


def test_batches_form_by_themselves_and_functions_are_sent_once(faas: Appliance, executor: Executor):
    functions = rows(faas, "SELECT count(*) FROM api_function")
    assert list(executor.map(triple, range(3000))) == [3 * x for x in range(3000)]
    assert [executor.submit(triple, x).result(20) for x in range(3)] == [0, 3, 6]
    assert executor.batch_id is not None
    parts = rows(faas, "SELECT count(*) FROM api_batchpart WHERE batch_id = ?", executor.batch_id.hex)
    assert parts < 60
    assert rows(faas, "SELECT count(*) FROM api_function") == functions + 1


def test_a_function_is_sent_again_when_what_it_uses_has_changed(executor: Executor):
    step, kept = 1, [1]

    def stepped(x: int) -> int:
        return x + step + len(kept)

    assert executor.submit(stepped, 1).result(20) == 3
    step = 2
    assert executor.submit(stepped, 1).result(20) == 4
    kept.append(2)
    assert executor.submit(stepped, 1).result(20) == 5


def test_map_takes_what_it_needs_and_no_more(executor: Executor):
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken - 1

    values = executor.map(triple, endless(), buffersize=40)
    assert list(itertools.islice(values, 100)) == [3 * x for x in range(100)]
    assert taken <= 140 + 1
    values.close()  # type: ignore[attr-defined]  # a generator
    assert executor.submit(triple, 1).result(20) == 3


def test_map_in_chunks(executor: Executor, faas: Appliance):
    assert list(executor.map(pow, range(100), itertools.repeat(2), chunksize=30)) == [x * x for x in range(100)]
    assert rows(faas, "SELECT size FROM api_batch WHERE id = ?", str(executor.batch_id).replace("-", "")) == 4


def test_progress_gives_the_same_values(
    executor: Executor, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    # What another test has closed, and logging still writes to, would have its say here.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    assert list(executor.map(triple, range(20), progress=True)) == [3 * x for x in range(20)]
    assert capfd.readouterr().err == "", "this is no terminal"


def test_cancel_leaves_alone_what_runs_unless_forced(executor: Executor, client: Client):
    runs = [executor.submit(time.sleep, 60) for _ in range(2)]
    waits = executor.submit(triple, 1)
    until(lambda: [client.status(run.task_id) for run in runs if run.task_id] == ["RUNNING"] * 2)
    assert waits.cancel() in (True, False)  # it may be with the worker already, which counts as running
    assert not runs[0].cancel()
    assert runs[0].cancel(force=True)
    assert runs[0].cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        runs[0].result(5)
    assert runs[1].cancel(force=True)
    assert runs[1].cancel(), "again"
    assert waits.cancelled() or waits.result(20) == 3


def test_what_somebody_else_cancels_is_cancelled(executor: Executor, client: Client):
    future = executor.submit(time.sleep, 60)
    until(lambda: future.task_id)
    assert future.task_id is not None
    client.cancel(future.task_id, wait=10)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(10)
    with pytest.raises(TaskCancelled):
        client.result(future.task_id)


def test_what_has_not_been_sent_is_cancelled_here(faas: Appliance):
    with Executor(faas.url, max_workers=1) as executor:
        first = executor.submit(time.sleep, 0.5)
        others = [executor.submit(triple, x) for x in range(5)]
        assert all(other.cancel() for other in others[1:])
        assert others[0].result(20) == 0
        assert first.result() is None


def test_shutdown_calls_off_what_has_not_begun(faas: Appliance, client: Client):
    executor = Executor(faas.url)
    futures = [executor.submit(time.sleep, 0.5) for _ in range(50)]
    until(lambda: "RUNNING" in [client.status(one.task_id) for one in futures[:2] if one.task_id])
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert sum(future.cancelled() for future in futures) > 20
    ran = [future for future in futures if not future.cancelled()]
    assert ran
    assert [future.result() for future in ran] == [None] * len(ran)


def test_asyncio_awaits_its_futures(executor: Executor):
    async def main() -> list[int]:
        return await asyncio.gather(*(asyncio.wrap_future(executor.submit(triple, x)) for x in range(10)))

    assert asyncio.run(main()) == [3 * x for x in range(10)]


def test_large_arguments_and_results(executor: Executor):
    data = os.urandom(3 * 1024**2)
    assert executor.submit(lambda data: data[::-1], data).result(30) == data[::-1]


def test_many_threads_may_submit(executor: Executor):
    results: list[int] = []

    def work(n: int) -> None:
        results.extend(executor.submit(triple, x).result(30) for x in range(n * 10, n * 10 + 10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [3 * x for x in range(80)]


def test_where_no_socket_is_opened_results_come_by_polls(faas: Appliance, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inbox, "FOLLOW", "/api/v1/nothing")
    with Executor(faas.url) as executor:
        assert list(executor.map(triple, range(200))) == [3 * x for x in range(200)]
        data = os.urandom(1024**2)
        assert executor.submit(lambda data: data, data).result(30) == data


def test_connections_that_break_lose_nothing_and_do_nothing_twice(faas: Appliance, tmp_path: Path):
    port = int(faas.url.rpartition(":")[2])
    with proxy(port) as between:
        url = between.url.replace("tcp", "http")
        over = threading.Event()

        def breaks() -> None:
            while not over.wait(0.1):
                between.reset()

        breaker = threading.Thread(target=breaks)
        breaker.start()
        try:
            with Executor(url) as executor:
                futures: list[RemoteFuture] = []
                for x in range(300):
                    futures.append(executor.submit(note, str(tmp_path), x))
                    time.sleep(0.003)
                assert [future.result(60) for future in futures] == list(range(300))
        finally:
            over.set()
            breaker.join()
    assert {path.read_text() for path in tmp_path.iterdir()} == {"ran\n"}
    assert len(list(tmp_path.iterdir())) == 300


def test_nobody_there_is_said_after_a_while():
    with Executor(f"http://127.0.0.1:{free_port()}", patience_s=0.3) as executor:
        raised = executor.submit(len, "").exception(10)
    assert isinstance(raised, Unreachable)
    assert "FAAS_URL" in str(raised)
