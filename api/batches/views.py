"""The calls below `/api/v1/batches`. All are lean: what they need of the database, threads do for all of them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from django.http import HttpResponse

from api.access.caller import SUBMIT
from api.batches import intake, statements
from api.batches.messages import answer, is_packed
from api.batches.service import PAGE_RESULTS, no_such
from api.batches.statements import Added, BatchView
from api.codec import decode
from api.errors import InvalidRequest
from api.lean import LeanRequest, LeanView
from api.requests import idempotency_key, wait_s
from api.services import MAX_WAIT_S, services
from everythingfaas.status import State


class BatchList(LeanView):
    """`POST /api/v1/batches`: accepts many tasks, all or none. `GET`: batches, the newest first."""

    async def get(self, request: LeanRequest) -> HttpResponse:
        caller = await services().caller(request.scope)
        limit = _number(request, "limit", 50, low=1, high=200)
        before = _id(request, "before")
        name = request.GET.get("name")
        ask = partial(statements.newest, sees=caller.sees, name=name, before=before, limit=limit + 1)
        found = await services().reader.call(ask)
        following = found[limit - 1].id if len(found) > limit else None
        return answer(request, 200, {"batches": [_shown(batch) for batch in found[:limit]], "next": following})

    async def post(self, request: LeanRequest) -> HttpResponse:
        added = await _submit(request, None)
        location = {"Location": f"/api/v1/batches/{added.batch}"}
        return answer(request, 201, _added(added), location)


class BatchDetail(LeanView):
    """`GET /api/v1/batches/{id or name}`: a batch, and how far its tasks have come."""

    async def get(self, request: LeanRequest, batch: str) -> HttpResponse:
        found = await _find(request, batch)
        states = await services().batches.states(found)
        pending = sum(number for state, number in states.items() if not state.is_terminal)
        named = {state.name: states[state] for state in State}
        return answer(request, 200, {**_shown(found), "states": named, "pending": pending})


class BatchTasks(LeanView):
    """`POST /api/v1/batches/{id}/tasks`: more tasks for it. `GET`: the ids of its tasks, in their order."""

    async def get(self, request: LeanRequest, batch: str) -> HttpResponse:
        found = await _find(request, batch)
        first = _number(request, "first", 0)
        limit = _number(request, "limit", intake.MAX_TASKS, low=1, high=intake.MAX_TASKS)
        tasks = await services().batches.members(found, first, limit)
        return answer(request, 200, {"first": first, "task_ids": tasks, "size": found.size})

    async def post(self, request: LeanRequest, batch: str) -> HttpResponse:
        try:
            identifier = UUID(batch)
        except ValueError:
            raise no_such(batch) from None
        return answer(request, 201, _added(await _submit(request, identifier)))


class BatchResults(LeanView):
    """`GET /api/v1/batches/{id or name}/results`: what has ended behind a cursor; with `?wait=`, when something has."""

    http_method_names = ["get", "head"]  # noqa: RUF012  # as the base class has it

    async def get(self, request: LeanRequest, batch: str) -> HttpResponse:
        patience = min(wait_s(request), MAX_WAIT_S)
        most = _number(request, "limit", PAGE_RESULTS, low=1, high=PAGE_RESULTS)
        found = await _find(request, batch)
        cursor = request.GET.get("after", "")
        page = await services().batches.page_within(found, cursor, patience, most, request.gone)
        return answer(request, 200, page)


class _Off(msgspec.Struct):
    tasks: list[UUID] | None = None
    running: bool = True


_OFF = msgspec.json.Decoder(_Off)


class BatchCancel(LeanView):
    """`POST /api/v1/batches/{id or name}/cancel`: calls off its tasks, or some of them."""

    http_method_names = ["post"]  # noqa: RUF012  # as the base class has it
    needs: ClassVar = {"POST": (SUBMIT,)}

    async def post(self, request: LeanRequest, batch: str) -> HttpResponse:
        off = decode(_OFF, request.body) if request.body else _Off()
        found = await _find(request, batch)
        caller = await services().caller(request.scope)
        ended, running = await services().batches.cancel(found, off.tasks, running=off.running)
        services().note(caller, request.scope, "cancel", f"{len(ended) + len(running)} tasks of batch {found.id}")
        return answer(request, 200, {"cancelled": ended, "being_cancelled": running})


async def _submit(request: LeanRequest, batch: UUID | None) -> Added:
    key = idempotency_key(request)
    caller = await services().caller(request.scope)
    added = await services().batches.submit(caller, batch, request.body, key, packed=is_packed(request))
    if added.is_new:
        services().count(caller, request.scope, "submit", len(added.tasks) // statements.ID_BYTES)
    return added


async def _find(request: LeanRequest, name_or_id: str) -> BatchView:
    return await services().batches.find(await services().caller(request.scope), name_or_id)


def _added(added: Added) -> dict[str, Any]:
    tasks = [UUID(bytes=task) for task in statements.split(added.tasks)]
    return {"batch_id": added.batch, "first": added.first, "task_ids": tasks}


def _shown(batch: BatchView) -> dict[str, Any]:
    created = datetime.fromtimestamp(batch.created, UTC)
    return {"id": batch.id, "name": batch.name, "created": created, "size": batch.size}


def _number(request: LeanRequest, name: str, default: int, *, low: int = 0, high: int = 1 << 31) -> int:
    text = request.GET.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text[:12]) <= high):
        raise InvalidRequest(f"{name} must be a number from {low} to {high}", field=name)
    return int(text)


def _id(request: LeanRequest, name: str) -> UUID | None:
    text = request.GET.get(name)
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise InvalidRequest(f"{name} must be an id", field=name) from None
