"""The verbs of `faas` for whoever uses a service.

work       run, map
look       ps, show, functions, workers
change     cancel, retry
setup      config, doctor
common     what they share: the client, output, exit statuses
"""

from __future__ import annotations

import typer

from everythingfaas.commands import change, look, setup, work


def register(app: typer.Typer) -> None:
    """Adds the commands to `faas`."""
    for part in (work, look, change, setup):
        part.register(app)
