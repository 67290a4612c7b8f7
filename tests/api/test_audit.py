"""The audit log: whatever changes something has its row, whoever's view it is."""

from __future__ import annotations

from typing import Any

from api.models import AuditEntry, Token
from tests.access import METHODS, People, call, paths
from tests.live import serialize, until
from tests.web import Web, on_sqlite

pytestmark = on_sqlite

#: What changes nothing. All else is a write, whatever a view takes it for.
LOOKS = ("GET", "HEAD", "OPTIONS", "TRACE")


def bodies(function: str, batch: str) -> dict[str, Any]:
    """By the end of a path, what makes a success of a write. A new endpoint that wants more than `{}` adds a line."""
    payload = serialize(((1,), {}))
    tasks = {"function_id": function, "tasks": [{"args": [1]}]}
    return {
        "/batches": tasks,
        f"{batch}/tasks": tasks,
        "/register_function": {"name": "f", "payload": serialize(len)},
        "/execute_function": {"function_id": function, "payload": payload},
        "/tokens": {"name": "new"},
        f"/functions/{function}": {"policy": {"retries": 2}},
    }


def test_whatever_changes_something_is_recorded(people: People):
    """Each method on each path: what succeeds has a row, which says who and from where; what does not has none."""
    person = people.person("ada")
    task, function = person.submit()
    token = people.person("ada")
    batch = person.batch(function)
    ids = {"task_id": task, "function_id": function, "token_id": str(token.row.pk), "batch": batch}
    known = bodies(function, batch)
    succeeded = [("POST", "/register_function")]
    for path in paths(**ids):
        for method in [method for method in METHODS if method not in LOOKS]:
            body = known.get(
                path.rstrip("/"), next((b for end, b in known.items() if path.rstrip("/").endswith(end)), {})
            )
            if path.startswith("/api/v1/tokens/"):  # with and without a slash: each needs one to revoke
                path = path.replace(ids["token_id"], str(people.person("ada").row.pk))
            if path.rstrip("/").endswith("/tokens"):
                body = body | {"name": f"new {path}"}
            answer = person.call(method, path, json=body)
            if answer.status_code < 400:
                succeeded.append((method, path))
    wanted = {"/register_function", "/execute_function", "/api/v1/tickets", "/api/v1/tokens"}
    wanted |= {f"/api/v1/functions/{function}", f"/api/v1/tasks/{task}/cancel", f"/api/v1/tasks/{task}/retry"}
    assert wanted <= {path.rstrip("/") for _, path in succeeded}
    # Submits are counted, and written later: see below.
    submits = ("/execute_function", "/batches", f"{batch}/tasks", "/invoke")
    expected = len([path for _, path in succeeded if not path.rstrip("/").endswith(submits)])
    rows = AuditEntry.objects.filter(user="ada", by=str(person.row), address="127.0.0.1").exclude(action="submit")
    until(lambda: rows.count() == expected)


def test_rows_say_what_was_done(people: People):
    person = people.person("ada")
    task, function = person.submit()
    assert person.call("PATCH", f"/api/v1/functions/{function}", json={"policy": {"retries": 3}}).status_code == 200
    person.post(f"/api/v1/tasks/{task}/cancel")
    person.post("/api/v1/tickets")
    expected = {
        ("register", function),
        ("change-policy", f'{function}: {{"retries":3}}'),
        ("cancel", task),
        ("ticket", ""),
    }
    until(lambda: set(AuditEntry.objects.exclude(action="submit").values_list("action", "target")) == expected)


def test_what_is_refused_is_not_taken_for_done(closed_web: Web, people: People):
    person = people.person("ada")
    assert person.post("/register_function", {"name": "f"}).status_code == 400
    assert person.call("DELETE", "/register_function").status_code == 405
    assert call(closed_web, "POST", "/api/v1/tickets").status_code == 401
    assert person.post("/api/v1/tickets").status_code == 201  # rows are in order: those before would be there
    until(lambda: list(AuditEntry.objects.values_list("action", flat=True)) == ["ticket"])


def test_submits_are_counted_and_other_things_written_one_by_one(people: People):
    person = people.person("ada")
    function = person.register()
    tasks = [person.execute(function).json()["task_id"] for _ in range(3)]
    person.post(f"/api/v1/tasks/{tasks[0]}/cancel")
    person.post(f"/api/v1/tasks/{tasks[0]}/retry")

    def written() -> list[tuple[Any, ...]]:
        rows = AuditEntry.objects.filter(user="ada").exclude(action="submit")
        return sorted(rows.values_list("action", "target", "address", "by"))

    by = str(person.row)
    until(lambda: len(written()) == 3)
    assert written() == [
        ("cancel", tasks[0], "127.0.0.1", by),
        ("register", function, "127.0.0.1", by),
        ("retry", tasks[0], "127.0.0.1", by),
    ]
    submits = AuditEntry.objects.filter(action="submit", user="ada", by=by)
    until(lambda: sum(submits.values_list("count", flat=True)) == 3, timeout_s=15)
    assert submits.count() <= 2
    until(lambda: Token.objects.get(pk=person.row.pk).last_used is not None, timeout_s=15)
