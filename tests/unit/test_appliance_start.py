"""What is looked at before anything starts, and the embedded Redis."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from appliance.await_ready import answer
from appliance.child import spawn
from appliance.folder import DataFolder
from appliance.lifecycle import Role
from appliance.plan import build_plan
from appliance.ports import check_ports
from appliance.valkey import MAX_SOCKET_PATH, choose_socket, forget_socket, say_goodbye, server_command
from everythingfaas.errors import ConfigurationError
from everythingfaas.proctree import find_by_environment
from everythingfaas.settings import Settings


@pytest.fixture
def folder(tmp_path):
    folder = DataFolder(tmp_path / "data")
    folder.prepare()
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_folders_are_for_us_alone(folder):
    for path in (folder.path, folder.run, folder.log, folder.redis):
        assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/x"])
def test_a_data_folder_that_cannot_be_written(place):
    with pytest.raises(ConfigurationError, match=f"FAAS_DATA_DIR={place} cannot be written: .*--data-dir"):
        DataFolder(Path(place)).prepare()


def test_the_lock_is_had_once_and_free_when_closed(folder):
    held = folder.lock()
    with pytest.raises(ConfigurationError, match=f"in use by another `faas up` \\(process {os.getpid()}\\)"):
        folder.lock()
    os.close(held)
    os.close(folder.lock())


def test_clear_leaves_the_lock(folder):
    held = folder.lock()
    folder.write_pid("web", 123)
    assert (folder.run / "web.pid").read_text() == "123\n"
    folder.clear()
    assert os.listdir(folder.run) == ["up.lock"]
    os.close(held)


def test_a_free_port_is_fine_also_right_after_its_use():
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        accepted.close()  # this side closes first, and keeps the address for a minute
        client.close()
    check_ports(Settings.from_env({}, port=port))


def test_a_port_in_use_is_named_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} on 127.0.0.1 is in use.*--port \(FAAS_PORT\)"):
            check_ports(Settings.from_env({}, port=port))


def test_the_dispatchers_port_counts_where_it_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = {"port": free_port(), "dispatcher_port": server.getsockname()[1]}
        check_ports(Settings.from_env({}, mode="local", **taken))
        for mode in ("pull", "push"):
            with pytest.raises(ConfigurationError, match=r"--dispatcher-port \(FAAS_DISPATCHER_PORT\)"):
                check_ports(Settings.from_env({}, mode=mode, **taken))


@pytest.mark.parametrize(
    ("host", "says"), [("192.0.2.1", "cannot listen on 192.0.2.1"), ("no.such.invalid", "FAAS_LISTEN")]
)
def test_an_address_that_is_not_ours(host, says):
    with pytest.raises(ConfigurationError, match=says):
        check_ports(Settings.from_env({}, listen=host, port=free_port()))


def test_the_plan_of_local_mode(folder):
    settings = Settings.from_env({}, data_dir=folder.path, workers=3, task_deadline=2)
    plan = {spec.name: spec for spec in build_plan(settings, folder, None)}
    assert list(plan) == ["redis", "migrate", "web", "dispatcher", "readiness"]
    assert plan["web"].command == (sys.executable, "-P", "-m", "faas_project.serve")
    options = ("task_dispatcher", "-m", "local", "-w", "3", "--task-deadline", "2.0")
    assert plan["dispatcher"].command == (sys.executable, "-P", "-m", "django", *options)
    for spec in plan.values():
        assert spec.environ["FAAS_DATA_DIR"] == str(folder.path)
    assert plan["web"].environ["FAAS_REDIS_URL"] == f"unix://{folder.path}/run/redis.sock"
    assert "FAAS_SECRET_KEY" not in plan["redis"].environ
    services = [spec for spec in plan.values() if spec.role is Role.SERVICE]
    assert [spec.name for spec in sorted(services, key=lambda spec: spec.stop_rank)] == ["web", "dispatcher", "redis"]


def test_each_process_knows_its_share_of_the_time_to_stop(folder):
    for mode in ("local", "push"):
        plan = build_plan(Settings.from_env({}, data_dir=folder.path, mode=mode, shutdown_s=6), folder, None)
        shares = {spec.name: float(spec.environ["FAAS_SHUTDOWN_S"]) for spec in plan if spec.role is Role.SERVICE}
        assert sum(shares.values()) == pytest.approx(6, abs=0.05)
        assert min(shares[name] for name in shares if name != "redis") > 1.8


def test_the_plan_of_pull_mode(folder):
    settings = Settings.from_env({}, data_dir=folder.path, mode="pull", workers=4, dispatcher_port=6000)
    plan = {spec.name: spec for spec in build_plan(settings, folder, None)}
    assert list(plan) == ["redis", "migrate", "web", "dispatcher", "worker", "readiness"]
    assert plan["dispatcher"].command[4:] == ("task_dispatcher", "-m", "pull", "-p", "6000")
    assert plan["worker"].command[2:] == ("-m", "worker", "pull", "4", "tcp://127.0.0.1:6000")
    services = [spec for spec in plan.values() if spec.role is Role.SERVICE]
    order = [spec.name for spec in sorted(services, key=lambda spec: spec.stop_rank)]
    assert order == ["web", "worker", "dispatcher", "redis"]
    assert {name for name in plan["worker"].environ if name.startswith("FAAS_")} == {
        "FAAS_DATA_DIR",
        "FAAS_LOG_LEVEL",
        "FAAS_MAX_RESULT_BYTES",
        "FAAS_SHUTDOWN_S",
    }


def test_with_a_redis_of_the_users_none_is_started(folder):
    settings = Settings.from_env({}, data_dir=folder.path, redis_url="redis://there:6379/0")
    plan = {spec.name: spec for spec in build_plan(settings, folder, None)}
    assert "redis" not in plan
    assert plan["web"].environ["FAAS_REDIS_URL"] == "redis://there:6379/0"


def test_then_gets_the_url_twice(folder):
    settings = Settings.from_env({}, data_dir=folder.path, port=8123)
    *_, then = build_plan(settings, folder, "/somewhere/hello.py")
    assert then.name == "hello.py"
    assert then.command == (sys.executable, "/somewhere/hello.py", "http://127.0.0.1:8123")
    assert then.environ["FAAS_URL"] == "http://127.0.0.1:8123"
    assert then.role is Role.AFTERWARDS


def test_nobody_answers():
    assert "refused" in answer("127.0.0.1", free_port(), "127.0.0.1")


class Valkey:
    def __init__(self, folder):
        self.socket = choose_socket(folder)
        self.process = subprocess.Popen(server_command(folder, self.socket), stdout=subprocess.DEVNULL)

    def client(self):
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.01), 500)
        return redis.Redis(unix_socket_path=str(self.socket), retry=retry)

    def stop(self):
        self.process.terminate()
        say_goodbye(self.socket)
        return self.process.wait(timeout=10)


@pytest.fixture
def start_valkey():
    with contextlib.ExitStack() as stack:

        def start(folder):
            valkey = Valkey(folder)
            stack.callback(valkey.process.wait)
            stack.callback(valkey.process.kill)
            return valkey

        yield start


def test_redis_keeps_what_it_holds_over_a_stop(folder, start_valkey):
    first = start_valkey(folder)
    with first.client() as client:
        client.set("key", "value")
    assert first.stop() == 0
    second = start_valkey(folder)
    with second.client() as client:
        assert client.get("key") == b"value"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("save")["save"] == ""
        assert client.config_get("port")["port"] == "0"


def test_redis_is_found_by_its_environment(folder, start_valkey, monkeypatch):
    monkeypatch.setenv("FAAS_DATA_DIR", str(folder.path))
    valkey = start_valkey(folder)
    with valkey.client() as client:
        assert client.ping()
    assert find_by_environment("FAAS_DATA_DIR", str(folder.path)) == [valkey.process.pid]


def test_redis_keeps_what_it_holds_over_its_own_death(folder, start_valkey):
    first = start_valkey(folder)
    with first.client() as client:
        client.set("key", "value")
    first.process.kill()
    first.process.wait()
    second = start_valkey(folder)  # the socket of the first is in its way
    with second.client() as client:
        assert client.get("key") == b"value"


def test_a_deep_data_folder_has_its_socket_elsewhere(tmp_path, start_valkey, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 100)))  # not there, and too long
    folder = DataFolder(tmp_path / ("deep" * 30) / ("deeper" * 20))
    folder.prepare()
    valkey = start_valkey(folder)
    assert len(os.fsencode(valkey.socket)) <= MAX_SOCKET_PATH
    assert valkey.socket.parent.stat().st_mode & 0o777 == 0o700
    settings = Settings.from_env({}, data_dir=folder.path)
    with redis.Redis.from_url(settings.redis_address) as client, valkey.client() as patient:
        assert patient.ping()
        assert client.ping()
    assert valkey.stop() == 0
    forget_socket(folder)
    folder.clear()
    assert not valkey.socket.parent.exists()


def test_spawn_reports_who_it_started(tmp_path):
    with open(tmp_path / "out", "wb") as out:
        pid = spawn(
            [sys.executable, "-c", "import os; print(os.environ['A'], os.getsid(0) == os.getpid())"],
            {"A": "b"},
            output=out.fileno(),
        )
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "out").read_text() == "b True\n"


def test_spawn_leaves_our_own_signals_alone():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    os.waitpid(spawn(["/bin/true"], {}), 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
