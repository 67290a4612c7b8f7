"""Failures load wherever a client may be: with dill alone, on any Python."""

from __future__ import annotations

import pickle
import pickletools
import shutil
import subprocess
import sys
from pathlib import Path

import dill
import pytest

from everythingfaas.failures import (
    Failure,
    FunctionFailure,
    TaskCancelled,
    WorkerFailure,
    dump,
    function_failure,
)

FAILURES: list[Failure] = [
    WorkerFailure("function exceeded deadline of 2 s"),
    TaskCancelled("the task was cancelled"),
    function_failure("app.Broken", "no such thing", "Traceback …"),
]


def pythons() -> list[str]:
    """The interpreters of the versions that clients may have, as far as they are on this machine."""
    found = [sys.executable]
    for minor in range(10, 14):
        candidates = [shutil.which(f"python3.{minor}")]
        candidates += map(str, sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")))
        found += [path for path in candidates if path and "shims" not in path][:1]
    return found


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_failure_comes_back_as_it_was(failure: Failure) -> None:
    again = dill.loads(dump(failure))
    assert type(again).__name__ == type(failure).__name__
    assert isinstance(again, Exception)
    assert again.args == failure.args
    assert again.__dict__ == failure.__dict__


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_no_code_and_nothing_of_ours_is_in_the_bytes(failure: Failure) -> None:
    names = {arg for _, arg, _ in pickletools.genops(dump(failure)) if isinstance(arg, str)}
    assert "builtins" in names
    assert not names & {"dill", "types", "CodeType", "_create_code"}


@pytest.mark.parametrize("python", pythons())
def test_it_loads_without_us_on_every_python(python: str, tmp_path: Path) -> None:
    file = tmp_path / "failures"
    file.write_bytes(b"".join(dump(failure) for failure in FAILURES))
    program = (
        "import pickle, sys\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        f"    for _ in range({len(FAILURES)}):\n"
        "        failure = pickle.load(file)\n"
        "        print(type(failure).__name__, failure, isinstance(failure, Exception))\n"
    )
    done = subprocess.run(
        [python, "-I", "-c", program, str(file)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == [f"{type(failure).__name__} {failure} True" for failure in FAILURES]


def test_the_classes_have_no_methods() -> None:
    for cls in (WorkerFailure, FunctionFailure, TaskCancelled):
        assert not [value for value in vars(cls).values() if callable(value)]


def test_a_subclass_is_not_silently_carried_by_value() -> None:
    class Own(WorkerFailure):
        pass

    with pytest.raises((pickle.PicklingError, AttributeError)):
        dump(Own("x"))
