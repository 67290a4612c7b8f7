"""`faas run` and `faas map`: work to be done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everythingfaas.commands import targets
from everythingfaas.commands.common import JsonOption, Status, Waiting, as_json, client, complain, print_json, shown

if TYPE_CHECKING:
    from everythingfaas.client import RemoteFuture

_Target = Annotated[
    str, typer.Argument(metavar="FILE:FUNCTION", help="As jobs.py:simulate; or the name or id of a registered one.")
]
_Policy = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="KEY=VALUE", help="As deadline_s=60; may be repeated."),
]
#: So many lines of a map are on their way at a time.
WINDOW = 10_000


def register(app: typer.Typer) -> None:
    app.command("run", context_settings={"ignore_unknown_options": True})(run)
    app.command("map")(map_lines)


def run(
    target: _Target,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS...", help="JSON, else text; NAME=VALUE for one by name.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result, and print it.")] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait at the most; then the status is 124.", min=0)
    ] = None,
    policy: _Policy = None,
    json: JsonOption = False,
) -> None:
    """Call a function on the service. Prints the id of the task; with --wait what it returns."""
    function = targets.function_of(target)
    args, kwargs = targets.arguments_of(arguments or ())
    said = targets.policy_of(policy or ())
    with client() as service:
        if said and callable(function):
            function = service.register(function, **said)
        elif said:
            raise typer.BadParameter("--policy goes with a function in a file; a registered one has its own")
        task = service.submit(function, *args, **kwargs)
        if not wait and timeout is None:
            print_json({"task_id": task}) if json else typer.echo(task)
            return
        failure, value = _outcome(service, task, timeout)
        if json:
            state = "FAILED" if failure is not None else "COMPLETED"
            print_json({"task_id": task, "state": state, **_said(failure, value)})
    if failure is not None:
        if not json:
            _tell(failure)
        raise typer.Exit(Status.FAILED)
    if not json and value is not None:
        typer.echo(shown(value))


def _outcome(service: Any, task: str, timeout: float | None) -> tuple[BaseException | None, Any]:
    """What it raised, or what it returned. Raises TimeoutError."""
    end = None if timeout is None else time.monotonic() + timeout
    with Waiting(f"task {task} is not done yet") as waiting:
        while True:
            step = 2.0 if end is None else max(0.0, min(2.0, end - time.monotonic()))
            try:
                return None, service.result(task, timeout=step)
            except TimeoutError as exc:
                # One that the function has raised is no answer of ours.
                if getattr(exc, "__cause__", None) is not None:
                    return exc, None
                if end is not None and time.monotonic() >= end:
                    raise
            except _errors_of_ours():
                raise
            except BaseException as exc:  # whatever the function has raised
                if isinstance(exc, KeyboardInterrupt) and exc.__cause__ is None:
                    raise
                return exc, None
            waiting.look()


def _errors_of_ours() -> tuple[type[Exception], ...]:
    from everythingfaas.errors import Refused, Unreachable

    return Refused, Unreachable


def _said(failure: BaseException | None, value: Any) -> dict[str, Any]:
    if failure is None:
        import msgspec

        return {"result": msgspec.Raw(as_json(value).encode())}
    cause = getattr(failure.__cause__, "text", "")
    return {"error": {"type": type(failure).__name__, "message": str(failure), "traceback": cause}}


def _tell(failure: BaseException) -> None:
    """What a function has raised: its traceback, where there is one, as it was there."""
    text = getattr(failure.__cause__, "text", "")
    sys.stderr.write(text if text.endswith("\n") or not text else text + "\n")
    if not text:
        complain(f"{type(failure).__name__}: {failure}")


def map_lines(
    target: _Target,
    name: Annotated[str, typer.Option(help="A name to find the batch by afterwards.")] = "",
    policy: _Policy = None,
    json: JsonOption = False,
) -> None:
    """Call a function with each line of standard input, and print what it returns, in their order.

    A line is JSON, else text. A line that fails is told on standard error, and the status is 1 at the end.
    """
    function = targets.function_of(target)
    said = targets.policy_of(policy or ())
    failed = 0
    with client() as service:
        if isinstance(function, str):
            raise typer.BadParameter("map takes a function in a file, as jobs.py:simulate")
        executor = service.executor(name=name, **said)
        try:
            for number, future in enumerate(_in_order(executor, function, _lines()), 1):
                failure = future.exception()
                value = None if failure is not None else future.result()
                failed += failure is not None
                if json:
                    state = "COMPLETED" if failure is None else "FAILED"
                    print_json({"line": number, "task_id": future.task_id, "state": state, **_said(failure, value)})
                elif failure is None:
                    typer.echo(shown(value))
                else:
                    complain(f"line {number}: {type(failure).__name__}: {failure}")
        except KeyboardInterrupt:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        executor.shutdown()
    if failed:
        complain(f"{failed} failed")
        raise typer.Exit(Status.FAILED)


def _lines() -> Iterator[Any]:
    for line in sys.stdin:
        if text := line.rstrip("\r\n"):
            yield targets.value_of(text)


def _in_order(executor: Any, function: Any, values: Iterator[Any]) -> Iterator[RemoteFuture]:
    """The futures, as they are done; with a bar from two seconds on, if somebody sees it."""
    from collections import deque
    from itertools import islice

    futures: deque[RemoteFuture] = deque(executor.submit(function, value) for value in islice(values, WINDOW))
    with _Bar() as bar:
        done = 0
        while futures:
            future = futures.popleft()
            while not _is_done(future):
                bar.show(done, done + len(futures) + 1)
            done += 1
            bar.show(done, done + len(futures))
            yield future
            futures.extend(executor.submit(function, value) for value in islice(values, 1))


def _is_done(future: RemoteFuture) -> bool:
    from concurrent.futures import wait

    return bool(wait([future], timeout=0.2).done)


class _Bar:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._progress: Any = None
        self._task: Any = None

    def __enter__(self) -> _Bar:
        return self

    def show(self, done: int, known: int) -> None:
        if self._progress is None:
            if time.monotonic() - self._began < 2 or not sys.stderr.isatty():
                return
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
            self._task = self._progress.add_task("lines")
        self._progress.update(self._task, completed=done, total=known)

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()
