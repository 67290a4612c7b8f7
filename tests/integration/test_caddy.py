"""The Caddy of compose.tls.yaml, with its very Caddyfile, as a process in front of a web process: Debian's package."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from django.contrib.auth import get_user_model
from requests.adapters import HTTPAdapter
from websockets.sync.client import connect

from api.access import tokens
from api.models import AuditEntry
from tests.conftest import Database
from tests.live import ROOT, free_port, serialize, until
from tests.redis_fixture import Valkey
from tests.web import on_sqlite, web_process

pytestmark = [on_sqlite, pytest.mark.slow]

CADDYFILE = ROOT / "compose" / "Caddyfile"
#: Another address of loopback than that by which Caddy reaches the web.
CLIENT = "127.0.0.2"


class From(HTTPAdapter):
    """Connects from that address."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, source_address=(CLIENT, 0), **kwargs)


@dataclass
class Front:
    url: str
    plain_url: str
    certificate: Path  #: of the authority that Caddy has made for itself

    def client(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self.certificate)
        session.mount("https://", From())
        return session


def _caddy() -> str:
    found = shutil.which("caddy")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("caddy is not installed, and CI=true: apt-get install caddy")
        pytest.skip("caddy is not installed (apt-get install caddy)")
    return found


@pytest.fixture
def front(database: str, backend: Database, valkey: Valkey, tmp_path: Path) -> Iterator[Front]:
    caddy = _caddy()
    ports = {"FAAS_HTTP_PORT": str(free_port()), "FAAS_HTTPS_PORT": str(free_port())}
    settings = {"auth": "token", "tls": "yes", "proxies": "127.0.0.1", "redis_url": valkey.url}
    with web_process(tmp_path, database_url=backend.url, **settings) as web, (tmp_path / "caddy.log").open("w") as log:
        environ = {"PATH": os.defpath, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)} | ports
        process = subprocess.Popen(
            [caddy, "run", "--config", CADDYFILE, "--adapter", "caddyfile"],
            env=environ | {"FAAS_WEB": f"127.0.0.1:{web.port}"},
            stderr=log,
            cwd=tmp_path,
        )
        front = Front(
            f"https://localhost:{ports['FAAS_HTTPS_PORT']}",
            f"http://localhost:{ports['FAAS_HTTP_PORT']}",
            tmp_path / "caddy" / "pki" / "authorities" / "local" / "root.crt",
        )
        try:
            until(lambda: _serves(front), what=f"Caddy serves: {log.name}")
            yield front
        finally:
            process.terminate()
            process.wait(20)


def _serves(front: Front) -> bool:
    if not front.certificate.exists():
        return False
    try:
        return front.client().get(front.url + "/healthz", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_the_file_is_valid(tmp_path: Path, backend: Database) -> None:
    command = [_caddy(), "validate", "--config", CADDYFILE, "--adapter", "caddyfile"]
    done = subprocess.run(command, env={"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "not formatted" not in done.stderr


def test_sessions_and_tokens_come_through_by_https(front: Front) -> None:
    user = get_user_model().objects.create_superuser("ada", password="correct horse battery")
    _, token = tokens.create("one", user, ["read", "submit"])
    client = front.client()
    redirected = requests.get(front.plain_url + "/", allow_redirects=False, timeout=10)
    assert redirected.status_code == 308
    assert redirected.headers["Location"].startswith("https://")

    # What a client says of itself is not believed: neither Caddy passes it on, nor do we take it from others.
    lies = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}
    page = client.get(front.url + "/login/", headers=lies, timeout=10)
    assert "max-age" in page.headers["Strict-Transport-Security"]
    assert {(cookie.name, cookie.secure) for cookie in client.cookies} == {("csrftoken", True)}
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert found
    form = {"csrfmiddlewaretoken": found[1], "username": "ada", "password": "correct horse battery"}
    ours = {"Origin": front.url, "Referer": front.url + "/login/"}
    entered = client.post(front.url + "/login/", data=form, headers=lies | ours, timeout=10, allow_redirects=False)
    assert (entered.status_code, entered.headers["Location"]) == (302, "/"), entered.text
    assert all(cookie.secure for cookie in client.cookies)
    assert client.get(front.url + "/api/v1/tasks", timeout=10).status_code == 200
    assert AuditEntry.objects.get(action="login").address == CLIENT

    bearer = {"Authorization": f"Bearer {token}"}
    body = {"name": "f", "payload": serialize(len)}
    program = front.client()
    assert program.post(front.url + "/register_function", json=body, timeout=10).status_code == 401
    answer = program.post(front.url + "/register_function", json=body, headers=bearer | lies, timeout=10)
    assert answer.status_code == 201
    until(lambda: AuditEntry.objects.filter(action="register", address=CLIENT).exists())

    context = ssl.create_default_context(cafile=str(front.certificate))
    live = front.url.replace("https", "wss") + "/live"
    with connect(live, ssl=context, additional_headers=bearer, origin=front.url) as socket:  # type: ignore[arg-type]  # a NewType of str
        assert '"stale":null' in str(socket.recv(10))
