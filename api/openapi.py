"""The description of the API: `/api/schema/`, and a page that shows it, `/api/docs/`.

Views say what they do; what goes in and what comes out of them is said here, in one place, with the serializers
that make the answers wherever there are some. The page is Swagger UI from the files of drf-spectacular-sidecar:
nothing of it comes from anywhere else.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import resolve
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from api import views as contract
from api.access.caller import SCOPES, needed
from api.batches import intake
from api.batches import views as batches
from api.batches.service import PAGE_RESULTS
from api.v1 import invoke, parameters, results
from api.v1 import tokens as v1_tokens
from api.v1 import views as v1
from api.v1.serializers import (
    ErrorSerializer,
    FunctionDetailSerializer,
    FunctionPageSerializer,
    PolicySerializer,
    TaskDetailSerializer,
    TaskPageSerializer,
    WorkersSerializer,
)
from everythingfaas.status import CONTRACT_STATES, State


class Schema(APIView):
    """`GET /api/schema/`: this API, as OpenAPI."""

    schema = None

    def get(self, request: Request) -> Response:
        return Response(document())


def docs(request: HttpRequest) -> HttpResponse:
    """`GET /api/docs/`: the same for people. Swagger UI needs nothing that our policy for all pages does not allow."""
    return render(request, "api_docs.html", {"tokens": settings.FAAS.tokens})


@cache
def document() -> dict[str, Any]:
    """The description. It does not change while a process lives."""
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]
    found: dict[str, Any] = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return found


#: Ways in, by their names. That of a page needs the second as well for whatever changes something.
_SCHEMES: dict[str, dict[str, str]] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "faas_…",
        "description": "A token, from `faas token create` or `POST /api/v1/tokens`. What an operation needs of its "
        "scopes stands behind it: one of them. `admin` is all of them, and everybody's objects.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": settings.SESSION_COOKIE_NAME,
        "description": "Who has logged in at `/login/`: read and submit; for administrators everything.",
    },
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRFToken",
        "description": "Beside a session, for whatever changes something: the proof that one of our pages has sent it.",
    },
}
_SAFE = ("get", "head", "options")


def secured(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Says of each operation who is let in, by what the gate itself asks: `api.access.caller.needed`."""
    result["components"]["securitySchemes"] = _SCHEMES
    for path, operations in result["paths"].items():
        match = resolve(re.sub(r"\{\w+\}", "0", path))
        for method, operation in operations.items():
            needs = needed(match, method.upper())
            operation["security"] = [] if needs is None else _ways(sorted(needs, key=SCOPES.index), method)
    return result


def _ways(scopes: list[str], method: str) -> list[dict[str, list[str]]]:
    session: dict[str, list[str]] = {"session": []} if method in _SAFE else {"session": [], "csrf": []}
    ways = [*({"token": [scope]} for scope in scopes), session]
    return ways if settings.FAAS.tokens else [{}, *ways]


def each_once(endpoints: list[tuple[str, ...]], **_: Any) -> list[tuple[str, ...]]:
    """Of the two forms of a path, with and without a slash at its end, the one without."""
    return [endpoint for endpoint in endpoints if endpoint[0] == "/" or not endpoint[0].endswith("/")]


# What only the contract's calls send and answer.


class _RegisterCall(serializers.Serializer[Any]):
    name = serializers.CharField()
    payload = serializers.CharField(help_text="base64 of the dill of a callable")
    policy = PolicySerializer(required=False, allow_null=True)


class _Registered(serializers.Serializer[Any]):
    function_id = serializers.UUIDField()


class _ExecuteCall(serializers.Serializer[Any]):
    function_id = serializers.UUIDField()
    payload = serializers.CharField(help_text="base64 of the dill of `((args, ...), {kwargs})`")
    policy = PolicySerializer(required=False, allow_null=True, help_text="goes before that of the function")


class _Executed(serializers.Serializer[Any]):
    task_id = serializers.UUIDField()


class _Status(serializers.Serializer[Any]):
    task_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=CONTRACT_STATES)


class _Result(_Status):
    result = serializers.CharField(
        allow_blank=True, help_text="base64 of the dill of the value or the exception; empty until the task has ended"
    )


class _Greeting(serializers.Serializer[Any]):
    message = serializers.CharField()
    version = serializers.CharField()
    endpoints = serializers.ListField(child=serializers.CharField())


class _Ticket(serializers.Serializer[Any]):
    ticket = serializers.CharField(help_text="offer `faas.ticket.` and this as a subprotocol of the WebSocket `/live`")
    expires_s = serializers.IntegerField()


class _Health(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=["ok"])


class _Readiness(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=["ok", "degraded", "unavailable"])
    checks = serializers.DictField(child=serializers.CharField())


class _FunctionChange(serializers.Serializer[Any]):
    policy = PolicySerializer(allow_null=True, help_text="the keys that change; null, as a key or as a whole: defaults")


class _BatchTask(serializers.Serializer[Any]):
    function_id = serializers.UUIDField(required=False, help_text="if it is another one than that of the batch")
    payload = serializers.CharField(required=False, help_text="as with `execute_function`; in msgpack the bytes")
    args = serializers.ListField(required=False, help_text="in JSON, instead of a payload: plain data")
    kwargs = serializers.DictField(required=False)
    policy = PolicySerializer(required=False, allow_null=True, help_text="instead of that of the batch")


class _BatchCall(serializers.Serializer[Any]):
    tasks = _BatchTask(many=True)
    name = serializers.CharField(required=False, max_length=intake.MAX_NAME_CHARS)
    function_id = serializers.UUIDField(required=False, help_text="of those tasks that name none")
    policy = PolicySerializer(required=False, allow_null=True, help_text="of those tasks that have none")


class _BatchAdded(serializers.Serializer[Any]):
    batch_id = serializers.UUIDField()
    first = serializers.IntegerField(help_text="number in the batch of the first of these tasks")
    task_ids = serializers.ListField(child=serializers.UUIDField())


class _Batch(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    created = serializers.DateTimeField()
    size = serializers.IntegerField(help_text="tasks")


class _BatchPage(serializers.Serializer[Any]):
    batches = _Batch(many=True)
    next = serializers.UUIDField(allow_null=True, help_text="`before` of the next page; null on the last one")


class _BatchDetail(_Batch):
    states = serializers.DictField(child=serializers.IntegerField(), help_text="tasks by state")
    pending = serializers.IntegerField(help_text="tasks that have not ended")


class _BatchTasks(serializers.Serializer[Any]):
    first = serializers.IntegerField()
    task_ids = serializers.ListField(child=serializers.UUIDField(), help_text="in the order of the batch")
    size = serializers.IntegerField()


class _RaisedError(serializers.Serializer[Any]):
    type = serializers.CharField()
    message = serializers.CharField()
    traceback = serializers.CharField()


class _BatchResult(serializers.Serializer[Any]):
    index = serializers.IntegerField(help_text="number in the batch")
    task_id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=[state.name for state in State if state.is_terminal])
    size = serializers.IntegerField(help_text="bytes of the result")
    result = serializers.CharField(
        allow_blank=True,
        help_text="base64 of the dill of the value or the exception; over the WebSocket empty where it is too large",
    )
    error = _RaisedError(allow_null=True)


class _BatchResults(serializers.Serializer[Any]):
    results = _BatchResult(many=True)
    cursor = serializers.CharField(help_text="`after` of the next request")
    pending = serializers.IntegerField(help_text="tasks that are still to come")
    size = serializers.IntegerField()


class _BatchOff(serializers.Serializer[Any]):
    tasks = serializers.ListField(child=serializers.UUIDField(), required=False, help_text="only these")
    running = serializers.BooleanField(default=True, help_text="false: leave alone what a dispatcher has got")


class _BatchCancelled(serializers.Serializer[Any]):
    cancelled = serializers.ListField(child=serializers.UUIDField())
    being_cancelled = serializers.ListField(child=serializers.UUIDField(), help_text="they run, and are being killed")


class _NewFunction(_RegisterCall):
    payload = serializers.CharField(required=False, help_text="base64 of the dill of a callable; or, instead of it:")
    source = serializers.CharField(  # type: ignore[assignment]  # fields are no attributes
        required=False, help_text="text of a Python module; compiled where it runs"
    )
    entrypoint = serializers.CharField(required=False, help_text="name of the function in the source")
    python = serializers.CharField(required=False, allow_null=True, help_text='as "3.11": which alone may run it')
    reuse = serializers.BooleanField(
        required=False, help_text="answer 200 with the id of the very same, if there is one"
    )


class _InvokeCall(serializers.Serializer[Any]):
    args = serializers.ListField(required=False)
    kwargs = serializers.DictField(required=False)
    policy = PolicySerializer(required=False, allow_null=True, help_text="goes before that of the function")


class _Accepted(serializers.Serializer[Any]):
    task_id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=[state.name for state in State])


class _Value(_Accepted):
    result = serializers.JSONField(required=False, help_text="what the function has returned")
    not_json = serializers.CharField(required=False, help_text="why `result` is null: it has no form in JSON")
    bytes = serializers.CharField(required=False, help_text="where its bytes are")
    error = _RaisedError(required=False)


for _serializer in (
    _NewFunction,
    _InvokeCall,
    _Accepted,
    _Value,
    _BatchTask,
    _BatchCall,
    _BatchAdded,
    _Batch,
    _BatchPage,
    _BatchDetail,
    _BatchTasks,
    _RaisedError,
    _BatchResult,
    _BatchResults,
    _BatchOff,
    _BatchCancelled,
    _RegisterCall,
    _Registered,
    _ExecuteCall,
    _Executed,
    _Status,
    _Result,
    _Greeting,
    _Ticket,
    _Health,
    _Readiness,
):
    _serializer.__name__ = _serializer.__name__.lstrip("_")
_FunctionChange.__name__ = "FunctionChange"

_TASK = OpenApiParameter("task_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_FUNCTION = OpenApiParameter("function_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_BATCH = OpenApiParameter("batch", str, OpenApiParameter.PATH, description="id; or name, of which the newest is meant")
_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="1 to 200 characters; the same request with the same key is accepted once",
)
_PAGE = (
    OpenApiParameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": parameters.MAX_PAGE, "default": parameters.PAGE}
    ),
    OpenApiParameter("before", OpenApiTypes.UUID, description="`next` of the page before"),
)

_REFUSALS = {
    400: "the body is no JSON, or a field is missing, wrong, or no payload",
    401: "no token, or one that is not let in; only where tokens are on",
    403: "the token has not the scope for this; or the request comes from a page of somebody else's",
    404: "there is none, or it is somebody else's",
    409: "the same Idempotency-Key came with another body",
    413: "the body is too large",
    415: "the body is not `application/json`",
    429: "too much waits already; `Retry-After` says when to come again",
    503: "the database cannot be reached or written: nothing was accepted, and `Retry-After` says when to come again",
}


_NO_FUNCTION = "there is no such batch or function, or it is somebody else's"


def _limit(most: int) -> OpenApiParameter:
    return OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": most, "default": most})


def _wait(what: str) -> OpenApiParameter:
    return OpenApiParameter("wait", {"type": "number", "minimum": 0, "default": 0}, description=what)


def _answers(success: dict[int, Any], *refusals: int, **other: str) -> dict[int, Any]:
    """`success` by status, and how the call may be refused; `s409="…"` says another reason than usually."""
    said = {code: other.get(f"s{code}", _REFUSALS[code]) for code in (*refusals, 401, 403, 503)}
    return success | {code: OpenApiResponse(ErrorSerializer, description=text) for code, text in said.items()}


def _describe(view: type[APIView], tag: str, **methods: dict[str, Any]) -> None:
    extend_schema_view(**{name: extend_schema(tags=[tag], auth=[], **said) for name, said in methods.items()})(view)


_CONTRACT, _TASKS, _FUNCTIONS, _SERVICE, _TOKENS = "contract", "tasks", "functions", "service", "tokens"
_TOKENS_OFF = "no tokens are asked for here"
_BATCHES = "batches"

_describe(
    contract.RegisterFunction,
    _CONTRACT,
    post={
        "operation_id": "register_function",
        "summary": "Store a function",
        "request": _RegisterCall,
        "responses": _answers({201: _Registered}, 400, 413, 415),
    },
)
_describe(
    contract.ExecuteFunction,
    _CONTRACT,
    post={
        "operation_id": "execute_function",
        "summary": "Accept a task: it is committed when this is answered",
        "parameters": [_KEY],
        "request": _ExecuteCall,
        "responses": _answers({201: _Executed}, 400, 404, 409, 413, 415, 429),
    },
)
_describe(
    contract.TaskStatus,
    _CONTRACT,
    get={
        "operation_id": "status",
        "summary": "How far a task has come",
        "parameters": [_TASK],
        "responses": _answers({200: _Status}, 404, 429),
    },
)
_describe(
    contract.TaskResult,
    _CONTRACT,
    get={
        "operation_id": "result",
        "summary": "What a task has ended with",
        "parameters": [_TASK, _wait("seconds to wait for its end, at most 60")],
        "responses": _answers({200: _Result}, 400, 404, 429, s400="wait is no number of seconds"),
    },
)
_describe(
    contract.Home,
    _SERVICE,
    get={
        "operation_id": "greeting",
        "summary": "Who is here; a browser gets a page",
        "responses": _answers({200: _Greeting}),
    },
)
_describe(contract.Health, _SERVICE, get={"operation_id": "health", "summary": "It lives", "responses": {200: _Health}})
_describe(
    contract.Ready,
    _SERVICE,
    get={
        "operation_id": "ready",
        "summary": "Whether tasks can be accepted and are worked on",
        "responses": {200: _Readiness, 503: _Readiness},
    },
)
_describe(
    v1.TaskList,
    _TASKS,
    get={
        "operation_id": "list_tasks",
        "summary": "Tasks, the newest first",
        "parameters": [
            *_PAGE,
            OpenApiParameter(
                "state",
                {"type": "array", "items": {"enum": [state.name for state in State]}},
                style="form",
                explode=False,
            ),
            OpenApiParameter("function", OpenApiTypes.UUID),
            OpenApiParameter("since", OpenApiTypes.DATETIME, description="accepted then or later"),
        ],
        "responses": _answers({200: TaskPageSerializer}, 400, s400="a parameter cannot be read"),
    },
)
_describe(
    v1.TaskDetail,
    _TASKS,
    get={
        "operation_id": "get_task",
        "summary": "All that is known of a task but its arguments and its result",
        "parameters": [_TASK],
        "responses": _answers({200: TaskDetailSerializer}, 404),
    },
)
_describe(
    v1.TaskCancel,
    _TASKS,
    post={
        "operation_id": "cancel_task",
        "summary": "End a task: what runs is killed with all that it has started",
        "parameters": [_TASK, _wait("seconds to wait for the kill, at most 60")],
        "request": None,
        "responses": _answers(
            {
                200: OpenApiResponse(TaskDetailSerializer, description="it has ended, now or before: see its state"),
                202: OpenApiResponse(TaskDetailSerializer, description="it runs, and the kill is on its way"),
            },
            400,
            404,
            429,
            s400="wait is no number of seconds",
        ),
    },
)
_describe(
    v1.TaskRetry,
    _TASKS,
    post={
        "operation_id": "retry_task",
        "summary": "A new task that does the same once more",
        "parameters": [_TASK, _KEY],
        "request": None,
        "responses": _answers(
            {201: TaskDetailSerializer},
            400,
            404,
            409,
            429,
            s400="the Idempotency-Key is empty or too long",
            s409="the task has not ended, or the Idempotency-Key came with another request",
        ),
    },
)
_VALUE = OpenApiResponse(_Value, description="it has ended: see its state")
_NOT_YET = OpenApiResponse(_Accepted, description="it has not ended; `Location` says where its result will be")
_describe(
    results.Result,
    _TASKS,
    get={
        "operation_id": "task_result",
        "summary": "What it has ended with, as JSON; or as bytes, for who accepts `application/octet-stream`",
        "parameters": [_TASK, _wait("seconds to wait for its end, at most 60")],
        "responses": _answers(
            {200: _VALUE, 202: _NOT_YET},
            400,
            404,
            409,
            429,
            s400="wait is no number of seconds",
            s409="bytes are asked for, and the task has not ended",
        ),
    },
)
_describe(
    invoke.Invoke,
    _FUNCTIONS,
    post={
        "operation_id": "invoke",
        "summary": "Call a function with plain JSON, and wait for its result",
        "parameters": [
            OpenApiParameter("function_id", str, OpenApiParameter.PATH, description="id; or name, the newest"),
            _wait("seconds to wait for its end, at most 60"),
            _KEY,
        ],
        "request": _InvokeCall,
        "responses": _answers({200: _VALUE, 202: _NOT_YET}, 400, 404, 409, 413, 415, 429),
    },
)
_describe(
    v1.FunctionList,
    _FUNCTIONS,
    post={
        "operation_id": "new_function",
        "summary": "Store a function, as a pickle or as text",
        "request": _NewFunction,
        "responses": _answers(
            {
                201: _Registered,
                200: OpenApiResponse(_Registered, description="the same was there, and `reuse` was said"),
            },
            400,
            413,
            415,
            429,
        ),
    },
    get={
        "operation_id": "list_functions",
        "summary": "Functions, the newest first",
        "parameters": [*_PAGE, OpenApiParameter("name", str)],
        "responses": _answers({200: FunctionPageSerializer}, 400, s400="a parameter cannot be read"),
    },
)
_describe(
    v1.FunctionDetail,
    _FUNCTIONS,
    get={
        "operation_id": "get_function",
        "summary": "A function",
        "parameters": [_FUNCTION],
        "responses": _answers({200: FunctionDetailSerializer}, 404),
    },
    patch={
        "operation_id": "change_function",
        "summary": "Change what its tasks follow from now on",
        "parameters": [_FUNCTION],
        "request": _FunctionChange,
        "responses": _answers({200: FunctionDetailSerializer}, 400, 404, 415, s400="what is said is no policy"),
    },
)
_describe(
    v1.WorkerList,
    _SERVICE,
    get={
        "operation_id": "list_workers",
        "summary": "Dispatchers and their workers",
        "responses": _answers({200: WorkersSerializer}),
    },
)
_describe(
    v1.Tickets,
    _SERVICE,
    post={
        "operation_id": "make_ticket",
        "summary": "What opens one WebSocket, once, within seconds",
        "request": None,
        "responses": _answers({201: _Ticket}, 400, s400="the body is no JSON"),
    },
)
_TOKEN_ID = OpenApiParameter("token_id", OpenApiTypes.INT64, OpenApiParameter.PATH)
_describe(
    v1_tokens.TokenList,
    _TOKENS,
    get={
        "operation_id": "list_tokens",
        "summary": "Your tokens, the newest first; with the scope admin everybody's",
        "parameters": [
            _PAGE[0],
            OpenApiParameter("before", OpenApiTypes.INT64, description="`next` of the page before"),
        ],
        "responses": _answers(
            {200: v1_tokens.TokenPageSerializer}, 400, 409, s400="a parameter cannot be read", s409=_TOKENS_OFF
        ),
    },
    post={
        "operation_id": "make_token",
        "summary": "Make a token, of no wider scope and no later end than your own; it is shown once",
        "request": v1_tokens.NewTokenSerializer,
        "responses": _answers(
            {201: v1_tokens.MadeTokenSerializer},
            400,
            409,
            413,
            415,
            s400="a field is missing or wrong, or there is a token of that name",
            s403="the token has not the scope for this, or would make one of a wider scope, or for somebody else",
            s409=_TOKENS_OFF,
        ),
    },
)
_describe(
    v1_tokens.TokenDetail,
    _TOKENS,
    get={
        "operation_id": "get_token",
        "summary": "A token, without itself",
        "parameters": [_TOKEN_ID],
        "responses": _answers({200: v1_tokens.TokenSerializer}, 404, 409, s409=_TOKENS_OFF),
    },
    delete={
        "operation_id": "revoke_token",
        "summary": "Let nobody in with it any more",
        "parameters": [_TOKEN_ID],
        "responses": _answers({204: None}, 404, 409, s409=_TOKENS_OFF),
    },
)
_describe(
    batches.BatchList,
    _BATCHES,
    get={
        "operation_id": "list_batches",
        "summary": "Batches, the newest first",
        "parameters": [*_PAGE, OpenApiParameter("name", str)],
        "responses": _answers({200: _BatchPage}, 400, s400="a parameter cannot be read"),
    },
    post={
        "operation_id": "make_batch",
        "summary": f"Accept up to {intake.MAX_TASKS} tasks in one transaction: all of them or none",
        "description": "The body may be `application/msgpack` as well, and so may the answer, by `Accept`.",
        "parameters": [_KEY],
        "request": _BatchCall,
        "responses": _answers(
            {201: _BatchAdded},
            400,
            404,
            409,
            413,
            415,
            429,
            s400="a task is wrong; `field` says which",
            s404=_NO_FUNCTION,
        ),
    },
)
_describe(
    batches.BatchDetail,
    _BATCHES,
    get={
        "operation_id": "get_batch",
        "summary": "A batch, and how far its tasks have come",
        "parameters": [_BATCH],
        "responses": _answers({200: _BatchDetail}, 404),
    },
)
_describe(
    batches.BatchTasks,
    _BATCHES,
    get={
        "operation_id": "list_batch_tasks",
        "summary": "The ids of its tasks, in their order",
        "parameters": [
            _BATCH,
            OpenApiParameter("first", {"type": "integer", "minimum": 0, "default": 0}),
            _limit(intake.MAX_TASKS),
        ],
        "responses": _answers({200: _BatchTasks}, 400, 404, s400="a parameter cannot be read"),
    },
    post={
        "operation_id": "extend_batch",
        "summary": "More tasks for a batch of one's own: all of them or none",
        "parameters": [OpenApiParameter("batch", OpenApiTypes.UUID, OpenApiParameter.PATH), _KEY],
        "request": _BatchCall,
        "responses": _answers(
            {201: _BatchAdded},
            400,
            404,
            409,
            413,
            415,
            429,
            s400="a task is wrong; `field` says which",
            s404=_NO_FUNCTION,
        ),
    },
)
_describe(
    batches.BatchResults,
    _BATCHES,
    get={
        "operation_id": "batch_results",
        "summary": "What has ended behind a cursor",
        "parameters": [
            _BATCH,
            OpenApiParameter("after", str, description="`cursor` of the answer before; without it from the start"),
            _limit(PAGE_RESULTS),
            _wait("seconds to wait, at most 60, while nothing has ended and something will"),
        ],
        "responses": _answers({200: _BatchResults}, 400, 404, 429, s400="a parameter cannot be read"),
    },
)
_describe(
    batches.BatchCancel,
    _BATCHES,
    post={
        "operation_id": "cancel_batch",
        "summary": "Call off its tasks, or some of them",
        "parameters": [_BATCH],
        "request": _BatchOff,
        "responses": _answers({200: _BatchCancelled}, 400, 404, 429, s400="the body is no JSON, or names other tasks"),
    },
)
