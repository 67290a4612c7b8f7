import dataclasses
import ipaddress
from pathlib import Path

import pytest

from everythingfaas.errors import ConfigurationError
from everythingfaas.settings import (
    Settings,
    as_environment,
    is_loopback,
    settings_page,
    settings_table,
    socket_url,
    variable,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_nothing_set_gives_a_laptop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({})
    assert settings.data_dir == tmp_path / ".faas"
    assert (settings.bind, settings.listen, settings.port) == ("127.0.0.1", "127.0.0.1", 8000)
    assert (settings.mode, settings.auth, settings.database_url, settings.redis_url) == ("local", "open", "", "")
    assert settings.task_deadline is None
    assert settings.workers >= 1
    assert settings.url == "http://127.0.0.1:8000"


def test_an_empty_variable_is_not_set():
    assert Settings.from_env({"FAAS_PORT": "", "FAAS_TASK_DEADLINE": ""}) == Settings.from_env({})


def test_an_override_comes_before_the_variable_unless_it_is_none():
    environ = {"FAAS_PORT": "1000", "FAAS_WORKERS": "3"}
    settings = Settings.from_env(environ, port=2000, workers=None)
    assert (settings.port, settings.workers) == (2000, 3)


def test_an_override_that_is_no_setting_is_our_mistake():
    with pytest.raises(TypeError, match="colour"):
        Settings.from_env({}, colour="red")


def test_data_dir_becomes_absolute_and_one_spelling(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for spelling in ("link/x", "./real/x", "real/../real/x", str(tmp_path / "real" / "x")):
        assert Settings.from_env({"FAAS_DATA_DIR": spelling}).data_dir == tmp_path / "real" / "x"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("FAAS_PORT", "http", "1 to 65535"),
        ("FAAS_PORT", "0", "1 to 65535"),
        ("FAAS_PORT", "65536", "1 to 65535"),
        ("FAAS_WORKERS", "0", "a number"),
        ("FAAS_WORKERS", "2.5", "a number"),
        ("FAAS_TASK_DEADLINE", "soon", "seconds"),
        ("FAAS_TASK_DEADLINE", "-1", "seconds"),
        ("FAAS_TASK_DEADLINE", "nan", "seconds"),
        ("FAAS_SHUTDOWN_S", "inf", "seconds"),
        ("FAAS_MAX_BODY_BYTES", "16M", "bytes"),
        ("FAAS_MODE", "dask", "local, pull, push"),
        ("FAAS_AUTH", "none", "open, token"),
        ("FAAS_LOG_LEVEL", "loud", "debug, info, warning, error"),
        ("FAAS_LISTEN", "127.0.0.1:80", "without a port"),
        ("FAAS_BIND", "http://x", "without a port"),
    ],
)
def test_a_bad_value_is_named_with_what_is_expected(name, value, expected):
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_env({name: value})
    assert str(raised.value).startswith(f"{name}={value}: expected ")
    assert expected in str(raised.value)


@pytest.mark.parametrize("name", ["FAAS_DATABASE_URL", "FAAS_REDIS_URL"])
def test_a_bad_url_is_not_shown_for_it_may_hold_a_password(name):
    with pytest.raises(ConfigurationError) as raised:
        Settings.from_env({name: "mysql://me:sesame@db/x"})
    assert "sesame" not in str(raised.value)
    assert name in str(raised.value)


def test_a_private_setting_may_stand_in_a_file(tmp_path):
    (tmp_path / "url").write_text("redis://:sesame@redis:6379\n")
    environ = {"FAAS_REDIS_URL_FILE": str(tmp_path / "url")}
    assert Settings.from_env(environ).redis_url == "redis://:sesame@redis:6379"
    assert Settings.from_env(environ | {"FAAS_REDIS_URL": "redis://here"}).redis_url == "redis://here"
    with pytest.raises(ConfigurationError, match=r"FAAS_SECRET_KEY_FILE=.*/none cannot be read"):
        Settings.from_env({"FAAS_SECRET_KEY_FILE": str(tmp_path / "none")})


def test_what_is_not_private_comes_from_no_file(tmp_path):
    assert Settings.from_env({"FAAS_PORT_FILE": str(tmp_path / "none")}) == Settings.from_env({})


@pytest.mark.parametrize(
    "environ",
    [
        {"FAAS_BIND": "0.0.0.0"},
        {"FAAS_BIND": "10.0.0.7"},
        {"FAAS_BIND": "::"},
        {"FAAS_BIND": "faas.example.org"},
        {"FAAS_BIND": "127.0.0.1", "FAAS_AUTH": "token"},
        {"FAAS_BIND": "0.0.0.0", "FAAS_AUTH": ""},
    ],
)
def test_beyond_loopback_tokens_are_on(environ):
    settings = Settings.from_env(environ)
    assert settings.tokens
    assert settings.auth == "token"


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_they_are_off(bind):
    assert not Settings.from_env({"FAAS_BIND": bind}).tokens


GOOD_KEY = "q9vX2mB7tLw4ZrK8pN3sYc6HdJ1fGa5E"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"FAAS_BIND": "0.0.0.0", "FAAS_AUTH": "open"}, "FAAS_AUTH=open with FAAS_BIND=0.0.0.0"),
        ({"FAAS_BIND": "faas.example.org", "FAAS_AUTH": "open"}, "FAAS_AUTH=open"),
        ({"FAAS_TLS": "yes", "FAAS_AUTH": "open"}, "FAAS_AUTH=open with FAAS_TLS=yes"),
        ({"FAAS_AUTH": "token", "FAAS_ALLOWED_HOSTS": "faas.example.org,*"}, "FAAS_ALLOWED_HOSTS"),
        ({"FAAS_AUTH": "token", "FAAS_SECRET_KEY": " "}, "FAAS_SECRET_KEY"),
        ({"FAAS_AUTH": "token", "FAAS_SECRET_KEY": "short"}, "FAAS_SECRET_KEY"),
        ({"FAAS_AUTH": "token", "FAAS_SECRET_KEY": "0" * 64}, "FAAS_SECRET_KEY"),
        ({"FAAS_AUTH": "token", "FAAS_SECRET_KEY": "django-insecure-" + GOOD_KEY}, "FAAS_SECRET_KEY"),
        ({"FAAS_AUTH": "token", "FAAS_SECRET_KEY": "ChangeMe" + GOOD_KEY}, "FAAS_SECRET_KEY"),
        ({"FAAS_AUTH": "token", "FAAS_DEBUG": "1"}, "FAAS_DEBUG"),
        ({"FAAS_AUTH": "token", "DJANGO_DEBUG": "true"}, "DJANGO_DEBUG"),
    ],
)
def test_what_would_let_in_everybody_is_refused(environ, said):
    with pytest.raises(ConfigurationError, match=said) as raised:
        Settings.from_env(environ)
    if len(environ.get("FAAS_SECRET_KEY", "")) > 1:
        assert environ["FAAS_SECRET_KEY"] not in str(raised.value)


def test_a_key_made_at_random_is_taken():
    assert Settings.from_env({"FAAS_AUTH": "token", "FAAS_SECRET_KEY": GOOD_KEY}).secret_key == GOOD_KEY


def test_behind_tls_users_come_by_the_name():
    settings = Settings.from_env({"FAAS_TLS": "yes", "FAAS_ALLOWED_HOSTS": "faas.example.org"})
    assert settings.url == "https://faas.example.org"
    assert settings.tokens, "whoever reaches the proxy reaches us"
    assert Settings.from_env(as_environment(settings)) == settings


@pytest.mark.parametrize(
    ("given", "inside", "outside"),
    [
        ("", ["127.0.0.9", "::1"], ["10.0.0.1", "192.0.2.1"]),
        ("192.0.2.7, 10.1.0.0/16", ["192.0.2.7", "10.1.2.3"], ["127.0.0.1", "10.2.0.1"]),
        ("private", ["10.0.0.1", "172.20.0.3", "192.168.1.1", "fd00::1"], ["127.0.0.1", "8.8.8.8", "172.32.0.1"]),
    ],
)
def test_where_proxies_are(given, inside, outside):
    networks = Settings.from_env({"FAAS_PROXIES": given}).proxy_networks
    for text, wanted in [*((text, True) for text in inside), *((text, False) for text in outside)]:
        assert any(ipaddress.ip_address(text) in network for network in networks) is wanted, text


def test_a_proxy_is_no_name():
    with pytest.raises(ConfigurationError, match="FAAS_PROXIES=caddy: expected addresses"):
        Settings.from_env({"FAAS_PROXIES": "caddy"})


@pytest.mark.parametrize(
    ("bind", "private"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("ipc:///run/faas/work", True), ("0.0.0.0", False)],
)
def test_where_the_dispatcher_needs_keys(bind, private):
    settings = Settings.from_env({"FAAS_DISPATCHER_BIND": bind, "FAAS_DATA_DIR": "/data"})
    assert settings.dispatcher_is_private is private
    assert settings.keys_folder == Path("/data/keys")


def test_a_container_listens_on_everything_while_users_come_by_loopback():
    settings = Settings.from_env({"FAAS_LISTEN": "0.0.0.0"})
    assert (settings.listen, settings.bind) == ("0.0.0.0", "127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback(host):
    assert is_loopback(host)
    assert Settings.from_env({"FAAS_BIND": host}).listen == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "localhost.example.org", "fe80::1"])
def test_the_outside(host):
    assert not is_loopback(host)


def test_where_it_is_bound_to_everything_this_machine_finds_it_by_loopback():
    assert Settings.from_env({"FAAS_BIND": "0.0.0.0"}).url == "http://127.0.0.1:8000"
    assert Settings.from_env({"FAAS_BIND": "::"}).url == "http://[::1]:8000"
    assert Settings.from_env({"FAAS_BIND": "0.0.0.0"}).own_hosts == ()
    assert Settings.from_env({"FAAS_BIND": "10.0.0.7"}).own_hosts == ("10.0.0.7",)
    assert Settings.from_env({"FAAS_BIND": "fd00::7"}).own_hosts == ("[fd00::7]",)


def test_ipv6_stands_in_brackets_in_the_url_alone():
    settings = Settings.from_env({"FAAS_BIND": "[::1]"})
    assert (settings.bind, settings.url) == ("::1", "http://[::1]:8000")


def test_another_process_reads_the_same_from_our_environment(tmp_path):
    settings = Settings.from_env(
        {"FAAS_ALLOWED_HOSTS": " a.example , b.example", "FAAS_TASK_DEADLINE": "2.5"}, data_dir=tmp_path, workers=7
    )
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert Settings.from_env(as_environment(settings)) == settings
    assert all(isinstance(value, str) for value in as_environment(settings).values())


def test_redis_is_found_where_the_launcher_says_it_is(tmp_path):
    settings = Settings.from_env({}, data_dir=tmp_path)
    assert settings.redis_address == f"unix://{tmp_path}/run/redis.sock"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "redis.url").write_text("unix:///elsewhere/redis.sock\n")
    assert settings.redis_address == "unix:///elsewhere/redis.sock"
    assert dataclasses.replace(settings, redis_url="redis://r:1").redis_address == "redis://r:1"


def test_a_socket_url_survives_a_folder_with_odd_characters():
    from redis.connection import parse_url

    path = Path("/tmp/a folder/100%/#1?/redis.sock")
    assert parse_url(socket_url(path))["path"] == str(path)


def test_the_documented_list_is_the_code():
    page = (DOCS / "settings.md").read_text()
    assert page == settings_page(), "run: python -m everythingfaas.settings > docs/settings.md"
    for field in dataclasses.fields(Settings):
        assert f"`{variable(field.name)}`" in settings_table()
        assert field.metadata["help"]
