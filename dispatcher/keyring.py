"""Who may connect as a worker: CURVE keys in files.

    DATA_DIR/keys/
    ├── dispatcher.key        our own key pair; readable by us alone, and never leaves
    └── workers/NAME.pub      one line for each worker key that is let in

A worker key is one line of text that holds all that a worker needs: its name, the dispatcher's public key, and a key
pair of its own. It is made by `create`, and kept nowhere here: only its public half is. One key may serve many workers
at the same time. What is removed from the folder is not let in again, and who is in is put out: see
`dispatcher.router`.

Keys are Z85 text, as ZeroMQ has them: 40 characters for 32 bytes (https://rfc.zeromq.org/spec/32/).
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

import zmq
from msgspec import Struct
from zmq.utils import z85

from everythingfaas.errors import ConfigurationError
from everythingfaas.worker_key import WorkerKey

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_KEY_CHARS = 40
#: The clocks of Linux' file systems tick a few milliseconds apart.
_TICK_NS = 100_000_000


class KeyPair(Struct, frozen=True):
    """Z85 text, both."""

    public: str
    secret: str


class Keyring:
    """The keys in one folder.

    Args:
        folder: made when the first key is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers = folder / "workers"
        self._seen: tuple[int, int] | None = None
        self._names: dict[bytes, str] = {}
        self._by_text: dict[str, str] = {}

    def own(self) -> KeyPair:
        """The dispatcher's key pair, made the first time.

        Raises:
            ConfigurationError: the file is there and cannot be read.
        """
        path = self._folder / "dispatcher.key"
        if not path.exists():
            self._make_folders()
            public, secret = zmq.curve_keypair()
            _write_once(path, f"{public.decode()}\n{secret.decode()}\n", mode=0o600)
        try:
            public_text, secret_text = path.read_text("ascii").split()
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"the dispatcher's key {path} cannot be read: {exc}") from None
        return KeyPair(public_text, secret_text)

    def create(self, name: str) -> WorkerKey:
        """A new worker key. What it returns is not kept.

        Raises:
            ConfigurationError: there is one of that name, or it is no name.
        """
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} is no name for a key: use letters, digits, and - _ . between them")
        own = self.own()
        public, secret = zmq.curve_keypair()
        if not _write_once(self._workers / f"{name}.pub", f"{public.decode()}\n", mode=0o644):
            raise ConfigurationError(f"there is a worker key named {name} already; revoke it, or take another name")
        return WorkerKey(name, own.public, public.decode(), secret.decode())

    def revoke(self, name: str) -> None:
        """Lets nobody in with that key any more.

        Raises:
            ConfigurationError: there is none of that name.
        """
        if not _NAME.fullmatch(name) or name not in self.names():
            raise ConfigurationError(f"there is no worker key named {name!r}")
        (self._workers / f"{name}.pub").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """The names of the worker keys that are let in."""
        return sorted(self.workers().values())

    def workers(self) -> dict[bytes, str]:
        """The name of each worker key, by its public half in 32 bytes. Read again when the folder has changed."""
        self._look()
        return self._names

    def name_of(self, public: str) -> str | None:
        """The name of the worker key with this public half, in Z85; None: it is not let in, or not any more."""
        self._look()
        return self._by_text.get(public)

    def _look(self) -> None:
        try:
            found = self._workers.stat()
        except FileNotFoundError:
            self._names, self._by_text, self._seen = {}, {}, None
            return
        seen = (found.st_mtime_ns, found.st_ino)
        if seen == self._seen:
            return
        self._names = {key: path.stem for path in self._workers.glob("*.pub") if (key := _read_public(path))}
        self._by_text = {z85.encode(key).decode(): name for key, name in self._names.items()}
        # What changes in the same tick of the file system's clock would go unseen.
        self._seen = seen if time.time_ns() - found.st_mtime_ns > _TICK_NS else None

    def _make_folders(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._workers.mkdir(mode=0o755, exist_ok=True)


def _read_public(path: Path) -> bytes | None:
    try:
        text = path.read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return z85.decode(text) if len(text) == _KEY_CHARS else None


def _write_once(path: Path, text: str, *, mode: int) -> bool:
    """Writes a file whole, unless it is there. Of several who write it at the same time one wins."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), mode)
        try:
            os.link(file.name, path)
        except FileExistsError:
            return False
    return True
