"""Calling functions with plain JSON: for whoever has no Python."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from django.db.backends.utils import CursorWrapper
from django.http import HttpResponse
from msgspec import UNSET, Struct, UnsetType

from api.access.caller import Caller, Sees
from api.codec import decode
from api.dialect import dialect_of
from api.lean import LeanRequest, LeanView
from api.moves import FunctionView
from api.requests import idempotency_key, wait_s
from api.services import no_such, services
from api.v1.results import value_of
from everythingfaas.plain import dump_call


class _Call(Struct):
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    policy: msgspec.Raw | UnsetType = UNSET


_CALL = msgspec.json.Decoder(_Call)


class Invoke(LeanView):
    """`POST /api/v1/functions/{id or name}/invoke`: calls a function, with `?wait=` until it has returned."""

    http_method_names = ["post"]  # noqa: RUF012  # as the base class has it

    async def post(self, request: LeanRequest, function_id: str) -> HttpResponse:
        call = decode(_CALL, request.body) if request.body else _Call()
        patience, key = wait_s(request), idempotency_key(request)
        caller = await services().caller(request.scope)
        function = await _function(caller, function_id)
        of_task = None if isinstance(call.policy, UnsetType) else bytes(call.policy)
        task = await services().call(caller, function, dump_call(call.args, call.kwargs), key, of_task)
        services().count(caller, request.scope, "submit")
        if patience:
            await services().outcome_within(caller, task, patience, request.gone)
        return await value_of(caller, task)


async def _function(caller: Caller, name_or_id: str) -> FunctionView:
    """By its id; or the newest of that name, of the caller's own if there is one."""
    try:
        identifier: UUID | None = UUID(name_or_id)
    except ValueError:
        ask = partial(_newest, name=name_or_id, sees=caller.sees, user=caller.user)
        identifier = await services().reader.call(ask)
    if identifier is None:
        raise no_such("function", name_or_id)
    return await services().function(caller, str(identifier))


def _newest(cursor: CursorWrapper, name: str, sees: Sees, user: int) -> UUID | None:
    for owners in ({user}, sees):
        owned = "true" if owners is None else f"owner_id IN ({', '.join(f'{owner:d}' for owner in sorted(owners))})"
        cursor.execute(
            f"SELECT id FROM api_function WHERE name = %s AND {owned} ORDER BY id DESC LIMIT 1",  # noqa: S608
            [name],
        )
        row = cursor.fetchone()
        if row is not None:
            return dialect_of(cursor).uuid(row[0])
    return None
