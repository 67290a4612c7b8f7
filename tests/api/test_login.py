"""Sessions: the page to log in by, what a session may do, and what a page of somebody else's may not."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import requests
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from websockets.exceptions import ConnectionClosed

from api.access.pages import OF_A_NAME
from api.consumers import NOT_LET_IN
from api.models import AuditEntry, Token
from tests.access import People, Person, refused, socket
from tests.conftest import Database
from tests.live import until
from tests.web import Web, on_sqlite, web_process

pytestmark = on_sqlite

PASSWORD = "correct horse battery"
HASH = make_password(PASSWORD)  # once, for it takes a third of a second
_PROOF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class Visitor:
    """A browser, as far as cookies and forms go."""

    def __init__(self, web: Web) -> None:
        self.web = web
        self.http = requests.Session()
        self.http.headers["Origin"] = web.url

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        headers = {"Accept": "text/html"} | kwargs.pop("headers", {})
        return self.http.get(self.web.url + path, timeout=30, allow_redirects=False, headers=headers, **kwargs)

    def form(self, path: str, page: str = "/login/", **fields: str) -> requests.Response:
        shown = self.get(page).text
        found = _PROOF.search(shown)
        assert found, shown
        self.proof = found[1]
        data = {"csrfmiddlewaretoken": self.proof} | fields
        return self.http.post(self.web.url + path, data=data, timeout=30, allow_redirects=False)

    def log_in(self, name: str, password: str = PASSWORD, **more: str) -> requests.Response:
        answer = self.form("/login/", username=name, password=password, **more)
        if answer.status_code == 302:  # from here on pages have another proof
            found = _PROOF.search(self.get("/tasks/").text)
            assert found
            self.proof = found[1]
        return answer

    def api(self, method: str, path: str, *, proof: bool = True, **headers: str) -> requests.Response:
        sent = {"X-CSRFToken": self.proof} if proof else {}
        return self.http.request(
            method, self.web.url + path, json={} if method != "GET" else None, headers=sent | headers, timeout=30
        )

    @property
    def cookies(self) -> str:
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies)


@pytest.fixture
def visitor(closed_web: Web, people: People) -> Visitor:
    user = people.person("ada").user
    user.password = HASH
    user.save()
    return Visitor(closed_web)


def test_who_logs_in_is_let_in_and_out(visitor: Visitor):
    assert visitor.get("/tasks/").headers["Location"].startswith("/login/")
    answer = visitor.log_in("ada", next="/tasks/?state=failed")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/tasks/?state=failed")
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert "SameSite=Strict" in answer.headers["Set-Cookie"]
    shown = visitor.get("/tasks/")
    assert shown.status_code == 200
    assert "ada" in shown.text
    assert visitor.api("GET", "/api/v1/tasks").json()["tasks"] == []
    assert visitor.form("/logout/", page="/tasks/").status_code == 302
    until(lambda: visitor.get("/tasks/").status_code == 302, timeout_s=3)
    assert [entry.action for entry in AuditEntry.objects.order_by("id")] == ["login", "logout"]


def test_a_weak_password_is_not_taken(visitor: Visitor):
    user = get_user_model().objects.get(username="ada")
    user.is_staff = True
    user.save()
    visitor.log_in("ada")
    page = "/admin/password_change/"
    for weak in ("short1", "password1234", "ada"):
        answer = visitor.form(page, page=page, old_password=PASSWORD, new_password1=weak, new_password2=weak)
        assert "errorlist" in answer.text, weak
    user.refresh_from_db()
    assert user.check_password(PASSWORD)


@pytest.mark.parametrize("page", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"])
def test_login_leads_nowhere_else(visitor: Visitor, page: str):
    assert visitor.log_in("ada", next=page).headers["Location"] == "/"


def test_a_session_sees_its_users_things_and_no_others(visitor: Visitor, people: People):
    theirs, mine = people.person("other").submit()[0], people.person("ada").submit()[0]
    visitor.log_in("ada")
    assert visitor.get(f"/tasks/{mine}/").status_code == 200
    assert visitor.get(f"/tasks/{theirs}/").status_code == 404
    assert visitor.api("POST", f"/api/v1/tasks/{theirs}/cancel").status_code == 404
    assert visitor.api("POST", f"/api/v1/tasks/{mine}/cancel").json()["state"] == "CANCELLED"
    until(lambda: AuditEntry.objects.filter(action="cancel", target=mine, user="ada", by="session").exists())


@pytest.mark.parametrize(("method", "path"), [("POST", "/execute_function"), ("PATCH", "/api/v1/functions/{}")])
def test_a_session_alone_changes_nothing(visitor: Visitor, people: People, method: str, path: str):
    """A cookie comes along whoever makes a browser send a request."""
    path = path.format(people.person("ada").register())
    visitor.log_in("ada")
    for proof in (False, True):
        answer = visitor.api(method, path, proof=proof)
        assert (answer.status_code == 403) is not proof, answer.text
    assert visitor.api(method, path, **{"X-CSRFToken": "A" * 64}, proof=False).status_code == 403
    del visitor.http.headers["Origin"]
    assert visitor.api(method, path, proof=False).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_somebody_else_can_do_nothing_with_a_session(visitor: Visitor, people: People, origin: str):
    task = people.person("ada").submit()[0]
    visitor.log_in("ada")
    for method, path in (("POST", f"/api/v1/tasks/{task}/cancel"), ("GET", f"/status/{task}"), ("GET", "/tasks/")):
        assert visitor.api(method, path, Origin=origin).status_code == 403
    visitor.http.headers["Origin"] = origin
    form = visitor.http.post(visitor.web.url + "/logout/", data={"csrfmiddlewaretoken": visitor.proof}, timeout=30)
    assert form.status_code == 403
    assert refused(visitor.web, Cookie=visitor.cookies, Origin=origin) == 403


def test_a_form_of_somebody_else_is_not_read(visitor: Visitor):
    visitor.log_in("ada")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = visitor.http.post(
            visitor.web.url + "/execute_function", data=b"{}", headers={"Content-Type": kind}, timeout=30
        )
        assert answer.status_code == 415


def test_a_rebound_name_is_kept_out(visitor: Visitor):
    visitor.log_in("ada")
    cookies = visitor.cookies
    for path in ("/", "/tasks/", "/api/v1/tasks", "/login/"):
        answer = requests.get(visitor.web.url + path, headers={"Host": "evil.example", "Cookie": cookies}, timeout=30)
        assert answer.status_code == 403


def test_failures_are_counted_and_tell_nothing(visitor: Visitor):
    name = f"nobody-{time.time()}"
    for _ in range(OF_A_NAME):
        assert visitor.log_in(name, "wrong").status_code == 403
    answer = visitor.log_in(name, "wrong")
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert visitor.log_in("ada").status_code == 302, "others are let in"
    known, unknown = Visitor(visitor.web), Visitor(visitor.web)
    one, other = known.log_in("ada", "wrong").text, unknown.log_in("nobody", "wrong").text
    assert _without_proof(one) == _without_proof(other)
    assert AuditEntry.objects.filter(action="login-failed", user=name).count() == OF_A_NAME


def _without_proof(text: str) -> str:
    return re.sub(r'value="[^"]+"', "", text)


def test_a_session_opens_a_socket_until_it_ends(visitor: Visitor):
    visitor.log_in("ada")
    with socket(visitor.web, Cookie=visitor.cookies) as live:
        assert json.loads(live.recv(10))["stale"] is None
        visitor.form("/logout/", page="/tasks/")
        with pytest.raises(ConnectionClosed) as closed:
            _read_on(live)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == NOT_LET_IN


def _read_on(live: Any) -> None:
    while True:
        live.recv(5)


def test_another_password_ends_the_sessions(visitor: Visitor):
    visitor.log_in("ada")
    user = get_user_model().objects.get(username="ada")
    user.set_password("another")
    user.save()
    until(lambda: visitor.get("/tasks/").status_code == 302, timeout_s=3)


def test_behind_a_proxy_cookies_are_for_https_and_it_says_where_from(database: str, backend: Database, tmp_path: Any):
    with web_process(
        tmp_path, database_url=backend.url, auth="token", tls="yes", allowed_hosts="faas.example.org"
    ) as web:
        visitor = Visitor(web)
        visitor.http.headers.update(
            {
                "Host": "faas.example.org",
                "Origin": "https://faas.example.org",
                "Referer": "https://faas.example.org/login/",
                "X-Forwarded-Proto": "https",
                "X-Forwarded-For": "10.9.9.9, 192.0.2.7",
            }
        )
        shown = visitor.get("/login/")
        assert "Secure" in shown.headers["Set-Cookie"]
        assert "max-age" in shown.headers["Strict-Transport-Security"]
        cookie = shown.headers["Set-Cookie"].partition(";")[0]
        found = _PROOF.search(shown.text)
        assert found
        data = {"csrfmiddlewaretoken": found[1], "username": "nobody", "password": "wrong"}
        answer = visitor.http.post(web.url + "/login/", data=data, headers={"Cookie": cookie}, timeout=30)
        assert answer.status_code == 403
        assert "do not fit" in answer.text
    assert AuditEntry.objects.get(action="login-failed").address == "192.0.2.7"


# --- the admin


@pytest.fixture
def boss(visitor: Visitor, people: People) -> Visitor:
    user = people.person("boss", administrator=True).user
    user.password = HASH
    user.save()
    assert visitor.log_in("boss").status_code == 302
    return visitor


def test_tokens_are_made_and_revoked_in_the_admin(boss: Visitor, people: People):
    user = people.person("grace").user
    add = "/admin/api/token/add/"
    made = boss.form(add, page=add, name="ci", user=str(user.pk), scopes="read", days="2")
    assert made.status_code == 302, made.text
    shown = boss.get("/admin/api/token/").text
    found = re.search(r"faas_[\w-]{43}", shown)
    assert found
    row = Token.objects.get(name="ci")
    assert row.scopes == "read"
    assert row.expires_at is not None
    person = Person(boss.web, user, found[0], row)
    assert person.get("/api/v1/tasks").status_code == 200
    for path in ("/admin/api/token/", f"/admin/api/token/{row.pk}/change/"):
        shown = boss.get(path)
        assert shown.status_code == 200
        assert found[0] not in shown.text
    listed = "/admin/api/token/"
    boss.form(listed, page=listed, action="revoke", _selected_action=str(row.pk))
    until(lambda: person.get("/api/v1/tasks").status_code == 401, timeout_s=3)
    actions = list(AuditEntry.objects.filter(user="boss").order_by("id").values_list("action", "address"))
    assert actions == [("login", "127.0.0.1"), ("admin-add", "127.0.0.1"), ("admin-change", "127.0.0.1")]


def test_an_admin_token_is_for_administrators(boss: Visitor, people: People):
    add = "/admin/api/token/add/"
    refused = boss.form(add, page=add, name="x", user=str(people.person("grace").user.pk), scopes="admin")
    assert "for administrators alone" in refused.text
    assert not Token.objects.filter(name="x").exists()


def test_the_audit_log_cannot_be_changed(boss: Visitor):
    entry = AuditEntry.objects.first()
    assert entry is not None
    assert boss.get("/admin/api/auditentry/").status_code == 200
    for path in (f"/admin/api/auditentry/{entry.pk}/delete/", "/admin/api/auditentry/add/"):
        assert boss.get(path).status_code == 403
    assert boss.get("/admin/api/quota/add/").status_code == 200


def test_staff_who_are_no_administrators_make_no_tokens(visitor: Visitor):
    user = get_user_model().objects.get(username="ada")
    user.is_staff = True
    user.save()
    from django.contrib.auth.models import Permission

    user.user_permissions.set(Permission.objects.filter(content_type__app_label="api"))
    visitor.log_in("ada")
    for path in ("/admin/api/token/", "/admin/api/token/add/", "/admin/api/quota/", "/admin/api/auditentry/"):
        assert visitor.get(path).status_code == 403, path
    assert visitor.get("/admin/api/task/").status_code == 200
