"""`/api/v1/tokens`: who makes which tokens for whom, and what they never can do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from api.access import tokens
from api.models import AuditEntry, Token
from tests.access import People, Person, call
from tests.described import as_described
from tests.live import until
from tests.web import Web, on_sqlite

pytestmark = on_sqlite

PATH = "/api/v1/tokens"


@pytest.fixture
def ada(people: People) -> Person:
    return people.person("ada")


@pytest.fixture
def boss(people: People) -> Person:
    return people.person("boss", "read", "submit", "admin", administrator=True)


def made(person: Person, **said: Any) -> dict[str, Any]:
    answer = person.post(PATH, {"name": "new"} | said)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_token_is_made_and_shown_once(closed_web: Web, ada: Person):
    new = made(ada, name="ci", scopes=["read"], expires_days=2)
    secret = new.pop("token")
    assert (new["name"], new["user"], new["scopes"], new["prefix"]) == ("ci", "ada", ["read"], secret[:11])
    bearer = {"Authorization": f"Bearer {secret}"}
    assert call(closed_web, "GET", "/api/v1/tasks", headers=bearer).status_code == 200
    assert call(closed_web, "POST", "/execute_function", headers=bearer, json={}).status_code == 403
    listed = ada.get(PATH)
    assert [token["id"] for token in listed.json()["tokens"]] == [new["id"], ada.row.pk]
    assert ada.get(f"{PATH}/{new['id']}").json() == listed.json()["tokens"][0]
    for answer in (listed, ada.get(f"{PATH}/{new['id']}")):
        assert secret not in answer.text
        assert tokens.digest(secret) not in answer.text
    assert not [row for row in Token.objects.values() if secret in str(row)]


def test_a_revoked_token_lets_nobody_in(closed_web: Web, ada: Person):
    new = made(ada)
    bearer = {"Authorization": f"Bearer {new['token']}"}
    assert call(closed_web, "GET", PATH, headers=bearer).status_code == 200
    assert ada.call("DELETE", f"{PATH}/{new['id']}").status_code == 204
    until(lambda: call(closed_web, "GET", PATH, headers=bearer).status_code == 401, timeout_s=3)
    assert ada.get(f"{PATH}/{new['id']}").status_code == 404
    assert ada.call("DELETE", f"{PATH}/{new['id']}").status_code == 404
    assert [token["id"] for token in ada.get(PATH).json()["tokens"]] == [ada.row.pk]
    made(ada)  # the name is free again


def test_no_token_makes_one_of_a_wider_scope(people: People, ada: Person):
    assert made(ada)["scopes"] == ["read", "submit"]
    for scopes in (["admin"], ["worker"], ["read", "submit", "admin"]):
        answer = ada.post(PATH, {"name": "wider", "scopes": scopes})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    submitter = people.person("ada", "submit")
    assert made(submitter, name="narrow")["scopes"] == ["submit"]
    assert submitter.post(PATH, {"name": "wider", "scopes": ["read"]}).status_code == 403
    assert people.person("ada", "read").post(PATH, {"name": "more", "scopes": ["read"]}).status_code == 403


def test_an_administrator_whose_token_is_modest_makes_modest_ones(people: People, ada: Person):
    modest = people.person("boss", "read", "submit", administrator=True)
    assert modest.post(PATH, {"name": "wider", "scopes": ["admin"]}).status_code == 403
    assert modest.post(PATH, {"name": "theirs", "user": "ada"}).status_code == 403
    assert modest.get(f"{PATH}/{ada.row.pk}").status_code == 404


def test_no_token_makes_one_that_outlives_it(people: People):
    late = people.person("late", days=2)
    end = late.row.expires_at
    assert end is not None
    assert parse_datetime(made(late)["expires_at"]) == end
    soon = parse_datetime(made(late, name="soon", expires_days=1)["expires_at"])
    assert soon is not None
    assert timedelta() < soon - timezone.now() <= timedelta(days=1)
    answer = late.post(PATH, {"name": "longer", "expires_days": 3})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "expires_days")


def test_others_tokens_are_for_administrators(people: People, ada: Person, boss: Person):
    bob = people.person("bob", shares="shared:lab")
    ada.user.groups.set(bob.user.groups.all())  # who shares tasks shares no tokens
    for user in ("bob", "nobody"):  # whether there is one is told to nobody
        answer = ada.post(PATH, {"name": "theirs", "user": user})
        assert answer.status_code == 403
        assert user not in answer.text
    assert ada.call("DELETE", f"{PATH}/{bob.row.pk}").status_code == 404
    assert {token["user"] for token in ada.get(PATH).json()["tokens"]} == {"ada"}
    assert made(boss, name="theirs", user="bob", scopes=["read", "worker"])["user"] == "bob"
    assert boss.post(PATH, {"name": "x", "user": "bob", "scopes": ["admin"]}).status_code == 400
    assert boss.post(PATH, {"name": "x", "user": "nobody"}).json()["error"]["field"] == "user"
    assert {token["user"] for token in boss.get(PATH).json()["tokens"]} == {"ada", "bob", "boss"}
    assert boss.call("DELETE", f"{PATH}/{bob.row.pk}").status_code == 204
    until(lambda: bob.get(PATH).status_code == 401, timeout_s=3)


def test_names_of_others_are_no_business_of_mine(people: People, ada: Person):
    made(people.person("bob"), name="ci")
    made(ada, name="ci")
    answer = ada.post(PATH, {"name": "ci"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "name")
    with pytest.raises(tokens.NoSuchToken, match="ada, bob: say whose, with --user"):
        tokens.revoke("ci")
    assert tokens.revoke("ci", "bob").user.get_username() == "bob"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", " "),
        ("name", "a\0b"),
        ("name", "x" * 101),
        ("name", 5),
        ("scopes", []),
        ("scopes", "read"),
        ("scopes", ["fly"]),
        ("scopes", [["read"]]),
        ("scopes", [{}]),
        ("expires_days", -1),
        ("expires_days", 1e300),
        ("expires_days", "nan"),
        ("expires_days", "inf"),
        ("user", 1),
        ("user", "a\0b"),
    ],
)
def test_what_is_wrong_is_told(ada: Person, boss: Person, field: str, value: Any):
    for person in (ada, boss):
        answer = person.post(PATH, {"name": "new", field: value})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["field"] == field
    assert not Token.objects.filter(name="new").exists()


@pytest.mark.parametrize("body", [[], "x", 5, None, {}])
def test_a_body_that_says_nothing_makes_none(ada: Person, body: Any):
    assert ada.call("POST", PATH, json=body).status_code == 400


def test_answers_are_as_described(ada: Person):
    schema = ada.get("/api/schema/").json()

    def check(method: str, path: str, number: Any = "", body: Any = None) -> Any:
        answer = ada.call(method, path.format(token_id=number), json=body)
        content = answer.json() if answer.content else None
        as_described(schema, method, path, answer.status_code, content)
        return content

    one = f"{PATH}/{{token_id}}"
    number = check("POST", PATH, body={"name": "new"})["id"]
    for body in ({"name": "new"}, {"name": "wider", "scopes": ["admin"]}):
        check("POST", PATH, body=body)
    check("GET", PATH)
    for _ in range(2):
        check("GET", one, number)
        check("DELETE", one, number)
    assert {} not in schema["paths"][PATH]["get"]["security"]


@pytest.mark.parametrize("number", ["0", "-1", "x", "9" * 18, "9" * 30, "1.0", "٣"])
def test_what_is_no_number_is_no_token(ada: Person, number: str):
    assert ada.get(f"{PATH}/{number}").status_code == 404
    assert ada.call("DELETE", f"{PATH}/{number}").status_code == 404


def test_lists_have_pages(ada: Person):
    newer = [made(ada, name=f"t{number}")["id"] for number in range(3)]
    first = ada.get(f"{PATH}?limit=2").json()
    assert [token["id"] for token in first["tokens"]] == [newer[2], newer[1]]
    second = ada.get(f"{PATH}?limit=2&before={first['next']}").json()
    assert [token["id"] for token in second["tokens"]] == [newer[0], ada.row.pk]
    assert second["next"] is None
    assert ada.get(f"{PATH}?before=x").status_code == 400


def test_there_is_an_end_to_them(ada: Person):
    for number in range(3):
        tokens.create(f"t{number}", ada.user, ["read"], at_most=4)
    with pytest.raises(tokens.NotPossible, match="revoke some"):
        tokens.create("more", ada.user, ["read"], at_most=4)


def test_who_made_and_revoked_what_is_recorded(ada: Person):
    new = made(ada)
    ada.call("DELETE", f"{PATH}/{new['id']}")
    token = f"new ({new['prefix']}…)"
    rows = AuditEntry.objects.filter(action__startswith="token").order_by("id")
    assert list(rows.values_list("user", "by", "address", "action", "target")) == [
        ("ada", str(ada.row), "127.0.0.1", "token-create", f"{token} for ada: read submit"),
        ("ada", str(ada.row), "127.0.0.1", "token-revoke", f"{token} of ada"),
    ]


def test_where_none_are_asked_for_there_are_none(web: Web):
    for method, path in (("GET", PATH), ("POST", PATH), ("DELETE", f"{PATH}/1")):
        answer = call(web, method, path, json={"name": "new"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "tokens_off")
    assert not Token.objects.exists()
