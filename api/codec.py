"""JSON in and out. A body that is no JSON is the client's mistake, however it is broken: 400, never a 5xx."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import IO, Any, TypeVar

import msgspec
from rest_framework.exceptions import ParseError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from api.errors import JSON, InvalidRequest

T = TypeVar("T")

encode = msgspec.json.encode

#: Beside its own error, msgspec raises these for text that is not UTF-8 and for arrays in arrays without end.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# How msgspec names the field that does not fit: "... - at `$.payload`", "missing required field `payload`".
_FIELD = re.compile(r"`\$\.(\w+)|field `(\w+)`")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """What `decoder` reads in `body`.

    Raises:
        InvalidRequest: it is not JSON, a field is missing or a field has the wrong type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        found = _FIELD.search(str(exc))
        field = found and (found[1] or found[2])
        raise InvalidRequest(str(exc) if field else "the body must be a JSON object", field=field) from exc
    except NOT_JSON as exc:
        raise InvalidRequest(f"the body is not JSON: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    return "arrays in arrays without end" if isinstance(exc, RecursionError) else str(exc)


class JsonParser(BaseParser):
    """Reads what clients send to the views that Django REST framework runs."""

    media_type = JSON

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return msgspec.json.decode(stream.read())
        except NOT_JSON as exc:
            raise ParseError(f"the body is not JSON: {_reason(exc)}") from exc


class JsonRenderer(BaseRenderer):
    """Writes what they answer."""

    media_type = JSON
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        return b"" if data is None else encode(data)


class AlwaysJson(BaseContentNegotiation):
    """Who calls an API that speaks JSON gets JSON, whatever else they say that they accept."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        return next(iter(parsers), None)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type
