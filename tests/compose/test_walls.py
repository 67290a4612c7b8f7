"""What containers may do, seen from inside them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.compose.stack import SERVICES, Stack

pytestmark = pytest.mark.timeout(300)

#: Where a worker must not come, and where it must. `host` is the address that this machine would have in its network.
GOALS = {
    "db": ("db", 5432),
    "redis": ("redis", 6379),
    "web": ("web", 8000),
    "host": ("", 8000),
    "internet": ("1.1.1.1", 443),
    "dispatcher": ("dispatcher", 5555),
}
INTERNET_NAME = "pypi.org"


def look_around() -> Any:
    """A function, sent by value, that tells what it sees."""

    def look(goals: dict[str, tuple[str, int]], name: str) -> dict[str, Any]:
        import os
        import socket
        from pathlib import Path

        def gateway() -> str:
            for line in Path("/proc/net/route").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1] == "00000000":
                    return socket.inet_ntoa(bytes.fromhex(fields[2])[::-1])
            return "127.0.0.1"

        def reaches(host: str, port: int) -> bool:
            try:
                socket.create_connection((host or gateway(), port), 1).close()
            except OSError:
                return False
            return True

        def resolves() -> bool:
            try:
                socket.getaddrinfo(name, 443)
            except OSError:
                return False
            return True

        def writes(folder: str) -> bool:
            try:
                path = Path(folder, "written")
                path.touch()
                path.unlink()
            except OSError:
                return False
            return True

        return {
            "uid": os.getuid(),
            "environ": dict(os.environ),
            "reaches": {goal for goal, address in goals.items() if reaches(*address)},
            "resolves": resolves(),
            "writes": {folder for folder in ("/", "/opt/faas", "/functions", "/secrets", "/tmp") if writes(folder)},
            "networks": {interface for _, interface in socket.if_nameindex()} - {"lo"},
        }

    return look


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_may_do_little(running: Stack, service: str) -> None:
    status = running.run_in(service, "cat /proc/1/status")
    fields = dict(re.findall(r"^(\w+):\t(.*)$", status, re.MULTILINE))
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Uid"].split()[0] != "0"
    assert running.run_in(service, "touch /here 2>/dev/null && echo written || echo not written") == "not written"
    assert running.run_in(service, "awk '$2 == \"/\" {print $4}' /proc/mounts").split(",")[0] == "ro"
    (container,) = running.inspect(service)
    limits = container["HostConfig"]
    assert limits["Memory"] > 0
    assert limits["PidsLimit"] > 0
    assert limits["Init"]
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"
    assert limits["LogConfig"]["Config"]["max-size"]
    assert not limits["Privileged"]


def test_only_the_web_is_published_and_on_loopback_alone(running: Stack) -> None:
    published = {
        service: [binding for found in container["NetworkSettings"]["Ports"].values() for binding in found or []]
        for service in SERVICES
        for container in running.inspect(service)
    }
    assert {service for service, bindings in published.items() if bindings} == {"web"}
    assert {binding["HostIp"] for binding in published["web"]} == {"127.0.0.1"}


def test_no_secret_is_in_anybodys_environment_or_arguments(running: Stack) -> None:
    secrets = running.run_in("web", "for file in /secrets/server/*; do cat $file; echo; done").split()
    passwords = {
        part for secret in secrets for part in re.findall(r"://\w*:(\w+)@|^([\w-]{64})$", secret) for part in part
    }
    passwords.discard("")
    assert len(passwords) == 3
    for service in SERVICES:
        seen = str(running.inspect(service))
        seen += running.run_in(
            service, "cat /proc/[0-9]*/cmdline; for file in /proc/[0-9]*/environ; do cat $file; done 2>/dev/null; true"
        )
        assert not [password for password in passwords if password in seen]


def test_a_function_reaches_the_dispatcher_and_nothing_else(running: Stack) -> None:
    status, seen = running.client().result(running.client().submit(look_around(), GOALS, INTERNET_NAME))
    assert status == "COMPLETED", seen
    assert seen["reaches"] == {"dispatcher"}
    assert not seen["resolves"]
    assert seen["uid"] == 10001
    assert seen["writes"] == {"/tmp"}
    assert not [name for name in seen["environ"] if name.startswith("FAAS_") and name != "FAAS_DATA_DIR"]


def test_a_function_of_local_mode_has_no_network_at_all(running: Stack) -> None:
    running.up(FAAS_MODE="local")
    status, seen = running.client().result(running.client().submit(look_around(), GOALS, INTERNET_NAME))
    running.up(FAAS_MODE="push")
    assert status == "COMPLETED", seen
    assert (seen["reaches"], seen["networks"], seen["writes"]) == (set(), set(), {"/tmp"})


def test_the_web_is_closed_to_pages_of_others(running: Stack) -> None:
    client = running.client()
    assert client.get("/readyz").status_code == 200
    assert client.get("/readyz", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/readyz", headers={"Origin": "http://evil.example"}).status_code == 403


def test_secrets_are_made_once(running: Stack) -> None:
    before = running.run_in("web", "cat /secrets/server/*")
    running.compose("up", "--detach", "--force-recreate", "--no-deps", "init")
    running.compose("wait", "init")
    assert running.run_in("web", "cat /secrets/server/*") == before
