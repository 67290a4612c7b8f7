"""What the contract says about requests that are not done: the answer, and that nothing is stored."""

from __future__ import annotations

import json
import uuid

import pytest

from api.models import Function, Task
from tests.live import serialize
from tests.web import Web, on_sqlite

pytestmark = on_sqlite

JSON = {"Content-Type": "application/json"}
CALL = serialize(((1,), {}))


def assert_error(answer, status, field=None):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()["error"]
    assert error["code"]
    assert error["message"]
    if field is not None:
        assert error["field"] == field


@pytest.mark.parametrize("payload", ["", "payload", "aGVsbG8gd29ybGQ=", serialize([1, 2]), serialize(1)[:-5], "\u00e9"])
def test_what_is_no_function_is_not_registered(web: Web, payload):
    assert_error(web.post("/register_function", json={"name": "f", "payload": payload}), 400, "payload")
    assert not Function.objects.exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "f"}, "payload"),
        ({"payload": serialize(len)}, "name"),
        ({"name": 1, "payload": serialize(len)}, "name"),
        ({"name": None, "payload": serialize(len)}, "name"),
        ({"name": "f", "payload": ["x"]}, "payload"),
        ({"name": "f", "payload": True}, "payload"),
        ({"name": "a\0b", "payload": serialize(len)}, "name"),
        ([], None),
        ("text", None),
        (None, None),
    ],
)
def test_register_wants_text_in_its_fields(web: Web, body, field):
    assert_error(web.post("/register_function", json=body, headers=JSON), 400, field)
    assert not Function.objects.exists()


BROKEN = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"function_id": "\xff", "payload": ""}',
    b'{"function_id": NaN, "payload": ""}',
    b'{"a": ' + b"9" * 100_000 + b"}",
    b'{"a": ' + b"[" * 100_000,
    b"[" * 100_000,
    b'{"name": "\\ud800", "function_id": "\\ud800", "payload": ""}',
    b"null",
    b"12",
    b'{"name": "f", "payload": ""} and more',
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("path", ["/register_function", "/execute_function"])
def test_a_body_that_is_no_json_object(web: Web, path, body):
    assert_error(web.post(path, data=body, headers=JSON), 400)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"function_id": str(uuid.uuid4())}, "payload"),
        ({"payload": CALL}, "function_id"),
        ({"function_id": 1, "payload": CALL}, "function_id"),
        ({"function_id": str(uuid.uuid4()), "payload": None}, "payload"),
        ([], None),
    ],
)
def test_execute_looks_at_its_fields_before_the_function(web: Web, body, field):
    assert_error(web.post("/execute_function", json=body), 400, field)


@pytest.mark.parametrize("function_id", [str(uuid.uuid4()), "nonsense", "", "\0", "f" * 10_000])
def test_execute_looks_for_the_function_before_the_payload(web: Web, function_id):
    assert_error(web.post("/execute_function", json={"function_id": function_id, "payload": "!"}), 404, "function_id")


@pytest.mark.parametrize("payload", ["", "!", "aGVsbG8gd29ybGQ=", CALL[:20]])
def test_execute_wants_a_pickle(web: Web, payload):
    body = {"function_id": web.register(), "payload": payload}
    assert_error(web.post("/execute_function", json=body), 400, "payload")
    assert not Task.objects.exists()


@pytest.mark.parametrize("payload", [serialize(1), serialize([1, 2, 3]), serialize("text")])
def test_a_pickle_of_the_wrong_shape_is_accepted(web: Web, payload):
    body = {"function_id": web.register(), "payload": payload}
    assert web.post("/execute_function", json=body).status_code == 201


@pytest.mark.parametrize("path", ["/status/", "/result/"])
@pytest.mark.parametrize("task_id", [str(uuid.uuid4()), "nonsense", "%00", "%E2%82%AC", "a" * 5_000])
def test_no_such_task(web: Web, path, task_id):
    for slash in ("", "/"):
        assert_error(web.get(path + task_id + slash), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/register_function", "POST"),
        ("GET", "/execute_function", "POST"),
        ("PUT", "/execute_function", "POST"),
        ("DELETE", "/execute_function", "POST"),
        ("POST", f"/status/{uuid.uuid4()}", "GET"),
        ("DELETE", f"/result/{uuid.uuid4()}", "GET"),
        ("POST", "/healthz", "GET"),
        ("POST", "/", "GET"),
    ],
)
def test_other_methods(web: Web, method, path, allowed):
    answer = web.http.request(method, web.url + path, timeout=30)
    assert_error(answer, 405)
    assert allowed in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/nothing", "/status", "/api/v1/nothing", "/static/../settings.py"])
def test_nothing_there(web: Web, path):
    assert_error(web.get(path), 404)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
@pytest.mark.parametrize("path", ["/register_function", "/execute_function"])
def test_other_content_than_json(web: Web, path, content_type):
    body = json.dumps({"name": "f", "function_id": web.register(), "payload": CALL})
    assert_error(web.post(path, data=body, headers={"Content-Type": content_type}), 415)
    assert not Task.objects.exists()


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "1e", "", "-inf"])
def test_a_wait_that_is_no_number(web: Web, wait):
    assert_error(web.get(f"/result/{web.submit()}?wait={wait}"), 400, "wait")


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_an_idempotency_key_of_no_good_length(web: Web, key):
    assert_error(web.execute(web.register(), 1, headers={"Idempotency-Key": key}), 400, "Idempotency-Key")
    assert not Task.objects.exists()
