"""The calls. Each reads its parameters, asks one question or makes one change, and answers with what there is then."""

from __future__ import annotations

import hashlib
import time
from typing import Any, ClassVar
from uuid import UUID

from django.db import transaction
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from api import policy
from api.access import tokens
from api.access.caller import READ, WORKER, Caller, Sees, caller_of, sees_of
from api.access.records import done
from api.errors import InvalidRequest, NotEnded
from api.functions import Registered, register, register_once, register_source
from api.lean import LeanRequest, LeanView, answer
from api.models import Function, Payload, new_id
from api.moves import Submission
from api.requests import idempotency_key, wait_s
from api.serializers import NewFunctionSerializer
from api.services import forget_function, parse_id, services
from api.v1 import parameters, queries
from api.v1.serializers import (
    FunctionDetailSerializer,
    FunctionPageSerializer,
    TaskDetailSerializer,
    TaskPageSerializer,
    WorkersSerializer,
)
from everythingfaas.status import State


class TaskList(APIView):
    """`GET /api/v1/tasks`: tasks, the newest first."""

    def get(self, request: Request) -> Response:
        query = request.query_params
        tasks, following = queries.tasks(_sees(request), parameters.wanted(query), parameters.page(query))
        return Response(TaskPageSerializer({"tasks": tasks, "next": following}).data)


class TaskDetail(APIView):
    """`GET /api/v1/tasks/{id}`: all that is known of a task but its arguments and its result."""

    def get(self, request: Request, task_id: str) -> Response:
        return Response(_represented(_sees(request), parse_id(task_id, "task")))


class TaskCancel(LeanView):
    """`POST /api/v1/tasks/{id}/cancel`: what waits ends now, what runs is killed, what has ended stays as it is."""

    http_method_names = ["post"]  # noqa: RUF012  # as the base class has it

    async def post(self, request: LeanRequest, task_id: str) -> HttpResponse:
        task = parse_id(task_id, "task")
        patience = wait_s(request)
        caller = await services().caller(request.scope)
        task_now = await _read(caller, task)
        if not _has_ended(task_now):
            await services().canceller.cancel(task)
            services().note(caller, request.scope, "cancel", str(task))
            if patience:
                await services().outcome_within(caller, task, patience, request.gone)
            task_now = await _read(caller, task)
        return answer(200 if _has_ended(task_now) else 202, task_now)


class TaskRetry(LeanView):
    """`POST /api/v1/tasks/{id}/retry`: a new task that does the same once more."""

    http_method_names = ["post"]  # noqa: RUF012  # as the base class has it

    async def post(self, request: LeanRequest, task_id: str) -> HttpResponse:
        former = parse_id(task_id, "task")
        key = idempotency_key(request)
        caller = await services().caller(request.scope)
        payload = await services().reader.call(lambda _: queries.original(caller.sees, former))
        state = State(payload.task.state)
        if not state.is_terminal:
            raise NotEnded(
                f"the task is {state.name}; it can be retried when it has ended (cancel it to end it now)",
                field="task_id",
            )
        function = await services().function(caller, str(payload.task.function_id))
        task = await services().submit(caller, _again(caller, payload, function.queue, key))
        services().note(caller, request.scope, "retry", str(former))
        return answer(201, await _read(caller, task))


class FunctionList(APIView):
    """`GET /api/v1/functions`: functions, the newest first. `POST`: stores one, as a pickle or as a module's text."""

    def get(self, request: Request) -> Response:
        query = request.query_params
        functions, following = queries.functions(_sees(request), query.get("name"), parameters.page(query))
        return Response(FunctionPageSerializer({"functions": functions, "next": following}).data)

    def post(self, request: Request) -> Response:
        serializer = NewFunctionSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        said = serializer.validated_data
        caller = caller_of(request._request)  # noqa: SLF001  # where the scope is
        name, of_function, reuse = said["name"], said["policy"], said["reuse"]
        if "source" in said:
            stored = register_source(caller, name, said["source"], said["entrypoint"], of_function, reuse=reuse)
        elif reuse:
            stored = register_once(caller, name, said["payload"], of_function, said.get("python"))
        else:
            stored = Registered(register(caller, name, said["payload"], of_function, said.get("python")), is_new=True)
        return Response({"function_id": str(stored.function)}, status=201 if stored.is_new else 200)


class FunctionDetail(APIView):
    """`GET /api/v1/functions/{id}`: a function. `PATCH` changes what its tasks follow from now on."""

    def get(self, request: Request, function_id: str) -> Response:
        function = queries.function(_sees(request), parse_id(function_id, "function"))
        return Response(FunctionDetailSerializer(function).data)

    def patch(self, request: Request, function_id: str) -> Response:
        if not isinstance(request.data, dict) or "policy" not in request.data:
            raise InvalidRequest("the body must be a JSON object with a policy", field="policy")
        sees, function = _sees(request), parse_id(function_id, "function")
        with transaction.atomic():
            queries.function(sees, function)  # or there is none
            row = Function.objects.select_for_update().only("policy").get(id=function)
            row.policy = policy.changed(row.policy, request.data["policy"])
            row.save(update_fields=["policy"])
        forget_function(function)
        done(request, "change-policy", f"{function}: {row.policy or 'defaults'}")
        return Response(FunctionDetailSerializer(queries.function(sees, function)).data)


class WorkerList(APIView):
    """`GET /api/v1/workers`: dispatchers and their workers, as they described them when they renewed their leases.
    Which tasks they run is told of those that the caller sees."""

    needs: ClassVar = {"GET": (READ, WORKER)}

    def get(self, request: Request) -> Response:
        return Response(WorkersSerializer(queries.workers(sees_of(request))).data)


class Tickets(APIView):
    """`POST /api/v1/tickets`: what opens one WebSocket, once, for a page that must not hold a token."""

    needs: ClassVar = {"POST": (READ,)}

    def post(self, request: Request) -> Response:
        caller = caller_of(request._request)  # noqa: SLF001  # where the scope is
        ticket = tokens.ticket_for(caller.credential)
        done(request, "ticket")
        return Response({"ticket": ticket, "expires_s": tokens.TICKET_S}, status=201)


def _sees(request: Request) -> Sees:
    return caller_of(request._request).sees  # noqa: SLF001  # where the scope is


async def _read(caller: Caller, task: UUID) -> dict[str, Any]:
    return await services().reader.call(lambda _: _represented(caller.sees, task))


def _represented(sees: Sees, task: UUID) -> dict[str, Any]:
    return dict(TaskDetailSerializer(queries.task(sees, task)).data)


def _has_ended(represented: dict[str, Any]) -> bool:
    return State[represented["state"]].is_terminal


def _again(caller: Caller, former: Payload, queue: int, key: str | None) -> Submission:
    task, now = former.task, time.time()
    expires_s = None if task.expires_at is None else (task.expires_at - task.created).total_seconds()
    return Submission(
        id=new_id(),
        owner=caller.user,
        function=task.function_id,
        payload=bytes(former.data),
        created=now,
        queue=queue,
        priority=task.priority,
        expires_at=None if expires_s is None else now + expires_s,
        deadline_s=task.deadline_s,
        at_most_once=task.at_most_once,
        max_attempts=task.max_attempts,
        policy=task.policy,
        retry_of=task.id,
        idempotency_key=key,
        body_hash=None if key is None else hashlib.sha256(b"retry" + task.id.bytes).hexdigest(),
        codec=former.codec,
    )
