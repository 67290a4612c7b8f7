"""What can be said of the files for containers without an engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.first_start import first_start, main
from everythingfaas.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "compose.yaml", ROOT / "compose.egress.yaml", *sorted((ROOT / "compose").glob("*.yaml"))]
#: Set by Compose itself.
OF_COMPOSE = {"COMPOSE_PROJECT_NAME"}


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
    assert given <= known | {f"{name}_FILE" for name in known}


def test_no_image_but_the_official_ones():
    images = set(re.findall(r"^\s+image: (.*)$", "\n".join(path.read_text() for path in FILES), re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    ours = {"${COMPOSE_PROJECT_NAME}-server", "${COMPOSE_PROJECT_NAME}-worker"}
    assert images - ours == {"postgres:17", "valkey/valkey:8"}
    assert bases - stages == {"python:${PYTHON_VERSION}-slim-trixie"}
    assert not (ROOT / "Dockerfile").read_text().startswith("# syntax=")


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
