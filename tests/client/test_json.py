"""Without Python: functions as text, arguments and results as JSON. On a real appliance."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import pytest
import requests

from everythingfaas.client import Client
from tests.live import Appliance, deserialize, until

SOURCE = """
import math

GREETING = "hello"

class Thing:
    pass

def greet(name, *, times=1):
    return {"said": [f"{GREETING} {name}"] * times, "pi": round(math.pi, 3), "pair": (1, None)}

def broken(x):
    y = x - 1
    return 1 / y

def thing():
    return Thing()

number = 7
"""


def store(faas: Appliance, name: str, entrypoint: str, source: str = SOURCE, **more: Any) -> str:
    answer = faas.post("/api/v1/functions", {"name": name, "source": source, "entrypoint": entrypoint, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["function_id"])


def invoke(
    faas: Appliance, function: str, body: Any = None, query: str = "?wait=20", **kwargs: Any
) -> requests.Response:
    return faas.http.post(f"{faas.url}/api/v1/functions/{function}/invoke{query}", json=body, timeout=60, **kwargs)


def test_a_function_that_is_text_is_called_by_its_name(faas: Appliance, client: Client):
    identifier = store(faas, "greeter", "greet")
    answer = invoke(faas, "greeter", {"args": ["you"], "kwargs": {"times": 2}})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["state"] == "COMPLETED"
    assert body["result"] == {"said": ["hello you"] * 2, "pi": 3.142, "pair": [1, None]}
    assert invoke(faas, identifier, {"args": ["me"]}).json()["result"]["said"] == ["hello me"]
    assert client.result(body["task_id"])["pair"] == (1, None), "a client with Python gets what was returned"
    status, value = faas.result(body["task_id"])
    assert (status, value["pair"]) == ("COMPLETED", (1, None))
    assert faas.get(f"/api/v1/functions/{identifier}").json()["source"] == SOURCE


def test_what_it_raises_is_shown_with_the_lines_of_its_source(faas: Appliance):
    store(faas, "broken", "broken")
    answer = invoke(faas, "broken", {"args": [1]})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["state"], body["error"]["type"], body["error"]["message"]) == (
        "FAILED",
        "ZeroDivisionError",
        "division by zero",
    )
    assert "return 1 / y" in body["error"]["traceback"]
    assert "result" not in body


def test_a_result_that_is_not_json_says_so_and_is_there_as_bytes(faas: Appliance):
    store(faas, "thing", "thing")
    body = invoke(faas, "thing").json()
    assert (body["state"], body["result"]) == ("COMPLETED", None)
    assert "plain data" in body["not_json"]
    answer = faas.get(body["bytes"], headers={"Accept": "application/octet-stream"})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Faas-State"] == "COMPLETED"
    assert b"Thing" in answer.content


@pytest.mark.parametrize(
    ("source", "entrypoint", "says"),
    [
        ("def f(:", "f", "SyntaxError"),
        ("x = 1", "f", "defines no 'f'"),
        ("f = 1", "f", "cannot be called"),
        ("1/0", "f", "division"),
    ],
    ids=["no Python", "not there", "no function", "raises"],
)
def test_what_is_wrong_with_a_source_is_found_where_it_runs(faas: Appliance, source: str, entrypoint: str, says: str):
    identifier = store(faas, "wrong", entrypoint, source)
    body = invoke(faas, identifier).json()
    assert body["state"] == "FAILED"
    assert says in body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "f"}, "payload"),
        ({"name": "f", "source": "x = 1"}, "entrypoint"),
        ({"name": "f", "source": "x = 1", "entrypoint": "not a name"}, "entrypoint"),
        ({"name": "f", "source": "x = 1", "entrypoint": "x", "payload": "gASV"}, "payload"),
        ({"name": "f", "source": 1, "entrypoint": "x"}, "source"),
        ({"source": "x = 1", "entrypoint": "x"}, "name"),
    ],
)
def test_what_is_no_function_is_refused(faas: Appliance, body: dict[str, Any], field: str):
    answer = faas.post("/api/v1/functions", body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


def test_the_very_same_is_stored_once_for_who_says_so(faas: Appliance):
    body = {"name": "once", "source": "def f(): return 1", "entrypoint": "f", "reuse": True}
    first, second = faas.post("/api/v1/functions", body), faas.post("/api/v1/functions", body)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    for change in ({"name": "other"}, {"policy": {"retries": 1}}, {"source": "def f(): return 2"}):
        assert faas.post("/api/v1/functions", body | change).status_code == 201


def test_who_does_not_wait_gets_a_place_to_look_at(faas: Appliance):
    store(faas, "sleeper", "f", "import time\ndef f(s): time.sleep(s); return 'awake'")
    answer = invoke(faas, "sleeper", {"args": [0.3]}, "")
    assert answer.status_code == 202
    place = answer.headers["Location"]
    assert faas.get(place).status_code == 202
    early = faas.get(place, headers={"Accept": "application/octet-stream"})
    assert (early.status_code, early.json()["error"]["code"]) == (409, "not_ended")
    assert faas.get(place + "?wait=20").json()["result"] == "awake"
    short = invoke(faas, "sleeper", {"args": [1]}, "?wait=0.1")
    assert short.status_code == 202
    assert faas.get(short.headers["Location"] + "?wait=20").json()["result"] == "awake"


def test_the_same_key_is_the_same_call(faas: Appliance):
    store(faas, "double", "f", "def f(x): return 2 * x")
    headers = {"Idempotency-Key": f"key of {threading.get_ident()} {faas.url}"}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: invoke(faas, "double", {"args": [2]}, headers=headers).json(), range(4)))
    assert len({answer["task_id"] for answer in answers}) == 1
    assert {answer["result"] for answer in answers} == {4}
    assert invoke(faas, "double", {"args": [3]}, headers=headers).status_code == 409


def test_the_newest_of_a_name_is_meant(faas: Appliance):
    for number in (1, 2):
        store(faas, "versioned", "f", f"def f(): return {number}")
    assert invoke(faas, "versioned").json()["result"] == 2


def test_a_policy_and_what_is_no_call(faas: Appliance):
    store(faas, "slow", "f", "import time\ndef f(): time.sleep(30)")
    body = invoke(faas, "slow", {"policy": {"deadline_s": 0.3, "max_attempts": 1}}).json()
    assert "exceeded deadline" in body["error"]["message"]
    assert body["error"]["type"] == "WorkerFailure"
    for wrong in ({"args": {}}, {"kwargs": []}, [], {"policy": {"x": 1}}):
        assert invoke(faas, "slow", wrong).status_code == 400
    assert invoke(faas, "no such function").status_code == 404
    assert invoke(faas, "slow", query="?wait=x").status_code == 400


def test_what_is_cancelled_says_so(faas: Appliance, client: Client):
    store(faas, "endless", "f", "import time\ndef f(): time.sleep(60)")
    task = invoke(faas, "endless", query="").json()["task_id"]
    until(lambda: client.status(task) == "RUNNING")
    client.cancel(task, wait=10)
    body = faas.get(f"/api/v1/tasks/{task}/result").json()
    assert (body["state"], body["error"]["type"]) == ("CANCELLED", "TaskCancelled")
    assert type(deserialize(faas.get(f"/result/{task}").json()["result"])).__name__ == "TaskCancelled"
