"""What can be said of the files for containers without an engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance.first_start import first_start, main
from everythingfaas.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILES = [*sorted(ROOT.glob("compose*.yaml")), *sorted((ROOT / "compose").glob("*.yaml"))]
#: Set by Compose itself.
OF_COMPOSE = {"COMPOSE_PROJECT_NAME"}
#: For compose/Caddyfile alone.
OF_CADDY = {"FAAS_DOMAIN"}


def variables() -> dict[str, set[str]]:
    """Those that the files take from outside, with their defaults."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        for name, default in re.findall(r"(?<!\$)\$\{(\w+)(?::-([^}]*))?\}", path.read_text()):
            found.setdefault(name, set()).add(default)
    return {name: defaults for name, defaults in found.items() if name not in OF_COMPOSE}


def test_every_variable_is_documented_with_its_default():
    example = dict(re.findall(r"^#(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    used = variables()
    assert example.keys() == used.keys()
    for name, defaults in used.items():
        assert len(defaults) == 1, name
        (default,) = defaults
        assert default in ("", example[name]), name  # where there is none, it is the setting's own


def test_settings_are_named_as_they_are():
    """Variables that a container is given are settings, or stand for the file of one."""
    given = {name for path in FILES for name in re.findall(r"^\s+(FAAS_\w+): ", path.read_text(), re.MULTILINE)}
    known = {f"FAAS_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert given <= known | {f"{name}_FILE" for name in known} | OF_CADDY


def test_no_image_but_the_official_ones():
    images = set(re.findall(r"^\s+image: (.*)$", "\n".join(path.read_text() for path in FILES), re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    ours = {"${COMPOSE_PROJECT_NAME}-server", "${COMPOSE_PROJECT_NAME}-worker"}
    assert images - ours == {"postgres:17", "valkey/valkey:8", "caddy:2"}
    assert bases - stages == {"python:${PYTHON_VERSION}-slim-trixie"}
    assert not (ROOT / "Dockerfile").read_text().startswith("# syntax=")


def composed(*files: str, **environ: str) -> dict[str, Any]:
    """What Compose makes of these files. Needs no engine."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("Docker Compose v2 is not installed")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FAAS_", "COMPOSE_"))}
    options = [part for file in files for part in ("--file", file)]
    command = ["docker", "compose", "--env-file", os.devnull, *options, "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, env=clean | environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


SERVERS = ("migrate", "web", "dispatcher")


def test_one_variable_turns_tokens_on():
    services = composed("compose.yaml", FAAS_AUTH="token")["services"]
    for name in SERVERS:
        assert Settings.from_env(_given(services[name])).tokens, name
    assert "faas token first" in services["migrate"]["command"][-1]
    for name in SERVERS:
        assert not Settings.from_env(_given(composed("compose.yaml")["services"][name])).tokens


def test_behind_caddy_everybody_needs_a_token_and_comes_by_https():
    made = composed("compose.yaml", "compose.tls.yaml", FAAS_DOMAIN="faas.example.org")
    services = made["services"]
    for name in SERVERS:
        settings = Settings.from_env(_given(services[name]))
        assert settings.tokens
        assert settings.url == "https://faas.example.org"
        assert settings.proxies == ("private",)
    assert not services["web"].get("ports")
    assert set(services["web"]["networks"]) == {"edge", "data"}
    assert {name for name, service in services.items() if "edge" in (service.get("networks") or {})} == {"caddy", "web"}
    assert {port["target"] for port in services["caddy"]["ports"]} == {80, 443}
    assert made["networks"]["edge"]["internal"]
    assert services["caddy"]["environment"] == {"FAAS_DOMAIN": "faas.example.org"}


def _given(service: dict[str, Any]) -> dict[str, str]:
    """The settings of a container, without the files that only it has."""
    return {name: value or "" for name, value in service["environment"].items() if not name.endswith("_FILE")}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name in ("db", "redis", "server"):
        (tmp_path / name).mkdir()
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_secrets_are_made_once_and_fit_each_other(secrets):
    first_start(secrets)
    made = contents(secrets)
    assert made["db/password"] in made["server/database_url"]
    assert made["redis/password"] in made["server/redis_url"]
    assert f">{made['redis/password']} " in made["redis/users.acl"]
    assert len({made["db/password"], made["redis/password"], made["server/secret_key"]}) == 3
    first_start(secrets)
    assert contents(secrets) == made


def test_what_was_interrupted_is_mended(secrets):
    first_start(secrets)
    made = contents(secrets)
    for name in ("server/database_url", "server/redis_url", "redis/users.acl"):
        (secrets / name).unlink()
    (secrets / "server" / "redis_url.new").write_text("half of")
    first_start(secrets)
    assert contents(secrets) == made


def test_only_who_needs_them_reads_the_urls(secrets):
    first_start(secrets)
    for path in (secrets / "server").iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_a_folder_that_is_not_there_is_told(tmp_path, capfd):
    assert main([str(tmp_path)]) == 1
    assert "the secrets cannot be made" in capfd.readouterr().err
