"""The command `faas up`: reads its options, then becomes `appliance.front`."""

from __future__ import annotations

import enum
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from everythingfaas.settings import MODES, Settings, as_environment

Mode = enum.StrEnum("Mode", [(mode, mode) for mode in MODES])  # type: ignore[misc]


def register(app: typer.Typer) -> None:
    """Add the command to `faas`: the entry point in the group ``everythingfaas.commands``."""
    app.command("up")(up)


def _option(help_text: str, **more: Any) -> Any:
    return typer.Option(help=help_text, show_default=False, **more)


def up(
    port: Annotated[int | None, _option("Port of the web [FAAS_PORT: 8000].", min=1, max=65535)] = None,
    bind: Annotated[str | None, _option("Address of the web [FAAS_BIND: 127.0.0.1].")] = None,
    data_dir: Annotated[Path | None, _option("Where everything is kept [FAAS_DATA_DIR: .faas].")] = None,
    mode: Annotated[Mode | None, _option("Who runs the functions [FAAS_MODE: local].")] = None,
    workers: Annotated[
        int | None, _option("Functions that run at the same time [FAAS_WORKERS: number of CPUs].", min=1)
    ] = None,
    dispatcher_port: Annotated[
        int | None, _option("Port for workers, in pull and push [FAAS_DISPATCHER_PORT: 5555].", min=1, max=65535)
    ] = None,
    task_deadline: Annotated[
        float | None, _option("Seconds that a task may run [FAAS_TASK_DEADLINE: no limit].")
    ] = None,
    then: Annotated[
        Path | None,
        _option("A Python file to run once when everything serves.", exists=True, dir_okay=False, resolve_path=True),
    ] = None,
) -> None:
    """Run the whole appliance here: Redis, web, dispatcher and workers. Ctrl-C stops it."""
    settings = Settings.from_env(
        os.environ,
        port=port,
        bind=bind,
        data_dir=data_dir,
        mode=mode,
        workers=workers,
        dispatcher_port=dispatcher_port,
        task_deadline=task_deadline,
    )
    command = [sys.executable, "-P", "-m", "appliance.front", *([str(then)] if then else [])]
    os.execve(command[0], command, os.environ | as_environment(settings))  # noqa: S606 -- no shell is the point
