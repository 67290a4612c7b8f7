"""What tests of outages have in common: functions that wait to be let go, and who runs before and after."""

from __future__ import annotations

from typing import Any

import requests

from tests.live import Appliance, serialize


def wait_for(path: str) -> str:
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)
    return "done"


def submit(appliance: Appliance, function: str, key: str = "") -> requests.Response:
    body = {"function_id": function, "payload": serialize(((-1,), {}))}
    return appliance.post("/execute_function", body, headers={"Idempotency-Key": key} if key else {})


def processes(appliance: Appliance) -> dict[str, int]:
    names = ("web", "dispatcher", "redis") + (("worker",) if appliance.mode != "local" else ())
    return {name: appliance.pid(name) for name in names}


def pid_of(appliance: Appliance, name: str) -> int:
    """Its last one while it is being started again."""
    try:
        return appliance.pid(name)
    except FileNotFoundError:
        return 0


def counts(appliance: Appliance, task: str) -> tuple[Any, ...]:
    """Attempts, starts and deaths of a task."""
    found = appliance.get(f"/api/v1/tasks/{task}").json()
    return found["attempt"], found["starts"], found["deaths"]
