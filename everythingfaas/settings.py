"""The settings of every process of ours: one frozen object, one prefix, one place.

Each field of `Settings` is an environment variable with ``FAAS_`` before its name in capitals. What stands here
(type, default, help) is all there is: the flags of the commands only override fields, the launcher hands them to
its children by `as_environment`, and ``docs/settings.md`` is printed from it:

    python -m everythingfaas.settings > docs/settings.md

An empty variable is one that is not set, so that a compose file may pass ``FAAS_REDIS_URL=`` along. A private one
may stand in a file instead, which ``FAAS_REDIS_URL_FILE`` names: so no password has to be in anybody's environment.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from everythingfaas.errors import ConfigurationError

PREFIX = "FAAS_"
#: Behind the variable of a private setting: the file that holds its value.
FILE_SUFFIX = "_FILE"
MODES = ("local", "pull", "push")
AUTHS = ("open", "token")
#: Stands for all networks that are nobody's but one's own.
PRIVATE = "private"
_PRIVATE_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
_LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")
LOG_LEVELS = ("debug", "info", "warning", "error")


def _integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < minimum or (maximum is not None and number > maximum):
            raise ValueError(text)
        return number

    return parse


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(text)
        return text.lower()

    return parse


def _switch(text: str) -> bool:
    switches = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in switches:
        raise ValueError(text)
    return switches[text.lower()]


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not text.startswith(tuple(f"{scheme}:" for scheme in schemes)):
            raise ValueError(text)
        return text

    return parse


def _host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]")
    if not host or any(char.isspace() or char in "/@?#,[]%" for char in host):
        raise ValueError(text)
    if ":" in host:
        ipaddress.IPv6Address(host)  # a port behind the address is the usual mistake
    return host


def _dispatcher_host(text: str) -> str:
    if text.startswith("ipc://") and len(text) > len("ipc://"):
        return text
    return _host(text)


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _networks(text: str) -> tuple[str, ...]:
    names = _hosts(text)
    for name in names:
        if name != PRIVATE:
            ipaddress.ip_network(name, strict=False)
    return names


def _path(text: str) -> Path:
    # Resolved once, here: the launcher finds the processes of a data folder by this very text.
    return Path(text).expanduser().resolve()


def _setting(parse: Callable[[str], object], expected: str, help_text: str, **more: Any) -> Any:
    """A field of `Settings`. `shown` is the default as the documentation has it, where the value is no good there;
    the value of a `private` one is never part of a message, and may stand in a file."""
    default = more.pop("default", dataclasses.MISSING)
    factory = more.pop("default_factory", dataclasses.MISSING)
    metadata = {"parse": parse, "expected": expected, "help": help_text, **more}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


_PORT = _integer(1, 65535)
_PORT_EXPECTED = "a port number, 1 to 65535"
_HOST_EXPECTED = "an address or a host name, without a port"
_BYTES_EXPECTED = "a number of bytes, 1 or more"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What one process was told. Made by `from_env`; a test may build one from values that need no check."""

    data_dir: Path = _setting(  # noqa: RUF009 -- it returns a field
        _path,
        "the path of a folder",
        "Everything that is kept: database, Redis' file, logs, process ids, the secret key.",
        default_factory=lambda: _path(".faas"),
        shown="`.faas` in the current folder",
    )
    database_url: str = _setting(
        _url("sqlite", "postgres", "postgresql"),
        "a URL that begins with sqlite:, postgres: or postgresql:",
        "The database. A password in it belongs in the variable, never in a flag.",
        default="",
        shown="SQLite: `db.sqlite3` in the data folder",
        private=True,
    )
    redis_url: str = _setting(
        _url("redis", "rediss", "unix"),
        "a URL that begins with redis:, rediss: or unix:",
        "The Redis or Valkey server. It may lose everything it holds; no task depends on it.",
        default="",
        shown="embedded: `faas up` runs one on a Unix socket",
        private=True,
    )
    bind: str = _setting(
        _host,
        _HOST_EXPECTED,
        "The address that users reach the web by. It alone decides how strict the web is.",
        default="127.0.0.1",
    )
    listen: str = _setting(
        _host,
        _HOST_EXPECTED,
        "The address that the web process listens on, where that is another one: in a container, all of its own.",
        default="",
        shown="the value of `FAAS_BIND`",
    )
    port: int = _setting(_PORT, _PORT_EXPECTED, "The port of the web.", default=8000)
    allowed_hosts: tuple[str, ...] = _setting(
        _hosts,
        "host names with commas between them",
        "More names that users reach the web by, with commas between them; a request for any other is refused.",
        default=(),
        shown="",
    )
    auth: str = _setting(
        _choice(*AUTHS),
        "one of " + ", ".join(AUTHS),
        "`open`: no token is asked for, on loopback only. `token`: everybody needs one.",
        default="",
        shown="`open` where `FAAS_BIND` is loopback and `FAAS_TLS` is not on, else `token`",
    )
    tls: bool = _setting(
        _switch,
        "yes or no",
        "`yes`: users come by https, through a proxy that ends TLS and sets `X-Forwarded-For` and `X-Forwarded-Proto`.",
        default=False,
        shown="`no`",
    )
    proxies: tuple[str, ...] = _setting(
        _networks,
        "addresses and networks such as 10.1.0.0/16 with commas between them, or `private` for all private ones",
        "Where that proxy is, with commas between: addresses, networks, or `private` for all private ones. What "
        "anybody else says of where they come from is not believed.",
        default=(),
        shown="loopback",
    )
    secret_key: str = _setting(
        str,
        "any text",
        "Signs the sessions of the web.",
        default="",
        shown="made once, kept in the data folder",
        private=True,
    )
    mode: str = _setting(
        _choice(*MODES),
        "one of " + ", ".join(MODES),
        "Who runs the functions: `local`: the dispatcher itself; `pull`: workers that ask; `push`: that are sent to.",
        default="local",
    )
    workers: int = _setting(
        _integer(1, 10_000),
        "a number, 1 to 10000",
        "How many functions run at the same time.",
        default_factory=lambda: len(os.sched_getaffinity(0)),
        shown="the number of CPUs",
    )
    dispatcher_bind: str = _setting(
        _dispatcher_host,
        _HOST_EXPECTED + ", or ipc:///PATH of a socket",
        "Where the dispatcher listens for workers, in pull and push: an address, or `ipc:///PATH` of a socket.",
        default="127.0.0.1",
    )
    dispatcher_port: int = _setting(
        _PORT, _PORT_EXPECTED, "The port of the dispatcher, in pull and push.", default=5555
    )
    keys_dir: Path | None = _setting(  # noqa: RUF009 -- it returns a field
        _path,
        "the path of a folder",
        "The dispatcher's keys, and those of the workers that it lets in; used where it listens beyond this machine.",
        default=None,
        shown="`keys` in the data folder",
    )
    worker_key: str = _setting(
        str,
        "the line that `faas worker-key create` has printed, or the path of a file that holds it",
        "With which a worker is let in.",
        default="",
        shown="",
        private=True,
    )
    alive_file: Path | None = _setting(  # noqa: RUF009 -- it returns a field
        _path,
        "the path of a file",
        "What dispatcher and workers touch every two seconds while they can work, for health checks to look at.",
        default=None,
        shown="none",
    )
    task_deadline: float | None = _setting(
        _seconds,
        "a number of seconds, more than 0",
        "How many seconds a task may run before it is killed and fails.",
        default=None,
        shown="no deadline",
    )
    unmatched_s: float = _setting(
        _seconds,
        "a number of seconds, more than 0",
        "How many seconds a task waits for a worker of its Python while only others are connected; then it fails.",
        default=60.0,
    )
    max_body_bytes: int = _setting(
        _integer(1), _BYTES_EXPECTED, "The largest request that is read; more answers 413.", default=16 * 1024**2
    )
    max_result_bytes: int = _setting(
        _integer(1),
        _BYTES_EXPECTED,
        "The largest result that is kept; a larger one fails its task.",
        default=64 * 1024**2,
    )
    shutdown_s: float = _setting(
        _seconds,
        "a number of seconds, more than 0",
        "How many seconds everything together has to stop before it is killed; `faas up` tells each process its share.",
        default=8.0,
    )
    log_level: str = _setting(
        _choice(*LOG_LEVELS), "one of " + ", ".join(LOG_LEVELS), "How much the logs say.", default="info"
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: object) -> Settings:
        """The settings in `environ`; an override that is not None comes before the variable.

        Raises:
            ConfigurationError: a value cannot be read, or this version cannot do what it asks for.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := overrides.keys() - known.keys():
            raise TypeError(f"no such settings: {', '.join(sorted(unknown))}")
        values: dict[str, Any] = {}
        for name, field in known.items():
            given = overrides.get(name)
            text = _read(environ, field) if given is None else _as_text(given)
            if text:
                values[name] = _parse(field, text)
        settings = cls(**values)
        settings = dataclasses.replace(
            settings,
            listen=settings.listen or settings.bind,
            auth=settings.auth or ("open" if is_loopback(settings.bind) and not settings.tls else "token"),
        )
        _check_security(settings, environ)
        return settings

    @property
    def tokens(self) -> bool:
        """Whether everybody needs a token, or a session."""
        return self.auth != "open"

    @property
    def proxy_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """From where it is believed which client a request was passed on for."""
        names: list[str] = []
        for name in self.proxies or _LOOPBACK_NETWORKS:
            names += _PRIVATE_NETWORKS if name == PRIVATE else (name,)
        return tuple(ipaddress.ip_network(name, strict=False) for name in names)

    @property
    def address(self) -> str:
        """Host and port by which this machine finds the web: where it is bound to all addresses, that of loopback."""
        return authority({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bind, self.bind), self.port)  # noqa: S104

    @property
    def own_hosts(self) -> tuple[str, ...]:
        """What the web is called by the address that it is bound to, if that is one that somebody can ask for."""
        if is_loopback(self.bind) or self.bind in ("0.0.0.0", "::"):  # noqa: S104  # the reverse
            return ()
        return (f"[{self.bind}]" if ":" in self.bind else self.bind,)

    @property
    def redis_address(self) -> str:
        """Where Redis is: the given URL, else the socket of the server that `faas up` runs on this data folder.

        That is found by the file which the launcher leaves, because a deep data folder makes a path too long for
        a socket, which then lives elsewhere.
        """
        if self.redis_url:
            return self.redis_url
        try:
            return (self.data_dir / "run" / "redis.url").read_text().strip()
        except OSError:
            return socket_url(self.data_dir / "run" / "redis.sock")

    @property
    def keys_folder(self) -> Path:
        return self.keys_dir or self.data_dir / "keys"

    @property
    def dispatcher_is_private(self) -> bool:
        """Whether only this machine reaches the dispatcher: else it speaks to nobody without a key."""
        return self.dispatcher_bind.startswith("ipc://") or is_loopback(self.dispatcher_bind)

    @property
    def url(self) -> str:
        """Where users find the web."""
        if self.tls:
            return f"https://{self.allowed_hosts[0] if self.allowed_hosts else self.bind}"
        return f"http://{self.address}"


def variable(name: str) -> str:
    """The environment variable of the field `name`."""
    return PREFIX + name.upper()


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables that make `Settings.from_env` in another process return `settings`."""
    return {variable(name): _as_text(value) for name, value in vars(settings).items()}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name that is no address counts as the outside, save localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authority(host: str, port: int) -> str:
    """``host:port`` as URLs have it: with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def dispatcher_address(bind: str, port: int) -> str:
    """Where the dispatcher listens, as ZeroMQ has it."""
    return bind if bind.startswith("ipc://") else f"tcp://{authority(bind, port)}"


def socket_url(path: Path) -> str:
    """The URL of a Redis server on a Unix socket. Clients unquote it, so a folder's blank or percent sign is quoted."""
    return f"unix://{urllib.parse.quote(str(path))}"


def settings_table() -> str:
    """The table in ``docs/settings.md``."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(Settings):
        shown = field.metadata.get("shown")
        default = f"`{_as_text(field.default)}`" if shown is None else shown
        mark = " *" if field.metadata.get("private") else ""
        lines.append(f"| `{variable(field.name)}`{mark} | {default} | {field.metadata['help']} |")
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """The whole of ``docs/settings.md``."""
    return _PAGE.format(table=settings_table())


_PAGE = """\
# Settings

Every process reads its settings from environment variables with the prefix `FAAS_`; a variable that is empty counts
as not set. The flags of `faas up` (`faas up --help`) override them. A value that cannot be read stops the process
at its start, with one line that names the variable, the value and what is expected. Those with a star may hold a
password: each may stand in a file instead, named by the same variable with `_FILE` behind it (`FAAS_REDIS_URL_FILE`).

{table}
This page is printed from `everythingfaas/settings.py`: `python -m everythingfaas.settings > docs/settings.md`.
"""


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _read(environ: Mapping[str, str], field: dataclasses.Field[Any]) -> str:
    text = environ.get(variable(field.name), "")
    file = environ.get(variable(field.name) + FILE_SUFFIX, "") if field.metadata.get("private") else ""
    if text or not file:
        return text
    try:
        return Path(file).read_text().strip()
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{variable(field.name)}{FILE_SUFFIX}={file} cannot be read: {exc}") from None


def _parse(field: dataclasses.Field[Any], text: str) -> object:
    try:
        return field.metadata["parse"](text)
    except (ValueError, OSError, RuntimeError):  # the last two: a folder with a loop of links, or of nobody's home
        value = "=(not shown)" if field.metadata.get("private") else f"={text}"
        raise ConfigurationError(f"{variable(field.name)}{value}: expected {field.metadata['expected']}") from None


#: A secret key of fewer characters, or of fewer different ones, was not made at random.
_KEY_CHARS = 32
_KEY_DIFFERENT = 10
#: What examples and templates have in the place of a secret.
_EXAMPLES = ("django-insecure", "changeme", "change-me", "change_me", "example", "secret", "password")


def _check_security(settings: Settings, environ: Mapping[str, str]) -> None:
    """Refuses what would let in everybody."""
    if settings.auth == "open" and not is_loopback(settings.bind):
        raise ConfigurationError(
            f"FAAS_AUTH=open with FAAS_BIND={settings.bind} would run code for whoever reaches that address: expected"
            " FAAS_AUTH=token, or an address of this machine alone, such as 127.0.0.1"
        )
    if settings.auth == "open" and settings.tls:
        raise ConfigurationError(
            "FAAS_AUTH=open with FAAS_TLS=yes would run code for whoever reaches the proxy: expected FAAS_AUTH=token"
        )
    if not settings.tokens:
        return
    if "*" in settings.allowed_hosts:
        raise ConfigurationError("FAAS_ALLOWED_HOSTS=*: expected the names that users reach the web by")
    key = settings.secret_key
    if key and (
        len(key) < _KEY_CHARS or len(set(key)) < _KEY_DIFFERENT or any(word in key.lower() for word in _EXAMPLES)
    ):
        raise ConfigurationError(
            f"FAAS_SECRET_KEY=(not shown): expected {_KEY_CHARS} characters or more, made at random; without one, a"
            " key is made and kept in the data folder"
        )
    for name in ("FAAS_DEBUG", "DJANGO_DEBUG"):
        if environ.get(name, "").lower() not in ("", "0", "no", "false"):
            raise ConfigurationError(
                f"{name}={environ[name]}: pages that show the insides are not for where tokens are on"
            )


if __name__ == "__main__":
    import sys

    sys.stdout.write(settings_page())
