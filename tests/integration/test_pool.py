"""The pool of slots, with real processes: whatever a function does costs its own task and nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dill
import pytest

from everythingfaas import proctree
from everythingfaas.status import Outcome
from tests.live import until
from worker import scratch
from worker.events import OutputChunk, PoolEvent, SlotBegun, SlotDone, SlotJob, SlotReady, SlotReturned
from worker.pool import SlotPool
from worker.slots import SlotLimits
from worker.zygote import LOOK_S, ZygoteWatch

PATIENCE_S = 20.0


def by_value(function: Callable[..., Any]) -> bytes:
    """As from a client's script: dill refers to functions of a module, and the slot would import this one."""
    for sent in (function, leave_a_daemon, leave_a_child):
        if getattr(sent, "__module__", None) == __name__:
            sent.__module__ = "__main__"
    return dill.dumps(function, recurse=True)


def make_job(
    function: Callable[..., Any] | bytes,
    *args: Any,
    task: str = "task",
    owner: str = "ann",
    fresh: bool = False,
    memory_limit_mb: int | None = None,
) -> SlotJob:
    blob = function if isinstance(function, bytes) else by_value(function)
    digest = hashlib.sha256(blob).hexdigest()
    return SlotJob(task, 1, digest, blob, dill.dumps((args, {})), owner, fresh, memory_limit_mb)


class Driver:
    """Turns the pool's crank as its owner would, until something has happened."""

    def __init__(self, pool: SlotPool) -> None:
        self.pool = pool
        self.events: list[PoolEvent] = []  # all since the last `until`

    def until(self, condition: Callable[[list[PoolEvent]], Any], patience_s: float = PATIENCE_S) -> list[PoolEvent]:
        """The events up to the one that fulfils `condition`."""
        poller = select.poll()
        poller.register(self.pool.fileno(), select.POLLIN)
        end = time.monotonic() + patience_s
        seen: list[PoolEvent] = []
        while not condition(seen):
            now = time.monotonic()
            assert now < end, f"nothing of the kind in {seen}"
            due = self.pool.next_deadline()
            poller.poll(1000 * max(0.0, min(end, due if due is not None else end) - now))
            seen += self.pool.process(time.monotonic())
        return seen

    def run(self, function: Callable[..., Any] | bytes, *args: Any, slot: int = 0, **options: Any) -> SlotDone:
        """Runs a job to its end, and waits until the slot is free again."""
        self.pool.run(make_job(function, *args, **options), slot, time.monotonic())
        seen = self.until(lambda events: SlotReady(slot) in events)
        [done] = [event for event in seen if isinstance(event, SlotDone)]
        assert [event.slot for event in seen if isinstance(event, SlotBegun)] == [slot]
        return done

    def value(self, function: Callable[..., Any] | bytes, *args: Any, **options: Any) -> Any:
        done = self.run(function, *args, **options)
        assert done.outcome is Outcome.RETURNED, done
        return dill.loads(done.result)

    def begin(self, function: Callable[..., Any], *args: Any, slot: int = 0, **options: Any) -> None:
        """Starts a job and waits until it has printed something."""
        self.pool.run(make_job(function, *args, **options), slot, time.monotonic())
        self.until(lambda events: any(isinstance(event, OutputChunk) for event in events))

    def kill(self, slot: int = 0, outcome: Outcome = Outcome.DEADLINE) -> SlotDone:
        self.pool.kill(slot, "task", 1, outcome, time.monotonic())
        seen = self.until(lambda events: SlotReady(slot) in events)
        [done] = [event for event in seen if isinstance(event, SlotDone)]
        return done


def start_pool(folder: Path, slots: int = 2, **limits: int) -> Driver:
    driver = Driver(SlotPool(slots, folder=folder, limits=SlotLimits(**limits)))
    driver.pool.start()
    driver.until(lambda events: len({event.slot for event in events if isinstance(event, SlotReady)}) == slots)
    return driver


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    others = set(proctree.children(os.getpid()))  # servers that other tests share
    driver = start_pool(tmp_path_factory.mktemp("folder"))
    yield driver
    driver.pool.close()
    # What is left of a tree comes to us, since we are a subreaper.
    assert set(proctree.children(os.getpid())) <= others


@pytest.fixture
def slots(shared: Driver) -> Driver:
    """A pool that the tests of this module hand on: none of them may leave it in disorder."""
    assert shared.value(lambda: "well", slot=0) == "well"
    assert shared.value(lambda: "well", slot=1) == "well"
    return shared


def is_dead(pid: int) -> bool:
    process = proctree.look(pid)
    return process is None or process.dead


# --- how runs end


def test_a_slot_stays_warm_and_keeps_its_function(slots):
    def counting(calls=[]):  # noqa: B006 kept with the function
        calls.append(1)
        return os.getpid(), len(calls)

    first, second = slots.value(counting), slots.value(counting)
    assert first == (slots.pool.pid(0), 1)
    assert second == (slots.pool.pid(0), 2)


def test_the_function_travels_once_per_process(slots):
    job = make_job(lambda: 5)
    slots.pool.run(job, 0, time.monotonic())
    slots.until(lambda events: SlotReady(0) in events)
    again = SlotJob(job.task, 2, job.function, b"not sent, so not opened", job.payload, job.owner)
    slots.pool.run(again, 0, time.monotonic())
    seen = slots.until(lambda events: SlotReady(0) in events)
    assert [dill.loads(event.result) for event in seen if isinstance(event, SlotDone)] == [5]


def test_functions_over_the_limit_are_forgotten_and_sent_again(tmp_path):
    driver = start_pool(tmp_path, 1, functions=2)
    functions = [dill.dumps(lambda n=n: n) for n in range(4)]
    try:
        assert [driver.value(functions[n]) for n in (0, 1, 2, 3, 0, 3, 2, 1)] == [0, 1, 2, 3, 0, 3, 2, 1]
    finally:
        driver.pool.close()


def leave_by_exit():
    os._exit(3)


def leave_by_signal():
    os.kill(os.getpid(), signal.SIGTERM)


def leave_by_sigkill():
    os.kill(os.getpid(), signal.SIGKILL)


def leave_by_fault():
    ctypes.string_at(0)


def leave_by_abort():
    os.abort()


@pytest.mark.parametrize(
    ("function", "code", "signum"),
    [
        (leave_by_exit, 3, None),
        (leave_by_signal, None, signal.SIGTERM),
        (leave_by_sigkill, None, signal.SIGKILL),
        (leave_by_fault, None, signal.SIGSEGV),
        (leave_by_abort, None, signal.SIGABRT),
    ],
)
def test_a_process_that_ends_is_reported_as_it_ended(slots, function, code, signum):
    before = slots.pool.pid(0)
    done = slots.run(function)
    assert (done.outcome, done.exit_code, done.exit_signal) == (Outcome.DIED, code, signum)
    assert done.error is None
    assert slots.pool.pid(0) != before


@pytest.mark.parametrize("exception", [ValueError("v"), SystemExit(2), KeyboardInterrupt()])
def test_what_is_raised_is_carried(slots, exception):
    def function(exception):
        raise exception

    before = slots.pool.pid(0)
    done = slots.run(function, exception)
    assert done.outcome is Outcome.RAISED
    assert type(dill.loads(done.result)) is type(exception)
    assert done.error.type_name == type(exception).__name__
    assert slots.pool.pid(0) == before


def test_what_cannot_be_pickled_is_a_clear_failure(slots):
    def returns():
        return (x for x in ())

    def raises():
        error = ValueError("v")
        error.generator = (x for x in ())
        raise error

    assert "cannot be pickled" in slots.run(returns).error.message
    assert dill.loads(slots.run(raises).result).type_name == "ValueError"


def test_an_exception_that_cannot_be_built_again_is_a_clear_failure(slots):
    def function():
        class NeedsTwo(Exception):
            def __init__(self, a, b):
                super().__init__(a)

        raise NeedsTwo(1, 2)

    assert "NeedsTwo" in dill.loads(slots.run(function).result).type_name


def test_a_result_that_would_end_whoever_opens_it_harms_nobody(slots):
    class Trap:
        def __reduce__(self):
            return os._exit, (9,)

    def function(trap):
        return trap()

    done = slots.run(function, Trap)
    assert done.outcome is Outcome.RETURNED
    assert b"_exit" in done.result


def spin():
    print("begun", flush=True)
    while True:
        pass


def block_and_spin():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    print("begun", flush=True)
    while True:
        pass


def stop_oneself():
    print("begun", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("function", [spin, block_and_spin, stop_oneself])
def test_what_never_ends_is_killed_and_its_slot_is_back_at_once(slots, function):
    before = slots.pool.pid(0)
    slots.begin(function)
    start = time.monotonic()
    done = slots.kill(0, Outcome.DEADLINE)
    assert time.monotonic() - start < 1.0
    assert (done.outcome, done.result, done.output.head) == (Outcome.DEADLINE, b"", b"begun\n")
    assert is_dead(before)
    assert slots.value(lambda: 1) == 1


def test_the_others_do_not_notice(slots):
    slots.begin(spin, slot=1)
    neighbour = slots.pool.pid(1)
    for function in (leave_by_exit, leave_by_fault, leave_a_daemon):
        slots.run(function, slot=0)
    assert slots.pool.pid(1) == neighbour
    assert not is_dead(neighbour)
    assert slots.kill(1, Outcome.CANCELLED).outcome is Outcome.CANCELLED


def test_a_job_that_waits_for_a_process_can_be_taken_back(slots):
    slots.value(lambda: 1, owner="ann")
    slots.pool.run(make_job(lambda: 2, owner="bob"), 0, time.monotonic())
    slots.pool.kill(0, "task", 1, Outcome.CANCELLED, time.monotonic())
    seen = slots.until(lambda events: SlotReady(0) in events)
    assert [type(event) for event in seen] == [SlotDone, SlotReady]
    assert seen[0].outcome is Outcome.CANCELLED


# --- what functions leave behind


def leave_a_daemon():
    import time

    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, b"%d" % os.getpid())
            time.sleep(1000)
        os._exit(0)
    os.wait()
    pid = int(os.read(reader, 20))
    os.close(reader)
    os.close(writer)
    return pid


def leave_a_child():
    return subprocess.Popen(["sleep", "1000"]).pid


def test_daemons_and_children_end_with_their_task(slots):
    for function in (leave_a_daemon, leave_a_child):
        before = slots.pool.pid(0)
        assert is_dead(slots.value(function))
        assert slots.pool.pid(0) != before


def test_all_descendants_end_with_a_killed_task(slots):
    def function():
        pids = [leave_a_daemon() for _ in range(3)] + [leave_a_child() for _ in range(3)]
        print(*pids, flush=True)
        while True:
            pass

    slots.pool.run(make_job(function), 0, time.monotonic())
    seen = slots.until(lambda events: any(isinstance(event, OutputChunk) for event in events))
    [printed] = [event.data for event in seen if isinstance(event, OutputChunk)]
    slots.kill()
    assert all(is_dead(int(pid)) for pid in printed.split())


def test_a_process_that_forks_on_and_on_is_caught(slots):
    def function():
        if os.fork() == 0:
            os.setsid()
            print("begun", flush=True)
            while True:
                if os.fork():
                    os._exit(0)
        while True:
            pass

    slots.begin(function)
    slots.kill()
    assert slots.value(lambda: 1) == 1
    zygote = proctree.look(slots.pool.pid(0)).parent
    assert sorted(proctree.descendants(zygote)) == sorted([slots.pool.pid(0), slots.pool.pid(1)])


def leave_a_thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def leave_a_descriptor():
    os.open("/dev/null", os.O_RDONLY)


def leave_another_folder():
    os.chdir("/")


def leave_a_variable():
    os.environ["LEFT"] = "1"


def leave_a_umask():
    os.umask(0o077)


def leave_a_handler():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def leave_a_mask():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])


def leave_a_timer():
    signal.setitimer(signal.ITIMER_VIRTUAL, 1000)


def leave_output_redirected():
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def leave_output_closed():
    import sys

    sys.stdout.close()


@pytest.mark.parametrize(
    "function",
    [
        leave_a_thread,
        leave_a_descriptor,
        leave_another_folder,
        leave_a_variable,
        leave_a_umask,
        leave_a_handler,
        leave_a_mask,
        leave_a_timer,
        leave_output_redirected,
        leave_output_closed,
    ],
)
def test_a_process_that_is_not_as_it_was_is_replaced(slots, function):
    before = slots.pool.pid(0)
    assert slots.run(function).outcome is Outcome.RETURNED
    assert slots.pool.pid(0) != before
    assert is_dead(before)


def test_tidy_functions_keep_their_process(slots):
    def function():
        import asyncio
        import concurrent.futures
        import tempfile

        subprocess.run(["true"], check=True)
        with tempfile.TemporaryFile(), concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(str, range(10)))
        asyncio.run(asyncio.sleep(0))
        threads = [threading.Thread(target=str) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    before = slots.pool.pid(0)
    for _ in range(20):
        assert slots.run(function).outcome is Outcome.RETURNED
    assert slots.pool.pid(0) == before


def test_a_reassigned_stream_is_put_back(slots):
    def function():
        import io
        import sys

        sys.stdout = sys.stderr = io.StringIO()

    before = slots.pool.pid(0)
    slots.run(function)
    assert slots.run(lambda: print("heard")).output.head == b"heard\n"
    assert slots.pool.pid(0) == before


# --- who shares a process with whom


def test_another_owner_gets_another_process(slots):
    mine = slots.value(os.getpid, owner="ann")
    theirs = slots.value(os.getpid, owner="bob")
    assert mine != theirs
    assert is_dead(mine)
    assert slots.value(os.getpid, owner="bob") == theirs


def test_fresh_demands_a_process_that_has_run_nothing(slots):
    mine = slots.value(os.getpid)
    fresh = slots.value(os.getpid, fresh=True)
    assert fresh != mine
    assert slots.value(os.getpid) == fresh


# --- surroundings


def test_what_a_slot_holds_and_inherits(tmp_path, monkeypatch):
    monkeypatch.setenv("FAAS_DATA_DIR", "/data")
    monkeypatch.setenv("FAAS_SECRET", "s")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "m")
    monkeypatch.setenv("THEIRS", "kept")
    driver = start_pool(tmp_path, 1)

    def function():
        import gc
        import random
        import resource
        import sys

        gc.collect()
        return {
            "modules": sorted(name for name in sys.modules if name.split(".")[0] in ours),
            "variables": {name for name in os.environ if name.startswith(("FAAS_", "DJANGO_", "THEIRS"))},
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,
            "folder": os.getcwd(),
            "path": sys.path[0],
            "session": os.getsid(0) == os.getpid(),
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "oom": open("/proc/self/oom_score_adj").read().strip(),
            "input": sys.stdin.read(),
            "main": [name for name in vars(sys.modules["__main__"]) if not name.startswith("__")],
            "random": random.random(),
        }

    ours = ("worker", "api", "dispatcher", "faas_project", "appliance", "django", "zmq")
    try:
        found = driver.value(function)
        found_again = driver.value(function, fresh=True)
    finally:
        driver.pool.close()
    assert found["modules"] == []
    assert found["variables"] == {"FAAS_DATA_DIR", "THEIRS"}
    assert found["descriptors"] == 5
    assert found["folder"] == found["path"] == str(tmp_path)
    assert found["session"] is True
    assert found["core"] == (0, 0)
    assert found["oom"] == "1000"
    assert found["input"] == ""
    assert found["main"] == []
    assert found["random"] != found_again["random"]


def test_the_folder_of_the_user_comes_first_but_not_before_what_the_zygote_needs(tmp_path):
    (tmp_path / "worker.py").write_text("whose = 'theirs'\n")
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "__init__.py").write_text("whose = 'theirs'\n")
    for name in ("pickle", "struct", "socket", "dill", "random", "select"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    driver = start_pool(tmp_path, 1)

    def function():
        import api
        import worker

        return worker.whose, api.whose

    try:
        assert driver.value(function) == ("theirs", "theirs")
    finally:
        driver.pool.close()


def test_functions_by_reference_are_found_in_the_folder(tmp_path, monkeypatch):
    (tmp_path / "of_the_user.py").write_text(
        "limit = 10\ndef double(x): return 2 * x\nuses_global = lambda x: x + limit\nuses_nothing = lambda x: x + 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import of_the_user

    names = ("double", "uses_global", "uses_nothing")
    pickles = {name: dill.dumps(getattr(of_the_user, name)) for name in names}
    del sys.modules["of_the_user"]
    for folder, has_it in ((tmp_path, True), (tmp_path / "elsewhere", False)):
        folder.mkdir(exist_ok=True)
        monkeypatch.undo()
        driver = start_pool(folder, 1)
        try:
            assert driver.value(pickles["uses_nothing"], 3) == 4
            if has_it:
                assert driver.value(pickles["double"], 3) == 6
                assert driver.value(pickles["uses_global"], 3) == 13
            else:
                for name in ("double", "uses_global"):
                    raised = dill.loads(driver.run(pickles[name], 3).result)
                    assert isinstance(raised, ModuleNotFoundError)
                    assert "of_the_user" in str(raised)
                    assert "recurse=True" in str(raised)
        finally:
            driver.pool.close()


# --- output


def test_output_is_heard_however_it_is_written(slots):
    def function():
        import sys

        print("one", flush=True)
        os.write(1, b"two\n")
        os.write(2, b"three\n")
        subprocess.run(["echo", "four"], check=True)
        ctypes.CDLL(None).puts(b"five")  # stays in libc's buffer
        print("six", end="")
        print("seven", file=sys.stderr, end="")

    output = slots.run(function).output
    assert sorted(output.head.split()) == [b"five", b"four", b"one", b"sixseven", b"three", b"two"]
    assert (output.tail, output.dropped) == (b"", 0)
    assert slots.run(lambda: None).output.head == b""


def test_output_is_live_and_belongs_to_its_run(slots):
    for text in ("first", "second"):
        slots.pool.run(make_job(print, text, task=text), 0, time.monotonic())
        seen = slots.until(lambda events: SlotReady(0) in events)
        chunks = [(event.task, event.data) for event in seen if isinstance(event, OutputChunk)]
        assert chunks == [(text, text.encode() + b"\n")]


def test_a_flood_of_output_costs_no_memory_and_stops_nobody(slots):
    megabytes = 200

    def function(megabytes):
        os.write(1, b"begin")
        for _ in range(megabytes * 16):
            os.write(1, b"x" * 65536)
        os.write(1, b"end")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slots.pool.run(make_job(function, megabytes), 0, time.monotonic())
    done = None
    heard = 0
    while done is None:
        for event in slots.until(bool):
            if isinstance(event, OutputChunk):
                heard += len(event.data)
            elif isinstance(event, SlotDone):
                done = event
    slots.until(lambda _: slots.value(lambda: 1, slot=1) == 1)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 32 * 1024
    assert heard == megabytes * 2**20 + 8
    assert len(done.output.head) == len(done.output.tail) == 32 * 1024
    assert done.output.head.startswith(b"beginx")
    assert done.output.tail.endswith(b"xend")
    assert done.output.dropped == heard - 64 * 1024


def test_there_is_no_input(slots):
    assert isinstance(dill.loads(slots.run(input).result), EOFError)


# --- sizes


def test_a_large_payload_and_result_do_not_hold_up_the_loop(slots):
    size = 60 * 1024 * 1024
    slots.pool.run(make_job(lambda data: data, os.urandom(1024) * (size // 1024)), 0, time.monotonic())
    turns: list[float] = []

    def measured(events):
        turns.append(time.process_time())
        return SlotReady(0) in events

    seen = slots.until(measured)
    [done] = [event for event in seen if isinstance(event, SlotDone)]
    assert done.outcome is Outcome.RETURNED
    assert len(dill.loads(done.result)) == size
    assert max(later - sooner for sooner, later in itertools.pairwise(turns)) < 0.5


def test_a_result_over_the_limit_is_a_clear_failure(tmp_path):
    driver = start_pool(tmp_path, 1, max_result_bytes=10_000)
    try:
        assert len(driver.value(lambda: b"x" * 9_900)) == 9_900
        done = driver.run(lambda: b"x" * 10_000)
        assert done.outcome is Outcome.RAISED
        assert "at most 10000" in done.error.message
    finally:
        driver.pool.close()


# --- attacks


def close_everything():
    os.closerange(0, 1000)


def close_everything_and_spin():
    os.closerange(0, 1000)
    while True:
        pass


def write_junk_everywhere():
    for descriptor in range(20):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"junk" * 100)
    while True:
        pass


def forge_an_answer():
    from everythingfaas.slot import frames

    for descriptor in range(3, 20):
        for run in range(1000, 1003):
            with contextlib.suppress(OSError):
                os.write(descriptor, frames.prefixed(4, frames.done_head(run, 1, "", None), 1) + b"N")
    while True:
        pass


def announce_a_huge_answer():
    from everythingfaas.slot import frames

    os.write(3, frames.prefixed(4, b"", 1 << 40))
    while True:
        pass


@pytest.mark.parametrize(
    "function",
    [
        close_everything,
        close_everything_and_spin,
        write_junk_everywhere,
        forge_an_answer,
        announce_a_huge_answer,
    ],
)
def test_whoever_breaks_the_connection_spoils_only_his_own_run(slots, function):
    slots.begin(spin, slot=1)
    done = slots.run(function)
    assert done.outcome is Outcome.DIED
    assert "descriptors" in done.error.message
    assert slots.value(lambda: 1) == 1
    slots.kill(1)


def test_a_killed_zygote_is_replaced_with_all_its_slots(slots):
    def function():
        daemon = leave_a_daemon()
        print(daemon, os.getpid(), os.getppid(), flush=True)
        os.kill(os.getppid(), signal.SIGKILL)
        while True:
            pass

    slots.begin(spin, slot=1, task="innocent")
    slots.pool.run(make_job(function, task="guilty"), 0, time.monotonic())
    seen = slots.until(lambda events: SlotReady(0) in events and SlotReady(1) in events)
    ends = {event.task: (event.outcome, event.exit_signal) for event in seen if isinstance(event, SlotDone)}
    assert ends == {"innocent": (Outcome.DIED, 9), "guilty": (Outcome.DIED, 9)}
    [pids] = [event.data.split() for event in seen if isinstance(event, OutputChunk) and event.task == "guilty"]
    assert all(is_dead(int(pid)) for pid in pids)
    assert slots.value(lambda: 1, slot=0) == 1
    assert slots.value(lambda: 1, slot=1) == 1


def test_a_stopped_zygote_goes_on_and_costs_the_other_slots_nothing(slots):
    def function():
        os.kill(os.getppid(), signal.SIGSTOP)
        print("stopped", flush=True)
        while True:
            pass

    zygote = proctree.look(slots.pool.pid(0)).parent
    slots.begin(spin, slot=1)
    slots.begin(function)
    began = time.monotonic()
    assert slots.kill().outcome is Outcome.DEADLINE
    assert time.monotonic() - began < 1.0
    assert proctree.look(slots.pool.pid(0)).parent == proctree.look(slots.pool.pid(1)).parent == zygote
    assert slots.kill(1).outcome is Outcome.DEADLINE
    assert slots.value(lambda: 1) == 1


def test_stopping_the_zygote_again_and_again_delays_no_kill(slots):
    def function():
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        print("stopping", flush=True)
        while True:
            os.kill(os.getppid(), signal.SIGSTOP)

    slots.begin(function)
    began = time.monotonic()
    assert slots.kill().outcome is Outcome.DEADLINE
    assert time.monotonic() - began < 2.0  # it may have needed another one
    assert slots.value(lambda: 1) == 1


def test_a_zygote_that_is_found_stopped_twice_before_it_answers_is_given_up():
    class Stopped:
        is_awaited = is_stopped = True
        continued = 0

        def go_on(self):
            self.continued += 1

    zygote, watch = Stopped(), ZygoteWatch()
    watch.heard(5.0)
    assert not watch.is_due(zygote, 10.0)
    assert watch.deadline(zygote) == 10.0 + LOOK_S
    assert not watch.is_due(zygote, 10.0 + LOOK_S / 2)
    assert zygote.continued == 0
    assert not watch.is_due(zygote, 10.0 + LOOK_S)
    assert zygote.continued == 1
    watch.heard(10.3)
    assert not watch.is_due(zygote, 10.4)
    assert not watch.is_due(zygote, 10.4 + LOOK_S)
    assert watch.is_due(zygote, 10.4 + 2 * LOOK_S)


def test_a_zygote_that_does_not_answer_is_replaced(slots, monkeypatch):
    monkeypatch.setattr("worker.zygote.ANSWER_S", 0.1)  # less than LOOK_S: nobody looks why
    zygote = proctree.look(slots.pool.pid(0)).parent
    os.kill(zygote, signal.SIGSTOP)
    assert slots.run(lambda: os._exit(4)).outcome is Outcome.DIED
    monkeypatch.undo()
    assert is_dead(zygote)
    assert slots.value(lambda: 1) == 1


# --- the pool itself


def test_jobs_may_come_before_the_processes_do(tmp_path):
    driver = Driver(SlotPool(1, folder=tmp_path))
    driver.pool.start()
    try:
        driver.pool.run(make_job(lambda: 1), 0, time.monotonic())
        driver.pool.run(make_job(lambda: 2, task="another"), 0, time.monotonic())
        seen = driver.until(lambda events: SlotReady(0) in events)
        assert SlotReturned(0, "another", 1) in seen
        assert [dill.loads(event.result) for event in seen if isinstance(event, SlotDone)] == [1]
    finally:
        driver.pool.close()


def test_a_folder_that_does_not_exist_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        SlotPool(1, folder=tmp_path / "nowhere").start()


def test_closing_ends_every_process(tmp_path):
    driver = start_pool(tmp_path, 3)
    driver.begin(spin, slot=0)
    driver.begin(block_and_spin, slot=1)

    def function():
        print(leave_a_daemon(), flush=True)
        while True:
            pass

    driver.pool.run(make_job(function), 2, time.monotonic())
    seen = driver.until(lambda events: any(isinstance(event, OutputChunk) for event in events))
    daemon = [int(event.data) for event in seen if isinstance(event, OutputChunk)]
    zygote = proctree.look(driver.pool.pid(0)).parent
    before = {zygote, *proctree.descendants(zygote)}
    assert set(daemon) < before
    assert len(before) == 1 + 3 + 1
    driver.pool.close()
    driver.pool.close()
    assert all(is_dead(pid) for pid in before)
    assert not [child for child in proctree.children(os.getpid()) if child.pid in before]


def test_nothing_leaks_over_many_processes(slots):
    def count():
        return len(os.listdir("/proc/self/fd"))

    zygote = proctree.look(slots.pool.pid(0)).parent
    ours, theirs = count(), len(os.listdir(f"/proc/{zygote}/fd"))
    for _ in range(200):
        slots.value(leave_another_folder)
    assert (count(), len(os.listdir(f"/proc/{zygote}/fd"))) == (ours, theirs)
    assert len(proctree.children(zygote)) == 2


# --- what a function does to the process and to its folder of temporary files


def patch_builtins():
    import builtins

    builtins.len = builtins.open = builtins.isinstance = None
    return "done"


def put_liars_into_the_streams():
    import sys

    class Liar:
        def __getattr__(self, name):
            raise SystemExit(name)

    sys.stdout = sys.stderr = Liar()
    return "done"


def clear_the_path():
    import sys

    sys.path.clear()
    sys.meta_path.clear()
    return "done"


def lower_its_limits():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return "done"


def leave_files():
    import tempfile

    folder = tempfile.mkdtemp()
    os.mkdir(f"{folder}/locked")
    with open(f"{folder}/locked/file", "w") as file:
        file.write("left")
    os.chmod(f"{folder}/locked", 0)
    return "done"


@pytest.mark.parametrize("function", [patch_builtins, clear_the_path, lower_its_limits, leave_files])
def test_who_spoils_the_process_gets_his_result_and_nobody_else_the_process(slots, function):
    before = slots.pool.pid(0)
    assert slots.value(function) == "done"
    assert slots.pool.pid(0) != before


def test_streams_that_raise_anything_are_put_back(slots):
    assert slots.value(put_liars_into_the_streams) == "done"
    assert slots.run(lambda: print("heard")).output.head == b"heard\n"


def test_temporary_files_go_with_the_process(tmp_path):
    slots = start_pool(tmp_path)

    def function():
        import tempfile

        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(b"left")
        return file.name

    def function_that_dies():
        os.close(os.open(os.path.join(os.environ["TMPDIR"], "left"), os.O_CREAT))
        os._exit(1)

    left = slots.value(function)
    folder = Path(left).parent
    assert folder.parent.name.startswith(scratch.PREFIX)
    until(lambda: not folder.exists(), what="its removal")
    slots.run(function_that_dies)
    until(lambda: not list(folder.parent.glob("*/*")), what="its removal")
    slots.pool.close()
    assert not folder.parent.exists()


def test_the_next_worker_removes_what_a_killed_one_has_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ownerless = tmp_path / f"{scratch.PREFIX}ownerless"
    (tmp_path / "another").mkdir()
    alive = scratch.Scratch()
    (tmp_path / "made" / "1").mkdir(parents=True)
    (tmp_path / "made").rename(ownerless)  # whole: the first one may be looking still
    another = scratch.Scratch()
    until(lambda: not ownerless.exists(), what="its removal")
    assert sorted(tmp_path.iterdir()) == sorted([Path(alive.path), Path(another.path), tmp_path / "another"])
    alive.close()
    another.close()
    assert [path.name for path in tmp_path.iterdir()] == ["another"]
