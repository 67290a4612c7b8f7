"""What is answered when a request is not done. An exception class here *is* a status and a code.

    ApiError
    ├── InvalidRequest     400  the body is no JSON, or a field is missing, of the wrong type or no payload
    ├── Unauthorized       401  no token, or one that is not let in
    ├── Forbidden          403  a token of too small a scope, an unknown Host, or a page of somebody else's
    ├── NotFound           404
    ├── MethodNotAllowed   405
    ├── Conflict           409  the same Idempotency-Key with another body
    ├── NotEnded           409  what can be done with a task only when it has ended
    ├── TooLarge           413
    ├── NotJson            415
    ├── TooMany            429  over a limit; `retry_after` says when to come again
    ├── InternalError      500  our own mistake: logged, and nothing of it shown
    ├── Unavailable        503  nothing was accepted; `retry_after` says when to come again
    └── OutcomeUnknown     504  the database was lost while it committed, and cannot be asked

`answer_to` turns whatever was raised into one of these, so that views hold no try and no except.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec
from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions as drf
from rest_framework.response import Response

from everythingfaas.errors import InvalidPayload, StoreUnavailable

log = logging.getLogger("api")

JSON = "application/json"
MSGPACK = "application/msgpack"


class ApiError(Exception):
    """Root of what the HTTP side answers instead of what was asked for."""

    status: ClassVar[int]
    code: ClassVar[str]

    def __init__(self, message: str, *, field: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.headers = headers or {}

    def content(self) -> dict[str, dict[str, str]]:
        error = {"code": self.code, "message": self.message}
        if self.field is not None:
            error["field"] = self.field
        return {"error": error}

    def body(self) -> bytes:
        return msgspec.json.encode(self.content())


class InvalidRequest(ApiError):
    status = 400
    code = "invalid_request"


class Unauthorized(ApiError):
    status = 401
    code = "unauthorized"

    def __init__(self, message: str = "this needs a token: send the header `Authorization: Bearer faas_…`") -> None:
        super().__init__(message, headers={"WWW-Authenticate": 'Bearer realm="EverythingFaaS"'})


class Forbidden(ApiError):
    status = 403
    code = "forbidden"


class NotFound(ApiError):
    status = 404
    code = "not_found"


class MethodNotAllowed(ApiError):
    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        names = ", ".join(allowed)
        super().__init__(f"{method} is not allowed here; use {names}", headers={"Allow": names})


class Conflict(ApiError):
    status = 409
    code = "idempotency_conflict"


class NotEnded(ApiError):
    status = 409
    code = "not_ended"


class TooLarge(ApiError):
    status = 413
    code = "too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes, the most that is read here (FAAS_MAX_BODY_BYTES)")


class NotJson(ApiError):
    status = 415
    code = "unsupported_media_type"


class _Later(ApiError):
    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class TooMany(_Later):
    status = 429
    code = "too_many"


class InternalError(ApiError):
    status = 500
    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("something went wrong here, and the log of the web process says what")


class Unavailable(_Later):
    status = 503
    code = "unavailable"


class OutcomeUnknown(ApiError):
    status = 504
    code = "outcome_unknown"


def answer_to(exc: Exception) -> ApiError:
    """The answer to a request that ended in `exc`. What nobody expected is logged here, with its traceback."""
    match exc:
        case ApiError():
            return exc
        case InvalidPayload():
            return InvalidRequest(str(exc), field="payload")
        case StoreUnavailable():
            return Unavailable(str(exc))
        case OperationalError() | InterfaceError():
            log.warning("the database cannot be used: %s", exc)
            return Unavailable("the database cannot be reached or written now; nothing was accepted")
        case Http404():
            return NotFound("there is nothing here")
        case RequestDataTooBig():
            return TooLarge(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        case PermissionDenied():
            return Forbidden("this is not for you")
        case drf.APIException():
            return _of_drf(exc)
    log.error("unexpected %s", type(exc).__name__, exc_info=exc)
    return InternalError()


class _OfDrf(ApiError):
    """Whatever else Django REST framework answers, in our form."""

    def __init__(self, exc: drf.APIException) -> None:
        super().__init__(str(exc.detail))
        self.status = exc.status_code  # type: ignore[misc]
        self.code = exc.default_code  # type: ignore[misc]


def _of_drf(exc: drf.APIException) -> ApiError:
    if isinstance(exc, drf.ValidationError):
        field, message = _first(exc.detail)
        return InvalidRequest(message, field=field)
    if isinstance(exc, drf.ParseError):
        return InvalidRequest(str(exc.detail))
    return _OfDrf(exc)


def _first(detail: Any, field: str | None = None) -> tuple[str | None, str]:
    """The first complaint in the details of a ValidationError, and what it is about."""
    while isinstance(detail, dict | list):
        if isinstance(detail, dict):
            name, detail = next(iter(detail.items()))
            field = None if name == "non_field_errors" else name
        else:
            detail = detail[0]
    return field, str(detail)


def drf_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """`EXCEPTION_HANDLER` of the views that Django REST framework runs."""
    if isinstance(exc, drf.MethodNotAllowed):
        view = context["view"]
        exc = MethodNotAllowed(context["request"].method or "", view.allowed_methods)
    error = answer_to(exc)
    response = Response(error.content(), status=error.status, headers=error.headers)
    response.exception = True
    return response


def response_to(error: ApiError) -> HttpResponse:
    return HttpResponse(error.body(), content_type=JSON, status=error.status, headers=error.headers)


# The handlers of the URLconf: what Django itself refuses, in our form.


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return response_to(InvalidRequest("the request cannot be read"))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return response_to(Forbidden("this is not for you"))


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return response_to(NotFound(f"there is nothing at {request.path}"))


def server_error(request: HttpRequest) -> HttpResponse:
    return response_to(InternalError())
