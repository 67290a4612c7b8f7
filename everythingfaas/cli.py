"""The command `faas`.

The verbs of clients are in `everythingfaas.commands`. What is installed beside the library brings in its own by the
entry-point group ``everythingfaas.commands``: functions that take the application and add a command. So the same `faas`
starts a server where the server is installed, and stays small where only the library is.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from everythingfaas import __version__
from everythingfaas.errors import FaasError

try:
    import typer
except ModuleNotFoundError:
    sys.exit("faas: the command line needs one more package: pip install typer")

from everythingfaas import commands
from everythingfaas.commands import common

HELP = "EverythingFaaS: send a Python function to a machine of yours, run it there, fetch its result."
COMMANDS_GROUP = "everythingfaas.commands"


def build_app() -> typer.Typer:
    """The application with every command that is installed."""
    app = typer.Typer(
        name="faas",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback(help=HELP)(_options)
    commands.register(app)
    for entry_point in entry_points(group=COMMANDS_GROUP):
        entry_point.load()(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"faas {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
    url: str | None = typer.Option(None, "--url", help="The service [FAAS_URL, or what `faas config` has set]."),
) -> None:
    """What stands before the command; its text for the user is the application's."""
    common.url = url


def main() -> None:
    """Run the command line; what we raise on purpose is one line on standard error, and a status of `common.Status`."""
    try:
        build_app()(prog_name="faas")
    except FaasError as error:
        common.complain(common.message_of(error))
        sys.exit(common.status_of(error))
    except TimeoutError as error:
        common.complain(str(error))
        sys.exit(common.Status.NOT_IN_TIME)
