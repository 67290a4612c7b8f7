"""Nothing accepted is lost: containers killed under load, restarted, stopped, replaced by newer ones, taken down."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.compose.load import Load
from tests.compose.stack import SERVICES, Stack, docker
from tests.live import until

pytestmark = pytest.mark.timeout(300)

#: Tasks that are accepted before and after what happens.
SOME = 60
#: Of the tasks that are queued and running when containers are stopped: how many, and how long each takes.
QUEUED, SECONDS = 24, 1.5


@pytest.fixture
def load(running: Stack) -> Load:
    running.until_healthy()
    return Load(running.client())


def queue_up(project: Stack) -> Load:
    """Tasks for all slots, and more that wait for one."""
    load = Load(project.client(), seconds=SECONDS)
    with requests.Session() as http:
        for number in range(QUEUED):
            load.submit(number, http)
    states = [project.client().status(task) for task in load.accepted]
    assert "QUEUED" in states
    until(lambda: any(project.client().status(task) == "RUNNING" for task in load.accepted), timeout_s=10)
    return load


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_killed(running: Stack, load: Load, service: str) -> None:
    with load.going_on():
        load.grows_by(SOME)
        docker("kill", "--signal", "KILL", *running.containers(service))
        # Docker takes that for a wish of ours, and does not restart it.
        docker("start", *running.containers(service))
        load.grows_by(SOME)
    load.check()
    running.until_healthy()


def test_what_crashes_is_restarted(running: Stack, load: Load) -> None:
    crashing = ("redis", "web", "dispatcher", "worker")
    with load.going_on():
        load.grows_by(SOME)
        for service in crashing:
            (container,) = running.containers(service)
            docker("exec", container, "sh", "-c", "kill -9 -1", check=False)  # which ends this shell's container, too
        for service in crashing:
            until(
                lambda service=service: running.inspect(service)[0]["RestartCount"] > 0,
                timeout_s=30,
                what=f"{service} is restarted",
            )
        load.grows_by(SOME)
    load.check()
    running.until_healthy()


@pytest.mark.parametrize("service", ["dispatcher", "worker"])
def test_what_is_stopped_is_restarted(running: Stack, load: Load, service: str) -> None:
    """As a function may do to the worker that it runs on. No engine restarts what is merely unhealthy."""
    (container,) = running.containers(service)
    before = running.inspect(service)[0]["RestartCount"]
    with load.going_on():
        load.grows_by(SOME)
        docker("exec", container, "sh", "-c", "kill -STOP $(cat /proc/1/task/1/children)")
        until(
            lambda: running.inspect(service)[0]["RestartCount"] > before,
            timeout_s=60,
            what=f"{service} is restarted",
        )
        load.grows_by(SOME)
    load.check()
    running.until_healthy()


def test_restart(running: Stack) -> None:
    load = queue_up(running)
    running.compose("restart")
    running.until_healthy()
    load.check()


def test_stop_and_start(running: Stack) -> None:
    load = queue_up(running)
    running.compose("stop")
    running.compose("start")
    running.until_healthy()
    load.check()


def test_down_and_up(running: Stack) -> None:
    before = Load(running.client())
    with before.going_on():
        before.grows_by(SOME)
    load = queue_up(running)
    running.compose("down")
    assert running.containers() == []
    running.up()
    load.check()
    before.check()


def test_upgrade(running: Stack) -> None:
    def revisions() -> set[Any]:
        found = [running.inspect(service)[0] for service in ("web", "dispatcher", "worker")]
        return {container["Config"]["Labels"]["org.opencontainers.image.revision"] for container in found}

    load = queue_up(running)
    assert revisions() == {""}
    database, *_ = running.containers("db")
    former = {running.inspect(service)[0]["Image"] for service in ("web", "worker")}
    running.up("--build", REVISION="next")
    assert revisions() == {"next"}
    assert running.containers("db") == [database]
    load.check()
    docker("image", "rm", *former)


def test_scale(running: Stack) -> None:
    running.up("--scale", "worker=3")
    load = queue_up(running)
    assert len(running.containers("worker")) == 3
    load.check()

    def where() -> str:
        import platform
        import time

        time.sleep(0.5)
        return platform.node()

    client = running.client()
    function = client.register(where)
    tasks = [client.execute(function) for _ in range(12)]
    hosts = {client.result(task)[1] for task in tasks}
    assert hosts == {container[:12] for container in running.containers("worker")}
    with (busy := Load(client)).going_on():
        busy.grows_by(SOME)
        docker("kill", "--signal", "KILL", running.containers("worker")[0])
        busy.grows_by(SOME)
    busy.check()
    running.up("--scale", "worker=1")


def test_a_worker_says_whether_it_is_registered(running: Stack) -> None:
    running.until_healthy()
    running.compose("stop", "dispatcher")
    until(lambda: running.health("worker") == {"unhealthy"}, timeout_s=60, what="the worker is unhealthy")
    running.compose("start", "dispatcher")
    running.until_healthy("dispatcher", "worker")
