"""What every connection to Redis needs: where to, how to begin, how commands become bytes, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from everythingfaas.errors import ConfigurationError

Command: TypeAlias = tuple[str | int | float | bytes, ...]

EXPECTED = "expected unix:///path, redis://host:port/db or rediss://host:port/db"

#: A reply that takes longer than this many seconds counts as none.
TIMEOUT_S = 0.5

#: What a reader returns while a reply is not complete.
NOTHING = object()


class RedisUnavailable(Exception):
    """There is no connection, or it was lost, or the answer did not come in time."""


@dataclass(frozen=True)
class Address:
    """Where a server is, and how to introduce oneself: what is in a URL."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str = ""  #: of a Unix socket, which then comes before host and port
    tls: bool = False
    user: str = ""
    password: str = ""
    db: int = 0

    @classmethod
    def parse(cls, url: str) -> Address:
        """Of ``unix:///path?db=1``, ``redis://user:password@host:port/1`` or ``rediss://…``.

        Raises:
            ConfigurationError: it is none of these. The message does not hold the URL, which may hold a password.
        """
        parts = urlsplit(url)
        is_unix = parts.scheme == "unix"
        if not is_unix and parts.scheme not in ("redis", "rediss"):
            raise ConfigurationError(f"FAAS_REDIS_URL: {EXPECTED}")
        try:
            db = int(parse_qs(parts.query).get("db", ["0"])[0] if is_unix else parts.path.strip("/") or 0)
            port = parts.port or 6379
        except ValueError:
            raise ConfigurationError(f"FAAS_REDIS_URL: {EXPECTED}") from None
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port,
            path=unquote(parts.path) if is_unix else "",
            tls=parts.scheme == "rediss",
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            db=db,
        )

    def greeting(self) -> list[Command]:
        """The commands that begin a connection. The last one asks whether anybody is there."""
        commands: list[Command] = []
        if self.password:
            commands.append(("AUTH", self.user, self.password) if self.user else ("AUTH", self.password))
        if self.db:
            commands.append(("SELECT", self.db))
        commands.append(("PING",))
        return commands


def pack(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # annotated for one item
    return packed
