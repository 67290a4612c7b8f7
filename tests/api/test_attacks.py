"""The attack table of docs/security.md: who is not let in, and who not to whose things, on every path that there is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from api import mirror, moves
from api.access import tokens
from api.consumers import NOT_LET_IN
from api.models import Attempt, Task, Ticket, Token
from api.redis_sync import SyncLink
from everythingfaas.status import Outcome
from tests.access import (
    METHODS,
    NOTHING,
    PUBLIC,
    People,
    Person,
    call,
    closed_paths,
    paths,
    paths_of,
    refused,
    socket,
)
from tests.api.conftest import Workshop, committed
from tests.live import serialize, until
from tests.redis_fixture import Valkey
from tests.web import Web, on_sqlite, web_process

pytestmark = on_sqlite

Headers = dict[str, str]
LOOKS = ("GET", "HEAD", "OPTIONS")
#: What somebody may come with who is not to be let in.
STRANGERS: dict[str, Callable[[People], Headers]] = {
    "nothing": lambda _: {},
    "a wrong token": lambda _: {"Authorization": "Bearer faas_" + "A" * 43},
    "an expired token": lambda people: people.expired().headers,
    "a revoked token": lambda people: people.revoked().headers,
    "half a token": lambda people: {"Authorization": "Bearer " + people.person("a").token[:-1]},
    "its hash": lambda people: {"Authorization": "Bearer " + people.person("a").row.sha256},
    "another scheme": lambda people: {"Authorization": "Basic " + people.person("a").token},
    "no scheme": lambda people: {"Authorization": people.person("a").token},
    "a token as a cookie": lambda people: {"Cookie": "sessionid=" + people.person("a").token},
    "an empty header": lambda _: {"Authorization": "Bearer "},
    "bytes that are no text": lambda _: {"Authorization": "Bearer \xff\xfe"},
}


@pytest.mark.parametrize("what", STRANGERS)
def test_nobody_is_let_in_with(what: str, closed_web: Web, people: People):
    headers = STRANGERS[what](people)
    for path in closed_paths():
        for method in METHODS:
            answer = call(closed_web, method, path, headers=headers)
            assert answer.status_code == 401, (method, path, answer.status_code, answer.text)
            assert "Bearer" in answer.headers["WWW-Authenticate"]
            if method != "HEAD":
                assert answer.json()["error"]["code"] == "unauthorized"


def test_a_token_in_the_url_is_none(closed_web: Web, people: People):
    token = people.person("a").token
    for name in ("token", "access_token", "authorization"):
        assert call(closed_web, "GET", f"/api/v1/tasks?{name}={token}").status_code == 401


def test_two_headers_are_none(closed_web: Web, people: People):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", closed_web.port, timeout=10)
    connection.putrequest("GET", "/api/v1/tasks")
    connection.putheader("Authorization", f"Bearer {people.person('a').token}")
    connection.putheader("Authorization", "Bearer wrong")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_what_is_public_is_little_and_tells_nothing(closed_web: Web):
    assert set(paths()) >= PUBLIC
    for path in PUBLIC:
        answer = call(closed_web, "GET", path)
        assert answer.status_code in (200, 404, 405, 503), path


def test_a_browser_is_shown_where_to_log_in(closed_web: Web):
    answer = call(closed_web, "GET", "/tasks/?state=failed", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/login/?next=%2Ftasks%2F%3Fstate%3Dfailed")


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("read", lambda method, path: method in LOOKS or _makes_ticket(method, path)),
        ("submit", lambda method, path: method not in LOOKS and not _makes_ticket(method, path)),
        ("worker", lambda method, path: method in ("GET", "HEAD") and path.startswith("/api/v1/workers")),
    ],
)
def test_a_scope_opens_what_it_is_for_and_nothing_else(scope: str, allowed: Any, people: People):
    person = people.person("one", scope)
    for path in closed_paths():
        for method in METHODS:
            answer = person.call(method, path)
            refused = answer.status_code == 403 and (method == "HEAD" or "the scope" in answer.text)
            assert answer.status_code != 401
            assert refused != allowed(method, path), (method, path, answer.status_code, answer.text)


def _makes_ticket(method: str, path: str) -> bool:
    return method == "POST" and path.startswith("/api/v1/tickets")


def test_a_former_administrators_token_sees_little(people: People):
    boss = people.person("boss", "read", "submit", "admin", administrator=True)
    task, _ = people.person("worker").submit()
    assert boss.get(f"/status/{task}").status_code == 200
    boss.user.is_superuser = False
    boss.user.save()
    until(lambda: boss.get(f"/status/{task}").status_code == 404, timeout_s=3)


# --- sockets


@pytest.mark.parametrize("what", STRANGERS)
def test_no_socket_is_opened_with(what: str, closed_web: Web, people: People):
    assert refused(closed_web, **STRANGERS[what](people)) == 403


def test_no_socket_is_opened_with_a_bad_subprotocol(closed_web: Web, people: People):
    for protocol in (
        "faas.token.faas_" + "A" * 43,
        f"faas.token.{people.expired().token}",
        f"faas.token.{people.revoked().token}",
        f"faas.token.{people.person('one', 'submit').token}",
        "faas.ticket.x",
        "faas.live",
    ):
        assert refused(closed_web, protocol) == 403, protocol


def test_a_ticket_opens_one_socket(closed_web: Web, people: People):
    person = people.person("a")
    ticket = person.post("/api/v1/tickets").json()["ticket"]
    with socket(closed_web, "faas.live", f"faas.ticket.{ticket}") as live:
        assert live.subprotocol == "faas.live"
        assert _read(live)["stale"] is None
    assert refused(closed_web, f"faas.ticket.{ticket}") == 403
    late = person.post("/api/v1/tickets").json()["ticket"]
    Ticket.objects.update(expires_at=time.time() - 1)
    assert refused(closed_web, f"faas.ticket.{late}") == 403


def test_revoking_a_token_closes_its_sockets_and_ends_its_requests(people: People):
    person, other = people.person("a"), people.person("a")
    with person.socket() as live, other.socket() as stays:
        _read(live)
        tokens.revoke(person.row.name)
        began = time.monotonic()
        assert _closed_with(live) == NOT_LET_IN
        assert time.monotonic() - began < 1.5
        assert person.get("/api/v1/tasks").status_code == 401
        stays.send('{"ping": 1}')
        assert other.get("/api/v1/tasks").status_code == 200
        until(lambda: _read(stays).get("pong") == 1)


def _closed_with(live: ClientConnection) -> int | None:
    """Reads on until it is closed. The code that the server gave."""
    try:
        while True:
            live.recv(5)
    except ConnectionClosed as closed:
        return None if closed.rcvd is None else closed.rcvd.code


def test_without_redis_a_revoked_token_works_for_two_seconds(database: str, tmp_path: Any, backend: Any):
    with web_process(tmp_path, database_url=backend.url, auth="token") as web:
        person = People(web).person("a")
        assert person.get("/api/v1/tasks").status_code == 200
        with person.socket() as live:
            _read(live)
            tokens.revoke(person.row.name)
            began = time.monotonic()
            until(lambda: person.get("/api/v1/tasks").status_code == 401, timeout_s=5)
            assert time.monotonic() - began < 3.0
            assert _closed_with(live) == NOT_LET_IN
            assert time.monotonic() - began < 3.0


# --- another's things


@pytest.fixture
def task(people: People) -> tuple[Person, str, str]:
    """Somebody with a task and its function."""
    owner = people.person("owner")
    return owner, *owner.submit()


def test_anothers_ids_are_nothing(people: People, task: tuple[Person, str, str]):
    owner, task_id, function_id = task
    other = people.person("other")
    ids = {
        "task_id": task_id,
        "function_id": function_id,
        "token_id": str(owner.row.pk),
        "batch": owner.batch(function_id),
    }
    with_ids = paths_of(**ids)
    assert len(with_ids) >= 22
    bodies = {("POST", "tasks"): {"function_id": function_id, "tasks": [{"args": []}]}, ("POST", "cancel"): {}}
    for path, of_nothing in with_ids:
        # What reads, before what changes it.
        for method in [method for method in METHODS if method != "OPTIONS"]:  # which speaks of no object
            body = bodies.get(
                (method, path.rstrip("/").rpartition("/")[2]), {"policy": {}} if method == "PATCH" else None
            )
            theirs, nobodys = other.call(method, path, json=body), other.call(method, of_nothing, json=body)
            assert theirs.status_code == nobodys.status_code, (method, path)
            # 403: a page that takes no forms, and looks where one comes from before it says so.
            assert theirs.status_code in (404, 405) or (theirs.status_code == 403 and "/api/" not in path), (
                method,
                path,
            )
            if method != "HEAD" and theirs.headers["Content-Type"] == "application/json":
                assert theirs.text == _with_ids(nobodys.text, path, ids)
        wanted = path + "?attempt=1" if path.endswith("/output") else path
        if wanted == path and not path.rstrip("/").endswith(("cancel", "retry", "invoke")):
            assert owner.get(path).status_code in (200, 202), path  # 202: it has not ended
    assert Task.objects.get(id=task_id).cancel_requested_at is None
    assert Token.objects.get(pk=owner.row.pk).revoked_at is None
    assert other.execute(function_id).status_code == 404
    assert owner.execute(function_id).status_code == 201


def _with_ids(text: str, path: str, ids: dict[str, str]) -> str:
    for name, identifier in ids.items():
        if identifier in path:
            text = text.replace(NOTHING[name], identifier)
    return text


def test_anothers_idempotency_key_is_not_mine(people: People):
    owner, other = people.person("owner"), people.person("other")
    told = set()
    for person in (owner, other):
        body = {"function_id": person.register(), "payload": serialize(((1,), {}))}
        answer = person.call("POST", "/execute_function", json=body, headers={"Idempotency-Key": "monday"})
        assert answer.status_code == 201, answer.text
        told.add(answer.json()["task_id"])
    assert len(told) == 2


def test_anothers_lists_searches_and_counts_are_empty(people: People, task: tuple[Person, str, str]):
    _, task_id, function_id = task
    other = people.person("other")
    assert other.get("/api/v1/tasks").json()["tasks"] == []
    assert other.get("/api/v1/functions").json()["functions"] == []
    for path in ("/", "/tasks/", "/tasks/?state=queued", "/functions/", "/functions/?q=fun", "/workers/"):
        page = other.get(path, headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert task_id not in page.text
        assert function_id not in page.text
    assert other.get(f"/tasks/?function={function_id}").status_code == 404
    for wanted in (task_id, function_id):
        assert other.get(f"/search?q={wanted}").headers["Location"].startswith("/functions/?q=")
    overview = other.get("/", headers={"Accept": "text/html"}).text
    shown = json.loads(overview.split('<script id="view" type="application/json">')[1].split("</script>")[0])
    assert set(shown["parts"]["counts"].values()) == {0}
    assert not any(minute[1] for minute in shown["parts"]["minutes"])


def test_anothers_result_is_not_told_by_the_mirror(people: People, task: tuple[Person, str, str], valkey: Valkey):
    owner, task_id, _ = task
    link = SyncLink(valkey.url)
    link.call(mirror.write([mirror.Entry(UUID(task_id), 1, "COMPLETED", b"secret")]))
    link.close()
    assert owner.get(f"/status/{task_id}").json()["status"] == "COMPLETED"
    other = people.person("other")
    for path in (f"/status/{task_id}", f"/result/{task_id}", f"/result/{task_id}?wait=1"):
        assert other.get(path).status_code == 404


def test_anothers_output_is_not_shown(people: People, task: tuple[Person, str, str]):
    owner, task_id, _ = task
    Attempt.objects.create(
        task_id=task_id, attempt=1, ended=time.time(), outcome=Outcome.RETURNED, output_head=b"secret"
    )
    path = f"/tasks/{task_id}/output?attempt=1"
    assert owner.get(path).status_code == 200
    assert people.person("other").get(path).status_code == 404


def test_anothers_topics_are_empty(people: People, task: tuple[Person, str, str], valkey: Valkey):
    owner, task_id, function_id = task
    link = SyncLink(valkey.url)
    link.call(mirror.printed(UUID(task_id), 1, b"secret", 0))
    link.close()
    topics = ["overview", "workers", "tasks?", "tasks?state=queued", f"tasks?function={function_id}", f"task:{task_id}"]
    with people.person("other").socket() as live:
        live.send(json.dumps({"subscribe": topics}))
        told = {message["topic"]: message["parts"] for message in _topics(live, len(topics))}
        live.send(json.dumps({"subscribe": [f"log:{task_id}"]}))
        until(lambda: task_id in _read(live).get("refused", ""))
    assert told[f"task:{task_id}"]["task"] is None
    assert task_id not in json.dumps({topic: parts for topic, parts in told.items() if "task:" not in topic})
    with owner.socket() as live:
        live.send(json.dumps({"subscribe": [*topics[-1:], f"log:{task_id}"]}))
        told = {message["topic"]: message["parts"] for message in _topics(live, 2)}
    assert told[f"task:{task_id}"]["task"]["row"]["id"] == task_id
    assert told[f"log:{task_id}"]["chunks"]


def test_what_workers_run_for_others_is_not_told(people: People, workshop: Workshop):
    """Neither ids nor names of functions, by the API, on pages or on the socket; that there are workers, to all."""
    owner, other = people.person("owner"), people.person("other")
    boss = people.person("boss", "read", "admin", administrator=True)
    watcher = people.person("other", "worker")
    function = owner.post("/register_function", {"name": "secret-name", "payload": serialize(len)}).json()[
        "function_id"
    ]
    task = owner.execute(function).json()["task_id"]
    (claimed,) = workshop.claim()
    worker = {"worker": "w" * 32, "name": "lab@1", "host": "lab", "pid": 1, "python": "3.11", "slots": 4, "held": 1}
    snapshot = json.dumps([worker | {"running": [task], "draining": False}])
    with committed() as cursor:
        moves.begin(cursor, [moves.Begun(claimed.task, claimed.attempt, time.time(), "lab@1")], workshop.dispatcher)
        moves.renew_lease(cursor, workshop.dispatcher, 1, 60, snapshot)
    for person in (owner, boss):
        assert person.get("/api/v1/workers").json()["workers"][0]["running"] == [task]
        assert "secret-name" in _workers_on_the_socket(person)
    for person in (other, watcher):
        (told,) = person.get("/api/v1/workers").json()["workers"]
        assert (told["name"], told["held"], told["running"]) == ("lab@1", 1, [])
    told_live = _workers_on_the_socket(other)
    assert "lab@1" in told_live
    pages = [other.get(path, headers={"Accept": "text/html"}).text for path in ("/", "/workers/")]
    for text in (told_live, *pages):
        assert task not in text
        assert "secret-name" not in text
    assert all("lab@1" in text for text in pages)


def _workers_on_the_socket(person: Person) -> str:
    with person.socket() as live:
        live.send(json.dumps({"subscribe": ["workers", "overview"]}))
        return json.dumps(_topics(live, 2))


def test_administrators_see_all_and_groups_share(people: People):
    owner = people.person("owner", shares="shared:lab")
    task_id, function_id = owner.submit()
    boss = people.person("boss", "read", "submit", "admin", administrator=True)
    modest = people.person("boss", "read", administrator=True)
    colleague, stranger = people.person("colleague", shares="shared:lab"), people.person("stranger", shares="staff")
    owner.user.groups.add(stranger.user.groups.get())  # a group of another kind shares nothing
    for person, status in ((boss, 200), (colleague, 200), (stranger, 404), (modest, 404)):
        assert person.get(f"/status/{task_id}").status_code == status, person.user
        assert person.get(f"/api/v1/functions/{function_id}").status_code == status
    assert [task["id"] for task in colleague.get("/api/v1/tasks").json()["tasks"]] == [task_id]
    answer = colleague.execute(function_id)
    assert Task.objects.get(id=answer.json()["task_id"]).owner_id == colleague.user.pk
    assert colleague.post(f"/api/v1/tasks/{task_id}/cancel").json()["state"] == "CANCELLED"


def _read(live: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(live.recv(10))
    return message


def _topics(live: ClientConnection, number: int) -> list[dict[str, Any]]:
    """The first message of so many topics."""
    found: dict[str, dict[str, Any]] = {}
    while len(found) < number:
        message = _read(live)
        if "topic" in message:
            found.setdefault(message["topic"], message)
    return list(found.values())


def test_a_body_that_is_not_to_be_read_is_not_stored(closed_web: Web):
    body = {"name": "f", "payload": serialize(len)}
    assert call(closed_web, "POST", "/register_function", json=body).status_code == 401
