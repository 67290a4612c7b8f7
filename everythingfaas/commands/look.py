"""`faas ps`, `show`, `functions`, `workers`: what there is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everythingfaas.commands.common import (
    JsonOption,
    ago,
    client,
    console,
    identifier,
    print_json,
    seconds,
    table,
    wrong,
)
from everythingfaas.status import State

if TYPE_CHECKING:
    from everythingfaas.client.answers import Attempt, TaskInfo

EVERY_S = 1.0

_Limit = Annotated[int, typer.Option("--limit", "-n", help="So many at the most.", min=1, max=10_000)]


def register(app: typer.Typer) -> None:
    app.command("ps")(ps)
    app.command("show")(show)
    app.command("functions")(functions)
    app.command("workers")(workers)


def _states(texts: list[str] | None) -> tuple[str, ...]:
    names = tuple(name.upper() for text in texts or () for name in text.split(","))
    for name in names:
        if name not in State.__members__:
            raise wrong(f"there is no state {name}; the states are {', '.join(State.__members__)}")
    return names


def ps(
    state: Annotated[list[str] | None, typer.Option("--state", "-s", help="As running,queued.")] = None,
    function: Annotated[str | None, typer.Option(help="Id of a function.")] = None,
    limit: _Limit = 20,
    once: Annotated[bool, typer.Option("--once", help="Print the table once; so it is in a pipe anyway.")] = False,
    json: JsonOption = False,
) -> None:
    """Show tasks, the newest first; in a terminal the table goes on until Ctrl-C."""
    states = _states(state)
    wanted = None if function is None else str(identifier(function, "function"))
    with client() as service:
        if json:
            print_json(service.tasks(*states, function=wanted, limit=limit))
        elif once or not sys.stdout.isatty():
            console().print(_tasks(service.tasks(*states, function=wanted, limit=limit)))
        else:
            from rich.live import Live

            with Live(_tasks(service.tasks(*states, function=wanted, limit=limit)), auto_refresh=False) as live:
                while True:
                    time.sleep(EVERY_S)
                    live.update(_tasks(service.tasks(*states, function=wanted, limit=limit)), refresh=True)


def _tasks(tasks: list[TaskInfo]) -> Any:
    rows = [
        (task.id, task.state, task.function.name, ago(task.created), seconds(task.run_s), task.worker, task.error)
        for task in tasks
    ]
    return table(("id", "state", "function", "age", "ran", "worker", "error"), rows)


def show(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Its id.")],
    json: JsonOption = False,
) -> None:
    """Show all that is known of a task: every attempt, what it printed, and why it failed."""
    with client() as service:
        found = service.task(identifier(task))
    if json:
        print_json(found)
        return
    lines = [
        ("id", found.id),
        ("state", found.state),
        ("function", f"{found.function.name} ({found.function.id})"),
        ("owner", found.owner),
        ("created", f"{found.created:%Y-%m-%d %H:%M:%S} UTC"),
        ("waited", seconds(found.wait_s)),
        ("ran", seconds(found.run_s)),
        ("worker", found.worker),
        ("batch", found.batch),
        ("error", found.error),
    ]
    for name, value in lines:
        if value not in (None, ""):
            typer.echo(f"{name:9} {value}")
    for attempt in found.attempts:
        _show_attempt(attempt)


def _show_attempt(attempt: Attempt) -> None:
    ended = [attempt.outcome.lower().replace("_", " ")]
    if attempt.exit_code is not None:
        ended.append(f"exit code {attempt.exit_code}")
    if attempt.exit_signal_name:
        ended.append(attempt.exit_signal_name)
    typer.echo(
        f"\nattempt {attempt.number}: {', '.join(ended)}; {seconds(attempt.run_s)} on {attempt.worker or 'nobody'}"
    )
    if attempt.traceback:
        typer.echo(attempt.traceback.rstrip())
    elif attempt.error_type:
        typer.echo(f"{attempt.error_type}: {attempt.message}")
    for part in (attempt.output_head, attempt.output_tail):
        if part:
            typer.echo(part.rstrip("\n"))
        if part is attempt.output_head and attempt.output_dropped:
            typer.echo(f"[{attempt.output_dropped} bytes are left out]")


def functions(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only those of this name.")] = None,
    limit: _Limit = 50,
    json: JsonOption = False,
) -> None:
    """Show registered functions, the newest first."""
    with client() as service:
        found = service.functions(name, limit)
    if json:
        print_json(found)
        return
    rows = [(one.id, one.name, one.owner, one.pythons or "any", one.size, ago(one.created)) for one in found]
    console().print(table(("id", "name", "owner", "python", "bytes", "age"), rows))


def workers(json: JsonOption = False) -> None:
    """Show the workers that are connected, and their dispatchers."""
    with client() as service:
        found = service.workers()
    if json:
        print_json(found)
        return
    rows = [
        (
            worker.name,
            worker.host,
            worker.python,
            f"{len(worker.running)}/{worker.slots}",
            worker.held,
            "gone?" if not worker.holds_lease else "draining" if worker.draining else "ready",
        )
        for worker in found.workers
    ]
    console().print(table(("name", "host", "python", "busy", "held", "state"), rows))
    if not found.workers:
        typer.echo("no worker is connected; `faas worker` starts one", err=True)
