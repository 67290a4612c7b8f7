"""Two dispatchers on one database, as real processes: they share the queue, and one inherits from the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.neighbours import TAKE_OVER_S
from dispatcher.store import LEASE_S
from everythingfaas.status import State
from tests.conftest import Database, using
from tests.integration.site import Site, Trial, free_port, is_gone
from tests.live import until
from tests.redis_fixture import Valkey

#: Until a dispatcher is taken over; the rest is for a machine that has other things to do.
TAKEN_OVER_S = LEASE_S + TAKE_OVER_S + 10.0

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path, sqlite_database: Database, valkey: Valkey) -> Iterator[Site]:
    with using(sqlite_database):
        live = Site(tmp_path, sqlite_database, valkey)
        yield live
        live.close()


def test_they_share_the_queue(site: Site) -> None:
    site.dispatcher("local", free_port(), "-w", "1", data="first")
    site.dispatcher("local", free_port(), "-w", "1", data="second")
    trials = [Trial(site, name) for name in ("one", "other")]
    for trial in trials:
        trial.begun()
    for trial in trials:
        trial.let_go()
    assert [trial.value() for trial in trials] == [trial.pids[0] for trial in trials]


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_a_worker_takes_along_what_it_runs(site: Site, mode: str) -> None:
    ports = free_port(), free_port()
    dead = site.dispatcher(mode, ports[0], data="first")
    worker = site.worker(mode, 1, *(f"tcp://127.0.0.1:{port}" for port in ports))
    alive = site.dispatcher(mode, ports[1], data="second")
    trial = Trial(site, at_most_once=True)
    pid = trial.begun()
    dead.signal(signal.SIGKILL)
    worker.says("registered with the dispatcher", times=2)
    trial.let_go()
    assert trial.value(timeout_s=TAKEN_OVER_S) == pid
    assert site.counts(trial.task) == (1, 1, 0)
    alive.signal(signal.SIGTERM)
    assert alive.ends() == 0


def test_one_inherits_and_the_other_learns_it_when_it_comes_back(site: Site) -> None:
    first = site.dispatcher("local", free_port(), "-w", "1", data="first")
    trial = Trial(site)
    pid = trial.begun()
    second = site.dispatcher("local", free_port(), "-w", "1", data="second")
    first.signal(signal.SIGSTOP)
    trial.begun(2, timeout_s=TAKEN_OVER_S)
    second.says("is dead, took over 1 attempts")
    until(lambda: site.counts(trial.task) == (2, 2, 1), what="a start and a death more")
    first.signal(signal.SIGCONT)
    assert first.ends() == 1
    first.says("another process has taken over what this dispatcher had given out")
    until(lambda: is_gone(pid), what="the end of what it ran")
    trial.let_go()
    assert trial.value() == trial.pids[1]
    again = site.dispatcher("local", free_port(), "-w", "1", data="first")
    trials = [Trial(site, name) for name in ("one", "other")]
    owners = [trial.begun() for trial in trials]
    assert sorted(map(again.runs, owners)) == [False, True]
    for other in trials:
        other.let_go()
        other.value()


def test_what_dies_with_its_worker_is_inherited(site: Site) -> None:
    port = free_port()
    dead = site.dispatcher("push", port, data="first")
    worker = site.worker("push", 1, f"tcp://127.0.0.1:{port}")
    once, again = Trial(site, "once", at_most_once=True), Trial(site, "again")
    once.begun()
    os.kill(worker.process.pid, signal.SIGKILL)
    dead.signal(signal.SIGKILL)
    site.dispatcher("local", free_port(), "-w", "1", data="second")
    until(lambda: site.state(once.task).is_terminal, timeout_s=TAKEN_OVER_S, what="the end of what may start once")
    assert site.state(once.task) is State.FAILED
    again.begun()
    again.let_go()
    again.value()
    assert len(once.pids) == 1
