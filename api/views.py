"""The REST contract. Each view decodes, calls one service and encodes; what goes wrong is raised."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import msgspec
from django.http import HttpResponse
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from api import pages
from api.access.caller import caller_of
from api.access.records import done
from api.codec import JsonRenderer, decode
from api.functions import register
from api.lean import LeanRequest, LeanView, answer
from api.requests import idempotency_key, wait_s
from api.serializers import RegisterSerializer
from api.services import parse_id, services
from everythingfaas import serialize

#: Results larger than this are encoded on a thread, in turns with the event loop.
LARGE_BYTES = 256 * 1024


class RegisterFunction(APIView):
    """`POST /register_function`: stores a function, and answers with its id."""

    def post(self, request: Request) -> Response:
        serializer = RegisterSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        caller = caller_of(request._request)  # noqa: SLF001  # where the scope is
        function = register(caller, **serializer.validated_data)
        done(request, "register", str(function))
        return Response({"function_id": str(function)}, status=201)


class _ExecuteCall(msgspec.Struct):
    function_id: str
    payload: str
    policy: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_EXECUTE_CALL = msgspec.json.Decoder(_ExecuteCall)


class ExecuteFunction(LeanView):
    """`POST /execute_function`: accepts a task, and answers with its id once it is committed."""

    async def post(self, request: LeanRequest) -> HttpResponse:
        call = decode(_EXECUTE_CALL, request.body)
        of_task = None if isinstance(call.policy, msgspec.UnsetType) else bytes(call.policy)
        caller = await services().caller(request.scope)
        task = await services().execute(caller, call.function_id, call.payload, idempotency_key(request), of_task)
        services().count(caller, request.scope, "submit")
        return answer(201, {"task_id": str(task)})


class TaskStatus(LeanView):
    """`GET /status/{task_id}`: how far a task has come."""

    async def get(self, request: LeanRequest, task_id: str) -> HttpResponse:
        task = parse_id(task_id, "task")
        outcome = await services().outcome(await services().caller(request.scope), task, with_result=False)
        return answer(200, {"task_id": str(task), "status": outcome.status})


class TaskResult(LeanView):
    """`GET /result/{task_id}`: what it ended with. With `?wait=30`, not before it has, or 30 seconds are over."""

    async def get(self, request: LeanRequest, task_id: str) -> HttpResponse:
        task = parse_id(task_id, "task")
        patience = wait_s(request)
        caller = await services().caller(request.scope)
        if patience:
            outcome = await services().outcome_within(caller, task, patience, request.gone)
        else:
            outcome = await services().outcome(caller, task)
        raw = outcome.result
        if len(raw) > LARGE_BYTES:
            text = await asyncio.to_thread(serialize.encode, raw)
        else:
            text = serialize.encode(raw)
        return answer(200, {"task_id": str(task), "status": outcome.status, "result": text})


class Health(LeanView):
    """`GET /healthz`: this process answers. Nothing else is asked, so that it is not restarted for others' faults."""

    needs: ClassVar[dict[str, tuple[str, ...]]] = {}  # public

    async def get(self, request: LeanRequest) -> HttpResponse:
        return answer(200, {"status": "ok"})


class Ready(LeanView):
    """`GET /readyz`: whether tasks can be accepted and are worked on."""

    needs: ClassVar[dict[str, tuple[str, ...]]] = {}  # public

    async def get(self, request: LeanRequest) -> HttpResponse:
        readiness = await services().readiness()
        return answer(200 if readiness.ready else 503, {"status": readiness.status, "checks": readiness.checks})


class Home(APIView):
    """`GET /`: who is here, for programs; for browsers the page."""

    content_negotiation_class = DefaultContentNegotiation
    renderer_classes = (JsonRenderer, TemplateHTMLRenderer)  # in this order: `*/*` means JSON
    metadata_class = None  # or what a browser is told of OPTIONS would want a template

    def get(self, request: Request) -> Response:
        if request.accepted_renderer.format == "html":
            return Response(pages.dashboard(request), template_name="dashboard.html")
        return Response(pages.greeting())
