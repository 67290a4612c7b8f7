"""`faas config` and `faas doctor`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from everythingfaas import __version__
from everythingfaas.commands import common
from everythingfaas.commands.common import JsonOption, Status, message_of, print_json, status_of, wrong
from everythingfaas.errors import FaasError, Refused

if TYPE_CHECKING:
    from everythingfaas.client import Client


def register(app: typer.Typer) -> None:
    app.command("config")(config)
    app.command("doctor")(doctor)


def config(
    key: Annotated[str | None, typer.Argument(metavar="[url|token]", help="What to set.")] = None,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="`-` reads it from standard input, as a token should be.")
    ] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Forget what is set.")] = False,
    json: JsonOption = False,
) -> None:
    """Show or set where the service is, and the token for it. Kept in a file that nobody else can read."""
    from everythingfaas.client import config as file

    saved = file.load()
    if key is not None and key not in file.KEYS:
        raise wrong(f"there is no {key!r}; there are {' and '.join(file.KEYS)}")
    if key is not None and (value is not None or unset):
        saved.pop(key, None)
        if not unset:
            saved[key] = (sys.stdin.readline().strip() if value == "-" else value) or ""
            file.endpoint(saved.get("url"), None)  # or it is none
        file.save(saved)
        return
    here = file.endpoint(common.url, None)
    hidden = None if here.token is None else f"{here.token[:9]}…"
    if json:
        print_json({"file": str(file.path()), "url": here.url, "token": hidden})
        return
    typer.echo(f"url    {here.url}\ntoken  {hidden or 'none'}\nfile   {file.path()}")


class Finding(NamedTuple):
    """What the doctor has looked at."""

    part: str
    ok: bool
    says: str
    advice: str = ""


def doctor(json: JsonOption = False) -> None:
    """Look at everything that has to work, and say what to do about what does not."""
    try:
        with common.client() as service:
            findings = list(_look(service))
    except FaasError as exc:
        findings = [Finding("service", False, message_of(exc), "Start one with `faas up`, or set FAAS_URL.")]
        if isinstance(exc, Refused):
            findings = [Finding("token", False, message_of(exc))]
        status: int = status_of(exc)
    else:
        status = 0 if all(finding.ok for finding in findings) else Status.FAILED
    if json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{'ok ' if finding.ok else 'BAD'}  {finding.part:11} {finding.says}")
            if finding.advice and not finding.ok:
                typer.echo(f"     {'':11} {finding.advice}")
    raise typer.Exit(status)


_ADVICE = {
    "database": "Is it running, and FAAS_DATABASE_URL right? `python manage.py migrate` brings it up to date.",
    "dispatcher": "Start one: `faas up`, or `python manage.py task_dispatcher -m push -p 5555`.",
    "redis": "Everything works without it, a second slower. Start it, or look at FAAS_REDIS_URL.",
    "disk": "Make room, or move FAAS_DATA_DIR to another disk: a full one refuses every task.",
}


def _look(service: Client) -> list[Finding]:
    found = [Finding("service", True, service.url)]
    for part, says in service.readiness().checks.items():
        found.append(Finding(part, says.startswith("ok"), says, _ADVICE.get(part, "")))
    found.append(_version(service))
    workers = [one for one in service.workers().workers if one.holds_lease]
    slots = sum(one.slots for one in workers if not one.draining)
    pythons = sorted({".".join(one.python.split(".")[:2]) for one in workers})
    found.append(
        Finding(
            "workers",
            slots > 0,
            f"{len(workers)} with {slots} slots",
            "Start one: `faas worker push 4 tcp://DISPATCHER:5555`. Until then tasks wait.",
        )
    )
    ours = "{}.{}".format(*sys.version_info[:2])
    found.append(
        Finding(
            "python",
            not pythons or ours in pythons,
            f"here {ours}; workers have {', '.join(pythons) or 'none'}",
            f"Functions that are sent from here need a worker of Python {ours}: start one, or use one of theirs here.",
        )
    )
    return found


def _version(service: Client) -> Finding:
    theirs = str(service.json("GET", "/").get("version", "unknown"))
    same = theirs.split(".")[:2] == __version__.split(".")[:2]
    return Finding(
        "version",
        same,
        f"here {__version__}, there {theirs}",
        f"pip install 'everythingfaas=={theirs}', or upgrade the service.",
    )
