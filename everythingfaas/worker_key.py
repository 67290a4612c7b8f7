"""The one line that lets a worker in: its name, the dispatcher's public key, and its own key pair."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from everythingfaas.errors import ConfigurationError

_PREFIX = "faas-worker"
_FORM = re.compile(rf"{_PREFIX}:(?P<name>[\w.-]+):(?P<keys>[0-9a-f]{{192}})", re.ASCII)


class WorkerKey(NamedTuple):
    """A worker key. The keys are Z85 text, 40 characters each."""

    name: str
    dispatcher: str  #: the dispatcher's public key: so a worker speaks to nobody else
    public: str
    secret: str

    def line(self) -> str:
        """All of it, in letters that no shell and no file cares about."""
        keys = "".join(_to_hex(key) for key in (self.dispatcher, self.public, self.secret))
        return f"{_PREFIX}:{self.name}:{keys}"


def parse_worker_key(text: str) -> WorkerKey:
    """The key in `text`: the line itself, or the path of a file that holds it.

    Raises:
        ConfigurationError: it is neither.
    """
    line = text.strip()
    if not line.startswith(f"{_PREFIX}:"):
        try:
            line = Path(text).read_text("ascii").strip()
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"the worker key cannot be read: {exc}; see `faas worker-key create`") from None
    match = _FORM.fullmatch(line)
    if match is None:
        raise ConfigurationError("that is no worker key; `faas worker-key create NAME` prints one")
    keys = match["keys"]
    return WorkerKey(match["name"], *(_from_hex(keys[at : at + 64]) for at in (0, 64, 128)))


# Z85 as in https://rfc.zeromq.org/spec/32/: 4 bytes are 5 digits to the base of 85.
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def _to_hex(z85: str) -> str:
    parts = []
    for at in range(0, len(z85), 5):
        number = 0
        for char in z85[at : at + 5]:
            number = number * 85 + _DIGITS.index(char)
        parts.append(f"{number:08x}")
    return "".join(parts)


def _from_hex(text: str) -> str:
    chars = []
    for at in range(0, len(text), 8):
        number = int(text[at : at + 8], 16)
        chars += [_DIGITS[number // 85**power % 85] for power in (4, 3, 2, 1, 0)]
    return "".join(chars)
