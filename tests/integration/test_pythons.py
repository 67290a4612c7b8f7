"""Workers of every Python, and functions of every Python on them."""

from __future__ import annotations

import json
import pickle
import signal
from pathlib import Path
from typing import Any

import dill
import pytest

from dispatcher.policies import CRASHES
from everythingfaas.pythons import Minor, matches
from tests.data.functions import CASES
from tests.functions import pickled
from tests.pythons import ROOT, WORKERS, environment, run

SCRIPT = Path(__file__).with_name("on_python.py")


@pytest.fixture(scope="session", params=WORKERS, ids=lambda python: "{}.{}".format(*python))
def worker(request: pytest.FixtureRequest) -> tuple[Minor, str]:
    """A version, and an interpreter of it."""
    return request.param, environment(request.param, request.config.cache.mkdir("pythons"))


def test_slots_run_on_every_python(worker: tuple[Minor, str], tmp_path: Path) -> None:
    python, program = worker
    said = json.loads(run(program, SCRIPT, "essence", str(tmp_path)))
    assert said.pop("modules") > 20
    assert said == {
        "python": list(python),
        "returned": ["RETURNED", [20, python[1]]],
        "raised": ["RAISED", "ValueError('wrong')", "ValueError"],
        "is_warm": True,
        "printed": "printed\n",
        "died": ["DIED", signal.SIGSEGV],
        "left_a_thread": ["RETURNED", True],
        "killed": "DEADLINE",
        "wire": True,
    }


def test_what_the_guard_lets_through_runs(worker: tuple[Minor, str], tmp_path: Path) -> None:
    python, program = worker
    allowed = [function for function in pickled() if matches(function.origin.requirements, python)]
    assert {function.python for function in allowed} >= {python}
    arguments = {name: dill.dumps((args, {})) for name, _, args, _ in CASES}
    expected = {name: value for name, _, _, value in CASES}
    jobs, answers = tmp_path / "jobs", tmp_path / "answers"
    jobs.write_bytes(pickle.dumps([(function.raw, arguments[function.name]) for function in allowed]))
    run(program, SCRIPT, "run", str(tmp_path), str(jobs), str(answers))
    wrong: list[Any] = []
    for function, (outcome, result, code, number) in zip(allowed, pickle.loads(answers.read_bytes()), strict=True):
        if outcome != "RETURNED":
            # A crash is explained where the dispatcher knows that the function may be another Python's.
            is_explained = outcome == "DIED" and number in CRASHES and len(function.origin.minors) > 1
            if not is_explained or function.python == python:
                wrong.append((function.path, outcome, code, number))
        elif expected[function.name] is not None and dill.loads(result) != expected[function.name]:
            wrong.append((function.path, dill.loads(result)))
    assert not wrong


def test_the_interpreter_of_a_worker_has_nothing_of_the_server(worker: tuple[Minor, str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import importlib.util as u; print([u.find_spec(n) for n in ('django', 'redis', 'typer')])")
    assert run(worker[1], script).strip() == "[None, None, None]"
    assert ROOT.is_dir()
