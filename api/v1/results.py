"""Results without Python: in JSON, wherever they are plain data, or as the bytes that they are."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpResponse

from api.access.caller import Caller
from api.batches import statements
from api.batches.service import LARGE_BYTES
from api.errors import NotEnded
from api.lean import LeanRequest, LeanView, answer
from api.moves import TaskView
from api.requests import wait_s
from api.services import no_such, parse_id, services
from everythingfaas.plain import NotPlain, to_json
from everythingfaas.status import State

BYTES = "application/octet-stream"


class Result(LeanView):
    """`GET /api/v1/tasks/{id}/result`: what it ended with, in JSON; or as bytes, for who accepts only these."""

    http_method_names = ["get", "head"]  # noqa: RUF012  # as the base class has it

    async def get(self, request: LeanRequest, task_id: str) -> HttpResponse:
        task = parse_id(task_id, "task")
        patience = wait_s(request)
        caller = await services().caller(request.scope)
        if patience:
            await services().outcome_within(caller, task, patience, request.gone)
        view = await _view(caller, task)
        if BYTES not in request.META.get("HTTP_ACCEPT", ""):
            return await in_json(view)
        if not view.state.is_terminal:
            raise NotEnded(f"the task is {view.state.name}; ask with ?wait=30", field="task_id")
        return HttpResponse(view.result or b"", content_type=BYTES, headers={"Faas-State": view.state.name})


def address(task: UUID) -> str:
    return f"/api/v1/tasks/{task}/result"


async def value_of(caller: Caller, task: UUID) -> HttpResponse:
    """200 with the result; 202 if there is none yet."""
    return await in_json(await _view(caller, task))


async def in_json(view: TaskView) -> HttpResponse:
    """The same of a task whose row is read."""
    content: dict[str, Any] = {"task_id": view.id, "state": view.state.name}
    if not view.state.is_terminal:
        response = answer(202, content)
        response.headers["Location"] = address(view.id)
        return response
    if view.state is State.COMPLETED:
        return answer(200, content | await _value(view))
    return answer(200, {**content, "error": await _error(view)})


async def _value(view: TaskView) -> dict[str, Any]:
    raw = view.result or b""
    try:
        text = await asyncio.to_thread(to_json, raw) if len(raw) > LARGE_BYTES else to_json(raw)
    except NotPlain as exc:
        return {"result": None, "not_json": str(exc), "bytes": address(view.id)}
    return {"result": msgspec.Raw(text)}


async def _error(view: TaskView) -> dict[str, str]:
    said = await services().reader.call(partial(statements.errors, attempts=[(view.id, view.attempt)]))
    kind, message, traceback = said.get(view.id, (None, None, None))
    return {
        "type": kind or ("TaskCancelled" if view.state is State.CANCELLED else "WorkerFailure"),
        "message": message or view.error or "",
        "traceback": traceback or "",
    }


async def _view(caller: Caller, task: UUID) -> TaskView:
    view = await services().reader.task(task)
    if view is None or not caller.may_see(view.owner):
        raise no_such("task", str(task))
    return view
