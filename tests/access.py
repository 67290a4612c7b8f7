"""A web process with tokens on, users with tokens, and every path that there is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import pytest
import requests
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.urls import URLPattern, get_resolver
from django.utils import timezone
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from api.access import tokens
from api.models import Token
from tests.live import serialize
from tests.redis_fixture import Valkey
from tests.web import Web, web_process

NOBODY = "00000000-0000-7000-8000-000000000000"
#: By the name that a route has for it, an id of nothing. Whoever adds a kind of thing adds a line.
NOTHING = {"task_id": NOBODY, "function_id": NOBODY, "token_id": "999999", "batch": NOBODY}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
#: What nobody is asked for. Whoever adds a line here opens a door.
PUBLIC = {
    "/healthz",
    "/healthz/",
    "/readyz",
    "/readyz/",
    "/login/",
    "/logout/",
    "/admin/login/",
    "/static/nothing",
}


def paths(**ids: str) -> list[str]:
    """Every path of the URLconf, with these ids in it. A new endpoint is in by itself."""
    return sorted({_filled(route, NOTHING | ids) for route in routes()})


def closed_paths() -> list[str]:
    return [path for path in paths() if path not in PUBLIC]


def paths_of(**ids: str) -> list[tuple[str, str]]:
    """Every path that takes one of these ids, and the same with the id of nothing."""
    pairs = ((_filled(route, NOTHING | ids), _filled(route, NOTHING)) for route in routes())
    return sorted({pair for pair in pairs if pair[0] != pair[1]})


def routes() -> Iterator[str]:
    yield from _routes(get_resolver().url_patterns)


def _routes(patterns: list[Any], prefix: str = "/") -> Iterator[str]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route
        else:
            yield from _routes(pattern.url_patterns, route)


def _filled(route: str, ids: dict[str, str]) -> str:
    for name, identifier in ids.items():
        route = re.sub(rf"<\w+:{name}>", identifier, route)
    route = re.sub(r"\^?\(\?P<app_label>(\w+)[^)]*\)", r"\1", route)
    route = re.sub(r"\(\?P<url>[^)]*\)", "nothing", route)
    return re.sub(r"<[^>]*>", "nothing", route).replace("$", "")


@dataclass
class Person:
    """A user, and a client that has their token."""

    web: Web
    user: Any
    token: str
    row: Token

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def call(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        return call(self.web, method, path, headers=self.headers | kwargs.pop("headers", {}), **kwargs)

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.call("GET", path, **kwargs)

    def post(self, path: str, json: Any = None) -> requests.Response:
        return self.call("POST", path, json=json)

    def register(self, function: Any = len) -> str:
        answer = self.post("/register_function", {"name": "function", "payload": serialize(function)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["function_id"])

    def batch(self, function: str) -> str:
        """A batch of one task."""
        answer = self.post("/api/v1/batches", {"function_id": function, "tasks": [{"args": [1]}]})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["batch_id"])

    def execute(self, function: str) -> requests.Response:
        return self.post("/execute_function", {"function_id": function, "payload": serialize(((1,), {}))})

    def submit(self) -> tuple[str, str]:
        """The ids of a new task and its function."""
        function = self.register()
        answer = self.execute(function)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["task_id"]), function

    def socket(self) -> ClientConnection:
        return socket(self.web, f"faas.token.{self.token}")


#: One connection for all, which neither keeps cookies nor looks for proxies: the attack table is thousands of requests.
_http = requests.Session()
_http.trust_env = False
_http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))


def call(web: Web, method: str, path: str, **kwargs: Any) -> requests.Response:
    """One request, without any cookie of those before."""
    return _http.request(method, web.url + path, timeout=30, allow_redirects=False, **kwargs)


def socket(web: Web, *protocols: str, **headers: str) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{web.port}/live",
        origin=None,
        compression=None,
        subprotocols=protocols or None,  # type: ignore[arg-type]  # a NewType of str
        additional_headers=headers,
    )


def refused(web: Web, *protocols: str, **headers: str) -> int:
    """With which status a socket is refused."""
    with pytest.raises(InvalidStatus) as raised, socket(web, *protocols, **headers):
        pass
    return raised.value.response.status_code


class People:
    """Makes them."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def person(
        self, name: str, *scopes: str, administrator: bool = False, shares: str = "", days: float | None = None
    ) -> Person:
        user, _ = get_user_model().objects.get_or_create(username=name)
        if administrator:
            user.is_staff = user.is_superuser = True
            user.save()
        if shares:
            user.groups.add(Group.objects.get_or_create(name=shares)[0])
        number = Token.objects.count()
        row, secret = tokens.create(f"{name}-{number}", user, scopes or ("read", "submit"), days)
        return Person(self._web, user, secret, row)

    def expired(self) -> Person:
        late = self.person("late", "read", "submit", days=1)
        Token.objects.filter(pk=late.row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        return late

    def revoked(self) -> Person:
        former = self.person("former")
        tokens.revoke(former.row.name)
        return former


@pytest.fixture(scope="session")
def _closed_web(sqlite_database: Any, valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("closed")
    with web_process(folder, database_url=sqlite_database.url, redis_url=valkey_server.url, auth="token") as web:
        yield web


@pytest.fixture
def closed_web(_closed_web: Web, database: str, valkey: Valkey, settings: Any) -> Web:
    """A web process with tokens on, an empty database and a Redis, which this process uses as well."""
    settings.FAAS = dataclasses.replace(settings.FAAS, redis_url=valkey.url)
    return _closed_web


@pytest.fixture
def people(closed_web: Web) -> People:
    return People(closed_web)
