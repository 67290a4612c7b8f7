"""Quotas, the audit log, and what the command line makes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from api.access import quotas, tokens
from api.models import AuditEntry, Quota, Token
from everythingfaas.cli import main
from tests.access import People, Person, call
from tests.api.conftest import Workshop
from tests.conftest import Database
from tests.live import ROOT, serialize, until
from tests.web import Web, on_sqlite

pytestmark = on_sqlite


def limited(people: People, **limits: Any) -> Person:
    """Somebody with limits. Whoever is let in is known before the first request."""
    person = people.person(f"limited-{time.time()}")
    Quota.objects.create(user=person.user, **limits)
    return person


def test_so_many_tasks_may_wait(people: People):
    person = limited(people, queued_tasks=3)
    function = person.register()
    answers = [person.execute(function) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201] * 3 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert answers[-1].json()["error"]["code"] == "too_many"
    assert people.person("other").submit(), "others are let in"
    (task, *_) = [answer.json()["task_id"] for answer in answers[:3]]
    assert person.post(f"/api/v1/tasks/{task}/cancel").status_code == 200
    until(lambda: person.execute(function).status_code == 201, timeout_s=5)


def test_so_much_may_be_stored(people: People):
    person = limited(people, stored_bytes=3000)
    function = person.register()
    payload = serialize(((b"x" * 2000,), {}))
    answers = [person.post("/execute_function", {"function_id": function, "payload": payload}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 429]
    big = person.post("/register_function", {"name": "f", "payload": serialize(eval("lambda: " + repr("y" * 3000)))})
    assert big.status_code == 429


def test_so_many_requests_a_second(people: People):
    person = limited(people, requests_per_s=5)
    answers = [person.get("/api/v1/tasks") for _ in range(30)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 1 <= len(refused) <= 20
    assert int(refused[0].headers["Retry-After"]) >= 1
    until(lambda: person.get("/api/v1/tasks").status_code == 200, timeout_s=5)


def test_what_is_stored_is_one_query(workshop: Workshop):
    workshop.submit(2, payload=b"12345")
    with CaptureQueriesContext(connection) as queries, connection.cursor() as cursor:
        assert quotas.stored(cursor, workshop.owner) == 2 * 5 + len(b"function")
    assert len(queries) == 1


# --- the command line


class Said(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def faas(closed_web: Web, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command line, in this process, which is on the same database."""

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["faas", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return run


def test_tokens_are_made_listed_and_revoked(closed_web: Web, faas: Callable[..., Said]):
    made = faas("token", "create", "ci", "--user", "bob", "--scope", "read", "--expires-days", "2")
    secret = made.out.strip()
    assert (made.status, len(secret)) == (0, 48), made.err
    bearer = {"Authorization": f"Bearer {secret}"}
    assert call(closed_web, "GET", "/api/v1/tasks", headers=bearer).status_code == 200
    assert call(closed_web, "POST", "/execute_function", headers=bearer, json={}).status_code == 403
    listed = faas("token", "list").out
    assert "ci  bob  read" in listed
    assert secret not in listed
    for wrong in (("ci", "--user", "bob"), ("x", "--scope", "fly"), ("x", "--scope", "admin")):
        refused = faas("token", "create", *wrong)
        assert (refused.status, len(refused.err.splitlines())) == (1, 1), refused.err
    assert faas("token", "create", "x", "--expires-days", "1e300").status == 1
    assert not get_user_model().objects.filter(username="x").exists()
    assert faas("token", "create", "root", "--scope", "admin", "--administrator").status == 0
    assert faas("quota", "bob", "--queued-tasks", "5").out.splitlines()[0] == "queued_tasks: 5"
    assert faas("token", "create", "ci").status == 0
    assert "say whose, with --user" in faas("token", "revoke", "ci").err
    assert faas("token", "revoke", "ci", "--user", "bob").status == 0
    assert faas("token", "revoke", "ci", "--user", "bob").status == 1
    until(lambda: call(closed_web, "GET", "/api/v1/tasks", headers=bearer).status_code == 401, timeout_s=5)
    assert not [row for row in Token.objects.values() if secret in str(row)]
    actions = list(AuditEntry.objects.filter(by="console").order_by("id").values_list("action", flat=True))
    assert actions == ["token-create", "token-create", "quota", "token-create", "token-revoke"]


def test_the_first_administrator_is_made_and_shown_once(
    closed_web: Web, backend: Database, tmp_path: Path, faas: Callable[..., Said], settings: Any
):
    assert faas("token", "first").err == "", "with tokens off there is none"
    # As it is at the first start: a process of its own.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
    environ |= {"FAAS_DATABASE_URL": backend.url, "FAAS_DATA_DIR": str(tmp_path), "FAAS_AUTH": "token"}
    command = [Path(sys.executable).with_name("faas"), "token", "first"]
    shown = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)
    words = shown.stderr.split()
    secret = words[-1]
    answer = call(closed_web, "GET", "/api/v1/tasks", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 200
    settings.FAAS = dataclasses.replace(settings.FAAS, auth="token")
    assert faas("token", "first") == Said(0, "", "")
    user = get_user_model().objects.get(username="admin")
    assert user.is_superuser
    assert user.check_password(words[words.index("password") + 1])


@pytest.mark.parametrize("name", ["", " "])
def test_a_token_has_a_name(name: str, people: People):
    with pytest.raises(tokens.NotPossible):
        tokens.create(name, people.person("a").user, ["read"])
