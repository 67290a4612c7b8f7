"""Front and supervisor with stand-in commands: what dies, what is started again, and that nothing is left.

Each stand-in tells its events to one file, a line each, so a test reads what happened in which order.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from everythingfaas.proctree import descendants, find_by_environment, kill_tree, look

ROOT = Path(__file__).resolve().parents[2]

LAUNCHER = """
import json, sys
from pathlib import Path
from appliance.folder import DataFolder
from appliance.guard import Appliance, run_guarded
from appliance import lifecycle
from appliance.lifecycle import ProcessSpec, Role
from everythingfaas.errors import FaasError

folder, shutdown_s, patience, plan = json.loads(sys.argv[1])
vars(lifecycle).update(patience)
specs = [ProcessSpec(**(spec | {"command": tuple(spec["command"]), "role": Role(spec["role"])})) for spec in plan]
try:
    sys.exit(run_guarded(DataFolder(Path(folder)), lambda: Appliance(specs, "ready here", shutdown_s)))
except FaasError as error:
    sys.exit(f"faas: {error}")
"""

#: Runs until SIGTERM, and reports both.
SERVICE = """
import os, signal, sys
def tell(text):
    with open(os.environ["EVENTS"], "a") as file:
        file.write(f"{sys.argv[1]} {text}\\n")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("hello from", sys.argv[1], flush=True)
tell(f"up {os.getpid()}")
signal.sigwait({signal.SIGTERM})
tell("down")
"""

#: Takes no notice of SIGTERM.
STUBBORN = SERVICE.replace("signal.sigwait({signal.SIGTERM})", "signal.sigwait({signal.SIGUSR1})")

#: Gives one sign of life, and no other.
FALLS_SILENT = SERVICE.replace(
    "signal.sigwait", "from everythingfaas.alive import Pulse; Pulse(os.environ).give(1.0)\nsignal.sigwait"
)

#: Starts something that forks twice into a session of its own and throws its environment away, as a daemon does,
#: and takes no notice of signals that ask.
WITH_DAEMON = SERVICE.replace(
    "signal.sigwait",
    """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        sys.argv[1] = "daemon"
        tell(f"up {os.getpid()}")
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    os._exit(0)
os.wait()
signal.sigwait""",
)

#: Starts something that no death signal reaches, which keeps its environment, as a slot does.
WITH_SLOT = SERVICE.replace(
    "signal.sigwait",
    """
if os.fork() == 0:
    os.setsid()
    sys.argv[1] = "slot"
    tell(f"up {os.getpid()}")
signal.sigwait""",
)


def eventually(condition, timeout_s=15.0):
    """What `condition` returns, as soon as that is true."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
    return value


class Bench:
    """A data folder and the appliances that are started on it."""

    def __init__(self, folder):
        self.folder = folder / "data"
        self.events_file = folder / "events"
        self.events_file.touch()
        self.started = []

    def spec(self, name, source=SERVICE, **more):
        environ = {"EVENTS": str(self.events_file), "FAAS_DATA_DIR": str(self.folder)}
        command = [sys.executable, "-c", source, name]
        return {"name": name, "command": command, "environ": environ, "role": "service"} | more

    def launch(self, *plan, shutdown_s=8.0, **patience):
        command = [sys.executable, "-c", LAUNCHER, json.dumps([str(self.folder), shutdown_s, patience, plan])]
        environ = os.environ | {"PYTHONPATH": str(ROOT), "FAAS_DATA_DIR": str(self.folder)}
        front = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(front)
        return front

    def serve(self, *plan, **more):
        front = self.launch(*plan, **more)
        assert front.stdout.readline() == "ready here\n", front.communicate()
        eventually(lambda: all(self.pid(spec["name"]) for spec in plan if spec["role"] == "service"))
        return front

    def events(self, ending=""):
        return [line for line in self.events_file.read_text().splitlines() if line.endswith(ending)]

    def pid(self, name):
        """The process id that `name` last reported."""
        pids = [int(line.split()[-1]) for line in self.events() if line.startswith(f"{name} up ")]
        return pids[-1] if pids else None

    def pid_file(self, name):
        with contextlib.suppress(FileNotFoundError):
            return int((self.folder / "run" / f"{name}.pid").read_text())

    def supervisor(self, front):
        return eventually(lambda: descendants(front.pid))[0]

    def all_pids(self):
        return {int(line.split()[-1]) for line in self.events() if " up " in line}

    def leftovers(self):
        return [
            pid for pid in {*self.all_pids(), *find_by_environment("FAAS_DATA_DIR", str(self.folder))} if alive(pid)
        ]

    def run_files(self):
        return sorted(path.name for path in (self.folder / "run").iterdir())

    def clean(self):
        for front in self.started:
            if front.poll() is None:
                kill_tree(front.pid)
            front.communicate()
        for pid in self.leftovers():
            kill_tree(pid)


def alive(pid):
    process = look(pid)
    return process is not None and not process.dead


def stop(front, signum=signal.SIGTERM):
    """Signal it and return (exit status, seconds it took, standard error)."""
    began = time.monotonic()
    front.send_signal(signum)
    _, err = front.communicate(timeout=15)
    return front.returncode, time.monotonic() - began, err


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.clean()


def test_it_starts_announces_and_stops_in_order(bench):
    front = bench.serve(
        bench.spec("redis", stop_rank=3),
        bench.spec("migrate", "print('migrated')", role="step"),
        bench.spec("web"),
        bench.spec("dispatcher", stop_rank=1),
        bench.spec("worker", stop_rank=2),
        bench.spec("probe", "pass", role="probe"),
    )
    for name in ("redis", "web", "dispatcher", "worker"):
        assert bench.pid_file(name) == bench.pid(name)
    status, seconds, err = stop(front)
    assert status == 0
    assert seconds < 5
    assert bench.events("down") == ["web down", "dispatcher down", "worker down", "redis down"]
    assert bench.leftovers() == []
    assert bench.run_files() == ["up.lock"]
    assert (bench.folder / "log" / "web.log").read_text() == "hello from web\n"
    assert (bench.folder / "log" / "migrate.log").read_text() == "migrated\n"
    assert "Traceback" not in err


def test_children_lead_sessions_so_that_ctrl_c_is_for_the_front_alone(bench):
    front = bench.serve(bench.spec("web"), bench.spec("dispatcher"))
    for pid in (bench.pid("web"), bench.pid("dispatcher"), bench.supervisor(front)):
        assert look(pid).session == pid


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_that_asks_to_stop_does(bench, signum):
    front = bench.serve(bench.spec("web"))
    assert stop(front, signum)[0] == 0
    assert bench.events("down") == ["web down"]


def test_a_job_in_the_background_of_a_script_is_stopped_by_sigint_too(bench):
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell without job control starts it
    try:
        front = bench.serve(bench.spec("web"))
    finally:
        signal.signal(signal.SIGINT, old)
    assert stop(front, signal.SIGINT)[0] == 0


def test_nohup_is_respected(bench):
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        front = bench.serve(bench.spec("web"))
    finally:
        signal.signal(signal.SIGHUP, old)
    front.send_signal(signal.SIGHUP)
    first = bench.pid("web")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: bench.pid("web") != first)  # nobody stops, then
    assert stop(front)[0] == 0


def test_a_process_that_dies_is_started_again(bench):
    front = bench.serve(bench.spec("web"), bench.spec("dispatcher"))
    first, other = bench.pid("web"), bench.pid("dispatcher")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: bench.pid("web") != first)
    second = bench.pid("web")
    assert eventually(lambda: bench.pid_file("web")) == second
    assert "web ended (SIGKILL); starting it again in 0.1 s" in front.stderr.readline() + front.stderr.readline()
    os.kill(second, signal.SIGKILL)
    eventually(lambda: bench.pid("web") != second)
    assert "starting it again in 0.2 s" in front.stderr.readline()
    assert alive(other)
    log = (bench.folder / "log" / "up.log").read_text()
    assert "web ended (SIGKILL); starting it again in 0.2 s" in log
    assert stop(front)[0] == 0
    assert bench.leftovers() == []


def test_a_process_that_was_stopped_is_killed_and_started_again(bench):
    front = bench.serve(bench.spec("web"), bench.spec("redis"), STOPPED_S=1.0)
    first, other = bench.pid("web"), bench.pid("redis")
    log_file = bench.folder / "log" / "up.log"
    os.kill(other, signal.SIGSTOP)
    eventually(lambda: "redis was stopped by a signal\n" in log_file.read_text())
    os.kill(other, signal.SIGCONT)  # in time
    os.kill(first, signal.SIGSTOP)
    eventually(lambda: bench.pid("web") != first)
    assert bench.pid("redis") == other
    log = log_file.read_text()
    assert "web was stopped by a signal 1 s ago; killing it" in log
    assert "redis ended" not in log
    assert stop(front)[0] == 0
    assert bench.leftovers() == []


def test_a_process_whose_pulse_ends_is_killed_and_started_again(bench):
    front = bench.serve(bench.spec("web", FALLS_SILENT), bench.spec("redis"), SILENT_S=0.5)
    first, other = bench.pid("web"), bench.pid("redis")
    eventually(lambda: bench.pid("web") != first)
    assert bench.pid("redis") == other  # which has never given one
    assert "web has given no sign of life for 0.5 s; killing it" in (bench.folder / "log" / "up.log").read_text()
    assert stop(front)[0] == 0


def test_a_supervisor_that_was_stopped_goes_on(bench):
    front = bench.serve(bench.spec("web"))
    supervisor, first = bench.supervisor(front), bench.pid("web")
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: bench.pid("web") != first)
    assert stop(front)[0] == 0


def test_a_first_start_that_fails_shows_its_log_and_stops_everything(bench):
    front = bench.launch(
        bench.spec("redis", stop_rank=3),
        bench.spec("migrate", "import sys; print('last words'); sys.exit(3)", role="step"),
        bench.spec("web"),
    )
    out, err = front.communicate(timeout=15)
    assert (front.returncode, out) == (1, "")
    assert "migrate: last words\n" in err
    assert "migrate ended (exit status 3) before everything served" in err
    assert not any(line.startswith("web") for line in bench.events())
    assert bench.leftovers() == []
    assert bench.run_files() == ["up.lock"]


def test_a_command_that_is_no_program_is_a_failed_start(bench):
    front = bench.launch(bench.spec("web", command=["/nowhere/at/all"]), bench.spec("probe", SERVICE, role="probe"))
    _, err = front.communicate(timeout=15)
    assert front.returncode == 1
    assert "web: cannot execute /nowhere/at/all" in err


def test_what_runs_afterwards_speaks_to_the_user_and_may_fail(bench):
    source = "import sys; print('result 42', flush=True); sys.exit('oh no')"
    front = bench.serve(bench.spec("web"), bench.spec("hello.py", source, role="afterwards"))
    assert front.stdout.readline() == "result 42\n"
    eventually(lambda: "hello.py failed (exit status 1)" in front.stderr.readline())
    assert alive(bench.pid("web"))
    assert stop(front)[0] == 0


def test_what_does_not_stop_is_killed_when_its_time_is_over(bench):
    front = bench.serve(bench.spec("web", STUBBORN), bench.spec("dispatcher", stop_rank=1), shutdown_s=1.0)
    status, seconds, err = stop(front)
    assert status == 0
    assert 0.4 < seconds < 3
    assert "web did not stop in time" in err
    assert bench.events("down") == ["dispatcher down"]
    assert bench.leftovers() == []


def test_a_second_ctrl_c_kills_everything(bench):
    front = bench.serve(bench.spec("web", STUBBORN))
    front.send_signal(signal.SIGINT)
    eventually(lambda: "told to stop" in (bench.folder / "log" / "up.log").read_text())
    began = time.monotonic()
    while front.poll() is None:  # the first ones count as the same wish
        front.send_signal(signal.SIGINT)
        assert time.monotonic() - began < 5
        with contextlib.suppress(subprocess.TimeoutExpired):
            front.wait(timeout=0.1)
    assert front.returncode == 1
    assert bench.leftovers() == []


def test_daemons_are_gone_after_a_stop(bench):
    front = bench.serve(bench.spec("web"), bench.spec("dispatcher", WITH_DAEMON, stop_rank=1))
    daemon = eventually(lambda: bench.pid("daemon"))
    assert stop(front)[0] == 0
    assert not alive(daemon)
    assert bench.leftovers() == []


def test_what_a_dead_process_had_started_does_not_outlive_it(bench):
    front = bench.serve(bench.spec("web"), bench.spec("dispatcher", WITH_DAEMON))
    daemon, dispatcher = eventually(lambda: bench.pid("daemon")), bench.pid("dispatcher")
    os.kill(dispatcher, signal.SIGKILL)
    eventually(lambda: bench.pid("dispatcher") != dispatcher)
    assert not alive(daemon)
    assert stop(front)[0] == 0


def test_the_front_killed_leaves_nothing(bench):
    front = bench.serve(bench.spec("web"), bench.spec("dispatcher", WITH_DAEMON, stop_rank=1))
    eventually(lambda: bench.pid("daemon"))
    supervisor = bench.supervisor(front)
    front.kill()
    front.wait()
    eventually(lambda: not alive(supervisor))
    assert bench.leftovers() == []
    assert bench.events("down") == ["web down", "dispatcher down"]  # in order: nobody was simply killed


def test_the_supervisor_killed_leaves_nothing(bench):
    front = bench.serve(bench.spec("web"), bench.spec("dispatcher", WITH_DAEMON, stop_rank=1))
    eventually(lambda: bench.pid("daemon"))
    os.kill(bench.supervisor(front), signal.SIGKILL)
    _, err = front.communicate(timeout=15)
    assert front.returncode == 1
    assert "the supervisor was killed" in err
    assert bench.leftovers() == []
    assert bench.run_files() == ["up.lock"]


def test_both_killed_at_once_is_swept_up_by_the_next_start(bench):
    front = bench.serve(bench.spec("web"), bench.spec("dispatcher", WITH_SLOT))
    slot = eventually(lambda: bench.pid("slot"))
    supervisor = bench.supervisor(front)
    web = bench.pid("web")
    os.kill(supervisor, signal.SIGSTOP)  # so that it cannot notice
    front.kill()
    os.kill(supervisor, signal.SIGKILL)
    front.wait()
    eventually(lambda: not alive(web))  # by its death signal
    assert alive(slot)
    assert "web.pid" in bench.run_files()

    second = bench.serve(bench.spec("web"))
    assert not alive(slot)
    assert second.stderr.readline().startswith("faas: killed ")
    assert stop(second)[0] == 0


def test_a_sweep_spares_the_shell_and_what_was_opened_in_it(bench):
    environ = {"FAAS_DATA_DIR": str(bench.folder)}
    editor = subprocess.Popen(
        [sys.executable, "-c", SERVICE, "editor"], env=environ | {"EVENTS": str(bench.events_file)}
    )
    try:
        eventually(lambda: bench.pid("editor"))
        assert stop(bench.serve(bench.spec("web")))[0] == 0
        assert editor.poll() is None
    finally:
        editor.kill()
        editor.wait()


#: Sweeps the folder from a session that began outside of the PID namespace, beside a process in the same session.
SWEEP_IN_A_CONTAINER = """
import subprocess
from pathlib import Path
from appliance.sweep import sweep
assert os.getsid(0) == 0, os.getsid(0)
environ = os.environ | {"FAAS_DATA_DIR": sys.argv[1]}
beside = subprocess.Popen(["sleep", "1000"], env=environ)
left = subprocess.Popen(["sleep", "1000"], env=environ, start_new_session=True)
killed = sweep(Path(sys.argv[1]))
print(killed, beside.poll(), left.wait())
"""


def test_a_sweep_spares_the_session_of_an_entered_container(bench):
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c"]
    try:
        subprocess.run([*inside, "pass"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"no PID namespace can be made here: {exc}")
    source = "import os, sys\n" + SWEEP_IN_A_CONTAINER
    done = subprocess.run(
        [*inside, source, str(bench.folder)], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout == "1 None -9\n", done.stderr


def test_a_data_folder_in_use_is_refused_by_name(bench):
    front = bench.serve(bench.spec("web"))
    web = bench.pid("web")
    second = bench.launch(bench.spec("web"))
    _, err = second.communicate(timeout=15)
    assert second.returncode == 1
    assert err.count("\n") == 1
    assert f"in use by another `faas up` (process {front.pid})" in err
    assert alive(web)
    assert bench.pid_file("web") == web
    assert stop(front)[0] == 0


def test_children_hold_neither_the_lock_nor_anything_else_of_ours(bench):
    bench.serve(bench.spec("web"))
    fds = {os.readlink(f"/proc/{bench.pid('web')}/fd/{fd}") for fd in ("0", "1", "2")}
    assert len(os.listdir(f"/proc/{bench.pid('web')}/fd")) == 3
    assert "/dev/null" in fds
    assert any(target.startswith("pipe:") for target in fds)


def test_children_start_with_the_signals_of_a_fresh_program(bench):
    front = bench.launch(bench.spec("web", command=["/bin/sleep", "1000"]))
    assert front.stdout.readline() == "ready here\n"
    pid = eventually(lambda: bench.pid_file("web"))
    eventually(lambda: os.readlink(f"/proc/{pid}/exe").endswith(("sleep", "coreutils", "busybox")))
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    # Python's own ignored signals included; the two above 31 are glibc's, and come with `posix_spawn`.
    assert int(status["SigIgn"], 16) & 0x7FFF_FFFF == 0
    assert int(status["SigBlk"], 16) & 0x7FFF_FFFF == 0
    assert stop(front)[0] == 0


def test_logs_are_rotated_while_they_are_written(bench):
    flood = "for _ in range(120_000): print('x' * 99)\nsys.stdout.flush()\ntell(f"
    front = bench.serve(bench.spec("web", SERVICE.replace("tell(f", flood, 1)))
    assert stop(front)[0] == 0
    files = sorted((bench.folder / "log").glob("web.log*"))
    assert [path.name for path in files] == ["web.log", "web.log.1", "web.log.2"]
    assert all(path.stat().st_size <= 5_070_000 for path in files)
    assert sum(path.stat().st_size for path in files) == 12_000_000 + len("hello from web\n")


def test_a_wait_costs_nothing(bench):
    front = bench.serve(bench.spec("web"))
    supervisor = bench.supervisor(front)

    def wake_ups():
        lines = [
            line for pid in (front.pid, supervisor) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        ]
        return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))

    eventually(lambda: "everything serves" in (bench.folder / "log" / "up.log").read_text())
    before = wake_ups()
    with contextlib.suppress(subprocess.TimeoutExpired):
        front.wait(timeout=1)
    assert wake_ups() - before <= 1
    assert stop(front)[0] == 0
