"""Pull and push as people run them: what dies, stops, is cut off or told to leave costs no task more than its due."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from everythingfaas.status import State
from tests.conftest import Database, using
from tests.integration.site import FAAS, MANAGE, MODULE, Site, Trial, is_gone, proxy
from tests.integration.test_by_hand import clean_environment
from tests.live import ROOT, free_port, until
from tests.redis_fixture import Valkey

MODES = ["pull", "push"]
#: A worker is noticed when it has been silent for 5 s; the rest is for a machine that has other things to do.
NOTICED_S = 5.0 + 2.0


@pytest.fixture
def site(tmp_path: Path, sqlite_database: Database, valkey: Valkey) -> Iterator[Site]:
    with using(sqlite_database):
        live = Site(tmp_path, sqlite_database, valkey)
        yield live
        live.close()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def url(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


def both_work(site: Site, *names: str) -> None:
    """All slots run at the same time: each of these waits for the others."""
    trials = [Trial(site, name) for name in names]
    for trial in trials:
        trial.begun()
    for trial in trials:
        trial.let_go()
    assert [trial.value() for trial in trials] == [trial.pids[0] for trial in trials]


@pytest.mark.parametrize("mode", MODES)
def test_every_command_starts_a_worker_that_leaves_in_order(site: Site, mode: str, port: int, url: str) -> None:
    site.dispatcher(mode, port, wait=False)
    workers = [site.worker(mode, 1, url, via=via, registered=False) for via in (MODULE, MANAGE, FAAS)]
    for worker in workers:
        worker.says("registered with the dispatcher")
    both_work(site, "a", "b", "c")
    for worker, number in zip(workers, (signal.SIGTERM, signal.SIGINT, signal.SIGTERM), strict=True):
        worker.signal(number)
    assert [worker.ends() for worker in workers] == [0, 0, 0]
    assert all("has stopped: drained" in worker.said for worker in workers)


@pytest.mark.parametrize("mode", MODES)
def test_who_joins_late_gets_work_at_once(site: Site, mode: str, port: int, url: str) -> None:
    site.dispatcher(mode, port)
    waiting = Trial(site, "waiting")
    site.worker(mode, 1, url)
    waiting.begun()
    late = Trial(site, "late")
    site.worker(mode, 1, url)
    late.begun(timeout_s=1.5)
    for trial in (waiting, late):
        trial.let_go()
        trial.value()


@pytest.mark.parametrize("mode", MODES)
def test_a_cancel_in_the_database_kills(site: Site, mode: str, port: int, url: str) -> None:
    site.dispatcher(mode, port)
    site.worker(mode, 1, url)
    trial = Trial(site)
    pid = trial.begun()
    site.cancel(trial.task)
    until(lambda: site.state(trial.task).is_terminal, timeout_s=3)
    ended = time.monotonic()
    assert site.state(trial.task) is State.CANCELLED
    assert is_gone(pid)
    assert site.value(site.submit(abs, -1)) == 1
    assert time.monotonic() - ended < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "via"), [("pull", MANAGE), ("push", MODULE)], ids=MODES)
def test_a_stopped_worker_is_noticed_and_works_on_later(
    site: Site, mode: str, via: tuple[str, ...], port: int, url: str
) -> None:
    site.dispatcher(mode, port)
    workers = [site.worker(mode, 1, url, via=via) for _ in range(2)]
    trial, once = Trial(site, "retried"), Trial(site, "once", at_most_once=True)
    pids = trial.begun(), once.begun()
    stopped = time.monotonic()
    for worker in workers:
        worker.signal(signal.SIGSTOP)
    site.worker(mode, 1, url)
    trial.begun(2, timeout_s=NOTICED_S)
    assert 3.0 < time.monotonic() - stopped < NOTICED_S
    until(lambda: site.state(once.task) is State.FAILED, timeout_s=1)
    assert not any(is_gone(pid) for pid in pids)
    for worker in workers:
        worker.signal(signal.SIGCONT)
    until(lambda: all(is_gone(pid) for pid in pids), timeout_s=4, what="the kill of what is nobody's")
    trial.let_go()
    assert trial.value() == trial.pids[1]
    assert site.counts(trial.task) == (2, 2, 1)
    assert len(once.pids) == 1
    both_work(site, "a", "b", "c")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("directions", [("up", "down"), ("up",), ("down",)], ids="-".join)
def test_a_worker_that_is_cut_off_is_noticed_and_works_on_later(
    site: Site, mode: str, directions: tuple[str, ...], port: int, url: str
) -> None:
    site.dispatcher(mode, port)
    with proxy(port) as network:
        site.worker(mode, 1, network.url)
        trial = Trial(site)
        pid = trial.begun()
        until(lambda: site.counts(trial.task)[1] == 1, what="the start in the books")
        network.cut(*directions)
        cut = time.monotonic()
        site.worker(mode, 1, url)
        # Who hears nothing says so for 5 s, and is believed to be there for as long.
        within_s = NOTICED_S if "up" in directions else NOTICED_S + 5.0
        trial.begun(2, timeout_s=within_s)
        assert 3.0 < time.monotonic() - cut < within_s
        assert not is_gone(pid)
        network.restore()
        until(lambda: is_gone(pid), timeout_s=6, what="the kill of what is nobody's")
        trial.let_go()
        assert trial.value() == trial.pids[1]
        assert site.counts(trial.task) == (2, 2, 1)
        both_work(site, "a", "b")


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_that_breaks_costs_nothing(site: Site, mode: str, port: int) -> None:
    site.dispatcher(mode, port)
    with proxy(port) as network:
        site.worker(mode, 2, network.url)
        trial = Trial(site)
        pid = trial.begun()
        network.reset()
        assert site.value(site.submit(abs, -1)) == 1
        trial.let_go()
        assert trial.value() == pid
        assert site.counts(trial.task) == (1, 1, 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_dispatcher_killed_hard_and_restarted_at_once(site: Site, mode: str, port: int, url: str) -> None:
    dispatcher = site.dispatcher(mode, port)
    site.worker(mode, 2, url)
    trial, other = Trial(site), Trial(site, "other")
    for running in (trial, other):
        running.begun()
    dispatcher.signal(signal.SIGKILL)
    dispatcher.ends()
    other.let_go()  # ends on the connection that is gone
    site.dispatcher(mode, port)
    assert other.value(timeout_s=10) == other.begun()
    trial.let_go()
    assert trial.value() == trial.begun()
    assert [site.counts(t.task) for t in (trial, other)] == [(1, 1, 0)] * 2
    both_work(site, "a", "b")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_dispatcher_killed_hard_finds_everything_again(site: Site, mode: str, port: int, url: str) -> None:
    dispatcher = site.dispatcher(mode, port)
    worker = site.worker(mode, 2, url)
    short, long = Trial(site, "short"), Trial(site, "long")
    for trial in (short, long):
        trial.begun()
        until(lambda task=trial.task: site.counts(task)[1] == 1, what="the start in the books")
    dispatcher.signal(signal.SIGKILL)
    dispatcher.ends()
    killed = time.monotonic()
    short.let_go()  # ends while there is no dispatcher
    worker.says("lost the dispatcher", timeout_s=8)
    until(lambda: time.monotonic() - killed > 7.0)
    site.dispatcher(mode, port)
    assert short.value() == short.begun()
    long.let_go()
    assert long.value() == long.begun()
    assert [site.counts(trial.task) for trial in (short, long)] == [(1, 1, 0)] * 2
    both_work(site, "a", "b")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_next_dispatcher_is_tried_when_one_is_gone(site: Site, mode: str, port: int, url: str) -> None:
    first = site.dispatcher(mode, port, data="first")
    worker = site.worker(mode, 2, url, f"tcp://127.0.0.1:{(other := free_port())}")
    trial, more = Trial(site), Trial(site, "more")
    trial.begun(), more.begun()
    until(lambda: site.counts(trial.task)[1] == 1, what="the start in the books")
    site.dispatcher(mode, other, data="second")
    first.signal(signal.SIGKILL)
    worker.says(f"registered with the dispatcher at tcp://127.0.0.1:{other}", timeout_s=12)
    trial.let_go()  # its result waits for the lease of the first one to run out
    assert trial.value(timeout_s=15) == trial.begun()
    more.let_go()
    assert more.value() == more.begun()
    assert [site.counts(t.task) for t in (trial, more)] == [(1, 1, 0)] * 2


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_told_to_stop_drains(site: Site, mode: str, port: int, url: str) -> None:
    site.dispatcher(mode, port)
    worker = site.worker(mode, 1, url)
    for task in [site.submit(abs, -number) for number in range(80)]:
        site.value(task)  # so many short ones, and more are sent than there are slots
    trials = [Trial(site, f"trial {number}") for number in range(6)]
    trials[0].begun()
    until(lambda: site.counts(trials[1].task)[0] == 1, what="one that is sent ahead")
    worker.signal(signal.SIGTERM)
    worker.says("stopping when 1 running tasks have ended")
    other = site.worker(mode, 5, url)
    for trial in trials[1:]:
        assert other.runs(trial.begun(timeout_s=3))
    for trial in trials:
        trial.let_go()
    assert worker.ends() == 0
    assert [trial.value() for trial in trials] == [trial.begun() for trial in trials]
    assert [site.counts(trial.task)[1:] for trial in trials] == [(1, 0)] * 6


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_told_twice_kills_what_runs(site: Site, mode: str, port: int, url: str) -> None:
    site.dispatcher(mode, port)
    worker = site.worker(mode, 1, url)
    trial = Trial(site)
    pid = trial.begun()
    worker.signal(signal.SIGTERM)
    worker.says("stopping when")
    told = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.ends() == 0
    assert time.monotonic() - told < 2.0
    assert is_gone(pid)
    site.worker(mode, 1, url)
    trial.begun(2)
    trial.let_go()
    assert trial.value() == trial.pids[1]
    assert site.counts(trial.task) == (2, 2, 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_function_travels_once_to_each_worker(site: Site, mode: str, port: int) -> None:
    marker = os.urandom(4).hex() * 400

    def marked(number: int) -> tuple[int, int]:
        return number, len(marker)

    site.dispatcher(mode, port)
    with proxy(port, sniff=marker[:3000].encode()) as first, proxy(port, sniff=marker[:3000].encode()) as second:
        for network in (first, second):
            site.worker(mode, 2, network.url)
        for numbers in (range(20), range(20, 40)):
            tasks = [site.submit(marked, number) for number in numbers]
            assert [site.value(task) for task in tasks] == [(number, len(marker)) for number in numbers]
        assert (first.seen, second.seen) in ((1, 1), (0, 1), (1, 0))


@pytest.mark.parametrize(("ours", "theirs"), [("pull", "push"), ("push", "pull")])
def test_a_worker_of_the_other_mode_is_refused(site: Site, ours: str, theirs: str, port: int, url: str) -> None:
    site.dispatcher(ours, port)
    worker = site.worker(theirs, 1, url, registered=False)
    assert worker.ends() == 1
    reason = f"this dispatcher serves {ours} workers; start a {ours} worker, not a {theirs} one"
    assert f"the dispatcher refuses this worker: {reason}" in worker.said


def test_a_port_in_use_is_one_line(site: Site, port: int) -> None:
    site.dispatcher("push", port)
    second = site.dispatcher("pull", port, data="second", wait=False)
    assert second.ends() == 1
    (line,) = second.said.splitlines()
    assert f"cannot listen on tcp://127.0.0.1:{port}" in line
    assert "-p" in line


WRONG = [
    ["manage.py", "push_worker"],
    ["manage.py", "push_worker", "4"],
    ["manage.py", "pull_worker", "0", "tcp://localhost:5555"],
    ["manage.py", "pull_worker", "4", "localhost:5555"],
    ["-m", "worker"],
    ["-m", "worker", "local", "4", "tcp://localhost:5555"],
    ["-m", "worker", "push", "x", "tcp://localhost:5555"],
    ["-m", "worker", "pull", "4", "tcp://localhost:99999"],
    [*FAAS[:3], "push", "4"],
    [*FAAS[:3], "push", "0", "tcp://localhost:5555"],
    [*FAAS[:3], "pull", "4", "http://localhost:5555"],
    ["manage.py", "task_dispatcher", "-m", "push", "-p", "0"],
    ["manage.py", "task_dispatcher", "-m", "pull", "-p", "99999"],
]


@pytest.mark.parametrize("command", WRONG, ids=lambda command: " ".join(command[-4:]))
def test_wrong_arguments_are_told_with_the_usage(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.lower().startswith("usage: ")


GREETING = bytes.fromhex("ff00000000000000017f03")


@pytest.mark.parametrize("said", [b"", GREETING], ids=["silent", "half a greeting"])
def test_more_connections_than_there_may_be(site: Site, port: int, url: str, said: bytes) -> None:
    """Who is known already is served, and others are as soon as those are gone that only came to be there."""
    dispatcher = site.dispatcher("push", port)
    site.worker("push", 2, url)
    assert site.value(site.submit(abs, -1)) == 1
    psutil.Process(dispatcher.process.pid).rlimit(psutil.RLIMIT_NOFILE, (300, 300))
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            client = stack.enter_context(socket.socket())
            client.settimeout(0.002)
            with contextlib.suppress(OSError):
                client.connect(("127.0.0.1", port))
                client.send(said)
        for _ in range(5):
            asked = time.monotonic()
            assert site.value(site.submit(abs, -1)) == 1
            assert time.monotonic() - asked < 1.0
    assert dispatcher.process.poll() is None
    site.worker("push", 1, url)
    both_work(site, "a", "b", "c")
