"""Where the service is, and the token that it wants: arguments, else variables, else the file of `faas config`.

Client("http://lab:8000", token="faas_…")      FAAS_URL, FAAS_TOKEN      ~/.config/faas/config.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from everythingfaas.errors import ConfigurationError

DEFAULT_URL = "http://127.0.0.1:8000"
KEYS = ("url", "token")


@dataclass(frozen=True)
class Endpoint:
    """A service."""

    url: str
    token: str | None = field(default=None, repr=False)


def path(environ: Mapping[str, str] = os.environ) -> Path:
    """The file of this user."""
    folder = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(folder) / "faas" / "config.json"


def load(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the file says; nothing, if there is none.

    Raises:
        ConfigurationError: it cannot be read.
    """
    file = path(environ)
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc}; remove it and say `faas config` again") from exc
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file} holds no JSON object; remove it and say `faas config` again")
    return {name: value for name, value in found.items() if name in KEYS and isinstance(value, str)}


def save(values: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> Path:
    """Writes the file, readable by nobody else: it may hold a token."""
    file = path(environ)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump(dict(values), stream, indent=2)
        stream.write("\n")
    new.replace(file)
    return file


def endpoint(url: str | None, token: str | None, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """What holds of all that was said.

    A token in the file is that of the URL in the file, and is sent to no other.

    Raises:
        ConfigurationError: the URL is none, or the file cannot be read.
    """
    saved = {} if url and token else load(environ)
    chosen = url or environ.get("FAAS_URL") or saved.get("url") or DEFAULT_URL
    chosen = chosen.rstrip("/")
    if not chosen.startswith(("http://", "https://")) or len(chosen.partition("://")[2]) == 0:
        raise ConfigurationError(f"{chosen!r} is no address of a service; give one as {DEFAULT_URL} (FAAS_URL)")
    secret = token or environ.get("FAAS_TOKEN")
    if not secret and chosen == saved.get("url", DEFAULT_URL).rstrip("/"):
        secret = saved.get("token")
    return Endpoint(chosen, secret or None)
