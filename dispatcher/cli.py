"""`faas worker-key create|list|revoke`: the entry point in the group ``everythingfaas.commands``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dispatcher.keyring import Keyring
from everythingfaas.settings import Settings, authority

_Name = Annotated[str, typer.Argument(help="A name for people; one key may serve many workers at the same time.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `faas`."""
    group = typer.Typer(no_args_is_help=True, help="Keys with which workers on other machines are let in.")
    group.command("create")(create)
    group.command("list")(show)
    group.command("revoke")(revoke)
    app.add_typer(group, name="worker-key")


def create(
    name: _Name,
    file: Annotated[
        Path | None, typer.Option(help="Write the key there, for its owner to read, instead of printing a command.")
    ] = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Do nothing if the file is there.")] = False,
) -> None:
    """Make a key, and print the one line that joins another machine. It is not shown again."""
    settings = Settings.from_env(os.environ)
    if file is not None and if_missing and file.exists():
        return
    keyring = Keyring(settings.keys_folder)
    if if_missing and name in keyring.names():
        keyring.revoke(name)  # its file is lost, and so of no use to anybody
    line = keyring.create(name).line()
    if file is not None:
        _write(file, line)
        return
    where = "HOST" if settings.dispatcher_bind in ("0.0.0.0", "::") else settings.dispatcher_bind  # noqa: S104
    url = f"tcp://{authority(where, settings.dispatcher_port)}"
    mode = settings.mode if settings.mode != "local" else "push"
    typer.echo(f"FAAS_WORKER_KEY={line} faas worker {mode} 4 {url}")


def show() -> None:
    """List the keys that are let in."""
    for name in Keyring(Settings.from_env(os.environ).keys_folder).names():
        typer.echo(name)


def revoke(name: _Name) -> None:
    """Let nobody in with that key any more, and put out who is in."""
    Keyring(Settings.from_env(os.environ).keys_folder).revoke(name)


def _write(path: Path, line: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(line + "\n")
    os.replace(fresh, path)
