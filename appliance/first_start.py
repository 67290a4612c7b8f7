"""What the containers need to trust each other, made on their first start: ``python -m appliance.first_start FOLDER``.

    FOLDER/
    ├── db/password            for the database alone
    ├── redis/                 for Redis alone
    │   ├── password
    │   └── users.acl
    └── server/                for web and dispatcher
        ├── secret_key
        ├── database_url
        └── redis_url

Each folder is a volume, of which a container gets those that it needs. What is there stays as it is; what is missing is
made, and fits what is there. So it may run at each start, and mends what was interrupted.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from appliance.console import tell

#: Readable by the one container that mounts the folder, whatever its user is called there.
_FOR_A_SERVER = 0o444
_FOR_US = 0o400


def first_start(folder: Path) -> None:
    """Makes what is missing.

    Raises:
        OSError: the folder cannot be written.
    """
    server = folder / "server"
    of_database = _kept(folder / "db" / "password", secrets.token_hex(24), mode=_FOR_A_SERVER)
    of_redis = _kept(folder / "redis" / "password", secrets.token_hex(24), mode=_FOR_A_SERVER)
    _kept(server / "secret_key", secrets.token_urlsafe(48), mode=_FOR_US)
    _written(folder / "redis" / "users.acl", redis_users(of_redis), mode=_FOR_A_SERVER)
    _written(server / "database_url", f"postgres://faas:{of_database}@db:5432/faas", mode=_FOR_US)
    _written(server / "redis_url", f"redis://:{of_redis}@redis:6379/0", mode=_FOR_US)


def redis_users(password: str) -> str:
    """Who may do what in Redis. The second is for the health check, which knows no password."""
    return f"user default on >{password} ~* &* +@all\nuser health on nopass -@all +ping\n"


def _kept(path: Path, text: str, *, mode: int) -> str:
    """What the file holds; `text` if there is none, which is then made."""
    if not path.exists():
        _written(path, text, mode=mode)
    return path.read_text()


def _written(path: Path, text: str, *, mode: int) -> None:
    if path.exists() and path.read_text() == text:
        return
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def main(arguments: list[str]) -> int:
    (folder,) = arguments
    try:
        first_start(Path(folder))
    except OSError as exc:
        tell(f"faas: the secrets cannot be made: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
