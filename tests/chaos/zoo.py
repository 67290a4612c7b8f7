"""The fault zoo: hostile functions, each beside nine innocent tasks, in each mode.

    python -m tests.chaos.zoo [--mode local] [--only NAME]

Of each hostile function is checked that its own task ends as is written beside it below; that the innocent ones and the
next task are served as if it had not been there; and that no process, no open descriptor and no temporary file is
left of it.
"""

from __future__ import annotations

import argparse
import base64
import pickle
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from everythingfaas import proctree
from tests.chaos import animals
from tests.live import Appliance, deserialize, running, serialize, until

MODES = ("local", "pull", "push")
SLOTS = 4
INNOCENTS = 9
#: How long something that goes away by itself may take to be gone.
SETTLE_S = 10.0

Check = Callable[[str], Any]  #: of a result as the REST interface gives it; says false, or raises, if it is wrong


@dataclass(frozen=True)
class Animal:
    """One hostile function, and what has to come of it."""

    run: Callable[..., Any]
    status: str
    check: Check
    args: tuple[Any, ...] = ()
    policy: dict[str, Any] = field(default_factory=dict)
    payload: bytes | None = None  #: in place of the pickle of `run`
    arguments: bytes | None = None  #: in place of that of `args`
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or self.run.__name__


def returns(run: Callable[..., Any], value: Any = "done", **more: Any) -> Animal:
    return Animal(run, "COMPLETED", lambda text: deserialize(text) == value, **more)


def returns_bytes(run: Callable[..., Any], part: bytes) -> Animal:
    """It completes with what nobody should open."""
    return Animal(run, "COMPLETED", lambda text: part in base64.b64decode(text))


def fails(run: Callable[..., Any], kind: str, says: str = "", **more: Any) -> Animal:
    """It fails with an exception of a class of that name, in whose text the expression `says` is found."""

    def check(text: str) -> bool:
        failure = deserialize(text)
        return type(failure).__name__ == kind and (not says or re.search(says, str(failure)) is not None)

    return Animal(run, "FAILED", check, **more)


def dies(run: Callable[..., Any], says: str, *args: Any, **more: Any) -> Animal:
    policy = {"max_attempts": 1} | more.pop("policy", {})
    return fails(run, "WorkerFailure", says, args=args, policy=policy, **more)


def never_ends(run: Callable[..., Any]) -> Animal:
    return fails(run, "WorkerFailure", "exceeded deadline of 0.4 s", policy={"deadline_s": 0.4})


ZOO: tuple[Animal, ...] = (
    # its process ends
    dies(animals.exits, "exit code 3"),
    dies(animals.exits, "its process died 3 times", policy={"max_attempts": 9}, label="exits_each_time"),
    dies(animals.kills_itself, r"signal 9 \(SIGKILL\)", 9, label="kills_itself_SIGKILL"),
    dies(animals.kills_itself, r"signal 11 \(SIGSEGV\)", 11, label="kills_itself_SIGSEGV"),
    dies(animals.kills_itself, r"signal 6 \(SIGABRT\)", 6, label="kills_itself_SIGABRT"),
    dies(animals.kills_itself, r"signal 15 \(SIGTERM\)", 15, label="kills_itself_SIGTERM"),
    dies(animals.reads_nowhere, "SIGSEGV"),
    dies(animals.overflows_the_stack, "SIGSEGV"),
    dies(animals.becomes_another_program, "exit code 0 before the function returned"),
    dies(animals.kills_its_group, "SIGKILL"),
    dies(animals.kills_its_parent, "SIGKILL"),
    dies(animals.kills_its_supervisor, "lost while the function ran"),
    # it stops what it depends on
    never_ends(animals.stops_its_parent),
    never_ends(animals.stops_its_parent_all_the_time),
    returns(animals.stops_its_parent_and_returns),
    dies(animals.stops_its_supervisor, "lost while the function ran"),
    returns(animals.stops_the_supervisor_of_all),
    # it raises
    fails(animals.raises_system_exit, "SystemExit", "2"),
    fails(animals.raises_keyboard_interrupt, "KeyboardInterrupt"),
    fails(animals.raises_stop_iteration, "StopIteration"),
    fails(animals.raises_unpicklable, "FunctionFailure", "Unpicklable: unpicklable"),
    fails(animals.raises_what_cannot_be_built, "FunctionFailure", "NeedsTwo: 1"),
    Animal(animals.raises_mute, "FAILED", lambda text: isinstance(deserialize(text), animals.Mute)),
    fails(animals.raises_irreducible, "FunctionFailure", "Irreducible: irreducible"),
    dies(animals.raises_what_exits_when_loaded, "exit code 9"),
    fails(animals.recurses, "RecursionError"),
    fails(animals.reads_input, "EOFError"),
    # it returns what it should not, or is given that
    fails(animals.returns_a_generator, "FunctionFailure", "cannot be pickled"),
    returns(animals.is_a_coroutine, 7),
    returns_bytes(animals.returns_what_exits_when_loaded, b"_exit"),
    dies(animals.returns_what_exits_when_pickled, "exit code 5"),
    returns_bytes(animals.returns_what_cannot_be_loaded, b"no number"),
    fails(animals.returns_200_megabytes, "FunctionFailure", "the result is 2097.* at most 67108864"),
    dies(animals.takes_one, "exit code 4", animals.ExitsAsArgument(), label="takes_what_exits_when_loaded"),
    fails(
        animals.takes_one,
        "UnpicklingError",
        "cannot be loaded: MemoryError",
        args=(animals.HugeAsArgument(),),
        label="takes_what_is_huge_when_loaded",
    ),
    fails(animals.takes_one, "TypeError", "positional argument", args=(1, 2), label="takes_arguments_that_do_not_fit"),
    fails(animals.takes_one, "TypeError", "must hold", arguments=pickle.dumps([1, 2]), label="takes_no_arguments"),
    fails(
        animals.takes_one,
        "ModuleNotFoundError",
        "no_such_module",
        payload=b"\x80\x04\x8c\x0eno_such_module\x8c\x01f\x93.",
        label="imports_what_is_missing",
    ),
    # it never ends, or never has enough
    never_ends(animals.blocks_signals_and_spins),
    never_ends(animals.catches_everything),
    never_ends(animals.stops_itself),
    never_ends(animals.is_a_fork_bomb),
    dies(animals.hogs_memory, "memory", policy={"memory_limit_mb": 300}),
    # it leaves something behind
    returns(animals.forks_a_child_that_returns, "parent"),
    returns(animals.forks_a_child_that_raises, "parent"),
    returns(animals.leaves_a_daemon),
    returns(animals.leaves_threads),
    returns(animals.leaves_a_thread_that_spins),
    returns(animals.leaves_a_thread_that_exits),
    returns(animals.exits_in_a_thread),
    returns(animals.leaves_files),
    dies(animals.leaves_a_file_and_dies, "exit code 3"),
    returns(animals.changes_everything),
    returns(animals.patches_builtins),
    returns(animals.breaks_imports),
    returns(animals.lowers_its_limits),
    fails(animals.traces_everything, "RuntimeError", "traced"),
    returns(animals.raises_at_exit),
    # it spoils its connections
    dies(animals.closes_its_descriptors, "descriptors"),
    returns(animals.closes_its_output),
    returns(animals.replaces_its_output),
    returns(animals.prints_a_gigabyte),
    dies(animals.forges_frames, "descriptors"),
)


#: A process may open so many connections when they are first needed (for what functions print, say), and keep them.
#: What is left open for each of dozens of functions is more.
FIRST_NEEDED = 2


@dataclass
class Left:
    """What there is of an appliance on this machine."""

    processes: Counter[str]
    descriptors: Counter[str]
    files: Counter[str]

    def beyond(self, before: Left) -> list[str]:
        """What is there now and was not before."""
        found = [f"process {name}" for name in (self.processes - before.processes).elements()]
        found += [f"gone: process {name}" for name in (before.processes - self.processes).elements()]
        more = self.descriptors - before.descriptors
        found += [f"{count} descriptors of {name}" for name, count in more.items() if count > FIRST_NEEDED]
        return found + [f"file {name}" for name in (self.files - before.files).elements()]


class Keeper:
    """Shows the animals to one running appliance."""

    def __init__(self, appliance: Appliance, temporary: Path) -> None:
        self._appliance = appliance
        self._temporary = temporary
        self._innocent = appliance.register(animals.innocent)
        self._number = 0
        self._serve_innocents(range(40))  # what is opened once, is open from here on
        self._before = self._look()

    def show(self, animal: Animal) -> list[str]:
        """What is wrong with what came of it; empty if nothing is."""
        numbers = range(self._number, self._number + INNOCENTS)
        self._number += INNOCENTS
        half = INNOCENTS // 2
        first = [(n, self._appliance.execute(self._innocent, n)) for n in numbers[:half]]
        task = self._submit(animal)
        innocents = first + [(n, self._appliance.execute(self._innocent, n)) for n in numbers[half:]]
        faults = self._judge(animal, task)
        faults += self._await_innocents(innocents)
        faults += self._serve_innocents(range(self._number, self._number + SLOTS))
        return faults + self._leftovers()

    def descriptors(self) -> list[str]:
        """Descriptors that are open now and were not in the beginning."""
        return self._leftovers(with_descriptors=True)

    def _submit(self, animal: Animal) -> str:
        payload = serialize(animal.run) if animal.payload is None else base64.b64encode(animal.payload).decode()
        body = {"name": animal.name, "payload": payload, "policy": animal.policy}
        answer = self._appliance.post("/register_function", body)
        assert answer.status_code == 201, answer.text
        if animal.arguments is not None:
            arguments = base64.b64encode(animal.arguments).decode()
        else:
            arguments = serialize((animal.args, {}))
        body = {"function_id": answer.json()["function_id"], "payload": arguments}
        answer = self._appliance.post("/execute_function", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["task_id"])

    def _judge(self, animal: Animal, task: str) -> list[str]:
        try:
            status, text = self._result(task)
        except TimeoutError as exc:
            return [str(exc)]
        try:
            right = status == animal.status and animal.check(text)
        except Exception as exc:  # noqa: BLE001 whatever is in it
            return [f"{status}, and its result cannot be read: {exc!r}"]
        if right:
            return []
        shown = text[:200] if animal.status == "COMPLETED" else repr(deserialize(text))[:300]
        return [f"{status}: {shown}"]

    def _result(self, task: str, *, timeout_s: float = 40.0) -> tuple[str, str]:
        patience = time.monotonic() + timeout_s
        while time.monotonic() < patience:
            answer = self._appliance.get(f"/result/{task}?wait=10").json()
            if answer["status"] in ("COMPLETED", "FAILED"):
                return answer["status"], answer["result"]
        raise TimeoutError(f"it has not ended within {timeout_s:g} s")

    def _serve_innocents(self, numbers: Iterable[int]) -> list[str]:
        return self._await_innocents([(n, self._appliance.execute(self._innocent, n)) for n in numbers])

    def _await_innocents(self, tasks: list[tuple[int, str]]) -> list[str]:
        faults = []
        for number, task in tasks:
            try:
                status, text = self._result(task)
            except TimeoutError as exc:
                faults.append(f"an innocent task: {exc}")
                continue
            value = deserialize(text)
            if (status, value) != ("COMPLETED", [number * number, True]):
                faults.append(f"an innocent task: {status}: {value!r}")
        return faults

    def _leftovers(self, *, with_descriptors: bool = False) -> list[str]:
        patience = time.monotonic() + SETTLE_S
        while True:
            now = self._look()
            if not with_descriptors:
                now.descriptors.clear()
            found = now.beyond(self._before)
            if not found or time.monotonic() > patience:
                return found
            time.sleep(0.02)

    def _look(self) -> Left:
        assert self._appliance.process is not None
        processes: Counter[str] = Counter()
        descriptors: Counter[str] = Counter()
        for pid in self._pids():
            try:
                process = psutil.Process(pid)
                name = _role(process.cmdline())
                if process.status() == psutil.STATUS_ZOMBIE:
                    name += " (zombie)"
                descriptors[name] += process.num_fds()
                processes[name] += 1
            except psutil.NoSuchProcess:
                continue
        # Those of the workers' folder and of each slot's have names by chance: it is their number that counts.
        found = (str(path.relative_to(self._temporary)) for path in self._temporary.rglob("*"))
        files = Counter(
            re.sub(r"^faas-slots-\w+(/\d+)?", lambda m: "slot" if m[1] else "worker", name) for name in found
        )
        return Left(processes, descriptors, files)

    def _pids(self) -> set[int]:
        """Whatever hangs below the appliance, has its environment, or is the daemon that tried to get away."""
        assert self._appliance.process is not None
        root = psutil.Process(self._appliance.process.pid)
        found = {root.pid, *(child.pid for child in root.children(recursive=True))}
        found.update(proctree.find_by_environment("FAAS_DATA_DIR", str(self._appliance.data_dir)))
        for process in psutil.process_iter(["cmdline"]):
            if animals.DAEMON_S in (process.info["cmdline"] or ()):
                found.add(process.pid)
        return found


def _role(command: list[str]) -> str:
    """Which part of an appliance a process is."""
    line = " ".join(command)
    roles = {"serve": "web", "task_dispatcher": "dispatcher", "-m worker": "worker", "valkey": "redis"}
    roles |= {"slot import zygote": "zygote or slot", " up ": "up"}
    return next((role for part, role in roles.items() if part in line), line[:60])


@dataclass(frozen=True)
class Visit:
    """What came of one animal in one mode."""

    mode: str
    name: str
    elapsed_s: float
    faults: tuple[str, ...]


def visit(mode: str, zoo: Iterable[Animal], folder: Path, *, report: Callable[[Visit], None]) -> list[Visit]:
    """Shows the animals to an appliance of its own."""
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    options = ("--mode", mode, "--workers", str(SLOTS))
    visits = []
    with running(folder / "data", *options, TMPDIR=str(temporary)) as appliance:
        keeper = Keeper(appliance, temporary)

        def note(name: str, look: Callable[[], list[str]]) -> None:
            begun = time.monotonic()
            faults = tuple(look())
            visits.append(Visit(mode, name, time.monotonic() - begun, faults))
            report(visits[-1])

        for animal in zoo:
            note(animal.name, lambda animal=animal: keeper.show(animal))  # type: ignore[misc]
        note("descriptors of all processes", keeper.descriptors)
    data_dir = str(folder / "data")
    until(lambda: not proctree.find_by_environment("FAAS_DATA_DIR", data_dir), what="the end of all processes")
    return visits


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.zoo")
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    options = parser.parse_args()
    zoo = [animal for animal in ZOO if not options.only or animal.name in options.only]
    begun = time.monotonic()
    visits: list[Visit] = []
    for mode in options.mode or MODES:
        with tempfile.TemporaryDirectory(prefix="faas-zoo-") as folder:
            visits += visit(mode, zoo, Path(folder), report=_print)
    wrong = sum(bool(visit.faults) for visit in visits)
    innocents = len(zoo) * INNOCENTS * len(options.mode or MODES)
    print(
        f"zoo: {len(zoo)} hostile functions, {innocents} innocent tasks beside them, {wrong} wrong,"
        f" {time.monotonic() - begun:.0f} s"
    )
    return 1 if wrong else 0


def _print(visit: Visit) -> None:
    verdict = "; ".join(visit.faults) or "as due"
    print(f"{visit.mode:6}{visit.name:38}{visit.elapsed_s:6.2f} s  {verdict}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
