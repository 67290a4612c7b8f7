"""`faas worker pull|push N URL…`: the entry point in the group ``everythingfaas.commands``."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Annotated

import typer

from everythingfaas.errors import ConfigurationError
from worker.arguments import SLOTS_HELP, URLS_HELP, dispatcher_url


def register(app: typer.Typer) -> None:
    """Adds the commands to `faas`."""
    group = typer.Typer(no_args_is_help=True, help="Run functions on this machine, for a dispatcher elsewhere.")
    group.command("pull")(pull)
    group.command("push")(push)
    app.add_typer(group, name="worker")


def _url(text: str) -> str:
    try:
        return dispatcher_url(text)
    except ArgumentTypeError as error:
        raise typer.BadParameter(str(error)) from None


_Slots = Annotated[int, typer.Argument(metavar="N", min=1, help=SLOTS_HELP)]
_Urls = Annotated[list[str], typer.Argument(metavar="URL...", help=URLS_HELP, parser=_url)]


def pull(slots: _Slots, urls: _Urls) -> None:
    """Ask a dispatcher in pull mode for tasks, and run them in the current folder. Ctrl-C finishes what runs."""
    _run("pull", slots, urls)


def push(slots: _Slots, urls: _Urls) -> None:
    """Run what a dispatcher in push mode sends, in the current folder. Ctrl-C finishes what runs."""
    _run("push", slots, urls)


def _run(mode: str, slots: int, urls: list[str]) -> None:
    try:
        from worker.command import configure_logging, run  # here, because clients have no pyzmq
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"a worker needs {error.name}, which is not installed: pip install 'everythingfaas[worker]'"
        ) from None
    configure_logging()
    raise typer.Exit(run(mode, slots, urls))
