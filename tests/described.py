"""Holds answers against the description of the API."""

from __future__ import annotations

from typing import Any

import jsonschema


def as_described(schema: dict[str, Any], method: str, path: str, status: int, content: Any) -> None:
    """Fails unless `schema` says that `method` on `path` may be answered so. `content`: None for an answer without
    a body.

    Nothing more than what is said, either: a field that is not described is a mistake of ours.
    """
    responses = schema["paths"][path][method.lower()]["responses"]
    assert str(status) in responses, f"{method} {path} answered {status}: {content}"
    described = responses[str(status)].get("content")
    assert (described is None) == (content is None), (method, path, status)
    if described is not None:
        closed = {**described["application/json"]["schema"], "components": _closed(schema["components"])}
        jsonschema.validate(content, closed)


def _closed(components: dict[str, Any]) -> dict[str, Any]:
    schemas = {
        name: {**schema, "additionalProperties": False} if "properties" in schema else schema
        for name, schema in components["schemas"].items()
    }
    return {"schemas": schemas}
