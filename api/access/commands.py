"""`faas token` and `faas quota`: entry points in the group ``everythingfaas.commands``. They speak to the database of
the settings, so they run where the server runs."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Annotated

import typer

_Name = Annotated[str, typer.Argument(help="A name for people: what the token is for.")]
_User = Annotated[str, typer.Argument(help="The user's name.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `faas`."""
    group = typer.Typer(no_args_is_help=True, help="Tokens with which programs are let in.")
    group.command("create")(create)
    group.command("list")(show)
    group.command("revoke")(revoke)
    group.command("first")(first)
    app.add_typer(group, name="token")
    app.command("quota")(quota)


def create(
    name: _Name,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, submit, worker or admin; may be repeated [read, submit].")
    ] = None,
    user: Annotated[str, typer.Option(help="Whose it is; made if there is no such user [the token's name].")] = "",
    expires_days: Annotated[float | None, typer.Option(help="Days until it expires [never].", min=0.0)] = None,
    administrator: Annotated[bool, typer.Option("--administrator", help="Make the user an administrator.")] = False,
) -> None:
    """Make a token, and print it. It is not shown again."""
    _set_up()
    from django.contrib.auth import get_user_model
    from django.db import transaction

    from api.access import tokens
    from api.access.records import record

    with transaction.atomic():  # no user is left over where no token comes of it
        owner, made = get_user_model().objects.get_or_create(username=user or name)
        if made:
            owner.set_unusable_password()
        if administrator:
            owner.is_staff = owner.is_superuser = True
        if made or administrator:
            owner.save()
        token, secret = tokens.create(name, owner, scope or ("read", "submit"), expires_days)
        record(_who(), "console", "", "token-create", f"{token} for {owner}: {token.scopes}")
    typer.echo(secret)


def show() -> None:
    """List the tokens that are let in."""
    _set_up()
    from api.models import Token

    for token in Token.objects.select_related("user").filter(revoked_at=None).order_by("name"):
        until, used = _day(token.expires_at, "never expires"), _day(token.last_used, "never used")
        typer.echo(f"{token.prefix}…  {token.name}  {token.user}  {token.scopes}  {until}  {used}")


def revoke(
    name: _Name,
    user: Annotated[str, typer.Option(help="Whose it is, where several have one of that name.")] = "",
) -> None:
    """Let nobody in with that token any more."""
    _set_up()
    from api.access import tokens
    from api.access.records import record

    record(_who(), "console", "", "token-revoke", str(tokens.revoke(name, user)))


def first() -> None:
    """Make the first administrator, unless there is one, and print what they log in by. It is not shown again."""
    _set_up()
    from django.conf import settings

    from api.access import tokens
    from api.access.records import record

    if not settings.FAAS.tokens:
        return
    made = tokens.first_administrator()
    if made is None:
        return
    record("", "console", "", "first-administrator", made.name)
    # On standard error, as everything that `faas up` says to people.
    typer.echo("faas: this is the first start with tokens on. Write these down, they are not shown again:", err=True)
    typer.echo(f"faas:   in the browser: name {made.name}, password {made.password}", err=True)
    typer.echo(f"faas:   for programs:   token {made.token}", err=True)


def quota(
    user: _User,
    queued_tasks: Annotated[int | None, typer.Option(help="Tasks that wait, at most.", min=0)] = None,
    stored_bytes: Annotated[int | None, typer.Option(help="Bytes that are stored, at most.", min=0)] = None,
    requests_per_s: Annotated[float | None, typer.Option(help="Requests a second, at most.", min=0.0)] = None,
    none: Annotated[bool, typer.Option("--none", help="Without limits.")] = False,
) -> None:
    """Show what a user may use, and change what is given."""
    _set_up()
    from django.contrib.auth import get_user_model

    from api.access.records import record
    from api.access.tokens import NotPossible
    from api.models import Quota

    found = get_user_model().objects.filter(username=user).first()
    if found is None:
        raise NotPossible(f"there is no user {user!r}")
    row = Quota.objects.filter(user=found).first() or Quota(user=found)
    given: dict[str, float | None] = {
        "queued_tasks": queued_tasks,
        "stored_bytes": stored_bytes,
        "requests_per_s": requests_per_s,
    }
    changes: dict[str, float | None] = {name: value for name, value in given.items() if value is not None}
    if none:
        changes = dict.fromkeys(given, None)
    for name, value in changes.items():
        setattr(row, name, value)
    if changes:
        row.save()
        record(_who(), "console", "", "quota", f"{user}: {changes}")
    for name in given:
        value = getattr(row, name)
        typer.echo(f"{name}: {'no limit' if value is None else value}")


def _set_up() -> None:
    """Django, which the command line as a whole does without."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "faas_project.settings")
    import django

    django.setup()


def _who() -> str:
    """Whoever may run this, by the name that this machine has for them."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _day(moment: datetime | None, otherwise: str) -> str:
    return otherwise if moment is None else moment.strftime("%Y-%m-%d %H:%M")
