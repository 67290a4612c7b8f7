"""What `result` holds, row by row of the contract, through real processes."""

from __future__ import annotations

import codecs
import sqlite3
import time
from pathlib import Path
from typing import Any

import dill
import pytest

from tests.live import Appliance, deserialize, serialize, until


def by_value(function: Any) -> str:
    return codecs.encode(dill.dumps(function, recurse=True, byref=False), "base64").decode()


def ends(appliance: Appliance, function: Any, *args: Any) -> tuple[str, Any]:
    return appliance.result(appliance.execute(appliance.register(function, payload=by_value(function)), *args))


class OwnError(Exception):
    """An error of this module, which the worker can import and the client has."""


class CannotBeRebuilt(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def raises_own() -> None:
    raise OwnError("of mine")


def raises_what_cannot_be_rebuilt() -> None:
    raise CannotBeRebuilt(1, 2)


def test_a_function_that_raises_leaves_the_exception_itself(appliance: Appliance) -> None:
    def fails(x: int) -> float:
        return x / 0

    status, value = ends(appliance, fails, 1)
    assert status == "FAILED"
    assert isinstance(value, ZeroDivisionError)


def test_an_error_class_of_a_module_that_both_have(appliance: Appliance) -> None:
    status, value = appliance.result(appliance.submit(raises_own))
    assert status == "FAILED"
    assert isinstance(value, OwnError)
    assert str(value) == "of mine"


def test_what_cannot_be_rebuilt_leaves_its_name_message_and_traceback(appliance: Appliance) -> None:
    status, value = appliance.result(appliance.submit(raises_what_cannot_be_rebuilt))
    assert (status, type(value).__name__) == ("FAILED", "FunctionFailure")
    assert value.type_name.endswith("CannotBeRebuilt")
    assert value.message == "1 and 2"
    assert "raises_what_cannot_be_rebuilt" in value.traceback


def test_a_result_that_does_not_pickle(appliance: Appliance) -> None:
    def returns_a_generator() -> Any:
        return (i for i in range(3))

    status, value = ends(appliance, returns_a_generator)
    assert (status, type(value).__name__) == ("FAILED", "FunctionFailure")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_every_kind_of_exception_is_one(appliance: Appliance, error: type[BaseException]) -> None:
    def raises() -> None:
        raise error("enough")

    status, value = ends(appliance, raises)
    assert status == "FAILED"
    assert isinstance(value, BaseException)
    assert "enough" in str(value)


def test_a_process_that_exits_fails_with_its_code(appliance: Appliance) -> None:
    def exits() -> None:
        import os

        os._exit(7)

    status, value = ends(appliance, exits)
    assert (status, type(value).__name__) == ("FAILED", "WorkerFailure")
    assert "exit code 7" in str(value)


def test_a_process_that_crashes_fails_with_its_signal(appliance: Appliance) -> None:
    def crashes() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGSEGV)

    status, value = ends(appliance, crashes)
    assert (status, type(value).__name__) == ("FAILED", "WorkerFailure")
    assert "SIGSEGV" in str(value)


def test_a_deadline_kills_all_that_the_function_started(appliance: Appliance, tmp_path: Path) -> None:
    def sleeps_with_company(path: str) -> None:
        import subprocess
        import time

        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        with open(path, "w") as file:
            file.write(str(child.pid))
        time.sleep(60)

    started = time.monotonic()
    status, value = ends(appliance, sleeps_with_company, str(tmp_path / "pid"))
    assert (status, type(value).__name__) == ("FAILED", "WorkerFailure")
    assert "exceeded deadline of 2 s" in str(value)
    assert time.monotonic() - started < 6
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=5, what="the end of the function's child")


@pytest.mark.parametrize("arguments", [((2,),), (2, {}), 2, ((1, 2), {}), ((), {"y": 1})], ids=repr)
def test_arguments_of_the_wrong_shape_are_accepted_and_fail(appliance: Appliance, arguments: Any) -> None:
    def double(x: int) -> int:
        return x * 2

    function_id = appliance.register(double, payload=by_value(double))
    answer = appliance.post("/execute_function", {"function_id": function_id, "payload": serialize(arguments)})
    assert answer.status_code == 201
    status, value = appliance.result(answer.json()["task_id"])
    assert status == "FAILED"
    assert isinstance(value, Exception)


def test_something_that_cannot_be_called_fails(appliance: Appliance) -> None:
    function_id = appliance.register(None, payload=serialize(OwnError("not callable")))
    status, value = appliance.result(appliance.execute(function_id))
    assert status == "FAILED"
    assert "cannot be called" in str(value)


def test_results_come_in_mime_base64_and_are_empty_until_the_end(appliance: Appliance) -> None:
    def slow() -> bytes:
        import time

        time.sleep(0.3)
        return bytes(200)

    task = appliance.execute(appliance.register(slow, payload=by_value(slow)))
    answer = appliance.get(f"/result/{task}").json()
    assert (answer["task_id"], answer["result"]) == (task, "")
    appliance.result(task)
    text = appliance.get(f"/result/{task}").json()["result"]
    assert text.endswith("\n")
    assert {len(line) for line in text.splitlines()[:-1]} == {76}
    assert deserialize(text) == bytes(200)


def test_payloads_without_newlines_are_taken_too(appliance: Appliance) -> None:
    payload = by_value(lambda: 5).replace("\n", "")
    assert appliance.result(appliance.execute(appliance.register(None, payload=payload))) == ("COMPLETED", 5)


def test_a_lambda_whose_module_the_worker_lacks_runs(appliance: Appliance) -> None:
    payload = _from_a_module_that_is_gone("lambda x: x + 1")
    function_id = appliance.register(None, payload=payload)
    assert appliance.result(appliance.execute(function_id, 1)) == ("COMPLETED", 2)


def test_a_lambda_that_uses_its_missing_module_says_what_to_do(appliance: Appliance) -> None:
    payload = _from_a_module_that_is_gone("lambda: OFFSET")
    status, value = appliance.result(appliance.execute(appliance.register(None, payload=payload)))
    assert status == "FAILED"
    assert isinstance(value, ModuleNotFoundError)
    assert "gone_module" in str(value)


def test_a_function_of_a_missing_module_says_what_to_do(appliance: Appliance) -> None:
    payload = codecs.encode(_reference(), "base64").decode()
    status, value = appliance.result(appliance.execute(appliance.register(None, payload=payload)))
    assert status == "FAILED"
    assert isinstance(value, ModuleNotFoundError)
    assert "gone_module" in str(value)


def _reference() -> bytes:
    """The pickle of `gone_module.function`, as dill writes it: a name, and no code."""
    return b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x0bgone_module\x94\x8c\x08function\x94\x93\x94."


def _from_a_module_that_is_gone(source: str) -> str:
    """The dill of a lambda that was defined in an importable module, which the worker does not have."""
    import sys
    import types

    module = types.ModuleType("gone_module")
    module.__file__ = "gone_module.py"
    sys.modules["gone_module"] = module
    try:
        exec(f"OFFSET = 1\nfunction = {source}", module.__dict__)
        return codecs.encode(dill.dumps(module.function), "base64").decode()
    finally:
        del sys.modules["gone_module"]


def test_output_is_kept_with_the_attempt(appliance: Appliance) -> None:
    def prints() -> None:
        import os

        print("hello from the function")
        os.write(2, b"and from below\n")

    task = appliance.execute(appliance.register(prints, payload=by_value(prints)))
    assert appliance.result(task) == ("COMPLETED", None)
    if appliance.data_dir is None:
        pytest.skip("the API that shows attempts is still to come, and the database is not known here")
    with sqlite3.connect(f"file:{appliance.data_dir}/db.sqlite3?mode=ro", uri=True) as database:
        rows = database.execute("SELECT output_head FROM api_attempt WHERE task_id = ?", [task.replace("-", "")])
        assert rows.fetchall() == [(b"hello from the function\nand from below\n",)]
    database.close()


def test_registering_twice_gives_two_ids_and_both_work(appliance: Appliance) -> None:
    payload = by_value(lambda: "works")
    first, second = (appliance.register(None, payload=payload) for _ in range(2))
    assert first != second
    assert {appliance.result(appliance.execute(f)) for f in (first, second)} == {("COMPLETED", "works")}


def test_a_slot_holds_none_of_our_packages(appliance: Appliance) -> None:
    def modules() -> list[str]:
        import sys

        ours = ("api", "dispatcher", "worker", "faas_project", "appliance", "django", "zmq")
        return [name for name in sys.modules if name.split(".")[0] in ours]

    assert ends(appliance, modules) == ("COMPLETED", [])


def test_a_slot_keeps_one_variable_of_ours(appliance: Appliance) -> None:
    def environment() -> list[str]:
        import os

        return sorted(name for name in os.environ if name.startswith(("FAAS_", "DJANGO_")))

    assert ends(appliance, environment) == ("COMPLETED", ["FAAS_DATA_DIR"])
