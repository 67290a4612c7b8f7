"""What is answered about batches: in JSON, with bytes in base64, or in msgpack, with bytes as they are."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse
from msgspec import Struct

from api.batches.statements import Ended
from api.errors import JSON, MSGPACK

encode_json = msgspec.json.Encoder().encode
encode_packed = msgspec.msgpack.Encoder().encode


class Error(Struct, frozen=True):
    """What was raised, as text."""

    type: str
    message: str
    traceback: str


class TaskResult(Struct, frozen=True):
    index: int  #: its number in the batch
    task_id: UUID
    state: str
    size: int  #: bytes of the result
    result: bytes  #: pickle of the value or the exception; over a WebSocket empty where that is too large
    error: Error | None

    @classmethod
    def of(cls, number: int, ended: Ended) -> TaskResult:
        error = None
        if ended.error_type is not None:
            error = Error(ended.error_type, ended.message or "", ended.traceback or "")
        return cls(number, ended.task, ended.state.name, ended.size, ended.result, error)


class Page(Struct, frozen=True):
    results: list[TaskResult]
    cursor: str
    pending: int  #: so many tasks are still to come
    size: int


def is_packed(request: HttpRequest) -> bool:
    """Whether the body is msgpack."""
    kind: str = request.META.get("CONTENT_TYPE", "")
    return kind.partition(";")[0].strip().lower() == MSGPACK


def answer(request: HttpRequest, status: int, content: Any, headers: dict[str, str] | None = None) -> HttpResponse:
    """In msgpack for those who say that they accept it."""
    if MSGPACK in request.META.get("HTTP_ACCEPT", ""):
        return HttpResponse(encode_packed(content), content_type=MSGPACK, status=status, headers=headers)
    return HttpResponse(encode_json(content), content_type=JSON, status=status, headers=headers)
