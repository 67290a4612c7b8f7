"""What clients send to the views that Django REST framework runs."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class TextField(serializers.CharField):
    """Text as it was sent. Unlike its base, it takes no number for text, and cuts nothing off."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, allow_blank=True, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data


class AsItIsField(serializers.Field[Any, Any, Any, Any]):
    """Whatever was sent, to be looked at by whoever it is for."""

    def to_internal_value(self, data: Any) -> Any:
        return data


class RegisterSerializer(serializers.Serializer[Any]):
    """`POST /register_function`."""

    name = TextField()
    payload = TextField()
    policy = AsItIsField(required=False, allow_null=True, default=None)
