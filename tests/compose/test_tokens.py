"""Tokens are on by one variable, and the first administrator is shown once."""

from __future__ import annotations

import re

import pytest
import requests

from tests.compose.stack import Stack

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
