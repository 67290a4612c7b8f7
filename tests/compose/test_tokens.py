"""Tokens are on by one variable, and the first administrator is shown once. By https it is another file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from tests.compose.stack import Stack, docker
from tests.live import free_port, until

pytestmark = pytest.mark.timeout(300)


def test_one_variable_turns_tokens_on(running: Stack) -> None:
    running.up(FAAS_AUTH="token")
    try:
        shown = running.compose("logs", "--no-log-prefix", "migrate")
        (token,) = set(re.findall(r"faas_[\w-]{43}", shown))
        client = running.client()
        assert client.get("/api/v1/tasks").status_code == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert requests.get(client.url + "/api/v1/tasks", headers=bearer, timeout=10).status_code == 200
        running.up("--force-recreate")
        assert "faas_" not in running.compose("logs", "--no-log-prefix", "migrate")
        assert requests.get(client.url + "/api/v1/tasks", headers=bearer, timeout=10).status_code == 200
    finally:
        running.up(FAAS_AUTH="")


def test_by_https_behind_caddy(running: Stack, tmp_path: Path) -> None:
    if not docker("image", "ls", "--quiet", "caddy:2") and "caddy" not in docker("pull", "caddy:2", check=False):
        pytest.skip("the image caddy:2 is not here and cannot be pulled")
    former = running.settings["FAAS_PORT"]
    ports = {"FAAS_HTTP_PORT": str(free_port()), "FAAS_HTTPS_PORT": str(free_port())}
    running.files = ("compose.yaml", "compose.tls.yaml")
    try:
        running.up(**ports)
        (token,) = set(re.findall(r"faas_[\w-]{43}", running.compose("run", "--rm", "--no-deps", "migrate", *_NEW)))
        authority = tmp_path / "root.crt"
        authority.write_text(running.run_in("caddy", "cat /data/caddy/pki/authorities/local/root.crt"))
        url = f"https://localhost:{ports['FAAS_HTTPS_PORT']}"

        def status(**headers: str) -> int:
            return requests.get(url + "/api/v1/tasks", headers=headers, verify=authority, timeout=10).status_code

        until(lambda: status() == 401, timeout_s=20)
        assert status(Authorization=f"Bearer {token}") == 200
        with pytest.raises(requests.ConnectionError):  # the web itself is published no more
            requests.get(f"http://127.0.0.1:{former}/healthz", timeout=5)
        page = requests.get(url + "/login/", verify=authority, timeout=10)
        assert "Secure" in page.headers["Set-Cookie"]
        assert page.headers["Strict-Transport-Security"]
    finally:
        running.files = ()
        running.up("--remove-orphans")


#: The first token may have been shown before.
_NEW = ("faas", "token", "create", "tls", "--user", "tls", "--scope", "read")
