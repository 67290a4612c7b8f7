"""The four tests that every service of this contract has to pass, against real processes.

Functions are pickled by reference to this module, as pytest clients do it: the worker imports it.
"""

from __future__ import annotations

import random

import pytest

from tests.live import Appliance, deserialize, serialize, until

VALID = ("QUEUED", "RUNNING", "COMPLETED", "FAILED")


def double(x: int) -> int:
    return x * 2


def test_fn_registration_invalid(appliance: Appliance) -> None:
    answer = appliance.post("/register_function", {"name": "hello", "payload": "payload"})
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "payload"


def test_fn_registration(appliance: Appliance) -> None:
    first = appliance.post("/register_function", {"name": "double", "payload": serialize(double)})
    second = appliance.post("/register_function", {"name": "double", "payload": serialize(double)})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["function_id"] != second.json()["function_id"]


def test_execute_fn(appliance: Appliance) -> None:
    function_id = appliance.register(double)
    answer = appliance.post("/execute_function", {"function_id": function_id, "payload": serialize(((2,), {}))})
    assert answer.status_code == 201
    task_id = answer.json()["task_id"]
    status = appliance.get(f"/status/{task_id}").json()
    assert status["task_id"] == task_id
    assert status["status"] in VALID


@pytest.mark.parametrize("run", range(5))
def test_roundtrip(appliance: Appliance, run: int) -> None:
    number = random.Random(run).randint(0, 10_000)
    task_id = appliance.submit(double, number)

    def ended() -> object:
        answer = appliance.get(f"/result/{task_id}")
        assert answer.status_code == 200
        assert answer.json()["task_id"] == task_id
        assert answer.json()["status"] in VALID
        return answer.json() if answer.json()["status"] in ("COMPLETED", "FAILED") else None

    answer = until(ended, timeout_s=10)
    assert answer["status"] == "COMPLETED"
    assert deserialize(answer["result"]) == number * 2
