"""`faas cancel` and `faas retry`."""

from __future__ import annotations

from typing import Annotated

import typer

from everythingfaas.commands.common import JsonOption, Status, client, complain, identifier, print_json

_Tasks = Annotated[list[str], typer.Argument(metavar="TASK...", help="Their ids.")]


def register(app: typer.Typer) -> None:
    app.command("cancel")(cancel)
    app.command("retry")(retry)


def cancel(
    tasks: Annotated[list[str] | None, typer.Argument(metavar="[TASK...]", help="Their ids.")] = None,
    batch: Annotated[str | None, typer.Option(help="All tasks of a batch: its name or id.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the end of what has to be killed.", min=0)] = 10,
    json: JsonOption = False,
) -> None:
    """End tasks: what waits at once, what runs by killing it. What has ended before stays as it is."""
    if not tasks and batch is None:
        raise typer.BadParameter("say which: faas cancel TASK..., or faas cancel --batch NAME")
    ids = [identifier(task) for task in tasks or ()]
    survived = 0
    with client() as service:
        if batch is not None:
            off = service.batch(batch).cancel(force=True)
            if json:
                print_json(off)
            else:
                typer.echo(f"{len(off.cancelled)} cancelled, {len(off.being_cancelled)} being killed")
        for task in ids:
            ended = service.cancel(task, wait)
            survived += not ended.has_ended
            if json:
                print_json(ended)
            else:
                typer.echo(f"{ended.id} {ended.state}")
    if survived:
        complain(f"{survived} have not ended within {wait:g} s; they will be killed all the same")
        raise typer.Exit(Status.NOT_IN_TIME)


def retry(tasks: _Tasks, json: JsonOption = False) -> None:
    """Do tasks once more that have ended. Prints the ids of the new ones."""
    ids = [identifier(task) for task in tasks]
    with client() as service:
        for task in ids:
            again = service.retry(task)
            if json:
                print_json({"task_id": again, "retry_of": task})
            else:
                typer.echo(again)
